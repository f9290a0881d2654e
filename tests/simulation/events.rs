//! What happens of an evening. Each event comes over a direct and over a relayed pair that talk ten times a
//! second, and the longest silence is measured: from the event, or from its end where it is a silence itself.

use std::time::Duration;

use punchlan::node::status::PeerState;
use punchlan::sans::Instant;

use crate::nat::NatConfig;
use crate::sim::packet::Kind;
use crate::sim::peer::Peer;
use crate::sim::scene::{House, Scene, interfaces, ip};
use crate::sim::topology::Line;
use crate::sim::world::HostId;

/// The longest silence that an event may cost.
const SILENCE: Duration = Duration::from_secs(3);
const SECOND: Duration = Duration::from_secs(1);
const DIRECT: NatConfig = NatConfig::port_restricted();
const RELAYED: NatConfig = NatConfig::symmetric();

/// Two peers that talk.
struct Pair {
    scene: Scene,
    alice: HostId,
    bob: HostId,
    state: PeerState,
    mark: usize,
}

impl Pair {
    fn new(nat: NatConfig, servers: usize) -> Self {
        let mut scene = Scene::new(11);
        for _ in 1..servers {
            scene.rendezvous();
        }
        let [alice, bob] = ["alice", "bob"].map(|name| scene.peer(name, House::v4(Some(nat))));
        scene.up(alice);
        scene.up(bob);
        let state = if nat == RELAYED { PeerState::Relayed } else { PeerState::Direct };
        scene.settle(alice, bob, state, SECOND * 3).expect("they meet");
        scene.flows(alice, bob, SECOND / 10);
        scene.run(SECOND * 20);
        let mark = scene.mark();
        Self { scene, alice, bob, state, mark }
    }

    /// Watches 40 s from `end`, the event's end.
    fn watch(mut self, end: Instant) {
        self.scene.run(SECOND * 40);
        let gap = self.scene.longest_gap(self.mark, self.alice, self.bob, end);
        assert!(gap <= SILENCE, "a silence of {gap:?} on a {:?} pair", self.state);
        // Two rounds of a search that has been in vain for a minute lie 100 s apart, and a tenth more.
        self.scene.settle(self.alice, self.bob, self.state, SECOND * 75).expect("the old state is back");
    }
}

fn both(event: impl Fn(&mut Pair) -> Instant) {
    for nat in [DIRECT, RELAYED] {
        let mut pair = Pair::new(nat, 1);
        let end = event(&mut pair);
        pair.watch(end);
    }
}

#[test]
fn nothing_happens() {
    both(|pair| {
        let start = pair.scene.now();
        pair.scene.run(SECOND * 400);
        let lost = pair.scene.lost(pair.mark, pair.alice, pair.bob);
        assert!(lost.0 > 3_900 && lost.1 == 0, "rekeys cost nothing: {lost:?}");
        start
    });
}

#[test]
fn a_router_forgets_its_mappings() {
    both(|pair| {
        let gateway = pair.scene.world.gateway_of(pair.bob);
        pair.scene.world.gate(gateway).nat.as_mut().expect("a NAT").forget();
        pair.scene.now()
    });
}

#[test]
fn a_router_gets_another_public_address() {
    both(|pair| {
        let gateway = pair.scene.world.gateway_of(pair.bob);
        pair.scene.world.gate(gateway).nat.as_mut().expect("a NAT").set_external(ip("203.0.113.77"));
        pair.scene.now()
    });
}

#[test]
fn the_line_is_dead_for_15_s() {
    both(|pair| {
        let gateway = pair.scene.world.gateway_of(pair.bob);
        for dead in [true, false] {
            let house = pair.scene.world.gate(gateway);
            (house.up.dead, house.down.dead) = (dead, dead);
            if dead {
                pair.scene.run(SECOND * 15);
            }
        }
        pair.scene.now()
    });
}

