//! A member who wants the others to flood somebody: it invents devices, announces the victim's address as theirs with
//! ever other ports, and sends the others probes that the victim seems to have sent. What arrives at the victim is
//! counted on the wire.
//!
//! ```text
//!   alice, bob ── full cones ── core ── public ── victim
//!                                └───── public ── mallory, a member
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use punchlan::crypto::probe::ProbeKeys;
use punchlan::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites, announcement};
use punchlan::id::{Epoch, PeerId, ServerId};
use punchlan::io::clock;
use punchlan::node::status::PeerState;
use punchlan::punch::PER_TARGET;
use punchlan::rendezvous::{Client, Event};
use punchlan::sans::Seed;
use punchlan::wire::announcement::{Announcement, Candidate, CandidateKind, V4Claim};
use punchlan::wire::probe::{MIN_LEN, Probe, ProbeKind};

use crate::lab::programs::Network;
use crate::lab::wire::{SETTLE, Wire};
use crate::lab::{Gateway, Lab, RENDEZVOUS};
use crate::storm::{door, raw_socket, send};
use crate::turn;

const PATIENCE: Duration = Duration::from_secs(10);
/// Devices that mallory invents.
const DEVICES: u16 = 40;
/// How long it goes on.
const TIME: Duration = Duration::from_secs(20);
/// Pauses between two rounds of announcements and probes.
const ROUND: Duration = Duration::from_millis(500);

#[test]
fn a_member_cannot_turn_the_others_on_somebody() {
    let _turn = turn();
    let lab = Lab::new(&[Gateway::FullCone, Gateway::FullCone, Gateway::Public, Gateway::Public]).unwrap();
    let network = Network::start(&lab).unwrap();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    let bob = network.up(lab.host(1), "bob", 2).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    let doors = [door(&alice).unwrap(), door(&bob).unwrap()];
    let victim = lab.host(2).public_v4.unwrap();

    let wire = Wire::tap(&lab).unwrap();
    let forged = Mallory::new(&lab, &network.key).unwrap().go_on(&lab, doors, SocketAddrV4::new(victim, 1)).unwrap();
    std::thread::sleep(SETTLE);

    let to_victim =
        |from: IpAddr| wire.packets().iter().filter(|p| p.from == from && p.to == IpAddr::V4(victim)).count();
    let counts = doors.map(|door| to_victim(IpAddr::V4(*door.ip())));
    println!("the victim got {counts:?} packets in {TIME:?}, for {forged} forged probes and {DEVICES} devices");
    let most = usize::try_from(PER_TARGET).unwrap();
    assert!(counts.iter().all(|count| (1..=most).contains(count)), "{counts:?}");
    assert_eq!(bob.ping(alice.address.into(), 20).unwrap(), 20, "friends do not notice");
    assert_eq!(bob.status().unwrap().peers.iter().find(|p| p.name == "alice").unwrap().state, PeerState::Direct);
}

/// One device of mallory's.
struct Device {
    client: Client,
    identity: Identity,
    socket: UdpSocket,
}

struct Mallory {
    devices: Vec<Device>,
    /// The others, and their static keys.
    others: BTreeMap<PeerId, [u8; 32]>,
    number: u64,
}

impl Mallory {
    fn new(lab: &Lab, key: &str) -> Result<Self> {
        let server = SocketAddr::from((RENDEZVOUS, 3478));
        let devices = (0..DEVICES).map(|n| {
            let mut seed = [0xBA; 32];
            seed[..2].copy_from_slice(&n.to_be_bytes());
            let network = NetworkSecrets::derive(&key.parse()?, Epoch::default());
            let device = DeviceSecrets::from_seed(&seed);
            let identity = Identity { network, device, suites: Suites::ALL, features: 0 };
            let socket = lab.host(3).netns.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
            socket.connect(server)?;
            socket.set_nonblocking(true)?;
            let mut client = Client::new(ServerId(0), None, &Seed::from_u64(n.into()));
            client.set_addresses(clock::now(), vec![server]);
            Ok(Device { client, identity, socket })
        });
        Ok(Self { devices: devices.collect::<Result<_>>()?, others: BTreeMap::new(), number: clock::wall_ms() })
    }

