//! Two nodes on one LAN that know each other from an earlier run: sessions, guards, bindings, without a
//! rendezvous. Everything with one is in `tests/simulation.rs`.

mod addresses;
mod carriers;
mod fan_out;
mod floods;
mod forgeries;
mod lan;
mod mapping;
mod names;
mod outside;
mod packets;
mod ports;
mod presence;
mod tcp;

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::addr::OverlayNet;
use crate::crypto::{DeviceSecrets, NetworkSecrets, Suites, announcement};
use crate::forward::Unsealed;
use crate::id::{Epoch, NetworkKey, SocketId};
use crate::offload::tests::{assert_valid, between};
use crate::offload::{self, Cut, Layout};
use crate::punch::{ProbeIn, Via};
use crate::router::bindings::{Claim, Stored, Strength};
use crate::sans::{Datagram, MappingProtocol, PortMapping, Seed, Transport};
use crate::session::Channel;
use crate::wire::announcement::{Announcement, Candidate, CandidateKind, V4Claim};
use crate::wire::ip::tests::udp;
use crate::wire::kind;
use crate::wire::probe::ProbeKind;
use crate::wire::rendezvous::{Hello, Message, Reason, Refused};
use crate::wire::session::{Control, Segment, data, feature};

const T0: Instant = Instant::from_nanos(1_000_000_000_000);
const WALL_MS: u64 = 1_800_000_000_000;

fn identity(network_key: u8, device: u8) -> Identity {
    let network = NetworkSecrets::derive(&NetworkKey::new([network_key; 32]), Epoch::default());
    Identity { network, device: DeviceSecrets::from_seed(&[device; 32]), suites: Suites::ALL, features: 0 }
}

/// How a host of the test starts.
struct Setup {
    network_key: u8,
    device: u8,
    name: &'static str,
    address: AddressChoice,
    deny: Vec<PeerId>,
    features: u32,
}

impl Setup {
    fn new(device: u8, name: &'static str) -> Self {
        Self { network_key: 1, device, name, address: AddressChoice::Auto, deny: Vec::new(), features: 0 }
    }

    fn lan_addr(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::new(192, 168, 1, self.device).into(), 4000)
    }

    fn signed(&self) -> Vec<u8> {
        let identity = identity(self.network_key, self.device);
        let text = Announcement {
            version: crate::wire::VERSION,
            epoch: Epoch::default(),
            seq: 1,
            peer: identity.device.id(),
            x25519: identity.device.x25519(),
            features: 0,
            name: self.name.to_owned(),
            v4: V4Claim::None,
            candidates: vec![Candidate { kind: CandidateKind::Host, addr: self.lan_addr() }],
        };
        announcement::sign(&identity.device, &identity.network.id(), &text).bytes().to_vec()
    }

    fn node(&self, met: &[Vec<u8>]) -> Node {
        self.node_at(met, Vec::new())
    }

    fn node_with(&self, rendezvous: &str) -> Node {
        let addr: SocketAddr = rendezvous.parse().expect("address");
        let config = RendezvousConfig::plain(addr.ip().to_string(), addr.port());
        self.node_at(&[], vec![config])
    }

    fn node_at(&self, met: &[Vec<u8>], rendezvous: Vec<RendezvousConfig>) -> Node {
        let known = |bytes: &Vec<u8>| cache::Known {
            seen_ms: WALL_MS,
            newest: 0,
            found_by_search: false,
            announcement: bytes.clone(),
        };
        let cache = cache::Cache { peers: met.iter().map(known).collect(), ..Default::default() };
        let cache = serde_json::to_vec(&cache).expect("plain data");
        self.node_of((T0, WALL_MS), cache, 0, rendezvous)
    }

    /// The next run of a device, with what the run before stored.
    fn restarted(&self, at: Instant, cache: Vec<u8>) -> Node {
        let wall_ms = WALL_MS + u64::try_from((at - T0).as_millis()).expect("a while");
        self.node_of((at, wall_ms), cache, wall_ms + 1_000_000, Vec::new())
    }

    fn node_of(
        &self,
        (now, wall_ms): (Instant, u64),
        cache: Vec<u8>,
        stored_ceiling: u64,
        rendezvous: Vec<RendezvousConfig>,
    ) -> Node {
        let identity = Identity { features: self.features, ..identity(self.network_key, self.device) };
        let identity = Arc::new(identity);
        let v6 = identity.network.overlay_v6();
        let config = NodeConfig {
            identity,
            network_name: "friday".into(),
            name: self.name.into(),
            overlay: OverlayNet { v4: "10.77.0.0/24".parse().expect("prefix"), v6 },
            address: self.address,
            rendezvous,
            deny: self.deny.clone(),
            port_mapping: false,
            lan_discovery: false,
            relay: RelayConfig::default(),
            allow: None,
            lan: LanConfig::default(),
            sockets: vec![LocalSocket { id: SocketId(0), addr: "0.0.0.0:4000".parse().expect("address") }],
            stored_ceiling,
            cache: Some(cache),
            wall_ms,
        };
        Node::new(config, &Seed::from_u64(self.device.into()), now)
    }
}

