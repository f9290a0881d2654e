//! Two nodes on one LAN that know each other from an earlier run: sessions, guards, bindings, without a
//! rendezvous. Everything with one is in `tests/simulation.rs`.

use std::net::Ipv4Addr;

use super::*;
use crate::addr::OverlayNet;
use crate::crypto::{DeviceSecrets, NetworkSecrets, Suites, announcement};
use crate::id::{Epoch, NetworkKey};
use crate::offload::tests::{assert_valid, between};
use crate::offload::{self, Cut, Layout};
use crate::punch::{ProbeIn, Via};
use crate::router::bindings::{Claim, Stored, Strength};
use crate::sans::{Datagram, MappingProtocol, PortMapping};
use crate::session::Channel;
use crate::wire::announcement::{Announcement, Candidate, CandidateKind, V4Claim};
use crate::wire::ip::tests::udp;
use crate::wire::kind;
use crate::wire::probe::ProbeKind;
use crate::wire::rendezvous::{Hello, Message, Reason, Refused};
use crate::wire::session::{Control, data, feature};

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
        let config = RendezvousConfig { host: addr.ip().to_string(), port: addr.port(), pin: None };
        self.node_at(&[], vec![config])
    }

    fn node_at(&self, met: &[Vec<u8>], rendezvous: Vec<RendezvousConfig>) -> Node {
        let known = |bytes: &Vec<u8>| cache::Known { seen_ms: WALL_MS, newest: 0, announcement: bytes.clone() };
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
                        Action::MapPort { attempt, port } => {
                            assert_eq!(port, 4000);
                            node.handle_done(now, Done::PortMapped { attempt, result: self.router.clone() });
                        }
                        Action::UnmapPort => self.unmapped += 1,
                        Action::Resolve { .. } | Action::SaveCache(_) | Action::SetOverlayV4(_) => {}
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
                self.deliver(from, to, payload);
            }
        }
        panic!("the LAN never falls silent");
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, mut payload: Vec<u8>) {
        let now = self.now;
        let Some((_, node, tun)) = self.hosts.iter_mut().find(|h| h.0 == to) else { return };
        let datagram = Datagram { socket: SocketId(0), local: None, from, payload: &mut payload };
        if let Inbound::Deliver(range) = node.handle_datagram(now, datagram) {
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
    }
}

fn pair() -> Lan {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "bob")]);
    lan.run(Duration::from_secs(3));
    lan
}

#[test]
fn two_that_have_met_find_each_other_without_a_rendezvous() {
    let mut lan = pair();
    let bob = lan.peer(0, "bob");
    assert_eq!(bob.state, status::PeerState::Direct, "{bob:?}");
    assert_eq!(bob.path.expect("a path").kind, status::PathKind::Host);
    let packet = udp(&lan.v4(0), &lan.v4(1));
    lan.send(0, &packet);
    assert_eq!(lan.hosts[1].2, [packet]);
}

#[test]
fn what_opens_our_nat_at_the_start_is_not_lost_for_want_of_a_number() {
    let bob = Setup::new(2, "bob");
    let mut node = Setup::new(1, "alice").node(&[bob.signed()]);
    // The disk answers last.
    node.handle_done(T0, Done::Overlays(Vec::new()));
    node.handle_done(T0, Done::Interfaces(vec!["192.168.1.1/24".parse().expect("prefix")]));
    node.handle_timeout(T0);
    let primes = |node: &mut Node| {
        let sent: Vec<Transmit> = std::iter::from_fn(|| node.poll_transmit()).collect();
        sent.iter().filter(|t| t.to == bob.lan_addr() && t.ttl.is_some()).count()
    };
    assert_eq!(primes(&mut node), 0);
    let ceiling = std::iter::from_fn(|| node.poll_action()).find_map(|action| match action {
        Action::Reserve { ceiling } => Some(ceiling),
        _ => None,
    });
    node.handle_done(T0 + Duration::from_millis(3), Done::Reserved { ceiling: ceiling.expect("asked for") });
    assert_eq!(primes(&mut node), 1);
}

#[test]
fn a_packet_before_the_session_waits_and_arrives() {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "bob")]);
    let (alice, bob) = (lan.hosts[0].1.me().ula.to_string(), lan.hosts[1].1.me().ula.to_string());
    let packet = udp(&alice, &bob);
    assert_eq!(lan.send(0, &packet), Outbound::Taken);
    lan.run(Duration::from_secs(2));
    assert_eq!(lan.hosts[1].2, [packet]);
}

/// A super-packet from the first to the second, and what the second gets: whether as segments, and the packets.
fn sent_as_super(lan: &mut Lan, udp: bool) -> (Vec<u8>, bool, Vec<Vec<u8>>) {
    let (now, from, to) = (lan.now, lan.hosts[0].0, lan.hosts[1].0);
    let (vnet, packet) = between(&lan.v4(0), &lan.v4(1), udp, 100_000 / 2, 1_300, 0, true);
    let cut = Cut::new(&vnet, &packet).expect("a super-packet");
    let (mut next, mut arena, mut trains, mut arrived) = (0, vec![0; 1 << 16], Vec::new(), Vec::new());
    let mut segments = false;
    while next < cut.count() {
        let train = lan.node(0).handle_super(now, &cut, &mut next, &mut arena).expect("a session stands");
        assert_eq!(train.to, to);
        trains.extend(arena[train.range].chunks(train.size).map(<[u8]>::to_vec));
    }
    for mut payload in trains {
        assert!(payload.len() <= 1_400 + 32, "{}", payload.len());
        let datagram = Datagram { socket: SocketId(0), local: None, from, payload: &mut payload };
        match lan.node(1).handle_datagram(now, datagram) {
            Inbound::Deliver(range) => arrived.push(payload[range].to_vec()),
            Inbound::Segment { range, .. } => {
                segments = true;
                let layout = Layout::of(&payload[range.clone()]).expect("a segment");
                offload::finish(&mut payload[range.clone()], &layout);
                arrived.push(payload[range].to_vec());
            }
            other => panic!("{other:?}"),
        }
    }
    (packet, segments, arrived)
}

#[test]
fn super_packets_travel_as_segments_to_those_who_take_them_and_as_packets_to_others() {
    for (features, udp) in [(feature::SEGMENTS, false), (feature::SEGMENTS, true), (0, false), (0, true)] {
        let bob = Setup { features, ..Setup::new(2, "bob") };
        let mut lan = Lan::new(&[Setup { features: feature::SEGMENTS, ..Setup::new(1, "alice") }, bob]);
        lan.run(Duration::from_secs(3));
        let (packet, segments, arrived) = sent_as_super(&mut lan, udp);
        assert_eq!(segments, features != 0);
        arrived.iter().for_each(|packet| assert_valid(packet));
        let header = Layout::of(&packet).expect("a packet").header_len;
        let payload: Vec<u8> = arrived.iter().flat_map(|packet| &packet[header..]).copied().collect();
        assert_eq!(payload, packet[header..]);
        let bytes = arrived.iter().map(|packet| packet.len() as u64).sum::<u64>();
        let [alice, bob] = [(0, "bob"), (1, "alice")].map(|(i, name)| lan.peer(i, name));
        assert_eq!((alice.tx_bytes, bob.rx_bytes), (bytes, bytes));
    }
}

#[test]
fn segments_that_fit_into_no_datagram_are_dropped_one_by_one() {
    let mut lan = pair();
    let (vnet, packet) = between(&lan.v4(0), &lan.v4(1), false, 60_000, 20_000, 0, true);
    let cut = Cut::new(&vnet, &packet).expect("a super-packet");
    let (now, mut next, mut arena) = (lan.now, 0, vec![0; 1 << 16]);
    while next < cut.count() {
        assert_eq!(lan.node(0).handle_super(now, &cut, &mut next, &mut arena), None);
    }
    assert_eq!(lan.node(0).dropped("too-big"), 3);
}

#[test]
fn segments_to_nobody_are_dropped_one_by_one() {
    // An address that nobody has; and one whose holder is not there.
    for routed in [false, true] {
        let mut lan = pair();
        let (bob, to) = (lan.hosts[1].1.my_id(), lan.v4(1));
        lan.node(0).peers.remove(&bob).expect("bob");
        if !routed {
            lan.node(0).router.remove(&bob);
        }
        let (vnet, packet) = between(&lan.v4(0), &to, false, 3_000, 1_000, 0, true);
        let cut = Cut::new(&vnet, &packet).expect("a super-packet");
        let (now, mut next, mut arena) = (lan.now, 0, vec![0; 1 << 16]);
        for n in 1..=3 {
            assert_eq!(lan.node(0).handle_super(now, &cut, &mut next, &mut arena), None);
            assert_eq!((next, lan.node(0).dropped("no-such-address")), (n, n as u64));
        }
    }
}

