//! Telling peers what is new, until they acknowledge it. What is told is read when it is sent, so it is always
//! the newest; only *that* something is to be told is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Server;
use super::registration::{News, Registration, Slot};
use crate::id::PeerId;
use crate::rendezvous::frame::Frame;
use crate::sans::Instant;
use crate::wire::Writer;
use crate::wire::rendezvous::items::{Listing, PeerNews, ToPeer};

/// Members about whom news are under way to one peer at once.
const WINDOW: usize = 64;
/// A peer that was silent for so long missed a refresh: nothing is repeated until it is heard again.
const QUIET: Duration = Duration::from_secs(25);

impl Server {
    /// News of one peer that are kept: of all members, and of as many who came and went meanwhile. What is lost
    /// beyond that the next summary shows.
    pub(super) const fn most_news(&self) -> usize {
        self.limits.per_network.saturating_mul(2)
    }

    /// Sends to everybody who was touched what is due, and enters the rest on the agenda.
    pub(super) fn tell_touched(&mut self, now: Instant) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for slot in touched {
            self.tell(now, slot);
            self.plan(now, slot);
        }
    }

    fn tell(&mut self, now: Instant, slot: Slot) {
        let Some(registration) = self.registrations.get_mut(slot) else { return };
        if !registration.seated || now - registration.heard > QUIET {
            return;
        }
        let mut frame = Frame::default();
        if let Some((id, repeat)) = registration.duplicate.as_mut().filter(|(_, repeat)| repeat.is_due(now)) {
            let id = *id;
            frame.push(|w| ToPeer::Duplicate { id }.write(w));
            repeat.sent(now);
        }
        let mut news = std::mem::take(&mut registration.news);
        self.tell_news(now, slot, &mut news, &mut frame);
        if let Some(registration) = self.registrations.get_mut(slot) {
            registration.news = news;
        }
        if let Some(items) = frame.take() {
            self.send_items(slot, &items);
        }
    }

    fn tell_news(&mut self, now: Instant, slot: Slot, all: &mut BTreeMap<PeerId, News>, frame: &mut Frame) {
        let waiting = |news: &&News| news.repeat.is_under_way() && !news.repeat.is_due(now);
        let mut free = WINDOW.saturating_sub(all.values().filter(waiting).count());
        for (peer, news) in all.iter_mut().filter(|(_, news)| news.repeat.is_due(now)) {
            if free == 0 {
                break;
            }
            free -= 1;
            let item = self.item(slot, peer, news);
            if !frame.push_bytes(&item) {
                if let Some(items) = frame.take() {
                    self.send_items(slot, &items);
                }
                frame.push_bytes(&item);
            }
            news.repeat.sent(now);
        }
    }

    /// What is to be said about `peer` as things stand.
    fn item(&self, slot: Slot, peer: &PeerId, news: &News) -> Vec<u8> {
        let member = self.fellow(slot, peer).and_then(|other| self.registrations.get(other));
        let listing = news.listing.then(|| match member.and_then(|m| Some((m, m.announcement.as_ref()?))) {
            Some((member, announcement)) => {
                Listing::Member { observed: member.route.observed(), sealed: &announcement.sealed }
            }
            None => Listing::Gone,
        });
        let mut w = Writer::default();
        let start = news.start && member.is_some();
        ToPeer::Peer(PeerNews { id: news.id, peer: *peer, listing, start, channel: news.channel }).write(&mut w);
        w.finish()
    }

    /// Enters on the agenda when the peer in `slot` has its next turn.
    fn plan(&mut self, now: Instant, slot: Slot) {
        let Some(registration) = self.registrations.get_mut(slot) else { return };
        let due = next_turn(now, registration);
        if due == registration.agenda {
            return;
        }
        if let Some(at) = registration.agenda.take() {
            self.agenda.remove(&(at, slot));
        }
        registration.agenda = due;
        if let Some(at) = due {
            self.agenda.insert((at, slot));
        }
    }
}

/// What waits for room in the window waits for an acknowledgement, not for a time.
fn next_turn(now: Instant, registration: &Registration) -> Option<Instant> {
    let contest = registration.contest.as_deref().map(Server::contest_due);
    let is_told = registration.seated && now - registration.heard <= QUIET;
    let news = registration.news.values().map(|news| &news.repeat);
    let duplicate = registration.duplicate.iter().map(|(_, repeat)| repeat);
    let repeats = news.chain(duplicate).filter(|repeat| is_told && repeat.is_under_way());
    repeats.map(|repeat| repeat.due).chain(contest).min()
}
