//! Two peers' path-finders, their gateways, a relay and a line, in virtual time.
//!
//! ```text
//!   peer 0 ── gateway ──┐                         ┌── gateway ── peer 1
//!                       ├── the line (delay, loss)┤
//!                       └──────── relay ──────────┘
//! ```
//!
//! A prime (low TTL) passes the sender's gateway and dies, except between peers of one site. Every drain checks that a
//! machine never asks to be woken in the past.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use punchlan::id::{ServerId, SocketId};
use punchlan::punch::{Budget, Event, Family, ProbeIn, Punch, Via};
use punchlan::sans::{Instant, Rng, Seed};
use punchlan::wire::announcement::{Candidate, CandidateKind};

use crate::nat::{Nat, NatConfig};

pub(crate) const V4: SocketId = SocketId(0);
pub(crate) const V6: SocketId = SocketId(1);
pub(crate) const RELAY: ServerId = ServerId(0);

/// A socket of a peer and the gateway in front of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    pub(crate) socket: SocketId,
    pub(crate) addr: SocketAddr,
    pub(crate) gateway: Option<usize>,
}

pub(crate) struct Peer {
    pub(crate) punch: Punch,
    pub(crate) budget: Budget,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) events: Vec<(Instant, Event)>,
    /// Numbers of the data packets that arrived, and when each came first.
    pub(crate) arrived: BTreeMap<u32, Instant>,
    pub(crate) sent: u32,
    /// Data packets that went through the relay.
    pub(crate) relayed: u32,
    pub(crate) keepalives: Vec<Instant>,
    /// Requests that left directly, each with when, where to and how long.
    pub(crate) probes: Vec<(Instant, SocketAddr, usize)>,
}

enum Payload {
    Probe(ProbeIn),
    Data(u32),
}

struct Packet {
    from: usize,
    /// As it leaves the sender's site; `None`: through the relay.
    flow: Option<(SocketAddr, SocketAddr)>,
    /// Arrives at this peer's site without crossing a gateway.
    inside: Option<SocketAddr>,
    payload: Payload,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) peers: Vec<Peer>,
    pub(crate) gateways: Vec<Nat>,
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) loss_percent: u32,
    pub(crate) relay_works: bool,
    /// Nothing direct arrives from these peers.
    pub(crate) cut: BTreeSet<usize>,
    /// Nothing longer arrives directly.
    pub(crate) mtu: usize,
    /// Each peer sends data so often.
    pub(crate) data_every: Option<Duration>,
    next_data: Instant,
    queue: BTreeMap<(Instant, u64), Packet>,
    number: u64,
    rng: Rng,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

