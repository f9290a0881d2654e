//! Which counters were seen (RFC 6479): a ring of 64-bit blocks, one block more than the window, so that
//! moving on clears whole blocks and never shifts.

/// A window over the last `BITS` counters.
#[derive(Clone, Debug)]
pub struct ReplayWindow<const BITS: usize> {
    /// One above the highest counter accepted.
    next: u64,
    blocks: Box<[u64]>,
}

const BLOCK: u64 = u64::BITS as u64;

impl<const BITS: usize> ReplayWindow<BITS> {
    /// Known when compiling, so that finding a block takes no division.
    const BLOCKS: usize = BITS / 64 + 1;

    /// A window that has seen nothing. `BITS` is a multiple of 64.
    pub fn new() -> Self {
        const { assert!(BITS > 0 && BITS.is_multiple_of(64), "whole blocks") }
        Self { next: 0, blocks: vec![0; Self::BLOCKS].into() }
    }

    /// A window in which every counter up to `newest` was seen.
    pub fn above(newest: u64) -> Self {
        let mut window = Self { next: newest.saturating_add(1), blocks: vec![u64::MAX; Self::BLOCKS].into() };
        let (block, bit) = Self::place(window.next);
        window.blocks[block] = bit - 1;
        window
    }

    /// The highest counter that was taken.
    pub const fn newest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// Whether `counter` is new. Changes nothing: ask before verifying, [`ReplayWindow::accept`] afterwards.
    /// `u64::MAX` never is, for nothing can be above it.
    #[must_use]
    pub fn check(&self, counter: u64) -> bool {
        if counter >= self.next {
            return counter != u64::MAX;
        }
        let (block, bit) = Self::place(counter);
        self.next - counter <= BITS as u64 && self.blocks[block] & bit == 0
    }

    /// Takes `counter` if it is new. Only for what was verified.
    #[must_use]
    pub fn accept(&mut self, counter: u64) -> bool {
        if !self.check(counter) {
            return false;
        }
        if counter >= self.next {
            self.advance(counter);
        }
        let (block, bit) = Self::place(counter);
        self.blocks[block] |= bit;
        true
    }

    /// Clears the blocks between the highest counter so far and `counter`.
    fn advance(&mut self, counter: u64) {
        let newest = self.next.saturating_sub(1) / BLOCK;
        let fresh = (counter / BLOCK - newest).min(Self::BLOCKS as u64);
        for i in 1..=fresh {
            let (block, _) = Self::place((newest + i) * BLOCK);
            self.blocks[block] = 0;
        }
        self.next = counter + 1;
    }

    fn place(counter: u64) -> (usize, u64) {
        let block = usize::try_from(counter / BLOCK % Self::BLOCKS as u64).expect("below the number of blocks");
        (block, 1 << (counter % BLOCK))
    }
}

impl<const BITS: usize> Default for ReplayWindow<BITS> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_counter_is_accepted_once() {
        let mut window = ReplayWindow::<128>::new();
        for counter in [0, 1, 5, 3, 200, 100, 199] {
            assert!(window.accept(counter), "{counter}");
            assert!(!window.accept(counter), "{counter} again");
        }
        assert!(!window.accept(72), "older than the window");
        assert!(window.accept(73), "the oldest in it");
    }

    #[test]
    fn the_last_counters_can_be_used() {
        let mut window = ReplayWindow::<64>::new();
        assert!(window.accept(u64::MAX - 1));
        assert!(!window.accept(u64::MAX - 1));
        assert!(!window.accept(u64::MAX));
        assert!(window.accept(u64::MAX - 2));
        assert!(!window.accept(0));
    }

    #[test]
    fn above_a_counter_all_is_new_and_below_it_nothing() {
        for newest in [0, 63, 64, 70, 127, 128, 1_000_000, u64::MAX - 2] {
            let mut window = ReplayWindow::<128>::above(newest);
            assert_eq!(window.newest(), Some(newest));
            let first = newest.saturating_sub(300);
            assert!((first..=newest).all(|counter| !window.check(counter)), "{newest}");
            // They may come in any order.
            for counter in [newest.saturating_add(90), newest + 1, newest.saturating_add(40)] {
                assert!(window.accept(counter) || counter == u64::MAX, "{counter} above {newest}");
                assert!(!window.check(counter));
            }
            assert!((first..=newest).all(|counter| !window.check(counter)), "{newest}");
        }
    }

    #[test]
    fn a_check_changes_nothing() {
        let mut window = ReplayWindow::<64>::new();
        assert!(window.check(1_000_000));
        assert!(window.accept(0));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(steps in prop::collection::vec((0..400_u64, any::<bool>()), 1..300)) {
            let (mut window, mut seen, mut top) = (ReplayWindow::<128>::new(), BTreeSet::new(), 0_u64);
            for (step, forward) in steps {
                let counter = if forward { top + step } else { top.saturating_sub(step) };
                let new = counter + 128 > top.saturating_sub(u64::from(seen.is_empty())) && !seen.contains(&counter);
                prop_assert_eq!(window.accept(counter), new, "counter {} below {}", counter, top);
                if new {
                    seen.insert(counter);
                    top = top.max(counter);
                }
            }
        }
    }
}
