//! A ladder of retries: fixed moments after a start, quick at first, then given up.

use std::time::Duration;

use crate::sans::Instant;

/// Offsets from a ladder's start, milliseconds, growing.
pub(super) type Rungs = &'static [u64];

/// The first search of a round of introduction: a clean line needs the first rung, each further one survives
/// a loss or a NAT that opened a little later.
pub(super) const FIRST: Rungs = &[0, 20, 50, 100, 200, 400, 800, 1600, 3200];
/// Later searches, and the answer to a request from an address that is not proven: the budget of a target is
/// 60 a minute.
pub(super) const LATER: Rungs = &[0, 100, 300, 1000];
/// Full-size probes. Six in a row fail on a line with 5 % loss each way once in a million.
pub(super) const FULL: Rungs = &[0, 100, 300, 700, 1500, 3000];
/// A path in doubt is asked eight times in the two seconds that it has.
pub(super) const DOUBT: Rungs = &[0, 100, 250, 500, 750, 1000, 1250, 1500];
/// `Primed` through the relay, until the other's came.
pub(super) const SAY: Rungs = &[0, 100, 250, 500];
/// One rung: say it once.
pub(super) const ONCE: Rungs = &[0];

/// Where a row of retries stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ladder {
    rungs: Rungs,
    start: Instant,
    step: usize,
}

impl Ladder {
    /// No retries.
    pub(super) const STOPPED: Self = Self { rungs: &[], start: Instant::ZERO, step: 0 };

    /// From the first rung of `rungs`, `now`.
    pub(super) const fn start(now: Instant, rungs: Rungs) -> Self {
        Self { rungs, start: now, step: 0 }
    }

    /// The moment of the first rung.
    pub(super) const fn begun(&self) -> Instant {
        self.start
    }

    /// When the next try is due; `None` when there is none left.
    pub(super) fn due(&self) -> Option<Instant> {
        self.rung(self.step)
    }

    /// Whether there is none, spent or not.
    pub(super) const fn is_stopped(&self) -> bool {
        self.rungs.is_empty()
    }

    /// Whether tries are left.
    pub(super) fn is_climbing(&self) -> bool {
        self.step < self.rungs.len()
    }

    /// This try was made (or forgone). Rungs that are past as well are skipped: late is not twice.
    pub(super) fn climb(&mut self, now: Instant) {
        self.step += 1;
        while self.due().is_some_and(|at| at <= now) {
            self.step += 1;
        }
    }

    /// `after` the last try was made; `None` while tries are left, or when there never were any.
    pub(super) fn spent(&self, after: Duration) -> Option<Instant> {
        if self.is_climbing() { None } else { Some(self.rung(self.rungs.len().checked_sub(1)?)? + after) }
    }

    /// Gives up the rungs that lie more than `offset` after the start.
    pub(super) fn cut(&mut self, offset: Duration) {
        if self.due().is_some_and(|at| at > self.start + offset) {
            *self = Self::STOPPED;
        }
    }

    fn rung(&self, step: usize) -> Option<Instant> {
        self.rungs.get(step).map(|ms| self.start + Duration::from_millis(*ms))
    }
}
