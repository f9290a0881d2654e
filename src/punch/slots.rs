//! Counting in a window of time that moves on slot by slot.

use std::time::Duration;

use crate::sans::Instant;

/// What was counted lately, in slots; `sent[n % N]` counts slot n.
#[derive(Debug)]
pub(super) struct Slots<const N: usize> {
    /// Number of the newest.
    newest: u64,
    sent: [u16; N],
}

impl<const N: usize> Slots<N> {
    /// In the slot of now and those before it.
    pub(super) fn count(&mut self, now: u64) -> u32 {
        self.turn(now);
        self.sent.iter().map(|n| u32::from(*n)).sum()
    }

    pub(super) fn add(&mut self, now: u64) {
        self.turn(now);
        let sent = &mut self.sent[Self::place(self.newest)];
        *sent = sent.saturating_add(1);
    }

    /// Empties the slots that came round.
    fn turn(&mut self, now: u64) {
        let now = now.max(self.newest);
        for n in (self.newest + 1..=now).rev().take(N) {
            self.sent[Self::place(n)] = 0;
        }
        self.newest = now;
    }

    fn place(slot: u64) -> usize {
        usize::try_from(slot % N as u64).expect("below N")
    }
}

impl<const N: usize> Default for Slots<N> {
    fn default() -> Self {
        Self { newest: 0, sent: [0; N] }
    }
}

/// Of the slot that `now` is in.
pub(super) fn number(now: Instant, slot: Duration) -> u64 {
    now.as_nanos() / u64::try_from(slot.as_nanos()).expect("seconds in nanoseconds fit 64 bits")
}
