//! Every limit says no in words, is counted, and harms nobody else.

use super::world::{MS, S, World, server_v4};
use crate::id::NetworkId;
use crate::rendezvous::server::{Limits, Rate};
use crate::rendezvous::{Event, State};
use crate::server::Config;
use crate::wire::VERSION;
use crate::wire::rendezvous::Hello;

fn with(registrations: Limits) -> World {
    World::with(Config { registrations, ..Config::default() })
}

fn refused(world: &World, text: &str) -> usize {
    let is = |peer: &&super::world::Peer| {
        peer.client.state() == State::Refused && peer.client.problem().is_some_and(|problem| problem.contains(text))
    };
    world.peers.iter().filter(is).count()
}

#[test]
fn memory_is_bounded_by_registrations_in_all_of_a_network_and_of_a_prefix() {
    for (limits, counter, text) in [
        (Limits { registrations: 3, ..Limits::default() }, "full", "as many registrations as it may"),
        (Limits { per_network: 3, ..Limits::default() }, "network-full", "as many members of this network"),
        (Limits { per_prefix: 3, v4_prefix: 24, ..Limits::default() }, "prefix-full", "from this address range"),
    ] {
        let mut world = with(limits);
        let all: Vec<usize> = (0..5).map(|device| world.join(1, device)).collect();
        world.run(S * 3);
        assert_eq!(refused(&world, text), 2, "{counter}");
        assert!(world.counter(counter) >= 2, "{counter}");
        assert_eq!(world.core.as_ref().expect("runs").registrations(), 3);
        // When somebody leaves, somebody else gets in.
        let first = world.peers.iter().position(|p| p.client.state() == State::Registered).expect("some");
        world.peers[first].client.leave(world.now);
        world.drain();
        world.run(S * 60);
        assert_eq!(refused(&world, text), 1);
        assert_eq!(all.len(), 5);
    }
}

#[test]
fn who_sits_already_is_not_refused_when_it_is_full() {
    let mut world = with(Limits { registrations: 1, ..Limits::default() });
    let a = world.join(1, 1);
    world.run(S * 3);
    world.peers[a].addr = "203.0.113.9:9".parse().expect("address");
    world.peers[a].client.reregister(world.now);
    world.run(S);
    assert_eq!(world.counter("renewed"), 1);
    assert_eq!(world.counter("full"), 0);
}

#[test]
fn who_moves_to_a_full_prefix_stays_where_it_was() {
    let mut world = with(Limits { per_prefix: 2, v4_prefix: 24, ..Limits::default() });
    let all: Vec<usize> = (0..2).map(|device| world.join(1, device)).collect();
    world.run(S * 3);
    // Another network's, elsewhere; then its address becomes one of the same prefix.
    let mover = world.join(2, 9);
    world.peers[mover].addr = "192.0.2.9:40000".parse().expect("address");
    world.run(S * 5);
    assert_eq!(world.peers[mover].client.state(), State::Registered);
    world.peers[mover].addr = "203.0.113.77:40000".parse().expect("address");
    world.peers[mover].client.reregister(world.now);
    world.run(S * 2);
    assert_eq!(world.counter("renewed"), 0);
    assert!(world.counter("prefix-full") >= 1);
    // Once there is room it gets in.
    world.peers[all[0]].client.leave(world.now);
    world.run(S * 100);
    assert_eq!(world.peers[mover].client.state(), State::Registered);
}

#[test]
fn a_private_server_serves_its_networks_alone() {
    let own = super::world::identity(1, 1).network.id();
    let mut world = with(Limits { allow: vec![own, NetworkId([7; 32])], ..Limits::default() });
    let (a, b) = (world.join(1, 1), world.join(2, 1));
    world.run(S * 60);
    assert_eq!(world.peers[a].client.state(), State::Registered);
    assert_eq!(world.peers[b].client.state(), State::Refused);
    assert!(world.peers[b].client.problem().is_some_and(|text| text.contains("`allow`")));
    assert_eq!(world.peers[b].count(|e| matches!(e, Event::Refused(_))), 1);
}

#[test]
fn a_flood_from_one_prefix_leaves_room_for_others() {
    let mut world = with(Limits { hellos_per_prefix: Rate::new(5, 10), ..Limits::default() });
    for port in 1..2000 {
        let from = std::net::SocketAddr::new([192, 0, 2, 66].into(), port);
        let hello = Hello { version: VERSION, nonce: [1; 16], asked: None };
        world.inject(from, server_v4(), hello.encode());
    }
    let a = world.join(1, 1);
    world.run(S);
    assert_eq!(world.peers[a].client.state(), State::Registered);
    assert!(world.counter("busy") > 1900);
    assert!(world.counter("hello") <= 17);
}

#[test]
fn everybody_gets_in_after_a_restart_though_the_rate_of_registers_is_small() {
    let mut world = with(Limits { registers: Rate::new(5, 5), ..Limits::default() });
    let all: Vec<usize> = (0..20).map(|device| world.join(1, device)).collect();
    let took = world.run_until(S * 120, |w| w.all_know_each_other(&all)).expect("all get in");
    assert!(took > S * 3, "{took:?}");
    assert!(world.counter("busy") > 0);
}

#[test]
fn relayed_traffic_over_the_limit_is_dropped_counted_and_said() {
    let mut config = Config::default();
    config.relay.prefix_bytes = 100_000;
    let mut world = World::with(config);
    let (a, b) = world.relayed_pair();
    for _ in 0..1000 {
        assert!(world.relay(a, b, &[0; 1000]));
        world.run(MS);
    }
    world.run(S);
    let through = world.peers[b].relayed.len();
    assert!((100..=135).contains(&through), "{through}");
    assert_eq!(world.counter("relay-over-prefix"), 1000 - u64::try_from(through).expect("few"));
    assert!(world.peers[a].client.problem().is_some_and(|text| text.contains("limit for relayed traffic")));
    world.run(S * 60);
    assert_eq!(world.peers[a].client.problem(), None, "it passes");
}

#[test]
fn channels_over_the_limit_are_refused_in_words() {
    let mut config = Config::default();
    config.relay.channels_per_peer = 2;
    let mut world = World::with(config);
    let all: Vec<usize> = (0..5).map(|device| world.join(1, device)).collect();
    world.run(S * 3);
    for other in &all[1..] {
        let id = world.id(*other);
        world.peers[0].client.open_channel(world.now, id);
    }
    world.drain();
    world.run(S * 3);
    assert!(world.counter("channels-full") >= 2);
    assert!(world.peers[0].client.problem().is_some_and(|text| text.contains("no relay channel left")));
    assert_eq!(world.counter("channels"), 2);
}

#[test]
fn stun_answers_are_limited_by_prefix() {
    let mut world = World::with(Config { stun_per_prefix: Rate::new(1, 3), ..Config::default() });
    let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat();
    for from in ["192.0.2.66:1", "192.0.2.67:1"] {
        for _ in 0..10 {
            world.inject(from.parse().expect("address"), server_v4(), request.clone());
        }
    }
    world.run(MS * 50);
    assert_eq!((world.counter("stun"), world.counter("stun-rate")), (6, 14));
}
