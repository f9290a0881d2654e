//! What `punchlan why` says of each pair of places.

use std::time::Duration;

use punchlan::node::why::{Cause, SearchState, Why};

use crate::nat::NatConfig;
use crate::sim::oracle::{Place, direct_by_search_is_possible, direct_is_possible};
use crate::sim::scene::{House, Scene};
use crate::sim::topology::Line;
use crate::sim::world::HostId;

const SECOND: Duration = Duration::from_secs(1);

fn why(scene: &Scene, a: HostId, b: HostId) -> Why {
    scene.machine(a).node().why(scene.now(), &scene.id(b)).expect("known")
}

fn pair(a: House, b: House) -> (Scene, [HostId; 2]) {
    let mut scene = Scene::new(3);
    let peers = [("alice", a), ("bob", b)].map(|(name, house)| scene.peer(name, house));
    peers.iter().for_each(|peer| scene.up(*peer));
    (scene, peers)
}

#[test]
fn of_each_pair_of_places_the_cause_is_named() {
    for (n, a) in Place::EVERY.into_iter().enumerate() {
        for b in Place::EVERY.into_iter().skip(n) {
            let (mut scene, [alice, bob]) = pair(House::v4(a.nat()), House::v4(b.nat()));
            scene.run(SECOND * 12);
            let (x, y) = (why(&scene, alice, bob), why(&scene, bob, alice));
            let punched = direct_is_possible(a.nat(), b.nat());
            let one_changes = x.here.changes_port != x.there.changes_port;
            if punched || one_changes && direct_by_search_is_possible(a.nat(), b.nat()) {
                assert_eq!((x.cause, y.cause), (Cause::Direct, Cause::Direct), "{a} × {b}");
                let found = if punched { None } else { Some(SearchState::Found) };
                assert_eq!(x.search.map(|search| search.state), found, "{a} × {b}");
            } else if x.cause != Cause::Direct {
                // Two that have few ports may meet, and may not.
                assert_eq!((x.cause, y.cause), (Cause::BothSymmetric, Cause::BothSymmetric), "{a} × {b}");
                assert!(x.tried.iter().any(|tried| tried.sent > 0 && !tried.answered), "{a} × {b}: {:?}", x.tried);
            }
        }
    }
}

#[test]
fn who_has_no_family_in_common_is_told_so() {
    let v6 = House { nat: Some(NatConfig::port_restricted()), ipv6: true };
    let (mut scene, [alice, bob]) = pair(House::v4(Some(NatConfig::port_restricted())), v6);
    // Bob's line carries IPv6 alone.
    scene.kill(bob);
    let own: Vec<_> = scene.machine(bob).interfaces.iter().copied().filter(|net| net.addr().is_ipv6()).collect();
    let gateway = scene.world.gateway_of(bob);
    scene.readdress(bob, gateway, own);
    scene.up(bob);
    scene.run(SECOND * 15);
    let (x, y) = (why(&scene, alice, bob), why(&scene, bob, alice));
    assert_eq!((x.cause, y.cause), (Cause::NoCommonFamily, Cause::NoCommonFamily));
    assert!(x.here.ipv4 && !x.here.ipv6 && !x.there.ipv4 && x.there.ipv6);
}

#[test]
fn who_is_gone_who_hears_nothing_and_who_is_blocked_are_told_apart() {
    let cone = House::v4(Some(NatConfig::port_restricted()));
    let (mut scene, [alice, bob]) = pair(cone, cone);
    scene.run(SECOND * 5);
    scene.down(bob);
    scene.run(SECOND);
    assert_eq!(why(&scene, alice, bob).cause, Cause::Offline);
    let server = scene.servers[0];
    scene.kill_server(server);
    scene.run(SECOND * 90);
    assert_eq!(why(&scene, alice, bob).cause, Cause::NoRendezvous);

    let (mut scene, [alice, bob]) = pair(cone, cone);
    let office = scene.world.gateway_of(scene.servers[0]);
    // What does not go to the rendezvous or come from there is lost.
    scene.world.only = Some(office);
    scene.run(SECOND * 12);
    assert_eq!(why(&scene, alice, bob).cause, Cause::Blocked);
    scene.world.only = None;
    scene.world.all_lines(Line::CLEAN);
    scene.run(SECOND * 60);
    assert_eq!(why(&scene, alice, bob).cause, Cause::Direct);
}
