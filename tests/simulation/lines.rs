//! Lines that lose, delay, double and let datagrams overtake each other. Handshakes, new keys and better paths cost
//! nothing that the line itself does not cost.

use std::time::Duration;

use punchlan::node::status::PeerState;

use crate::nat::NatConfig;
use crate::sim::scene::{House, Scene};
use crate::sim::topology::Line;
use crate::sim::world::HostId;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DIRECT: NatConfig = NatConfig::port_restricted();
const RELAYED: NatConfig = NatConfig::symmetric();

/// Two peers, and a rendezvous that is so far away: there and back differ.
fn meet(seed: u64, nat: NatConfig, line: Line, (there, back): (Duration, Duration)) -> (Scene, HostId, HostId) {
    let mut scene = Scene::new(seed);
    let peers = ["alice", "bob"].map(|name| scene.peer(name, House::v4(Some(nat))));
    scene.world.all_lines(line);
    let office = scene.world.gateway_of(scene.servers[0]);
    let office = scene.world.gate(office);
    (office.down.delay, office.up.delay) = (there, back);
    peers.iter().for_each(|peer| scene.up(*peer));
    (scene, peers[0], peers[1])
}

/// Near, far, and there another way than back.
const WAYS: [(Duration, Duration); 3] = [
    (MS, MS.saturating_mul(9)),
    (MS.saturating_mul(100), MS.saturating_mul(100)),
    (MS.saturating_mul(10), MS.saturating_mul(190)),
];

/// Both are in this state, and have just become so.
fn become_state(scene: &mut Scene, a: HostId, b: HostId, state: PeerState) {
    scene.settle(a, b, state, SECOND * 20).unwrap_or_else(|| panic!("never {state:?}"));
}

#[test]
fn of_100_000_packets_on_the_way_from_the_relay_to_a_direct_path_none_is_lost() {
    let mut sent = 0;
    for (n, way) in WAYS.into_iter().cycle().take(10).enumerate() {
        // Every other time datagrams overtake each other and come twice.
        let line = if n % 2 == 0 { Line::CLEAN } else { Line { jitter: MS * 20, doubled: 100, ..Line::CLEAN } };
        let (mut scene, alice, bob) = meet(41 + n as u64, DIRECT, line, way);
        scene.world.only = Some(scene.world.gateway_of(scene.servers[0]));
        become_state(&mut scene, alice, bob, PeerState::Relayed);
        scene.flows(alice, bob, MS);
        scene.run(SECOND);
        scene.world.only = None;
        // The next search finds it.
        become_state(&mut scene, alice, bob, PeerState::Direct);
        scene.run(SECOND * 4);
        scene.hush();
        for (x, y) in [(alice, bob), (bob, alice)] {
            let (all, lost) = scene.lost(0, x, y);
            assert_eq!(lost, 0, "of {all}, {way:?} from the rendezvous, {line:?}");
            sent += all;
        }
        assert!(scene.world.straight(alice, bob) > 2_000);
    }
    assert!(sent >= 100_000, "{sent}");
}

#[test]
fn of_100_000_packets_under_keys_that_change_none_is_lost() {
    for nat in [DIRECT, RELAYED] {
        let line = Line { jitter: MS * 10, doubled: 50, ..Line::CLEAN };
        let (mut scene, alice, bob) = meet(61, nat, line, WAYS[2]);
        become_state(&mut scene, alice, bob, if nat == RELAYED { PeerState::Relayed } else { PeerState::Direct });
        scene.flows(alice, bob, MS * 8);
        scene.run(SECOND * 400);
        let age = scene.view(alice, bob).and_then(|peer| peer.handshake_age_s).expect("a session");
        assert!(age < 160.0, "the keys are {age} s old");
        scene.hush();
        let lost = [(alice, bob), (bob, alice)].map(|(x, y)| scene.lost(0, x, y));
        assert!(lost[0].0 + lost[1].0 >= 100_000, "{lost:?}");
        assert_eq!((lost[0].1, lost[1].1), (0, 0), "on {nat:?}");
    }
}

#[test]
fn nothing_is_lost_but_what_the_line_loses() {
    for nat in [DIRECT, RELAYED] {
        for (n, way) in WAYS.into_iter().enumerate() {
            for loss in [5, 20, 50] {
                let line = Line { loss, jitter: MS * 30, ..Line::CLEAN };
                let (mut scene, alice, bob) = meet(71 + n as u64, nat, line, way);
                become_state(
                    &mut scene,
                    alice,
                    bob,
                    if nat == RELAYED { PeerState::Relayed } else { PeerState::Direct },
                );
                scene.flows(alice, bob, MS * 100);
                scene.run(SECOND * 300);
                scene.hush();
                let by_line = scene.world.line_lost;
                let lost: usize = [(alice, bob), (bob, alice)].map(|(x, y)| scene.lost(0, x, y).1).iter().sum();
                assert!(lost <= by_line, "{lost} lost, {by_line} by the line: {loss} per mille, {way:?}, {nat:?}");
            }
        }
    }
}
