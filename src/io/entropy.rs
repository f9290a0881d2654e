//! Fresh randomness from the operating system. All other randomness is drawn from seeds made here.

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::sans::Seed;

/// A seed for one machine.
pub fn seed() -> Seed {
    Seed::new(bytes())
}

/// `N` bytes that nobody can guess: for keys.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).expect("the operating system gives entropy, or nothing may be encrypted");
    out
}

/// 64 random bits: a boot id.
pub fn u64() -> u64 {
    u64::from_be_bytes(bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_seeds_differ() {
        assert_ne!(super::seed().rng().u64(), super::seed().rng().u64());
        assert_ne!(super::u64(), super::u64());
    }
}
