//! What registered peers say. Everything here is authenticated; what is not allowed is refused and counted.

use super::limits::Rate;
use super::registration::{Route, Slot};
use super::{Event, Server};
use crate::id::PeerId;
use crate::rendezvous::frame::Frame;
use crate::sans::Instant;
use crate::wire::Writer;
use crate::wire::relay::MAX_CHANNEL;
use crate::wire::rendezvous::items::{Ids, MAX_ANNOUNCEMENT, ToPeer, ToServer};
use crate::wire::rendezvous::{FrameHeader, Reason};

/// Changes of the announcement.
const CHANGES: Rate = Rate::new(1, 5);
/// Introductions: after a change of network one for every member that is not reached any more.
const INTRODUCTIONS: Rate = Rate::new(1, 64);
/// Channels opened and closed: one for every member at the start.
const CHANNELS: Rate = Rate::new(5, 300);
/// The whole list.
const LISTS: Rate = Rate::new(1, 3);

/// What one frame is answered with.
#[derive(Default)]
struct Answer {
    acks: Vec<u8>,
    refused: Vec<(Reason, u32)>,
    /// The refresh to answer.
    token: Option<u64>,
    /// Too much was asked: refreshes are not answered, so that all of it is asked again later.
    is_over: bool,
}

impl Answer {
    fn ack(&mut self, id: u32) {
        self.acks.extend_from_slice(&id.to_be_bytes());
    }
}

impl Server {
    pub(super) fn on_frame(&mut self, now: Instant, route: Route, header: &FrameHeader, frame: &mut [u8]) -> bool {
        let Some(slot) = self.by_handle.get(&(route.origin(), header.handle)).copied() else {
            self.say_unknown(now, route, frame);
            return false;
        };
        let Some(registration) = self.registrations.get_mut(slot) else { return false };
        let Some(items) = registration.open(now, header, frame) else { return self.drop("not-authentic") };
        if !registration.news.is_empty() {
            // It may have been silent for a while.
            self.touched.push(slot);
        }
        let mut answer = Answer::default();
        for item in ToServer::all(items) {
            self.on_item(now, slot, &item, &mut answer);
        }
        self.answer(slot, &answer);
        true
    }

    fn on_item(&mut self, now: Instant, slot: Slot, item: &ToServer<'_>, answer: &mut Answer) {
        match *item {
            ToServer::Ack(ids) => self.on_ack(slot, ids),
            ToServer::Announce { id, sealed } => self.on_announce(now, slot, id, sealed, answer),
            ToServer::Refresh { token } => answer.token = Some(token),
            ToServer::Introduce { id, peer } => self.on_introduce(now, slot, id, peer, answer),
            ToServer::Channel { id, peer, channel } => self.on_channel(now, slot, (id, &peer, channel), answer),
            ToServer::List => self.on_list(now, slot, answer),
            ToServer::Leave { id } => self.on_leave(now, slot, id),
            ToServer::Alive { token } => self.on_alive(now, slot, token),
        }
    }

    /// One frame, or none. A contested registration hears nothing until it is decided.
    fn answer(&mut self, slot: Slot, answer: &Answer) {
        if !self.registrations.get(slot).is_some_and(|registration| registration.seated) {
            return;
        }
        let mut frame = Frame::default();
        if let Some(token) = answer.token.filter(|_| !answer.is_over) {
            let observed = self.route(slot).and_then(|route| route.observed());
            let summary = self.summary(slot);
            frame.push(|w| ToPeer::Refreshed { token, observed, summary }.write(w));
        }
        if !answer.acks.is_empty() {
            frame.push(|w| ToPeer::Ack(Ids::new(&answer.acks)).write(w));
        }
        for (reason, id) in &answer.refused {
            frame.push(|w| ToPeer::Refused { reason: *reason, id: *id }.write(w));
        }
        if let Some(items) = frame.take() {
            self.send_items(slot, &items);
        }
    }

    fn on_ack(&mut self, slot: Slot, ids: Ids<'_>) {
        if let Some(registration) = self.registrations.get_mut(slot) {
            ids.iter().for_each(|id| registration.acknowledged(id));
            self.touched.push(slot);
        }
    }

