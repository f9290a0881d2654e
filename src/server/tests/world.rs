//! Peers and one rendezvous in virtual time, over a link that loses and delays.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites};
use crate::id::{Epoch, NetworkKey, PeerId, ServerId, ServerKey, SocketId};
use crate::rendezvous::{Client, Event};
use crate::sans::{Datagram, Instant, Rng, Seed};
use crate::server::{Config, Core, Verdict};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const S: Duration = Duration::from_secs(1);

/// Where the rendezvous listens.
pub(super) fn server_v4() -> SocketAddr {
    "198.51.100.1:3478".parse().expect("address")
}

/// Its other address.
pub(super) fn server_v6() -> SocketAddr {
    "[2001:db8:ffff::1]:3478".parse().expect("address")
}

pub(super) fn identity(network: u8, device: u8) -> Identity {
    Identity {
        network: NetworkSecrets::derive(&NetworkKey::new([network; 32]), Epoch::default()),
        device: DeviceSecrets::from_seed(&[device; 32]),
        suites: Suites::native(),
        features: 0,
    }
}

pub(super) struct Peer {
    pub(super) client: Client,
    pub(super) identity: Identity,
    pub(super) addr: SocketAddr,
    pub(super) addr6: Option<SocketAddr>,
    pub(super) number: u64,
    pub(super) alive: bool,
    pub(super) events: Vec<(Instant, Event)>,
    /// Payloads that came through the relay.
    pub(super) relayed: Vec<(PeerId, Vec<u8>)>,
}

impl Peer {
    pub(super) fn id(&self) -> PeerId {
        self.identity.device.id()
    }

    pub(super) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|(_, event)| wanted(event)).count()
    }

    pub(super) fn when(&self, wanted: impl Fn(&Event) -> bool) -> Option<Instant> {
        self.events.iter().find(|(_, event)| wanted(event)).map(|(at, _)| *at)
    }

    pub(super) fn heard_of(&self, peer: &PeerId) -> bool {
        self.client.lists(peer)
    }
}

