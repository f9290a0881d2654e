//! What a player must not notice: a path that gets better and keys that change, under a flow that loses nothing.
//!
//! Two routers let nothing pass between each other at first, so the flow is relayed; then they do, and it becomes
//! direct. `FLOW=100000 cargo test --release --test namespaces seamless -- --nocapture` runs long enough for keys to
//! change twice.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use punchlan::node::status::{PeerState, Status};

use crate::lab::programs::{Network, Peer};
use crate::lab::wire::Wire;
use crate::lab::{Gateway, Lab};
use crate::meeting::settles;
use crate::turn;

/// Packets a second, each of which is sent back.
const RATE: u32 = 400;
/// As long as those of many games.
const LENGTH: usize = 200;
/// A packet that is still under way after this is lost.
const LATE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);
/// The line is shut for the first part of the flow.
const SHUT: Duration = Duration::from_secs(3);
/// Keys that are as old are about to be changed.
const REKEY: Duration = Duration::from_secs(120);

#[test]
fn a_flow_that_becomes_direct_and_changes_its_keys_loses_nothing() {
    let _turn = turn();
    let packets = std::env::var("FLOW").map_or(6_000, |text| text.parse().expect("a number of packets"));
    let lab = Lab::new(&[Gateway::PortRestricted, Gateway::PortRestricted]).unwrap();
    let network = Network::start(&lab).unwrap();
    shut(&lab, true).unwrap();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    let bob = network.join(lab.host(1), "bob", 2).unwrap();
    bob.await_peer("alice", PeerState::Relayed, PATIENCE).unwrap();
    alice.await_peer("bob", PeerState::Relayed, PATIENCE).unwrap();

    let flow = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(SHUT);
            shut(&lab, false).unwrap();
        });
        flow(&alice, &bob, packets).unwrap()
    });
    println!("{packets} packets in {:?}, each sent back: {flow:?}", packets_in(packets));
    let status = alice.status().unwrap();
    let direct_after = Duration::from_millis(status.peers[0].direct_after_ms.expect("it is direct by now"));
    assert!(SHUT < direct_after && direct_after < packets_in(packets), "direct after {direct_after:?}");
    settles(&lab, &Wire::tap(&lab).unwrap(), &alice, &bob, true).unwrap();
    if packets_in(packets) > REKEY * 2 {
        let age = handshake_age(&status).unwrap();
        assert!(age < REKEY, "the keys are {age:?} old");
    }
    assert_eq!(flow, Flow { lost: 0, doubled: 0 });
}

/// Lets nothing pass between the two sites, or everything.
fn shut(lab: &Lab, shut: bool) -> Result<()> {
    lab.block(if shut { &[r#"iifname "site*" oifname "site*""#] } else { &[] })
}

/// How long so many packets take.
fn packets_in(packets: u32) -> Duration {
    Duration::from_secs(1) * packets / RATE
}

fn handshake_age(status: &Status) -> Result<Duration> {
    Ok(Duration::from_secs_f64(status.peers[0].handshake_age_s.context("there is a session")?))
}

/// What became of a flow's packets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
}

/// Numbered packets at a steady rate from `client` to `server`, which sends each back.
pub(crate) fn flow(client: &Peer<'_>, server: &Peer<'_>, packets: u32) -> Result<Flow> {
    let there = bound(server, 7_001)?;
    let here = bound(client, 7_002)?;
    let to = SocketAddr::from((server.address, 7_001));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut packet = [0; LENGTH];
            // Ends when nothing has come for a while.
            while let Ok((len, from)) = there.recv_from(&mut packet) {
                there.send_to(&packet[..len], from).expect("the overlay is there");
            }
        });
        let sent_back = scope.spawn(|| {
            let (mut packet, mut seen) = ([0; LENGTH], BTreeMap::<u32, usize>::new());
            while let Ok(len) = here.recv(&mut packet) {
                let number = packet[..len].first_chunk().expect("a number is in front");
                *seen.entry(u32::from_be_bytes(*number)).or_default() += 1;
            }
            seen
        });
        let (start, mut packet) = (Instant::now(), [0; LENGTH]);
        for number in 0..packets {
            packet[..4].copy_from_slice(&number.to_be_bytes());
            here.send_to(&packet, to)?;
            std::thread::sleep((start + packets_in(number + 1)).saturating_duration_since(Instant::now()));
        }
        let seen = sent_back.join().expect("the counter does not panic");
        let doubled = seen.values().map(|times| times - 1).sum();
        Ok(Flow { lost: usize::try_from(packets)? - seen.len(), doubled })
    })
}

fn bound(peer: &Peer<'_>, port: u16) -> Result<UdpSocket> {
    let address: (Ipv4Addr, u16) = (peer.address, port);
    let socket = peer.host.netns.enter(|| UdpSocket::bind(address))??;
    socket.set_read_timeout(Some(LATE))?;
    Ok(socket)
}
