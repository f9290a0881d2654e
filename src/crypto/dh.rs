//! X25519 (RFC 7748) with the one check it needs: an all-zero result, which a key of low order forces, is
//! refused.

use std::fmt;

use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::sans::Rng;

/// An X25519 key: a device's, a server's, or one for a single registration.
pub struct Secret {
    secret: StaticSecret,
    public: [u8; 32],
}

impl Secret {
    /// The key with these secret bytes.
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        let secret = StaticSecret::from(*bytes);
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }

    /// A fresh key.
    pub fn generate(rng: &mut Rng) -> Self {
        Self::new(Zeroizing::new(rng.array()))
    }

    /// The public half.
    pub const fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The shared secret with the holder of `public`; `None` if that key is of low order. It is not yet a key:
    /// derive one.
    pub fn agree(&self, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let shared = Zeroizing::new(self.secret.diffie_hellman(&PublicKey::from(*public)).to_bytes());
        bool::from(shared.ct_ne(&[0; 32])).then_some(shared)
    }

    /// The secret bytes, for Noise alone.
    pub(super) fn expose(&self) -> &[u8; 32] {
        self.secret.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dh::Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sans::Seed;

    #[test]
    fn both_ends_agree() {
        let mut rng = Seed::from_u64(1).rng();
        let (a, b) = (Secret::generate(&mut rng), Secret::generate(&mut rng));
        assert_eq!(a.agree(&b.public()), b.agree(&a.public()));
        assert!(a.agree(&b.public()).is_some());
    }

    #[test]
    fn keys_of_low_order_are_refused() {
        let secret = Secret::new(Zeroizing::new([9; 32]));
        let order_8 = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
            0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ];
        let mut one = [0; 32];
        one[0] = 1;
        for low in [[0; 32], one, order_8] {
            assert_eq!(secret.agree(&low), None);
        }
    }
}
