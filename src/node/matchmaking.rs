//! Members with no rendezvous in common never hear of each other from one. Whoever has a session with both tells them,
//! both at the same moment, and they search a direct path as after any introduction. Where there is none, a third member
//! may carry between them ([`super::carriers`]); else they can only be told what to change, for no rendezvous relays to both.

use std::time::Duration;

use super::Node;
use crate::crypto::announcement;
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

/// What a peer is known by that no server lists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hearsay {
    /// First told of it.
    since: Instant,
    /// Told of it last.
    pub(super) told: Instant,
}

const WARNING: &str = "no-common-rendezvous";

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
        let id = signed.peer;
        let strangers = self.peers.values().filter(|peer| peer.hearsay.is_some()).count();
        if !self.may_speak(&id) || strangers >= MOST_STRANGERS && !self.peers.contains_key(&id) {
            return self.drops.count("hearsay");
        }
        self.learn(now, signed);
        let is_listed = self.is_listed(&id);
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !is_listed && !peer.session.is_established(now)) else {
            return;
        };
        let search = peer.hearsay.is_none_or(|hearsay| now - hearsay.told >= SEARCH_PAUSE);
        let since = peer.hearsay.filter(|_| peer.offline.is_none()).map_or(now, |hearsay| hearsay.since);
        peer.hearsay = Some(Hearsay { since, told: now });
        if search {
            self.appeared(now, &id);
        }
    }

    /// A peer is known by more than hearsay, or is gone.
    pub(super) fn forget_hearsay(&mut self, id: &PeerId) {
        if let Some(peer) = self.peers.get_mut(id)
            && peer.hearsay.take().is_some()
        {
            self.warnings.clear(WARNING, &id.to_string());
        }
    }

    /// Whoever is still not reached although others see it needs the user.
    pub(super) fn warn_of_strangers(&mut self, now: Instant) {
        let stuck = self.peers.iter().filter(|(_, peer)| {
            let told = peer.hearsay.is_some_and(|hearsay| now - hearsay.since >= HOPE);
            told && peer.offline.is_none() && !peer.session.is_established(now)
        });
        let stuck: Vec<(PeerId, String)> = stuck.map(|(id, peer)| (*id, peer.name.clone())).collect();
        for (id, name) in stuck {
            let text = format!(
                "{name} is here, as another member says, but has no rendezvous in common with this machine, and the \
                 routers between them let nothing pass directly: write one and the same `rendezvous` into both net.toml"
            );
            let wall_ms = self.wall_ms(now);
            self.warnings.raise(wall_ms, WARNING, id.to_string(), text);
        }
    }
}
