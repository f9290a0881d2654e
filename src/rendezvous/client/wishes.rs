//! What this peer wants the server to know: its announcement, its channels, its wishes to be introduced. Each
//! is repeated until acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{MAX_MEMBERS, Repeat};
use crate::id::PeerId;
use crate::rendezvous::frame::Frame;
use crate::sans::{Instant, RateLimit, Rng};
use crate::wire::relay::MAX_CHANNEL;
use crate::wire::rendezvous::Reason;
use crate::wire::rendezvous::items::ToServer;

/// A channel that was refused because there are too many is asked for again after this.
const FULL_PAUSE: Duration = Duration::from_secs(5);
/// While the announcement's rate is used up, it is tried again this often.
const RATE_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Wishes {
    last_id: u32,
    announcement: Option<Announcement>,
    /// At most one change a second, five at once.
    changes: RateLimit,
    channels: BTreeMap<PeerId, Channel>,
    /// Whose channel a number is.
    numbers: BTreeMap<u32, PeerId>,
    introductions: BTreeMap<PeerId, Introduction>,
    /// Channels beyond [`MAX_MEMBERS`] that the server spoke of.
    pub(super) refused: u64,
}

#[derive(Debug)]
struct Announcement {
    sealed: Vec<u8>,
    /// `None`: this version was not yet sent.
    id: Option<u32>,
    repeat: Option<Repeat>,
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) number: u32,
    /// Both ends opened it.
    pub(super) open: bool,
    closing: bool,
    id: u32,
    repeat: Option<Repeat>,
}

#[derive(Debug)]
struct Introduction {
    id: u32,
    repeat: Repeat,
}

impl Wishes {
    pub(super) fn new() -> Self {
        Self {
            last_id: 0,
            announcement: None,
            changes: RateLimit::new(1, 5),
            channels: BTreeMap::new(),
            numbers: BTreeMap::new(),
            introductions: BTreeMap::new(),
            refused: 0,
        }
    }

    pub(super) fn fresh_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    /// The newest announcement replaces whatever was not sent yet.
    pub(super) fn announce(&mut self, now: Instant, sealed: Vec<u8>) {
        if self.announcement.as_ref().is_some_and(|a| a.sealed == sealed) {
            return;
        }
        self.announcement = Some(Announcement { sealed, id: None, repeat: Some(Repeat::new(now)) });
    }

    pub(super) fn introduce(&mut self, now: Instant, peer: PeerId) {
        let id = self.fresh_id();
        self.introductions.insert(peer, Introduction { id, repeat: Repeat::new(now) });
    }

    pub(super) fn open(&mut self, now: Instant, peer: PeerId, rng: &mut Rng) {
        let id = self.fresh_id();
        let number = self.channels.get(&peer).map_or_else(|| self.unused_number(rng), |channel| channel.number);
        self.numbers.insert(number, peer);
        let channel = self.channels.entry(peer).or_insert(Channel {
            number,
            open: false,
            closing: false,
            id,
            repeat: Some(Repeat::new(now)),
        });
        if channel.closing {
            (channel.closing, channel.id, channel.repeat) = (false, id, Some(Repeat::new(now)));
        }
    }

    fn unused_number(&self, rng: &mut Rng) -> u32 {
        loop {
            let number = rng.u32() & MAX_CHANNEL;
            if number != 0 && self.peer_of(number).is_none() {
                return number;
            }
        }
    }

    /// Whether it was open.
    pub(super) fn close(&mut self, now: Instant, peer: &PeerId) -> bool {
        let id = self.fresh_id();
        let Some(channel) = self.channels.get_mut(peer) else { return false };
        (channel.closing, channel.id, channel.repeat) = (true, id, Some(Repeat::new(now)));
        std::mem::take(&mut channel.open)
    }

    /// The channel to `peer`, unless it is being closed.
    pub(super) fn channel(&self, peer: &PeerId) -> Option<&Channel> {
        self.channels.get(peer).filter(|channel| !channel.closing)
    }

    /// Whose channel `number` is.
    pub(super) fn peer_of(&self, number: u32) -> Option<PeerId> {
        self.numbers.get(&number).copied()
    }

    /// The server says under which of our numbers the channel to `peer` is open (0: none). Whether it is, if
    /// that is news.
    pub(super) fn channel_is(&mut self, now: Instant, peer: &PeerId, number: u32) -> Option<bool> {
        let id = self.fresh_id();
        let Some(channel) = self.channels.get_mut(peer) else {
            // A late wish opened what we closed since. A server that invents such channels is not followed for long.
            let closing = Channel { number, open: false, closing: true, id, repeat: Some(Repeat::new(now)) };
            if number != 0 && self.channels.len() < MAX_MEMBERS {
                self.channels.insert(*peer, closing);
            } else if number != 0 {
                self.refused += 1;
            }
            return None;
        };
        let open = number == channel.number && !channel.closing;
        if !open && channel.repeat.is_none() {
            channel.repeat = Some(Repeat::new(now + Repeat::FIRST));
        }
        (std::mem::replace(&mut channel.open, open) != open).then_some(open)
    }