#[test]
fn the_rendezvous_is_killed_and_comes_back_after_5_s() {
    for nat in [DIRECT, RELAYED] {
        let mut pair = Pair::new(nat, 1);
        let (start, server) = (pair.scene.now(), pair.scene.servers[0]);
        pair.scene.kill_server(server);
        pair.scene.run(SECOND * 5);
        pair.scene.start_server(server);
        let end = if nat == DIRECT { start } else { pair.scene.now() };
        pair.watch(end);
    }
}

#[test]
fn the_rendezvous_comes_back_at_another_address() {
    for nat in [DIRECT, RELAYED] {
        let mut pair = Pair::new(nat, 1);
        let (start, server) = (pair.scene.now(), pair.scene.servers[0]);
        pair.scene.kill_server(server);
        pair.scene.run(SECOND * 5);
        let addresses = [ip("198.51.100.99")];
        let office = pair.scene.world.gateway_of(server);
        pair.scene.world.move_host(server, office, &addresses);
        pair.scene.name(server, &addresses);
        pair.scene.start_server(server);
        let end = if nat == DIRECT { start } else { pair.scene.now() };
        pair.watch(end);
    }
}

#[test]
fn the_only_rendezvous_is_gone_for_good_and_a_direct_pair_lives_on() {
    let mut pair = Pair::new(DIRECT, 1);
    let (start, server) = (pair.scene.now(), pair.scene.servers[0]);
    pair.scene.kill_server(server);
    pair.scene.run(SECOND * 300);
    assert_eq!(pair.scene.lost(pair.mark, pair.alice, pair.bob).1, 0);
    pair.watch(start);
}

#[test]
fn one_of_two_rendezvous_is_gone_for_good() {
    for (nat, dead) in [(DIRECT, 0), (RELAYED, 0), (RELAYED, 1)] {
        let mut pair = Pair::new(nat, 2);
        let start = pair.scene.now();
        pair.scene.kill_server(pair.scene.servers[dead]);
        pair.scene.run(SECOND * 120);
        pair.watch(start);
    }
}

#[test]
fn a_peer_is_killed_and_back_after_2_s() {
    both(|pair| {
        pair.scene.kill(pair.bob);
        pair.scene.run(SECOND * 2);
        pair.scene.up(pair.bob);
        pair.scene.now()
    });
}

#[test]
fn a_peer_starts_again_with_its_clock_a_day_back() {
    both(|pair| {
        pair.scene.kill(pair.bob);
        pair.scene.edit(pair.bob, |p| p.wall_offset_ms -= 86_400_000);
        pair.scene.up(pair.bob);
        pair.scene.now()
    });
}

#[test]
fn a_peer_is_suspended_for_200_s() {
    both(|pair| {
        pair.scene.world.stop(pair.bob);
        pair.scene.run(SECOND * 200);
        pair.scene.world.go_on(pair.bob);
        pair.scene.now()
    });
}

#[test]
fn a_peer_says_goodbye_and_is_offline_at_once() {
    both(|pair| {
        pair.scene.down(pair.bob);
        pair.scene.run(SECOND);
        assert_eq!(pair.scene.state(pair.alice, pair.bob), Some(PeerState::Offline));
        pair.scene.up(pair.bob);
        pair.scene.now()
    });
}

#[test]
fn a_peer_gets_another_address_in_its_house() {
    both(|pair| {
        let gateway = pair.scene.world.gateway_of(pair.bob);
        let moved = vec!["192.168.1.77/24".parse().expect("a prefix")];
        pair.scene.readdress(pair.bob, gateway, moved);
        pair.scene.now()
    });
}