/// Hosts on one LAN without delay, and what each got on its TUN.
struct Lan {
    now: Instant,
    /// Nothing arrives.
    is_cut: bool,
    /// Everything sent: from, to, bytes.
    wire: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    hosts: Vec<(SocketAddr, Node, Vec<Vec<u8>>)>,
    /// What the router says to whoever asks for a port mapping, and how often ports were given back.
    router: Result<PortMapping, String>,
    unmapped: u32,
}

impl Lan {
    fn new(setups: &[Setup]) -> Self {
        let met: Vec<Vec<u8>> = setups.iter().map(Setup::signed).collect();
        Self {
            now: T0,
            is_cut: false,
            wire: Vec::new(),
            hosts: setups.iter().map(|s| (s.lan_addr(), s.node(&met), Vec::new())).collect(),
            router: Err("the router is silent".into()),
            unmapped: 0,
        }
    }

    fn node(&mut self, i: usize) -> &mut Node {
        &mut self.hosts[i].1
    }

    fn v4(&self, i: usize) -> String {
        self.hosts[i].1.me().v4.expect("an IPv4 address").to_string()
    }

    /// What host `i` would store now.
    fn cache(&mut self, i: usize) -> Vec<u8> {
        let now = self.now;
        self.node(i).cache_changed = true;
        self.node(i).save_cache(now);
        let saved = |action| if let Action::SaveCache(bytes) = action { Some(bytes) } else { None };
        std::iter::from_fn(|| self.node(i).poll_action()).find_map(saved).expect("it is stored")
    }

    /// What host `i` warns of, but for the rendezvous that nobody here has.
    fn warnings(&mut self, i: usize) -> Vec<String> {
        let now = self.now;
        let warnings = self.node(i).status(now).warnings;
        warnings.into_iter().map(|warning| warning.code).filter(|code| code != "no-rendezvous").collect()
    }

