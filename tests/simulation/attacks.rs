//! A stranger on the wire: reads everything, sends anything from any address, holds no key. Tunnels are
//! unharmed, nothing is amplified, and the wire shows no inner byte.

use std::net::SocketAddr;
use std::time::Duration;

use punchlan::node::status::PeerState;
use punchlan::sans::{Datagram, Instant, Rng, Transmit, Wakeup};

use crate::nat::NatConfig;
use crate::sim::machine::Machine;
use crate::sim::scene::{House, Scene, ip};
use crate::sim::world::HostId;

const SECOND: Duration = Duration::from_secs(1);
const STRANGER: &str = "192.0.2.66:666";

/// Counts what it is sent.
#[derive(Default)]
struct Stranger {
    got: usize,
}

impl Machine for Stranger {
    fn handle_datagram(&mut self, _: Instant, datagram: Datagram<'_>) {
        self.got += datagram.payload.len();
    }
    fn handle_timeout(&mut self, _: Instant) {}
    fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }
    fn poll_timeout(&self) -> Option<Wakeup> {
        None
    }
}

/// Two peers that talk directly behind full cones, a relayed one beside them, and a stranger.
struct Siege {
    scene: Scene,
    peers: [HostId; 3],
    stranger: HostId,
    mark: usize,
}

impl Siege {
    fn new() -> Self {
        let mut scene = Scene::new(31);
        let kinds = [NatConfig::full_cone(), NatConfig::full_cone(), NatConfig::symmetric()];
        let names = ["alice", "bob", "carol"];
        let peers = [0, 1, 2].map(|i| scene.peer(names[i], House::v4(Some(kinds[i]))));
        let cave = scene.world.gateway("cave", None, false);
        let stranger = scene.world.host("stranger", cave, &[address().ip()], Stranger::default());
        scene.world.bind(stranger, Some(address().port()));
        peers.iter().for_each(|p| scene.up(*p));
        scene.settle(peers[0], peers[1], PeerState::Direct, SECOND * 3).expect("direct");
        scene.world.tap = Some(Vec::new());
        for (a, b) in [(0, 1), (1, 2), (0, 2)] {
            scene.acquaint(peers[a], peers[b], SECOND * 3).expect("they hear of each other");
            scene.flows(peers[a], peers[b], SECOND / 20);
        }
        scene.run(SECOND * 10);
        let mark = scene.mark();
        Self { scene, peers, stranger, mark }
    }

    /// Where datagrams reach each peer and the rendezvous from outside.
    fn doors(&self) -> Vec<SocketAddr> {
        let status = self.peers.map(|p| self.scene.status(p));
        let seen = status.iter().flat_map(|s| s.me.candidates.iter().map(|c| c.address));
        let own = seen.filter(|a| a.ip().to_string().starts_with("203.0.113."));
        own.chain([SocketAddr::new(ip("198.51.100.1"), 3478)]).collect()
    }

    fn captured(&mut self) -> Vec<Vec<u8>> {
        let tap = self.scene.world.tap.replace(Vec::new()).expect("it listens");
        tap.into_iter().map(|(_, datagram)| datagram).collect()
    }

    /// Sends, then checks that nobody noticed.
    fn attack(mut self, datagrams: impl IntoIterator<Item = (SocketAddr, SocketAddr, Vec<u8>)>) -> Self {
        let before = self.paths();
        let mut sent = 0;
        for (i, (source, to, payload)) in datagrams.into_iter().enumerate() {
            sent += if source == address() { payload.len() } else { 0 };
            self.scene.world.inject(self.stranger, source, to, payload);
            if i % 20 == 0 {
                self.scene.run(SECOND / 100);
            }
        }
        self.scene.run(SECOND * 10);
        assert_eq!(self.paths(), before, "no path moved");
        self.scene.hush();
        for (a, b) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)] {
            let (sent, lost) = self.scene.lost(self.mark, self.peers[a], self.peers[b]);
            assert_eq!(lost, 0, "of {sent} inner packets");
        }
        let got = self.scene.world.machine::<Stranger>(self.stranger).got;
        assert!(got <= sent, "{got} bytes came back for {sent}");
        self
    }

    fn paths(&self) -> Vec<(String, Option<SocketAddr>)> {
        let peers = self.peers.iter().flat_map(|p| self.scene.status(*p).peers);
        peers.map(|p| (p.name, p.path.map(|path| path.remote))).collect()
    }
}

