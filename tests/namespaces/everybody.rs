//! What programs say to everybody, bound to no address: a real LAN and the overlay hear it both, and answer.
//!
//! ```text
//!   alice ─┐                       ┌── bob ──── a friend on his LAN      alice and bob direct
//!   a friend on her LAN ── router ─┤
//!                                  └── carol                             carol relayed
//! ```
//!
//! The friends run no punchlan.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use punchlan::node::status::PeerState;

use crate::lab::party::{Answering, Asking};
use crate::lab::programs::{Network, Peer, await_true};
use crate::lab::wire::{SETTLE, Wire};
use crate::lab::{Gateway, Host, Lab, SitePlan, netns};
use crate::{shared_turn, turn};

const PATIENCE: Duration = Duration::from_secs(15);
/// Ports of games that nobody plays.
const PORT: u16 = 27_960;
const MINECRAFT: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 2, 60), 4_445);
const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 77, 7, 7), PORT);
const LINK: (Ipv6Addr, u16) = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x7777), PORT);
const GLOBAL: (Ipv6Addr, u16) = (Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x7777), PORT);
const EVERYBODY: (Ipv4Addr, u16) = (Ipv4Addr::BROADCAST, PORT);

fn lab() -> Lab {
    let house = |gateway| SitePlan::new(gateway).with_ipv6().hosts(2);
    let alone = SitePlan::new(Gateway::Symmetric);
    Lab::new(&[house(Gateway::MasqueradeRandom), house(Gateway::Public), alone]).unwrap()
}

/// Starts alice, bob and carol, of whom alice knows the others.
fn meet<'a>(lab: &'a Lab, network: &Network) -> [Peer<'a>; 3] {
    let names = ["alice", "bob", "carol"];
    let [alice, bob, carol] =
        [0, 1, 2].map(|n| network.up(lab.host(n), names[n], u8::try_from(n + 1).unwrap()).unwrap());
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    alice.await_peer("carol", PeerState::Relayed, PATIENCE).unwrap();
    [alice, bob, carol]
}

fn subnet_broadcast(host: &Host) -> SocketAddr {
    let [a, b, c, _] = host.v4.unwrap().octets();
    (Ipv4Addr::new(a, b, c, 255), PORT).into()
}

#[test]
fn one_unbound_socket_asks_everybody_and_a_lan_and_an_overlay_answer_it_both() {
    let _turn = shared_turn();
    let lab = lab();
    let network = Network::start(&lab).unwrap();
    let peers @ [alice, bob, carol] = &meet(&lab, &network);
    let friend = &lab.sites[0].hosts[1];
    let on_lan = subnet_broadcast(alice.host);
    let groups = [MINECRAFT, GROUP].map(SocketAddr::from).into_iter().chain([LINK, GLOBAL].map(SocketAddr::from));
    for to in [EVERYBODY.into(), on_lan].into_iter().chain(groups) {
        let _answering = [("friend", friend), ("bob", bob.host), ("carol", carol.host)]
            .map(|(name, host)| Answering::start(&host.netns, name, to).unwrap());
        let asking = Asking::unbound(&alice.host.netns, to).unwrap();
        let answers = asking.ask_until(to, &["bob", "carol", "friend"], PATIENCE).unwrap();
        println!("{to}: {answers:?}");
        if to.is_ipv4() {
            let [_, bob, carol] = peers.each_ref().map(|peer| IpAddr::from(peer.address));
            let friend = friend.v4.unwrap().into();
            let expected = [("bob", bob), ("carol", carol), ("friend", friend)].map(|(name, ip)| (name.to_owned(), ip));
            assert_eq!(answers, BTreeMap::from(expected), "{to}");
        }
        // Each hears a question once, and every answer arrives.
        asking.ask(to, "once").unwrap();
        let names: Vec<String> = asking.answers().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["bob", "carol", "friend"], "{to}");
    }
}

