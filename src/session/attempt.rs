//! An attempt at a handshake: one initiation after another, until one is answered.
//!
//! The same message is sent again at first, so that an answer to any copy will do; an older one is replaced by
//! a fresh one. Pauses double from 250 ms to 2 s and stay at 5 s then, with jitter, for as long as the session
//! is wanted.

use std::time::Duration;

use super::handshake::Pending;
use super::keys::REKEY_RESPONDER;
use crate::crypto::seal::LIFETIME;
use crate::sans::{Instant, Rng};

/// Pauses after the first sendings of an attempt.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// The pause after each later one, give or take a tenth.
const LATER: Duration = Duration::from_secs(5);
/// Between two sendings lies at least this, whatever hastens them.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// A message of this age is replaced rather than sent again.
const STALE: Duration = Duration::from_secs(4);
/// A response to a message of this age is not taken. A side that is awake has replaced its message before; one that
/// slept cannot tell how much younger the peer counts the keys, and may at most lag by what lies between the peer's
/// replacing them and our forgetting them. This is half of that.
const LATE: Duration = Duration::from_secs((LIFETIME.as_secs() - REKEY_RESPONDER.as_secs()) / 2);

/// The pause after the `step`-th sending of something.
pub(super) fn pause(step: usize, rng: &mut Rng) -> Duration {
    PAUSES.get(step).copied().unwrap_or_else(|| rng.between(LATER.mul_f64(0.9), LATER.mul_f64(1.1)))
}

/// An attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    /// When its first message was made.
    pub(super) since: Instant,
    /// The index of the keys that it may lead to.
    pub(super) index: u32,
    /// The message that waits for its response.
    pub(super) pending: Pending,
    /// When that was made.
    pub(super) made: Instant,
    /// When it is to be sent.
    pub(super) due: Instant,
    last_sent: Option<Instant>,
    step: usize,
}

impl Attempt {
    /// An attempt that begins now.
    pub(super) const fn new(now: Instant, index: u32, pending: Pending) -> Self {
        Self { since: now, index, pending, made: now, due: now, last_sent: None, step: 0 }
    }

    /// Whether a fresh message should go out rather than this one.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        now.since(self.made) >= STALE
    }

    /// Whether a response to its message comes too late.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        now.since(self.made) >= LATE
    }

    /// Replaces the message; the index that is free now.
    pub(super) fn renew(&mut self, now: Instant, index: u32, pending: Pending) -> u32 {
        (self.pending, self.made) = (pending, now);
        std::mem::replace(&mut self.index, index)
    }

    /// The message goes out now.
    pub(super) fn sent(&mut self, now: Instant, rng: &mut Rng) {
        self.last_sent = Some(now);
        self.due = now + pause(self.step, rng);
        self.step = self.step.saturating_add(1).min(PAUSES.len());
    }

    /// Sends again as soon as it may.
    pub(super) fn hasten(&mut self, now: Instant) {
        let earliest = self.last_sent.map_or(now, |last| now.max(last + MIN_PAUSE));
        self.due = self.due.min(earliest);
    }

    /// Sends again as soon as it may, and at the quick pace from there.
    pub(super) fn restart(&mut self, now: Instant) {
        self.step = 0;
        self.hasten(now);
    }

    /// Sends nothing before `at`.
    pub(super) fn hold_until(&mut self, at: Instant) {
        self.due = self.due.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sans::Seed;

    #[test]
    fn pauses_double_and_then_stay_near_5_seconds() {
        let mut rng = Seed::from_u64(1).rng();
        let millis: Vec<u128> = (0..4).map(|step| pause(step, &mut rng).as_millis()).collect();
        assert_eq!(millis, [250, 500, 1000, 2000]);
        for step in 4..50 {
            assert!((4500..5500).contains(&pause(step, &mut rng).as_millis()));
        }
    }
}
