//! Members with no rendezvous in common, and one who sees both.
//!
//! ```text
//!   alice ── rdv1 ── carol ── rdv2 ── bob
//! ```

use std::time::Duration;

use punchlan::node::RelayConfig;
use punchlan::node::status::PeerState;

use crate::nat::NatConfig;
use crate::sim::peer::Peer;
use crate::sim::scene::{House, Scene};
use crate::sim::world::HostId;

const SECOND: Duration = Duration::from_secs(1);

/// alice and bob behind these NATs, and carol, who carries for others or not, all up.
fn divided(a: NatConfig, b: NatConfig, offer: bool) -> (Scene, [HostId; 3]) {
    let mut scene = Scene::new(81);
    scene.rendezvous();
    let kinds = [a, b, NatConfig::full_cone()];
    let peers = [0, 1, 2].map(|n| scene.peer(["alice", "bob", "carol"][n], House::v4(Some(kinds[n]))));
    for (peer, servers) in
        peers.into_iter().zip([&["rdv1.example"][..], &["rdv2.example"], &["rdv1.example", "rdv2.example"]])
    {
        scene.edit(peer, |p: &mut Peer| {
            p.profile.rendezvous = servers.iter().map(|&s| s.to_owned()).collect();
            p.profile.relay = RelayConfig { offer, ..RelayConfig::default() };
        });
        scene.up(peer);
    }
    (scene, peers)
}

#[test]
fn who_has_no_rendezvous_in_common_is_connected_directly_by_a_third() {
    let (mut scene, [alice, bob, carol]) = divided(NatConfig::port_restricted(), NatConfig::port_restricted(), true);
    scene.settle(alice, bob, PeerState::Direct, SECOND * 5).expect("carol tells them");
    scene.flows(alice, bob, SECOND / 10);
    scene.run(SECOND * 100);
    scene.kill(carol);
    scene.run(SECOND * 200);
    scene.hush();
    assert_eq!((scene.lost(0, alice, bob).1, scene.lost(0, bob, alice).1), (0, 0), "and they need her no longer");
    for peer in [alice, bob] {
        assert!(scene.warnings(peer).is_empty(), "{:?}", scene.warnings(peer));
    }
}

#[test]
fn who_has_no_rendezvous_in_common_and_no_direct_path_is_carried_by_a_third() {
    let (mut scene, [alice, bob, _]) = divided(NatConfig::symmetric(), NatConfig::symmetric(), true);
    scene.settle(alice, bob, PeerState::Relayed, SECOND * 10).expect("by carol");
    scene.flows(alice, bob, SECOND / 10);
    scene.run(SECOND * 100);
    scene.hush();
    assert_eq!((scene.lost(0, alice, bob).1, scene.lost(0, bob, alice).1), (0, 0));
    for (peer, other) in [(alice, bob), (bob, alice)] {
        assert_eq!(scene.view(peer, other).and_then(|other| other.path?.relay).as_deref(), Some("carol"));
        assert!(scene.warnings(peer).is_empty(), "{:?}", scene.warnings(peer));
    }
}

#[test]
fn who_has_no_rendezvous_in_common_and_no_direct_path_is_told_what_to_change() {
    let (mut scene, [alice, bob, carol]) = divided(NatConfig::symmetric(), NatConfig::symmetric(), false);
    scene.run(SECOND * 100);
    for (peer, other) in [(alice, bob), (bob, alice)] {
        assert_eq!(scene.state(peer, other), Some(PeerState::Connecting));
        assert_eq!(scene.warnings(peer), ["no-common-rendezvous"]);
    }
    assert!(scene.warnings(carol).is_empty());
    let text = &scene.status(alice).warnings[0].text;
    assert!(text.contains("bob") && text.contains("`rendezvous`"), "{text}");
    // bob does as he is told; then he goes.
    scene.edit(bob, |p: &mut Peer| p.profile.rendezvous.push("rdv1.example".into()));
    scene.down(bob);
    scene.run(SECOND * 60);
    assert!(scene.warnings(alice).is_empty(), "{:?}", scene.warnings(alice));
    scene.up(bob);
    scene.settle(alice, bob, PeerState::Relayed, SECOND * 5).expect("by the rendezvous");
    assert!(scene.warnings(alice).is_empty() && scene.warnings(bob).is_empty());
}