    /// `peer` was listed: a channel that waited for this is asked for.
    pub(super) fn listed(&mut self, now: Instant, peer: &PeerId) {
        if let Some(channel) = self.channels.get_mut(peer).filter(|channel| !channel.open && channel.repeat.is_none()) {
            channel.repeat = Some(Repeat::new(now));
        }
    }

    /// A registration's first announcement goes out right behind it.
    pub(super) fn registering(&mut self, now: Instant) {
        if let Some(announcement) = &mut self.announcement {
            announcement.repeat = Some(Repeat::new(now));
        }
    }

    /// The server starts from nothing: everything is said again.
    pub(super) fn say_all_again(&mut self, now: Instant) {
        self.registering(now);
        self.forget_channels(|channel| channel.closing);
        self.channels.values_mut().for_each(|channel| channel.repeat = Some(Repeat::new(now)));
    }

    /// Marks every channel closed; the peers whose channel was open.
    pub(super) fn all_closed(&mut self) -> Vec<PeerId> {
        let open = self.channels.iter_mut().filter(|(_, channel)| channel.open);
        open.map(|(peer, channel)| {
            channel.open = false;
            *peer
        })
        .collect()
    }

    fn forget_channels(&mut self, which: impl Fn(&Channel) -> bool) {
        let numbers = &mut self.numbers;
        self.channels.retain(|peer, channel| {
            let forget = which(channel);
            if forget && numbers.get(&channel.number) == Some(peer) {
                numbers.remove(&channel.number);
            }
            !forget
        });
    }

    pub(super) fn acknowledged(&mut self, id: u32) {
        if let Some(announcement) = self.announcement.as_mut().filter(|a| a.id == Some(id)) {
            announcement.repeat = None;
        }
        self.introductions.retain(|_, introduction| introduction.id != id);
        self.forget_channels(|channel| channel.closing && channel.id == id);
        for channel in self.channels.values_mut().filter(|channel| channel.id == id) {
            channel.repeat = None;
        }
    }

    pub(super) fn refused(&mut self, now: Instant, id: u32, reason: Reason) {
        self.introductions.retain(|_, introduction| introduction.id != id);
        for channel in self.channels.values_mut().filter(|channel| channel.id == id) {
            // Without such a member it waits until one is listed.
            channel.repeat = (reason != Reason::NoSuchMember).then(|| Repeat::new(now + FULL_PAUSE));
        }
    }

    /// Puts the announcement into `frame` if it is due.
    pub(super) fn write_announcement(&mut self, now: Instant, frame: &mut Frame) {
        let Some(announcement) = &mut self.announcement else { return };
        let Some(repeat) = announcement.repeat.as_mut().filter(|repeat| repeat.is_due(now)) else { return };
        let id = match announcement.id {
            Some(id) => id,
            None if self.changes.allow(now) => {
                self.last_id = self.last_id.wrapping_add(1);
                *announcement.id.insert(self.last_id)
            }
            None => {
                *repeat = Repeat::new(now + RATE_PAUSE);
                return;
            }
        };
        if frame.push(|w| ToServer::Announce { id, sealed: &announcement.sealed }.write(w)) {
            repeat.sent(now);
        }
    }

    /// Puts the rest that is due into `frame`.
    pub(super) fn write(&mut self, now: Instant, frame: &mut Frame) {
        self.write_announcement(now, frame);
        for (peer, channel) in &mut self.channels {
            let Some(repeat) = channel.repeat.as_mut().filter(|repeat| repeat.is_due(now)) else { continue };
            let number = if channel.closing { 0 } else { channel.number };
            if frame.push(|w| ToServer::Channel { id: channel.id, peer: *peer, channel: number }.write(w)) {
                repeat.sent(now);
            }
        }
        for (peer, wish) in self.introductions.iter_mut().filter(|(_, wish)| wish.repeat.is_due(now)) {
            if frame.push(|w| ToServer::Introduce { id: wish.id, peer: *peer }.write(w)) {
                wish.repeat.sent(now);
            }
        }
    }

    /// When something is due; `registered`: more than the announcement can be sent.
    pub(super) fn due(&self, registered: bool) -> Option<Instant> {
        let announcement = self.announcement.iter().filter_map(|a| a.repeat.as_ref());
        let channels = self.channels.values().filter_map(|channel| channel.repeat.as_ref());
        let introductions = self.introductions.values().map(|wish| &wish.repeat);
        let rest = channels.chain(introductions).filter(|_| registered);
        announcement.chain(rest).map(|repeat| repeat.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_that_a_server_invents_are_closed_but_only_so_many() {
        let (mut wishes, now) = (Wishes::new(), Instant::ZERO);
        for n in 0..10_000_u32 {
            let mut peer = PeerId([7; 32]);
            peer.0[..4].copy_from_slice(&n.to_be_bytes());
            assert_eq!(wishes.channel_is(now, &peer, 5), None);
        }
        assert_eq!((wishes.channels.len(), wishes.refused), (MAX_MEMBERS, 10_000 - MAX_MEMBERS as u64));
        assert!(wishes.channels.values().all(|channel| channel.closing));
    }
}
