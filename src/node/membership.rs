//! Who is a member, what members say about themselves, and what we say about us.
//!
//! Announcements arrive sealed from a rendezvous, inside a handshake, or from another peer through a session.
//! All are signed by the device that they speak for; the highest number wins, whoever delivered it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::carriage;
use super::naming::Naming;
use super::peer::{Peer, SILENCE};
use super::ports::Searched;
use super::tcp::TriedTcp;
use super::{FORGET_AFTER, Node};
use crate::crypto::announcement::{self, AnnouncementError};
use crate::crypto::probe::ProbeKeys;
use crate::crypto::{Identity, ReplayWindow, Signed};
use crate::forward::Traffic;
use crate::id::{PeerId, ServerId};
use crate::punch::{Family, Punch, Standing};
use crate::router::bindings::seen_now;
use crate::sans::{Instant, RateLimit};
use crate::session::Session;
use crate::wire::VERSION;
use crate::wire::announcement::{Announcement, Candidate};
use crate::wire::session::Control;

/// Members that are remembered at once. A member cannot fill our memory with invented devices.
const MAX_PEERS: usize = 1_024;
/// So many of those who were met first keep their place and what they need for a search, whatever others do: more than
/// most networks have members.
const SENIORS: usize = 32;
/// How long a peer that is gone is searched for when a packet wants it.
const SEARCH_FOR: Duration = Duration::from_secs(30);
/// Our announcement changes no faster than this.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);
/// Changes of one peer's announcement that are taken in, a second and at once: more than an honest one makes. Each
/// costs a search at new addresses, and the budget for that is everybody's.
const CHANGES: (u32, u32) = (2, 20);
/// Initiations through one peer's channels, a second and at once: more than all its copies through all servers.
const INITIATIONS: (u32, u32) = (8, 16);
/// Words of one peer in the session, a second and at once: an honest one has a few a minute, and all that it tells of
/// strangers at once.
const CONTROLS: (u32, u32) = (100, 400);
/// Strangers that one peer tells of, a second and at once: all that it may know, each once.
const TELLINGS: (u32, u32) = (4, 128);
/// Changes that may follow each other at once: at the start, candidates come in one by one.
pub(super) const ANNOUNCE_BURST: u32 = 5;

/// What we say: who we are, what we claim, where we may be reached.
pub(super) fn compose(identity: &Identity, naming: &Naming, seq: u64, candidates: Vec<Candidate>) -> Signed {
    let text = Announcement {
        version: VERSION,
        epoch: identity.network.epoch(),
        seq,
        peer: identity.device.id(),
        x25519: identity.device.x25519(),
        features: identity.features,
        name: naming.my_name.clone(),
        v4: naming.my_claim(),
        candidates,
    };
    announcement::sign(&identity.device, &identity.network.id(), &text)
}

impl Node {
    // ---- what we say -----------------------------------------------------------------------------------

    /// Says it if what others should know of us has changed; and whether that is so.
    pub(super) fn candidates_may_have_changed(&mut self, now: Instant) -> bool {
        let changed = self.gather.candidates() != self.shared.announcement.candidates;
        if changed {
            self.admit_all(now);
            self.announce(now);
        }
        changed
    }

