//! ChaCha20-Poly1305 for everything but the packet path, where hardware and speed do not matter: sealed
//! announcements, cookies, frames of a registration.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Bytes that sealing adds.
pub const TAG: usize = 16;

/// A derived key. Its user sees to it that no nonce repeats.
pub struct Key(LessSafeKey);

impl Key {
    /// The key with these bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("the key has 32 bytes")))
    }

    /// Seals in place: the last 16 bytes of `text` are room for the tag.
    ///
    /// # Panics
    /// If there is no such room, or over 256 GB.
    pub fn seal(&self, nonce: u64, aad: &[u8], text: &mut [u8]) {
        let (text, tag) = text.split_last_chunk_mut::<TAG>().expect("the caller leaves room for the tag");
        let made = self.0.seal_in_place_separate_tag(as_nonce(nonce), Aad::from(aad), text);
        tag.copy_from_slice(made.expect("a message is far below 256 GB").as_ref());
    }

    /// Opens in place; `None` if it was not sealed so.
    pub fn open<'a>(&self, nonce: u64, aad: &[u8], sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.0.open_in_place(as_nonce(nonce), Aad::from(aad), sealed).ok()
    }
}

fn as_nonce(nonce: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&nonce.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("aead::Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_nonce_and_context_alone() {
        let key = Key::new(&[1; 32]);
        let mut sealed = [b"text".as_slice(), &[0; TAG]].concat();
        key.seal(5, b"context", &mut sealed);
        assert_eq!(key.open(5, b"context", &mut sealed.clone()).as_deref(), Some(&b"text"[..]));
        assert!(key.open(6, b"context", &mut sealed.clone()).is_none());
        assert!(key.open(5, b"contest", &mut sealed.clone()).is_none());
        assert!(Key::new(&[2; 32]).open(5, b"context", &mut sealed.clone()).is_none());
        assert!(key.open(5, b"context", &mut sealed[1..]).is_none());
        assert!(key.open(5, b"context", &mut []).is_none());
    }
}
