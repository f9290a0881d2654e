//! How much a server takes from whom. Rates of what strangers can send are kept in a table of fixed size, so
//! that a flood of forged sources takes no memory.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use siphasher::sip::SipHasher24;

use crate::id::NetworkId;
use crate::sans::{Instant, RateLimit, Rng};

/// So many a second on average, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// On average.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

impl Rate {
    /// `per_second` on average, `burst` at once.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst }
    }

    /// A limiter of this rate.
    pub fn limit(self) -> RateLimit {
        RateLimit::new(self.per_second, self.burst)
    }
}

/// A limiter that keeps its one deadline and is told its rate each time: 100,000 registrations have several.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace(Instant);

impl Pace {
    /// Takes one event if it is within `rate`.
    pub(super) fn allow(&mut self, now: Instant, rate: Rate) -> bool {
        let period = Duration::from_secs(1) / rate.per_second.max(1);
        let next = self.0.max(now) + period;
        let allowed = next <= now + period * rate.burst.max(1);
        if allowed {
            self.0 = next;
        }
        allowed
    }
}

/// What a rendezvous allows. A *prefix* is where a source address comes from: one customer's share of the
/// address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bits of an IPv4 prefix.
    pub v4_prefix: u8,
    /// Bits of an IPv6 prefix.
    pub v6_prefix: u8,
    /// Registrations in all; each takes about 1.5 KB.
    pub registrations: usize,
    /// Members of one network.
    pub per_network: usize,
    /// Registrations from one prefix.
    pub per_prefix: usize,
    /// Hellos in all.
    pub hellos: Rate,
    /// Hellos from one prefix.
    pub hellos_per_prefix: Rate,
    /// Registers in all; each costs two signatures and a DH.
    pub registers: Rate,
    /// Registers of one network.
    pub registers_per_network: Rate,
    /// Registers from one prefix.
    pub registers_per_prefix: Rate,
    /// The networks that are served; empty: all.
    pub allow: Vec<NetworkId>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            v4_prefix: 32,
            v6_prefix: 56,
            registrations: 100_000,
            per_network: 256,
            per_prefix: 256,
            hellos: Rate::new(20_000, 20_000),
            hellos_per_prefix: Rate::new(50, 300),
            registers: Rate::new(2_000, 4_000),
            registers_per_network: Rate::new(50, 1_000),
            registers_per_prefix: Rate::new(20, 300),
            allow: Vec::new(),
        }
    }
}

impl Limits {
    /// The prefix that `ip` belongs to.
    pub fn prefix(&self, ip: IpAddr) -> IpNet {
        let bits = if ip.is_ipv4() { self.v4_prefix.min(32) } else { self.v6_prefix.min(128) };
        IpNet::new(ip, bits).expect("the prefix is no longer than the address").trunc()
    }
}

/// One rate for each prefix, in a table of fixed size: prefixes that fall on one cell share its rate. Where they
/// fall is secret, so nobody can choose whose rate to use up.
#[derive(Debug)]
pub struct RateTable {
    cells: Box<[RateLimit]>,
    key: [u8; 16],
}

impl RateTable {
    /// Enough that 100,000 prefixes seldom meet in one cell within a second.
    const CELLS: usize = 1 << 13;

    /// A table of this rate, large enough for a server.
    pub fn new(rate: Rate, rng: &mut Rng) -> Self {
        Self::with_cells(Self::CELLS, rate, rng)
    }

    /// A table of this rate with so many cells, at least one.
    pub fn with_cells(cells: usize, rate: Rate, rng: &mut Rng) -> Self {
        Self { cells: vec![rate.limit(); cells.max(1)].into(), key: rng.array() }
    }

    /// Takes one event from `prefix` if that is within the rate.
    pub fn allow(&mut self, now: Instant, prefix: &IpNet) -> bool {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        match prefix {
            IpNet::V4(net) => hasher.write(&net.addr().octets()),
            IpNet::V6(net) => hasher.write(&net.addr().octets()),
        }
        let cell = usize::try_from(hasher.finish() % self.cells.len() as u64).expect("below the number of cells");
        self.cells[cell].allow(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sans::Seed;

    #[test]
    fn a_pace_lets_its_burst_through_and_then_its_rate() {
        let (mut pace, rate, start) = (Pace::default(), Rate::new(2, 3), Instant::from_nanos(5_000_000_000));
        assert_eq!((0..10).filter(|_| pace.allow(start, rate)).count(), 3);
        assert!(!pace.allow(start + Duration::from_millis(499), rate));
        assert!(pace.allow(start + Duration::from_millis(500), rate));
        assert!(!pace.allow(start + Duration::from_millis(501), rate));
    }

    #[test]
    fn sources_of_one_prefix_share_a_rate_and_others_do_not() {
        let limits = Limits { v4_prefix: 24, ..Limits::default() };
        let mut table = RateTable::new(Rate::new(1, 2), &mut Seed::from_u64(1).rng());
        let prefix = |ip: &str| limits.prefix(ip.parse().expect("address"));
        assert_eq!(prefix("192.0.2.7"), prefix("192.0.2.200"));
        assert_eq!(prefix("2001:db8::1"), prefix("2001:db8:0:00ff::2"));
        assert!(table.allow(Instant::ZERO, &prefix("192.0.2.7")));
        assert!(table.allow(Instant::ZERO, &prefix("192.0.2.8")));
        assert!(!table.allow(Instant::ZERO, &prefix("192.0.2.9")));
        assert!(table.allow(Instant::ZERO, &prefix("198.51.100.9")));
        assert!(table.allow(Instant::ZERO, &prefix("2001:db8::1")));
    }
}
