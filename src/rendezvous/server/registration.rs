//! One registration as the server keeps it, and the table of all. Kept small: raw keys, one boxed announcement,
//! and nothing that is not being said just now.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::super::{EXPIRY, Repeat};
use super::limits::Pace;
use crate::crypto::ReplayWindow;
use crate::crypto::registration::{Keys, listing_digest};
use crate::id::{NetworkId, Origin, PeerId, SocketId};
use crate::sans::Instant;
use crate::wire::Writer;
use crate::wire::rendezvous::{Claim, Direction, FrameHeader};

/// Late frames are still new if they are at most this much older than the newest.
const WINDOW: usize = 128;

/// Where a peer is, and how it is answered from the address that it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The socket it sends to.
    pub socket: SocketId,
    /// The local address it sends to, where the system tells.
    pub local: Option<IpAddr>,
    /// Its address.
    pub remote: SocketAddr,
}

impl Route {
    /// Who sends this way.
    pub const fn origin(&self) -> Origin {
        Origin::of(self.socket, self.remote)
    }

    /// Where others may reach it: that of a stream is no address of UDP.
    pub const fn observed(&self) -> Option<SocketAddr> {
        self.origin().udp()
    }
}

/// A place in the table of registrations; reused after its registration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) network: NetworkId,
    pub(super) peer: PeerId,
    pub(super) boot: u64,
    pub(super) number: u64,
    pub(super) handle: u32,
    /// Nothing of this device was held before.
    pub(super) fresh: bool,
    /// False while it is found out whether an older registration of the same device lives.
    pub(super) seated: bool,
    pub(super) route: Route,
    pub(super) keys: Keys,
    /// When its newest Register came.
    pub(super) registered: Instant,
    pub(super) heard: Instant,
    /// When it is looked at whether it was heard since.
    pub(super) expires: Instant,
    pub(super) announcement: Option<Announcement>,
    pub(super) paces: Paces,
    /// The last introductions that were asked for: a repetition is no second one.
    pub(super) introduced: [u32; 4],
    pub(super) news: BTreeMap<PeerId, News>,
    /// Somebody else tried to register as this device; not acknowledged yet.
    pub(super) duplicate: Option<(u32, Repeat)>,
    /// A newcomer who says to be this device.
    pub(super) contest: Option<Box<Contest>>,
    /// When it is on the server's agenda.
    pub(super) agenda: Option<Instant>,
    sent: u64,
    seen: ReplayWindow<WINDOW>,
    last_id: u32,
}

/// How fast a device may cause that others are told something. It takes them along when it registers anew.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paces {
    pub(super) registers: Pace,
    pub(super) changes: Pace,
    pub(super) introductions: Pace,
    pub(super) channels: Pace,
    pub(super) lists: Pace,
}

/// What members are told of a peer.
#[derive(Debug)]
pub(super) struct Announcement {
    pub(super) id: u32,
    pub(super) sealed: Box<[u8]>,
    pub(super) digest: u64,
}

/// What a peer is still to be told about one member.
#[derive(Debug)]
pub(super) struct News {
    pub(super) id: u32,
    pub(super) repeat: Repeat,
    pub(super) listing: bool,
    pub(super) start: bool,
    pub(super) channel: Option<u32>,
}

/// Is the older registration still alive?
#[derive(Debug)]
pub(super) struct Contest {
    pub(super) newcomer: Slot,
    /// Of the newcomer's Register, to refuse it.
    pub(super) nonce: [u8; 16],
    /// In our questions and in the one answer that counts.
    pub(super) token: u64,
    pub(super) asked: usize,
    pub(super) since: Instant,
}

impl Registration {
    pub(super) fn new(now: Instant, claim: &Claim, route: Route, keys: Keys) -> Self {
        Self {
            network: claim.network,
            peer: claim.peer,
            boot: claim.boot,
            number: claim.number,
            handle: claim.handle,
            fresh: true,
            seated: false,
            route,
            keys,
            registered: now,
            heard: now,
            expires: now + EXPIRY,
            announcement: None,
            paces: Paces::default(),
            introduced: [0; 4],
            news: BTreeMap::new(),
            duplicate: None,
            contest: None,
            agenda: None,
            sent: 0,
            seen: ReplayWindow::new(),
            last_id: 0,
        }
    }

    /// The same run of the same device registered again: new keys and perhaps another address, all else stays.
    pub(super) fn renew(&mut self, now: Instant, claim: &Claim, route: Route, keys: Keys) {
        (self.number, self.handle, self.fresh) = (claim.number, claim.handle, false);
        (self.route, self.keys, self.registered, self.heard) = (route, keys, now, now);
        (self.sent, self.seen) = (0, ReplayWindow::new());
        let (peer, observed) = (self.peer, self.route.observed());
        if let Some(announcement) = &mut self.announcement {
            announcement.digest = digest(&peer, observed, &announcement.sealed);
        }
    }

    /// Whether members are told of it.
    pub(super) fn is_listed(&self) -> bool {
        self.seated && self.announcement.is_some()
    }

    /// Its share of its network's digest.
    pub(super) fn digest(&self) -> u64 {
        self.announcement.as_ref().filter(|_| self.seated).map_or(0, |announcement| announcement.digest)
    }