#[test]
fn a_segment_whose_descriptor_lies_is_dropped_and_counted() {
    let mut lan = pair();
    let (now, from, alice) = (lan.now, lan.hosts[0].0, lan.hosts[0].1.my_id());
    let (_, packet) = between(&lan.v4(0), &lan.v4(1), false, 1_000, 1_300, 0, true);
    let truth = offload::describe(&packet).expect("a segment");
    let lies =
        [Segment { csum_start: 0, ..truth }, Segment { header_len: 9, ..truth }, Segment { gso_type: 5, ..truth }];
    for (n, segment) in [truth].into_iter().chain(lies).enumerate() {
        let inner = [&[data::SEGMENT][..], &segment.encode(), &packet].concat();
        let mut sealed = [&[0; 8], &inner[..], &[0; 16]].concat();
        let bob = lan.hosts[1].1.my_id();
        let session = &mut lan.node(0).peers.get_mut(&bob).expect("bob").session;
        session.seal(now, Channel::Data, &mut sealed).expect("sealed");
        let datagram = Datagram { socket: SocketId(0), local: None, from, payload: &mut sealed };
        let verdict = lan.node(1).handle_datagram(now, datagram);
        assert_eq!(matches!(verdict, Inbound::Segment { .. }), n == 0, "{segment:?}");
        assert_eq!(lan.node(1).dropped("segment"), n as u64);
    }
    assert!(lan.node(1).peers[&alice].session.is_established(now));
}

#[test]
fn among_many_peers_each_is_woken_in_time() {
    let names = ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "n10", "n11", "n12"];
    let setups: Vec<Setup> = (1..).zip(names).map(|(device, name)| Setup::new(device, name)).collect();
    let mut lan = Lan::new(&setups);
    lan.run(Duration::from_secs(200));
    for (i, j) in [(0, 1), (0, 11), (5, 6), (11, 3)] {
        let packet = udp(&lan.v4(i), &lan.v4(j));
        assert!(matches!(lan.send(i, &packet), Outbound::Send { .. }));
    }
    lan.hosts.truncate(10);
    lan.run(Duration::from_secs(200));
    let direct = |name: &&&str| lan.peer(0, name).state == status::PeerState::Direct;
    assert_eq!(names[1..10].iter().filter(direct).count(), 9);
}

#[test]
fn packets_that_wait_too_long_or_are_too_many_are_counted() {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "bob")]);
    let packet = udp(&lan.hosts[0].1.me().ula.to_string(), &lan.hosts[1].1.me().ula.to_string());
    lan.hosts.truncate(1);
    for _ in 0..70 {
        assert_eq!(lan.send(0, &packet), Outbound::Taken);
    }
    assert_eq!(lan.node(0).dropped("no-session"), 6);
    lan.run(Duration::from_secs(3));
    assert_eq!(lan.node(0).dropped("no-session"), 70);
}

#[test]
fn inner_packets_from_foreign_sources_are_dropped_on_both_sides() {
    let mut lan = pair();
    let foreign = udp("192.0.2.1", &lan.v4(1));
    assert_eq!(lan.send(0, &foreign), Outbound::Dropped);
    assert_eq!(lan.node(0).dropped("source-not-ours"), 1);
    // A member that does not hold back: its own router is told a lie.
    lan.node(0).router.set_my_v4(Some(Ipv4Addr::new(10, 77, 0, 200)));
    let forged = udp("10.77.0.200", &lan.v4(1));
    lan.send(0, &forged);
    assert_eq!(lan.node(1).dropped("source-not-owned"), 1);
    assert!(lan.hosts[1].2.is_empty());
}

#[test]
fn another_network_key_is_never_answered() {
    let mut lan = pair();
    let mut stranger = Setup::new(3, "mallory");
    stranger.network_key = 9;
    let met = [Setup::new(1, "alice").signed()];
    lan.hosts.push((stranger.lan_addr(), stranger.node(&met), Vec::new()));
    lan.run(Duration::from_secs(5));
    let now = lan.now;
    assert_eq!(lan.node(0).status(now).peers.len(), 1);
    assert!(lan.node(2).status(now).peers.is_empty());
}

#[test]
fn a_denied_device_gets_no_session() {
    let mut alice = Setup::new(1, "alice");
    alice.deny = vec![identity(1, 2).device.id()];
    let mut lan = Lan::new(&[alice, Setup::new(2, "bob")]);
    lan.run(Duration::from_secs(5));
    let now = lan.now;
    assert!(lan.node(0).status(now).peers.is_empty());
    assert_ne!(lan.peer(1, "alice").state, status::PeerState::Direct);
}

#[test]
fn of_two_with_one_configured_address_exactly_one_keeps_it() {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let [mut a, mut b] = [Setup::new(1, "alice"), Setup::new(2, "bob")];
    a.address = AddressChoice::Configured(wanted);
    b.address = AddressChoice::Configured(wanted);
    let mut lan = Lan::new(&[a, b]);
    lan.run(Duration::from_secs(8));
    let holders: Vec<_> = (0..2).filter(|i| lan.hosts[*i].1.me().v4 == Some(wanted)).collect();
    assert_eq!(holders.len(), 1);
    let (now, loser) = (lan.now, 1 - holders[0]);
    let warnings = lan.node(loser).status(now).warnings;
    assert!(warnings.iter().any(|w| w.code == "address-taken"), "{warnings:?}");
    // The loser is still reached by IPv6, both ways.
    let packet = udp(&lan.hosts[loser].1.me().ula.to_string(), &lan.hosts[holders[0]].1.me().ula.to_string());
    lan.send(loser, &packet);
    assert_eq!(lan.hosts[holders[0]].2, [packet]);
}

#[test]
fn an_auto_claimant_moves_away_from_a_configured_one() {
    let auto = identity(1, 1).network.auto_v4("10.77.0.0/24".parse().expect("prefix"), &identity(1, 1).device.id(), 0);
    let mut b = Setup::new(2, "bob");
    b.address = AddressChoice::Configured(auto);
    let mut lan = Lan::new(&[Setup::new(1, "alice"), b]);
    lan.run(Duration::from_secs(8));
    assert_eq!(lan.hosts[1].1.me().v4, Some(auto));
    assert_ne!(lan.hosts[0].1.me().v4, Some(auto));
    let packet = udp(&lan.v4(0), &lan.v4(1));
    lan.send(0, &packet);
    assert_eq!(lan.hosts[1].2, [packet]);
}

#[test]
fn a_second_bob_is_bob_2() {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "bob"), Setup::new(3, "bob")]);
    lan.run(Duration::from_secs(5));
    let now = lan.now;
    let names: Vec<String> = lan.node(0).status(now).peers.into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["bob", "bob-2"]);
}

#[test]
fn a_member_of_another_subnet_is_warned_of_until_it_is_gone() {
    let mut b = Setup::new(2, "bob");
    b.address = AddressChoice::Configured(Ipv4Addr::new(10, 65, 148, 212));
    let mut lan = Lan::new(&[Setup::new(1, "alice"), b]);
    lan.run(Duration::from_secs(5));
    assert_eq!(lan.warnings(0), ["other-subnet"]);
    let said = lan.warning(0, "other-subnet");
    let text = "bob's address 10.65.148.212 is outside of our subnet 10.77.0.0/24";
    assert!(said.starts_with(text) && said.contains("`subnet` under [network]"), "{said}");
    let now = lan.now;
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    assert_eq!(lan.warnings(0), [""; 0]);
}

#[test]
fn a_namesake_is_numbered_and_explained_until_one_of_the_two_is_called_otherwise() {
    let mut lan = Lan::new(&[Setup::new(1, "vm"), Setup::new(2, "vm")]);
    lan.run(Duration::from_secs(15));
    for i in 0..2 {
        assert_eq!(lan.names(i), ["vm-2"]);
        assert_eq!(lan.warnings(i), ["name-taken"]);
        let said = lan.warning(i, "name-taken");
        assert!(said.contains("called vm too and is shown here as vm-2") && said.contains("`name`"), "{said}");
    }
    lan.rename(0, "bob");
    lan.run(Duration::from_secs(2));
    assert_eq!((lan.names(0), lan.names(1)), (vec!["vm".to_owned()], vec!["bob".to_owned()]));
    assert_eq!((lan.warnings(0), lan.warnings(1)), (Vec::new(), Vec::new()));
    lan.rename(1, "bob");
    lan.run(Duration::from_secs(2));
    for i in 0..2 {
        assert_eq!((lan.names(i), lan.warnings(i).len()), (vec!["bob-2".to_owned()], 1));
    }
}

