//! TCP hole punching ([`crate::tcp`]): for whom and when, and what becomes of the connections. The port that all attempts
//! share is in [`port`].
//!
//! It begins when a peer is reached by a relay alone and UDP does not reach one of both: as soon as there is a session, for
//! all that is said of it goes in that, and again when ordinary punching got stuck, with ever longer pauses; or because the
//! peer begins. A connection is a socket as any other: a verified probe on it makes it a path of whoever sent that, and one
//! that is nobody's path after [`UNKNOWN`] is ended. Whatever of these sides connects, both may end it.

mod port;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Node;
use super::peer::Peer;
use crate::addr::is_private;
use crate::id::{PeerId, SocketId};
use crate::punch::{PRIME_TTL, Via};
use crate::sans::{Action, Carrier, Instant, RateLimit, Wakeup};
use crate::tcp::{MOST_PLACES, SYNS, TcpPunch, Want};
use crate::wire::announcement::{decode_candidates, encode_candidates};
use crate::wire::session::Control;
use port::Port;

/// Attempts at once.
const MOST: usize = 16;
/// After one in vain the next waits so long, then ever longer…
const AGAIN: Duration = Duration::from_mins(1);
/// …up to this.
const SELDOM: Duration = Duration::from_hours(1);
/// A peer that begins is followed so often at most.
const FOLLOW: Duration = Duration::from_secs(10);
/// Nobody listens below this for peers, and no NAT shows a port there: behind those are others' services.
const FIRST_PORT: u16 = 1024;
/// Systems choose none below this themselves: there are printers, databases and the pages of routers.
const FIRST_CHOSEN: u16 = 32_768;
/// A connection that is nobody's path is ended after this.
const UNKNOWN: Duration = Duration::from_secs(5);
/// One by which nothing goes, for something else leads there, is ended after this.
const IDLE: Duration = Duration::from_secs(10);

/// All attempts, and the connections that came of them.
#[derive(Debug, Default)]
pub(super) struct TcpSearch {
    port: Port,
    punches: BTreeMap<PeerId, TcpPunch>,
    /// Attempts to connect that are not answered: to whom, and where.
    dials: BTreeMap<u64, (PeerId, SocketAddr)>,
    /// The number of the last one.
    attempt: u64,
    streams: BTreeMap<SocketId, Stream>,
    /// When they are looked through next.
    look: Option<Instant>,
}

/// A connection with a peer, or with who has not shown yet that it is one.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Our port; `None`: it was closed before this was told of.
    port: Option<u16>,
    /// Since when it stands.
    since: Instant,
    /// When it was a path last.
    used: Instant,
}

/// One peer, as these attempts see it.
#[derive(Debug)]
pub(super) struct TriedTcp {
    rests: Option<Instant>,
    /// In a row.
    vain: u32,
    /// When the last one in vain ended.
    last: Option<Instant>,
    follows: RateLimit,
}

impl Default for TriedTcp {
    fn default() -> Self {
        Self { rests: None, vain: 0, last: None, follows: RateLimit::every(FOLLOW) }
    }
}

impl TriedTcp {
    /// Something is another than it was.
    pub(super) fn begin_anew(&mut self) {
        (self.rests, self.vain) = (None, 0);
    }

    /// It need not rest, if it was in vain before.
    pub(super) fn rests_no_longer(&mut self) {
        self.rests = None;
    }

    /// When the last attempt ended, if it was in vain.
    pub(super) const fn in_vain(&self) -> Option<Instant> {
        self.last
    }
}

