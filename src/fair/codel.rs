//! When a queue has stood for too long: `CoDel` (RFC 8289 §4–5). A queue that forms in a burst and goes again is good;
//! one that stands is only delay, and its flow is told so.

use std::time::Duration;

use crate::sans::Instant;

/// A queue may stand for so long…
const TARGET: Duration = Duration::from_millis(5);
/// …if it does so for no longer than this: a long round trip of the flows that are told.
const INTERVAL: Duration = Duration::from_millis(100);
/// Less than this behind it is no queue: the largest packet there is.
const LARGEST: usize = 1 << 16;

/// The state of one flow's queue. All names are the RFC's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codel {
    first_above: Option<Instant>,
    next: Instant,
    count: u32,
    last_count: u32,
    dropping: bool,
}

impl Codel {
    /// A packet leaves that stood for `sojourn`, with `behind` bytes behind it: whether it is the one that tells.
    pub(super) fn tells(&mut self, now: Instant, sojourn: Duration, behind: usize) -> bool {
        let stands = self.stands(now, sojourn, behind);
        if self.dropping {
            self.dropping = stands;
            let due = stands && now >= self.next;
            if due {
                self.count += 1;
                self.next = next(self.next, self.count);
            }
            return due;
        }
        if stands {
            // It was told not long ago: it goes on about as often as it was necessary then.
            let since = self.count.saturating_sub(self.last_count);
            let lately = now - self.next < INTERVAL * 16;
            self.count = if since > 1 && lately { since } else { 1 };
            (self.dropping, self.last_count, self.next) = (true, self.count, next(now, self.count));
        }
        stands
    }

    fn stands(&mut self, now: Instant, sojourn: Duration, behind: usize) -> bool {
        if sojourn < TARGET || behind < LARGEST {
            self.first_above = None;
            return false;
        }
        now >= *self.first_above.get_or_insert(now + INTERVAL)
    }
}

/// The more often it was told in vain, the sooner again: the interval over the root of `count`.
fn next(after: Instant, count: u32) -> Instant {
    after + INTERVAL.div_f64(f64::from(count.max(1)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// How often a queue tells in `time`, one packet a millisecond, each of which stood for `sojourn`.
    fn told(codel: &mut Codel, from: Instant, time: Duration, sojourn: Duration) -> Vec<Duration> {
        let mut now = from;
        let mut told = Vec::new();
        while now - from < time {
            if codel.tells(now, sojourn, 1 << 20) {
                told.push(now - from);
            }
            now += MS;
        }
        told
    }

    #[test]
    fn a_burst_tells_nobody() {
        let mut codel = Codel::default();
        let mut now = Instant::ZERO + MS * 1000;
        for _ in 0..100 {
            assert!(told(&mut codel, now, MS * 95, MS * 50).is_empty());
            now += MS * 95;
            assert!(!codel.tells(now, MS, 1 << 20), "it went");
        }
    }

    #[test]
    fn what_stands_tells_after_an_interval_and_then_more_and_more_often() {
        let told = told(&mut Codel::default(), Instant::ZERO + MS * 1000, MS * 500, MS * 6);
        let millis: Vec<u128> = told.iter().map(Duration::as_millis).collect();
        // 100, then gaps of 100/√1, 100/√2, 100/√3…
        assert_eq!(millis, [100, 200, 271, 329, 379, 424, 464]);
    }

    #[test]
    fn one_packet_however_old_is_no_queue() {
        let mut codel = Codel::default();
        for n in 0..1000 {
            assert!(!codel.tells(Instant::ZERO + MS * n, MS * 900, LARGEST - 1));
        }
    }
}
