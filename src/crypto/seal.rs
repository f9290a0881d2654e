//! The packet path: one key, one direction, one channel. Datagrams are sealed and opened where they lie:
//!
//! ```text
//! 0 header 8 (written here, authenticated) | 8 inner kind, body (sealed) | tag 16 (written here)
//! ```
//!
//! A sealing key counts by itself, atomically, so it may be shared by threads behind an `Arc`; and refuses by
//! itself at its last counter and past [`LIFETIME`], whatever its owner forgot. The nonce is eight zero bytes
//! and the counter: the key is of one session and one direction, so no pair of them repeats.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey};

use super::keys::Secret32;
use super::suite::Suite;
use crate::sans::Instant;
use crate::wire::session::{Channel, HEADER, Header, OVERHEAD, TAG};

/// How long a key seals and opens, suspend included.
pub const LIFETIME: Duration = Duration::from_secs(180);
/// How many packets a key seals: every counter of 32 bits but the last.
pub const LAST_COUNTER: u64 = u32::MAX as u64;

/// Why a datagram was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no key.
    #[error("no session")]
    NotEstablished,
    /// The key is older than [`LIFETIME`].
    #[error("keys expired")]
    Expired,
    /// The key has sealed [`LAST_COUNTER`] packets.
    #[error("keys exhausted")]
    Exhausted,
    /// No room for header, inner kind and tag.
    #[error("no room for header and tag")]
    TooShort,
}

/// Why a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not of this format.
    #[error("malformed")]
    Malformed,
    /// No key has this index.
    #[error("unknown index")]
    UnknownIndex,
    /// The key is older than [`LIFETIME`].
    #[error("keys expired")]
    Expired,
    /// Seen before, or older than the replay window.
    #[error("replayed")]
    Replayed,
    /// Not sealed under this key.
    #[error("forged")]
    Forged,
}

/// Seals one direction of one channel.
pub struct SealingKey {
    key: LessSafeKey,
    channel: Channel,
    /// The receiver's index, on every packet.
    index: u32,
    born: Instant,
    counter: AtomicU64,
}

impl SealingKey {
    /// A key for packets to `index`, whose time starts at `born`.
    pub fn new(suite: Suite, key: &Secret32, channel: Channel, index: u32, born: Instant) -> Self {
        Self { key: bind(suite, key), channel, index, born, counter: AtomicU64::new(0) }
    }

    /// Seals a datagram whose inner kind and body stand between room for the header and room for the tag.
    pub fn seal(&self, now: Instant, datagram: &mut [u8]) -> Result<(), SealError> {
        if datagram.len() < OVERHEAD {
            return Err(SealError::TooShort);
        }
        if now.since(self.born) >= LIFETIME {
            return Err(SealError::Expired);
        }
        let counter = self.take_counter()?;
        let header = Header { channel: self.channel, index: self.index, counter }.encode();
        let (head, rest) = datagram.split_at_mut(HEADER);
        let (body, tag) = rest.split_last_chunk_mut::<TAG>().ok_or(SealError::TooShort)?;
        let made = self.key.seal_in_place_separate_tag(nonce(counter), Aad::from(header), body);
        tag.copy_from_slice(made.map_err(|_| SealError::TooShort)?.as_ref());
        head.copy_from_slice(&header);
        Ok(())
    }

    /// How many packets were sealed.
    pub fn used(&self) -> u64 {
        self.counter.load(Ordering::Relaxed).min(LAST_COUNTER)
    }

    /// Each counter once, over all threads. (2^64 refusals cannot happen, so the count never wraps.)
    fn take_counter(&self) -> Result<u32, SealError> {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        if counter >= LAST_COUNTER {
            return Err(SealError::Exhausted);
        }
        u32::try_from(counter).map_err(|_| SealError::Exhausted)
    }

    /// As if `n` packets had been sealed.
    #[cfg(test)]
    pub(crate) fn skip_to(&self, n: u64) {
        self.counter.store(n, Ordering::Relaxed);
    }
}

/// Opens one direction of one channel. What was seen before is its owner's [`super::ReplayWindow`].
pub struct OpeningKey {
    key: LessSafeKey,
    born: Instant,
}

impl OpeningKey {
    /// A key whose time starts at `born`.
    pub fn new(suite: Suite, key: &Secret32, born: Instant) -> Self {
        Self { key: bind(suite, key), born }
    }

    /// Opens a datagram with this header in place and says where inner kind and body are.
    pub fn open(&self, now: Instant, header: &Header, datagram: &mut [u8]) -> Result<Range<usize>, OpenError> {
        if datagram.len() < OVERHEAD {
            return Err(OpenError::Malformed);
        }
        if now.since(self.born) >= LIFETIME {
            return Err(OpenError::Expired);
        }
        let plain = self
            .key
            .open_in_place(nonce(header.counter), Aad::from(header.encode()), &mut datagram[HEADER..])
            .map_err(|_| OpenError::Forged)?;
        Ok(HEADER..HEADER + plain.len())
    }
}

