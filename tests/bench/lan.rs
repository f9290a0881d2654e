//! A hub and its friends on one LAN without delay, all of whom know each other from an earlier run: what a packet costs
//! inside a node, without any system call.

#![allow(unreachable_pub, reason = "a module of a bench")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use punchlan::addr::OverlayNet;
use punchlan::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites, announcement};
use punchlan::id::{Epoch, NetworkKey, SocketId};
use punchlan::node::{AddressChoice, HEADROOM, Inbound, LocalSocket, Node, NodeConfig, Outbound, TAILROOM};
use punchlan::sans::{Action, Datagram, Done, Instant, Seed};
use punchlan::wire::VERSION;
use punchlan::wire::announcement::{Announcement, Candidate, CandidateKind, V4Claim};
use punchlan::wire::session::feature;

const START: Instant = Instant::from_nanos(1_000_000_000_000);
const WALL_MS: u64 = 1_800_000_000_000;
const PORT: u16 = 4000;

/// The hub is number 0.
pub struct Lan {
    pub now: Instant,
    pub nodes: Vec<Node>,
    /// Which node has which LAN address.
    places: BTreeMap<IpAddr, usize>,
}

fn lan_addr(n: usize) -> Ipv4Addr {
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

fn node(n: usize, met: &[Vec<u8>]) -> Node {
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
    let config = NodeConfig {
        network_name: "bench".into(),
        name: format!("n{n}"),
        overlay: OverlayNet { v4: "10.77.0.0/16".parse().expect("prefix"), v6: identity.network.overlay_v6() },
        identity,
        address: AddressChoice::Configured(overlay_addr(n)),
        rendezvous: Vec::new(),
        deny: Vec::new(),
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
        let spokes = (1..=friends).map(|n| node(n, std::slice::from_ref(&hub)));
        let nodes: Vec<Node> = std::iter::once(node(0, &all)).chain(spokes).collect();
        let places = (0..nodes.len()).map(|n| (lan_addr(n).into(), n)).collect();
        let mut lan = Self { now: START, nodes, places };
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

    /// Lets `duration` pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.settle();
            match self.nodes.iter().filter_map(Node::poll_timeout).min() {
                Some(wakeup) if wakeup.at <= end => {
                    self.now = self.now.max(wakeup.at);
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
                        Action::Reserve { ceiling } => node.handle_done(self.now, Done::Reserved { ceiling }),
                        Action::ListInterfaces => {
                            let net = ipnet::IpNet::new(lan_addr(n).into(), 16).expect("prefix");
                            node.handle_done(self.now, Done::Interfaces(vec![net]));
                        }
                        Action::Resolve { .. } | Action::SaveCache(_) | Action::SetOverlayV4(_) => {}
                    }
                }
                while let Some(t) = node.poll_transmit() {
                    sent.push((n, t.to, t.payload));
                }
            }
            if sent.is_empty() {
                return;
            }
            for (from, to, mut payload) in sent {
                self.deliver(from, to, &mut payload);
            }
        }
    }

    /// Hands a datagram of one node to the one that it is for.
    pub fn deliver(&mut self, from: usize, to: SocketAddr, payload: &mut [u8]) -> Option<Inbound> {
        let node = &mut self.nodes[*self.places.get(&to.ip())?];
        let from = (lan_addr(from), PORT).into();
        Some(node.handle_datagram(self.now, Datagram { socket: SocketId(0), local: None, from, payload }))
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