#[test]
fn a_name_that_was_ours_in_an_earlier_run_is_free() {
    let mut lan = Lan::new(&[Setup::new(1, "vm"), Setup::new(2, "vm")]);
    lan.run(Duration::from_secs(15));
    let now = lan.now;
    lan.node(0).save_cache(now);
    let saved = std::iter::from_fn(|| lan.node(0).poll_action()).find_map(|action| match action {
        Action::SaveCache(bytes) => Some(bytes),
        _ => None,
    });
    let saved = saved.expect("it is saved");
    for (name, theirs) in [("bob", "vm"), ("vm", "vm-2")] {
        let again = Setup::new(1, name).restarted(now, saved.clone());
        assert_eq!(again.status(now).peers[0].name, theirs);
    }
}

#[test]
fn no_two_are_shown_under_one_name_be_they_here_or_gone() {
    // The new one has the lower id: in the first seconds it takes the name.
    let id = |device| identity(1, device).device.id();
    let old = (3..=250).find(|device| id(*device) > id(2)).expect("a higher id");
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(old, "bob"), Setup::new(2, "bob")]);
    let new = lan.hosts.pop().expect("the new one");
    lan.run(Duration::from_secs(2));
    let now = lan.now;
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    lan.hosts.push(new);
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.names(0), ["bob", "bob-2"]);
    let (now, gone) = (lan.now, lan.hosts[1].1.my_id());
    let shown = lan.node(0).peers[&gone].name.clone();
    assert_eq!(lan.node(0).find_peer(now, &shown), Some(gone));
    lan.node(0).handle_command(now, Command::Forget(gone));
    lan.settle();
    assert_eq!(lan.names(0), ["bob"]);
}

#[test]
fn a_ping_is_answered_with_its_path() {
    let mut lan = pair();
    let (now, bob) = (lan.now, lan.hosts[1].1.my_id());
    lan.node(0).handle_command(now, Command::Ping { peer: bob, id: 7 });
    lan.settle();
    match lan.node(0).poll_event() {
        Some(Event::Pong { id: 7, path, .. }) => assert_eq!(path.kind, status::PathKind::Host),
        other => panic!("no pong: {other:?}"),
    }
}

#[test]
fn a_goodbye_is_seen_at_once() {
    let mut lan = pair();
    let now = lan.now;
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Offline);
}

#[test]
fn replayed_and_random_datagrams_are_counted_and_change_nothing() {
    let mut lan = pair();
    let packet = udp(&lan.v4(0), &lan.v4(1));
    let mut buf = vec![0; HEADROOM + packet.len() + TAILROOM];
    buf[HEADROOM..HEADROOM + packet.len()].copy_from_slice(&packet);
    let now = lan.now;
    let Outbound::Send { to, range, .. } = lan.node(0).handle_packet(now, &mut buf) else { panic!("not sent") };
    let datagram = buf[range].to_vec();
    lan.deliver(lan.hosts[0].0, to, datagram.clone());
    // The same bytes again, from somebody else.
    lan.deliver("198.51.100.66:666".parse().expect("address"), to, datagram.clone());
    assert_eq!(lan.node(1).dropped("replayed"), 1);
    let mut rng = Seed::from_u64(1).rng();
    for i in 0..2_000_u32 {
        let mut bytes = datagram.clone();
        let at = rng.u32() as usize % bytes.len();
        bytes[at] ^= 1 << (i % 8);
        bytes.truncate(1 + rng.u32() as usize % bytes.len());
        bytes[0] = if i % 2 == 0 { bytes[0] } else { 0xE0 + (i % 16) as u8 };
        lan.deliver("198.51.100.66:666".parse().expect("address"), to, bytes);
    }
    assert_eq!(lan.hosts[1].2.len(), 1);
    lan.send(0, &packet);
    assert_eq!(lan.hosts[1].2.len(), 2);
    assert_eq!(lan.peer(1, "alice").state, status::PeerState::Direct);
}

#[test]
fn a_restarted_peer_is_back_within_seconds() {
    let mut lan = pair();
    let bob = Setup::new(2, "bob");
    let met = [Setup::new(1, "alice").signed()];
    let mut node = bob.node(&met);
    node.set_wall_clock(T0, WALL_MS + 10_000);
    node.shared.numbers = Numbers::new(WALL_MS + 20_000, WALL_MS + 20_000);
    lan.hosts[1].1 = node;
    lan.run(Duration::from_secs(2));
    let packet = udp(&lan.hosts[0].1.me().ula.to_string(), &lan.hosts[1].1.me().ula.to_string());
    lan.send(0, &packet);
    assert_eq!(lan.hosts[1].2, [packet]);
}

#[test]
fn forgetting_frees_name_and_address_of_a_peer_that_is_gone() {
    let mut lan = pair();
    let now = lan.now;
    let (id, v4) = (lan.hosts[1].1.my_id(), lan.hosts[1].1.me().v4.expect("an address"));
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    assert_eq!(lan.node(0).find_peer(now, "bob"), Some(id));
    lan.node(0).handle_command(now, Command::Forget(id));
    assert_eq!(lan.node(0).find_peer(now, "bob"), None);
    assert_eq!(lan.node(0).find_peer(now, &v4.to_string()), None);
}

#[test]
fn a_member_cannot_speak_for_another() {
    let mut lan = pair();
    // Alice tells Bob that she is somebody else: the signature does not hold.
    let mut forged = Setup::new(3, "carol").signed();
    forged[60] ^= 1;
    let (now, bob) = (lan.now, lan.hosts[1].1.my_id());
    lan.node(0).send_control(now, &bob, &Control::Announcement(&forged));
    lan.settle();
    assert_eq!(lan.node(1).dropped("announcement"), 1);
    assert_eq!(lan.node(1).status(now).peers.len(), 1);
}

fn claim(device: u8, seq: u64, name: &str, v4: V4Claim) -> Vec<u8> {
    let identity = identity(1, device);
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

#[test]
fn an_idle_direct_pair_without_a_rendezvous_stays_direct() {
    let mut lan = pair();
    lan.run(Duration::from_secs(120));
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Direct);
}

/// The cable is out: both go on, and nothing that they send arrives.
fn outage(lan: &mut Lan, duration: Duration) {
    let end = lan.now + duration;
    while lan.now < end {
        lan.now += Duration::from_millis(50);
        let now = lan.now;
        for (addr, node, _) in &mut lan.hosts {
            node.handle_timeout(now);
            while let Some(action) = node.poll_action() {
                match action {
                    Action::Reserve { ceiling } => node.handle_done(now, Done::Reserved { ceiling }),
                    Action::ListInterfaces => {
                        let net = ipnet::IpNet::new(addr.ip(), 24).expect("prefix");
                        node.handle_done(now, Done::Interfaces(vec![net]));
                    }
                    _ => {}
                }
            }
            while node.poll_transmit().is_some() {}
        }
    }
}

#[test]
fn after_an_outage_a_packet_brings_the_peer_back() {
    let mut lan = pair();
    outage(&mut lan, Duration::from_secs(40));
    let packet = udp(&lan.v4(0), &lan.v4(1));
    for _ in 0..60 {
        lan.send(0, &packet);
        lan.run(Duration::from_secs(2));
    }
    assert!(!lan.hosts[1].2.is_empty(), "2 minutes after the cable was put back nothing arrives");
}

#[test]
fn after_a_short_outage_without_traffic_a_pair_is_direct_again() {
    let mut lan = pair();
    outage(&mut lan, Duration::from_secs(12));
    let packet = udp(&lan.v4(0), &lan.v4(1));
    for _ in 0..60 {
        lan.send(0, &packet);
        lan.run(Duration::from_secs(2));
    }
    assert!(!lan.hosts[1].2.is_empty());
}

#[test]
fn an_idle_direct_pair_that_a_server_lists_is_not_shown_as_connecting() {
    let mut lan = pair();
    let ids = [lan.hosts[0].1.my_id(), lan.hosts[1].1.my_id()];
    for i in 0..2 {
        let peer = lan.node(i).peers.get_mut(&ids[1 - i]).expect("met");
        peer.listed.insert(crate::id::ServerId(0), None);
    }
    lan.run(Duration::from_secs(40));
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Direct);
}

#[test]
fn direct_after_is_measured_from_when_the_peer_appeared() {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "bob")]);
    let bob = lan.hosts.pop().expect("bob");
    lan.run(Duration::from_secs(15));
    lan.hosts.push(bob);
    lan.run(Duration::from_secs(60));
    let after = lan.peer(0, "bob").direct_after_ms.expect("direct");
    assert!(after < 5_000, "{after} ms: counted from our own start, because bob was in the cache");
}

