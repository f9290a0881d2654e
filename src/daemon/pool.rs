//! Slots of one size, each a packet with room around it.

use std::io;
use std::ops::Range;

use crate::fair::Slot;
use crate::io::memory::Memory;

/// Slots that keep their memory, of so many.
const KEPT: usize = 16;

/// The slots of a range.
#[derive(Debug)]
pub(super) struct Pool {
    memory: Memory,
    slot_len: usize,
    first: Slot,
    /// What was freed last is filled first: its memory is there, and in the cache.
    free: Vec<Slot>,
    /// The most that were taken at once since their memory was given back, …
    filled: usize,
    /// …and since [`Pool::renew`].
    needed: usize,
}

impl Pool {
    pub(super) fn new(slots: Range<Slot>, slot_len: usize) -> io::Result<Self> {
        let (memory, first) = (Memory::new(slots.len() * slot_len)?, slots.start);
        Ok(Self { memory, slot_len, first, free: slots.rev().collect(), filled: 0, needed: 0 })
    }

    /// Its slots.
    pub(super) fn slots(&self) -> Range<Slot> {
        let count = self.memory.len() / self.slot_len;
        self.first..self.first + Slot::try_from(count).expect("it was made of a range of them")
    }

    /// Whether no slot is free.
    pub(super) const fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// The slot that is filled next.
    pub(super) fn next(&self) -> Slot {
        *self.free.last().expect("one is always free")
    }

    pub(super) fn take(&mut self) -> Slot {
        let slot = self.free.pop().expect("one is always free");
        // The next one may have been read to already.
        self.needed = self.needed.max(usize::from(self.slots().end - self.first) - self.free.len() + 1);
        slot
    }

    pub(super) fn give(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// All slots are free: if many more were filled than were needed lately, their memory goes back to the system.
    pub(super) fn renew(&mut self) {
        self.filled = self.filled.max(self.needed);
        if self.filled > self.needed + self.free.len().div_ceil(KEPT) {
            self.memory.renew();
            self.filled = 0;
        }
        self.needed = 0;
    }

    fn place(&self, slot: Slot) -> Range<usize> {
        let start = usize::from(slot - self.first) * self.slot_len;
        start..start + self.slot_len
    }

    pub(super) fn get(&self, slot: Slot) -> &[u8] {
        &self.memory[self.place(slot)]
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut [u8] {
        let place = self.place(slot);
        &mut self.memory[place]
    }

    #[cfg(test)]
    pub(super) const fn free(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills so many slots at once, and frees them.
    fn fill(pool: &mut Pool, count: usize) {
        let taken: Vec<Slot> = (0..count).map(|_| pool.take()).collect();
        for slot in taken {
            pool.get_mut(slot).fill(7);
            pool.give(slot);
        }
    }

    fn filled(pool: &Pool) -> usize {
        pool.slots().filter(|slot| pool.get(*slot)[0] == 7).count()
    }

    #[test]
    fn memory_goes_back_when_it_was_not_needed_for_a_while() {
        let mut pool = Pool::new(10..138, 5_000).expect("there is room");
        fill(&mut pool, 100);
        pool.renew();
        assert_eq!(filled(&pool), 100, "it was needed until now");
        fill(&mut pool, 40);
        pool.renew();
        assert_eq!(filled(&pool), 0);
        // A few more or less are no reason.
        fill(&mut pool, 40);
        pool.renew();
        fill(&mut pool, 35);
        pool.renew();
        fill(&mut pool, 40);
        pool.renew();
        assert_eq!(filled(&pool), 40);
    }
}