    /// The newest counts; more than one change a second (burst 5) waits without an acknowledgement.
    fn on_announce(&mut self, now: Instant, slot: Slot, id: u32, sealed: &[u8], answer: &mut Answer) {
        let Some(registration) = self.registrations.get_mut(slot) else { return };
        let known = registration.announcement.as_ref();
        if known.is_some_and(|known| id <= known.id) {
            return answer.ack(id);
        }
        if sealed.is_empty() || sealed.len() > MAX_ANNOUNCEMENT {
            self.drop("malformed");
            return;
        }
        if !registration.paces.changes.allow(now, CHANGES) {
            self.drop("announcement-rate");
            return;
        }
        answer.ack(id);
        let before = registration.is_listed().then(|| registration.digest());
        let is_same = registration.announcement.as_ref().is_some_and(|known| *known.sealed == *sealed);
        registration.announce(id, sealed);
        let (network, after) = (registration.network, registration.digest());
        if !registration.is_listed() {
            return;
        }
        match before {
            None => self.enlist(now, slot),
            Some(_) if is_same => {}
            Some(before) => {
                if let Some(network) = self.networks.get_mut(&network) {
                    network.relist(Some(before), Some(after));
                }
                self.tell_members_about(now, slot, false);
            }
        }
    }

    /// Tells both at the same moment.
    fn on_introduce(&mut self, now: Instant, slot: Slot, id: u32, peer: PeerId, answer: &mut Answer) {
        let Some(other) = self.fellow(slot, &peer) else {
            self.count(Reason::NoSuchMember.word());
            return answer.refused.push((Reason::NoSuchMember, id));
        };
        let Some(registration) = self.registrations.get_mut(slot) else { return };
        if registration.was_introduced(id) {
            return answer.ack(id);
        }
        if !registration.paces.introductions.allow(now, INTRODUCTIONS) {
            registration.introduced[0] = 0;
            self.drop("introduction-rate");
            return;
        }
        answer.ack(id);
        let asker = registration.peer;
        self.count("introduction");
        let most = self.most_news();
        for (to, about) in [(slot, peer), (other, asker)] {
            if let Some(registration) = self.registrations.get_mut(to) {
                registration.note(now, about, most, |news| news.start = true);
                self.touched.push(to);
            }
        }
    }

    fn on_list(&mut self, now: Instant, slot: Slot, answer: &mut Answer) {
        let Some(registration) = self.registrations.get_mut(slot).filter(|r| r.is_listed()) else { return };
        if registration.paces.lists.allow(now, LISTS) {
            self.tell_about_members(now, slot, false);
        } else {
            self.drop("list-rate");
            answer.is_over = true;
        }
    }

    /// The relay decides; it answers with [`Server::channel_answer`].
    fn on_channel(&mut self, now: Instant, slot: Slot, wish: (u32, &PeerId, u32), answer: &mut Answer) {
        let (id, peer, number) = wish;
        let Some(registration) = self.registrations.get_mut(slot) else { return };
        if !registration.paces.channels.allow(now, CHANNELS) {
            self.drop("channel-rate");
            return;
        }
        match self.fellow(slot, peer) {
            Some(other) if number == 0 => self.events.push_back(Event::Close { slot, other, id }),
            Some(other) if number <= MAX_CHANNEL => self.events.push_back(Event::Open { slot, other, number, id }),
            _ if number == 0 => answer.ack(id),
            _ => {
                self.count(Reason::NoSuchMember.word());
                answer.refused.push((Reason::NoSuchMember, id));
            }
        }
    }

    /// The relay's answer to a wish for a channel.
    pub fn channel_answer(&mut self, slot: Slot, id: u32, result: Result<(), Reason>) {
        let mut answer = Answer::default();
        match result {
            Ok(()) => answer.ack(id),
            Err(reason) => {
                self.count(reason.word());
                answer.refused.push((reason, id));
            }
        }
        self.answer(slot, &answer);
    }

    /// The relay says that a channel changed: `number` is what the peer in `slot` calls its channel to `about`, 0 if
    /// it is closed. [`Server::flush`] tells it.
    pub fn channel_changed(&mut self, now: Instant, slot: Slot, about: PeerId, number: u32) {
        let most = self.most_news();
        if let Some(registration) = self.registrations.get_mut(slot) {
            registration.note(now, about, most, |news| news.channel = Some(number));
            self.touched.push(slot);
        }
    }

    /// The relay says that a peer sends more than is forwarded.
    pub fn tell_throttled(&mut self, slot: Slot) {
        self.answer(slot, &Answer { refused: vec![(Reason::RelayLimit, 0)], ..Answer::default() });
    }

    /// Tells every peer that the server stops.
    pub fn say_stopping(&mut self) {
        let slots: Vec<Slot> = self.networks.values().flat_map(|network| network.slots()).collect();
        for slot in slots {
            let mut w = Writer::default();
            ToPeer::Stopping.write(&mut w);
            self.send_items(slot, w.as_slice());
        }
    }

    /// The answer goes out before the keys are forgotten.
    fn on_leave(&mut self, now: Instant, slot: Slot, id: u32) {
        if !self.registrations.get(slot).is_some_and(|registration| registration.seated) {
            return;
        }
        self.channel_answer(slot, id, Ok(()));
        self.count("left");
        self.remove(now, slot);
    }
}
