//! A live network in virtual time, and somebody on the wire who reads everything and sends anything: captured
//! datagrams as they were, changed, cut, joined, from any address to any door, while peers talk, restart and ask. Members
//! do what they like meanwhile. Nothing panics, nothing arrives that nobody sent, no error is logged (all of that
//! `tests/sim` sees to), and in the end the peers talk.

use std::net::SocketAddr;
use std::time::Duration;

use arbitrary::Unstructured;
use punchlan::node::Command;
use punchlan::node::status::PeerState;
use punchlan::sans::{Datagram, Instant, Transmit, Wakeup};

use crate::nat::NatConfig;
use crate::sim::machine::Machine;
use crate::sim::packet::Kind;
use crate::sim::peer::Peer;
use crate::sim::scene::{House, Scene, ip};
use crate::sim::world::HostId;

const SECOND: Duration = Duration::from_secs(1);
/// Operations of one input.
const MOST: usize = 200;
/// All must be well so long after the last of them.
const RECOVERY: Duration = Duration::from_secs(60);

/// Who is shot at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The peers.
    #[allow(dead_code, reason = "each fuzzer has its own victim")]
    Node,
    /// The rendezvous.
    #[allow(dead_code, reason = "each fuzzer has its own victim")]
    Rendezvous,
}

/// Sends, and hears nothing.
struct Stranger;

impl Machine for Stranger {
    fn handle_datagram(&mut self, _: Instant, _: Datagram<'_>) {}
    fn handle_timeout(&mut self, _: Instant) {}
    fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }
    fn poll_timeout(&self) -> Option<Wakeup> {
        None
    }
}

struct Live {
    scene: Scene,
    peers: [HostId; 3],
    stranger: HostId,
    captured: Vec<Vec<u8>>,
    victim: Victim,
}

/// Reads operations from `data` until it ends.
pub(crate) fn run(victim: Victim, data: &[u8]) {
    let mut live = Live::new(victim);
    let mut input = Unstructured::new(data);
    for _ in 0..MOST {
        if input.is_empty() || live.step(&mut input).is_err() {
            break;
        }
    }
    live.check();
}

impl Live {
    /// Two direct peers and a relayed one, who talk.
    fn new(victim: Victim) -> Self {
        let mut scene = Scene::new(1);
        scene.world.diagram = None;
        let kinds = [NatConfig::full_cone(), NatConfig::full_cone(), NatConfig::symmetric()];
        let names = ["alice", "bob", "carol"];
        let peers = [0, 1, 2].map(|i| scene.peer(names[i], House::v4(Some(kinds[i]))));
        let cave = scene.world.gateway("cave", None, false);
        let stranger = scene.world.host("stranger", cave, &[ip("192.0.2.66")], Stranger);
        scene.world.tap = Some(Vec::new());
        peers.iter().for_each(|peer| scene.up(*peer));
        scene.settle(peers[0], peers[1], PeerState::Direct, SECOND * 3).expect("direct");
        scene.run(SECOND);
        let mut live = Self { scene, peers, stranger, captured: Vec::new(), victim };
        live.capture();
        live
    }

    fn capture(&mut self) {
        let tap = self.scene.world.tap.replace(Vec::new()).expect("it listens");
        self.captured.extend(tap.into_iter().map(|(_, datagram)| datagram));
        // The newest are the ones that might still count.
        let old = self.captured.len().saturating_sub(256);
        self.captured.drain(..old);
    }

    fn server(&self) -> SocketAddr {
        SocketAddr::new(ip("198.51.100.1"), 3478)
    }

