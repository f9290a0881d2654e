//! Searches over ports: who has another port for each destination is found all the same, within the budget.

use std::time::Duration;

use punchlan::node::status::{PathKind, PeerState};

use crate::nat::{Allocation, NatConfig};
use crate::sim::oracle::direct_by_search_is_possible;
use crate::sim::scene::{House, Scene};
use crate::sim::topology::Line;
use crate::sim::world::HostId;

const SECOND: Duration = Duration::from_secs(1);

/// Linux masquerade with `fully-random`.
fn fully_random() -> NatConfig {
    NatConfig { allocation: Allocation::Random, ..NatConfig::linux_masquerade() }
}

/// Those whose port nobody can know…
fn changing() -> [(&'static str, NatConfig); 5] {
    [
        ("sequential", NatConfig::symmetric_sequential()),
        ("of a block", NatConfig::symmetric_block()),
        ("random", NatConfig::symmetric()),
        ("address-dependent", NatConfig::address_dependent()),
        ("fully-random", fully_random()),
    ]
}

/// …and those that let in only whom they have been told of.
fn strict() -> [(&'static str, NatConfig); 3] {
    [
        ("port-restricted", NatConfig::port_restricted()),
        ("firewall", NatConfig::stateful_firewall()),
        ("masquerade", NatConfig::linux_masquerade()),
    ]
}

/// Two peers behind these NATs, who have just heard of each other.
fn pair(seed: u64, a: NatConfig, b: NatConfig, line: Line) -> (Scene, [HostId; 2]) {
    let mut scene = Scene::new(seed);
    let [alice, bob] = [("alice", a), ("bob", b)].map(|(name, nat)| scene.peer(name, House::v4(Some(nat))));
    scene.world.all_lines(line);
    scene.up(alice);
    scene.run(SECOND * 3);
    scene.up(bob);
    scene.acquaint(alice, bob, SECOND * 4).expect("they hear of each other");
    (scene, [alice, bob])
}

/// Of so many pairs: how long each took to be direct.
fn times(a: NatConfig, b: NatConfig, line: Line, runs: u64) -> Vec<Option<Duration>> {
    let run = |seed| {
        let (mut scene, [alice, bob]) = pair(seed, a, b, line);
        scene.settle(alice, bob, PeerState::Direct, SECOND * 20)
    };
    (100..100 + runs).map(run).collect()
}

fn median(times: &[Option<Duration>]) -> Duration {
    let mut found: Vec<Duration> = times.iter().flatten().copied().collect();
    found.sort_unstable();
    found[found.len() / 2]
}

/// `SIM_RUNS=100` says how many pairs of each kind are looked at.
fn runs() -> u64 {
    std::env::var("SIM_RUNS").map_or(3, |runs| runs.parse().expect("a number"))
}

#[test]
fn a_strict_nat_and_one_that_gives_each_destination_another_port_meet_directly() {
    let runs = runs();
    for (name, a) in changing() {
        for (other, b) in strict() {
            assert!(direct_by_search_is_possible(Some(a), Some(b)));
            let times = times(a, b, Line::CLEAN, runs);
            let found = times.iter().flatten().count();
            let worst = times.iter().flatten().max().copied().unwrap_or_default();
            println!("{name} × {other}: {found} of {runs}, median {:?}, worst {worst:?}", median(&times));
            assert!(found as u64 * 100 >= runs * 95, "{name} × {other}: {found} of {runs}");
            let (most, worst_of_all) = if name == "sequential" { (1_000, 1_500) } else { (4_000, 8_000) };
            assert!(median(&times) <= Duration::from_millis(most), "{name} × {other}: {times:?}");
            assert!(worst <= Duration::from_millis(worst_of_all), "{name} × {other}: {times:?}");
        }
    }
}

#[test]
fn two_symmetric_nats_meet_where_both_have_few_ports_to_give() {
    let runs = runs() * 3;
    let [sequential, block, random] =
        [NatConfig::symmetric_sequential(), NatConfig::symmetric_block(), NatConfig::symmetric()];
    // Where one side draws from a block of 1,024 ports, about as many shots meet with a chance of 1 − 1/e; a few runs say
    // that it is no accident.
    for (name, a, b, percent) in [
        ("sequential × sequential", sequential, sequential, 95),
        ("sequential × of a block", sequential, block, 30),
        ("of a block × of a block", block, block, 30),
    ] {
        let times = times(a, b, Line::CLEAN, runs);
        let found = times.iter().flatten().count();
        println!("{name}: {found} of {runs}, median {:?}", median(&times));
        assert!(found as u64 * 100 >= runs * percent, "{name}: {times:?}");
    }
    for b in [random, sequential] {
        let (mut scene, [alice, bob]) = pair(1, random, b, Line::CLEAN);
        scene.world.tap = Some(Vec::new());
        scene.run(SECOND * 15);
        assert_eq!(scene.state(alice, bob), Some(PeerState::Relayed));
        assert_eq!(scene.machine(alice).opened.all(), [], "what was opened to find out is closed");
    }
}

#[test]
fn nothing_is_lost_on_the_way_from_the_relay_and_sockets_that_lead_nowhere_are_closed() {
    for (_, a) in changing() {
        let (mut scene, [alice, bob]) = pair(5, a, NatConfig::linux_masquerade(), Line::CLEAN);
        scene.flows(alice, bob, SECOND / 50);
        scene.settle(alice, bob, PeerState::Direct, SECOND * 10).expect("direct");
        let kinds = [(alice, bob), (bob, alice)].map(|(x, y)| scene.view(x, y).expect("there").path.expect("one").kind);
        assert_eq!(kinds, [PathKind::Reflexive, PathKind::Predicted]);
        scene.run(SECOND * 15);
        let open = scene.machine(alice).opened.all().len();
        assert!((1..=4).contains(&open), "{open} sockets");
        assert_eq!(scene.machine(bob).opened.all(), []);
        let mark = scene.mark();
        scene.run(SECOND * 60);
        assert_eq!(scene.lost(mark, alice, bob).1 + scene.lost(mark, bob, alice).1, 0);
        scene.hush();
        for (x, y) in [(alice, bob), (bob, alice)] {
            assert_eq!(scene.lost(0, x, y).1, 0);
        }
    }
}

#[test]
fn far_away_and_with_loss_a_search_takes_longer_and_succeeds() {
    for (name, a) in changing() {
        let times = times(a, NatConfig::port_restricted(), Line::FAR, runs());
        println!("{name}: {times:?}");
        assert!(times.iter().flatten().count() + 1 >= times.len(), "{name}: {times:?}");
    }
}

#[test]
fn what_worked_is_done_at_once_the_next_time() {
    let (mut scene, [alice, bob]) =
        pair(9, NatConfig::symmetric_sequential(), NatConfig::port_restricted(), Line::CLEAN);
    let first = scene.settle(alice, bob, PeerState::Direct, SECOND * 5).expect("direct");
    scene.run(SECOND * 70);
    for peer in [alice, bob] {
        scene.kill(peer);
    }
    // The rendezvous and the NATs forget.
    scene.run(SECOND * 130);
    scene.up(alice);
    scene.run(SECOND * 3);
    scene.up(bob);
    scene.acquaint(alice, bob, SECOND * 4).expect("they hear of each other");
    let again = scene.settle(alice, bob, PeerState::Direct, SECOND * 5).expect("direct");
    assert!(again + Duration::from_millis(150) <= first, "{first:?}, then {again:?}");
}

#[test]
fn a_system_with_few_sockets_left_gives_what_it_has() {
    let (mut scene, [alice, bob]) = {
        let mut scene = Scene::new(3);
        let kinds = [("alice", NatConfig::symmetric_block()), ("bob", NatConfig::port_restricted())];
        let [alice, bob] = kinds.map(|(name, nat)| scene.peer(name, House::v4(Some(nat))));
        scene.edit(alice, |peer| peer.opened.most = 20);
        scene.up(alice);
        scene.up(bob);
        (scene, [alice, bob])
    };
    scene.settle(alice, bob, PeerState::Direct, SECOND * 20).expect("direct");
}

#[test]
fn a_router_that_forgets_is_searched_anew() {
    for a in [NatConfig::symmetric_sequential(), NatConfig::symmetric()] {
        let (mut scene, [alice, bob]) = pair(11, a, NatConfig::port_restricted(), Line::CLEAN);
        scene.flows(alice, bob, SECOND / 20);
        scene.settle(alice, bob, PeerState::Direct, SECOND * 10).expect("direct");
        scene.run(SECOND * 30);
        let gateway = scene.world.gateway_of(alice);
        scene.world.gate(gateway).nat.as_mut().expect("one").forget();
        scene.settle(alice, bob, PeerState::Relayed, SECOND * 10).expect("by relay for a while");
        scene.settle(alice, bob, PeerState::Direct, SECOND * 20).expect("direct again");
    }
}

/// One peer behind `a`, and so many behind `b`, all started at once.
fn crowd(a: NatConfig, b: NatConfig, friends: usize) -> (Scene, HostId, Vec<HostId>) {
    let mut scene = Scene::new(21);
    let alice = scene.peer("alice", House::v4(Some(a)));
    let names = ["bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan"];
    let friends: Vec<HostId> = names[..friends].iter().map(|name| scene.peer(name, House::v4(Some(b)))).collect();
    scene.up(alice);
    friends.iter().for_each(|friend| scene.up(*friend));
    (scene, alice, friends)
}

#[test]
fn a_symmetric_nat_finds_many_friends_one_after_the_other_and_holds_few_sockets() {
    let (mut scene, alice, friends) = crowd(NatConfig::symmetric(), NatConfig::port_restricted(), 8);
    let mut most = 0;
    let all_direct = |scene: &Scene| friends.iter().all(|f| scene.state(alice, *f) == Some(PeerState::Direct));
    let start = scene.now();
    while !all_direct(&scene) && scene.now() - start < SECOND * 60 {
        scene.run(SECOND / 10);
        most = most.max(scene.machine(alice).opened.all().len());
    }
    println!("eight friends after {:?}, {most} sockets at most", scene.now() - start);
    assert!(all_direct(&scene) && most <= 640, "{most} sockets");
    scene.run(SECOND * 20);
    assert!(scene.machine(alice).opened.all().len() <= 24);
}

#[test]
fn friends_behind_symmetric_nats_are_looked_for_side_by_side() {
    let (mut scene, alice, friends) = crowd(NatConfig::port_restricted(), NatConfig::symmetric_block(), 6);
    scene.run(SECOND * 6);
    let direct = friends.iter().filter(|f| scene.state(alice, **f) == Some(PeerState::Direct)).count();
    assert!(direct >= 5, "{direct} of 6");
}

#[test]
fn who_moves_out_of_hopeless_circumstances_is_found() {
    let (mut scene, [alice, bob]) = pair(13, NatConfig::symmetric(), NatConfig::symmetric(), Line::CLEAN);
    scene.run(SECOND * 10);
    assert_eq!(scene.state(alice, bob), Some(PeerState::Relayed));
    let house = House::v4(Some(NatConfig::port_restricted()));
    let gateway = scene.house(house);
    scene.readdress(bob, gateway, crate::sim::scene::interfaces(3, house, 7));
    scene.settle(alice, bob, PeerState::Direct, SECOND * 45).expect("direct");
}

#[test]
fn a_friend_who_goes_or_is_killed_in_the_middle_of_a_search_comes_back_and_is_found() {
    for goes in [Scene::down, Scene::kill] {
        for who in [0, 1] {
            let (mut scene, peers) = pair(17, NatConfig::symmetric(), NatConfig::port_restricted(), Line::CLEAN);
            scene.run(SECOND * 6 / 10);
            goes(&mut scene, peers[who]);
            scene.run(SECOND * 2);
            scene.up(peers[who]);
            scene.settle(peers[0], peers[1], PeerState::Direct, SECOND * 30).expect("direct");
        }
    }
}

/// Two who know how their NATs give ports, from a search for a third, begin alike with one another.
#[test]
fn two_symmetric_nats_that_are_known_already_meet_as_those_that_are_not() {
    let (mut met, runs) = (0, runs() * 2);
    for seed in 0..runs {
        let mut scene = Scene::new(seed);
        let [block, strict] = [NatConfig::symmetric_block(), NatConfig::port_restricted()];
        let plans = [("alice", block), ("bob", block), ("carol", strict)];
        let [alice, bob, carol] = plans.map(|(name, nat)| scene.peer(name, House::v4(Some(nat))));
        for peer in [carol, alice] {
            scene.up(peer);
        }
        scene.settle(alice, carol, PeerState::Direct, SECOND * 10).expect("direct");
        scene.up(bob);
        scene.settle(bob, carol, PeerState::Direct, SECOND * 10).expect("direct");
        met += u64::from(scene.settle(alice, bob, PeerState::Direct, SECOND * 15).is_some());
    }
    // By chance, see above.
    println!("{met} of {runs}");
    assert!(met * 100 >= runs * 30, "{met} of {runs}");
}

#[test]
fn two_rendezvous_that_introduce_one_after_the_other_begin_one_search() {
    let mut scene = Scene::new(23);
    scene.rendezvous();
    let plans = [("alice", NatConfig::symmetric()), ("bob", NatConfig::symmetric())];
    let [alice, bob] = plans.map(|(name, nat)| scene.peer(name, House::v4(Some(nat))));
    scene.up(alice);
    scene.run(SECOND * 3);
    // The second one is slow.
    let slow = scene.world.gateway_of(scene.servers[1]);
    scene.world.gate(slow).up.delay = SECOND / 5;
    scene.up(bob);
    scene.run(SECOND * 20);
    assert_eq!(scene.state(alice, bob), Some(PeerState::Relayed));
    assert_eq!(scene.machine(alice).opened.all(), []);
    let house = House::v4(Some(NatConfig::port_restricted()));
    let gateway = scene.house(house);
    scene.readdress(bob, gateway, crate::sim::scene::interfaces(9, house, 7));
    scene.settle(alice, bob, PeerState::Direct, SECOND * 60).expect("direct");
}
