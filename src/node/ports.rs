//! Searches over ports ([`crate::symmetric`]): for whom, when, and with what.
//!
//! A search begins when ordinary punching got stuck, or at once where a search found the way last time. It goes only to
//! the address at which a rendezvous sees the peer, and once per introduction. One at a time opens ports, those who were
//! met first before others, for each has up to 256 sockets; any number may look for ports.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Node;
use super::peer::Peer;
use crate::id::{PeerId, SocketId};
use crate::nat::{Allocation, Behaviour, NextPorts};
use crate::punch::{PathKind, ProbeOut, Verdict, Via};
use crate::rendezvous::client::State;
use crate::sans::{Action, Instant, RateLimit, Wakeup};
use crate::symmetric::{Hunt, Look, Outcome, Shot, Want, Word};
use crate::wire::probe::{self, ProbeKind};
use crate::wire::session::Control;

/// The socket that looks for ports.
const MAIN: SocketId = SocketId(0);
/// How a NAT gives ports is found out anew after this.
const KNOWN_FOR: Duration = Duration::from_mins(10);
/// Peers that wait for their turn.
const MOST_WAITING: usize = 64;
/// A socket that leads nowhere is closed after this: the peer may have chosen another than we.
const IDLE: Duration = Duration::from_secs(5);
/// A search in vain is repeated after this, and after ever longer pauses.
const AGAIN: Duration = Duration::from_secs(60);
/// Ports that are open to one who looks.
const MOST_OPEN: u16 = 256;

/// The searches of a node.
#[derive(Debug, Default)]
pub(super) struct PortSearch {
    hunt: Option<(PeerId, Hunt)>,
    waiting: VecDeque<PeerId>,
    /// How our NAT gives ports, and since when that is known.
    known: Option<(Instant, NextPorts)>,
    /// The last wish for sockets, while it is not answered.
    attempt: u64,
    /// Sockets that were opened for searches: their ports, and since when they lead nowhere.
    opened: BTreeMap<SocketId, (u16, Option<Instant>)>,
    /// When sockets are closed next.
    release: Option<Instant>,
}

/// One peer, as searches see it.
#[derive(Debug)]
pub(super) struct Searched {
    /// What the introduction allows once each.
    may_hunt: bool,
    may_look: bool,
    /// How its NAT gives ports.
    theirs: Option<NextPorts>,
    pub(super) look: Option<Look>,
    /// A search found the way last time.
    pub(super) worked: bool,
    /// Searches in vain since one was not, and when the last ended.
    vain: (u32, Option<Instant>),
    replies: RateLimit,
}

impl Default for Searched {
    fn default() -> Self {
        Self {
            may_hunt: false,
            may_look: false,
            theirs: None,
            look: None,
            worked: false,
            vain: (0, None),
            replies: RateLimit::new(5, 5),
        }
    }
}

impl PortSearch {
    /// This machine is elsewhere.
    pub(super) fn moved(&mut self) {
        self.known = None;
    }

    /// When [`Node::search_ports`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        let next = || (!self.waiting.is_empty()).then_some(Wakeup::new(Instant::ZERO, "next search over ports"));
        let hunt = self.hunt.as_ref().map_or_else(next, |(_, hunt)| hunt.poll_timeout());
        Wakeup::earliest(hunt, self.release.map(|at| Wakeup::new(at, "close sockets")))
    }

    /// What a socket of a search is bound to.
    pub(super) fn local(&self, socket: SocketId) -> Option<SocketAddr> {
        self.opened.get(&socket).map(|(port, _)| SocketAddr::from(([0; 4], *port)))
    }
}

impl Node {
    // ---- when ------------------------------------------------------------------------------------------

    /// A rendezvous introduced us.
    pub(super) fn introduced(&mut self, id: &PeerId) {
        if let Some(peer) = self.peers.get_mut(id) {
            (peer.searched_ports.may_hunt, peer.searched_ports.may_look) = (true, true);
        }
    }

    /// There is a session; where a search found the way last time it is not waited for what punching comes to.
    pub(super) fn search_ports_as_before(&mut self, now: Instant, id: &PeerId) {
        if self.peers.get(id).is_some_and(|peer| peer.searched_ports.worked) {
            self.want_ports(now, id);
        }
    }