fn bind(suite: Suite, key: &Secret32) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(suite.algorithm(), key.as_slice()).expect("both suites have keys of 32 bytes"))
}

fn nonce(counter: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[8..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({:?}, index {:06x}, …)", self.channel, self.index)
    }
}

impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpeningKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zeroize::Zeroizing;

    use super::*;

    const BORN: Instant = Instant::from_nanos(1_000_000_000);

    fn keys(suite: Suite) -> (SealingKey, OpeningKey) {
        let key = Zeroizing::new([3; 32]);
        (SealingKey::new(suite, &key, Channel::Data, 0x01_0203, BORN), OpeningKey::new(suite, &key, BORN))
    }

    fn datagram(body: &[u8]) -> Vec<u8> {
        [&[0; HEADER], body, &[0; TAG]].concat()
    }

    fn open(key: &OpeningKey, now: Instant, datagram: &mut [u8]) -> Result<Range<usize>, OpenError> {
        let header = Header::decode(datagram).map_err(|_| OpenError::Malformed)?;
        key.open(now, &header, datagram)
    }

    #[test]
    fn what_is_sealed_opens_in_place() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let (tx, rx) = keys(suite);
            for counter in 0..3 {
                let mut bytes = datagram(b"\x01packet");
                tx.seal(BORN, &mut bytes).expect("seals");
                assert_eq!(bytes[..HEADER], [0xe0, 1, 2, 3, 0, 0, 0, counter]);
                assert_ne!(&bytes[HEADER..HEADER + 7], b"\x01packet");
                let range = open(&rx, BORN, &mut bytes).expect("opens");
                assert_eq!(&bytes[range], b"\x01packet");
            }
        }
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let (tx, rx) = keys(Suite::Aes256Gcm);
        let mut bytes = datagram(b"\x01packet");
        tx.seal(BORN, &mut bytes).expect("seals");
        for i in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 1;
            assert!(open(&rx, BORN, &mut changed).is_err(), "byte {i}");
        }
    }

    #[test]
    fn a_key_refuses_past_its_lifetime() {
        let (tx, rx) = keys(Suite::ChaCha20Poly1305);
        let mut bytes = datagram(b"\x01");
        let (last, over) = (BORN + Duration::from_nanos(179_999_999_999), BORN + LIFETIME);
        assert_eq!(tx.seal(over, &mut bytes), Err(SealError::Expired));
        assert_eq!(tx.used(), 0);
        assert_eq!(tx.seal(last, &mut bytes), Ok(()));
        assert_eq!(open(&rx, over, &mut bytes), Err(OpenError::Expired));
        assert_eq!(open(&rx, last, &mut bytes), Ok(HEADER..HEADER + 1));
    }

    #[test]
    fn a_key_refuses_at_its_last_counter_for_ever() {
        let (tx, rx) = keys(Suite::Aes256Gcm);
        tx.skip_to(LAST_COUNTER - 1);
        let mut bytes = datagram(b"\x01");
        assert_eq!(tx.seal(BORN, &mut bytes), Ok(()));
        assert_eq!(bytes[4..8], [0xff, 0xff, 0xff, 0xfe]);
        assert!(open(&rx, BORN, &mut bytes).is_ok());
        for _ in 0..3 {
            assert_eq!(tx.seal(BORN, &mut bytes), Err(SealError::Exhausted));
        }
        tx.skip_to(u64::from(u32::MAX) + 1 + 5);
        assert_eq!(tx.seal(BORN, &mut bytes), Err(SealError::Exhausted), "never wraps to counter 5");
        assert_eq!(tx.used(), LAST_COUNTER);
    }

    #[test]
    fn what_is_too_short_is_refused() {
        let (tx, rx) = keys(Suite::Aes256Gcm);
        let header = Header { channel: Channel::Data, index: 0, counter: 0 };
        for len in 0..OVERHEAD {
            assert_eq!(tx.seal(BORN, &mut vec![0; len]), Err(SealError::TooShort));
            assert_eq!(rx.open(BORN, &header, &mut vec![0; len]), Err(OpenError::Malformed));
        }
    }

    #[test]
    fn keys_can_be_shared_by_threads() {
        fn shared<T: Send + Sync>(_: &Arc<T>) {}
        let (tx, rx) = keys(Suite::Aes256Gcm);
        shared(&Arc::new(tx));
        shared(&Arc::new(rx));
    }
}
