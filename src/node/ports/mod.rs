//! Searches over ports ([`crate::symmetric`]): for whom and when. What is sent for them, and in which order, is in
//! [`volleys`]; what they open in [`sockets`].
//!
//! A search begins when ordinary punching got stuck, or at once where a search found the way last time. It goes only to
//! the address at which a rendezvous sees the peer, and once per introduction, or where either side is since. One at a time opens ports, those who were
//! met first before others, for each has up to [`MOST_OPEN`] sockets; others may look for ports meanwhile.

mod sockets;
mod volleys;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Node;
use super::peer::Peer;
use crate::addr::is_private;
use crate::id::{PeerId, ServerId, SocketId};
use crate::nat::NextPorts;
use crate::punch::Via;
use crate::rendezvous::client::State;
use crate::sans::{Instant, RateLimit, Wakeup};
use crate::symmetric::{Hunt, Look, MOST_OPEN, Outcome};
use crate::wire::session::Control;
use sockets::Opened;

/// The socket that looks for ports.
const MAIN: SocketId = SocketId(0);
/// How a NAT gives ports is found out anew after this.
const KNOWN_FOR: Duration = Duration::from_mins(10);
/// What a peer said of its ports is good for so long: it may be elsewhere by then.
const WORD_HOLDS: Duration = Duration::from_secs(2);
/// Peers that wait for their turn, and that are looked for.
const MOST_WAITING: usize = 64;
/// Several rendezvous introduce the same two at about the same time.
const ONE_INTRODUCTION: Duration = Duration::from_secs(1);
/// A search that came to nothing before anything was sent is tried again after this…
const REST: Duration = Duration::from_secs(2);
/// …and one in vain, or without hope, after this, and then after ever longer pauses.
const AGAIN: Duration = Duration::from_mins(1);
/// …of this length at most.
const SELDOM: Duration = Duration::from_hours(1);
/// A search is not begun with fewer shots than this to be had: it would use them up and find nothing.
const WORTH_WHILE: u32 = 500;
/// Answers to a peer's words about ports, a second and at once.
const REPLIES: u32 = 5;

/// The searches of a node.
#[derive(Debug, Default)]
pub(super) struct PortSearch {
    hunt: Option<(PeerId, Hunt)>,
    /// When it began.
    began: Instant,
    pub(super) waiting: VecDeque<PeerId>,
    looks: BTreeMap<PeerId, Look>,
    /// Who shot last, and when there is room for the next shot.
    served: Option<PeerId>,
    held: Instant,
    /// How our NAT gives ports, and since when that is known.
    known: Option<(Instant, NextPorts)>,
    opened: Opened,
}

/// One peer, as searches see it.
#[derive(Debug)]
pub(super) struct Searched {
    introduced: Option<Instant>,
    /// What the introduction allows once each.
    may_hunt: bool,
    may_look: bool,
    /// No search begins before.
    rests: Option<Instant>,
    /// How its NAT gives ports, and whether it was searching for us, as it said at that time.
    theirs: Option<(Instant, NextPorts, bool)>,
    /// A search found the way last time.
    pub(super) worked: bool,
    /// Searches in vain since one was not.
    vain: u32,
    /// When the last one ended, and how.
    last: Option<(Instant, Outcome)>,
    replies: RateLimit,
}

impl Default for Searched {
    fn default() -> Self {
        Self {
            introduced: None,
            may_hunt: false,
            may_look: false,
            rests: None,
            theirs: None,
            worked: false,
            vain: 0,
            last: None,
            replies: RateLimit::new(REPLIES, REPLIES),
        }
    }
}

impl PortSearch {
    /// When [`Node::search_ports`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        let hunt = self.hunt.as_ref().and_then(|(_, hunt)| hunt.poll_timeout());
        let looks = self.looks.values().filter_map(Look::poll_timeout);
        let begins = self.hunt.is_none() && !self.waiting.is_empty() && self.opened.has_room();
        let begin = begins.then_some(Wakeup::new(Instant::ZERO, "next search over ports"));
        let shot = self.has_shot().then_some(Wakeup::new(self.held, "shot"));
        [hunt, begin, shot, self.opened.poll_timeout()].into_iter().flatten().chain(looks).min()
    }

    /// Whether one for this peer goes on, or waits for its turn.
    pub(super) fn is_at(&self, id: &PeerId) -> bool {
        let looks = self.looks.get(id).is_some_and(|look| look.next().is_some());
        looks || self.hunts(id) || self.waiting.contains(id)
    }

    /// Whether our NAT gives each destination another port, if that is known.
    pub(super) fn changes(&self) -> Option<bool> {
        self.known.map(|(_, ports)| ports != NextPorts::Same)
    }

    /// What a socket of a search is bound to.
    pub(super) fn local(&self, socket: SocketId) -> Option<SocketAddr> {
        self.opened.local(socket)
    }

    fn hunts(&self, id: &PeerId) -> bool {
        self.hunt.as_ref().is_some_and(|(hunted, _)| hunted == id)
    }
}

