//! Somebody on the wire sends rubbish without end: datagrams of this very session, captured a moment ago, as they were
//! or changed, and random ones, with the source of the other peer, of the rendezvous or of a stranger, to both peers
//! and to the rendezvous. Pings between the peers go on as if nothing were.
//!
//! `STORM=1000000 cargo test --release --test namespaces storm -- --nocapture` is a long one.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn};
use punchlan::node::status::PeerState;
use punchlan::sans::{Rng, Seed};

use crate::lab::programs::{Network, Peer};
use crate::lab::wire::Wire;
use crate::lab::{Gateway, Lab, RENDEZVOUS};
use crate::night::{Diary, assert_quiet};
use crate::turn;

/// Datagrams a second: what the receivers' socket buffers hold even when the machine is busy elsewhere, so that it is
/// the programs that are tested.
const RATE: u32 = 8_000;
/// Sent between two looks at the clock.
const BURST: u32 = 40;
/// So many of the newest captured datagrams are used.
const CAPTURED: usize = 2_000;
/// Growth of memory that is none, percent.
const FLAT: f64 = 5.0;
const PATIENCE: Duration = Duration::from_secs(10);
const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 250), 666);
const SERVER: SocketAddrV4 = SocketAddrV4::new(RENDEZVOUS, 3478);

#[test]
fn a_storm_of_mutated_datagrams_of_a_live_session_costs_no_ping() {
    let _turn = turn();
    let datagrams = std::env::var("STORM").map_or(60_000, |text| text.parse().expect("a number of datagrams"));
    storm(datagrams).unwrap();
}

fn storm(datagrams: u32) -> Result<()> {
    let lab = Lab::new(&[Gateway::FullCone, Gateway::FullCone])?;
    let wire = Wire::tap(&lab)?;
    let network = Network::start(&lab)?;
    let alice = network.join(lab.host(0), "alice", 1)?;
    let bob = network.up(lab.host(1), "bob", 2)?;
    bob.await_peer("alice", PeerState::Direct, PATIENCE)?;
    alice.await_peer("bob", PeerState::Direct, PATIENCE)?;
    let mut pings = bob.start_pings(alice.address)?;
    pings.first_answer(PATIENCE)?;

    let doors = [door(&alice)?, door(&bob)?, SERVER];
    let rendezvous = network.rendezvous.as_ref().context("it runs")?;
    let processes = [("alice", alice.program.pid()), ("bob", bob.program.pid()), ("rendezvous", rendezvous.pid())];
    let mut diaries = processes.map(|(name, pid)| Diary::of(name, pid));
    let raw = lab.core.enter(raw_socket)??;
    let mut weather = Weather { rng: Seed::from_u64(datagrams.into()).rng(), captured: Vec::new(), genuine: 0 };
    let start = Instant::now();
    for sent in 0..datagrams {
        if sent.is_multiple_of(BURST) {
            std::thread::sleep(
                (start + Duration::from_secs(1) * sent / RATE).saturating_duration_since(Instant::now()),
            );
        }
        if sent.is_multiple_of(datagrams.div_ceil(100)) {
            weather.capture(&wire);
            diaries.iter_mut().try_for_each(Diary::note)?;
        }
        let (from, to) = (weather.one_of(&[doors[0], doors[1], SERVER, STRANGER]), weather.one_of(&doors));
        let payload = weather.datagram();
        send(&raw, from, to, &payload)?;
    }
    let genuine = weather.genuine;
    println!(
        "{datagrams} datagrams in {:?}, {genuine} of them from captured ones\n{}",
        start.elapsed(),
        Diary::HEADINGS
    );
    assert!(genuine >= datagrams / 2);

    let all = pings.said().lines().filter(|line| line.contains("bytes from")).count();
    let flaws = pings.end()?;
    println!("{all} pings answered, {} lost", flaws.lost);
    for diary in &diaries {
        println!("{diary}");
        assert!(diary.growth() <= FLAT, "{diary}");
    }
    for peer in [&alice, &bob] {
        let status = peer.status()?;
        let dropped: u64 = status.counters.drop.values().sum();
        println!("{} dropped {dropped}: {:?}", peer.name, status.counters.drop);
        assert!(dropped > u64::from(datagrams) / 4, "what came in was counted");
        assert!(status.warnings.is_empty(), "{:?}", status.warnings);
        assert_eq!(status.peers[0].state, PeerState::Direct);
        assert_quiet(&peer.name, &peer.program.said());
    }
    assert_quiet("rendezvous", &rendezvous.said());
    assert_eq!(flaws.lost, 0);
    Ok(())
}

/// Where the internet reaches a peer.
pub(crate) fn door(peer: &Peer<'_>) -> Result<SocketAddrV4> {
    let public = peer.host.public_v4.context("it has IPv4")?;
    let candidates = peer.status()?.me.candidates;
    let found = candidates.iter().find(|candidate| candidate.address.ip() == IpAddr::V4(public));
    let port = found.context("the rendezvous saw it")?.address.port();
    Ok(SocketAddrV4::new(public, port))
}

/// What comes down.
struct Weather {
    rng: Rng,
    captured: Vec<Vec<u8>>,
    /// How many were made of captured ones.
    genuine: u32,
}

impl Weather {
    /// The newest datagrams on the wire; a capture does not see what is sent here.
    fn capture(&mut self, wire: &Wire) {
        let payloads = wire.packets().into_iter().filter_map(|packet| udp_payload(&packet.bytes));
        self.captured.extend(payloads);
        wire.clear();
        let old = self.captured.len().saturating_sub(CAPTURED);
        self.captured.drain(..old);
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.u32() as usize % n.max(1)
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn datagram(&mut self) -> Vec<u8> {
        if self.below(5) == 0 {
            let mut random = vec![0; self.below(1_400) + 1];
            self.rng.fill(&mut random);
            // Half of them look like something of ours.
            if self.below(2) == 0 {
                random[0] = 0xe0 + u8::try_from(self.below(16)).expect("below 16");
            }
            return random;
        }
        self.genuine += 1;
        let chosen = self.below(self.captured.len());
        let mut datagram = self.captured[chosen].clone();
        match self.below(5) {
            // As it was, but late, twice, or from elsewhere.
            0 => {}
            1 | 2 => {
                for _ in 0..=self.below(4) {
                    let at = self.below(datagram.len());
                    datagram[at] = self.rng.array::<1>()[0];
                }
            }
            3 => datagram.truncate(self.below(datagram.len()).max(1)),
            _ => {
                let other = self.below(self.captured.len());
                let at = self.below(datagram.len().min(self.captured[other].len()));
                datagram.truncate(at);
                datagram.extend_from_slice(&self.captured[other][at..]);
            }
        }
        datagram
    }
}

fn udp_payload(packet: &[u8]) -> Option<Vec<u8>> {
    let packet = SlicedPacket::from_ip(packet).ok()?;
    match (packet.net?, packet.transport?) {
        (NetSlice::Ipv4(_), TransportSlice::Udp(udp)) if !udp.payload().is_empty() => Some(udp.payload().to_vec()),
        _ => None,
    }
}

pub(crate) fn raw_socket() -> Result<OwnedFd> {
    let raw = socket::socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)?;
    Ok(raw)
}

/// Writes a datagram with any source.
pub(crate) fn send(raw: &OwnedFd, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Result<()> {
    let builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64).udp(from.port(), to.port());
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload)?;
    let target = SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0));
    match socket::sendto(raw.as_raw_fd(), &packet, &target, MsgFlags::empty()) {
        // A full queue on the way loses datagrams, as any does.
        Ok(_) | Err(nix::errno::Errno::ENOBUFS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