#[test]
fn a_peer_moves_to_another_house_and_to_ipv6() {
    let house = House { nat: Some(RELAYED), ipv6: true };
    let mut scene = Scene::new(12);
    let [alice, bob] = ["alice", "bob"].map(|name| scene.peer(name, house));
    scene.up(alice);
    scene.up(bob);
    scene.settle(alice, bob, PeerState::Direct, SECOND * 3).expect("direct by IPv6");
    scene.flows(alice, bob, SECOND / 10);
    scene.run(SECOND * 10);
    let (start, mark) = (scene.now(), scene.mark());
    let elsewhere = scene.house(house);
    scene.readdress(bob, elsewhere, interfaces(3, house, 9));
    scene.run(SECOND * 40);
    let gap = scene.longest_gap(mark, alice, bob, start);
    assert!(gap <= SILENCE, "a silence of {gap:?}");
    scene.settle(alice, bob, PeerState::Direct, SECOND * 20).expect("direct again");
}

#[test]
fn after_60_s_of_silence_behind_20_s_mappings_the_first_packet_arrives() {
    for nat in [DIRECT, RELAYED] {
        let mut scene = Scene::new(13);
        let short = NatConfig { lifetime: SECOND * 20, ..nat };
        let [alice, bob] = ["alice", "bob"].map(|name| scene.peer(name, House::v4(Some(short))));
        scene.up(alice);
        scene.up(bob);
        scene.run(SECOND * 70);
        for (a, b) in [(alice, bob), (bob, alice)] {
            let to = scene.v4(b);
            scene.send(Kind::Udp, a, b, to);
        }
        scene.run(SECOND);
        assert_eq!((scene.lost(0, alice, bob).1, scene.lost(0, bob, alice).1), (0, 0), "on {nat:?}");
    }
}

#[test]
fn bad_lines_cost_no_more_than_they_lose() {
    let jitter = SECOND / 20;
    for nat in [DIRECT, RELAYED] {
        let mut pair = Pair::new(nat, 1);
        pair.scene.world.all_lines(Line { jitter, doubled: 50, ..Line::FAR });
        pair.scene.run(SECOND * 400);
        let (sent, lost) = pair.scene.lost(pair.mark, pair.alice, pair.bob);
        assert!(lost * 1000 <= sent * 130, "{lost} of {sent} lost");
        let end = pair.scene.now() - SECOND * 400;
        pair.watch(end);
    }
}

#[test]
fn a_copied_state_folder_is_reported_and_the_first_keeps_working() {
    let mut pair = Pair::new(DIRECT, 1);
    let copy = pair.scene.peer("copy", House::v4(Some(DIRECT)));
    let disk = pair.scene.machine(pair.bob).disk.clone();
    pair.scene.edit(copy, |p: &mut Peer| (p.profile.device, p.disk) = (2, disk));
    let start = pair.scene.now();
    pair.scene.up(copy);
    pair.scene.run(SECOND * 30);
    assert!(pair.scene.warnings(copy).contains(&"duplicate".to_owned()), "{:?}", pair.scene.warnings(copy));
    pair.watch(start);
}

#[test]
fn the_direct_path_is_lost_while_the_relay_lives_and_comes_back() {
    let mut pair = Pair::new(DIRECT, 1);
    let start = pair.scene.now();
    pair.scene.world.only = Some(pair.scene.world.gateway_of(pair.scene.servers[0]));
    pair.scene.settle(pair.alice, pair.bob, PeerState::Relayed, SECOND * 5).expect("by the relay");
    pair.scene.run(SECOND * 60);
    pair.scene.world.only = None;
    pair.watch(start);
}

