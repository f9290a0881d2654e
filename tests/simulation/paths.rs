//! Paths beyond the table: three at once, one router, IPv6, routers as Linux builds them.

use std::time::Duration;

use punchlan::node::status::{PathKind, PeerState};

use crate::nat::NatConfig;
use crate::sim::packet::Kind;
use crate::sim::scene::{House, Scene};
use crate::sim::world::HostId;

const CONE: House = House::v4(Some(NatConfig::port_restricted()));
const SOON: Duration = Duration::from_secs(2);

fn pairs(peers: &[HostId]) -> Vec<(HostId, HostId)> {
    peers.iter().flat_map(|a| peers.iter().filter(move |b| a != *b).map(|b| (*a, *b))).collect()
}

#[test]
fn three_peers_that_start_at_once_all_meet() {
    let mut scene = Scene::new(1);
    let kinds = [NatConfig::port_restricted(), NatConfig::full_cone(), NatConfig::symmetric()];
    let names = ["alice", "bob", "carol"];
    let peers = [0, 1, 2].map(|i| scene.peer(names[i], House::v4(Some(kinds[i]))));
    peers.iter().for_each(|p| scene.up(*p));
    for (a, b) in pairs(&peers) {
        scene.acquaint(a, b, SOON).expect("they hear of each other");
        scene.flows(a, b, Duration::from_millis(50));
    }
    scene.run(Duration::from_secs(10));
    let [alice, bob, carol] = peers;
    assert_eq!(scene.state(alice, bob), Some(PeerState::Direct));
    assert_eq!(scene.state(bob, carol), Some(PeerState::Direct));
    assert_eq!(scene.state(alice, carol), Some(PeerState::Direct));
    scene.hush();
    for (a, b) in pairs(&peers) {
        assert_eq!(scene.lost(0, a, b).1, 0);
    }
}

#[test]
fn two_peers_behind_one_router_without_hairpin_meet_on_their_lan() {
    let mut scene = Scene::new(2);
    let gateway = scene.house(CONE);
    let [alice, bob] = [("alice", 2), ("bob", 3)].map(|(name, place)| scene.peer_in(name, gateway, CONE, place));
    scene.up(alice);
    scene.up(bob);
    scene.settle(alice, bob, PeerState::Direct, SOON).expect("direct");
    let path = scene.view(alice, bob).and_then(|v| v.path).expect("a path");
    assert_eq!(path.remote.ip(), scene.world.addresses(bob)[0]);
    assert_eq!(path.kind, PathKind::Host);
}

#[test]
fn two_houses_with_the_same_private_addresses_do_not_confuse_their_peers() {
    let mut scene = Scene::new(3);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| scene.peer(name, CONE));
    assert_eq!(scene.world.addresses(alice), scene.world.addresses(bob));
    for peer in [alice, bob, carol] {
        scene.up(peer);
    }
    for (a, b) in pairs(&[alice, bob, carol]) {
        scene.settle(a, b, PeerState::Direct, SOON).expect("direct");
    }
}

#[test]
fn ipv6_behind_two_stateful_firewalls_is_direct_where_ipv4_cannot_be() {
    let mut scene = Scene::new(4);
    let house = House { nat: Some(NatConfig::symmetric()), ipv6: true };
    let [alice, bob] = ["alice", "bob"].map(|name| scene.peer(name, house));
    scene.up(alice);
    scene.up(bob);
    scene.settle(alice, bob, PeerState::Direct, SOON).expect("direct");
    assert_eq!(scene.view(alice, bob).and_then(|v| v.path).expect("a path").family, "ipv6");
}

#[test]
fn routers_that_remember_unsolicited_flows_are_still_easy() {
    for seed in 0..4 {
        let mut scene = Scene::new(seed);
        let house = House::v4(Some(NatConfig::linux_masquerade()));
        let [alice, bob] = ["alice", "bob"].map(|name| scene.peer(name, house));
        scene.up(alice);
        scene.run(Duration::from_secs(1));
        scene.up(bob);
        scene.settle(alice, bob, PeerState::Direct, SOON).expect("priming keeps both ports");
    }
}

#[test]
fn both_families_of_the_overlay_and_pings_work_on_direct_and_relayed_pairs() {
    for nat in [NatConfig::port_restricted(), NatConfig::symmetric()] {
        let mut scene = Scene::new(5);
        let [alice, bob] = ["alice", "bob"].map(|name| scene.peer(name, House::v4(Some(nat))));
        scene.up(alice);
        scene.up(bob);
        scene.acquaint(alice, bob, SOON).expect("they hear of each other");
        let (v4, v6) = (scene.v4(bob), scene.v6(bob));
        for to in [v4, v6, v4, v6] {
            scene.send(Kind::EchoRequest, alice, bob, to);
            scene.send(Kind::Udp, alice, bob, to);
            scene.run(Duration::from_secs(1));
        }
        assert_eq!(scene.count(0, alice, bob, |e| !e.arrived.is_empty()), 8);
        assert_eq!(scene.count(0, alice, bob, |e| e.answered.is_some()), 4);
    }
}

#[test]
fn a_full_packet_arrives_on_direct_and_relayed_pairs() {
    for nat in [NatConfig::port_restricted(), NatConfig::symmetric()] {
        let mut scene = Scene::new(6);
        let [alice, bob] = ["alice", "bob"].map(|name| scene.peer(name, House::v4(Some(nat))));
        scene.up(alice);
        scene.up(bob);
        scene.run(SOON);
        let to = scene.v4(bob);
        // IPv4 and UDP headers make it 1400 bytes.
        scene.world.with(alice, |p: &mut crate::sim::peer::Peer, now| p.send(now, Kind::Udp, bob, to, 1372));
        scene.run(SOON);
        assert_eq!(scene.lost(0, alice, bob), (1, 0));
    }
}
