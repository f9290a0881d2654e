//! The ciphers of a session: AES-256-GCM where both ends have hardware for it, else ChaCha20-Poly1305. Both
//! ends say what they have inside the handshake, so nobody between them can choose.

use std::fmt;

use ring::aead;

/// A cipher. The numbers are the wire's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// The faster one, with hardware.
    Aes256Gcm = 1,
    /// The faster one, without.
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// The suite with this bit.
    pub const fn from_wire(bit: u8) -> Option<Self> {
        match bit {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Its bit.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    pub(super) fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }
}

/// The name in `status`.
impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        })
    }
}

/// A set of suites, as the wire has it. Unknown bits are kept and mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suites(pub u8);

impl Suites {
    /// What every peer has.
    pub const BASE: Self = Self(Suite::ChaCha20Poly1305 as u8);
    /// All.
    pub const ALL: Self = Self(Suite::Aes256Gcm as u8 | Suite::ChaCha20Poly1305 as u8);

    /// What this machine does quickly.
    pub fn native() -> Self {
        if has_aes() { Self::ALL } else { Self::BASE }
    }

    /// Whether it contains `suite`.
    pub const fn contains(self, suite: Suite) -> bool {
        self.0 & suite as u8 != 0
    }

    /// The best suite in both sets.
    pub fn choose(self, other: Self) -> Option<Suite> {
        [Suite::Aes256Gcm, Suite::ChaCha20Poly1305].into_iter().find(|s| self.contains(*s) && other.contains(*s))
    }
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_is_chosen_when_both_have_it() {
        assert_eq!(Suites::ALL.choose(Suites::ALL), Some(Suite::Aes256Gcm));
        assert_eq!(Suites::ALL.choose(Suites::BASE), Some(Suite::ChaCha20Poly1305));
        assert_eq!(Suites::BASE.choose(Suites(0xfe)), Some(Suite::ChaCha20Poly1305));
        assert_eq!(Suites::BASE.choose(Suites(0xfc)), None);
        assert!(Suites::native().contains(Suite::ChaCha20Poly1305));
    }

    #[test]
    fn suites_survive_the_wire() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            assert_eq!(Suite::from_wire(suite.to_wire()), Some(suite));
        }
        assert_eq!(Suite::from_wire(3), None);
    }
}