    /// Signs what we are now and tells everybody; a moment later if the last change was just now.
    pub(super) fn announce(&mut self, now: Instant) {
        self.announce_due = None;
        if !self.announcements.allow(now) {
            self.announce_due = Some(now + ANNOUNCE_EVERY);
            return;
        }
        let Some(seq) = self.shared.numbers.take() else {
            // The block of numbers is being reserved; its answer announces.
            self.announce_due = Some(now + ANNOUNCE_EVERY);
            return;
        };
        let candidates = self.gather.candidates().to_vec();
        self.shared.announcement = compose(&self.shared.identity, &self.naming, seq, candidates);
        self.beacons.news(now);
        for index in 0..self.servers.len() {
            self.announce_to(now, index);
        }
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.tell_announcement(now, &id);
        }
    }

    /// Gives a server our announcement, sealed afresh.
    pub(super) fn announce_to(&mut self, now: Instant, index: usize) {
        let shared = &mut self.shared;
        if shared.announcement.seq == 0 {
            return;
        }
        let sealed = announcement::seal(&shared.identity.network, &shared.announcement, &mut shared.rng);
        self.servers[index].client.set_announcement(now, sealed);
    }

    /// Tells a peer through the session what has changed since it was last told.
    pub(super) fn tell_announcement(&mut self, now: Instant, id: &PeerId) {
        let seq = self.shared.announcement.seq;
        if self.peers.get(id).is_none_or(|peer| peer.told >= seq) {
            return;
        }
        let bytes = self.shared.announcement.bytes().to_vec();
        if self.send_control(now, id, &Control::Announcement(&bytes))
            && let Some(peer) = self.peers.get_mut(id)
        {
            peer.told = seq;
        }
    }

    /// Says goodbye to everybody.
    pub(super) fn leave(&mut self, now: Instant) {
        self.carry_for_nobody(now);
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.send_control(now, &id, &Control::Goodbye);
        }
        for server in &mut self.servers {
            server.client.leave(now);
        }
        self.lease.release();
        self.tcp_lease.release();
        self.leaving = true;
        self.cache_changed = true;
        self.save_cache(now);
    }

    // ---- what others say -------------------------------------------------------------------------------

    /// A device that is neither denied nor ourselves.
    pub(super) fn may_speak(&self, id: &PeerId) -> bool {
        *id != self.my_id() && !self.deny.contains(id)
    }

    /// A server lists a member.
    pub(super) fn member(
        &mut self,
        now: Instant,
        server: ServerId,
        id: &PeerId,
        observed: Option<SocketAddr>,
        sealed: &[u8],
    ) {
        if !self.may_speak(id) {
            return self.drops.count("denied");
        }
        let signed = match announcement::open(&self.shared.identity.network, sealed) {
            Ok(signed) if signed.peer == *id => signed,
            Err(AnnouncementError::Version(theirs)) => {
                return self.warn_of_version(now, Some(id), theirs);
            }
            _ => return self.drops.count("announcement"),
        };
        self.learn(now, signed);
        let Some(peer) = self.peers.get_mut(id) else { return };
        let news = peer.listed.insert(server, observed).is_none();
        let unheard = peer.offline.is_some();
        self.forget_hearsay(id);
        if news || unheard {
            self.introduced(now, id);
            self.appeared(now, id);
        }
        self.admit_candidates(now, id);
        if let Some(server) = self.server_mut(server) {
            server.client.open_channel(now, *id);
        }
    }

    /// A peer passed on an announcement, its own or another's.
    pub(super) fn handle_announcement(&mut self, now: Instant, bytes: &[u8]) {
        match announcement::verify_member(bytes, &self.shared.identity.network) {
            // News of those we know; nobody is introduced by hearsay.
            Ok(signed) if self.peers.contains_key(&signed.peer) => self.learn(now, signed),
            Ok(_) => self.drops.count("hearsay"),
            Err(_) => self.drops.count("announcement"),
        }
    }

    /// Takes in a verified announcement, if it is news.
    pub(super) fn learn(&mut self, now: Instant, signed: Signed) {
        let id = signed.peer;
        if !self.may_speak(&id) {
            return;
        }
        let full = self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) && !self.make_room(now);
        match self.peers.get_mut(&id) {
            Some(peer) if peer.signed.seq >= signed.seq => return,
            Some(peer) => {
                if !peer.changes.allow(now) {
                    return self.drops.count("announcement-rate");
                }
                peer.signed = signed;
            }
            None if full => return self.drops.count("too-many-peers"),
            None => self.add_peer(now, signed),
        }
        self.cache_changed = true;
        if let Some(peer) = self.peers.get(&id) {
            self.drops.add("candidate", self.gather.refused(&peer.signed.candidates));
        }
        self.admit_candidates(now, &id);
        let bound = self.peers.get(&id).is_some_and(|p| p.session.is_established(now));
        if bound {
            self.bind(now, &id);
        } else {
            self.route_provisionally(now, &id);
        }
    }

    fn add_peer(&mut self, now: Instant, signed: Signed) {
        let (id, x25519) = (signed.peer, signed.x25519);
        let identity = self.shared.identity.clone();
        let Some(probe_keys) = ProbeKeys::derive(&identity.network, &identity.device, &id, &x25519) else {
            // A low-order key: no honest device has one.
            return self.drops.count("announcement");
        };
        let name = self.free_name(&id, &signed.name);
        let mut punch = Punch::new(now, &self.shared.rng.seed());
        let sockets: Vec<_> = self.sockets.iter().map(|s| (s.id, Family::of(s.addr.ip()))).collect();
        punch.set_sockets(now, &sockets);
        self.tags.insert(probe_keys.rx_tag, id);
        let peer = Peer {
            name,
            session: Session::new(self.my_id(), id, x25519),
            punch,
            probe_keys,
            probe_window: ReplayWindow::new(),
            waiting: Default::default(),
            waiting_pings: Default::default(),
            pings: Default::default(),
            listed: Default::default(),
            hearsay: None,
            relays: Default::default(),
            heard: None,
            direct_after: None,
            received: None,
            offline: None,
            searched: None,
            met: false,
            senior: false,
            added: now,
            seen_ms: 0,
            told: 0,
            changes: RateLimit::new(CHANGES.0, CHANGES.1),
            initiations: RateLimit::new(INITIATIONS.0, INITIATIONS.1),
            controls: RateLimit::new(CONTROLS.0, CONTROLS.1),
            tellings: RateLimit::new(TELLINGS.0, TELLINGS.1),
            traffic: Arc::new(Traffic::new(self.table.bell().clone())),
            gate: Arc::default(),
            groups: super::groups::Talk::default(),
            taken_over: Default::default(),
            watch: None,
            arrives: None,
            nat: None,
            carriers: Default::default(),
            carries: carriage::wishes(),
            searched_ports: Searched::default(),
            tried_tcp: TriedTcp::default(),
            note: Default::default(),
            signed,
        };
        self.peers.insert(id, peer);
    }

    /// Room for a new peer: the one that can be done without best goes.
    fn make_room(&mut self, now: Instant) -> bool {
        let dispensable = self.peers.iter().filter_map(|(id, peer)| Some((peer.dispensable()?, *id)));
        let goes = dispensable.max().map(|(_, id)| id);
        if let Some(id) = &goes {
            self.unbind(now, id);
            self.remove_peer(now, id);
            self.drops.count("evicted-peer");
        }
        goes.is_some()
    }

    /// A peer that was met is a senior while there is room for one more.
    pub(super) fn grant_seniority(&mut self, id: &PeerId) {
        let seniors = self.peers.values().filter(|peer| peer.senior).count();
        if let Some(peer) = self.peers.get_mut(id).filter(|peer| !peer.senior && seniors < SENIORS) {
            peer.senior = true;
            peer.punch.set_standing(Standing::Known);
        }
    }

    /// Our own addresses changed, and with them which of the others' private ones make sense.
    pub(super) fn admit_all(&mut self, now: Instant) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        ids.iter().for_each(|id| self.admit_candidates(now, id));
    }

    /// Hands a peer's candidates to its punch, those that may be tried.
    fn admit_candidates(&mut self, now: Instant, id: &PeerId) {
        // Whether UDP passes there its own list says: who wants no rendezvous by UDP may be reached by it all the same.
        let (registered, blocked) = (self.is_registered(), self.is_udp_blocked());
        let Some(peer) = self.peers.get_mut(id) else { return };
        let observed: Vec<SocketAddr> = peer.listed.values().flatten().copied().collect();
        let mut admitted = self.gather.admit(&peer.signed.candidates, &observed, registered);
        admitted.retain(|candidate| !blocked || self.gather.is_near(candidate.addr.ip()));
        peer.punch.set_candidates(now, admitted);
    }

    // ---- who is gone -----------------------------------------------------------------------------------

    /// A server lists a peer no longer: that server's relay path is gone, the peer may not be.
    pub(super) fn unlisted(&mut self, now: Instant, server: ServerId, id: &PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.listed.remove(&server);
        peer.relays.remove(&server);
        peer.punch.relay_down(now, server);
        let live = peer.is_live(now);
        if !live && !self.is_listed(id) {
            self.set_offline(now, id);
        }
    }

    /// A peer said goodbye.
    pub(super) fn peer_left(&mut self, now: Instant, id: &PeerId) {
        self.set_offline(now, id);
    }

    fn set_offline(&mut self, now: Instant, id: &PeerId) {
        let wall_ms = self.wall_ms(now);
        let Some(peer) = self.peers.get_mut(id).filter(|p| p.offline.is_none()) else { return };
        tracing::info!(peer = %peer.name, "is gone");
        peer.offline = Some(now);
        peer.searched = None;
        peer.punch.stop(now);
        peer.session.close(now, &mut self.shared.env());
        if peer.hearsay.is_none() || peer.received.is_some() {
            peer.seen_ms = seen_now(peer.seen_ms, wall_ms);
        }
        self.leave_ports(now, id);
        self.leave_tcp(now, id);
        self.leave_carriers(now, id);
        self.way_changes(now, id);
        self.warnings.clear("address-taken", &id.to_string());
        self.forget_hearsay(id);
        self.unbind(now, id);
    }

    pub(super) fn expire_peers(&mut self, now: Instant) {
        self.end_searches(now);
        self.warn_of_strangers(now);
        self.end_warnings_of_version(now);
        let last_sign = |p: &Peer| p.received.or(p.heard).max(p.hearsay.map(|hearsay| hearsay.told));
        let silent = |p: &Peer| last_sign(p).is_none_or(|at| now - at >= SILENCE);
        let gone = |id: &PeerId, p: &Peer| p.offline.is_none() && silent(p) && !self.is_listed(id);
        let gone: Vec<PeerId> = self.peers.iter().filter(|(id, p)| gone(id, p)).map(|(id, _)| *id).collect();
        gone.iter().for_each(|id| self.set_offline(now, id));
        // By the wall clock: who was last seen before this machine was started has been gone for longer than its clock runs.
        let wall_ms = self.wall_ms(now);
        let old =
            |p: &Peer| p.offline.is_some() && Duration::from_millis(wall_ms.saturating_sub(p.seen_ms)) >= FORGET_AFTER;
        let forgotten: Vec<PeerId> = self.peers.iter().filter(|(_, p)| old(p)).map(|(id, _)| *id).collect();
        forgotten.iter().for_each(|id| self.remove_peer(now, id));
        self.expire_bindings(now);
    }

    /// A peer that is gone is searched for when a packet wants it, but not for ever.
    fn end_searches(&mut self, now: Instant) {
        let in_vain = |p: &Peer| p.offline.is_some() && p.searched.is_some_and(|since| now - since >= SEARCH_FOR);
        let ids: Vec<PeerId> = self.peers.iter().filter(|(_, p)| in_vain(p)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.searched = None;
                peer.punch.stop(now);
                peer.session.close(now, &mut self.shared.env());
            }
        }
    }

    /// The user says that a peer is gone for good. Not if it is here.
    pub(super) fn forget(&mut self, now: Instant, id: &PeerId) {
        if self.is_here(id) {
            return;
        }
        self.release(now, id);
        self.remove_peer(now, id);
        self.save_cache(now);
    }

    /// Whether a peer is not gone; what others say of it is not enough.
    pub fn is_here(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.offline.is_none() && peer.hearsay.is_none())
    }

    pub(super) fn remove_peer(&mut self, now: Instant, id: &PeerId) {
        self.forget_hearsay(id);
        self.leave_ports(now, id);
        self.leave_tcp(now, id);
        self.leave_carriers(now, id);
        let Some(mut peer) = self.peers.remove(id) else { return };
        self.way_changes(now, id);
        peer.session.close(now, &mut self.shared.env());
        self.drops.add("echo-rate", peer.punch.unanswered());
        self.drops.add("too-many-paths", peer.punch.crowded());
        self.tags.remove(&peer.probe_keys.rx_tag);
        Arc::make_mut(&mut self.router).remove(id);
        for code in ["address-taken", "version"] {
            self.warnings.clear(code, &id.to_string());
        }
        for server in &mut self.servers {
            server.client.close_channel(now, *id);
        }
        self.pass_on(now, &peer.name);
        self.cache_changed = true;
    }
}
