//! Rates of bytes that several registrations share: those of one source prefix, those of one network. A meter lives as
//! long as somebody uses it.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::id::NetworkId;
use crate::sans::{Instant, RateLimit};

/// What is metered at once: coarse enough that a nanosecond clock can tell 10 GB/s apart.
const UNIT: usize = 64;
/// A burst is what passes in this part of a second.
const BURST_SHARE: u64 = 4;

/// A limit of so many bytes a second, in units.
pub(super) fn limit(bytes_per_second: u64) -> RateLimit {
    let rate = u32::try_from(bytes_per_second / UNIT as u64).unwrap_or(u32::MAX).max(1);
    // At least one full-size packet.
    let burst = u32::try_from(u64::from(rate) / BURST_SHARE).unwrap_or(u32::MAX).max(units(2048));
    RateLimit::new(rate, burst)
}

/// What a frame of `len` bytes takes.
pub(super) fn units(len: usize) -> u32 {
    u32::try_from(len.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// A meter's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct MeterId(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Prefix(IpNet),
    Network(NetworkId),
}

#[derive(Debug)]
struct Meter {
    whose: Whose,
    users: usize,
    rate: RateLimit,
}

/// All meters.
#[derive(Debug)]
pub(super) struct Meters {
    prefix_bytes: u64,
    network_bytes: u64,
    meters: Vec<Option<Meter>>,
    free: Vec<MeterId>,
    by_owner: BTreeMap<Whose, MeterId>,
}

impl Meters {
    pub(super) fn new(prefix_bytes: u64, network_bytes: u64) -> Self {
        Self { prefix_bytes, network_bytes, meters: Vec::new(), free: Vec::new(), by_owner: BTreeMap::new() }
    }

    pub(super) fn of_prefix(&mut self, prefix: IpNet) -> MeterId {
        self.acquire(Whose::Prefix(prefix), self.prefix_bytes)
    }

    pub(super) fn of_network(&mut self, network: NetworkId) -> MeterId {
        self.acquire(Whose::Network(network), self.network_bytes)
    }

    fn acquire(&mut self, whose: Whose, bytes_per_second: u64) -> MeterId {
        if let Some(id) = self.by_owner.get(&whose).copied() {
            if let Some(meter) = &mut self.meters[id.0] {
                meter.users += 1;
            }
            return id;
        }
        let meter = Some(Meter { whose, users: 1, rate: limit(bytes_per_second) });
        let id = match self.free.pop() {
            Some(id) => {
                self.meters[id.0] = meter;
                id
            }
            None => {
                self.meters.push(meter);
                MeterId(self.meters.len() - 1)
            }
        };
        self.by_owner.insert(whose, id);
        id
    }

    /// Other rates from now on, for those who are metered already too.
    pub(super) fn set_rates(&mut self, prefix_bytes: u64, network_bytes: u64) {
        (self.prefix_bytes, self.network_bytes) = (prefix_bytes, network_bytes);
        for meter in self.meters.iter_mut().flatten() {
            meter.rate = limit(if matches!(meter.whose, Whose::Prefix(_)) { prefix_bytes } else { network_bytes });
        }
    }

    /// One user is gone.
    pub(super) fn release(&mut self, id: MeterId) {
        let Some(meter) = &mut self.meters[id.0] else { return };
        meter.users -= 1;
        if meter.users == 0 {
            self.by_owner.remove(&meter.whose);
            self.meters[id.0] = None;
            self.free.push(id);
        }
    }

    pub(super) fn allow(&mut self, now: Instant, id: MeterId, units: u32) -> bool {
        self.meters[id.0].as_mut().is_none_or(|meter| meter.rate.allow_n(now, units))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_one_prefix_share_a_meter_that_ends_with_the_last() {
        let mut meters = Meters::new(64_000, 64_000);
        let prefix: IpNet = "192.0.2.1/32".parse().expect("prefix");
        let network = meters.of_network(NetworkId([1; 32]));
        let (a, b) = (meters.of_prefix(prefix), meters.of_prefix(prefix));
        assert_eq!(a.0, b.0);
        assert!(meters.allow(Instant::ZERO, a, 250));
        assert!(!meters.allow(Instant::ZERO, b, 1));
        let again = meters.of_network(NetworkId([1; 32]));
        meters.release(a);
        meters.release(network);
        assert!(!meters.allow(Instant::ZERO, b, 1));
        meters.release(b);
        meters.release(again);
        assert!(meters.by_owner.is_empty());
        let fresh = meters.of_prefix(prefix);
        assert!(meters.allow(Instant::ZERO, fresh, 250));
    }
}
