//! How many packets for many one sender may send: a peer to us, our own programs to all peers. What is more is a storm.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sans::{Instant, RateLimit};

/// Broadcast and multicast packets a second that one sender may send, and at once. A game's discovery needs a few; a storm
/// must not become one for every member.
pub const SHARED_RATE: u32 = 500;

const SECOND: Duration = Duration::from_secs(1);
/// A storm is over when for so long nothing was too much.
const CALM: Duration = Duration::from_secs(5);

/// See the module's documentation. Packets to one peer never come near it.
#[derive(Debug)]
pub struct Gate(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    limit: RateLimit,
    /// The second that is counted, from here on: packets, and whether one of them was too many.
    since: Instant,
    packets: u32,
    is_cut: bool,
    /// The end of the last second of which something was too much, and its packets.
    storm: Option<(Instant, u32)>,
}

impl Gate {
    /// Lets one packet through, or not.
    pub(super) fn allow(&self, now: Instant) -> bool {
        let mut inner = self.at(now);
        let is_allowed = inner.limit.allow(now);
        inner.packets = inner.packets.saturating_add(1);
        inner.is_cut |= !is_allowed;
        is_allowed
    }

    /// How many packets a second came when they were last too many, while that is not long ago.
    pub fn storm(&self, now: Instant) -> Option<u32> {
        let storm = self.at(now).storm;
        storm.filter(|(end, _)| now - *end < CALM).map(|(_, packets)| packets)
    }

    fn at(&self, now: Instant) -> MutexGuard<'_, Inner> {
        // It is whole between any two of its operations.
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now - inner.since >= SECOND {
            if inner.is_cut {
                inner.storm = Some((inner.since + SECOND, inner.packets));
            }
            (inner.since, inner.packets, inner.is_cut) = (now, 0, false);
        }
        inner
    }
}

impl Default for Gate {
    fn default() -> Self {
        let limit = RateLimit::new(SHARED_RATE, SHARED_RATE);
        Self(Mutex::new(Inner { limit, since: Instant::ZERO, packets: 0, is_cut: false, storm: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_told_with_its_strength_while_it_lasts() {
        let (gate, t0) = (Gate::default(), Instant::from_nanos(7_000_000_000));
        let at = |ms: u64| t0 + Duration::from_millis(ms);
        // Ten a millisecond for three seconds.
        let passed = (0..30_000).filter(|n| gate.allow(at(n / 10))).count();
        assert!((1_999..=2_001).contains(&passed), "{passed}");
        assert_eq!(gate.storm(at(3_000)), Some(10_000));
        assert_eq!(gate.storm(at(7_999)), Some(10_000));
        assert_eq!(gate.storm(at(8_000)), None);
        assert!(gate.allow(at(8_000)));
    }

    #[test]
    fn what_is_not_too_much_is_no_storm() {
        let (gate, t0) = (Gate::default(), Instant::from_nanos(7_000_000_000));
        assert!((0..5_000).all(|n| gate.allow(t0 + Duration::from_millis(n * 2))));
        assert_eq!(gate.storm(t0 + Duration::from_secs(10)), None);
    }
}