    /// Where the world reaches a peer.
    fn door(&self, peer: usize) -> SocketAddr {
        let machine: &Peer = self.scene.machine(self.peers[peer]);
        let last = u8::try_from(peer + 1).expect("three");
        let outside = ip(&format!("203.0.113.{last}"));
        let seen = machine.status(self.scene.now()).me.candidates.into_iter().map(|candidate| candidate.address);
        seen.into_iter().find(|address| address.ip() == outside).unwrap_or(SocketAddr::new(outside, 40_001))
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        match input.int_in_range(0..=15_u8)? {
            0 => self.scene.run(Duration::from_millis(u64::from(input.arbitrary::<u16>()?) % 3_000)),
            1 => self.capture(),
            2 => {
                let (from, to) = (input.choose_index(3)?, input.choose_index(3)?);
                if from != to {
                    let address = self.scene.v6(self.peers[to]);
                    self.scene.send(Kind::Udp, self.peers[from], self.peers[to], address);
                }
            }
            3 => {
                let (peer, other) = (self.peers[input.choose_index(3)?], self.peers[input.choose_index(3)?]);
                let id = self.scene.id(other);
                self.scene.world.with(peer, |p: &mut Peer, now| p.command(now, Command::Ping { peer: id, id: 1 }));
            }
            4 => {
                let peer = self.peers[input.choose_index(3)?];
                self.scene.kill(peer);
                self.scene.up(peer);
            }
            5 => {
                let gateway = self.scene.world.gateway_of(self.peers[input.choose_index(3)?]);
                self.scene.world.gate(gateway).nat.as_mut().expect("a NAT").forget();
            }
            6 => {
                let (peer, said) = (self.peers[input.choose_index(3)?], self.bullet(input)?);
                let somebody = ip("192.168.1.66");
                self.scene.world.with(peer, |p: &mut Peer, now| p.handle_said(now, somebody, &said));
            }
            _ => self.shoot(input)?,
        }
        Ok(())
    }

    fn shoot(&mut self, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        let doors = [self.server(), self.door(0), self.door(1), self.door(2)];
        let sources = [doors[0], doors[1], doors[2], doors[3], SocketAddr::new(ip("192.0.2.66"), 666)];
        let source = *input.choose(&sources)?;
        let to = match self.victim {
            Victim::Rendezvous => doors[0],
            Victim::Node => *input.choose(&doors[1..])?,
        };
        let payload = self.bullet(input)?;
        self.scene.world.inject(self.stranger, source, to, payload);
        Ok(())
    }

    /// A captured datagram, changed in one of many ways.
    fn bullet(&self, input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
        let mut bullet = input.choose(&self.captured)?.clone();
        match input.int_in_range(0..=6_u8)? {
            0 => {}
            1 => {
                for _ in 0..input.int_in_range(1..=4_u8)? {
                    let at = input.choose_index(bullet.len())?;
                    bullet[at] = input.arbitrary()?;
                }
            }
            2 => bullet.truncate(input.choose_index(bullet.len())?),
            3 => bullet.extend_from_slice(input.bytes(usize::from(input.len() > 8) * 8)?),
            4 => {
                let other = input.choose(&self.captured)?;
                let at = input.choose_index(bullet.len().min(other.len()))?;
                bullet.splice(at.., other[at..].iter().copied());
            }
            5 => {
                let len = usize::from(input.arbitrary::<u8>()?).min(input.len());
                bullet = input.bytes(len)?.to_vec();
            }
            // One kind of datagram in the clothes of another.
            _ => bullet[0] = *input.choose(&[0, 1, 2, 3, 0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8])?,
        }
        Ok(bullet)
    }

    /// All talk again, soon, and then lose nothing.
    fn check(mut self) {
        const PAIRS: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];
        for (a, b) in PAIRS {
            self.scene.acquaint(self.peers[a], self.peers[b], RECOVERY).expect("they know each other");
            self.scene.flows(self.peers[a], self.peers[b], SECOND / 10);
        }
        for (a, b) in PAIRS {
            self.scene.talk(self.peers[a], self.peers[b], RECOVERY).expect("they talk");
        }
        // What was shot last has hit by now.
        self.scene.run(SECOND * 2);
        let mark = self.scene.mark();
        self.scene.run(SECOND);
        self.scene.hush();
        for (a, b) in PAIRS.into_iter().chain(PAIRS.map(|(a, b)| (b, a))) {
            let (sent, lost) = self.scene.lost(mark, self.peers[a], self.peers[b]);
            assert_eq!(lost, 0, "of {sent} inner packets");
        }
    }
}
