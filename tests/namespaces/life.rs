//! A daemon's life: what it leaves behind, what it survives, and what the wire sees of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use punchlan::node::status::{PeerState, RendezvousState, Status};

use crate::lab::programs::{NAME, Network};
use crate::lab::wire::{SETTLE, Wire};
use crate::lab::{Gateway, Host, Lab, RENDEZVOUS, netns};
use crate::meeting::settles;
use crate::{shared_turn, turn};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_capture_of_a_whole_run_shows_no_name_no_overlay_address_and_no_inner_byte() {
    let _turn = shared_turn();
    // Relayed and direct, from the first packet to the last.
    for gateways in [[Gateway::Symmetric, Gateway::Symmetric], [Gateway::FullCone, Gateway::Public]] {
        let lab = Lab::new(&gateways).unwrap();
        let wire = Wire::tap(&lab).unwrap();
        // What is not sealed would be found.
        ping_with_pattern(lab.host(0), RENDEZVOUS.into());
        std::thread::sleep(SETTLE);
        assert!(wire.packets().iter().filter(|packet| packet.contains(&PATTERN)).count() >= 20);
        wire.clear();
        let network = Network::start(&lab).unwrap();
        let mut alice = network.join(lab.host(0), "alice-at-home", 1).unwrap();
        let mut bob = network.up(lab.host(1), "bob-on-the-road", 2).unwrap();
        bob.await_status("alice", PATIENCE, |status| {
            status.peers.iter().any(|peer| matches!(peer.state, PeerState::Direct | PeerState::Relayed))
        })
        .unwrap();
        let alice_v6 = alice.address_v6().unwrap();
        let bob_v6 = bob.address_v6().unwrap();
        ping_with_pattern(bob.host, alice.address.into());
        ping_with_pattern(bob.host, alice_v6);
        alice.program.end(Signal::SIGTERM).unwrap();
        bob.program.end(Signal::SIGTERM).unwrap();

        let mut needles = [NAME, "alice-at-home", "bob-on-the-road", "10.77.0.1", "10.77.0.2", "plk1"]
            .map(|text| text.as_bytes().to_vec())
            .to_vec();
        needles.push(network.key.as_bytes()[8..40].to_vec());
        needles.push([alice.address.octets(), bob.address.octets()].concat());
        needles.push([bob.address.octets(), alice.address.octets()].concat());
        needles.extend([alice_v6, bob_v6].map(octets));
        needles.push(PATTERN.to_vec());
        let packets = wire.packets();
        assert!(packets.len() > 50, "{} packets are no run", packets.len());
        for packet in &packets {
            for needle in &needles {
                let from = packet.from;
                assert!(!packet.contains(needle), "{:?} in a packet from {from}", String::from_utf8_lossy(needle));
            }
        }
    }
}

const PATTERN: [u8; 12] = [0xba, 0x5e, 0xba, 0x11, 0xba, 0x5e, 0xba, 0x11, 0xba, 0x5e, 0xba, 0x11];

fn ping_with_pattern(host: &Host, target: IpAddr) {
    let mut ping = host.netns.command("ping");
    let target = target.to_string();
    netns::run(ping.args(["-n", "-c", "10", "-i", "0.02", "-s", "600", "-p", "ba5eba11", &target])).unwrap();
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[test]
fn after_a_sigterm_nothing_is_left_behind() {
    let _turn = turn();
    let lab = Lab::new(&[Gateway::FullCone, Gateway::PortRestricted]).unwrap();
    let before = state_of(lab.host(0));
    let network = Network::start(&lab).unwrap();
    let mut alice = network.join(lab.host(0), "alice", 1).unwrap();
    let bob = network.join(lab.host(1), "bob", 2).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    assert_ne!(state_of(lab.host(0)), before);

    let (status, time) = alice.program.end(Signal::SIGTERM).unwrap();
    assert!(status.success(), "{status}");
    assert!(time < Duration::from_secs(2), "{time:?}");
    assert_eq!(state_of(lab.host(0)), before, "interfaces, addresses, routes and rules are as before");
    bob.await_peer("alice", PeerState::Offline, Duration::from_secs(2)).unwrap();
    let after = alice.command(&["status"]).output().unwrap();
    assert_eq!(after.status.code(), Some(4), "nothing runs");
    assert!(after.stdout.is_empty());
}

/// Interfaces, addresses, routes and rules, as text.
fn state_of(host: &Host) -> String {
    let ask = |args: &[&str]| {
        let output = netns::run(host.netns.command("ip").args(args)).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    ask(&["-br", "address"])
        + &ask(&["route", "show", "table", "all"])
        + &ask(&["-6", "route", "show", "table", "all"])
        + &ask(&["rule"])
}

#[test]
fn who_is_told_to_stop_while_packets_flood_it_says_goodbye_and_goes() {
    let _turn = turn();
    let lab = Lab::new(&[Gateway::Public, Gateway::Public]).unwrap();
    let network = Network::start(&lab).unwrap();
    let mut alice = network.join(lab.host(0), "alice", 1).unwrap();
    let bob = network.join(lab.host(1), "bob", 2).unwrap();
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    let [a, b] = [&alice, &bob].map(|peer| (peer.host, peer.address));
    let over = AtomicBool::new(false);
    let (status, time) = std::thread::scope(|scope| {
        // What is for a peer, for all and for nobody, both ways.
        for ((host, from), (_, to)) in [(a, b), (b, a)] {
            let [broadcast, nobody] = [255, 77].map(|last| with_last(to, last));
            let targets = [to, broadcast, nobody].map(|target| SocketAddr::from((target, 9)));
            let socket = host.netns.enter(|| UdpSocket::bind((from, 0))).unwrap().unwrap();
            socket.set_broadcast(true).unwrap();
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // A full queue and an interface that is gone are part of it.
                    targets.iter().for_each(|target| drop(socket.send_to(&[7; 100], target)));
                }
            });
        }
        std::thread::sleep(Duration::from_secs(1));
        let ended = alice.program.end(Signal::SIGTERM);
        over.store(true, Ordering::Relaxed);
        ended.unwrap()
    });
    assert!(status.success(), "{status}");
    assert!(time < Duration::from_secs(2), "{time:?}");
    bob.await_peer("alice", PeerState::Offline, Duration::from_secs(2)).unwrap();
}

