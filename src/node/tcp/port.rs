//! The port that all attempts listen on and connect from, and how rendezvous see it: each is asked by a connection from
//! there, which keeps the NAT's mapping while it stands. What was seen is good for as long as one does. A router that maps ports
//! is asked to map this one, which then stays for as long as a peer is connected by it: the router may cut what it sends on no
//! longer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::Node;
use crate::id::SocketId;
use crate::rendezvous::client::State;
use crate::sans::{Action, Instant, Wakeup};
use crate::tcp::TcpPunch;
use crate::wire::announcement::{Candidate, CandidateKind};
use crate::wire::stun::{Answer, BindingRequest};

/// Rendezvous that are asked.
const ASKED: usize = 2;
/// They are waited for so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// A router that has mapped a port before is waited for so long: some need seconds.
const MAPPING: Duration = Duration::from_secs(3);
/// The port is let go of when nobody has wanted it for so long.
const LINGER: Duration = Duration::from_secs(5);

/// The port.
#[derive(Debug, Default)]
pub(super) enum Port {
    /// None.
    #[default]
    Closed,
    /// Asked for.
    Opening,
    /// There is one.
    Open(Open),
}

#[derive(Debug)]
pub(super) struct Open {
    number: u16,
    /// Connections to rendezvous that are not answered, and those that stand, with the questions' numbers.
    dials: BTreeMap<u64, SocketAddr>,
    asked: BTreeMap<SocketId, [u8; 12]>,
    /// How it is seen outside.
    seen: BTreeSet<SocketAddr>,
    /// It is not waited for any longer then; `None`: all is known that will be.
    patience: Option<Instant>,
    /// Nor is the router then.
    mapping: Option<Instant>,
    /// It is closed then.
    closes: Option<Instant>,
}

impl Port {
    pub(super) const fn number(&self) -> Option<u16> {
        match self {
            Self::Open(open) => Some(open.number),
            Self::Closed | Self::Opening => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        let Self::Open(open) = self else { return None };
        let known = [open.patience, open.mapping].into_iter().flatten().map(|at| Wakeup::new(at, "how a port is seen"));
        known.chain(open.closes.map(|at| Wakeup::new(at, "close a port"))).min()
    }

    /// A connection to a rendezvous ended.
    pub(super) fn disconnected(&mut self, socket: SocketId) {
        if let Self::Open(open) = self {
            let was_last = open.asked.remove(&socket).is_some() && open.asked.is_empty();
            if was_last {
                open.seen.clear();
            }
            open.conclude();
        }
    }
}

impl Open {
    /// Nobody is left who may answer.
    fn conclude(&mut self) {
        if self.dials.is_empty() && self.asked.is_empty() {
            self.patience = None;
        }
    }
}

impl Node {
    /// An attempt begins.
    pub(super) fn want_port(&mut self, now: Instant) {
        match &mut self.tcp.port {
            Port::Closed => {
                self.tcp.port = Port::Opening;
                self.actions.push_back(Action::Listen);
            }
            Port::Opening => {}
            Port::Open(open) => {
                open.closes = None;
                if open.asked.is_empty() && open.dials.is_empty() {
                    self.ask_rendezvous(now);
                }
                self.tell_places(now);
            }
        }
    }

    /// An attempt ended.
    pub(in super::super) fn port_may_rest(&mut self, now: Instant) {
        if let Port::Open(open) = &mut self.tcp.port
            && self.tcp.punches.is_empty()
        {
            open.closes.get_or_insert(now + LINGER);
        }
    }

    /// The answer to [`Action::Listen`].
    pub(in super::super) fn tcp_listening(&mut self, now: Instant, result: Result<u16, String>) {
        let number = match result {
            Ok(number) => number,
            Err(reason) => {
                tracing::debug!(reason, "no port to listen on");
                self.tcp.port = Port::Closed;
                let ids: Vec<_> = self.tcp.punches.keys().copied().collect();
                return ids.iter().for_each(|id| self.tcp_in_vain(now, id));
            }
        };
        let (dials, asked, seen) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mapping = self.lease.external().map(|_| now + MAPPING);
        self.tcp.port = Port::Open(Open { number, dials, asked, seen, patience: None, mapping, closes: None });
        self.ask_rendezvous(now);
        self.port_may_rest(now);
        self.tell_places(now);
    }

    fn ask_rendezvous(&mut self, now: Instant) {
        let registered = self.servers.iter().filter(|server| server.client.state() == State::Registered);
        let ways: Vec<_> = registered.filter_map(|server| server.client.stream_way()).take(ASKED).collect();
        let ways: Vec<_> = ways.into_iter().map(|way| (self.tcp.next_attempt(), way)).collect();
        let Port::Open(open) = &mut self.tcp.port else { return };
        for (attempt, (to, carrier)) in ways {
            open.dials.insert(attempt, to);
            self.actions.push_back(Action::Dial { attempt, to, carrier, ttl: None });
        }
        open.patience = (!open.dials.is_empty()).then_some(now + PATIENCE);
    }