    pub(super) fn announce(&mut self, id: u32, sealed: &[u8]) {
        let digest = digest(&self.peer, self.route.observed(), sealed);
        self.announcement = Some(Announcement { id, sealed: sealed.into(), digest });
    }

    /// The next frame to the peer.
    pub(super) fn seal(&mut self, items: &[u8]) -> Vec<u8> {
        let header = FrameHeader { direction: Direction::ToPeer, handle: self.handle, counter: self.sent };
        self.sent += 1;
        self.keys.to_peer.seal(&header, items)
    }

    /// The items of a frame from the peer, decrypted in place, if it is genuine and new.
    pub(super) fn open<'a>(&mut self, now: Instant, header: &FrameHeader, frame: &'a mut [u8]) -> Option<&'a [u8]> {
        if !self.seen.check(header.counter) {
            return None;
        }
        let items = self.keys.to_server.open(header, frame)?;
        if !self.seen.accept(header.counter) {
            return None;
        }
        self.heard = now;
        Some(items)
    }

    /// Ids of items to the peer grow over the whole life of the registration.
    pub(super) fn fresh_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    /// Notes what the peer is to be told about `about`, on top of what it is still to be told, which is about `most`
    /// members at most.
    pub(super) fn note(&mut self, now: Instant, about: PeerId, most: usize, what: impl FnOnce(&mut News)) {
        if self.news.len() >= most && !self.news.contains_key(&about) {
            // What becomes of a channel no summary would show.
            let dispensable = self.news.iter().find(|(_, news)| news.channel.is_none()).or(self.news.iter().next());
            if let Some(peer) = dispensable.map(|(peer, _)| *peer) {
                self.news.remove(&peer);
            }
        }
        let id = self.fresh_id();
        let repeat = Repeat::new(now);
        let news = self.news.entry(about).or_insert(News { id, repeat, listing: false, start: false, channel: None });
        (news.id, news.repeat) = (id, repeat);
        what(news);
    }

    pub(super) fn acknowledged(&mut self, id: u32) {
        self.news.retain(|_, news| news.id != id);
        if self.news.is_empty() {
            // An empty map keeps a node, as large as the registration itself.
            self.news = BTreeMap::new();
        }
        self.duplicate.take_if(|(duplicate, _)| *duplicate == id);
    }

    /// Whether the introduction with this id was done already.
    pub(super) fn was_introduced(&mut self, id: u32) -> bool {
        if self.introduced.contains(&id) {
            return true;
        }
        self.introduced.rotate_right(1);
        self.introduced[0] = id;
        false
    }
}

/// A member's digest, as clients compute it.
fn digest(peer: &PeerId, observed: Option<SocketAddr>, sealed: &[u8]) -> u64 {
    listing_digest(peer, Writer::default().socket_addr(observed).as_slice(), sealed)
}

/// All registrations, by slot.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    slots: Vec<Option<Box<Registration>>>,
    free: Vec<Slot>,
}

impl Registrations {
    pub(super) fn insert(&mut self, registration: Registration) -> Slot {
        let registration = Some(Box::new(registration));
        if let Some(slot) = self.free.pop() {
            self.slots[slot.index()] = registration;
            return slot;
        }
        self.slots.push(registration);
        Slot(u32::try_from(self.slots.len() - 1).expect("the limit on registrations is far below 2^32"))
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Box<Registration>> {
        let removed = self.slots.get_mut(slot.index())?.take()?;
        self.free.push(slot);
        Some(removed)
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Registration> {
        self.slots.get(slot.index())?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Registration> {
        self.slots.get_mut(slot.index())?.as_deref_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::dh::Secret;
    use crate::id::{Epoch, ServerKey};
    use crate::sans::Seed;

    fn registration() -> Registration {
        let secret = Secret::generate(&mut Seed::from_u64(1).rng());
        let claim = Claim {
            version: 1,
            nonce: [0; 16],
            cookie: [0; 16],
            asked: None,
            server: ServerKey(secret.public()),
            ephemeral: secret.public(),
            network: NetworkId([1; 32]),
            peer: PeerId([1; 32]),
            number: 1,
            boot: 1,
            epoch: Epoch::default(),
            handle: 1,
        };
        let route = Route { socket: SocketId(0), local: None, remote: "192.0.2.1:1".parse().expect("address") };
        let keys = Keys::derive(&secret, &secret.public(), &[]).expect("keys");
        Registration::new(Instant::ZERO, &claim, route, keys)
    }

    #[test]
    fn a_registration_stays_small() {
        assert!(size_of::<Registration>() <= 480, "{}", size_of::<Registration>());
    }

    #[test]
    fn members_who_come_and_go_do_not_fill_the_memory_of_one_who_never_acknowledges() {
        let mut registration = registration();
        registration.note(Instant::ZERO, PeerId([0; 32]), 8, |news| news.channel = Some(5));
        for n in 1..=255 {
            registration.note(Instant::ZERO, PeerId([n; 32]), 8, |news| news.listing = true);
            assert!(registration.news.len() <= 8);
        }
        assert!(registration.news.contains_key(&PeerId([0; 32])), "no summary would show this one");
        assert!(registration.news.contains_key(&PeerId([255; 32])), "the newest is kept");
    }
}
