//! Stateless proofs of address. A cookie is a MAC over the address bytes and a time slot under a secret that
//! never leaves the jar: who returns it has received what was sent to that address. It holds for the rest of
//! its slot and the whole next one: 60 to 120 s, unless the jar has longer slots.

use std::fmt;
use std::time::Duration;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::mac;
use crate::sans::{Instant, Rng};

/// A cookie.
pub type Cookie = [u8; 16];

/// How long a cookie is good for, at least.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// Bakes and recognises cookies.
pub struct CookieJar {
    secret: Zeroizing<[u8; 32]>,
    lifetime: Duration,
}

impl CookieJar {
    /// A jar with a fresh secret.
    pub fn new(rng: &mut Rng) -> Self {
        Self::with_lifetime(rng, LIFETIME)
    }

    /// The same, whose cookies are good for at least `lifetime` and at most twice as long.
    pub fn with_lifetime(rng: &mut Rng, lifetime: Duration) -> Self {
        Self { secret: Zeroizing::new(rng.array()), lifetime }
    }

    /// The cookie for `address`, any bytes that name where an answer would go.
    pub fn cookie(&self, now: Instant, address: &[u8]) -> Cookie {
        self.of_slot(self.slot(now), address)
    }

    /// Whether `cookie` was baked for `address` lately.
    pub fn check(&self, now: Instant, address: &[u8], cookie: &Cookie) -> bool {
        let [new, old] = self.valid(now, address);
        (new.ct_eq(cookie) | old.ct_eq(cookie)).into()
    }

    /// The cookies that [`CookieJar::check`] accepts for `address`, the newer first.
    pub fn valid(&self, now: Instant, address: &[u8]) -> [Cookie; 2] {
        [self.of_slot(self.slot(now), address), self.of_slot(self.slot(now).wrapping_sub(1), address)]
    }

    fn slot(&self, now: Instant) -> u64 {
        u64::try_from(u128::from(now.as_nanos()) / self.lifetime.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    fn of_slot(&self, slot: u64, address: &[u8]) -> Cookie {
        mac::mac(self.secret.as_slice(), &[&slot.to_be_bytes(), address].concat())
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieJar(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sans::Seed;

    #[test]
    fn a_cookie_holds_for_its_address_and_its_time() {
        let jar = CookieJar::new(&mut Seed::from_u64(1).rng());
        for start in [0, 59, 60, 119] {
            let baked = Instant::ZERO + Duration::from_secs(start);
            let cookie = jar.cookie(baked, b"here");
            assert!(jar.check(baked, b"here", &cookie));
            assert!(jar.check(baked + LIFETIME, b"here", &cookie));
            assert!(!jar.check(baked + LIFETIME * 2, b"here", &cookie));
            assert!(!jar.check(baked, b"there", &cookie));
        }
    }

    #[test]
    fn a_jar_with_longer_slots_keeps_them_longer() {
        let lifetime = LIFETIME * 5;
        let jar = CookieJar::with_lifetime(&mut Seed::from_u64(1).rng(), lifetime);
        let cookie = jar.cookie(Instant::ZERO, b"here");
        assert!(jar.check(Instant::ZERO + lifetime, b"here", &cookie));
        assert!(!jar.check(Instant::ZERO + lifetime * 2, b"here", &cookie));
    }

    #[test]
    fn another_jar_refuses_it() {
        let mut rng = Seed::from_u64(1).rng();
        let (a, b) = (CookieJar::new(&mut rng), CookieJar::new(&mut rng));
        assert!(!b.check(Instant::ZERO, b"here", &a.cookie(Instant::ZERO, b"here")));
    }
}