#[test]
fn a_settled_configured_address_is_not_lost_to_one_members_word() {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let mut a = Setup::new(1, "alice");
    a.address = AddressChoice::Configured(wanted);
    let mut lan = Lan::new(&[a, Setup::new(2, "mallory")]);
    lan.run(Duration::from_secs(15));
    let invented = claim(99, 7, "nobody", V4Claim::Auto(wanted));
    let (now, alice) = (lan.now, lan.hosts[0].1.my_id());
    let message = Control::AddressTaken { what: crate::wire::session::Taken::V4, holder: &invented };
    lan.node(1).send_control(now, &alice, &message);
    lan.settle();
    assert_eq!(lan.hosts[0].1.me().v4, Some(wanted));
}

/// alice, whose configured address all know, restarts; and what mallory, who claims it in vain, says of it at once.
fn restarted_among_members_who_know_her() -> (Lan, Ipv4Addr) {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let alice = || Setup { address: AddressChoice::Configured(wanted), ..Setup::new(1, "alice") };
    let mut lan = Lan::new(&[alice(), Setup::new(2, "bob"), Setup::new(3, "mallory")]);
    lan.run(Duration::from_secs(600));
    let (cache, now) = (lan.cache(0), lan.now);
    lan.node(0).handle_command(now, Command::Leave);
    lan.settle();
    lan.run(Duration::from_secs(5));
    lan.hosts[0].1 = alice().restarted(lan.now, cache);
    lan.run(Duration::from_secs(3));
    (lan, wanted)
}

#[test]
fn an_address_of_an_earlier_run_is_not_lost_to_one_members_word_right_after_the_start() {
    let (mut lan, wanted) = restarted_among_members_who_know_her();
    let (now, alice, bob) = (lan.now, lan.hosts[0].1.my_id(), lan.hosts[1].1.my_id());
    let claim = claim(3, u64::MAX / 2, "mallory", V4Claim::Configured(wanted));
    for whom in [bob, alice] {
        lan.node(2).send_control(now, &whom, &Control::Announcement(&claim));
    }
    let taken = Control::AddressTaken { what: crate::wire::session::Taken::V4, holder: &claim };
    lan.node(2).send_control(now, &alice, &taken);
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.hosts[0].1.me().v4, Some(wanted));
    assert_eq!(lan.hosts[1].1.router.owner(wanted.into()), Some(alice));
    assert_eq!(lan.warnings(0), ["address-taken"]);
}

/// Two that each had the address when the other was not there, and meet.
fn two_that_kept_one_address(devices: [u8; 2], choice: AddressChoice, addr: Ipv4Addr) -> Lan {
    let setup = |device, name| Setup { address: choice, ..Setup::new(device, name) };
    let setups = [setup(devices[0], "alice"), setup(devices[1], "bob")];
    let mut lan = Lan::new(&setups);
    let mine = |id: PeerId| Stored { key: addr, claim: Claim { strength: Strength::Auto, peer: id }, seen_ms: WALL_MS };
    for (i, setup) in setups.iter().enumerate() {
        let other = setups[1 - i].signed();
        let known = cache::Known { seen_ms: WALL_MS, newest: 0, announcement: other };
        let id = lan.node(i).my_id();
        let cache = cache::Cache { addresses: vec![mine(id)], names: Vec::new(), peers: vec![known] };
        let cache = serde_json::to_vec(&cache).expect("plain data");
        lan.hosts[i].1 = setup.node_of((T0, WALL_MS), cache, 0, Vec::new());
    }
    lan.run(Duration::from_secs(3));
    lan
}

#[test]
fn two_that_keep_one_address_say_so_once_and_are_silent() {
    let addr = Ipv4Addr::new(10, 77, 0, 5);
    let mut lan = two_that_kept_one_address([1, 2], AddressChoice::Configured(addr), addr);
    for i in 0..2 {
        assert_eq!(lan.hosts[i].1.me().v4, Some(addr));
        let now = lan.now;
        let warnings = lan.node(i).status(now).warnings;
        let said: Vec<&status::Warning> = warnings.iter().filter(|w| w.code == "address-taken").collect();
        assert!(said.len() == 1 && said[0].text.contains("is also claimed by"), "{said:?}");
        assert!(!said[0].text.contains("punchlan forget"), "of oneself? {said:?}");
    }
    let before = lan.wire.len();
    lan.run(Duration::from_secs(60));
    assert!(lan.wire.len() - before < 100, "{} datagrams in a minute", lan.wire.len() - before);
}

#[test]
fn two_with_one_derived_address_of_earlier_runs_separate() {
    let subnet = "10.77.0.0/24".parse().expect("prefix");
    // Two devices whose first choice is one and the same.
    let first = |device: u8| identity(1, device).network.auto_v4(subnet, &identity(1, device).device.id(), 0);
    let pairs = (1..=250_u8).flat_map(|a| (1..a).map(move |b| (a, b)));
    let (a, b) = pairs.into_iter().find(|(a, b)| first(*a) == first(*b)).expect("250 devices, 254 addresses");
    let lan = two_that_kept_one_address([a, b], AddressChoice::Auto, first(a));
    assert_ne!(lan.hosts[0].1.me().v4, lan.hosts[1].1.me().v4);
}

#[test]
fn devices_that_nobody_ever_met_cause_no_warning_of_a_taken_address() {
    let (mut lan, wanted) = restarted_among_members_who_know_her();
    let alice = lan.hosts[0].1.my_id();
    for device in 100..120 {
        let claim = claim(device, 7, "nobody", V4Claim::Auto(wanted));
        let now = lan.now;
        let taken = Control::AddressTaken { what: crate::wire::session::Taken::V4, holder: &claim };
        lan.node(2).send_control(now, &alice, &taken);
        lan.run(Duration::from_millis(100));
    }
    assert_eq!(lan.hosts[0].1.me().v4, Some(wanted));
    assert_eq!(lan.warnings(0), [""; 0]);
}

#[test]
fn a_configured_address_is_taken_back_when_its_holder_takes_another() {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let setup = |device, name| Setup { address: AddressChoice::Configured(wanted), ..Setup::new(device, name) };
    let mut lan = Lan::new(&[setup(1, "alice"), setup(2, "bob")]);
    lan.run(Duration::from_secs(20));
    let loser = lan.hosts.iter().position(|host| host.1.me().v4.is_none()).expect("one has lost it");
    let (cache, now) = (lan.cache(1 - loser), lan.now);
    lan.node(1 - loser).handle_command(now, Command::Leave);
    lan.settle();
    // Its user does what the warning says.
    let device = u8::try_from(2 - loser).expect("small");
    let elsewhere = AddressChoice::Configured(Ipv4Addr::new(10, 77, 0, 9));
    let holder = Setup { address: elsewhere, ..Setup::new(device, "holder") };
    lan.hosts[1 - loser].1 = holder.restarted(now, cache);
    lan.run(Duration::from_secs(10));
    assert_eq!(lan.hosts[loser].1.me().v4, Some(wanted));
    assert_eq!(lan.warnings(loser), [""; 0]);
}

#[test]
fn a_configured_address_is_taken_back_when_its_holder_is_forgotten() {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let setup = |device, name| Setup { address: AddressChoice::Configured(wanted), ..Setup::new(device, name) };
    let mut lan = Lan::new(&[setup(1, "alice"), setup(2, "bob")]);
    lan.run(Duration::from_secs(20));
    let loser = lan.hosts.iter().position(|host| host.1.me().v4.is_none()).expect("one has lost it");
    let (now, holder) = (lan.now, lan.hosts[1 - loser].1.my_id());
    lan.node(1 - loser).handle_command(now, Command::Leave);
    lan.settle();
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.hosts[loser].1.me().v4, None, "its holder may come back");
    let now = lan.now;
    lan.node(loser).handle_command(now, Command::Forget(holder));
    assert_eq!(lan.hosts[loser].1.me().v4, Some(wanted));
    assert_eq!(lan.warnings(loser), [""; 0]);
}

#[test]
fn a_warning_of_a_taken_address_is_as_old_as_its_cause() {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let alice = Setup { address: AddressChoice::Configured(wanted), ..Setup::new(1, "alice") };
    let mut lan = Lan::new(&[alice, Setup::new(2, "bob")]);
    lan.run(Duration::from_secs(20));
    let (bob, alice) = (lan.hosts[1].1.my_id(), lan.hosts[0].1.my_id());
    let since = |lan: &mut Lan, n: u64| {
        let claim = claim(2, n, "bob", V4Claim::Configured(wanted));
        let now = lan.now;
        lan.node(1).send_control(now, &alice, &Control::Announcement(&claim));
        lan.run(Duration::from_secs(30));
        let now = lan.now;
        let warnings = lan.node(0).status(now).warnings;
        warnings.iter().find(|w| w.text.contains("also claimed by bob")).map(|w| w.since.clone()).expect("it stands")
    };
    let first = since(&mut lan, u64::MAX / 2);
    // Every rekey and every announcement binds again.
    assert_eq!(since(&mut lan, u64::MAX / 2 + 1), first);
    assert!(lan.node(0).is_here(&bob));
}