// ---- when ----------------------------------------------------------------------------------------------

impl Node {
    /// A rendezvous introduced us.
    pub(super) fn introduced(&mut self, now: Instant, id: &PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let searched = &mut peer.searched_ports;
        if searched.introduced.is_none_or(|at| now - at >= ONE_INTRODUCTION) {
            searched.introduced = Some(now);
            (searched.may_hunt, searched.may_look, searched.rests) = (true, true, None);
            peer.tried_tcp.rests_no_longer();
        }
    }

    /// This machine is elsewhere: what was found out is of the past, and all may be tried again.
    pub(super) fn ports_moved(&mut self, now: Instant) {
        self.ports.known = None;
        if let Some((id, _)) = self.ports.hunt {
            self.leave_ports(now, &id);
        }
        for peer in self.peers.values_mut().filter(|peer| peer.searched_ports.introduced.is_some()) {
            let searched = &mut peer.searched_ports;
            (searched.may_hunt, searched.may_look, searched.rests, searched.vain) = (true, true, None, 0);
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
        let Some(searched) = self.peers.get_mut(id).map(|peer| &mut peer.searched_ports) else { return };
        if searched.introduced.is_some() && !searched.may_hunt && searched.has_rested(now) {
            searched.rests = Some(now + AGAIN);
            self.introduce_again(now, id);
        }
    }

    fn want_ports(&mut self, now: Instant, id: &PeerId) {
        if self.is_udp_blocked_to(id)
            || self.ports.hunts(id)
            || self.ports.waiting.contains(id)
            || !self.may_hunt(now, id)
        {
            return;
        }
        if self.ports.waiting.len() >= MOST_WAITING {
            // Nobody keeps those out who were met long before.
            let last = self.ports.waiting.iter().rposition(|id| !self.is_senior(id));
            match last.filter(|_| self.is_senior(id)) {
                Some(last) => drop(self.ports.waiting.remove(last)),
                None => return,
            }
        }
        self.ports.waiting.push_back(*id);
    }

    fn may_hunt(&self, now: Instant, id: &PeerId) -> bool {
        let may = |peer: &Peer| peer.searched_ports.may_hunt && peer.searched_ports.has_rested(now);
        self.peers.get(id).is_some_and(|peer| may(peer) && lacks_a_way(peer, now))
    }

    /// Who was met long before comes first; then whose port is the same for all, for that search is short and leads there.
    fn comes_later(&self, id: &PeerId) -> (bool, bool) {
        let theirs = self.peers.get(id).and_then(|peer| peer.searched_ports.theirs);
        (!self.is_senior(id), theirs.is_none_or(|(_, ports, _)| ports != NextPorts::Same))
    }

    pub(super) fn is_senior(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.senior)
    }

    /// The next search that opens ports, if there is one.
    fn next_hunt(&mut self, now: Instant) -> Option<(PeerId, Hunt)> {
        while self.ports.opened.has_room() {
            let first = (0..).zip(&self.ports.waiting).min_by_key(|(place, id)| (self.comes_later(id), *place));
            let id = self.ports.waiting.remove(first?.0)?;
            let Some(peer) = self.peers.get(&id).filter(|_| self.may_hunt(now, &id)) else { continue };
            let Some((by, target)) = observed(peer) else { continue };
            let Some(server) = self.v4_server(by) else { continue };
            if self.budget.shots_left(now, target.ip()) < WORTH_WHILE {
                self.rest_ports(now, &id, AGAIN);
                continue;
            }
            let holds = |(at, ports, searches): &(Instant, NextPorts, bool)| {
                now - *at < WORD_HOLDS && (*searches || *ports == NextPorts::Same)
            };
            let theirs = peer.searched_ports.theirs.filter(holds);
            let mut hunt = Hunt::new(now, &self.shared.rng.seed(), target, server, self.known_ports(now));
            theirs.into_iter().for_each(|(_, theirs, searches)| hunt.told(now, theirs, searches));
            return Some((id, hunt));
        }
        None
    }

