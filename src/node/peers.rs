//! The peers, and when each wants to be woken. What a packet costs must not grow with the number of members, so
//! nobody asks all of them at each turn: who was looked at to be changed is *touched*, and only those who were are
//! drained and asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use super::peer::Peer;
use crate::id::PeerId;
use crate::sans::{Instant, Wakeup};

/// When more than so many are touched, their wake-ups are put in order; fewer are asked each time.
const FEW: usize = 8;

/// All peers. They are read as in a map; whatever may change one touches it.
#[derive(Debug, Default)]
pub(super) struct Peers {
    all: BTreeMap<PeerId, Peer>,
    /// The wake-ups of those who are not touched.
    order: BTreeSet<(Wakeup, PeerId)>,
    touched: Vec<PeerId>,
    /// Those that may have changed since [`Peers::take_changed`].
    changed: Vec<PeerId>,
}

/// What [`Peers`] notes at each of them.
#[derive(Debug, Default)]
pub(super) struct Note {
    touched: bool,
    /// It is on the list of those that may have changed.
    changed: bool,
    /// As it stands in the order.
    wakeup: Option<Wakeup>,
}

impl Deref for Peers {
    type Target = BTreeMap<PeerId, Peer>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Peers {
    /// Adds one.
    pub(super) fn insert(&mut self, id: PeerId, peer: Peer) {
        self.remove(&id);
        self.all.insert(id, peer);
        self.get_mut(&id);
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, id: &PeerId) -> Option<Peer> {
        let mut peer = self.all.remove(id)?;
        if let Some(wakeup) = peer.note.wakeup.take() {
            self.order.remove(&(wakeup, *id));
        }
        self.touched.retain(|touched| touched != id);
        if !peer.note.changed {
            self.changed.push(*id);
        }
        Some(peer)
    }

    /// One, to be changed.
    pub(super) fn get_mut(&mut self, id: &PeerId) -> Option<&mut Peer> {
        let peer = self.all.get_mut(id)?;
        if !peer.note.changed {
            peer.note.changed = true;
            self.changed.push(*id);
        }
        if !peer.note.touched {
            peer.note.touched = true;
            self.touched.push(*id);
            if let Some(wakeup) = peer.note.wakeup.take() {
                self.order.remove(&(wakeup, *id));
            }
        }
        Some(peer)
    }

    /// All, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        let ids: Vec<PeerId> = self.all.keys().copied().collect();
        for id in &ids {
            self.get_mut(id);
        }
        self.all.values_mut()
    }

    /// One that may have changed, or gone, since this was asked last.
    pub(super) fn take_changed(&mut self) -> Option<PeerId> {
        let id = self.changed.pop()?;
        if let Some(peer) = self.all.get_mut(&id) {
            peer.note.changed = false;
        }
        Some(id)
    }

    /// The touched one at `n`, in the order of touching.
    pub(super) fn touched(&self, n: usize) -> Option<PeerId> {
        self.touched.get(n).copied()
    }

    /// Whether it is time to drain those that are touched.
    pub(super) const fn many_are_touched(&self) -> bool {
        self.touched.len() > FEW
    }

    /// Those that are touched, and drained, wait again until something happens to them, unless they are few.
    pub(super) fn settle(&mut self) {
        if self.many_are_touched() {
            for id in self.touched.drain(..) {
                let Some(peer) = self.all.get_mut(&id) else { continue };
                peer.note = Note { touched: false, wakeup: peer.poll_timeout(), ..peer.note };
                self.order.extend(peer.note.wakeup.map(|wakeup| (wakeup, id)));
            }
        }
    }

    /// The earliest wake-up of all.
    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        let touched = self.touched.iter().filter_map(|id| self.all.get(id)?.poll_timeout());
        touched.chain(self.order.first().map(|(wakeup, _)| *wakeup)).min()
    }

    /// Whose wake-up is due.
    pub(super) fn due(&self, now: Instant) -> Vec<PeerId> {
        let ordered = self.order.iter().take_while(|(wakeup, _)| wakeup.at <= now).map(|(_, id)| *id);
        let is_due = |id: &&PeerId| {
            let wakeup = self.all.get(id).and_then(Peer::poll_timeout);
            wakeup.is_some_and(|wakeup| wakeup.at <= now)
        };
        ordered.chain(self.touched.iter().filter(is_due).copied()).collect()
    }
}
