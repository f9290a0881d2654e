//! The keys of a registration with a rendezvous.
//!
//! The peer signs its claim twice, as a member of the network and as the device; the claim names the server's
//! key and a fresh X25519 key. What both sides then know is DH(fresh key, server's key); HKDF over it, with the
//! whole signed Register as salt, gives a key for each direction of frames and of relay tags. So a frame that
//! opens comes from the holder of exactly this registration, and from exactly this server.

use std::fmt;

use ring::digest;
use zeroize::Zeroizing;

use super::aead::{self, TAG};
use super::dh::Secret;
use super::keys::{hkdf, verify};
use super::relay::RelayKey;
use crate::id::PeerId;
use crate::wire::rendezvous::{CLAIM_LEN, FRAME_HEADER, FrameHeader, REGISTER_LEN, Register};

/// In front of everything that is signed for a registration.
const LABEL: &[u8] = b"punchlan registration";
/// Frame keys and relay keys, both directions.
const KEY_BYTES: usize = 32 + 32 + 16 + 16;

/// The text that a signature of a Register covers: its first `len` bytes behind a label of its own.
fn signed_text(register: &[u8], len: usize) -> Vec<u8> {
    [LABEL, &register[..len.min(register.len())]].concat()
}

/// Completes a Register: `claim` ([`crate::wire::rendezvous::Claim::encode`]) and the two signatures, each over all before it.
pub fn sign(claim: Vec<u8>, network: impl Fn(&[u8]) -> [u8; 64], device: impl Fn(&[u8]) -> [u8; 64]) -> Vec<u8> {
    let mut register = claim;
    let signature = network(&signed_text(&register, register.len()));
    register.extend_from_slice(&signature);
    let signature = device(&signed_text(&register, register.len()));
    register.extend_from_slice(&signature);
    register
}

/// Whether both signatures of `register`, parsed from `bytes`, hold.
pub fn is_signed(register: &Register<'_>, bytes: &[u8]) -> bool {
    verify(&register.claim.network.0, &signed_text(bytes, CLAIM_LEN), register.network_signature)
        && verify(&register.claim.peer.0, &signed_text(bytes, REGISTER_LEN - 64), register.device_signature)
}

/// What both ends of a registration share. Raw bytes, not expanded: a server holds 100,000 of these.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Frames from the peer.
    pub to_server: FrameKey,
    /// Frames from the server.
    pub to_peer: FrameKey,
    /// Relay frames from the peer.
    pub relay_to_server: RelayKey,
    /// Relay frames from the server.
    pub relay_to_peer: RelayKey,
}

impl Keys {
    /// From one end's secret, the other's public key and the signed Register; `None` if that key is no key.
    pub fn derive(own: &Secret, other: &[u8; 32], register: &[u8]) -> Option<Self> {
        let shared = own.agree(other)?;
        let bytes =
            hkdf::<KEY_BYTES>(digest::digest(&digest::SHA256, register).as_ref(), &*shared, "registration keys", &[]);
        let (frames, relay) = bytes.split_at(64);
        Some(Self {
            to_server: FrameKey(Zeroizing::new(*frames.first_chunk()?)),
            to_peer: FrameKey(Zeroizing::new(*frames.last_chunk()?)),
            relay_to_server: RelayKey::new(Zeroizing::new(*relay.first_chunk()?)),
            relay_to_peer: RelayKey::new(Zeroizing::new(*relay.last_chunk()?)),
        })
    }
}

/// Seals one direction's frames: ChaCha20-Poly1305, the counter as nonce, the header authenticated.
#[derive(Clone)]
pub struct FrameKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for FrameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrameKey(…)")
    }
}

impl FrameKey {
    /// The frame with these items.
    pub fn seal(&self, header: &FrameHeader, items: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(FRAME_HEADER + items.len() + TAG);
        frame.extend_from_slice(&header.encode());
        frame.extend_from_slice(items);
        frame.extend_from_slice(&[0; TAG]);
        let (head, body) = frame.split_at_mut(FRAME_HEADER);
        aead::Key::new(&self.0).seal(header.counter, head, body);
        frame
    }

    /// The items of `frame`, decrypted in place; `None` if it is forged.
    pub fn open<'a>(&self, header: &FrameHeader, frame: &'a mut [u8]) -> Option<&'a [u8]> {
        let (_, body) = frame.split_at_mut_checked(FRAME_HEADER)?;
        aead::Key::new(&self.0).open(header.counter, &header.encode(), body).map(|items| &*items)
    }
}

/// 64 bits of SHA-256 over what a rendezvous tells about a member: XORed over all members they say whether
/// two lists are equal.
pub fn listing_digest(peer: &PeerId, observed: &[u8], sealed: &[u8]) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    [&peer.0, observed, sealed].into_iter().for_each(|part| context.update(part));
    context.finish().as_ref().first_chunk().copied().map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sans::Seed;
    use crate::wire::rendezvous::Direction;

    fn secrets() -> (Secret, Secret) {
        let mut rng = Seed::from_u64(1).rng();
        (Secret::generate(&mut rng), Secret::generate(&mut rng))
    }

    fn both_ends() -> (Keys, Keys) {
        let (peer, server) = secrets();
        let register = [7; REGISTER_LEN];
        let at_peer = Keys::derive(&peer, &server.public(), &register).expect("a key");
        (at_peer, Keys::derive(&server, &peer.public(), &register).expect("a key"))
    }

    #[test]
    fn both_ends_derive_the_same_keys_and_open_each_others_frames() {
        let (peer, server) = both_ends();
        let header = FrameHeader { direction: Direction::ToServer, handle: 1, counter: 2 };
        let frame = peer.to_server.seal(&header, b"items");
        assert_eq!(server.to_server.open(&header, &mut frame.clone()), Some(&b"items"[..]));
        assert_eq!(server.to_peer.open(&header, &mut frame.clone()), None);
        let other = FrameHeader { counter: 3, ..header };
        assert_eq!(server.to_server.open(&other, &mut frame.clone()), None);
        assert!(server.relay_to_server.check(5, b"x", peer.relay_to_server.tag(5, b"x")));
        assert!(!server.relay_to_peer.check(5, b"x", peer.relay_to_server.tag(5, b"x")));
    }

    #[test]
    fn another_register_gives_other_keys() {
        let (peer, server) = secrets();
        let header = FrameHeader { direction: Direction::ToServer, handle: 1, counter: 2 };
        let a = Keys::derive(&peer, &server.public(), &[1; 10]).expect("a key");
        let b = Keys::derive(&peer, &server.public(), &[2; 10]).expect("a key");
        assert_eq!(b.to_server.open(&header, &mut a.to_server.seal(&header, b"items")), None);
    }

    #[test]
    fn damaged_and_short_frames_do_not_open() {
        let (peer, server) = both_ends();
        let header = FrameHeader { direction: Direction::ToServer, handle: 1, counter: 2 };
        let frame = peer.to_server.seal(&header, b"items");
        for len in 0..frame.len() {
            assert_eq!(server.to_server.open(&header, &mut frame[..len].to_vec()), None);
        }
    }
}