pub(crate) fn secs(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Instant::ZERO + Duration::from_secs(1000),
            peers: Vec::new(),
            gateways: Vec::new(),
            delay: ms(10),
            jitter: Duration::ZERO,
            loss_percent: 0,
            relay_works: true,
            cut: BTreeSet::new(),
            mtu: 1500,
            data_every: None,
            next_data: Instant::ZERO,
            queue: BTreeMap::new(),
            number: 0,
            rng: Seed::from_u64(seed).rng(),
        }
    }

    /// Two IPv4 peers, each behind its own gateway of the given kind, or public.
    pub(crate) fn pair(seed: u64, a: Option<NatConfig>, b: Option<NatConfig>) -> Self {
        let mut world = Self::new(seed);
        for (i, config) in [a, b].into_iter().enumerate() {
            let endpoint = match config {
                None => Endpoint { socket: V4, addr: addr(&format!("198.51.100.{}:5000", i + 1)), gateway: None },
                Some(config) => {
                    let gateway = world.gateway(config, &format!("203.0.113.{}", i + 1));
                    Endpoint { socket: V4, addr: addr(&format!("192.168.{i}.2:5000")), gateway: Some(gateway) }
                }
            };
            world.peer(vec![endpoint]);
        }
        world
    }

    pub(crate) fn gateway(&mut self, config: NatConfig, external: &str) -> usize {
        let seed = self.rng.seed();
        self.gateways.push(Nat::new(config, ip(external), &seed));
        self.gateways.len() - 1
    }

    pub(crate) fn peer(&mut self, endpoints: Vec<Endpoint>) {
        let mut punch = Punch::new(self.now, &self.rng.seed());
        let family = |socket| if socket == V4 { Family::V4 } else { Family::V6 };
        let sockets: Vec<_> = endpoints.iter().map(|e| (e.socket, family(e.socket))).collect();
        punch.set_sockets(self.now, &sockets);
        self.peers.push(Peer {
            punch,
            budget: Budget::new(),
            endpoints,
            events: Vec::new(),
            arrived: BTreeMap::new(),
            sent: 0,
            relayed: 0,
            keepalives: Vec::new(),
            probes: Vec::new(),
        });
    }

    /// Tells each peer the other's candidates, opens the relay and introduces both, the second one `skew` later.
    pub(crate) fn introduce(&mut self, skew: Duration) {
        self.exchange();
        if self.relay_works {
            self.each(|now, punch| punch.relay_up(now, RELAY));
        }
        let now = self.now;
        self.peers[0].punch.introduce(now);
        self.drain();
        self.run(skew);
        let now = self.now;
        self.peers[1].punch.introduce(now);
        self.drain();
    }

    /// Each peer learns the other's candidates of now: reflexive, then host.
    pub(crate) fn exchange(&mut self) {
        for i in 0..2 {
            let candidates = self.candidates(1 - i);
            let now = self.now;
            self.peers[i].punch.set_candidates(now, candidates);
        }
    }

    pub(crate) fn each(&mut self, act: impl Fn(Instant, &mut Punch)) {
        let now = self.now;
        self.peers.iter_mut().for_each(|peer| act(now, &mut peer.punch));
    }

    fn candidates(&mut self, i: usize) -> Vec<Candidate> {
        let mut list = Vec::new();
        for endpoint in self.peers[i].endpoints.clone() {
            let server = if endpoint.addr.is_ipv4() { addr("192.0.2.99:3478") } else { addr("[2001:db8:99::1]:3478") };
            if let Some(gateway) = endpoint.gateway
                && let Some(seen) = self.gateways[gateway].outbound(self.now, endpoint.addr, server)
                && seen != endpoint.addr
            {
                list.push(Candidate { kind: CandidateKind::Reflexive, addr: seen });
            }
            list.push(Candidate { kind: CandidateKind::Host, addr: endpoint.addr });
        }
        list
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until `done`, for `time` at most. How long it took, if it was done.
    pub(crate) fn run_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begun = self.now;
        let end = begun + time;
        self.drain();
        for _ in 0..3_000_000 {
            if done(self) {
                return Some(self.now - begun);
            }
            let packet = self.queue.keys().next().map(|(at, _)| *at);
            let timer = self.peers.iter().filter_map(|peer| peer.punch.poll_timeout()).map(|w| w.at).min();
            let data = self.data_every.map(|_| self.next_data.max(self.now));
            let next = [packet, timer, data].into_iter().flatten().min().unwrap_or(end).max(self.now);
            if next > end {
                self.now = end;
                return None;
            }
            self.now = next;
            self.step();
        }
        panic!(
            "a busy loop at {:?}: {:?}",
            self.now,
            self.peers.iter().map(|p| p.punch.poll_timeout()).collect::<Vec<_>>()
        );
    }

    fn step(&mut self) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let packet = entry.remove();
            self.deliver(packet);
        }
        let now = self.now;
        for peer in &mut self.peers {
            if peer.punch.poll_timeout().is_some_and(|wakeup| wakeup.at <= now) {
                peer.punch.handle_timeout(now);
            }
        }
        if let Some(every) = self.data_every.filter(|_| self.next_data <= now) {
            self.next_data = now + every;
            (0..self.peers.len()).for_each(|i| self.send_data(i));
        }
        self.drain();
    }

    pub(crate) fn send_data(&mut self, i: usize) {
        let now = self.now;
        let Some(choice) = self.peers[i].punch.choice().copied() else { return };
        let number = self.peers[i].sent;
        self.peers[i].sent += 1;
        for via in [Some(choice.via), choice.also].into_iter().flatten() {
            self.peers[i].punch.data_sent(now, via);
            self.peers[i].relayed += u32::from(!via.is_direct());
            self.send(i, via, None, Payload::Data(number), 1400);
        }
    }

    /// Drains; what was due by then (data may have made it so) must be done after one more turn.
    fn drain(&mut self) {
        self.poll();
        let now = self.now;
        for peer in &mut self.peers {
            if peer.punch.poll_timeout().is_some_and(|wakeup| wakeup.at <= now) {
                peer.punch.handle_timeout(now);
            }
        }
        self.poll();
        for peer in &self.peers {
            let wakeup = peer.punch.poll_timeout();
            assert!(wakeup.is_none_or(|w| w.at > now), "asks for the past at {now:?}: {wakeup:?}");
        }
    }

    fn poll(&mut self) {
        let now = self.now;
        for i in 0..self.peers.len() {
            let peer = &mut self.peers[i];
            let mut out = Vec::new();
            while let Some(probe) = peer.punch.poll_probe(now, &mut peer.budget) {
                out.push(probe);
                assert!(out.len() < 500, "endless probes");
            }
            while peer.punch.poll_keepalive().is_some() {
                peer.keepalives.push(now);
            }
            while let Some(event) = peer.punch.poll_event() {
                peer.events.push((now, event));
            }
            for probe in out {
                if let Some(remote) = probe.via.remote()
                    && probe.kind == punchlan::wire::probe::ProbeKind::Request
                {
                    self.peers[i].probes.push((now, remote, probe.len));
                }
                let probe_in =
                    ProbeIn { kind: probe.kind, nonce: probe.nonce, len: probe.len, observed: probe.observed };
                self.send(i, probe.via, probe.ttl, Payload::Probe(probe_in), probe.len);
            }
        }
    }

    fn send(&mut self, from: usize, via: Via, ttl: Option<u8>, payload: Payload, len: usize) {
        let packet = match via {
            Via::Relay { .. } | Via::Member { .. } if !self.relay_works => return,
            Via::Relay { .. } | Via::Member { .. } => Packet { from, flow: None, inside: None, payload },
            Via::Direct { .. } if len + 28 > self.mtu => return,
            Via::Direct { socket, remote } => {
                let endpoint = self.peers[from].endpoints.iter().find(|e| e.socket == socket).expect("its socket");
                let (local, gateway) = (endpoint.addr, endpoint.gateway);
                let neighbour = self.peers[1 - from].endpoints.iter().find(|e| e.addr == remote);
                let inside = neighbour.is_some_and(|e| gateway.is_some() && e.gateway == gateway);
                if inside {
                    Packet { from, flow: Some((local, remote)), inside: Some(remote), payload }
                } else {
                    let source = match gateway {
                        None => Some(local),
                        Some(gateway) => self.gateways[gateway].outbound(self.now, local, remote),
                    };
                    let Some(source) = source.filter(|_| ttl.is_none()) else { return };
                    Packet { from, flow: Some((source, remote)), inside: None, payload }
                }
            }
        };
        if self.rng.u32() % 100 < self.loss_percent {
            return;
        }
        let at = self.now + self.delay + self.rng.between(Duration::ZERO, self.jitter);
        self.number += 1;
        self.queue.insert((at, self.number), packet);
    }

    fn deliver(&mut self, packet: Packet) {
        let to = 1 - packet.from;
        let via = match packet.flow {
            None => Some(Via::Relay { server: RELAY }),
            Some(_) if self.cut.contains(&packet.from) => None,
            Some((source, remote)) => {
                let local = packet.inside.or_else(|| self.route(to, source, remote));
                local
                    .and_then(|local| self.peers[to].endpoints.iter().find(|e| e.addr == local))
                    .map(|endpoint| Via::Direct { socket: endpoint.socket, remote: source })
            }
        };
        let (Some(via), now) = (via, self.now) else { return };
        let peer = &mut self.peers[to];
        match packet.payload {
            Payload::Probe(probe) => peer.punch.handle_probe(now, via, None, &probe),
            Payload::Data(number) => {
                peer.arrived.entry(number).or_insert(now);
                peer.punch.received(now, via);
            }
        }
    }

    /// The address inside that a packet to `remote` reaches at peer `to`.
    fn route(&mut self, to: usize, source: SocketAddr, remote: SocketAddr) -> Option<SocketAddr> {
        let endpoints = self.peers[to].endpoints.clone();
        endpoints.iter().find_map(|endpoint| match endpoint.gateway {
            None => (endpoint.addr == remote).then_some(remote),
            Some(gateway) => {
                let nat = &mut self.gateways[gateway];
                let here = if nat.config().translates { nat.external() } else { endpoint.addr.ip() };
                if here == remote.ip() { nat.inbound(self.now, remote, source) } else { None }
            }
        })
    }

    // ---- what came of it ----

    pub(crate) fn is_direct(&self, i: usize) -> bool {
        self.peers[i].punch.choice().is_some_and(|choice| choice.via.is_direct())
    }

    pub(crate) fn both_direct(&self) -> bool {
        self.is_direct(0) && self.is_direct(1)
    }

    pub(crate) fn choices(&self, i: usize) -> usize {
        self.peers[i].events.iter().filter(|(_, event)| matches!(event, Event::Chosen { .. })).count()
    }

    pub(crate) fn lost_paths(&self, i: usize) -> Vec<Instant> {
        self.peers[i].events.iter().filter(|(_, event)| *event == Event::PathLost).map(|(at, _)| *at).collect()
    }
}
