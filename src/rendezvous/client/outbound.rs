//! What goes to the server, and when.

use std::net::SocketAddr;
use std::time::Duration;

use super::attempt::Attempt;
use super::link::Place;
use super::{Client, Event, REFRESH_PAUSES, Refresh, Trouble};
use crate::id::SocketId;
use crate::rendezvous::frame::Frame;
use crate::sans::Instant;
use crate::wire::rendezvous::items::{Ids, ToServer};

impl Client {
    /// The next frame of the registration that stands.
    pub(super) fn frame_to_server(&mut self) -> Option<(SocketId, SocketAddr, Vec<u8>)> {
        self.link.as_ref()?;
        let (now, mut frame) = (self.now, Frame::default());
        self.write_answers(&mut frame);
        if let Some(leaving) = &mut self.leaving {
            if leaving.repeat.is_due(now) && frame.push(|w| ToServer::Leave { id: leaving.id }.write(w)) {
                leaving.repeat.sent(now);
            }
        } else {
            self.write_refresh(now, &mut frame);
            self.wishes.write(now, &mut frame);
        }
        let link = self.link.as_mut()?;
        frame.take().map(|items| (link.at.socket, link.at.addr, link.seal(&items)))
    }

    pub(super) fn write_answers(&mut self, frame: &mut Frame) {
        let acks: Vec<u8> = std::mem::take(&mut self.acks).into_iter().flat_map(u32::to_be_bytes).collect();
        if !acks.is_empty() {
            frame.push(|w| ToServer::Ack(Ids::new(&acks)).write(w));
        }
        for token in std::mem::take(&mut self.alive) {
            frame.push(|w| ToServer::Alive { token }.write(w));
        }
    }

    pub(super) fn write_refresh(&mut self, now: Instant, frame: &mut Frame) {
        if self.refresh.due > now {
            return;
        }
        let token = self.refresh.token + 1;
        if self.members.refresh_sent(now, token) {
            frame.push(|w| ToServer::List.write(w));
        }
        frame.push(|w| ToServer::Refresh { token }.write(w));
        let pause = REFRESH_PAUSES[self.refresh.unanswered.min(REFRESH_PAUSES.len() - 1)];
        let unanswered = self.refresh.unanswered + 1;
        self.refresh = Refresh { due: now + pause, unanswered, token, sent_at: now };
    }

    /// The announcement under keys that are not confirmed yet: it follows the Register without waiting.
    pub(super) fn first_announcement(&mut self) -> Option<(SocketId, SocketAddr, Vec<u8>)> {
        let mut frame = Frame::default();
        let link = self.attempt.link()?;
        self.wishes.write_announcement(self.now, &mut frame);
        frame.take().map(|items| (link.at.socket, link.at.addr, link.seal(&items)))
    }

    /// Before a refresh is repeated: is there still hope?
    pub(super) fn check_refresh(&mut self, now: Instant) {
        if self.link.is_none() || self.refresh.due > now {
            return;
        }
        match self.refresh.unanswered {
            0 => self.hello_other_family(now),
            2 if matches!(self.attempt, Attempt::Idle) => self.begin_at = Some(now),
            n if n >= REFRESH_PAUSES.len() => self.lose(now),
            _ => {}
        }
    }

    /// The socket of the other family has a mapping to keep and an address to learn as well.
    pub(super) fn hello_other_family(&mut self, now: Instant) {
        if let [Some(_), Some(other)] = self.udp_addrs() {
            self.hello(now, Place::udp(other));
        }
    }

    pub(super) fn lose(&mut self, now: Instant) {
        self.link = None;
        self.ask_to_resolve(now);
        self.close_all();
        self.events.push_back(Event::Lost);
    }

    pub(super) fn close_all(&mut self) {
        for peer in self.wishes.all_closed() {
            self.events.push_back(Event::RelayClosed { peer });
        }
    }

    pub(super) fn plan_refresh(&mut self, now: Instant, pause: Duration) {
        self.refresh.unanswered = 0;
        self.refresh.due = now + pause - self.rng.between(Duration::ZERO, pause / 10);
    }

    pub(super) fn ask_to_resolve(&mut self, now: Instant) {
        self.resolve_at.get_or_insert(now);
    }

    pub(super) fn observed(&mut self, socket: SocketId, observed: Option<SocketAddr>) {
        let Some(known) = self.observed.get_mut(usize::from(socket.0)) else { return };
        if let Some(addr) = observed.filter(|addr| *known != Some(*addr)) {
            *known = Some(addr);
            self.events.push_back(Event::Observed { socket, addr });
        }
    }

    pub(super) fn measured(&mut self, round_trip: Duration) {
        self.rtt = Some(round_trip);
    }

    pub(super) fn trouble(&mut self, trouble: Trouble, text: String) {
        self.trouble = trouble;
        if trouble == Trouble::Refused && self.problem.as_ref() != Some(&text) {
            self.events.push_back(Event::Refused(text.clone()));
        }
        self.problem = Some(text);
    }
}
