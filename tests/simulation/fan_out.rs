//! What is for many: broadcast and multicast between peers who reach each other directly and by a relay.

use std::net::IpAddr;
use std::time::Duration;

use punchlan::node::status::PeerState;
use punchlan::wire::session::feature;

use crate::nat::NatConfig;
use crate::sim::packet::{self, Inner};
use crate::sim::peer::Peer;
use crate::sim::scene::{House, Scene, ip};
use crate::sim::world::HostId;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const EVERYBODY: &str = "255.255.255.255";

/// Alice reaches bob by a relay, and carol directly.
fn three(seed: u64, change: impl Fn(&mut Scene, [HostId; 3])) -> (Scene, [HostId; 3]) {
    let mut scene = Scene::new(seed);
    let symmetric = House::v4(Some(NatConfig::symmetric()));
    let peers = [("alice", symmetric), ("bob", symmetric), ("carol", House::v4(None))];
    let peers = peers.map(|(name, house)| scene.peer(name, house));
    change(&mut scene, peers);
    peers.iter().for_each(|peer| scene.up(*peer));
    let [alice, bob, carol] = peers;
    scene.settle(alice, bob, PeerState::Relayed, SECOND * 8).expect("relayed");
    scene.settle(alice, carol, PeerState::Direct, SECOND * 8).expect("direct");
    scene.run(SECOND * 5);
    (scene, peers)
}

fn join(scene: &mut Scene, peer: HostId, groups: &[&str]) {
    let groups: Vec<IpAddr> = groups.iter().map(|group| ip(group)).collect();
    scene.world.with(peer, |p: &mut Peer, now| p.join(now, &groups));
}

fn say(scene: &mut Scene, peer: HostId, to: &str, what: &[u8]) {
    let to = ip(to);
    scene.world.with(peer, |p: &mut Peer, now| p.say(now, to, what));
}

/// What came to a peer for many: from whom, to which address, and what.
fn heard(scene: &mut Scene, peer: HostId) -> Vec<(IpAddr, String, Vec<u8>)> {
    let mut all = Vec::new();
    scene.edit(peer, |p| all = std::mem::take(&mut p.shared));
    let read = |bytes: Vec<u8>| match packet::read(&bytes) {
        (source, destination, Inner::Udp(payload)) => (source, destination.to_string(), payload),
        other => panic!("{other:?}"),
    };
    all.into_iter().map(read).collect()
}

#[test]
fn broadcast_reaches_all_and_multicast_those_who_have_joined_directly_and_relayed() {
    let (mut scene, [alice, bob, carol]) = three(1, |_, _| {});
    join(&mut scene, bob, &["239.1.2.3", "ff15::7"]);
    join(&mut scene, carol, &["239.1.2.4"]);
    scene.run(SECOND * 2);
    let (v4, v6) = (scene.v4(alice), scene.v6(alice));
    for (to, by_bob, by_carol) in [
        (EVERYBODY, true, true),
        ("10.77.0.255", true, true),
        ("224.0.0.1", true, true),
        ("239.1.2.3", true, false),
        ("239.1.2.4", false, true),
        ("239.1.2.5", false, false),
        ("ff15::7", true, false),
        ("ff02::1", true, true),
    ] {
        say(&mut scene, alice, to, b"who is there?");
        scene.run(SECOND);
        let source = if to.contains(':') { v6 } else { v4 };
        for (peer, hears) in [(bob, by_bob), (carol, by_carol)] {
            let expected = hears.then(|| (source, to.to_owned(), b"who is there?".to_vec()));
            assert_eq!(heard(&mut scene, peer), Vec::from_iter(expected), "{to}");
        }
        assert!(heard(&mut scene, alice).is_empty(), "nothing comes back");
    }
    let unwanted = [bob, carol].map(|peer| scene.machine(peer).node().dropped("not-joined"));
    assert_eq!(unwanted, [0, 0], "what nobody there has joined was not even sent");
    // Who begins anew and has joined nothing gets nothing.
    scene.kill(bob);
    scene.up(bob);
    join(&mut scene, bob, &[]);
    scene.settle(alice, bob, PeerState::Relayed, SECOND * 20).expect("relayed");
    scene.run(SECOND * 5);
    say(&mut scene, alice, "239.1.2.3", b"who is there?");
    scene.run(SECOND);
    assert!(heard(&mut scene, bob).is_empty());
}

#[test]
fn an_old_version_that_says_nothing_of_groups_gets_everything() {
    let (mut scene, [alice, bob, carol]) = three(2, |scene, [_, bob, _]| {
        scene.edit(bob, |p| p.profile.features = feature::CARRYING);
    });
    join(&mut scene, carol, &[]);
    scene.run(SECOND);
    say(&mut scene, alice, "239.1.2.3", b"hello");
    scene.run(SECOND);
    assert_eq!((heard(&mut scene, bob).len(), heard(&mut scene, carol).len()), (1, 0));
    assert_eq!(scene.machine(bob).node().dropped("malformed"), 0, "nor is it told of ours");
}

#[test]
fn a_storm_is_cut_and_named_and_disturbs_nobody() {
    let (mut scene, [alice, bob, carol]) = three(3, |_, _| {});
    scene.flows(bob, carol, MS * 50);
    let mark = scene.mark();
    for n in 0..6_000_u32 {
        say(&mut scene, alice, EVERYBODY, &n.to_be_bytes());
        if n % 2 == 1 {
            scene.run(MS);
        }
    }
    assert_eq!((scene.warnings(alice), scene.warnings(bob)), (vec!["storm".to_owned()], vec![]));
    scene.hush();
    assert_eq!(scene.lost(mark, bob, carol).1, 0);
    let (by_bob, by_carol) = (heard(&mut scene, bob).len(), heard(&mut scene, carol).len());
    assert!((1_900..=2_100).contains(&by_carol) && by_bob <= by_carol, "{by_bob} and {by_carol}");
    assert_eq!(scene.machine(alice).node().dropped("fan-out-rate"), 6_000 - by_carol as u64);
    scene.run(SECOND * 10);
    assert!(scene.warnings(alice).is_empty());
}

#[test]
fn nothing_goes_in_circles_though_everybody_says_again_what_comes() {
    let (mut scene, peers) = three(4, |scene, peers| {
        peers.iter().for_each(|peer| scene.edit(*peer, |p| p.reflects = true));
    });
    say(&mut scene, peers[0], EVERYBODY, b"who is there?");
    scene.run(SECOND * 2);
    let count = |scene: &mut Scene| peers.map(|peer| heard(scene, peer).len()).iter().sum::<usize>();
    let echoes = count(&mut scene);
    // Its own two, and what three say again for two each, twice at most and once more in the second after.
    assert!((2..=2 + 3 * 2 * 4).contains(&echoes), "{echoes}");
    scene.run(SECOND * 10);
    assert_eq!(count(&mut scene), 0, "silence");
}