impl TcpSearch {
    /// When [`Node::punch_by_tcp`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        let punches = self.punches.values().filter_map(TcpPunch::poll_timeout);
        let look = self.look.map(|at| Wakeup::new(at, "connections"));
        punches.chain(look).chain(self.port.poll_timeout()).min()
    }

    /// Whether this is a connection with a peer, or may be.
    pub(super) fn is_peers(&self, socket: SocketId) -> bool {
        self.streams.contains_key(&socket)
    }

    /// Whether one for this peer goes on.
    pub(super) fn is_at(&self, id: &PeerId) -> bool {
        self.punches.contains_key(id)
    }

    /// The port that is listened on.
    pub(super) const fn port(&self) -> Option<u16> {
        self.port.number()
    }

    /// Our end of a connection with a peer at this address.
    pub(super) fn local(&self, socket: SocketId, peer: SocketAddr) -> Option<SocketAddr> {
        let any = if peer.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        Some(SocketAddr::new(any, self.streams.get(&socket)?.port?))
    }

    fn next_attempt(&mut self) -> u64 {
        self.attempt += 1;
        self.attempt
    }
}

// ---- when ----------------------------------------------------------------------------------------------

impl Node {
    /// Ordinary punching leads nowhere, or cannot: for whom UDP does not reach this is what is left.
    pub(super) fn want_tcp(&mut self, now: Instant, id: &PeerId) {
        let has_rested = |peer: &Peer| peer.tried_tcp.rests.is_none_or(|until| until <= now);
        if self.is_udp_blocked_to(id) && self.may_begin_tcp(now, id) && self.peers.get(id).is_some_and(has_rested) {
            self.begin_tcp(now, id);
        }
    }

    /// Whether nothing goes on, and it is reached by a relay alone.
    fn may_begin_tcp(&self, now: Instant, id: &PeerId) -> bool {
        let is_relayed = |peer: &Peer| {
            let is_direct = peer.punch.choice().is_some_and(|choice| choice.via.is_direct());
            peer.offline.is_none() && peer.session.is_established(now) && !is_direct
        };
        !self.tcp.is_at(id) && self.peers.get(id).is_some_and(is_relayed)
    }

    fn begin_tcp(&mut self, now: Instant, id: &PeerId) {
        if self.has_room_for(now, id) {
            let leads = self.my_id() < *id;
            self.tcp.punches.insert(*id, TcpPunch::new(now, leads));
            self.want_port(now);
        } else {
            self.drops.count("tcp-busy");
        }
    }

    /// Nobody keeps those out who were met long before.
    fn has_room_for(&mut self, now: Instant, id: &PeerId) -> bool {
        if self.tcp.punches.len() < MOST {
            return true;
        }
        let last = self.tcp.punches.keys().find(|other| !self.is_senior(other)).copied();
        last.filter(|_| self.is_senior(id)).inspect(|last| self.end_tcp(now, last)).is_some()
    }

    /// The peer says where it listens by TCP.
    pub(super) fn told_tcp(&mut self, now: Instant, id: &PeerId, primed: bool, places: &[u8]) {
        let Ok(places) = decode_candidates(places) else { return self.drops.count("malformed") };
        // Who still takes another way for a good one is told again in a moment: that is no turn.
        if self.may_begin_tcp(now, id) && self.peers.get_mut(id).is_some_and(|peer| peer.tried_tcp.follows.allow(now)) {
            self.begin_tcp(now, id);
        }
        let admitted = self.gather.admit(&places, &[], self.is_registered());
        let theirs = admitted.iter().map(|place| place.addr).filter(|addr| self.may_be_a_peers_port(*addr));
        let theirs: Vec<SocketAddr> = theirs.take(MOST_PLACES).collect();
        if let Some(punch) = self.tcp.punches.get_mut(id) {
            punch.told(now, &theirs, primed);
        }
        self.punch_by_tcp(now);
    }

    /// Whether a peer may listen there. No NAT is between us and who is near, so there it is a port as systems choose it.
    fn may_be_a_peers_port(&self, addr: SocketAddr) -> bool {
        let is_here = is_private(addr.ip()) || self.gather.is_near(addr.ip());
        addr.port() >= if is_here { FIRST_CHOSEN } else { FIRST_PORT }
    }

    /// Packets go directly now, or the peer is gone.
    pub(super) fn leave_tcp(&mut self, now: Instant, id: &PeerId) {
        self.end_tcp(now, id);
        if let Some(peer) = self.peers.get_mut(id) {
            peer.tried_tcp.begin_anew();
            peer.tried_tcp.last = None;
        }
    }

