//! net.toml changes while the peers run.

use std::time::Duration;

use punchlan::node::status::PeerState;
use punchlan::node::{Changeable, Command};

use crate::nat::NatConfig;
use crate::sim::peer::{Peer, rendezvous};
use crate::sim::scene::{House, Scene};
use crate::sim::world::HostId;

const SECOND: Duration = Duration::from_secs(1);

/// Two peers that are relayed, or direct, by the first rendezvous; a second one runs that they do not know of.
fn two(nat: NatConfig) -> (Scene, HostId, HostId) {
    let mut scene = Scene::new(31);
    let [alice, bob] = ["alice", "bob"].map(|name| scene.peer(name, House::v4(Some(nat))));
    scene.rendezvous();
    for peer in [alice, bob] {
        scene.edit(peer, |p| p.profile.rendezvous.truncate(1));
        scene.up(peer);
    }
    let state = if nat == NatConfig::symmetric() { PeerState::Relayed } else { PeerState::Direct };
    scene.settle(alice, bob, state, SECOND * 5).expect("they meet");
    (scene, alice, bob)
}

/// Changes what a peer's net.toml says, and reloads it.
fn reload(scene: &mut Scene, peer: HostId, change: impl FnOnce(&mut Changeable)) {
    scene.world.with(peer, |p: &mut Peer, now| {
        let mut wanted = p.changeable();
        change(&mut wanted);
        (p.profile.name, p.profile.deny) = (wanted.name.clone(), wanted.deny.clone());
        p.profile.rendezvous = wanted.rendezvous.iter().map(|server| server.host.clone()).collect();
        p.command(now, Command::Reconfigure(wanted));
    });
}

fn servers(names: &[&str]) -> Vec<punchlan::node::RendezvousConfig> {
    names.iter().map(|name| rendezvous(name)).collect()
}

#[test]
fn a_rendezvous_that_comes_or_goes_costs_those_who_use_another_nothing() {
    let (mut scene, alice, bob) = two(NatConfig::symmetric());
    scene.flows(alice, bob, SECOND / 100);
    scene.run(SECOND);
    for list in [&["rdv2.example", "rdv1.example"][..], &["rdv1.example"], &["rdv1.example", "rdv2.example"]] {
        for peer in [alice, bob] {
            reload(&mut scene, peer, |wanted| wanted.rendezvous = servers(list));
        }
        scene.run(SECOND * 10);
        assert_eq!(scene.status(alice).rendezvous.len(), list.len());
        assert!(scene.warnings(alice).is_empty(), "{:?}", scene.warnings(alice));
    }
    scene.hush();
    assert_eq!((scene.lost(0, alice, bob).1, scene.lost(0, bob, alice).1), (0, 0));
}

#[test]
fn a_relayed_pair_moves_to_another_rendezvous_when_its_own_is_removed() {
    let (mut scene, alice, bob) = two(NatConfig::symmetric());
    for peer in [alice, bob] {
        reload(&mut scene, peer, |wanted| wanted.rendezvous = servers(&["rdv1.example", "rdv2.example"]));
    }
    scene.run(SECOND * 5);
    scene.flows(alice, bob, SECOND / 10);
    scene.run(SECOND);
    let (mark, start) = (scene.mark(), scene.now());
    for peer in [alice, bob] {
        reload(&mut scene, peer, |wanted| wanted.rendezvous = servers(&["rdv2.example"]));
    }
    scene.run(SECOND * 10);
    assert!(scene.longest_gap(mark, alice, bob, start) < SECOND, "{:?}", scene.longest_gap(mark, alice, bob, start));
    let path = scene.view(alice, bob).and_then(|peer| peer.path).expect("a path");
    assert!(path.relay.is_some_and(|relay| relay.starts_with("rdv2.example")));
}

#[test]
fn without_any_rendezvous_a_direct_pair_lives_on_and_is_warned() {
    let (mut scene, alice, bob) = two(NatConfig::port_restricted());
    scene.flows(alice, bob, SECOND / 10);
    let mark = scene.mark();
    for peer in [alice, bob] {
        reload(&mut scene, peer, |wanted| wanted.rendezvous.clear());
    }
    scene.run(SECOND * 100);
    assert_eq!(scene.warnings(alice), ["no-rendezvous"]);
    assert_eq!((scene.lost(mark, alice, bob).1, scene.lost(mark, bob, alice).1), (0, 0));
    reload(&mut scene, alice, |wanted| wanted.rendezvous = servers(&["rdv1.example"]));
    scene.run(SECOND * 3);
    assert!(scene.warnings(alice).is_empty());
}

#[test]
fn who_is_denied_is_gone_at_once_and_who_is_no_longer_comes_back() {
    let (mut scene, alice, bob) = two(NatConfig::port_restricted());
    let id = scene.id(bob);
    scene.flows(alice, bob, SECOND / 10);
    scene.run(SECOND);
    reload(&mut scene, alice, |wanted| wanted.deny = vec![id]);
    assert_eq!(scene.view(alice, bob), None);
    let mark = scene.mark();
    scene.run(SECOND * 20);
    assert_eq!(scene.view(alice, bob), None, "whatever bob does");
    for (from, to) in [(alice, bob), (bob, alice)] {
        let (sent, lost) = scene.lost(mark, from, to);
        assert_eq!(sent, lost, "nothing passes");
    }
    reload(&mut scene, alice, |wanted| wanted.deny.clear());
    scene.settle(alice, bob, PeerState::Direct, SECOND * 20).expect("direct again");
    scene.talk(alice, bob, SECOND * 3).expect("they talk again");
}

#[test]
fn a_new_name_is_told_to_everybody() {
    let (mut scene, alice, bob) = two(NatConfig::port_restricted());
    reload(&mut scene, bob, |wanted| wanted.name = "bobby".into());
    scene.run(SECOND * 2);
    assert_eq!(scene.view(alice, bob).expect("he is here").name, "bobby");
    assert_eq!(scene.status(bob).me.name, "bobby");
    reload(&mut scene, bob, |wanted| wanted.name = "alice".into());
    scene.run(SECOND * 2);
    assert_eq!(scene.view(alice, bob).expect("he is here").name, "alice-2", "that is alice's own");
}