    fn rest_ports(&mut self, now: Instant, id: &PeerId, rest: Duration) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.searched_ports.rests = Some(now + rest);
        }
    }

    /// How our NAT gives ports, if that is known and holds still: what is counted goes on.
    fn known_ports(&self, now: Instant) -> Option<NextPorts> {
        let known = self.ports.known.filter(|(at, _)| now - *at < KNOWN_FOR).map(|(_, ports)| ports);
        let holds = |ports: &NextPorts| !matches!(ports, NextPorts::Counted { .. });
        if self.nat.found().changes_port() == Some(false) { Some(NextPorts::Same) } else { known.filter(holds) }
    }

    /// Where a rendezvous can be asked how we are seen: that one, if it can.
    fn v4_server(&self, by: ServerId) -> Option<SocketAddr> {
        let registered = self.servers.iter().filter(|server| server.client.state() == State::Registered);
        let first_that = registered.clone().filter(|server| server.id == by).chain(registered);
        let addresses = first_that.flat_map(|s| s.client.udp_addrs());
        addresses.flatten().find(SocketAddr::is_ipv4)
    }
}

// ---- what happens --------------------------------------------------------------------------------------

impl Node {
    /// Whether a STUN answer is for a search.
    pub(super) fn is_stun_of_search(&mut self, now: Instant, socket: SocketId, from: SocketAddr, bytes: &[u8]) -> bool {
        self.ports.hunt.as_mut().is_some_and(|(_, hunt)| hunt.answered(now, socket, from, bytes))
    }

    /// A peer says how its NAT gives ports.
    pub(super) fn told_ports(&mut self, now: Instant, id: &PeerId, (theirs, searches): (NextPorts, bool), asks: bool) {
        let known = self.known_ports(now);
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.searched_ports.theirs = Some((now, theirs, searches));
        let hunt = self.ports.hunt.as_mut().filter(|(hunted, _)| hunted == id);
        let (mine, is_hunted) = match hunt {
            Some((_, hunt)) => {
                hunt.told(now, theirs, searches);
                // Its own word says it as well; but of those that it has said one may be lost.
                (hunt.mine(), true)
            }
            None => (known, false),
        };
        if !asks || !peer.searched_ports.replies.allow(now) {
            return;
        }
        if !is_hunted && mine != Some(NextPorts::Same) {
            self.want_ports(now, id);
            // Its turn comes at once, and then the search says so itself.
            if self.ports.hunt.is_none() && self.ports.waiting.len() == 1 && self.ports.waiting.contains(id) {
                return;
            }
        }
        if let Some(next) = mine {
            self.send_control(now, id, &Control::Ports { next, asks: false, searches: is_hunted });
        }
    }

    /// A peer has opened ports to us. It says so several times.
    pub(super) fn told_to_look(&mut self, now: Instant, id: &PeerId, ports: NextPorts, open: u16) {
        let (room, is_senior) = (self.ports.looks.len() < MOST_WAITING, self.is_senior(id));
        let Some(peer) = self.peers.get_mut(id).filter(|peer| lacks_a_way(peer, now)) else { return };
        let is_place = !matches!(ports, NextPorts::Same | NextPorts::Counted { step: 0, .. });
        let Some((_, target)) = observed(peer).filter(|_| is_place && peer.searched_ports.may_look) else { return };
        let is_worth_while = self.budget.shots_left(now, target.ip()) >= WORTH_WHILE;
        if !is_worth_while || !room && !is_senior || self.ports.looks.get(id).is_some_and(|look| look.next().is_some())
        {
            return;
        }
        peer.searched_ports.may_look = false;
        let look = Look::new(MAIN, target.ip(), ports, usize::from(open).clamp(1, MOST_OPEN), &mut self.shared.rng);
        self.ports.looks.insert(*id, look);
    }

    /// A peer has looked for our ports in vain.
    pub(super) fn told_looked(&mut self, id: &PeerId) {
        if let Some((_, hunt)) = self.ports.hunt.as_mut().filter(|(hunted, _)| hunted == id) {
            hunt.looked();
        }
    }

