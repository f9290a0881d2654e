//! Whole searches of two path-finders in virtual time, through NATs by RFC 4787.

#[path = "punch/world.rs"]
mod world;

use std::time::Duration;

use punchlan::nat::model::{self as nat, NatConfig};
use punchlan::punch::{Event, PathKind, Via};
use world::*;

type Kind = (&'static str, Option<NatConfig>);

fn five() -> [Kind; 5] {
    [
        ("public", None),
        ("full cone", Some(NatConfig::full_cone())),
        ("address-restricted", Some(NatConfig::address_restricted())),
        ("port-restricted", Some(NatConfig::port_restricted())),
        ("symmetric", Some(NatConfig::symmetric())),
    ]
}

/// The oracle for the five types: all but port-restricted × symmetric and symmetric × symmetric.
fn becomes_direct(a: &str, b: &str) -> bool {
    !matches!((a, b), ("symmetric", "symmetric" | "port-restricted") | ("port-restricted", "symmetric"))
}

/// A Linux gateway forgets a flow that was never answered after 30 s.
fn linux() -> NatConfig {
    NatConfig { lifetime: secs(30.0), ..NatConfig::linux_masquerade() }
}

fn pairs() -> impl Iterator<Item = (Kind, Kind)> {
    five().into_iter().flat_map(|a| five().into_iter().map(move |b| (a, b)))
}

// ---- the table ----

#[test]
fn every_pair_of_the_five_types_becomes_what_the_table_says() {
    for ((a, nat_a), (b, nat_b)) in pairs() {
        let mut world = World::pair(1, nat_a, nat_b);
        world.introduce(Duration::ZERO);
        let took = world.run_until(secs(60.0), World::both_direct);
        assert_eq!(took.is_some(), becomes_direct(a, b), "{a} × {b}: {took:?}");
        if let Some(took) = took {
            assert!(took <= world.delay * 5, "{a} × {b} took {took:?}");
        } else {
            assert!((0..2).all(|i| world.peers[i].punch.choice().is_some_and(|c| c.kind == PathKind::Relay)));
        }
    }
}

#[test]
fn a_clean_line_is_direct_after_four_trips() {
    let cone = Some(NatConfig::port_restricted());
    let mut world = World::pair(1, cone, cone);
    world.introduce(Duration::ZERO);
    let took = world.run_until(secs(5.0), World::both_direct).expect("direct");
    assert!(took <= world.delay * 4 + ms(1), "{took:?}");
}

#[test]
fn the_table_holds_with_100_ms_and_5_percent_loss() {
    let mut all = Vec::new();
    for ((a, nat_a), (b, nat_b)) in pairs() {
        let mut times: Vec<Duration> = (0..20)
            .filter_map(|seed| {
                let mut world = World::pair(seed, nat_a, nat_b);
                (world.delay, world.loss_percent) = (ms(100), 5);
                world.introduce(ms(seed % 4 * 40));
                let took = world.run_until(secs(60.0), World::both_direct);
                assert_eq!(took.is_some(), becomes_direct(a, b), "{a} × {b} seed {seed}");
                took
            })
            .collect();
        times.sort();
        if let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) {
            println!("{a:>18} × {b:<18} median {median:?} worst {worst:?}");
            assert!(*median <= ms(800), "{a} × {b} median {median:?}");
        }
        all.extend(times);
    }
    all.sort();
    let worst = all[all.len() * 99 / 100];
    println!("p99 {worst:?} max {:?}", all.last());
    assert!(worst <= ms(1500), "{worst:?}");
}