/// A datagram under way.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) core: Option<Core>,
    pub(super) config: Config,
    pub(super) peers: Vec<Peer>,
    pub(super) loss: u64,
    pub(super) delay: Duration,
    /// Everything that was ever sent.
    pub(super) wire: Vec<Packet>,
    rng: Rng,
    lives: u64,
    sent: u64,
    link: BTreeMap<(Instant, u64), Packet>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(super) fn with(config: Config) -> Self {
        let mut world = Self {
            now: Instant::ZERO + S * 1000,
            core: None,
            config,
            peers: Vec::new(),
            loss: 0,
            delay: MS * 10,
            wire: Vec::new(),
            rng: Seed::from_u64(99).rng(),
            lives: 0,
            sent: 0,
            link: BTreeMap::new(),
        };
        world.start();
        world
    }

    /// Starts the server: the same key, nothing else left.
    pub(super) fn start(&mut self) {
        self.lives += 1;
        self.core = Some(Core::new(self.config.clone(), [5; 32], &Seed::from_u64(self.lives), self.now));
    }

    pub(super) fn key(&self) -> ServerKey {
        self.core.as_ref().expect("it runs").key()
    }

    /// A peer that announces itself as soon as it can.
    pub(super) fn join(&mut self, network: u8, device: u8) -> usize {
        self.join_as(network, device, u64::from(device), None)
    }

    pub(super) fn join_as(&mut self, network: u8, device: u8, run: u64, pin: Option<ServerKey>) -> usize {
        let n = self.peers.len();
        let mut client = Client::new(ServerId(0), pin, &Seed::from_u64(run));
        client.set_addresses(self.now, vec![server_v4()]);
        client.set_announcement(self.now, vec![device; 512]);
        let addr = SocketAddr::new(IpAddr::from([203, 0, 113, u8::try_from(n + 1).expect("few")]), 40_000);
        self.peers.push(Peer {
            client,
            identity: identity(network, device),
            addr,
            addr6: None,
            number: 1000 * (self.sent + 1),
            alive: true,
            events: Vec::new(),
            relayed: Vec::new(),
        });
        self.drain();
        n
    }

    /// Two peers of one network with a channel between them.
    pub(super) fn relayed_pair(&mut self) -> (usize, usize) {
        let pair @ (a, b) = (self.join(1, 1), self.join(1, 2));
        self.run(S * 3);
        for (from, to) in [(a, b), (b, a)] {
            let to = self.id(to);
            self.peers[from].client.open_channel(self.now, to);
        }
        self.run(S);
        pair
    }

    pub(super) fn id(&self, peer: usize) -> PeerId {
        self.peers[peer].id()
    }

    /// Puts a datagram on the line, whoever claims to have sent it.
    pub(super) fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.wire.push(Packet { from, to, bytes: bytes.clone() });
        if self.rng.u64() % 100 >= self.loss {
            self.sent += 1;
            self.link.insert((self.now + self.delay, self.sent), Packet { from, to, bytes });
        }
    }

    /// Sends `payload` from one peer to another through the relay; whether the channel is open.
    pub(super) fn relay(&mut self, from: usize, to: usize, payload: &[u8]) -> bool {
        let (to, addr) = (self.id(to), self.peers[from].addr);
        let Some(header) = self.peers[from].client.relay_header(&to, payload) else { return false };
        self.inject(addr, server_v4(), [&header[..], payload].concat());
        true
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    /// Runs until `done` or for `longest`; how long it took.
    pub(super) fn run_until(&mut self, longest: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        while !done(self) {
            let next = self.next().filter(|next| *next <= start + longest)?;
            self.now = self.now.max(next);
            self.step();
        }
        Some(self.now - start)
    }

    fn next(&self) -> Option<Instant> {
        let peers = self.peers.iter().filter(|p| p.alive).filter_map(|p| p.client.poll_timeout()).map(|w| w.at);
        let core = self.core.as_ref().and_then(|core| core.poll_timeout()).map(|w| w.at);
        self.link.keys().next().map(|(at, _)| *at).into_iter().chain(peers).chain(core).min()
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(entry) = self.link.first_entry().filter(|entry| entry.key().0 <= now) {
            let packet = entry.remove();
            self.deliver(packet);
            self.drain();
        }
        for peer in self.peers.iter_mut().filter(|peer| peer.alive) {
            let Peer { client, number, .. } = peer;
            client.handle_timeout(now, || {
                *number += 1;
                Some(*number)
            });
        }
        if let Some(core) = &mut self.core {
            core.handle_timeout(now);
        }
        self.drain();
    }

    fn deliver(&mut self, packet: Packet) {
        let Packet { from, to, mut bytes } = packet;
        let now = self.now;
        if to == server_v4() || to == server_v6() {
            let Some(core) = &mut self.core else { return };
            let socket = SocketId(u16::from(to.is_ipv6()));
            let datagram = Datagram { socket, local: Some(to.ip()), from, payload: &mut bytes };
            if let Verdict::Forward { to: receiver, range, src, .. } = core.handle_datagram(now, datagram) {
                assert_eq!(src, Some(to.ip()));
                self.inject(to, receiver, bytes[range].to_vec());
            }
            return;
        }
        let Some(peer) = self.peers.iter_mut().find(|p| p.alive && (p.addr == to || p.addr6 == Some(to))) else {
            return;
        };
        if peer.client.handle_datagram(now, &peer.identity, from, &bytes) {
            return;
        }
        if let Some((sender, range)) = peer.client.relay_open(&mut bytes, from) {
            peer.relayed.push((sender, bytes[range].to_vec()));
        }
    }

    pub(super) fn drain(&mut self) {
        let mut out = Vec::new();
        for peer in self.peers.iter_mut().filter(|peer| peer.alive) {
            while let Some(event) = peer.client.poll_event() {
                peer.events.push((self.now, event));
            }
            while let Some((socket, to, bytes)) = peer.client.poll_transmit() {
                let from = if socket == SocketId(0) { Some(peer.addr) } else { peer.addr6 };
                out.extend(from.map(|from| (from, to, bytes)));
            }
        }
        while let Some(t) = self.core.as_mut().and_then(Core::poll_transmit) {
            let port = server_v4().port();
            out.push((SocketAddr::new(t.src.expect("it answers from the address asked"), port), t.to, t.payload));
        }
        for (from, to, bytes) in out {
            self.inject(from, to, bytes);
        }
    }

    /// Every pair of the peers listed knows each other, and nobody else.
    pub(super) fn all_know_each_other(&self, peers: &[usize]) -> bool {
        peers.iter().all(|a| peers.iter().all(|b| a == b || self.peers[*a].heard_of(&self.id(*b))))
    }

    pub(super) fn counter(&self, word: &str) -> u64 {
        self.core.as_ref().expect("it runs").counters().get(word).copied().unwrap_or(0)
    }
}