    /// Does its worst for a while; how many probes it forged.
    fn go_on(mut self, lab: &Lab, doors: [SocketAddrV4; 2], victim: SocketAddrV4) -> Result<u32> {
        let raw = lab.core.enter(raw_socket)??;
        let (start, mut round, mut forged) = (clock::now(), 0, 0);
        while clock::now() - start < TIME {
            if clock::now() - start >= ROUND * round {
                round += 1;
                self.announce(victim, u16::try_from(round)?);
                for n in 0..self.devices.len() {
                    for id in self.others.keys().copied().collect::<Vec<_>>() {
                        let probe = self.probe(n, &id)?;
                        for door in doors {
                            forged += 1;
                            send(&raw, SocketAddrV4::new(*victim.ip(), 2_000 + u16::try_from(n)?), door, &probe)?;
                        }
                    }
                }
            }
            self.pump()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(forged)
    }

    /// Every device is at sixteen ports of the victim that it was not at before.
    fn announce(&mut self, victim: SocketAddrV4, round: u16) {
        for (n, device) in (0..).zip(&mut self.devices) {
            self.number += 1;
            let first = 1_024 + (round % 60) * 1_000 + n * 16;
            let at = |port| Candidate { kind: CandidateKind::Reflexive, addr: (*victim.ip(), port).into() };
            let text = Announcement {
                version: punchlan::wire::VERSION,
                epoch: Epoch::default(),
                seq: self.number,
                peer: device.identity.device.id(),
                x25519: device.identity.device.x25519(),
                features: 0,
                name: format!("friend{n}"),
                v4: V4Claim::None,
                candidates: (first..first + 16).map(at).collect(),
            };
            let network = &device.identity.network;
            let signed = announcement::sign(&device.identity.device, &network.id(), &text);
            let sealed = announcement::seal(network, &signed, &mut Seed::from_u64(self.number).rng());
            device.client.set_announcement(clock::now(), sealed);
        }
    }

    /// A request that the peer will take for fresh.
    fn probe(&mut self, device: usize, to: &PeerId) -> Result<Vec<u8>> {
        self.number += 1;
        let Identity { network, device, .. } = &self.devices[device].identity;
        let keys = ProbeKeys::derive(network, device, to, &self.others[to]).context("an honest key")?;
        let probe = Probe {
            kind: ProbeKind::Request,
            tag: keys.tx_tag,
            counter: self.number,
            nonce: self.number,
            observed: None,
        };
        let mut bytes = probe.encode(MIN_LEN);
        keys.seal(&mut bytes);
        Ok(bytes)
    }

    fn pump(&mut self) -> Result<()> {
        let Self { devices, others, number } = self;
        let mine: Vec<PeerId> = devices.iter().map(|device| device.identity.device.id()).collect();
        for Device { client, identity, socket } in devices {
            let (now, mut buffer) = (clock::now(), [0; 2_048]);
            while let Ok(len) = socket.recv(&mut buffer) {
                client.handle_datagram(now, identity, SocketAddr::from((RENDEZVOUS, 3478)), &buffer[..len]);
            }
            client.handle_timeout(now, || {
                *number += 1;
                Some(*number)
            });
            while let Some(event) = client.poll_event() {
                if let Event::Member { peer, sealed, .. } = event
                    && !mine.contains(&peer)
                    && let Ok(signed) = announcement::open(&identity.network, &sealed)
                {
                    others.insert(peer, signed.x25519);
                }
            }
            while let Some((_, _, bytes)) = client.poll_transmit() {
                socket.send(&bytes)?;
            }
        }
        Ok(())
    }
}