#[test]
fn probes_that_an_earlier_run_took_bring_nobody_back() {
    let mut lan = pair();
    lan.run(Duration::from_secs(60));
    let (alice_at, bob_at) = (lan.hosts[0].0, lan.hosts[1].0);
    let is_probe = |(from, to, bytes): &&(SocketAddr, SocketAddr, Vec<u8>)| {
        *from == alice_at && *to == bob_at && bytes[0] == kind::PROBE
    };
    let probes: Vec<Vec<u8>> = lan.wire.iter().filter(is_probe).map(|sent| sent.2.clone()).collect();
    assert!(!probes.is_empty());
    let cache = lan.cache(1);
    lan.hosts[1].1 = Setup::new(2, "bob").restarted(lan.now, cache);
    lan.hosts.remove(0);
    lan.run(Duration::from_secs(70));
    assert_eq!(lan.peer(0, "alice").state, status::PeerState::Offline);
    let (before, mallory) = (lan.wire.len(), "198.51.100.66:666".parse().expect("address"));
    probes.iter().for_each(|probe| lan.deliver(mallory, bob_at, probe.clone()));
    lan.run(Duration::from_secs(3));
    assert_eq!(lan.peer(0, "alice").state, status::PeerState::Offline);
    assert_eq!(lan.wire[before..].iter().filter(|sent| sent.1 == mallory).count(), 0);
    assert_eq!(lan.node(0).dropped("replayed"), probes.len() as u64);
}

#[test]
fn one_rendezvous_under_two_names_is_used_once_whichever_is_resolved_first() {
    for first in [0_u16, 1] {
        let config = |host: &str| RendezvousConfig { host: host.into(), port: 3478, pin: None };
        let mut node = Setup::new(1, "alice").node_at(&[], vec![config("play.example.org"), config("198.51.100.1")]);
        let addr: SocketAddr = "198.51.100.1:3478".parse().expect("address");
        for server in [first, 1 - first] {
            node.handle_done(T0, Done::Resolved { server: crate::id::ServerId(server), result: Ok(vec![addr]) });
        }
        while let Some(action) = node.poll_action() {
            if let Action::Reserve { ceiling } = action {
                node.handle_done(T0, Done::Reserved { ceiling });
            }
        }
        node.handle_timeout(T0 + Duration::from_millis(30));
        let hellos = std::iter::from_fn(|| node.poll_transmit()).filter(|sent| sent.to == addr).count();
        assert_eq!(hellos, 1, "{first} was first");
        let warnings = node.status(T0).warnings;
        assert!(warnings.iter().any(|w| w.text.contains("names this rendezvous twice")), "{warnings:?}");
    }
}

#[test]
fn a_warning_of_another_version_goes_when_it_is_no_longer_so() {
    let mut lan = pair();
    let (now, bob) = (lan.now, lan.hosts[1].1.my_id());
    lan.node(0).warn_of_version(now, Some(&bob), 2);
    lan.node(0).warn_of_version(now, None, 2);
    assert_eq!(lan.warnings(0), ["version", "version"]);
    // The next keys are agreed on in this version; whoever it was has not been heard since.
    lan.run(Duration::from_secs(400));
    assert_eq!(lan.warnings(0), [""; 0]);
}

#[test]
fn who_is_here_by_hearsay_alone_can_be_forgotten() {
    let mut lan = three();
    let (now, mallory, carol) = (lan.now, lan.node(1).my_id(), lan.node(2).my_id());
    lan.node(2).handle_command(now, Command::Leave);
    lan.settle();
    lan.hosts.truncate(2);
    lan.run(Duration::from_secs(60));
    let (now, alice) = (lan.now, lan.node(0).my_id());
    let old = lan.node(1).peers[&carol].signed.bytes().to_vec();
    lan.node(1).send_control(now, &alice, &Control::Stranger(&old));
    lan.settle();
    assert_eq!(lan.peer(0, "carol").state, status::PeerState::Connecting);
    lan.node(0).handle_command(now, Command::Forget(carol));
    let wall = lan.node(0).wall_ms(now);
    assert!(!lan.node(0).naming_holds(wall, "carol"));
    assert_ne!(mallory, carol);
}

#[test]
fn invented_devices_of_a_member_keep_no_friend_from_a_handshake_through_a_relay() {
    let mut lan = three();
    let carol = lan.node(2).my_id();
    let now = lan.now;
    for n in 0..60 {
        let signed = invented(n, Vec::new());
        let id = signed.peer;
        lan.node(0).learn(now, signed);
        // Whatever a member sends that has the right mac1.
        let mut initiation = Handshake::new(&mut lan, 1, 0).initiation(&mut lan, 1);
        lan.node(0).handle_relayed(now, id, &mut initiation);
    }
    assert!(lan.node(0).dropped("under-load") > 0, "the newcomers' share is used up");
    let mut honest = Handshake::new(&mut lan, 2, 0).initiation(&mut lan, 2);
    assert_eq!(lan.node(0).handle_relayed(now, carol, &mut honest), Inbound::Taken);
}

#[test]
fn a_clock_that_is_set_after_the_start_makes_nobody_old() {
    let mut lan = pair();
    let mut later = lan.now;
    // A machine without a clock of its own: it began in 1970, and learns the time from the network.
    let cache = lan.cache(0);
    lan.hosts[0].1 = Setup::new(1, "alice").node_of((later, 60_000), cache, WALL_MS + 1_000_000, Vec::new());
    lan.run(Duration::from_secs(30));
    later = lan.now;
    lan.node(0).set_wall_clock(later, WALL_MS + 60_000);
    let cache: cache::Cache = serde_json::from_slice(&lan.cache(0)).expect("a cache");
    assert!(cache.peers.iter().all(|peer| peer.seen_ms >= WALL_MS), "{:?}", cache.peers);
    assert!(cache.names.iter().all(|name| name.seen_ms >= WALL_MS), "{:?}", cache.names);
}

/// The `n`-th device that a member has invented, with these candidates.
fn invented(n: u32, candidates: Vec<Candidate>) -> Signed {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    seed[31] = 0xAA;
    let device = DeviceSecrets::from_seed(&seed);
    let text = Announcement {
        version: crate::wire::VERSION,
        epoch: Epoch::default(),
        seq: 1,
        peer: device.id(),
        x25519: device.x25519(),
        features: 0,
        name: format!("x{n}"),
        v4: V4Claim::None,
        candidates,
    };
    announcement::sign(&device, &identity(1, 1).network.id(), &text)
}

#[test]
fn devices_that_a_member_invents_and_brings_up_one_after_the_other_crowd_nobody_out() {
    let mut lan = pair();
    let now = lan.now;
    for n in 0..1_100 {
        let device = invented(n, Vec::new());
        let id = device.peer;
        lan.node(0).learn(now, device);
        // As after a session and a goodbye.
        lan.node(0).grant_seniority(&id);
        let peer = lan.node(0).peers.get_mut(&id).expect("there is always room");
        (peer.met, peer.received, peer.offline) = (true, Some(now), Some(now));
    }
    let carol = announcement::verify(&claim(3, 7, "carol", V4Claim::None), &identity(1, 1).network.id());
    lan.node(0).learn(now, carol.expect("signed"));
    let names: Vec<String> = lan.node(0).status(now).peers.into_iter().map(|p| p.name).collect();
    assert!(names.iter().any(|name| name == "bob") && names.iter().any(|name| name == "carol"));
    assert_eq!(names.len(), 1_024);
    assert!(lan.node(0).dropped("evicted-peer") > 70);
}

#[test]
fn a_friend_who_moves_is_found_while_a_member_has_us_search_for_hundreds_of_devices() {
    let mut lan = pair();
    let target = |n: u32, i: u32| SocketAddr::new(Ipv4Addr::from(0xC633_0000 + n * 16 + i).into(), 4000);
    let mut rogues = Vec::new();
    for n in 0..256 {
        let candidates = (0..16).map(|i| Candidate { kind: CandidateKind::Host, addr: target(n, i) });
        let device = invented(n, candidates.collect());
        rogues.push(device.peer);
        let now = lan.now;
        lan.node(0).learn(now, device);
    }
    let moved: SocketAddr = "192.168.1.77:4000".parse().expect("address");
    for second in 0..8 {
        let now = lan.now;
        for id in &rogues {
            if let Some(peer) = lan.node(0).peers.get_mut(id) {
                peer.punch.introduce(now);
            }
        }
        lan.node(0).handle_timeout(now);
        if second == 3 {
            lan.hosts[1].0 = moved;
            let packet = udp(&lan.v4(1), &lan.v4(0));
            lan.send(1, &packet);
        }
        lan.run(Duration::from_secs(2));
    }
    assert!(lan.node(0).dropped("probe-budget") > 1_000, "the search for rogues is at its limits");
    let path = lan.peer(0, "bob").path.expect("a path");
    assert_eq!((lan.peer(0, "bob").state, path.remote), (status::PeerState::Direct, moved));
}