    /// A connection to a rendezvous stands, or will not.
    pub(super) fn asks_by_tcp(&mut self, now: Instant, attempt: u64, result: Result<SocketId, String>) {
        let Port::Open(open) = &mut self.tcp.port else {
            return self.actions.extend(result.ok().map(Action::Disconnect));
        };
        match (open.dials.remove(&attempt), result) {
            (Some(to), Ok(socket)) => {
                let transaction = self.shared.rng.array();
                open.asked.insert(socket, transaction);
                let question = BindingRequest { transaction, ..BindingRequest::default() }.encode();
                self.transmit(socket, to, question, None);
            }
            (None, Ok(socket)) => self.actions.push_back(Action::Disconnect(socket)),
            (_, Err(reason)) => {
                tracing::debug!(reason, "a rendezvous cannot be asked how it sees a port");
                open.conclude();
            }
        }
        self.tell_places(now);
    }

    /// Whether a STUN answer says how the port is seen.
    pub(in super::super) fn is_stun_of_port(&mut self, now: Instant, socket: SocketId, bytes: &[u8]) -> bool {
        let Port::Open(open) = &mut self.tcp.port else { return false };
        let Some(answer) = Answer::parse(bytes).ok().filter(|a| open.asked.get(&socket) == Some(&a.transaction)) else {
            return false;
        };
        if answer.mapped.port() != 0 {
            open.seen.insert(answer.mapped);
            open.patience = None;
        }
        self.tell_places(now);
        self.punch_by_tcp(now);
        true
    }

    pub(super) fn port_timeout(&mut self, now: Instant) {
        let Port::Open(open) = &mut self.tcp.port else { return };
        let due = [&mut open.patience, &mut open.mapping, &mut open.closes].map(|at| at.take_if(|at| *at <= now));
        if due[..2].iter().any(Option::is_some) {
            self.tell_places(now);
        }
        if due[2].is_some() && !self.is_connected_by_mapping() {
            self.close_port();
        }
    }

    /// The router has mapped the port, or will not.
    pub(in super::super) fn tcp_port_mapped(&mut self, now: Instant) {
        if let Port::Open(open) = &mut self.tcp.port {
            open.mapping = None;
            self.tell_places(now);
            // Perhaps it was kept for a mapping that is gone.
            self.port_may_rest(now);
        }
    }

    /// Whether a peer is connected to the port, which the router maps.
    pub(super) fn is_connected_by_mapping(&self) -> bool {
        let ours =
            self.tcp.streams.iter().filter(|(_, stream)| stream.port.is_some() && stream.port == self.tcp.port());
        let is_peers = |socket: &SocketId| self.peers.values().any(|peer| peer.punch.uses(*socket));
        self.tcp_lease.external().is_some() && ours.map(|(socket, _)| socket).any(is_peers)
    }

    /// This machine is elsewhere, or its router: how the port was seen is of the past.
    pub(super) fn port_moved(&mut self) {
        if !self.is_connected_by_mapping() {
            return self.close_port();
        }
        if let Port::Open(open) = &mut self.tcp.port {
            open.seen.clear();
            self.actions.extend(std::mem::take(&mut open.asked).into_keys().map(Action::Disconnect));
        }
    }

    /// Those who wait for a port that is being opened get it all the same.
    pub(super) fn close_port(&mut self) {
        if let Port::Open(open) = &mut self.tcp.port {
            self.actions.extend(std::mem::take(&mut open.asked).into_keys().map(Action::Disconnect));
            self.actions.push_back(Action::StopListening);
            self.tcp.port = Port::Closed;
        }
    }

    /// Whoever waits for it learns where we are reached, if that is known.
    pub(super) fn tell_places(&mut self, now: Instant) {
        let Port::Open(Open { number, seen, patience: None, mapping: None, .. }) = &self.tcp.port else { return };
        let places = self.places(*number, seen);
        self.tcp.punches.values_mut().filter(|punch| punch.is_gathering()).for_each(|p: &mut TcpPunch| {
            p.gathered(now, &places);
        });
    }

    /// Where the port is reached: where the router maps it, as it is seen, at our own addresses, and where a router would
    /// show it that keeps ports.
    fn places(&self, number: u16, seen: &BTreeSet<SocketAddr>) -> Vec<Candidate> {
        let of = |kind, ips: Vec<IpAddr>| {
            ips.into_iter().map(move |ip| Candidate { kind, addr: SocketAddr::new(ip, number) })
        };
        let own = self.gather.candidates();
        let hosts = own.iter().filter(|c| c.kind == CandidateKind::Host).map(|c| c.addr.ip()).collect();
        let kept = self.gather.reflexive().chain(seen.iter().copied()).map(|addr| addr.ip()).collect();
        let seen = seen.iter().map(|addr| Candidate { kind: CandidateKind::Reflexive, addr: *addr });
        let mapped = self.tcp_lease.external().map(|addr| Candidate { kind: CandidateKind::Mapped, addr });
        let known = mapped.into_iter().chain(seen);
        let mut all: Vec<Candidate> = Vec::new();
        for place in known.chain(of(CandidateKind::Host, hosts)).chain(of(CandidateKind::Predicted, kept)) {
            if all.iter().all(|known| known.addr != place.addr) {
                all.push(place);
            }
        }
        all
    }
}