    // ---- what is done ----------------------------------------------------------------------------------

    /// Lets all attempts go on, and ends connections that lead nowhere.
    pub(super) fn punch_by_tcp(&mut self, now: Instant) {
        self.port_timeout(now);
        let due = |punch: &TcpPunch| punch.poll_timeout().is_none_or(|wakeup| wakeup.at <= now);
        let ids: Vec<PeerId> = self.tcp.punches.keys().copied().collect();
        for id in ids {
            if let Some(punch) = self.tcp.punches.get_mut(&id).filter(|punch| due(punch)) {
                punch.handle_timeout(now);
            }
            while let Some(want) = self.tcp.punches.get_mut(&id).and_then(TcpPunch::poll_want) {
                self.do_for_tcp(now, &id, want);
            }
            if self.tcp.punches.get(&id).is_some_and(TcpPunch::is_over) {
                self.tcp_in_vain(now, &id);
            }
        }
        if self.tcp.look.is_some_and(|at| at <= now) {
            self.look_at_streams(now);
        }
    }

    fn do_for_tcp(&mut self, now: Instant, id: &PeerId, want: Want) {
        match want {
            Want::Say { primed } => {
                let places = self.tcp.punches.get(id).map(|punch| encode_candidates(punch.mine())).unwrap_or_default();
                self.send_control(now, id, &Control::Tcp { primed, places: &places });
            }
            Want::Prime(to) => self.dial(now, id, to, Some(PRIME_TTL)),
            Want::LetGo => {
                let begun = self.tcp.dials.iter().filter(|(_, (whose, _))| whose == id);
                self.actions.extend(begun.map(|(attempt, _)| Action::LetGo { attempt: *attempt }));
            }
            Want::Dial(to) => self.dial(now, id, to, None),
        }
    }

