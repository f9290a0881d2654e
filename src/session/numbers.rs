//! The one number against replay. Handshakes, announcements, registrations and probes of this device take
//! their numbers from here; each is used once, over all runs.
//!
//! Numbers are reserved durably, in blocks, ahead of use: a crash skips some, and none is used twice. A run
//! starts at the stored ceiling or at the wall clock's milliseconds, whichever is higher: a clock set back
//! does no harm, and neither does a lost state folder while the clock is right.

use crate::sans::Action;

/// How many numbers one reservation covers.
const BLOCK: u64 = 1 << 16;

/// The sequence.
#[derive(Debug)]
pub struct Numbers {
    next: u64,
    /// First number that must not be used yet.
    reserved: u64,
    /// First number that was not asked for.
    asked: u64,
    action: Option<Action>,
}

impl Numbers {
    /// The numbers of a run. Nothing is reserved yet: the first [`Numbers::poll_action`] asks.
    pub fn new(stored_ceiling: u64, wall_ms: u64) -> Self {
        let next = stored_ceiling.max(wall_ms);
        let mut numbers = Self { next, reserved: next, asked: next, action: None };
        numbers.ask();
        numbers
    }

    /// The next number; `None` while its reservation is under way.
    pub fn take(&mut self) -> Option<u64> {
        let number = (self.next < self.reserved).then_some(self.next);
        self.next += u64::from(number.is_some());
        if self.asked.saturating_sub(self.next) < BLOCK / 2 {
            self.ask();
        }
        number
    }

    /// All below `ceiling` is durably reserved.
    pub fn handle_reserved(&mut self, ceiling: u64) {
        self.reserved = self.reserved.max(ceiling.min(self.asked));
    }

    /// The reservation to make next. Call until `None` after every other call.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.action.take()
    }

    fn ask(&mut self) {
        self.asked = self.next.saturating_add(BLOCK);
        self.action = Some(Action::Reserve { ceiling: self.asked });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reserves whatever is asked for; the highest ceiling.
    fn serve(numbers: &mut Numbers) -> Option<u64> {
        let mut highest = None;
        while let Some(Action::Reserve { ceiling }) = numbers.poll_action() {
            numbers.handle_reserved(ceiling);
            highest = Some(ceiling);
        }
        highest
    }

    #[test]
    fn no_number_is_given_before_it_is_reserved() {
        let mut numbers = Numbers::new(0, 1000);
        assert_eq!(numbers.take(), None);
        assert_eq!(serve(&mut numbers), Some(1000 + BLOCK));
        assert_eq!((numbers.take(), numbers.take()), (Some(1000), Some(1001)));
    }

    #[test]
    fn the_next_block_is_reserved_ahead_of_need() {
        let mut numbers = Numbers::new(0, 0);
        serve(&mut numbers);
        for expected in 0..10 * BLOCK {
            assert_eq!(numbers.take(), Some(expected));
            serve(&mut numbers);
        }
    }

    #[test]
    fn a_stalled_disk_stops_the_numbers_and_asks_once_a_block() {
        let mut numbers = Numbers::new(0, 0);
        serve(&mut numbers);
        let mut asked = 0;
        for n in 0..BLOCK {
            assert_eq!(numbers.take(), Some(n));
            asked += usize::from(numbers.poll_action().is_some());
        }
        assert_eq!((numbers.take(), asked), (None, 1));
    }

    #[test]
    fn neither_a_crash_nor_a_clock_set_back_repeats_a_number() {
        let mut first = Numbers::new(0, 5_000_000);
        let ceiling = serve(&mut first).expect("asked");
        let last = first.take().expect("reserved");
        let mut second = Numbers::new(ceiling, 1_000);
        serve(&mut second);
        assert!(second.take() > Some(last));
    }

    #[test]
    fn a_ceiling_at_the_end_of_all_numbers_is_no_panic() {
        let mut numbers = Numbers::new(u64::MAX - 1, 0);
        serve(&mut numbers);
        assert_eq!(numbers.take(), Some(u64::MAX - 1));
        assert_eq!((numbers.take(), numbers.take()), (None, None));
    }
}
