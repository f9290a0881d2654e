//! Packets that wait for a session: at most 64 for at most 2 s, so the first ping is answered instead of lost.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sans::Instant;

/// Packets that wait, at most.
const CAPACITY: usize = 64;
/// How long one waits. Longer, and a program has already sent it again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A short queue of one peer.
#[derive(Debug)]
pub(super) struct Waiting<T>(VecDeque<(Instant, T)>);

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Waiting<T> {
    /// Queues one; says whether something older had to go for it.
    #[must_use]
    pub(super) fn push(&mut self, now: Instant, item: T) -> bool {
        let full = self.0.len() >= CAPACITY;
        if full {
            self.0.pop_front();
        }
        self.0.push_back((now, item));
        full
    }

    /// Takes the oldest one that has not waited too long.
    pub(super) fn pop(&mut self, now: Instant) -> Option<T> {
        while let Some((since, item)) = self.0.pop_front() {
            if now - since < PATIENCE {
                return Some(item);
            }
        }
        None
    }

    /// When the first has waited too long.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.front().map(|(since, _)| *since + PATIENCE)
    }

    /// Drops what has waited too long; says how many.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let before = self.0.len();
        self.0.retain(|(since, _)| now - *since < PATIENCE);
        before - self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_nobody_waits_longer_than_two_seconds() {
        let t0 = Instant::from_nanos(7);
        let mut w = Waiting::default();
        assert!(!(0..CAPACITY).any(|i| w.push(t0 + Duration::from_millis(i as u64 * 10), i)));
        assert!(w.push(t0 + Duration::from_secs(1), CAPACITY));
        assert_eq!(w.pop(t0 + Duration::from_secs(1)), Some(1));
        assert_eq!(w.pop(t0 + Duration::from_millis(2_025)), Some(3));
        assert_eq!(w.expire(t0 + Duration::from_millis(2_999)), CAPACITY - 4);
        assert_eq!(w.pop(t0 + Duration::from_millis(2_999)), Some(CAPACITY));
        assert_eq!(w.pop(t0), None);
    }
}