    /// Lets `duration` pass.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.settle();
            for (_, node, _) in &self.hosts {
                let all = node.peers.values().filter_map(Peer::poll_timeout).min();
                assert_eq!(node.peers.poll_timeout(), all, "nobody is overlooked");
            }
            let next = self.hosts.iter().filter_map(|h| h.1.poll_timeout()).min().map(|w| w.at);
            match next {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    let now = self.now;
                    self.hosts.iter_mut().for_each(|h| h.1.handle_timeout(now));
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Carries datagrams and answers actions until nobody has anything left.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut sent = Vec::new();
            let now = self.now;
            for (addr, node, _) in &mut self.hosts {
                while let Some(action) = node.poll_action() {
                    match action {
                        Action::Reserve { ceiling } => node.handle_done(now, Done::Reserved { ceiling }),
                        Action::ListInterfaces => {
                            let net = ipnet::IpNet::new(addr.ip(), 24).expect("prefix");
                            node.handle_done(now, Done::Interfaces(vec![net]));
                        }
                        Action::MapPort { transport, attempt, port } => {
                            assert_eq!((transport, port), (Transport::Udp, 4000));
                            let result = self.router.clone();
                            node.handle_done(now, Done::PortMapped { transport, attempt, result });
                        }
                        Action::UnmapPort(_) => self.unmapped += 1,
                        Action::CheckNat { .. } | Action::OpenSockets { .. } | Action::CloseSockets(_) => {}
                        Action::Connect { .. } | Action::Disconnect(_) => {}
                        Action::Listen
                        | Action::Dial { .. }
                        | Action::LetGo { .. }
                        | Action::GiveUp { .. }
                        | Action::StopListening => {}
                        Action::Resolve { .. }
                        | Action::SaveCache(_)
                        | Action::SetOverlayV4(_)
                        | Action::SayOnLan(_)
                        | Action::LeaveLan => {}
                    }
                }
                while let Some(t) = node.poll_transmit() {
                    sent.push((*addr, t.to, t.payload));
                }
            }
            if sent.is_empty() {
                return;
            }
            for (from, to, payload) in sent {
                self.wire.push((from, to, payload.clone()));
                if !self.is_cut {
                    self.deliver(from, to, payload);
                }
            }
        }
        panic!("the LAN never falls silent");
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, mut payload: Vec<u8>) {
        let now = self.now;
        let Some((_, node, tun)) = self.hosts.iter_mut().find(|h| h.0 == to) else { return };
        let datagram = Datagram { socket: SocketId(0), local: None, from, payload: &mut payload };
        if let Some(range) = node.handle_datagram(now, datagram).packet() {
            tun.push(payload[range].to_vec());
        }
    }

    /// A program on host `i` sends an inner packet.
    fn send(&mut self, i: usize, packet: &[u8]) -> Outbound {
        let mut buf = vec![0; HEADROOM + packet.len() + TAILROOM];
        buf[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
        let (now, from) = (self.now, self.hosts[i].0);
        let verdict = self.node(i).handle_packet(now, &mut buf);
        if let Outbound::Send { to, ref range, .. } = verdict {
            self.deliver(from, to, buf[range.clone()].to_vec());
        }
        self.settle();
        verdict
    }

    /// The text of a warning of host `i`.
    fn warning(&mut self, i: usize, code: &str) -> String {
        let now = self.now;
        let mut warnings = self.node(i).status(now).warnings.into_iter();
        warnings.find(|warning| warning.code == code).unwrap_or_else(|| panic!("no {code}")).text
    }

    fn names(&mut self, i: usize) -> Vec<String> {
        let now = self.now;
        self.node(i).status(now).peers.into_iter().map(|peer| peer.name).collect()
    }

    fn rename(&mut self, i: usize, name: &str) {
        self.reconfigure(i, Changeable { name: name.into(), ..changeable() });
    }

    fn reconfigure(&mut self, i: usize, wanted: Changeable) {
        let now = self.now;
        self.node(i).handle_command(now, Command::Reconfigure(wanted));
        self.settle();
    }

    fn peer(&mut self, i: usize, name: &str) -> status::Peer {
        let now = self.now;
        let status = self.node(i).status(now);
        status.peers.iter().find(|p| p.name == name).unwrap_or_else(|| panic!("no {name} in {status:?}")).clone()
    }
}

fn changeable() -> Changeable {
    Changeable {
        network_name: "friday".into(),
        name: "alice".into(),
        rendezvous: Vec::new(),
        deny: Vec::new(),
        port_mapping: false,
        lan_discovery: false,
        relay: RelayConfig::default(),
        allow: None,
        lan: LanConfig::default(),
    }
}

fn pair() -> Lan {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "bob")]);
    lan.run(Duration::from_secs(3));
    lan
}

fn claim(device: u8, seq: u64, name: &str, v4: V4Claim) -> Vec<u8> {
    claim_in(1, device, seq, name, v4)
}

fn claim_in(network_key: u8, device: u8, seq: u64, name: &str, v4: V4Claim) -> Vec<u8> {
    let identity = identity(network_key, device);
    let text = Announcement {
        version: crate::wire::VERSION,
        epoch: Epoch::default(),
        seq,
        peer: identity.device.id(),
        x25519: identity.device.x25519(),
        features: 0,
        name: name.to_owned(),
        v4,
        candidates: Vec::new(),
    };
    announcement::sign(&identity.device, &identity.network.id(), &text).bytes().to_vec()
}

fn three() -> Lan {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "mallory"), Setup::new(3, "carol")]);
    lan.run(Duration::from_secs(5));
    lan
}
