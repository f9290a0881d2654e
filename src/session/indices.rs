//! The 24-bit numbers by which peers address our keys: random, so that they say nothing; unique among live
//! keys; and not used again until every key of their former owner's peer has expired.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::crypto::seal::LIFETIME;
use crate::id::PeerId;
use crate::sans::{Instant, Rng};

/// How long a released index rests.
const REST: Duration = LIFETIME;
/// How many indices may be live or resting, so that a free one is found quickly.
const LIMIT: usize = 1 << 20;

/// All indices of this machine.
#[derive(Debug, Default)]
pub struct Indices {
    /// Who owns an index; `None`: it rests.
    owners: BTreeMap<u32, Option<PeerId>>,
    /// Resting ones and since when, in that order.
    resting: VecDeque<(Instant, u32)>,
}

impl Indices {
    /// No index is taken.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new index for keys of `owner`; `None` if too many are taken.
    pub fn allocate(&mut self, now: Instant, owner: PeerId, rng: &mut Rng) -> Option<u32> {
        self.wake(now);
        if self.owners.len() >= LIMIT {
            return None;
        }
        loop {
            let index = rng.u32() >> 8;
            if index != 0 && !self.owners.contains_key(&index) {
                self.owners.insert(index, Some(owner));
                return Some(index);
            }
        }
    }

    /// Whose keys `index` addresses.
    pub fn owner(&self, index: u32) -> Option<PeerId> {
        self.owners.get(&index).copied().flatten()
    }

    /// The keys of `index` are gone.
    pub fn release(&mut self, now: Instant, index: u32) {
        if let Some(owner) = self.owners.get_mut(&index)
            && owner.take().is_some()
        {
            self.resting.push_back((now, index));
        }
    }

    /// Frees what has rested long enough.
    fn wake(&mut self, now: Instant) {
        while let Some((since, index)) = self.resting.front().copied()
            && now.since(since) >= REST
        {
            self.resting.pop_front();
            self.owners.remove(&index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sans::Seed;

    const A: PeerId = PeerId([1; 32]);

    #[test]
    fn an_index_has_one_owner_until_it_is_released() {
        let (mut indices, mut rng) = (Indices::new(), Seed::from_u64(1).rng());
        let index = indices.allocate(Instant::ZERO, A, &mut rng).expect("free");
        assert!((1..1 << 24).contains(&index));
        assert_eq!(indices.owner(index), Some(A));
        indices.release(Instant::ZERO, index);
        assert_eq!(indices.owner(index), None);
        assert_eq!(indices.owner(0), None);
    }

    #[test]
    fn a_released_index_rests_for_180_seconds() {
        let (mut indices, seed) = (Indices::new(), Seed::from_u64(1));
        // The same seed draws the same index first, so a second generator shows whether it is free.
        let index = indices.allocate(Instant::ZERO, A, &mut seed.rng()).expect("free");
        indices.release(Instant::ZERO, index);
        indices.release(Instant::ZERO, index);
        let almost = Instant::ZERO + REST - Duration::from_nanos(1);
        assert_ne!(indices.allocate(almost, A, &mut seed.rng()), Some(index));
        assert_eq!(indices.allocate(Instant::ZERO + REST, A, &mut seed.rng()), Some(index));
    }

    #[test]
    fn indices_are_bounded() {
        let (mut indices, mut rng) = (Indices::new(), Seed::from_u64(1).rng());
        for _ in 0..LIMIT {
            assert!(indices.allocate(Instant::ZERO, A, &mut rng).is_some());
        }
        assert_eq!(indices.allocate(Instant::ZERO, A, &mut rng), None);
    }
}
