//! A hub and its friends without delay between them: on one LAN, where all know each other from an earlier run, or each
//! reached through a rendezvous' relay alone. What a packet costs inside a node, without any system call.

#![allow(dead_code, unreachable_pub, reason = "a module of benches and tests")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use punchlan::addr::OverlayNet;
use punchlan::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites, announcement};
use punchlan::id::{Epoch, NetworkKey, SocketId};
use punchlan::node::{
    AddressChoice, HEADROOM, Inbound, LocalSocket, Node, NodeConfig, Outbound, RendezvousConfig, TAILROOM,
};
use punchlan::sans::{Action, Datagram, Done, Instant, Seed};
use punchlan::server::{Config, Core, Verdict};
use punchlan::wire::VERSION;
use punchlan::wire::announcement::{Announcement, Candidate, CandidateKind, V4Claim};
use punchlan::wire::session::feature;

const START: Instant = Instant::from_nanos(1_000_000_000_000);
const WALL_MS: u64 = 1_800_000_000_000;
pub const PORT: u16 = 4000;

/// The hub is number 0.
pub struct Lan {
    pub now: Instant,
    pub nodes: Vec<Node>,
    /// Which node has which LAN address.
    places: BTreeMap<IpAddr, usize>,
    /// All goes through it, if it is there.
    rendezvous: Option<Core>,
    /// Moments at which the hub's timers woke it.
    pub wakeups: u64,
    /// Datagrams that the hub sent by itself.
    pub sent: u64,
}

fn rendezvous_addr() -> SocketAddr {
    "198.51.100.1:3478".parse().expect("an address")
}

pub fn lan_addr(n: usize) -> Ipv4Addr {
    let n = u32::try_from(n).expect("few");
    Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 2, 1)) + n)
}

/// The overlay address of a node.
pub fn overlay_addr(n: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 0, 1)) + u32::try_from(n).expect("few"))
}

fn identity(n: usize) -> Identity {
    let network = NetworkSecrets::derive(&NetworkKey::new([1; 32]), Epoch::default());
    let mut seed = [2; 32];
    seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
    Identity { network, device: DeviceSecrets::from_seed(&seed), suites: Suites::ALL, features: feature::SEGMENTS }
}

/// What a node said of itself in an earlier run.
fn signed(n: usize) -> Vec<u8> {
    let identity = identity(n);
    let text = Announcement {
        version: VERSION,
        epoch: Epoch::default(),
        seq: 1,
        peer: identity.device.id(),
        x25519: identity.device.x25519(),
        features: 0,
        name: format!("n{n}"),
        v4: V4Claim::Configured(overlay_addr(n)),
        candidates: vec![Candidate { kind: CandidateKind::Host, addr: (lan_addr(n), PORT).into() }],
    };
    announcement::sign(&identity.device, &identity.network.id(), &text).bytes().to_vec()
}

