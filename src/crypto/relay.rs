//! The tag on relay frames: SipHash-2-4 under a registration's key of one direction. Cheap enough for every
//! packet, and enough to keep strangers from using a channel; what is inside is sealed end to end.

use std::fmt;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// How much of a payload its tag covers, bytes.
const COVERED: usize = 32;

/// The key of one direction of one registration.
#[derive(Clone)]
pub struct RelayKey(Zeroizing<[u8; 16]>);

impl RelayKey {
    /// A derived key.
    pub const fn new(bytes: Zeroizing<[u8; 16]>) -> Self {
        Self(bytes)
    }

    /// The tag of `payload` on `channel`: over channel u32, length u32 and the first 32 bytes.
    pub fn tag(&self, channel: u32, payload: &[u8]) -> u64 {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&channel.to_be_bytes());
        hasher.write(&len.to_be_bytes());
        hasher.write(&payload[..payload.len().min(COVERED)]);
        hasher.finish()
    }

    /// Whether `tag` is that tag.
    pub fn check(&self, channel: u32, payload: &[u8], tag: u64) -> bool {
        self.tag(channel, payload).ct_eq(&tag).into()
    }
}

impl PartialEq for RelayKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for RelayKey {}

impl fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_siphash_2_4() {
        // The paper's vector (appendix A): key 00…0f, message 00…0e. Here the first 8 bytes are channel and length.
        let key = RelayKey::new(Zeroizing::new(std::array::from_fn(|i| u8::try_from(i).expect("small"))));
        let mut hasher = SipHasher24::new_with_key(&key.0);
        hasher.write(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        assert_eq!(hasher.finish(), 0xa129_ca61_49be_45e5);
        let mut hasher = SipHasher24::new_with_key(&key.0);
        hasher.write(&[0, 1, 2, 3, 0, 0, 0, 2, 8, 9]);
        assert_eq!(key.tag(0x0001_0203, &[8, 9]), hasher.finish());
    }

    #[test]
    fn channel_length_and_head_are_covered() {
        let key = RelayKey::new(Zeroizing::new([5; 16]));
        let payload = [1; 100];
        let tag = key.tag(3, &payload);
        assert!(key.check(3, &payload, tag));
        assert!(!key.check(4, &payload, tag));
        assert!(!key.check(3, &payload[..99], tag));
        assert!(!key.check(3, &[0; 100], tag));
    }
}
