//! Peers in one house: on one LAN, with a rendezvous or with none, and kept apart from each other.

use std::time::Duration;

use punchlan::node::status::{PathKind, PeerState};

use crate::nat::NatConfig;
use crate::sim::peer::Peer;
use crate::sim::scene::{House, Scene};
use crate::sim::world::{GatewayId, HostId, World};

const CONE: House = House::v4(Some(NatConfig::port_restricted()));
const SOON: Duration = Duration::from_secs(2);

/// Two peers in one house.
fn two(scene: &mut Scene, house: House) -> (GatewayId, HostId, HostId) {
    let gateway = scene.house(house);
    let [alice, bob] = [("alice", 2), ("bob", 3)].map(|(name, place)| scene.peer_in(name, gateway, house, place));
    (gateway, alice, bob)
}

fn kind(scene: &Scene, a: HostId, b: HostId) -> Option<PathKind> {
    Some(scene.view(a, b)?.path?.kind)
}

#[test]
fn members_in_one_house_meet_though_no_rendezvous_is_named() {
    let mut scene = Scene::new(1);
    let (_, alice, bob) = two(&mut scene, CONE);
    let far = scene.peer("carol", CONE);
    for peer in [alice, bob, far] {
        scene.edit(peer, |p| p.profile.rendezvous.clear());
        scene.up(peer);
        scene.run(Duration::from_secs(7));
    }
    scene.settle(alice, bob, PeerState::Direct, SOON).expect("they met long ago");
    assert_eq!(kind(&scene, alice, bob), Some(PathKind::Host));
    scene.flows(alice, bob, Duration::from_millis(50));
    scene.talk(alice, bob, SOON).expect("packets pass");
    assert_eq!(scene.view(alice, far), None, "nobody else's LAN is theirs");
    assert_eq!(scene.warnings(bob), ["no-rendezvous"]);
}

#[test]
fn where_the_internet_is_gone_a_newcomer_is_found_within_two_seconds() {
    let mut scene = Scene::new(2);
    let (_, alice, bob) = two(&mut scene, CONE);
    scene.kill_server(scene.servers[0]);
    scene.up(alice);
    scene.run(Duration::from_secs(100));
    scene.up(bob);
    scene.settle(alice, bob, PeerState::Direct, SOON).expect("direct");
}

#[test]
fn who_is_killed_and_started_again_is_found_again_without_a_rendezvous() {
    let mut scene = Scene::new(3);
    let (_, alice, bob) = two(&mut scene, CONE);
    for peer in [alice, bob] {
        scene.edit(peer, |p| p.profile.rendezvous.clear());
        scene.up(peer);
    }
    scene.settle(alice, bob, PeerState::Direct, SOON).expect("direct");
    for away in [3, 60] {
        scene.kill(bob);
        scene.run(Duration::from_secs(away));
        // Whom it knew is forgotten, its numbers are not.
        scene.edit(bob, |p| p.disk.cache = None);
        scene.up(bob);
        let both = |w: &World| [alice, bob].map(|p| w.machine::<Peer>(p).status(w.now()).peers).concat();
        let direct = |w: &World| both(w).iter().filter(|p| p.state == PeerState::Direct).count() == 2;
        let young = |w: &World| both(w).iter().all(|p| p.handshake_age_s.is_some_and(|age| age < 3.0));
        scene
            .world
            .run_until(SOON, |w| direct(w) && young(w))
            .expect("direct by a new handshake, with nothing remembered");
    }
}

#[test]
fn who_comes_into_the_house_with_its_laptop_is_found_there() {
    let mut scene = Scene::new(4);
    let (gateway, alice, bob) = two(&mut scene, CONE);
    let elsewhere = scene.house(CONE);
    scene.kill_server(scene.servers[0]);
    scene.readdress(bob, elsewhere, vec!["192.168.7.9/24".parse().expect("a prefix")]);
    scene.up(alice);
    scene.up(bob);
    scene.run(Duration::from_secs(60));
    assert_eq!(scene.view(alice, bob), None);
    scene.readdress(bob, gateway, vec!["192.168.1.3/24".parse().expect("a prefix")]);
    // Its interfaces are looked at every 30 s here: no kernel tells of a change.
    scene.settle(alice, bob, PeerState::Direct, Duration::from_secs(32)).expect("direct");
}

#[test]
fn who_is_switched_off_says_nothing_and_hears_nothing() {
    let mut scene = Scene::new(5);
    let (_, alice, bob) = two(&mut scene, CONE);
    for peer in [alice, bob] {
        scene.edit(peer, |p| p.profile.rendezvous.clear());
    }
    scene.edit(bob, |p| p.profile.lan_discovery = false);
    scene.up(alice);
    scene.up(bob);
    scene.run(Duration::from_secs(60));
    assert_eq!((scene.view(alice, bob), scene.view(bob, alice)), (None, None));
}

/// Guests of a Wi-Fi reach each other only through the router's own address outside, if it lets them.
#[test]
fn guests_who_are_kept_apart_are_direct_where_the_router_turns_them_round_and_relayed_where_not() {
    for (hairpin, state) in [(true, PeerState::Direct), (false, PeerState::Relayed)] {
        let house = House::v4(Some(NatConfig { hairpin, ..NatConfig::port_restricted() }));
        let mut scene = Scene::new(6);
        let (gateway, alice, bob) = two(&mut scene, house);
        scene.world.gate(gateway).isolates = true;
        scene.up(alice);
        scene.up(bob);
        scene.acquaint(alice, bob, SOON).expect("they hear of each other");
        scene.flows(alice, bob, Duration::from_millis(50));
        scene.talk(alice, bob, SOON).expect("relayed from the first packet");
        scene.run(Duration::from_secs(10));
        assert_eq!((scene.state(alice, bob), scene.state(bob, alice)), (Some(state), Some(state)), "{hairpin}");
        let straight = scene.world.straight(alice, bob);
        assert_eq!(straight > 0, hairpin, "{straight} packets went straight");
        scene.hush();
        assert_eq!((scene.lost(0, alice, bob).1, scene.lost(0, bob, alice).1), (0, 0));
    }
}