fn with_last(address: Ipv4Addr, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, last)
}

#[test]
fn a_name_server_that_never_answers_delays_no_exit() {
    let _turn = turn();
    let lab = Lab::new(&[Gateway::Public]).unwrap();
    let _mute = lab.rendezvous.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap().unwrap();
    lab.host(0).netns.set_name_server(RENDEZVOUS.into()).unwrap();
    let mut network = Network::without_rendezvous().unwrap();
    network.servers = vec!["play.example.org".to_owned()];
    let mut alice = network.up(lab.host(0), "alice", 1).unwrap();
    let resolving = |status: &Status| status.rendezvous[0].state == RendezvousState::Resolving;
    alice.await_status("to ask for the address", PATIENCE, resolving).unwrap();
    let (status, time) = alice.program.end(Signal::SIGTERM).unwrap();
    assert!(status.success(), "{status}");
    assert!(time < Duration::from_secs(2), "{time:?}");
}

#[test]
fn what_a_killed_daemon_leaves_is_taken_over_by_the_next() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::FullCone, Gateway::Masquerade]).unwrap();
    let network = Network::start(&lab).unwrap();
    let mut alice = network.join(lab.host(0), "alice", 1).unwrap();
    let bob = network.join(lab.host(1), "bob", 2).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    alice.program.end(Signal::SIGKILL).unwrap();

    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    let mut pings = alice.start_pings(bob.address).unwrap();
    pings.first_answer(PATIENCE).unwrap();
    drop(pings);
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    settles(&lab, &Wire::tap(&lab).unwrap(), &alice, &bob, true).unwrap();
}

#[test]
fn tunnels_outlive_the_rendezvous_and_find_it_again() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::PortRestricted, Gateway::PortRestricted]).unwrap();
    let mut network = Network::start(&lab).unwrap();
    let mut rendezvous = network.rendezvous.take().unwrap();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    let bob = network.join(lab.host(1), "bob", 2).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();

    rendezvous.end(Signal::SIGKILL).unwrap();
    assert_eq!(bob.ping(alice.address.into(), 50).unwrap(), 50);

    network.start_rendezvous(&lab.rendezvous).unwrap();
    for peer in [&alice, &bob] {
        peer.await_status("a new registration", Duration::from_secs(60), |status| {
            status.rendezvous[0].state == RendezvousState::Registered
        })
        .unwrap();
    }
    settles(&lab, &Wire::tap(&lab).unwrap(), &alice, &bob, true).unwrap();
}

#[test]
fn strangers_with_another_key_never_see_each_other() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::Public, Gateway::Public]).unwrap();
    let network = Network::start(&lab).unwrap();
    let other = Network::without_rendezvous().unwrap();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    let mallory = other.join(lab.host(1), "mallory", 2).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(alice.status().unwrap().peers.is_empty());
    assert!(mallory.status().unwrap().peers.is_empty());
    assert_eq!(mallory.ping(alice.address.into(), 3).unwrap(), 0);
}

/// The promise for an idle peer, resident; the code of a build that is not optimised is larger, and nearly all of it.
const RESIDENT_KB: u64 = if cfg!(debug_assertions) { 32_000 } else { 12_000 };

#[test]
fn an_idle_peer_is_small() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::FullCone, Gateway::Masquerade]).unwrap();
    let network = Network::start(&lab).unwrap();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    let bob = network.join(lab.host(1), "bob", 2).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", alice.program.pid())).unwrap();
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    let resident: u64 = resident.unwrap();
    println!("an idle peer: {resident} kB resident");
    assert!(resident <= RESIDENT_KB);
}
