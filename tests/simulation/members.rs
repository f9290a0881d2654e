//! Who belongs to a network, and who is called what in it.

use std::time::Duration;

use punchlan::node::AddressChoice;
use punchlan::node::status::PeerState;

use crate::nat::NatConfig;
use crate::sim::packet::Kind;
use crate::sim::peer::Peer;
use crate::sim::scene::{House, Scene};
use crate::sim::world::HostId;

const CONE: House = House::v4(Some(NatConfig::full_cone()));
const SECOND: Duration = Duration::from_secs(1);

fn two() -> (Scene, HostId, HostId) {
    let mut scene = Scene::new(21);
    let [alice, bob] = ["alice", "bob"].map(|name| scene.peer(name, CONE));
    (scene, alice, bob)
}

#[test]
fn peers_with_different_network_keys_never_see_each_other() {
    let (mut scene, alice, bob) = two();
    let gateway = scene.world.gateway_of(alice);
    let mallory = scene.peer_in("mallory", gateway, CONE, 3);
    scene.edit(mallory, |p: &mut Peer| p.profile.network_key = 2);
    for peer in [alice, bob, mallory] {
        scene.up(peer);
    }
    scene.run(SECOND * 60);
    assert_eq!(scene.state(alice, bob), Some(PeerState::Direct));
    for friend in [alice, bob] {
        assert_eq!(scene.view(friend, mallory), None);
        assert_eq!(scene.view(mallory, friend), None);
    }
    assert_eq!(scene.machine(mallory).dropped, 0, "nobody sent mallory anything");
}

#[test]
fn a_denied_device_gets_nothing_through() {
    let (mut scene, alice, bob) = two();
    let denied = scene.id(bob);
    scene.edit(alice, |p: &mut Peer| p.profile.deny = vec![denied]);
    scene.up(alice);
    scene.up(bob);
    scene.run(SECOND * 5);
    let (a, b) = (scene.v4(alice), scene.v4(bob));
    scene.send(Kind::Udp, alice, bob, b);
    scene.send(Kind::Udp, bob, alice, a);
    scene.run(SECOND * 30);
    assert_eq!((scene.lost(0, alice, bob), scene.lost(0, bob, alice)), ((1, 1), (1, 1)));
    assert!(!matches!(scene.state(bob, alice), Some(PeerState::Direct | PeerState::Relayed)));
}

#[test]
fn an_automatic_address_gives_way_to_a_configured_one() {
    let wanted = {
        let (mut scene, _, bob) = two();
        scene.up(bob);
        scene.v4(bob)
    };
    let std::net::IpAddr::V4(wanted) = wanted else { panic!("{wanted} is IPv4") };
    let (mut scene, alice, bob) = two();
    scene.edit(alice, |p: &mut Peer| p.profile.address = AddressChoice::Configured(wanted));
    scene.up(alice);
    scene.run(SECOND * 20);
    scene.up(bob);
    scene.run(SECOND * 5);
    assert_eq!(scene.v4(alice), wanted);
    assert_ne!(scene.v4(bob), wanted);
    assert!(scene.warnings(alice).is_empty() && scene.warnings(bob).is_empty());
    scene.flows(alice, bob, SECOND / 10);
    scene.run(SECOND * 5);
    scene.hush();
    assert_eq!((scene.lost(0, alice, bob).1, scene.lost(0, bob, alice).1), (0, 0));
}

#[test]
fn of_two_peers_with_one_configured_address_one_is_warned_and_stays_up_without_it() {
    let (mut scene, alice, bob) = two();
    for peer in [alice, bob] {
        let address = "10.77.0.9".parse().expect("an address");
        scene.edit(peer, |p: &mut Peer| p.profile.address = AddressChoice::Configured(address));
    }
    scene.up(alice);
    scene.run(SECOND * 30);
    scene.up(bob);
    scene.run(SECOND * 10);
    let holds = [alice, bob].map(|p| scene.machine(p).node().me().v4.is_some());
    assert_eq!(holds.iter().filter(|h| **h).count(), 1, "{holds:?}");
    let (holder, loser) = if holds[0] { (alice, bob) } else { (bob, alice) };
    assert!(scene.warnings(loser).contains(&"address-taken".to_owned()), "{:?}", scene.warnings(loser));
    let to = scene.v6(holder);
    scene.send(Kind::EchoRequest, loser, holder, to);
    scene.run(SECOND);
    assert_eq!(scene.count(0, loser, holder, |e| e.answered.is_some()), 1);
}

#[test]
fn the_second_bob_is_shown_as_bob_2() {
    let mut scene = Scene::new(22);
    let peers = ["alice", "bob", "bob"].map(|name| scene.peer(name, CONE));
    peers.iter().for_each(|p| scene.up(*p));
    scene.run(SECOND * 5);
    let mut names: Vec<String> = scene.status(peers[0]).peers.into_iter().map(|p| p.name).collect();
    names.sort();
    assert_eq!(names, ["bob", "bob-2"]);
}

#[test]
fn a_peer_keeps_its_address_over_a_restart() {
    let (mut scene, alice, bob) = two();
    scene.up(alice);
    scene.up(bob);
    scene.run(SECOND * 10);
    let before = scene.v4(bob);
    scene.kill(bob);
    scene.up(bob);
    scene.run(SECOND * 10);
    assert_eq!(scene.v4(bob), before);
    assert!(scene.warnings(alice).is_empty() && scene.warnings(bob).is_empty());
}