#[test]
fn who_is_bound_to_an_address_of_the_lan_speaks_to_the_lan_alone_and_who_to_the_overlays_to_that() {
    let _turn = shared_turn();
    let lab = lab();
    let network = Network::start(&lab).unwrap();
    let [alice, bob, _carol] = &meet(&lab, &network);
    let friend = &lab.sites[0].hosts[1];
    for to in [EVERYBODY, GROUP].map(SocketAddr::from) {
        let answering = [("friend", friend), ("bob", bob.host)];
        let [on_lan, on_overlay] = answering.map(|(name, host)| Answering::start(&host.netns, name, to).unwrap());
        // Bob's wish to hear the group has reached alice.
        Asking::unbound(&alice.host.netns, to).unwrap().ask_until(to, &["bob", "friend"], PATIENCE).unwrap();
        let bound = Asking::bound_to(&alice.host.netns, alice.host.v4.unwrap().into()).unwrap();
        bound.ask(to, "on the LAN").unwrap();
        let lan = [("friend".to_owned(), friend.v4.unwrap().into())];
        assert_eq!(bound.answers(), lan);
        assert_eq!((on_lan.heard("on the LAN"), on_overlay.heard("on the LAN")), (1, 0), "{to}");

        let bound = Asking::bound_to(&alice.host.netns, alice.address.into()).unwrap();
        bound.ask(to, "on the overlay").unwrap();
        assert_eq!(bound.answers(), [("bob".to_owned(), bob.address.into())], "{to}");
        assert_eq!(on_lan.heard("on the overlay"), 0, "{to}");
    }
}

/// SSDP, as a television is found.
const SSDP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 255, 250), 1_900);
const MDNS: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5_353);
const MDNS_V6: (Ipv6Addr, u16) = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), 5_353);

#[test]
fn the_real_lan_is_heard_and_answered_as_ever_and_what_is_its_own_stays_there() {
    let _turn = shared_turn();
    let lab = lab();
    let network = Network::start(&lab).unwrap();
    let [alice, bob, _carol] = &meet(&lab, &network);
    let friend = &lab.sites[0].hosts[1];
    let groups = [SocketAddr::from(SSDP), MDNS.into(), MDNS_V6.into(), EVERYBODY.into()];
    for to in groups {
        let [here, there] = [("alice", alice.host), ("bob", bob.host)]
            .map(|(name, host)| Answering::start(&host.netns, name, to).unwrap());
        let asking = Asking::unbound(&friend.netns, to).unwrap();
        asking.ask_until(to, &["alice"], PATIENCE).unwrap();
        asking.ask(to, "who is in this house?").unwrap();
        let names: Vec<String> = asking.answers().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["alice"], "{to}");
        assert_eq!((here.heard("who is in this house?"), there.heard("who is in this house?")), (1, 0), "{to}");
    }
    // And the other way round: mDNS says what is true on one LAN.
    for to in [SocketAddr::from(MDNS), MDNS_V6.into()] {
        let [on_lan, on_overlay] = [("friend", friend), ("bob", bob.host)]
            .map(|(name, host)| Answering::start(&host.netns, name, to).unwrap());
        let asking = Asking::unbound(&alice.host.netns, to).unwrap();
        asking.ask_until(to, &["friend"], PATIENCE).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        asking.ask(to, "printers?").unwrap();
        asking.answers();
        assert_eq!((on_lan.heard("printers?"), on_overlay.heard("printers?")), (1, 0), "{to}");
    }
}

/// A length that nothing else on the wire has, and what it is sealed, by way of the relay or not.
const LENGTH: usize = 611;
const ON_WIRE: std::ops::Range<usize> = LENGTH + 81..LENGTH + 134;