    /// A probe came from where nobody announced the peer to be.
    pub(super) fn is_peer_reflexive(&mut self, now: Instant, id: &PeerId, addr: SocketAddr) {
        if self.ports.looks.get(id).is_some_and(|look| look.has_tried(addr))
            && let Some(peer) = self.peers.get_mut(id)
        {
            peer.punch.was_predicted(now, addr);
        }
    }

    /// Packets go directly now, by `via`.
    pub(super) fn way_is_found(&mut self, now: Instant, id: &PeerId, via: Via) {
        let Via::Direct { socket, remote } = via else { return };
        let was_tried = self.ports.looks.get(id).is_some_and(|look| look.has_tried(remote));
        let by_search = was_tried || self.ports.opened.local(socket).is_some();
        if let Some(peer) = self.peers.get_mut(id) {
            let searched = &mut peer.searched_ports;
            self.cache_changed |= searched.worked != by_search;
            (searched.worked, searched.vain, searched.rests, searched.last) = (by_search, 0, None, None);
        }
        self.leave_ports(now, id);
        self.leave_tcp(now, id);
    }

    /// The peer is somewhere else than it was when the search for it began.
    fn has_moved(&mut self, now: Instant, id: &PeerId) {
        self.end_hunt(now);
        if let Some(peer) = self.peers.get_mut(id) {
            (peer.searched_ports.may_hunt, peer.searched_ports.rests) = (true, Some(now + REST));
        }
    }

    /// The peer is reached, or gone.
    pub(super) fn leave_ports(&mut self, now: Instant, id: &PeerId) {
        if let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.offline.is_some()) {
            peer.searched_ports.introduced = None;
        }
        match self.peers.get(id).is_some_and(|peer| peer.offline.is_none()) {
            // Another of the ports that were tried may turn out to be the better one.
            true => self.ports.looks.get_mut(id).into_iter().for_each(|look| look.stop(now)),
            false => drop(self.ports.looks.remove(id)),
        }
        self.ports.waiting.retain(|waiting| waiting != id);
        if self.ports.hunts(id) {
            self.end_hunt(now);
        }
    }

    fn end_hunt(&mut self, now: Instant) {
        let Some((id, hunt)) = self.ports.hunt.take() else { return };
        let outcome = hunt.outcome();
        tracing::debug!(peer = ?id, ?outcome, "a search over ports ended");
        self.ports.opened.search_ended(now);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let searched = &mut peer.searched_ports;
        if searched.introduced.is_some_and(|at| at > self.ports.began) {
            // What was tried was tried with whom it was before.
            return;
        }
        searched.may_hunt &= !hunt.has_shot();
        searched.last = outcome.map(|outcome| (now, outcome));
        let rest = match outcome {
            None => return,
            Some(Outcome::InVain) => {
                searched.vain += 1;
                (AGAIN * 4_u32.saturating_pow((searched.vain - 1).min(8))).min(SELDOM)
            }
            Some(Outcome::Hopeless) => AGAIN,
            Some(Outcome::Needless | Outcome::Unknown) => REST,
            // Should it be the peer's turn now, it is ours as well.
            Some(Outcome::Unanswered) => Duration::ZERO,
        };
        searched.rests = Some(now + rest);
    }
}

impl Searched {
    /// Whether the peer's NAT gives each destination another port, if it said so.
    pub(super) fn theirs_change(&self) -> Option<bool> {
        self.theirs.map(|(_, ports, _)| ports != NextPorts::Same)
    }

    /// When the last search ended, and how.
    pub(super) const fn last(&self) -> Option<(Instant, Outcome)> {
        self.last
    }

    fn has_rested(&self, now: Instant) -> bool {
        self.rests.is_none_or(|until| now >= until)
    }
}

/// Whether it is here, by a relay alone.
fn lacks_a_way(peer: &Peer, now: Instant) -> bool {
    let is_direct = peer.punch.choice().is_some_and(|choice| choice.via.is_direct());
    peer.offline.is_none() && peer.session.is_established(now) && !is_direct
}

/// Where a rendezvous sees it, by IPv4: one that sees the world rather than one in the same house.
fn observed(peer: &Peer) -> Option<(ServerId, SocketAddr)> {
    let seen = peer.listed.iter().filter_map(|(server, addr)| Some((*server, (*addr)?)));
    let v4 = seen.filter(|(_, addr)| matches!(addr.ip(), IpAddr::V4(_)));
    v4.min_by_key(|(server, addr)| (is_private(addr.ip()), *server))
}