fn address() -> SocketAddr {
    STRANGER.parse().expect("an address")
}

fn sources(siege: &Siege) -> Vec<SocketAddr> {
    // Its own, and those of everybody whom a victim trusts.
    siege.doors().into_iter().chain([address()]).collect()
}

/// Every payload, to every door, from one of the sources in turn.
fn everywhere(siege: &Siege, payloads: Vec<Vec<u8>>) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
    let (doors, sources) = (siege.doors(), sources(siege));
    let aimed = payloads.into_iter().flat_map(|p| doors.iter().map(move |d| (*d, p.clone())).collect::<Vec<_>>());
    aimed.enumerate().map(|(i, (to, payload))| (sources[i % sources.len()], to, payload)).collect()
}

#[test]
fn every_datagram_replayed_from_anywhere_changes_nothing() {
    let mut siege = Siege::new();
    let captured = siege.captured();
    let every = captured.len().div_ceil(1500);
    let payloads = captured.into_iter().step_by(every).collect();
    let datagrams = everywhere(&siege, payloads);
    siege.attack(datagrams);
}

#[test]
fn every_datagram_with_some_bytes_changed_changes_nothing() {
    let mut siege = Siege::new();
    let captured = siege.captured();
    let every = captured.len().div_ceil(1500);
    let mut rng = punchlan::sans::Seed::from_u64(1).rng();
    let payloads = captured.into_iter().step_by(every).map(|payload| mutate(payload, &mut rng)).collect();
    let datagrams = everywhere(&siege, payloads);
    siege.attack(datagrams);
}

#[test]
fn rubbish_of_every_kind_changes_nothing() {
    let siege = Siege::new();
    let mut rng = punchlan::sans::Seed::from_u64(2).rng();
    let mut payloads = vec![Vec::new(), vec![0; 1], vec![0xff; 1472], vec![0; 65_000]];
    for first in (0..=3).chain(0xe0..=0xef) {
        for len in [1, 7, 8, 12, 24, 25, 62, 120, 608, 664, 1_200, 1_432] {
            let mut payload = vec![0; len];
            rng.fill(&mut payload);
            payload[0] = first;
            payloads.push(payload);
        }
    }
    let datagrams = everywhere(&siege, payloads);
    siege.attack(datagrams);
}

#[test]
fn the_wire_shows_no_name_no_overlay_address_and_no_inner_byte() {
    let mut siege = Siege::new();
    let mut secrets: Vec<Vec<u8>> = ["alice", "carol", "friday"].map(|n| n.as_bytes().to_vec()).into();
    for peer in siege.peers {
        for address in siege.scene.status(peer).me.addresses {
            secrets.push(match address {
                std::net::IpAddr::V4(a) => a.octets().to_vec(),
                std::net::IpAddr::V6(a) => a.octets().to_vec(),
            });
        }
    }
    // What the ledger fills its packets with.
    secrets.push(vec![0x5a; 8]);
    secrets.push(b"punchlan".to_vec());
    for datagram in siege.captured() {
        for secret in &secrets {
            assert!(!datagram.windows(secret.len()).any(|w| w == secret), "{secret:02x?} in clear");
        }
    }
}

/// Changes, cuts, or lengthens.
fn mutate(mut payload: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
    let at = |rng: &mut Rng, len: usize| usize::try_from(rng.u32()).expect("64 bits") % len;
    match rng.u32() % 4 {
        0 => payload.truncate(at(rng, payload.len())),
        1 => payload.extend(rng.array::<32>()),
        2 => {
            let i = at(rng, payload.len());
            payload[i] ^= 1 << (rng.u32() % 8);
        }
        _ => {
            for _ in 0..8 {
                let i = at(rng, payload.len());
                payload[i] = rng.array::<1>()[0];
            }
        }
    }
    payload
}