    fn dial(&mut self, now: Instant, id: &PeerId, to: SocketAddr, ttl: Option<u8>) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.punch.may_send(now, to.ip(), SYNS, &mut self.budget) {
            let attempt = self.tcp.next_attempt();
            self.tcp.dials.insert(attempt, (*id, to));
            self.actions.push_back(Action::Dial { attempt, to, carrier: Carrier::Tcp, ttl });
        }
    }

    /// What was begun for it is given up.
    fn end_tcp(&mut self, now: Instant, id: &PeerId) {
        if self.tcp.punches.remove(id).is_some() {
            let begun = self.tcp.dials.iter().filter(|(_, (whose, _))| whose == id);
            self.actions.extend(begun.map(|(attempt, _)| Action::GiveUp { attempt: *attempt }));
            self.port_may_rest(now);
        }
    }

    /// This machine is elsewhere: what was begun is of the past.
    pub(super) fn tcp_moved(&mut self, now: Instant) {
        let ids: Vec<PeerId> = self.tcp.punches.keys().copied().collect();
        ids.iter().for_each(|id| self.end_tcp(now, id));
        self.port_moved();
        self.peers.values_mut().filter(|peer| peer.tried_tcp.vain > 0).for_each(|peer| peer.tried_tcp.begin_anew());
    }

    fn tcp_in_vain(&mut self, now: Instant, id: &PeerId) {
        let told = self.tcp.punches.get(id).map(|punch| punch.mine().to_vec()).unwrap_or_default();
        self.end_tcp(now, id);
        if let Some(peer) = self.peers.get_mut(id) {
            let tried = &mut peer.tried_tcp;
            let rest = (AGAIN * 4_u32.saturating_pow(tried.vain.min(8))).min(SELDOM);
            (tried.rests, tried.last, tried.vain) = (Some(now + rest), Some(now), tried.vain + 1);
        }
        let is_news = |mapped: SocketAddr| !told.is_empty() && told.iter().all(|place| place.addr != mapped);
        let is_first = self.peers.get(id).is_some_and(|peer| peer.tried_tcp.vain == 1);
        if is_first && self.tcp_lease.external().is_some_and(is_news) && self.may_begin_tcp(now, id) {
            // It came too late for that attempt.
            self.begin_tcp(now, id);
        }
    }

    // ---- what comes of it ------------------------------------------------------------------------------

    /// The answer to [`Action::Dial`]. Who has a way meanwhile wants no other.
    pub(super) fn tcp_dialled(&mut self, now: Instant, attempt: u64, result: Result<SocketId, String>) {
        let Some((id, to)) = self.tcp.dials.remove(&attempt) else { return self.asks_by_tcp(now, attempt, result) };
        match result {
            Ok(socket) if self.tcp.is_at(&id) => {
                self.stream_stands(now, socket);
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.punch.stream_up(now, socket, to);
                }
            }
            Ok(socket) => self.actions.push_back(Action::Disconnect(socket)),
            Err(reason) => tracing::debug!(peer = ?id, %to, reason, "no connection"),
        }
    }

    /// Somebody has connected: whoever it is, it has to show that.
    pub(super) fn tcp_accepted(&mut self, now: Instant, socket: SocketId, from: SocketAddr) {
        if self.comes_through_an_overlay(from) {
            return self.actions.push_back(Action::Disconnect(socket));
        }
        tracing::debug!(%from, "somebody connects");
        self.stream_stands(now, socket);
    }

    fn stream_stands(&mut self, now: Instant, socket: SocketId) {
        let port = self.tcp.port();
        self.tcp.streams.insert(socket, Stream { port, since: now, used: now });
        self.tcp.look.get_or_insert(now + UNKNOWN);
    }

    /// A stream ended: a rendezvous' or a peer's.
    pub(super) fn disconnected(&mut self, now: Instant, socket: SocketId) {
        self.server_disconnected(now, socket);
        self.tcp.port.disconnected(socket);
        self.tell_places(now);
        if self.tcp.streams.remove(&socket).is_some() {
            self.stream_ends(now, socket);
        }
    }

    fn stream_ends(&mut self, now: Instant, socket: SocketId) {
        let of = self.peers.iter().filter(|(_, peer)| peer.punch.uses(socket)).map(|(id, _)| *id);
        for id in of.collect::<Vec<_>>() {
            self.take_over(now, &id);
            self.peers.get_mut(&id).into_iter().for_each(|peer| peer.punch.stream_down(now, socket));
        }
        self.port_may_rest(now);
    }

    /// Ends those that are nobody's path, and those that nothing goes by.
    fn look_at_streams(&mut self, now: Instant) {
        let me = self.my_id();
        let paths = self.peers.values().flat_map(|peer| peer.punch.sockets_in_use(now));
        let paths: BTreeSet<SocketId> = paths.filter(|socket| socket.is_stream()).collect();
        let by_datagrams = |peer: &Peer| peer.punch.choice().is_some_and(|choice| choice.via.is_by_datagrams());
        // Of two that serve both sides, one side alone chooses which is to go.
        let ends = self.peers.iter().filter(|(id, peer)| by_datagrams(peer) || me < **id);
        let idle: BTreeSet<SocketId> = ends.flat_map(|(_, peer)| peer.punch.idle_streams(now, IDLE)).collect();
        let mut end = Vec::new();
        for (socket, stream) in &mut self.tcp.streams {
            if paths.contains(socket) {
                stream.used = now;
            }
            let is_idle = idle.contains(socket) && now - stream.since >= IDLE;
            end.extend((is_idle || now - stream.used >= UNKNOWN).then_some(*socket));
        }
        for socket in end {
            self.tcp.streams.remove(&socket);
            self.actions.push_back(Action::Disconnect(socket));
            self.stream_ends(now, socket);
        }
        self.tcp.look = (!self.tcp.streams.is_empty()).then_some(now + UNKNOWN);
    }
}

/// Whether a way is a connection with the peer.
pub(super) const fn word(via: Via) -> &'static str {
    if via.is_stream() { "tcp" } else { "udp" }
}