#[test]
fn multicast_goes_to_who_joined_alone_and_nothing_of_it_leaves_by_a_real_lan_there() {
    let _turn = shared_turn();
    let lab = lab();
    let network = Network::start(&lab).unwrap();
    let [alice, bob, _carol] = &meet(&lab, &network);
    let to = SocketAddr::from(GROUP);
    let bobs = Answering::start(&bob.host.netns, "bob", to).unwrap();
    let everybodys = Answering::start(&bob.host.netns, "bob", EVERYBODY.into());
    let guest = &lab.sites[1].hosts[1];
    let overheard = [to, EVERYBODY.into()].map(|to| Answering::start(&guest.netns, "guest", to));
    let asking = Asking::unbound(&alice.host.netns, to).unwrap();
    asking.ask_until(to, &["bob"], PATIENCE).unwrap();

    let text = "x".repeat(LENGTH);
    let (core, house) = (Wire::tap(&lab).unwrap(), Wire::tap_at(&lab.sites[1].router).unwrap());
    for _ in 0..20 {
        asking.ask(to, &text).unwrap();
        asking.ask(EVERYBODY.into(), &text).unwrap();
        // Doubles within a moment are one.
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(SETTLE);
    drop((everybodys, overheard));
    // A broadcast reaches the port, whoever listens there.
    assert_eq!(bobs.heard(&text), 40);
    // Carol is relayed, by the rendezvous or by bob.
    let others = [bob.host.public_addresses(), Lab::rendezvous_addresses().into()].concat();
    let sealed = core.count(&alice.host.public_addresses(), &others, ON_WIRE).there.len();
    assert_eq!(sealed, 60, "to bob both, to carol the broadcast alone");
    let clear = house.packets().into_iter().filter(|packet| packet.contains(text.as_bytes()));
    assert_eq!(clear.count(), 0, "what came for bob left by his LAN");
}

#[test]
fn two_overlays_on_one_machine_both_hear_its_programs_and_never_each_other() {
    let _turn = shared_turn();
    let lab = lab();
    let network = Network::start(&lab).unwrap();
    let mut other = Network::without_rendezvous().unwrap();
    other.subnet = "10.88.0.0/24".parse().unwrap();
    let [alice, bob, carol] = [0, 1, 2].map(|n| lab.host(n));
    let here = network.join(alice, "alice", 1).unwrap();
    let _here_too = other.join(alice, "alice", 1).unwrap();
    let _bob = network.join(bob, "bob", 2).unwrap();
    let _carol = other.join(carol, "carol", 3).unwrap();
    here.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    for to in [EVERYBODY, GROUP].map(SocketAddr::from) {
        let [of_alice, of_bob, of_carol] = [("alice", alice), ("bob", bob), ("carol", carol)]
            .map(|(name, host)| Answering::start(&host.netns, name, to).unwrap());
        Asking::unbound(&alice.netns, to).unwrap().ask_until(to, &["bob", "carol"], PATIENCE).unwrap();
        let asking = Asking::unbound(&bob.netns, to).unwrap();
        asking.ask_until(to, &["alice"], PATIENCE).unwrap();
        asking.ask(to, "from bob").unwrap();
        asking.answers();
        assert_eq!((of_alice.heard("from bob"), of_carol.heard("from bob")), (1, 0), "{to}");
        assert_eq!(of_bob.heard("from carol"), 0);
    }
}

#[test]
fn while_it_is_switched_off_nothing_is_overheard_and_after_a_kill_nothing_is_left() {
    let _turn = shared_turn();
    let lab = lab();
    let mut network = Network::start(&lab).unwrap();
    let before = state_of(lab.host(0));
    let [mut alice, bob, _carol] = meet(&lab, &network);
    let to = EVERYBODY.into();
    let _bobs = Answering::start(&bob.host.netns, "bob", to).unwrap();
    let asking = Asking::unbound(&alice.host.netns, to).unwrap();
    asking.ask_until(to, &["bob"], PATIENCE).unwrap();
    assert!(open_taps(alice.host) > 0);
    alice.program.end(Signal::SIGKILL).unwrap();
    await_true("what is left to go", PATIENCE, || Ok(state_of(lab.host(0)) == before)).unwrap();
    assert_eq!(open_taps(lab.host(0)), 0);

    network.more = "[lan]\nbroadcast = false\nmulticast = false\n".to_owned();
    let alice = network.up(lab.host(0), "alice", 1).unwrap();
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    assert_eq!(open_taps(alice.host), 0);
    asking.ask(to, "nobody?").unwrap();
    assert_eq!(asking.answers(), []);
}

/// ```text
///   alice ─┐
///   bob ───┼── a switch, and nothing else
///   friend ┘
/// ```
#[test]
fn on_a_lan_without_any_way_out_games_that_the_system_would_not_let_ask_are_heard_by_all() {
    let _turn = shared_turn();
    let lab = Lab::new(&[SitePlan::new(Gateway::FullCone).hosts(3)]).unwrap();
    let mut network = Network::without_rendezvous().unwrap();
    network.servers = vec!["192.0.2.1:3478".to_owned()];
    let [alice, bob, friend] = [0, 1, 2].map(|n| &lab.sites[0].hosts[n]);
    let [a, b, c, _] = alice.v4.unwrap().octets();
    let router = Ipv4Addr::new(a, b, c, 1);
    for host in [alice, bob] {
        host.netns.ip("route del default").unwrap();
    }
    let before = state_of(alice);
    let socket = alice.netns.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    socket.set_broadcast(true).unwrap();
    assert!(socket.send_to(b"hello", EVERYBODY).is_err(), "there is no way");

    let mut here = network.up(alice, "alice", 1).unwrap();
    let _there = network.up(bob, "bob", 2).unwrap();
    here.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    assert!(leads_to_us(alice));
    let ask = |to: SocketAddr| {
        let _answering =
            [("friend", friend), ("bob", bob)].map(|(name, host)| Answering::start(&host.netns, name, to).unwrap());
        let asking = Asking::unbound(&alice.netns, to).unwrap();
        let answers = asking.ask_until(to, &["bob", "friend"], PATIENCE).unwrap();
        assert_eq!(answers["friend"], IpAddr::from(friend.v4.unwrap()));
    };
    [EVERYBODY, GROUP].map(SocketAddr::from).into_iter().for_each(ask);

    // The cable to the internet is plugged in.
    alice.netns.ip(&format!("route add default via {router}")).unwrap();
    await_true("the LAN to be the way", PATIENCE, || Ok(!leads_to_us(alice))).unwrap();
    ask(EVERYBODY.into());
    alice.netns.ip("route del default").unwrap();
    await_true("the overlay to be the way", PATIENCE, || Ok(leads_to_us(alice))).unwrap();
    here.program.end(Signal::SIGKILL).unwrap();
    await_true("what is left to go", PATIENCE, || Ok(state_of(alice) == before)).unwrap();
}

/// Whether groups are reached by an overlay's interface.
fn leads_to_us(host: &Host) -> bool {
    let output = netns::run(host.netns.command("ip").args(["route", "show", "224.0.0.0/4"])).unwrap();
    String::from_utf8_lossy(&output.stdout).contains("punch")
}

/// Interfaces, addresses, routes, rules and groups, as text.
fn state_of(host: &Host) -> String {
    let ask = |args: &[&str]| {
        let output = netns::run(host.netns.command("ip").args(args)).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    ask(&["-br", "address"])
        + &ask(&["route", "show", "table", "all"])
        + &ask(&["-6", "route", "show", "table", "all"])
        + &ask(&["rule"])
        + &ask(&["maddress"])
}

/// Sockets that see packets of others, or make such.
fn open_taps(host: &Host) -> usize {
    let lines = |list: &str| fs::read_to_string(format!("/proc/thread-self/net/{list}")).unwrap().lines().count() - 1;
    host.netns.enter(|| ["packet", "raw"].map(lines)).unwrap().into_iter().sum()
}

/// What a daemon may use of a processor, in percent, for a storm on its LAN that it is to lose; built without optimisation.
const BUSY: u64 = 40;

#[test]
fn a_storm_of_a_program_here_is_lost_before_it_costs_anything() {
    let _turn = turn();
    let lab = lab();
    let network = Network::start(&lab).unwrap();
    let [alice, bob, _carol] = &meet(&lab, &network);
    let _bobs = Answering::start(&bob.host.netns, "bob", EVERYBODY.into()).unwrap();
    let asking = Asking::unbound(&alice.host.netns, EVERYBODY.into()).unwrap();
    asking.ask_until(EVERYBODY.into(), &["bob"], PATIENCE).unwrap();
    let before = cpu_time(alice);
    let over = AtomicBool::new(false);
    let (sent, took) = std::thread::scope(|scope| {
        let storm = scope.spawn(|| storm(alice.host, &over));
        std::thread::sleep(Duration::from_secs(3));
        over.store(true, Ordering::Relaxed);
        storm.join().unwrap()
    });
    let busy = (cpu_time(alice) - before).as_millis() * 100 / took.as_millis();
    let lost = alice.status().unwrap().counters.drop.get("overheard-lost").copied().unwrap_or(0);
    println!("{sent} in {took:?}: {lost} lost, busy {busy} %");
    assert!(lost > sent / 2 && busy < BUSY.into(), "{sent} sent, {lost} lost, busy {busy} %");
    asking.ask_until(EVERYBODY.into(), &["bob"], PATIENCE).unwrap();
}

/// 10,000 broadcasts a second.
fn storm(host: &Host, over: &AtomicBool) -> (u64, Duration) {
    let socket = host.netns.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    socket.set_broadcast(true).unwrap();
    let (start, mut sent) = (Instant::now(), 0_u64);
    while !over.load(Ordering::Relaxed) {
        for _ in 0..20 {
            sent += 1;
            let _ = socket.send_to(&sent.to_be_bytes(), (Ipv4Addr::BROADCAST, PORT + 1));
        }
        std::thread::sleep((start + Duration::from_micros(100 * sent)).saturating_duration_since(Instant::now()));
    }
    (sent, start.elapsed())
}

/// What a daemon's process has used of processors.
fn cpu_time(peer: &Peer<'_>) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", peer.program.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime, in hundredths (proc_pid_stat(5)).
    let hundredths: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(hundredths * 10)
}
