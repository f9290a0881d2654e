//! What the server says, and what becomes of it.

use std::net::SocketAddr;
use std::time::Duration;

use super::attempt::{self, Attempt};
use super::link::{Link, Place};
use super::members::{Change, Sync};
use super::{Client, Event, HINT_PAUSE, MAX_ACKS, NOTICE_TIME, SYNC_PAUSE, Trouble};
use crate::rendezvous::REFRESH;
use crate::sans::Instant;
use crate::wire::relay;
use crate::wire::rendezvous::items::{Listing, PeerNews, Summary, ToPeer};
use crate::wire::rendezvous::{FrameHeader, Message, Reason, UNKNOWN_LEN, Unknown};

impl Client {
    /// The server does not know us. Anybody could say so: we ask it, and keep what we have.
    pub(super) fn on_unknown(&mut self, now: Instant, from: Place, unknown: &Unknown) -> bool {
        let Some(link) = self.link.as_ref().filter(|link| link.at == from) else { return false };
        let mut question = unknown.question.to_vec();
        question.resize(UNKNOWN_LEN * 2, 0);
        let ours = match Message::parse(&question) {
            Ok(Message::Frame(header)) => link.sent_lately(&header),
            _ => relay::Header::parse(&question).is_ok_and(|(h, _)| self.wishes.peer_of(h.channel).is_some()),
        };
        if !ours || self.hint_at.is_some_and(|at| now - at < HINT_PAUSE) {
            return ours;
        }
        self.hint_at = Some(now);
        if self.leaving.is_some() {
            self.link = None;
        } else if matches!(self.attempt, Attempt::Idle | Attempt::Paused { .. }) {
            self.begin_at = Some(now);
        }
        true
    }

    pub(super) fn on_frame(&mut self, now: Instant, from: Place, header: &FrameHeader, frame: &[u8]) -> bool {
        if let Some(items) = open_from(self.link.as_mut(), from, header, frame) {
            ToPeer::all(&items).for_each(|item| self.on_item(now, &item));
        } else if let Some(items) = open_from(self.attempt.link(), from, header, frame) {
            self.on_first_frame(now, &items);
        } else {
            return false;
        }
        true
    }

    /// A frame under the keys of a Register: the first that counts says `registered`.
    fn on_first_frame(&mut self, now: Instant, items: &[u8]) {
        let Some((fresh, observed)) = ToPeer::all(items).find_map(|item| match item {
            ToPeer::Registered { fresh, observed, .. } => Some((fresh, observed)),
            _ => None,
        }) else {
            return;
        };
        if let Attempt::Registering(registering) = std::mem::replace(&mut self.attempt, Attempt::Idle) {
            let at = registering.link.at;
            self.former = self.link.replace(registering.link);
            self.moved(now, self.former.as_ref().map(|link| link.at), at);
            let first = self.former.is_none();
            (self.trouble, self.problem, self.refusals) = (Trouble::None, None, 0);
            self.acks.clear();
            self.plan_refresh(now, REFRESH);
            if first {
                self.wishes.say_all_again(now);
                self.events.push_back(Event::Registered);
            }
        }
        self.on_registered(now, fresh, observed);
        ToPeer::all(items).for_each(|item| self.on_item(now, &item));
    }

    fn on_item(&mut self, now: Instant, item: &ToPeer<'_>) {
        match item {
            ToPeer::Ack(ids) => ids.iter().for_each(|id| self.on_ack(id)),
            // Once is enough: a Register that somebody replays is confirmed again, and must not reset us.
            ToPeer::Registered { .. } => {}
            ToPeer::Refreshed { token, observed, summary } => self.on_refreshed(now, *token, *observed, summary),
            ToPeer::Peer(news) => self.on_news(now, news),
            ToPeer::Refused { reason, id } => self.on_item_refused(now, *reason, *id),
            ToPeer::AreYouThere { token } => self.alive.push(*token),
            ToPeer::Duplicate { id } => {
                self.acks.push(*id);
                self.events.push_back(Event::Duplicate);
            }
            ToPeer::Stopping => self.lose(now),
        }
    }

    fn on_ack(&mut self, id: u32) {
        self.wishes.acknowledged(id);
        if self.leaving.as_ref().is_some_and(|leaving| leaving.id == id) {
            self.link = None;
        }
    }

    fn on_registered(&mut self, now: Instant, fresh: bool, observed: Option<SocketAddr>) {
        if let Some(socket) = self.link.as_ref().map(|link| link.at.socket) {
            self.observed(socket, observed);
        }
        if fresh {
            self.close_all();
            self.wishes.say_all_again(now);
            self.members.start_over();
            self.plan_refresh(now, SYNC_PAUSE);
        }
    }

    fn on_refreshed(&mut self, now: Instant, token: u64, observed: Option<SocketAddr>, summary: &Summary) {
        if token == self.refresh.token {
            self.measured(now - self.refresh.sent_at);
        }
        if let Some(socket) = self.link.as_ref().map(|link| link.at.socket) {
            self.observed(socket, observed);
        }
        for peer in self.members.summary(now, token, summary) {
            self.events.push_back(Event::Left { peer });
        }
        if self.notice_at.is_some_and(|at| now - at > NOTICE_TIME) {
            (self.notice_at, self.problem) = (None, None);
        }
        match self.members.wants_refresh() {
            Some(Sync::Wanted { list: true }) => self.plan_refresh(now, Duration::ZERO),
            Some(_) => self.plan_refresh(now, SYNC_PAUSE),
            None => self.plan_refresh(now, REFRESH),
        }
    }

    fn on_news(&mut self, now: Instant, news: &PeerNews<'_>) {
        if self.acks.len() < MAX_ACKS {
            self.acks.push(news.id);
        }
        let peer = news.peer;
        if !self.members.is_newer(&peer, news.id) {
            return;
        }
        match (self.members.apply(now, peer, news.id, news.listing.as_ref()), news.listing) {
            (Change::Listed, Some(Listing::Member { observed, sealed })) => {
                self.events.push_back(Event::Member { peer, observed, sealed: sealed.to_vec() });
            }
            (Change::Gone, _) => self.events.push_back(Event::Left { peer }),
            _ => {}
        }
        if self.members.lists(&peer) {
            self.wishes.listed(now, &peer);
        }
        if news.start {
            self.events.push_back(Event::Introduced { peer });
        }
        if let Some(open) = news.channel.and_then(|number| self.wishes.channel_is(now, &peer, number)) {
            self.events.push_back(if open { Event::RelayOpen { peer } } else { Event::RelayClosed { peer } });
        }
    }

    fn on_item_refused(&mut self, now: Instant, reason: Reason, id: u32) {
        self.wishes.refused(now, id, reason);
        if let Some(server) = self.server_addr().filter(|_| matches!(reason, Reason::RelayLimit | Reason::ChannelsFull))
        {
            self.notice_at = Some(now);
            self.problem = Some(format!("{server} {}", attempt::text(reason, 0)));
        }
    }
}

/// Opens `frame` if it comes from where `link` leads.
fn open_from(link: Option<&mut Link>, from: Place, header: &FrameHeader, frame: &[u8]) -> Option<Vec<u8>> {
    link.filter(|link| link.at == from)?.open(header, frame)
}
