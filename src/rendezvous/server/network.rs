//! One network's list: who sits where, and what all of it looks like in 64 bits.

use std::collections::BTreeMap;

use super::limits::Rate;
use super::registration::{Paces, Slot};
use crate::id::PeerId;
use crate::sans::RateLimit;

/// A network with at least one seat.
#[derive(Debug)]
pub(super) struct Network {
    seats: BTreeMap<PeerId, Seat>,
    taken: usize,
    /// Members that announced themselves, and the XOR of their digests.
    listed: u32,
    digest: u64,
    pub(super) registers: RateLimit,
}

/// A device's place in a network.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seat {
    /// Its registration.
    Taken(Slot),
    /// Its registration with this number ended: whatever it signed before cannot bring it back while its cookie is good.
    Left { number: u64, paces: Paces },
}

impl Network {
    pub(super) fn new(registers: Rate) -> Self {
        Self { seats: BTreeMap::new(), taken: 0, listed: 0, digest: 0, registers: registers.limit() }
    }

    pub(super) fn seat(&self, peer: &PeerId) -> Option<Seat> {
        self.seats.get(peer).copied()
    }

    pub(super) fn seat_mut(&mut self, peer: &PeerId) -> Option<&mut Seat> {
        self.seats.get_mut(peer)
    }

    pub(super) fn slot(&self, peer: &PeerId) -> Option<Slot> {
        match self.seats.get(peer) {
            Some(Seat::Taken(slot)) => Some(*slot),
            _ => None,
        }
    }

    /// Registrations in this network, in the order of their peers.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.seats.values().filter_map(|seat| match seat {
            Seat::Taken(slot) => Some(*slot),
            Seat::Left { .. } => None,
        })
    }

    pub(super) fn sit(&mut self, peer: PeerId, slot: Slot) {
        let before = self.seats.insert(peer, Seat::Taken(slot));
        self.taken += usize::from(!matches!(before, Some(Seat::Taken(_))));
    }

    pub(super) fn stand_up(&mut self, peer: &PeerId, left_with: Option<(u64, Paces)>) {
        let before = match left_with {
            Some((number, paces)) => self.seats.insert(*peer, Seat::Left { number, paces }),
            None => self.seats.remove(peer),
        };
        self.taken -= usize::from(matches!(before, Some(Seat::Taken(_))));
    }

    /// Forgets that `peer` left with `number`, unless it came and left again since.
    pub(super) fn forget(&mut self, peer: &PeerId, number: u64) {
        if matches!(self.seats.get(peer), Some(Seat::Left { number: left, .. }) if *left == number) {
            self.seats.remove(peer);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.taken
    }

    /// A listed member's digest changes from `before` to `after`; `None`: not listed.
    pub(super) fn relist(&mut self, before: Option<u64>, after: Option<u64>) {
        self.listed = self.listed + u32::from(after.is_some()) - u32::from(before.is_some());
        self.digest ^= before.unwrap_or(0) ^ after.unwrap_or(0);
    }

    /// Count and digest of the list as a member with this digest should see it.
    pub(super) fn seen_by(&self, own: Option<u64>) -> (u32, u64) {
        (self.listed - u32::from(own.is_some()), self.digest ^ own.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_twice_is_remembered_as_long_as_the_second_time_asks_for() {
        let (mut network, peer) = (Network::new(Rate::new(1, 1)), PeerId([1; 32]));
        network.sit(peer, Slot(0));
        network.stand_up(&peer, Some((5, Paces::default())));
        network.sit(peer, Slot(0));
        network.stand_up(&peer, Some((9, Paces::default())));
        network.forget(&peer, 5);
        assert!(matches!(network.seat(&peer), Some(Seat::Left { number: 9, .. })));
        network.forget(&peer, 9);
        assert!(network.seat(&peer).is_none() && network.is_empty());
    }
}