#[test]
fn a_member_who_talks_without_end_is_not_listened_to_without_end() {
    let mut lan = pair();
    let (now, alice) = (lan.now, lan.node(0).my_id());
    for n in 0..1_000 {
        lan.node(1).send_control(now, &alice, &Control::Ping(n));
    }
    lan.settle();
    assert!(lan.node(0).dropped("control-rate") >= 600, "{}", lan.node(0).dropped("control-rate"));
    lan.run(Duration::from_secs(10));
    lan.node(1).handle_command(now, Command::Ping { peer: alice, id: 7 });
    let packet = udp(&lan.v4(0), &lan.v4(1));
    lan.send(0, &packet);
    assert_eq!(
        (lan.hosts[1].2.len(), lan.peer(0, "bob").state),
        (1, status::PeerState::Direct),
        "all else is as before"
    );
}

#[test]
fn a_member_who_tells_of_strangers_without_end_is_not_listened_to_without_end() {
    let mut lan = pair();
    let (now, bob) = (lan.now, lan.node(1).my_id());
    for n in 0..500 {
        let told = invented(n, Vec::new());
        lan.node(0).told_of(now, &bob, told.bytes());
    }
    assert_eq!(lan.node(0).peers.len(), 1 + 32);
    assert_eq!(lan.node(0).dropped("hearsay"), 500 - 32);
    lan.run(Duration::from_secs(60));
    let states: Vec<_> =
        lan.node(0).peers.values().filter(|peer| peer.offline.is_none()).map(|p| p.name.clone()).collect();
    assert_eq!(states, ["bob"], "and what is not told again is gone");
}

#[test]
fn a_member_cannot_shut_newcomers_out_with_invented_devices() {
    let mut lan = pair();
    let now = lan.now;
    for n in 0..1_100 {
        lan.node(0).learn(now, invented(n, Vec::new()));
    }
    let carol = announcement::verify(&claim(3, 7, "carol", V4Claim::None), &identity(1, 1).network.id());
    lan.node(0).learn(now, carol.expect("signed"));
    let names: Vec<String> = lan.node(0).status(now).peers.into_iter().map(|p| p.name).collect();
    assert!(names.iter().any(|name| name == "bob") && names.iter().any(|name| name == "carol"));
    assert!(names.len() <= 1_024, "{}", names.len());
}

#[test]
fn claims_of_addresses_outside_the_subnet_bind_nothing_and_harm_nobody() {
    let outside = |device, name, addr| {
        let mut setup = Setup::new(device, name);
        setup.address = AddressChoice::Configured(addr);
        setup
    };
    let mallory = outside(2, "mallory", Ipv4Addr::new(192, 0, 2, 1));
    let mallet = outside(3, "mallet", Ipv4Addr::new(192, 0, 2, 2));
    let mut lan = Lan::new(&[Setup::new(1, "alice"), mallory, mallet, Setup::new(4, "bob")]);
    lan.run(Duration::from_secs(5));
    for name in ["mallory", "mallet", "bob"] {
        assert_eq!(lan.peer(0, name).state, status::PeerState::Direct, "{name}");
    }
    assert!(lan.peer(0, "mallory").addresses.iter().all(IpAddr::is_ipv6));
    assert_eq!(lan.warnings(0), ["other-subnet", "other-subnet"]);
    let packet = udp(&lan.v4(0), &lan.v4(3));
    lan.send(0, &packet);
    assert_eq!(lan.hosts[3].2.last(), Some(&packet));
}

#[test]
fn garbage_initiations_do_not_put_members_under_load() {
    let mut lan = pair();
    let to = lan.hosts[0].0;
    for _ in 0..60 {
        lan.deliver("198.51.100.66:666".parse().expect("address"), to, vec![0xE2; 664]);
    }
    // Nothing of this was from a member, so a member still needs no cookie.
    assert_eq!(lan.node(0).dropped("unauthentic"), 60, "under-load: {}", lan.node(0).dropped("under-load"));
}

/// A member's handshake beside the one that its node keeps.
struct Handshake(crate::session::Session);

impl Handshake {
    fn new(lan: &mut Lan, from: usize, to: usize) -> Self {
        let (me, peer) = (lan.node(from).my_id(), lan.node(to).shared.identity.clone());
        let mut session = crate::session::Session::new(me, peer.device.id(), peer.device.x25519());
        session.connect(lan.now);
        Self(session)
    }

    /// Its newest initiation.
    fn initiation(&mut self, lan: &mut Lan, from: usize) -> Vec<u8> {
        let now = lan.now;
        self.0.handle_timeout(now, &mut lan.node(from).shared.env());
        self.0.poll_transmit().expect("it is due")
    }
}

fn three() -> Lan {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "mallory"), Setup::new(3, "carol")]);
    lan.run(Duration::from_secs(5));
    lan
}

#[test]
fn a_member_who_floods_a_relay_with_initiations_keeps_no_other_from_a_handshake() {
    let mut lan = three();
    let (mallory, carol) = (lan.node(1).my_id(), lan.node(2).my_id());
    let flood = Handshake::new(&mut lan, 1, 0).initiation(&mut lan, 1);
    let now = lan.now;
    for _ in 0..200 {
        lan.node(0).handle_relayed(now, mallory, &mut flood.clone());
    }
    assert!(lan.node(0).dropped("under-load") > 150);
    let mut honest = Handshake::new(&mut lan, 2, 0).initiation(&mut lan, 2);
    assert_eq!(lan.node(0).handle_relayed(now, carol, &mut honest), Inbound::Taken);
}

#[test]
fn a_member_who_proves_its_address_cannot_have_handshakes_without_end() {
    let mut lan = three();
    let (to, from) = (lan.hosts[0].0, "198.51.100.66:666".parse().expect("address"));
    let mut handshake = Handshake::new(&mut lan, 1, 0);
    let unproven = handshake.initiation(&mut lan, 1);
    let mut cookies = 0;
    for _ in 0..60 {
        lan.deliver(from, to, unproven.clone());
        while let Some(reply) = lan.node(0).poll_transmit() {
            assert!(reply.payload.len() < unproven.len());
            cookies += usize::from(handshake.0.handle_cookie_reply(T0, &reply.payload));
        }
    }
    assert_eq!(cookies, 20, "what is beyond the calm is asked for proof");
    // All in one moment, so that nothing refills.
    let proven = handshake.0.poll_timeout().map(|due| due.at).map(|at| {
        let mut env = lan.hosts[1].1.shared.env();
        handshake.0.handle_timeout(at, &mut env);
        handshake.0.poll_transmit().expect("it goes out again")
    });
    let (proven, before) = (proven.expect("it is due"), lan.node(0).dropped("under-load"));
    for _ in 0..500 {
        lan.deliver(from, to, proven.clone());
    }
    assert!(lan.node(0).dropped("under-load") - before >= 480, "{}", lan.node(0).dropped("under-load"));
}

#[test]
fn a_member_cannot_have_others_search_new_addresses_all_the_time() {
    let mut lan = pair();
    let (now, alice) = (lan.now, lan.node(0).my_id());
    for n in 0..500_u16 {
        let sprayed =
            (0..16).map(|port| SocketAddr::new(Ipv4Addr::from(0xC633_0000 + u32::from(n)).into(), 1000 + port));
        let identity = identity(1, 2);
        let text = Announcement {
            seq: (1 << 60) + u64::from(n),
            candidates: sprayed.map(|addr| Candidate { kind: CandidateKind::Host, addr }).collect(),
            ..lan.node(1).shared.announcement.announcement().clone()
        };
        let signed = announcement::sign(&identity.device, &identity.network.id(), &text);
        lan.node(1).send_control(now, &alice, &Control::Announcement(signed.bytes()));
        let mut sent = Vec::new();
        while let Some(t) = lan.node(1).poll_transmit() {
            sent.push(t);
        }
        for t in sent {
            lan.deliver(lan.hosts[1].0, t.to, t.payload);
        }
    }
    assert_eq!(lan.node(0).dropped("announcement-rate") + lan.node(0).dropped("control-rate"), 480);
    // It is told no more than that, and what stood still stands.
    lan.run(Duration::from_secs(10));
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Direct);
}

