//! TCP hole punching ([`crate::tcp`]): for whom and when, and what becomes of the connections. The port that all attempts
//! share is in [`port`].
//!
//! It begins when a peer is reached by a relay alone and UDP does not reach one of both: as soon as there is a session, for
//! all that is said of it goes in that, and again when ordinary punching got stuck, with ever longer pauses; or because the
//! peer begins. A connection is a socket as any other: a verified probe on it makes it a path of whoever sent that, and one
//! that is nobody's path after [`UNKNOWN`] is ended. Whatever of these sides connects, both may end it.

mod port;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::Node;
use super::peer::Peer;
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
    /// Our port.
    port: u16,
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

    /// Our end of a connection with a peer.
    pub(super) fn local(&self, socket: SocketId) -> Option<SocketAddr> {
        self.streams.get(&socket).map(|stream| SocketAddr::from(([0; 4], stream.port)))
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
        if self.is_udp_blocked_to(id) && self.peers.get(id).is_some_and(has_rested) {
            self.begin_tcp(now, id);
        }
    }

    fn begin_tcp(&mut self, now: Instant, id: &PeerId) {
        let is_relayed = |peer: &Peer| {
            let is_direct = peer.punch.choice().is_some_and(|choice| choice.via.is_direct());
            peer.offline.is_none() && peer.session.is_established(now) && !is_direct
        };
        let has_room = self.tcp.punches.len() < MOST && !self.tcp.is_at(id);
        if has_room && self.peers.get(id).is_some_and(is_relayed) {
            let leads = self.my_id() < *id;
            self.tcp.punches.insert(*id, TcpPunch::new(now, leads));
            self.want_port(now);
        }
    }

    /// The peer says where it listens by TCP.
    pub(super) fn told_tcp(&mut self, now: Instant, id: &PeerId, primed: bool, places: &[u8]) {
        let Ok(places) = decode_candidates(places) else { return self.drops.count("malformed") };
        if !self.tcp.is_at(id) && self.peers.get_mut(id).is_some_and(|peer| peer.tried_tcp.follows.allow(now)) {
            self.begin_tcp(now, id);
        }
        let admitted = self.gather.admit(&places, &[], self.is_registered());
        let theirs: Vec<SocketAddr> = admitted.iter().map(|place| place.addr).take(MOST_PLACES).collect();
        if let Some(punch) = self.tcp.punches.get_mut(id) {
            punch.told(now, &theirs, primed);
        }
        self.punch_by_tcp(now);
    }

    /// Packets go directly now, or the peer is gone.
    pub(super) fn leave_tcp(&mut self, now: Instant, id: &PeerId) {
        if self.tcp.punches.remove(id).is_some() {
            self.port_may_rest(now);
        }
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

    fn tcp_in_vain(&mut self, now: Instant, id: &PeerId) {
        let told = self.tcp.punches.remove(id);
        if let Some(peer) = self.peers.get_mut(id) {
            let tried = &mut peer.tried_tcp;
            let rest = (AGAIN * 4_u32.saturating_pow(tried.vain.min(8))).min(SELDOM);
            (tried.rests, tried.last, tried.vain) = (Some(now + rest), Some(now), tried.vain + 1);
        }
        self.port_may_rest(now);
        let was_told = |mapped| told.is_some_and(|punch| punch.mine().iter().any(|place| place.addr == mapped));
        if self.tcp_lease.external().is_some_and(|mapped| !was_told(mapped)) {
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
        tracing::debug!(%from, "somebody connects");
        self.stream_stands(now, socket);
    }

    fn stream_stands(&mut self, now: Instant, socket: SocketId) {
        let port = self.tcp.port().unwrap_or_default();
        self.tcp.streams.insert(socket, Stream { port, since: now, used: now });
        self.tcp.look.get_or_insert(now + UNKNOWN);
    }

    /// A stream ended: a rendezvous' or a peer's.
    pub(super) fn disconnected(&mut self, now: Instant, socket: SocketId) {
        self.server_disconnected(now, socket);
        self.tcp.port.disconnected(socket);
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
