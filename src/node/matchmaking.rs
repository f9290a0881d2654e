//! Members with no rendezvous in common never hear of each other from one. Whoever has a session with both tells them,
//! both at the same moment, or they hear each other on their LAN ([`super::lan`]), and they search a direct path as after
//! any introduction. Where there is none, a third member may carry between them ([`super::carriers`]); else they can only
//! be told what to change, for no rendezvous relays to both.

use std::time::Duration;

use super::Node;
use super::peer::{FAREWELL, Peer};
use crate::crypto::{Signed, announcement};
use crate::id::PeerId;
use crate::sans::Instant;
use crate::wire::session::Control;

/// Pairs told in one round: more than anybody has that are so divided.
const MOST_PAIRS: usize = 64;
/// Peers known by hearsay alone, at once.
const MOST_STRANGERS: usize = 32;
/// A search that hearsay began is not begun again for so long.
const SEARCH_PAUSE: Duration = Duration::from_secs(5);
/// A direct path is there by then, or the user is told why there is none.
const HOPE: Duration = Duration::from_secs(10);

/// Who said that a peer is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Another member.
    Member,
    /// The peer itself, to all on its LAN, or whoever repeats what it said.
    Lan,
}

/// What a peer is known by that no server lists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hearsay {
    source: Source,
    /// First told of it.
    since: Instant,
    /// Told of it last.
    pub(super) told: Instant,
    /// Searched for it last.
    searched: Instant,
}

impl Source {
    /// The warning that such a peer is not reached.
    const fn warning(self) -> &'static str {
        match self {
            Self::Member => "no-common-rendezvous",
            Self::Lan => "lan-unreachable",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Member => Self::Lan,
            Self::Lan => Self::Member,
        }
    }

    /// What to do about it, for the user.
    fn advice(self, name: &str) -> String {
        match self {
            Self::Member => format!(
                "{name} is here, as another member says, but has no rendezvous in common with this machine, and the \
                 routers between them let nothing pass directly: write one and the same `rendezvous` into both net.toml"
            ),
            Self::Lan => format!(
                "{name} says on this LAN that it is here, and nothing passes between it and this machine: does a firewall \
                 on either drop UDP, does the Wi-Fi keep its guests apart (\"client isolation\"), or does {name} refuse \
                 this machine (`deny`)? A rendezvous that both reach would relay"
            ),
        }
    }
}

impl Node {
    /// Tells those of each other who have no rendezvous in common; with `about` only those pairs that it belongs to.
    pub(super) fn introduce_strangers(&mut self, now: Instant, about: Option<&PeerId>) {
        // What the only server lists it tells everybody.
        if self.servers.len() < 2 {
            return;
        }
        let here = self.peers.iter().filter(|(_, p)| p.offline.is_none() && p.session.is_established(now));
        let here: Vec<PeerId> = here.map(|(id, _)| *id).collect();
        let firsts = about.map_or(&here[..], std::slice::from_ref);
        let others = |a: &PeerId| if about.is_some() { &here[..] } else { &here[..here.partition_point(|b| b < a)] };
        let pairs = firsts.iter().flat_map(|a| others(a).iter().map(move |b| (*a, *b)));
        let apart: Vec<_> = pairs.filter(|(a, b)| a != b && self.are_apart(a, b)).take(MOST_PAIRS).collect();
        for (a, b) in apart {
            self.tell_of(now, &a, &b);
            self.tell_of(now, &b, &a);
        }
    }

    /// Whether each is listed somewhere, and no server lists both.
    fn are_apart(&self, a: &PeerId, b: &PeerId) -> bool {
        let lists = |id| move |server: &super::servers::Server| server.client.lists(id);
        self.servers.iter().any(lists(a))
            && self.servers.iter().any(lists(b))
            && !self.servers.iter().any(|server| server.client.lists(a) && server.client.lists(b))
    }

    fn tell_of(&mut self, now: Instant, whom: &PeerId, of: &PeerId) {
        if let Some(peer) = self.peers.get(of) {
            let bytes = peer.signed.bytes().to_vec();
            self.send_control(now, whom, &Control::Stranger(&bytes));
        }
    }

    /// `teller` says that a member is here of whom no server of ours tells us.
    pub(super) fn told_of(&mut self, now: Instant, teller: &PeerId, bytes: &[u8]) {
        if self.peers.get_mut(teller).is_none_or(|peer| !peer.tellings.allow(now)) {
            return self.drops.count("hearsay");
        }
        let Ok(signed) = announcement::verify_member(bytes, &self.shared.identity.network) else {
            return self.drops.count("announcement");
        };
        self.hear_of(now, signed, Source::Member);
    }

    /// A member of whom no server of ours tells us may be here; whether nothing was known of that.
    pub(super) fn hear_of(&mut self, now: Instant, signed: Signed, source: Source) -> bool {
        let id = signed.peer;
        let strangers = self.peers.values().filter(|peer| peer.hearsay.is_some()).count();
        if !self.may_speak(&id) || strangers >= MOST_STRANGERS && !self.peers.contains_key(&id) {
            self.drops.count("hearsay");
            return false;
        }
        self.learn(now, signed);
        let is_listed = self.is_listed(&id);
        let left = |peer: &Peer| peer.offline.is_some_and(|since| now - since < FAREWELL);
        let apart = |peer: &&mut Peer| !is_listed && !peer.session.is_established(now) && !left(peer);
        let Some(peer) = self.peers.get_mut(&id).filter(apart) else { return false };
        let before = peer.hearsay.filter(|_| peer.offline.is_none());
        let search = before.is_none_or(|hearsay| now - hearsay.searched >= SEARCH_PAUSE);
        let (since, searched) = before.map_or((now, now), |hearsay| (hearsay.since, hearsay.searched));
        let searched = if search { now } else { searched };
        peer.hearsay = Some(Hearsay { source, since, told: now, searched });
        if search {
            self.appeared(now, &id);
        }
        before.is_none()
    }

    /// A peer that was not here is listed, or may be here.
    pub(super) fn appeared(&mut self, now: Instant, id: &PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.offline.is_some() || peer.heard.is_none() {
            tracing::info!(peer = %peer.name, "is here");
        }
        (peer.offline, peer.searched) = (None, None);
        peer.heard.get_or_insert(now);
        peer.punch.introduce(now);
        // Without a way an initiation would be lost, and the next one late: the way's own news begin it.
        if peer.punch.choice().is_some() {
            peer.session.connect(now);
        }
        self.carriers.look_soon(now);
    }

    /// A peer is known by more than hearsay, or is gone.
    pub(super) fn forget_hearsay(&mut self, id: &PeerId) {
        if let Some(peer) = self.peers.get_mut(id)
            && peer.hearsay.take().is_some()
        {
            for source in [Source::Member, Source::Lan] {
                self.warnings.clear(source.warning(), &id.to_string());
            }
        }
    }

    /// Whoever is still not reached although others see it needs the user.
    pub(super) fn warn_of_strangers(&mut self, now: Instant) {
        let stuck = self.peers.iter().filter_map(|(id, peer)| {
            let told = peer.hearsay.filter(|hearsay| now - hearsay.since >= HOPE)?;
            let apart = peer.offline.is_none() && !peer.session.is_established(now);
            apart.then(|| (*id, told.source, told.source.advice(&peer.name)))
        });
        let stuck: Vec<(PeerId, Source, String)> = stuck.collect();
        let wall_ms = self.wall_ms(now);
        for (id, source, text) in stuck {
            self.warnings.clear(source.other().warning(), &id.to_string());
            self.warnings.raise(wall_ms, source.warning(), id.to_string(), text);
        }
    }
}