#[test]
fn linux_gateways_are_passed_although_they_mistake_early_probes_for_flows() {
    for seed in 0..30 {
        let linux = Some(linux());
        let mut world = World::pair(seed, linux, linux);
        (world.delay, world.loss_percent) = (ms(20 + seed), 3);
        world.introduce(ms(seed * 9));
        let took = world.run_until(secs(60.0), World::both_direct);
        assert!(took.is_some_and(|took| took < secs(2.0)), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_sprung_trap_of_a_linux_gateway_heals_within_a_minute() {
    let linux = Some(linux());
    let mut world = World::pair(3, linux, linux);
    world.relay_works = false;
    world.introduce(ms(900));
    assert_eq!(world.run_until(secs(4.0), World::both_direct), None, "the trap is sprung");
    world.relay_works = true;
    world.each(|now, punch| punch.relay_up(now, RELAY));
    let took = world.run_until(secs(100.0), World::both_direct);
    assert!(took.is_some_and(|took| took < secs(80.0)), "{took:?}");
}

#[test]
fn a_search_without_any_relay_works_too() {
    for ((a, nat_a), (b, nat_b)) in pairs() {
        let mut world = World::pair(1, nat_a, nat_b);
        world.relay_works = false;
        world.introduce(ms(60));
        let took = world.run_until(secs(30.0), World::both_direct);
        assert_eq!(took.is_some(), becomes_direct(a, b), "{a} × {b}");
        assert!(took.is_none_or(|took| took < ms(500)), "{a} × {b}: {took:?}");
    }
}

#[test]
fn the_relay_may_open_after_the_introduction() {
    let cone = Some(linux());
    let mut world = World::pair(1, cone, cone);
    world.relay_works = false;
    world.introduce(Duration::ZERO);
    world.relay_works = true;
    world.run(ms(40));
    world.each(|now, punch| punch.relay_up(now, RELAY));
    let took = world.run_until(secs(5.0), World::both_direct).expect("direct");
    assert!(took <= world.delay * 4 + ms(1), "{took:?}");
}

// ---- sites and families ----

fn one_site(hairpin: bool) -> World {
    let mut world = World::new(1);
    let gateway = world.gateway(NatConfig { hairpin, ..NatConfig::port_restricted() }, "203.0.113.1");
    for i in 0..2 {
        let addr = addr(&format!("192.168.0.{}:5000", i + 2));
        world.peer(vec![Endpoint { socket: V4, addr, gateway: Some(gateway) }]);
    }
    world.introduce(Duration::ZERO);
    world
}

#[test]
fn peers_behind_one_router_meet_inside_with_and_without_hairpin() {
    for hairpin in [false, true] {
        let mut world = one_site(hairpin);
        world.run(secs(2.0));
        for peer in &world.peers {
            assert_eq!(peer.punch.choice().expect("a path").kind, PathKind::Host, "hairpin {hairpin}");
        }
    }
}

#[test]
fn ipv6_passes_two_stateful_firewalls_where_ipv4_cannot() {
    let mut world = World::new(1);
    for i in 0..2 {
        let nat = world.gateway(NatConfig::symmetric(), &format!("203.0.113.{}", i + 1));
        let wall = world.gateway(NatConfig::stateful_firewall(), "::");
        let v4 = Endpoint { socket: V4, addr: addr(&format!("192.168.{i}.2:5000")), gateway: Some(nat) };
        let v6 = Endpoint { socket: V6, addr: addr(&format!("[2001:db8:{}::2]:5000", i + 1)), gateway: Some(wall) };
        world.peer(vec![v4, v6]);
    }
    world.introduce(Duration::ZERO);
    let took = world.run_until(secs(5.0), World::both_direct).expect("direct");
    assert!(took <= world.delay * 5, "{took:?}");
    assert!(matches!(world.peers[0].punch.choice().expect("a path").via, Via::Direct { socket: V6, .. }));
}

// ---- upgrade, death and return ----

fn direct_pair(data_every: Option<Duration>) -> World {
    let cone = Some(NatConfig::port_restricted());
    let mut world = World::pair(5, cone, cone);
    world.introduce(Duration::ZERO);
    world.run_until(secs(5.0), World::both_direct).expect("direct");
    world.data_every = data_every;
    world.run(secs(20.0));
    world
}

fn longest_gap(world: &World, i: usize) -> Duration {
    let mut times: Vec<_> = world.peers[i].arrived.values().copied().collect();
    times.sort();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("data")
}

#[test]
fn the_upgrade_loses_nothing() {
    let cone = Some(NatConfig::port_restricted());
    let mut world = World::pair(2, cone, cone);
    world.data_every = Some(ms(1));
    world.introduce(Duration::ZERO);
    world.run_until(secs(5.0), World::both_direct).expect("direct");
    world.run(secs(60.0));
    world.data_every = None;
    world.run(secs(1.0));
    for i in 0..2 {
        assert_eq!(world.peers[i].arrived.len(), usize::try_from(world.peers[1 - i].sent).expect("few"));
        assert!(world.peers[i].relayed < 100, "nothing is doubled on a healthy path: {}", world.peers[i].relayed);
        assert_eq!(world.choices(i), 2, "relay, then direct, and that is all");
    }
}

#[test]
fn a_path_that_dies_under_data_is_left_after_three_seconds_and_hardly_missed() {
    let mut world = direct_pair(Some(ms(20)));
    let cut_at = world.now;
    world.cut = [0, 1].into();
    world.run(secs(5.0));
    for i in 0..2 {
        assert!(!world.is_direct(i));
        let lost = world.lost_paths(i);
        assert_eq!(lost.len(), 1);
        let after = lost[0] - cut_at;
        assert!((secs(2.9)..secs(3.2)).contains(&after), "{after:?}");
        assert!(longest_gap(&world, i) < ms(1600), "data went both ways meanwhile: {:?}", longest_gap(&world, i));
    }
    world.cut.clear();
    let took = world.run_until(secs(60.0), World::both_direct);
    assert!(took.is_some_and(|took| took < secs(12.0)), "{took:?}");
}

#[test]
fn a_path_that_dies_in_one_direction_is_left_by_both() {
    let mut world = direct_pair(Some(ms(20)));
    world.cut = [0].into();
    world.run(secs(12.0));
    assert!(!world.is_direct(0) && !world.is_direct(1));
    assert!(longest_gap(&world, 1) < ms(2200), "{:?}", longest_gap(&world, 1));
}

#[test]
fn one_way_data_needs_no_relay() {
    let mut world = direct_pair(None);
    let relayed = world.peers[0].relayed;
    for _ in 0..3000 {
        world.send_data(0);
        world.run(ms(20));
    }
    assert_eq!(world.peers[0].relayed, relayed);
    assert_eq!(world.lost_paths(0), []);
}

#[test]
fn an_idle_path_sends_its_first_data_both_ways() {
    let mut world = direct_pair(Some(ms(20)));
    world.data_every = None;
    world.run(secs(90.0));
    let idle = |world: &World| world.peers[0].punch.choice().expect("a path").also;
    world.run_until(secs(20.0), |world| idle(world).is_some()).expect("unsure 6 s after the last echo");
    world.send_data(0);
    world.run(world.delay * 2 + ms(1));
    assert_eq!(idle(&world), None, "an echo came");
}

#[test]
fn a_path_that_dies_while_idle_is_noticed_too() {
    let mut world = direct_pair(Some(ms(20)));
    world.data_every = None;
    world.run(secs(60.0));
    world.cut = [0, 1].into();
    let took = world.run_until(secs(30.0), |world| !world.is_direct(0) && !world.is_direct(1));
    assert!(took.is_some(), "within 30 s");
}

#[test]
fn a_restarted_gateway_is_passed_again() {
    for config in [NatConfig::port_restricted(), linux(), NatConfig::full_cone()] {
        let mut world = World::pair(5, Some(config), Some(config));
        world.data_every = Some(ms(20));
        world.introduce(Duration::ZERO);
        world.run(secs(20.0));
        world.gateways[0].forget();
        world.run(secs(3.5));
        let took = world.run_until(secs(90.0), World::both_direct);
        assert!(took.is_some(), "{config:?}");
        assert!((0..2).all(|i| longest_gap(&world, i) < ms(1600)), "{config:?}");
    }
}

#[test]
fn a_peer_that_moves_to_another_address_is_found_again() {
    let mut world = direct_pair(Some(ms(20)));
    world.gateways[0].set_external(ip("203.0.113.77"));
    world.run(secs(1.0));
    world.exchange();
    let now = world.now;
    world.peers.iter_mut().for_each(|peer| peer.punch.introduce(now));
    world.run(secs(6.0));
    assert!(world.both_direct());
    assert!((0..2).all(|i| longest_gap(&world, i) < ms(1600)));
    let via = world.peers[1].punch.choice().expect("a path").via;
    assert_eq!(via.remote().map(|remote| remote.ip()), Some(ip("203.0.113.77")));
}

#[test]
fn a_noisy_line_does_not_flap() {
    for (loss, jitter) in [(0, 60), (5, 20), (10, 0)] {
        let cone = Some(NatConfig::port_restricted());
        let mut world = World::pair(8, cone, cone);
        (world.delay, world.jitter, world.loss_percent) = (ms(40), ms(jitter), loss);
        world.data_every = Some(ms(50));
        world.introduce(Duration::ZERO);
        world.run(secs(600.0));
        for i in 0..2 {
            assert!(world.is_direct(i));
            assert!(world.choices(i) <= 3, "{} choices with {loss} % and {jitter} ms", world.choices(i));
            assert_eq!(world.lost_paths(i), []);
            let stats = world.peers[i].punch.stats(world.now).expect("stats");
            assert!(stats.rtt.is_some_and(|rtt| (ms(80)..ms(220)).contains(&rtt)), "{stats:?}");
            assert!(stats.loss.is_some_and(|share| share <= 0.6), "{stats:?}");
        }
    }
}

#[test]
fn two_families_alike_do_not_take_turns() {
    let mut world = World::new(9);
    for i in 1..=2 {
        let v4 = Endpoint { socket: V4, addr: addr(&format!("198.51.100.{i}:5000")), gateway: None };
        let v6 = Endpoint { socket: V6, addr: addr(&format!("[2001:db8:{i}::2]:5000")), gateway: None };
        world.peer(vec![v4, v6]);
    }
    (world.delay, world.jitter, world.loss_percent) = (ms(30), ms(30), 3);
    world.data_every = Some(ms(100));
    world.introduce(Duration::ZERO);
    world.run(secs(1800.0));
    for i in 0..2 {
        assert!(world.choices(i) <= 6, "{} choices in half an hour", world.choices(i));
        let via = world.peers[i].punch.choice().expect("a path").via;
        assert!(matches!(via, Via::Direct { socket: V6, .. }));
    }
}

#[test]
fn when_the_path_in_use_dies_a_living_alternative_takes_over_at_once() {
    let mut world = World::new(9);
    for i in 1..=2 {
        let wall = world.gateway(NatConfig::stateful_firewall(), "::");
        let v4 = Endpoint { socket: V4, addr: addr(&format!("198.51.100.{i}:5000")), gateway: None };
        let v6 = Endpoint { socket: V6, addr: addr(&format!("[2001:db8:{i}::2]:5000")), gateway: Some(wall) };
        world.peer(vec![v4, v6]);
    }
    world.data_every = Some(ms(20));
    world.introduce(Duration::ZERO);
    world.run(secs(30.0));
    assert!(matches!(world.peers[0].punch.choice().expect("a path").via, Via::Direct { socket: V6, .. }));
    let begun = world.now;
    while world.now - begun < secs(2.0) {
        // Both firewalls restart again and again: nothing passes.
        world.gateways.iter_mut().for_each(nat::Nat::forget);
        world.run(ms(5));
    }
    for i in 0..2 {
        let choice = world.peers[i].punch.choice().expect("a path");
        assert!(matches!(choice.via, Via::Direct { socket: V4, .. }), "{choice:?}");
        assert_eq!((choice.also, world.lost_paths(i)), (None, vec![]));
        assert!(longest_gap(&world, i) < ms(1700), "{:?}", longest_gap(&world, i));
    }
}

#[test]
fn a_path_too_narrow_for_full_size_carries_no_data_and_says_so() {
    let mut world = World::pair(1, None, None);
    world.mtu = 1400;
    world.introduce(Duration::ZERO);
    world.run(secs(30.0));
    for peer in &world.peers {
        assert_eq!(peer.punch.choice().expect("a path").kind, PathKind::Relay);
        assert!(peer.punch.paths(world.now).any(|path| path.via.is_direct() && path.stats.narrow && !path.usable));
    }
    world.mtu = 1500;
    assert!(world.run_until(secs(80.0), World::both_direct).is_some(), "tried again when the line is wider");
}

#[test]
fn a_path_that_turns_narrow_under_data_is_left() {
    let mut world = direct_pair(Some(ms(50)));
    world.mtu = 1400;
    world.data_every = None;
    for _ in 0..100 {
        (0..2).for_each(|i| {
            let (now, via) = (world.now, world.peers[i].punch.choice().expect("a path").via);
            world.peers[i].punch.data_sent(now, via);
            world.peers[i].punch.received(now, via);
        });
        world.run(secs(1.0));
    }
    assert!(!world.is_direct(0) && !world.is_direct(1), "small packets pass, large ones do not");
}

// ---- upkeep ----

#[test]
fn a_path_with_data_is_kept_every_15_seconds_and_measured_every_5() {
    let mut world = direct_pair(Some(ms(100)));
    let (kept, asked) = (world.peers[0].keepalives.len(), world.peers[0].probes.len());
    world.run(secs(60.0));
    assert_eq!(world.peers[0].keepalives.len() - kept, 4);
    let asked = world.peers[0].probes.len() - asked;
    assert!((12..=14).contains(&asked), "{asked} in a minute");
}

#[test]
fn a_quiet_pair_stays_direct_for_a_day_with_little_traffic() {
    let mut world = direct_pair(None);
    world.run(secs(60.0));
    let asked = world.peers[0].probes.len();
    world.run(secs(86_400.0));
    assert!(world.both_direct());
    assert_eq!(world.lost_paths(0), []);
    assert_eq!(world.choices(0), 2);
    let an_hour = (world.peers[0].probes.len() - asked) / 24;
    assert!(an_hour <= 245, "{an_hour} probes an hour");
}

#[test]
fn a_hopeless_pair_keeps_within_the_budget_for_an_hour() {
    let hard = Some(NatConfig::symmetric());
    let mut world = World::pair(4, hard, hard);
    world.introduce(Duration::ZERO);
    world.run(secs(3600.0));
    for peer in &world.peers {
        let remotes: std::collections::BTreeSet<_> = peer.probes.iter().map(|(_, remote, _)| remote.ip()).collect();
        for remote in remotes {
            let times: Vec<_> = peer.probes.iter().filter(|p| p.1.ip() == remote).map(|p| p.0).collect();
            for first in &times {
                let minute = times.iter().filter(|at| (*first..*first + secs(60.0)).contains(at)).count();
                assert!(minute <= 60);
            }
            assert!(times.len() < 1500, "{} probes to {remote} in an hour", times.len());
        }
        assert!(peer.probes.iter().all(|(_, _, len)| *len < 1432), "no full-size probe to who never answered");
        assert!(!peer.events.iter().any(|(_, event)| *event == Event::PathLost));
    }
}