#[test]
fn a_peer_is_left_with_ipv6_alone_and_gets_ipv4_back() {
    let house = House { nat: Some(DIRECT), ipv6: true };
    let mut scene = Scene::new(14);
    let [alice, bob] = ["alice", "bob"].map(|name| scene.peer(name, house));
    scene.up(alice);
    scene.up(bob);
    scene.settle(alice, bob, PeerState::Direct, SECOND * 3).expect("direct");
    scene.flows(alice, bob, SECOND / 10);
    scene.run(SECOND * 20);
    let (gateway, both) = (scene.world.gateway_of(bob), interfaces(2, house, 2));
    for now in [vec![both[1]], both.clone(), vec![both[0]], both.clone()] {
        let (start, mark) = (scene.now(), scene.mark());
        scene.readdress(bob, gateway, now.clone());
        scene.run(SECOND * 40);
        let gap = scene.longest_gap(mark, alice, bob, start);
        assert!(gap <= SILENCE, "a silence of {gap:?} with {now:?}");
        assert_eq!(scene.state(alice, bob), Some(PeerState::Direct), "with {now:?}");
    }
}

/// Linux remembers what came unasked as a flow of its own, and the peer then has another port: until that is forgotten
/// there is no way through a strict router on the other side.
#[test]
fn behind_linux_a_pair_is_direct_again_after_its_router_forgot() {
    for seed in 0..12 {
        let mut scene = Scene::new(100 + seed);
        let alice = scene.peer("alice", House::v4(Some(DIRECT)));
        let bob = scene.peer("bob", House::v4(Some(NatConfig::linux_masquerade())));
        scene.up(alice);
        scene.up(bob);
        scene.settle(alice, bob, PeerState::Direct, SECOND * 60).expect("they meet");
        // Pings: what comes first through the router afterwards comes from outside.
        let to = scene.v4(bob);
        scene.world.with(alice, |p: &mut Peer, now| p.flow(now, Kind::EchoRequest, bob, to, SECOND / 10));
        scene.run(SECOND * 20 + SECOND / 7 * u32::try_from(seed).expect("small"));
        let gateway = scene.world.gateway_of(bob);
        scene.world.gate(gateway).nat.as_mut().expect("a NAT").forget();
        scene.run(SECOND * 10);
        let after = scene.settle(alice, bob, PeerState::Direct, SECOND * 120);
        assert!(after.is_some_and(|after| after < SECOND * 50), "{after:?}");
    }
}

/// One flow that had to take another port draws the next ones after it, and each search of any pair makes some: the
/// rounds of pairs that cannot meet (bob and dave) must not hold it for everybody.
#[test]
fn a_hopeless_pair_does_not_keep_a_hopeful_one_apart() {
    for seed in 0..12 {
        let mut scene = Scene::new(200 + u64::from(seed));
        let nats = [DIRECT, NatConfig::linux_masquerade(), DIRECT, RELAYED];
        let [alice, bob, carol, dave] =
            std::array::from_fn(|n| scene.peer(["alice", "bob", "carol", "dave"][n], House::v4(Some(nats[n]))));
        for peer in [alice, bob, carol, dave] {
            scene.run(SECOND / 7 * seed);
            scene.up(peer);
        }
        scene.settle(alice, bob, PeerState::Direct, SECOND * 60).expect("they meet");
        let to = scene.v4(bob);
        scene.world.with(alice, |p: &mut Peer, now| p.flow(now, Kind::EchoRequest, bob, to, SECOND / 10));
        scene.run(SECOND * 20);
        let gateway = scene.world.gateway_of(bob);
        let (now, own) = (scene.now(), "192.168.1.2:40002".parse().expect("an address"));
        let nat = scene.world.gate(gateway).nat.as_mut().expect("a NAT");
        nat.forget();
        // The rendezvous sees him where he was, so it cannot tell; then what comes first comes from outside.
        let kept = nat.outbound(now, own, "198.51.100.1:3478".parse().expect("an address"));
        assert_eq!(kept.map(|at| at.port()), Some(own.port()));
        for dead in [true, false] {
            scene.world.gate(gateway).up.dead = dead;
            scene.run(SECOND / 5);
        }
        scene.run(SECOND * 10);
        let after = scene.settle(alice, bob, PeerState::Direct, SECOND * 600);
        assert!(after.is_some_and(|after| after < SECOND * 200), "{after:?}");
    }
}