#[test]
fn ports_that_a_member_sprays_over_one_address_share_what_a_stranger_gets() {
    let mut lan = pair();
    let victim = Ipv4Addr::new(198, 51, 100, 99);
    let mut most = 0;
    for round in 0..12_u16 {
        // Every ten seconds sixteen others of its ports.
        let sprayed = (0..16).map(|port| SocketAddr::new(victim.into(), 1000 + 16 * round + port));
        let identity = identity(1, 2);
        let text = Announcement {
            seq: (1 << 60) + u64::from(round),
            candidates: sprayed.map(|addr| Candidate { kind: CandidateKind::Reflexive, addr }).collect(),
            ..lan.node(1).shared.announcement.announcement().clone()
        };
        let signed = announcement::sign(&identity.device, &identity.network.id(), &text);
        let now = lan.now;
        lan.node(0).learn(now, signed);
        let bob = lan.node(1).my_id();
        lan.node(0).handle_command(now, Command::Ping { peer: bob, id: round.into() });
        if let Some(peer) = lan.node(0).peers.get_mut(&bob) {
            peer.punch.introduce(now);
        }
        lan.wire.clear();
        lan.run(Duration::from_secs(10));
        most += lan.wire.iter().filter(|(_, to, _)| to.ip() == victim).count();
    }
    assert!(most > 0 && most <= 2 * 60 + 12, "{most} in two minutes");
}

#[test]
fn candidates_that_nobody_may_announce_are_counted_and_not_tried() {
    let mut lan = pair();
    let wrong = ["127.0.0.1:5", "0.0.0.0:5", "224.0.0.251:5353", "255.255.255.255:9", "198.51.100.9:0", "10.77.0.9:5"];
    let announced = wrong.iter().chain(&["198.51.100.9:5"]).map(|text| text.parse().expect("address"));
    let device = invented(1, announced.map(|addr| Candidate { kind: CandidateKind::Host, addr }).collect());
    let (now, id) = (lan.now, device.peer);
    lan.node(0).learn(now, device);
    assert_eq!(lan.node(0).dropped("candidate"), 6);
    let tried = lan.node(0).peers[&id].punch.paths(now).map(|path| path.via.remote());
    assert_eq!(tried.collect::<Vec<_>>(), [Some("198.51.100.9:5".parse().expect("address"))]);
}

#[test]
fn a_storm_of_broadcasts_is_cut_and_counted() {
    let mut lan = pair();
    let storm = udp(&lan.v4(0), "255.255.255.255");
    let sent = (0..700).filter(|_| lan.send(0, &storm) == Outbound::Taken).count();
    assert_eq!(sent, 500);
    assert_eq!(lan.node(0).dropped("fan-out-rate"), 200);
}

#[test]
fn requests_beyond_a_peers_pace_are_counted_and_stay_counted_when_it_goes() {
    let mut lan = pair();
    let (now, bob) = (lan.now, lan.node(1).my_id());
    let from = lan.hosts[1].0;
    for port in 1000..1300_u16 {
        let request = ProbeIn { kind: ProbeKind::Request, nonce: port.into(), len: 62, observed: None };
        let via = Via::Direct { socket: SocketId(0), remote: SocketAddr::new(from.ip(), port) };
        lan.node(0).peers.get_mut(&bob).expect("bob").punch.handle_probe(now, via, None, &request);
    }
    let counts = |node: &Node| ["echo-rate", "too-many-paths"].map(|word| node.dropped(word));
    let before = counts(lan.node(0));
    assert!(before[0] >= 200 && before[1] >= 280, "{before:?}");
    lan.node(0).remove_peer(now, &bob);
    assert_eq!(counts(lan.node(0)), before);
}

#[test]
fn what_is_sent_back_to_its_sender_changes_nothing() {
    let mut lan = pair();
    lan.run(Duration::from_secs(40));
    lan.wire.clear();
    let packet = udp(&lan.v4(0), &lan.v4(1));
    lan.send(0, &packet);
    lan.run(Duration::from_secs(130));
    let (alice, bob) = (lan.hosts[0].0, lan.hosts[1].0);
    let own: Vec<Vec<u8>> = lan.wire.iter().filter(|(from, ..)| *from == alice).map(|w| w.2.clone()).collect();
    let kinds: std::collections::BTreeSet<u8> = own.iter().map(|bytes| bytes[0]).collect();
    assert!(kinds.len() >= 3, "probes, a handshake, control: {kinds:02x?}");
    let before = lan.peer(0, "bob");
    for from in [bob, "198.51.100.66:666".parse().expect("address")] {
        for bytes in own.iter().filter(|bytes| bytes.len() > 1) {
            let (now, mut payload) = (lan.now, bytes.clone());
            let datagram = Datagram { socket: SocketId(0), local: None, from, payload: &mut payload };
            assert_eq!(lan.node(0).handle_datagram(now, datagram), Inbound::Dropped, "{:02x}", bytes[0]);
            assert_eq!(lan.node(0).poll_transmit(), None, "and no answer");
        }
    }
    assert_eq!(lan.peer(0, "bob").path, before.path);
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Direct);
}

#[test]
fn a_packet_that_was_held_back_and_sent_from_elsewhere_moves_no_path() {
    let mut lan = pair();
    lan.run(Duration::from_secs(5));
    let elsewhere: SocketAddr = "198.51.100.66:666".parse().expect("address");
    let path = lan.peer(1, "alice").path;
    let mut probes = 0;
    for _ in 0..50 {
        let packet = udp(&lan.v4(0), &lan.v4(1));
        let mut buf = vec![0; HEADROOM + packet.len() + TAILROOM];
        buf[HEADROOM..HEADROOM + packet.len()].copy_from_slice(&packet);
        let now = lan.now;
        let Outbound::Send { to, range, .. } = lan.node(0).handle_packet(now, &mut buf) else { panic!("not sent") };
        lan.deliver(elsewhere, to, buf[range].to_vec());
        lan.wire.clear();
        lan.run(Duration::from_secs(1));
        probes += lan.wire.iter().filter(|(_, to, _)| *to == elsewhere).count();
        assert!(lan.wire.iter().all(|(_, to, bytes)| *to != elsewhere || bytes[0] == 0xE5 || bytes.len() == 1));
        assert_eq!(lan.peer(1, "alice").path, path);
    }
    assert!(probes <= 60 + 4, "{probes}: no more than any stranger gets in a minute, and keepalives");
    assert_eq!(lan.hosts[1].2.len(), 50, "they are genuine all the same");
}

#[test]
fn what_comes_from_a_servers_address_and_proves_nothing_is_counted() {
    let mut node = Setup::new(1, "alice").node_with("198.51.100.1:3478");
    let server: SocketAddr = "198.51.100.1:3478".parse().expect("address");
    node.handle_done(T0, Done::Resolved { server: crate::id::ServerId(0), result: Ok(vec![server]) });
    let mut sent = 0;
    for second in 0..=255_u8 {
        for len in [2, 16, 22, 30, 86, 96, 334, 1232] {
            let mut payload = vec![0x5A; len];
            (payload[0], payload[1]) = (0xE7, second);
            let datagram = Datagram { socket: SocketId(0), local: None, from: server, payload: &mut payload };
            assert_eq!(node.handle_datagram(T0, datagram), Inbound::Dropped);
            sent += 1;
        }
    }
    assert_eq!(node.dropped("unknown-rendezvous"), sent);
}

#[test]
fn a_reservation_that_failed_is_asked_for_again() {
    let mut node = Setup::new(1, "alice").node(&[]);
    let mut now = T0;
    let mut asked = 0;
    for _ in 0..600 {
        node.handle_timeout(now);
        while let Some(action) = node.poll_action() {
            // The disk is full: the shell warns and answers nothing.
            asked += usize::from(matches!(action, Action::Reserve { .. }));
        }
        now += Duration::from_secs(1);
    }
    assert!(asked > 1, "asked {asked} time(s) in 10 minutes: no announcement, no registration, for ever");
}

#[test]
fn a_peer_gone_for_two_days_can_be_forgotten() {
    let mut lan = pair();
    let now = lan.now;
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    lan.hosts.truncate(1);
    let later = now + Duration::from_hours(49);
    lan.node(0).handle_timeout(later);
    let wall = lan.node(0).wall_ms(later);
    assert!(lan.node(0).naming_holds(wall, "bob"), "bob's name is still bound");
    assert!(lan.node(0).find_peer(later, "bob").is_some(), "so `punchlan forget bob` must find it");
}

#[test]
fn a_live_peer_is_not_forgotten() {
    let mut lan = pair();
    let (now, id) = (lan.now, lan.hosts[1].1.my_id());
    lan.node(0).handle_command(now, Command::Forget(id));
    let wall = lan.node(0).wall_ms(now);
    assert!(lan.node(0).naming_holds(wall, "bob"), "bob is here, and lost his name");
}

#[test]
fn an_invented_device_does_not_take_a_bound_name() {
    let mut lan = pair();
    let (now, alice, bob) = (lan.now, lan.hosts[0].1.my_id(), lan.hosts[1].1.my_id());
    let lower = (3..=250).find(|d| identity(1, *d).device.id() < bob).expect("a lower id");
    let invented = claim(lower, 7, "bob", V4Claim::None);
    lan.node(1).send_control(now, &alice, &Control::Announcement(&invented));
    lan.settle();
    let names: Vec<String> = lan.node(0).status(now).peers.into_iter().map(|p| p.name).collect();
    assert_eq!(lan.node(0).find_peer(now, "bob"), Some(bob), "{names:?}");
}