fn node(n: usize, met: &[Vec<u8>], relayed: bool) -> Node {
    let mut peers = String::new();
    for announcement in met {
        let hex: String = announcement.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let comma = if peers.is_empty() { "" } else { "," };
        let _ = write!(peers, r#"{comma}{{"seen_ms":{WALL_MS},"announcement":"{hex}"}}"#);
    }
    let identity = Arc::new(identity(n));
    let at = rendezvous_addr();
    let rendezvous = RendezvousConfig::plain(at.ip().to_string(), at.port());
    let config = NodeConfig {
        network_name: "bench".into(),
        name: format!("n{n}"),
        overlay: OverlayNet { v4: "10.77.0.0/16".parse().expect("prefix"), v6: identity.network.overlay_v6() },
        identity,
        address: AddressChoice::Configured(overlay_addr(n)),
        rendezvous: if relayed { vec![rendezvous] } else { Vec::new() },
        deny: Vec::new(),
        port_mapping: false,
        lan_discovery: false,
        relay: punchlan::node::RelayConfig::default(),
        lan: punchlan::node::LanConfig::default(),
        sockets: vec![LocalSocket { id: SocketId(0), addr: (Ipv4Addr::UNSPECIFIED, PORT).into() }],
        stored_ceiling: 0,
        cache: Some(format!(r#"{{"addresses":[],"names":[],"peers":[{peers}]}}"#).into_bytes()),
        wall_ms: WALL_MS,
    };
    Node::new(config, &Seed::from_u64(n as u64), START)
}

impl Lan {
    /// A hub with so many friends; all sessions stand.
    pub fn new(friends: usize) -> Self {
        let hub = signed(0);
        let all: Vec<Vec<u8>> = (1..=friends).map(signed).collect();
        let spokes = (1..=friends).map(|n| node(n, std::slice::from_ref(&hub), false));
        let nodes: Vec<Node> = std::iter::once(node(0, &all, false)).chain(spokes).collect();
        let mut lan = Self::of(nodes, None);
        lan.run(Duration::from_secs(1));
        // A few at a time: handshakes have a rate.
        for n in 1..=friends {
            let packet = udp(overlay_addr(n), overlay_addr(0), 100);
            let mut buf = framed(&packet);
            let now = lan.now;
            lan.nodes[n].handle_packet(now, &mut buf);
            lan.run(Duration::from_millis(60));
        }
        lan.run(Duration::from_secs(20));
        for n in [1, friends] {
            let mut buf = framed(&udp(overlay_addr(0), overlay_addr(n), 100));
            let now = lan.now;
            assert!(matches!(lan.nodes[0].handle_packet(now, &mut buf), Outbound::Send { .. }), "friend {n} is met");
        }
        lan
    }

    /// Two that reach each other by relay alone; their session stands.
    pub fn relayed() -> Self {
        let nodes = (0..2).map(|n| node(n, &[], true)).collect();
        let mut lan = Self::of(nodes, Some(Core::new(Config::default(), [7; 32], &Seed::from_u64(9), START)));
        lan.run(Duration::from_secs(20));
        lan
    }

    fn of(nodes: Vec<Node>, rendezvous: Option<Core>) -> Self {
        let places = (0..nodes.len()).map(|n| (lan_addr(n).into(), n)).collect();
        Self { now: START, nodes, places, rendezvous, wakeups: 0, sent: 0 }
    }

    /// Lets `duration` pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.settle();
            match self.nodes.iter().filter_map(Node::poll_timeout).min() {
                Some(wakeup) if wakeup.at <= end => {
                    self.now = self.now.max(wakeup.at);
                    self.wakeups += u64::from(self.nodes[0].poll_timeout().is_some_and(|due| due.at <= self.now));
                    for node in &mut self.nodes {
                        if node.poll_timeout().is_some_and(|due| due.at <= self.now) {
                            node.handle_timeout(self.now);
                        }
                    }
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Carries datagrams and answers actions until nobody has anything left.
    fn settle(&mut self) {
        loop {
            let mut sent = Vec::new();
            for (n, node) in self.nodes.iter_mut().enumerate() {
                while node.poll_event().is_some() {}
                while let Some(action) = node.poll_action() {
                    match action {
                        Action::Listen
                        | Action::Dial { .. }
                        | Action::LetGo { .. }
                        | Action::GiveUp { .. }
                        | Action::StopListening
                        | Action::Connect { .. }
                        | Action::Disconnect(_) => {}
                        Action::Reserve { ceiling } => node.handle_done(self.now, Done::Reserved { ceiling }),
                        Action::ListInterfaces => {
                            let net = ipnet::IpNet::new(lan_addr(n).into(), 16).expect("prefix");
                            node.handle_done(self.now, Done::Interfaces(vec![net]));
                        }
                        Action::Resolve { server, .. } => {
                            node.handle_done(self.now, Done::Resolved { server, result: Ok(vec![rendezvous_addr()]) });
                        }
                        Action::SaveCache(_)
                        | Action::SetOverlayV4(_)
                        | Action::MapPort { .. }
                        | Action::UnmapPort(_)
                        | Action::CheckNat { .. }
                        | Action::OpenSockets { .. }
                        | Action::CloseSockets(_)
                        | Action::SayOnLan(_)
                        | Action::LeaveLan => {}
                    }
                }
                while let Some(t) = node.poll_transmit() {
                    sent.push((n, t.to, t.payload));
                }
            }
            if sent.is_empty() {
                return;
            }
            self.sent += sent.iter().filter(|(from, ..)| *from == 0).count() as u64;
            for (from, to, mut payload) in sent {
                self.deliver(from, to, &mut payload);
            }
        }
    }

    /// Hands a datagram of one node to the one that it is for; which part of it that one got, and what it said.
    pub fn deliver(&mut self, from: usize, to: SocketAddr, payload: &mut [u8]) -> Option<(usize, Inbound)> {
        let (now, local) = (self.now, None);
        let from = (lan_addr(from), PORT).into();
        let (from, to, range) = match &mut self.rendezvous {
            None => (from, to, 0..payload.len()),
            Some(core) => {
                // There is no other way: what goes elsewhere is lost.
                let here =
                    (to == rendezvous_addr()).then_some(Datagram { socket: SocketId(0), local, from, payload })?;
                let verdict = core.handle_datagram(now, here);
                while let Some(mut sent) = core.poll_transmit() {
                    let node = &mut self.nodes[self.places[&sent.to.ip()]];
                    let (from, payload) = (rendezvous_addr(), &mut sent.payload[..]);
                    node.handle_datagram(now, Datagram { socket: SocketId(0), local, from, payload });
                }
                let Verdict::Forward { to, range, .. } = verdict else { return None };
                (rendezvous_addr(), to, range)
            }
        };
        let node = &mut self.nodes[*self.places.get(&to.ip())?];
        let (start, payload) = (range.start, &mut payload[range]);
        Some((start, node.handle_datagram(now, Datagram { socket: SocketId(0), local, from, payload })))
    }
}

/// A packet with the room around it that a node wants.
pub fn framed(packet: &[u8]) -> Vec<u8> {
    [&[0; HEADROOM], packet, &[0; TAILROOM]].concat()
}

/// A UDP packet of so many bytes in all.
pub fn udp(source: Ipv4Addr, destination: Ipv4Addr, len: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4(source.octets(), destination.octets(), 64).udp(7777, 7777);
    let mut packet = Vec::new();
    builder.write(&mut packet, &vec![7; len - 28]).expect("a vector takes all");
    packet
}
