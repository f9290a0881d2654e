//! The networks' lists: who is on them, and who has to hear of a change.

use std::time::Duration;

use super::registration::{Registration, Slot};
use super::{Event, Server};
use crate::crypto::cookie;
use crate::id::PeerId;
use crate::sans::Instant;
use crate::wire::rendezvous::items::Summary;

/// Cookies are good for at most two of their lives: what was signed before cannot be replayed later.
const LEFT_REMEMBERED: Duration = Duration::from_secs(2 * cookie::LIFETIME.as_secs());

impl Server {
    /// Puts a registration that announced itself on the list: an introduction to every member, in the same tick.
    pub(super) fn enlist(&mut self, now: Instant, slot: Slot) {
        let Some(registration) = self.registrations.get(slot).filter(|registration| registration.is_listed()) else {
            return;
        };
        let after = registration.digest();
        if let Some(network) = self.networks.get_mut(&registration.network) {
            network.relist(None, Some(after));
        }
        self.tell_members_about(now, slot, true);
        self.tell_about_members(now, slot, true);
    }

    /// Every other member is to hear what changed about the one in `slot`; `start`: and both start to search a path.
    pub(super) fn tell_members_about(&mut self, now: Instant, slot: Slot, start: bool) {
        let Some(peer) = self.peer(slot) else { return };
        for other in self.others(slot) {
            self.note_listing(now, other, peer, start);
        }
    }

    /// The one in `slot` is to hear of all members.
    pub(super) fn tell_about_members(&mut self, now: Instant, slot: Slot, start: bool) {
        for other in self.others(slot) {
            if let Some(peer) = self.peer(other) {
                self.note_listing(now, slot, peer, start);
            }
        }
    }

    fn note_listing(&mut self, now: Instant, slot: Slot, about: PeerId, start: bool) {
        let most = self.most_news();
        if let Some(registration) = self.registrations.get_mut(slot) {
            registration.note(now, about, most, |news| {
                news.listing = true;
                news.start |= start;
            });
            self.touched.push(slot);
        }
    }

    /// The listed members of its network but itself.
    fn others(&self, slot: Slot) -> Vec<Slot> {
        let Some(registration) = self.registrations.get(slot) else { return Vec::new() };
        let Some(network) = self.networks.get(&registration.network) else { return Vec::new() };
        let listed = |other: &Slot| self.registrations.get(*other).is_some_and(|r| r.is_listed());
        network.slots().filter(|other| *other != slot).filter(listed).collect()
    }

    /// The listed member `peer` of the network of the one in `slot`, if that is listed itself.
    pub(super) fn fellow(&self, slot: Slot, peer: &PeerId) -> Option<Slot> {
        let registration = self.registrations.get(slot).filter(|registration| registration.is_listed())?;
        let other = self.networks.get(&registration.network)?.slot(peer)?;
        self.registrations.get(other).filter(|other| other.is_listed() && other.peer != registration.peer)?;
        Some(other)
    }

    /// What the list of the one in `slot` should look like.
    pub(super) fn summary(&self, slot: Slot) -> Summary {
        let Some(registration) = self.registrations.get(slot) else { return Summary::default() };
        let Some(network) = self.networks.get(&registration.network) else { return Summary::default() };
        if !registration.is_listed() {
            // It announces itself first.
            return Summary { pending: true, ..Summary::default() };
        }
        let (count, digest) = network.seen_by(Some(registration.digest()));
        let pending = registration.news.values().any(|news| news.listing);
        Summary { pending, count, digest }
    }

    /// Ends a registration and tells the others.
    pub(super) fn remove(&mut self, now: Instant, slot: Slot) {
        let was_listed = self.registrations.get(slot).is_some_and(|registration| registration.is_listed());
        let others = if was_listed { self.others(slot) } else { Vec::new() };
        let Some(removed) = self.take_out(now, slot) else { return };
        for other in others {
            self.note_listing(now, other, removed.peer, false);
        }
        if let Some(contest) = removed.contest {
            self.seat(now, contest.newcomer);
        }
    }

    /// Ends a registration because another of the same device takes its seat: the others hear of that one.
    pub(super) fn vacate(&mut self, now: Instant, slot: Slot) {
        self.count("replaced");
        if let Some(contest) = self.take_out(now, slot).and_then(|removed| removed.contest) {
            self.seat(now, contest.newcomer);
        }
    }

    fn take_out(&mut self, now: Instant, slot: Slot) -> Option<Box<Registration>> {
        let removed = self.registrations.remove(slot)?;
        self.by_handle.remove(&(removed.route.origin(), removed.handle));
        self.streams.remove(&(removed.route.socket, slot));
        self.leave_prefix(&self.limits.prefix(removed.route.remote.ip()));
        self.expiries.remove(&(removed.expires, slot));
        if let Some(at) = removed.agenda {
            self.agenda.remove(&(at, slot));
        }
        if removed.seated {
            tracing::debug!(network = ?removed.network, peer = ?removed.peer, "gone");
            self.leave_network(now, &removed);
            self.events.push_back(Event::Detached { slot, peer: removed.peer });
        }
        Some(removed)
    }

    /// However it ended: a Register that is let in twice would have the same keys twice, and they count from 0.
    fn leave_network(&mut self, now: Instant, removed: &Registration) {
        let number = Some(removed.number).filter(|_| now - removed.registered < LEFT_REMEMBERED);
        let Some(network) = self.networks.get_mut(&removed.network) else { return };
        if removed.is_listed() {
            network.relist(Some(removed.digest()), None);
        }
        network.stand_up(&removed.peer, number.map(|number| (number, removed.paces)));
        if let Some(number) = number {
            self.left.push_back((now + LEFT_REMEMBERED, removed.network, removed.peer, number));
            if self.left.len() > self.limits.registrations {
                self.forget_left();
            }
        } else if network.is_empty() {
            self.networks.remove(&removed.network);
        }
    }

    /// Forgets whoever left first.
    pub(super) fn forget_left(&mut self) {
        let Some((_, id, peer, number)) = self.left.pop_front() else { return };
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.forget(&peer, number);
        if network.is_empty() {
            self.networks.remove(&id);
        }
    }
}