#[test]
fn who_has_said_goodbye_takes_no_new_session() {
    let mut lan = pair();
    let (now, bob) = (lan.now, lan.hosts[1].1.my_id());
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Offline);
    // Alice's game goes on sending during bob's farewell: her initiation comes, by a relay say.
    let node = lan.node(0);
    let peer = node.peers.get_mut(&bob).expect("met");
    let later = now + Duration::from_millis(300);
    peer.session.connect(later);
    peer.session.handle_timeout(later, &mut node.shared.env());
    let initiation = peer.session.poll_transmit().expect("an initiation");
    lan.now = later;
    let (from, to) = (lan.hosts[0].0, lan.hosts[1].0);
    lan.deliver(from, to, initiation);
    lan.settle();
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Offline, "bob is back, just before he exits");
}

#[test]
fn one_captured_initiation_of_another_version_is_one_warning() {
    let mut lan = pair();
    // A member of a later version: same frame and mac1.
    let mut mallory = Setup::new(3, "mallory").node(&[Setup::new(1, "alice").signed()]);
    let mut now = lan.now;
    let mut initiation = None;
    let to = lan.hosts[0].0;
    for _ in 0..100 {
        mallory.handle_timeout(now);
        while let Some(action) = mallory.poll_action() {
            if let Action::Reserve { ceiling } = action {
                mallory.handle_done(now, Done::Reserved { ceiling });
            }
        }
        let alice = lan.hosts[0].1.my_id();
        if let Some(p) = mallory.peers.get_mut(&alice) {
            p.session.close(now, &mut mallory.shared.env());
            p.session.connect(now);
            p.session.handle_timeout(now, &mut mallory.shared.env());
            initiation = p.session.poll_transmit().or(initiation);
        }
        now += Duration::from_millis(100);
    }
    let mut frame = initiation.expect("an initiation");
    frame[4] = 2;
    let end = frame.len() - 32;
    let key = identity(1, 3).network.mac1_key(&lan.hosts[0].1.my_id());
    crate::crypto::mac::write_last(key.as_slice(), &mut frame[..end + 16]);
    for port in 1..=30_u16 {
        lan.deliver(SocketAddr::new("198.51.100.66".parse().expect("address"), port), to, frame.clone());
    }
    let now = lan.now;
    let n = lan.node(0).status(now).warnings.len();
    assert!(n <= 2, "{n} warnings from replays of one frame with invented sources");
}

/// Runs a node whose rendezvous is played by `answer`; what is said of it in the end.
fn said_of_its_rendezvous(mut node: Node, mut answer: impl FnMut(&Hello) -> Option<Vec<u8>>) -> String {
    let server: SocketAddr = "198.51.100.1:3478".parse().expect("address");
    let mut now = T0;
    for _ in 0..100 {
        node.handle_timeout(now);
        while let Some(action) = node.poll_action() {
            if let Action::Reserve { ceiling } = action {
                node.handle_done(now, Done::Reserved { ceiling });
            }
        }
        while let Some(t) = node.poll_transmit() {
            let Ok(Message::Hello(hello)) = Message::parse(&t.payload) else { continue };
            if let Some(mut payload) = answer(&hello) {
                let datagram = Datagram { socket: SocketId(0), local: None, from: server, payload: &mut payload };
                node.handle_datagram(now, datagram);
            }
        }
        now += Duration::from_millis(200);
    }
    let mut warnings = node.status(now).warnings.into_iter();
    warnings.find(|warning| warning.code == "rendezvous").expect("a warning").text
}

#[test]
fn what_keeps_us_from_a_rendezvous_is_said_with_what_to_do() {
    let place = "198.51.100.1:3478";
    let known = || {
        let mut node = Setup::new(1, "alice").node_with(place);
        let addresses = vec![place.parse().expect("address")];
        node.handle_done(T0, Done::Resolved { server: crate::id::ServerId(0), result: Ok(addresses) });
        node
    };
    let silent = said_of_its_rendezvous(known(), |_| None);
    assert!(silent.starts_with("rendezvous 198.51.100.1:3478: no answer; "), "{silent}");
    assert!(silent.matches(place).count() == 1 && silent.contains("UDP port"), "{silent}");

    let network = identity(1, 1).network.id();
    let closed = said_of_its_rendezvous(known(), |hello| {
        let refused =
            Refused { nonce: hello.nonce, reason: Reason::NotAllowed, retry_s: 1, version: crate::wire::VERSION };
        Some(refused.encode())
    });
    assert!(closed.starts_with("rendezvous 198.51.100.1:3478: does not serve this network"), "{closed}");
    assert!(closed.ends_with(&format!("add the network's id to `allow`: {network}")), "{closed}");

    let mut node = Setup::new(1, "alice").node_with(place);
    let why = "play.example.org does not resolve: Name or service not known".to_owned();
    node.handle_done(T0, Done::Resolved { server: crate::id::ServerId(0), result: Err(why.clone()) });
    let unknown = said_of_its_rendezvous(node, |_| None);
    assert!(unknown.contains(&why) && unknown.contains("spelled in net.toml"), "{unknown}");
}

#[test]
fn the_status_says_how_many_are_denied() {
    let alice = Setup { deny: vec![identity(1, 2).device.id()], ..Setup::new(1, "alice") };
    assert_eq!(alice.node(&[]).status(T0).network.denied, 1);
}

#[test]
fn a_mapped_port_is_announced_while_the_router_keeps_it() {
    let mut lan = pair();
    let alice = lan.node(0).my_id();
    let heard = |lan: &mut Lan| {
        let candidates = lan.node(1).peers.get(&alice).expect("met").signed.candidates.iter();
        candidates.filter(|c| c.kind == CandidateKind::Mapped).map(|c| c.addr.to_string()).collect::<Vec<_>>()
    };
    let report = |lan: &mut Lan| {
        let now = lan.now;
        lan.node(0).status(now).me.nat.port_mapping.unwrap_or_default()
    };
    let mapping = PortMapping {
        protocol: MappingProtocol::NatPmp,
        gateway: "192.168.1.1".parse().expect("address"),
        external: "203.0.113.9:4000".parse().expect("address"),
        lifetime: Some(Duration::from_secs(3600)),
        epoch: None,
    };
    assert_eq!(report(&mut lan), "off: `port_mapping = false` in net.toml");

    lan.router = Ok(mapping.clone());
    lan.reconfigure(0, Changeable { port_mapping: true, ..changeable() });
    lan.run(Duration::from_secs(2));
    assert_eq!(heard(&mut lan), ["203.0.113.9:4000"]);
    assert_eq!(report(&mut lan), "203.0.113.9:4000 by NAT-PMP of the router 192.168.1.1");

    // The provider gives the router another address; then it is gone.
    lan.router = Ok(PortMapping { external: "203.0.113.10:4000".parse().expect("address"), ..mapping.clone() });
    let now = lan.now;
    lan.node(0).handle_done(now, Done::RouterChanged);
    lan.run(Duration::from_secs(5));
    assert_eq!(heard(&mut lan), ["203.0.113.10:4000"]);
    lan.router = Err("the router is silent".into());
    lan.run(Duration::from_secs(1_802));
    assert_eq!(heard(&mut lan), [""; 0]);
    assert_eq!(report(&mut lan), "none: the router is silent");

    // A router that lies is not believed.
    lan.router = Ok(PortMapping { external: "100.64.0.9:4000".parse().expect("address"), ..mapping.clone() });
    lan.run(Duration::from_secs(10));
    assert_eq!(heard(&mut lan), [""; 0]);
    assert!(report(&mut lan).contains("double NAT"), "{}", report(&mut lan));
    assert_eq!(lan.unmapped, 1);

    lan.router = Ok(mapping);
    lan.run(Duration::from_secs(30));
    assert_eq!(heard(&mut lan), ["203.0.113.9:4000"]);
    lan.reconfigure(0, changeable());
    lan.run(Duration::from_secs(2));
    assert_eq!((heard(&mut lan), lan.unmapped), (Vec::new(), 2));
}

#[test]
fn who_leaves_gives_the_port_back() {
    let mut lan = pair();
    lan.router = Err("the router is silent".into());
    lan.reconfigure(0, Changeable { port_mapping: true, ..changeable() });
    let now = lan.now;
    lan.node(0).handle_command(now, Command::Leave);
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.unmapped, 1, "whatever was asked for may have been given");
    lan.node(1).handle_command(now, Command::Leave);
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.unmapped, 1, "nothing was asked for");
}