    /// Ordinary punching leads nowhere.
    pub(super) fn punching_is_stuck(&mut self, now: Instant, id: &PeerId) {
        self.want_ports(now, id);
        let Some(peer) = self.peers.get(id) else { return };
        if let (vain, Some(at)) = peer.searched_ports.vain
            && !peer.searched_ports.may_hunt
            && now - at >= AGAIN * 4_u32.saturating_pow(vain - 1)
        {
            self.introduce_again(now, id);
        }
    }

    fn want_ports(&mut self, now: Instant, id: &PeerId) {
        let is_hunted = self.ports.hunt.as_ref().is_some_and(|(hunted, _)| hunted == id);
        let room = self.ports.waiting.len() < MOST_WAITING;
        if room && !is_hunted && !self.ports.waiting.contains(id) && self.may_hunt(now, id) {
            self.ports.waiting.push_back(*id);
        }
    }

    fn may_hunt(&self, now: Instant, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.searched_ports.may_hunt && lacks_a_way(peer, now))
    }

    /// How our NAT gives ports, if that is known well enough.
    fn known_ports(&self, now: Instant) -> Option<NextPorts> {
        let found = self.nat.found();
        let is_same = found.translates == Some(false)
            || found.mapping == Some(Behaviour::EndpointIndependent)
            || found.allocation == Some(Allocation::Preserved);
        let known = self.ports.known.filter(|(at, _)| now - *at < KNOWN_FOR).map(|(_, ports)| ports);
        if is_same { Some(NextPorts::Same) } else { known }
    }

    // ---- what happens ----------------------------------------------------------------------------------

    pub(super) fn sockets_opened(&mut self, now: Instant, attempt: u64, sockets: &[(SocketId, u16)]) {
        self.ports.opened.extend(sockets.iter().map(|(id, port)| (*id, (*port, None))));
        self.ports.release = Some(now + IDLE);
        if let Some((_, hunt)) = self.ports.hunt.as_mut().filter(|_| self.ports.attempt == attempt) {
            hunt.opened(now, sockets);
        }
    }

    /// Whether a STUN answer is for a search.
    pub(super) fn is_stun_of_search(&mut self, now: Instant, socket: SocketId, from: SocketAddr, bytes: &[u8]) -> bool {
        self.ports.hunt.as_mut().is_some_and(|(_, hunt)| hunt.answered(now, socket, from, bytes))
    }

    /// A peer says how its NAT gives ports.
    pub(super) fn told_ports(&mut self, now: Instant, id: &PeerId, theirs: NextPorts, asks: bool) {
        let known = self.known_ports(now);
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.searched_ports.theirs = Some(theirs);
        if let Some((_, hunt)) = self.ports.hunt.as_mut().filter(|(hunted, _)| hunted == id) {
            return hunt.told(now, theirs);
        }
        if !asks || !peer.searched_ports.replies.allow(now) {
            return;
        }
        if let Some(next) = known {
            self.send_control(now, id, &Control::Ports { next, asks: false });
        }
        if known != Some(NextPorts::Same) {
            self.want_ports(now, id);
        }
    }

    /// A peer has opened ports to us.
    pub(super) fn told_to_look(&mut self, now: Instant, id: &PeerId, ports: NextPorts, open: u16) {
        let Some(peer) = self.peers.get_mut(id).filter(|peer| lacks_a_way(peer, now)) else { return };
        let Some(target) = observed(peer).filter(|_| peer.searched_ports.may_look) else {
            // It says so again and again; or nobody has seen it there.
            return;
        };
        peer.searched_ports.may_look = false;
        let open = open.clamp(1, MOST_OPEN);
        peer.searched_ports.look = Some(Look::new(MAIN, target.ip(), ports, open, &mut self.shared.rng));
    }

    /// A peer has looked for our ports in vain.
    pub(super) fn told_looked(&mut self, now: Instant, id: &PeerId) {
        if let Some((_, hunt)) = self.ports.hunt.as_mut().filter(|(hunted, _)| hunted == id) {
            hunt.looked(now);
        }
    }

    /// Packets go directly now, by `via`.
    pub(super) fn way_is_found(&mut self, now: Instant, id: &PeerId, via: Via, kind: PathKind) {
        let by_search = kind == PathKind::Predicted
            || matches!(via, Via::Direct { socket, .. } if self.ports.opened.contains_key(&socket));
        if let Some(peer) = self.peers.get_mut(id) {
            let searched = &mut peer.searched_ports;
            self.cache_changed |= searched.worked != by_search;
            (searched.look, searched.worked, searched.vain) = (None, by_search, (0, None));
        }
        if self.ports.hunt.as_ref().is_some_and(|(hunted, _)| hunted == id) {
            self.end_hunt(now);
        }
    }

    /// A probe came from where nobody announced the peer to be.
    pub(super) fn is_peer_reflexive(&mut self, now: Instant, id: &PeerId, addr: SocketAddr) {
        if let Some(peer) = self.peers.get_mut(id)
            && peer.searched_ports.look.as_ref().is_some_and(|look| look.has_tried(addr))
        {
            peer.punch.was_predicted(now, addr);
        }
    }

    // ---- what is done ----------------------------------------------------------------------------------

    /// Lets the search that opens ports go on, and the next begin.
    pub(super) fn search_ports(&mut self, now: Instant) {
        if let Some((_, hunt)) = &mut self.ports.hunt {
            hunt.handle_timeout(now);
        }
        loop {
            self.drain_hunt(now);
            let Some((_, hunt)) = &self.ports.hunt else {
                match self.next_hunt(now) {
                    Some(next) => self.ports.hunt = Some(next),
                    None => break,
                }
                continue;
            };
            if hunt.outcome().is_none() {
                break;
            }
            self.end_hunt(now);
        }
        if self.ports.release.is_some_and(|at| at <= now) {
            self.release_sockets(now);
        }
    }

    fn next_hunt(&mut self, now: Instant) -> Option<(PeerId, Hunt)> {
        loop {
            let is_senior = |id: &PeerId| self.peers.get(id).is_some_and(|peer| peer.senior);
            let place = self.ports.waiting.iter().position(is_senior).unwrap_or(0);
            let id = self.ports.waiting.remove(place)?;
            let Some(peer) = self.peers.get(&id).filter(|_| self.may_hunt(now, &id)) else { continue };
            let (Some(target), Some(server)) = (observed(peer), self.v4_server()) else { continue };
            let theirs = peer.searched_ports.theirs;
            let mut hunt = Hunt::new(now, &self.shared.rng.seed(), target, server, self.reusable_ports(now));
            theirs.into_iter().for_each(|theirs| hunt.told(now, theirs));
            return Some((id, hunt));
        }
    }

    /// As [`Node::known_ports`], but not what has been counted on meanwhile.
    fn reusable_ports(&self, now: Instant) -> Option<NextPorts> {
        self.known_ports(now).filter(|ports| !matches!(ports, NextPorts::Counted { .. }))
    }

    /// A rendezvous that can be asked how we are seen.
    fn v4_server(&self) -> Option<SocketAddr> {
        let registered = self.servers.iter().filter(|server| server.client.state() == State::Registered);
        let addresses = registered.flat_map(|s| [s.client.server_addr(), s.client.server_addr_of_other_family()]);
        addresses.flatten().find(SocketAddr::is_ipv4)
    }

    fn drain_hunt(&mut self, now: Instant) {
        let Some(id) = self.ports.hunt.as_ref().map(|(id, _)| *id) else { return };
        self.say_and_ask(now, &id);
        while let Some(shot) = self.ports.hunt.as_ref().and_then(|(_, hunt)| hunt.due(now)) {
            let verdict = self.take_shot(now, &id, shot);
            let Some((_, hunt)) = &mut self.ports.hunt else { return };
            match verdict {
                Verdict::Granted => hunt.sent(now),
                Verdict::NodeFull => hunt.hold(now),
                Verdict::TargetFull => hunt.end(now),
            }
        }
        // The last shot may have brought it on.
        self.say_and_ask(now, &id);
    }

    /// Does what the search needs besides shots.
    fn say_and_ask(&mut self, now: Instant, id: &PeerId) {
        while let Some(want) = self.ports.hunt.as_mut().and_then(|(_, hunt)| hunt.poll_want()) {
            match want {
                Want::Sockets(count) => {
                    self.ports.attempt += 1;
                    self.actions.push_back(Action::OpenSockets { attempt: self.ports.attempt, count });
                }
                Want::Ask { socket, to, question } => self.transmit(socket, to, question, None),
                Want::Say(Word::Ports(next)) => {
                    self.send_control(now, id, &Control::Ports { next, asks: true });
                }
                Want::Say(Word::LookForMe(ports, open)) => {
                    self.send_control(now, id, &Control::LookForMe { ports, open });
                }
            }
        }
    }

    /// Lets a peer's ports be looked for.
    pub(super) fn look_for_ports(&mut self, now: Instant, id: &PeerId) {
        while let Some(shot) = self.peers.get(id).and_then(|peer| peer.searched_ports.look.as_ref()?.due(now)) {
            let verdict = self.take_shot(now, id, shot);
            let Some(look) = self.peers.get_mut(id).and_then(|peer| peer.searched_ports.look.as_mut()) else { return };
            match verdict {
                Verdict::Granted => look.sent(now),
                Verdict::NodeFull => look.hold(now),
                Verdict::TargetFull => look.end(now),
            }
        }
        if self.peers.get(id).is_some_and(|peer| peer.searched_ports.look.is_some()) {
            let look = self.peers.get_mut(id).and_then(|peer| peer.searched_ports.look.as_mut());
            if look.is_some_and(|look| look.take_word(now)) {
                self.send_control(now, id, &Control::Looked);
            }
        }
    }

    /// Sends it, if the budget has room.
    fn take_shot(&mut self, now: Instant, id: &PeerId, Shot { socket, to, primes }: Shot) -> Verdict {
        let verdict = self.budget.take_shot(now, to.ip());
        if verdict == Verdict::Granted {
            let (via, nonce, len) = (Via::Direct { socket, remote: to }, self.shared.rng.u64(), probe::MIN_LEN);
            let ttl = primes.then_some(crate::punch::PRIME_TTL);
            self.send_probe(id, &ProbeOut { via, kind: ProbeKind::Request, nonce, len, ttl, observed: None });
        }
        verdict
    }

    fn end_hunt(&mut self, now: Instant) {
        let Some((id, hunt)) = self.ports.hunt.take() else { return };
        let outcome = hunt.outcome();
        tracing::debug!(peer = ?id, ?outcome, "a search over ports ended");
        self.ports.release = Some(now + IDLE);
        self.ports.known = hunt.mine().map(|mine| (now, mine)).or(self.ports.known);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let searched = &mut peer.searched_ports;
        // Who did not answer may yet ask us.
        searched.may_hunt &= outcome == Some(Outcome::Unanswered) && !hunt.has_shot();
        if outcome == Some(Outcome::InVain) {
            searched.vain = (searched.vain.0 + 1, Some(now));
        }
    }

    /// Closes the sockets that lead nowhere.
    fn release_sockets(&mut self, now: Instant) {
        let hunt = &self.ports.hunt;
        let is_hunting = |socket| hunt.iter().any(|(_, hunt)| hunt.sockets().any(|id| id == socket));
        let mut close = Vec::new();
        for (socket, (_, idle)) in &mut self.ports.opened {
            if is_hunting(*socket) || self.peers.values().any(|peer| peer.punch.uses(now, *socket)) {
                *idle = None;
            } else if now - *idle.get_or_insert(now) >= IDLE {
                close.push(*socket);
            }
        }
        self.ports.opened.retain(|socket, _| !close.contains(socket));
        self.ports.release = (!self.ports.opened.is_empty()).then_some(now + IDLE);
        if !close.is_empty() {
            self.actions.push_back(Action::CloseSockets(close));
        }
    }
}

/// Whether it is here, by a relay alone.
fn lacks_a_way(peer: &Peer, now: Instant) -> bool {
    let is_direct = peer.punch.choice().is_some_and(|choice| choice.via.is_direct());
    peer.offline.is_none() && peer.session.is_established(now) && !is_direct
}

/// Where a rendezvous sees it, by IPv4.
fn observed(peer: &Peer) -> Option<SocketAddr> {
    let seen = peer.listed.values().flatten().copied();
    seen.filter(|addr| matches!(addr.ip(), IpAddr::V4(_))).min()
}
