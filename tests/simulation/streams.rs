//! Networks that let no UDP pass: all goes by a stream, to the peer where the NATs let one through, else to the rendezvous.

use std::time::Duration;

use punchlan::node::status::{PathKind, PeerState, RendezvousState};
use punchlan::node::why::{Cause, Tried};

use crate::nat::NatConfig;
use crate::sim::oracle::direct_is_possible;
use crate::sim::scene::{House, Scene};
use crate::sim::world::HostId;

const SECOND: Duration = Duration::from_secs(1);

/// Two peers, each behind a router that lets out UDP or does not, and that lets in no connection.
fn pair(blocked: [bool; 2]) -> (Scene, HostId, HostId) {
    behind([Some(NatConfig::symmetric()), Some(NatConfig::port_restricted())], blocked)
}

/// Two peers behind these, each of which lets out UDP or does not.
fn behind(nats: [Option<NatConfig>; 2], blocked: [bool; 2]) -> (Scene, HostId, HostId) {
    let mut scene = Scene::new(7);
    let mut names = ["alice", "bob"].into_iter();
    let peers = nats.map(|nat| scene.peer(names.next().expect("two"), House::v4(nat)));
    for (peer, blocked) in peers.into_iter().zip(blocked) {
        set_blocked(&mut scene, peer, blocked);
        scene.up(peer);
    }
    let [alice, bob] = peers;
    (scene, alice, bob)
}

fn set_blocked(scene: &mut Scene, peer: HostId, blocked: bool) {
    let gateway = scene.world.gateway_of(peer);
    scene.world.gate(gateway).udp_blocked = blocked;
}

fn transport(scene: &Scene, peer: HostId) -> (String, RendezvousState) {
    let rendezvous = scene.status(peer).rendezvous.remove(0);
    (rendezvous.transport, rendezvous.state)
}

fn by(word: &str) -> (String, RendezvousState) {
    (word.to_owned(), RendezvousState::Registered)
}

#[test]
fn whoever_has_no_udp_is_relayed_by_tcp_from_the_first_packet_and_wastes_nothing_on_punching() {
    for blocked in [[true, false], [true, true]] {
        let (mut scene, alice, bob) = pair(blocked);
        let met = scene.settle(alice, bob, PeerState::Relayed, SECOND * 6).expect("they meet");
        assert!(met < SECOND * 4, "{blocked:?}: {met:?}");
        scene.flows(alice, bob, SECOND / 10);
        let mark = scene.mark();
        scene.run(SECOND * 120);
        assert_eq!(scene.lost(mark, alice, bob).1 + scene.lost(mark, bob, alice).1, 0, "{blocked:?}");
        assert_eq!(transport(&scene, alice), by("tcp"));
        let path = scene.view(alice, bob).expect("listed").path.expect("a path");
        assert_eq!((path.transport.as_str(), path.relay.as_deref()), ("tcp", Some("rdv1.example:3478")));
        let why = |a, b| scene.machine(a).node().why(scene.now(), &scene.id(b)).expect("known");
        let there = if blocked[1] { Cause::UdpBlockedHere } else { Cause::UdpBlockedThere };
        assert_eq!((why(alice, bob).cause, why(bob, alice).cause), (Cause::UdpBlockedHere, there));
        for (a, b) in [(alice, bob), (bob, alice)] {
            // Both homes have the same private addresses: it could be one LAN.
            let beyond = |tried: &&Tried| tried.kind != PathKind::Host;
            assert_eq!(why(a, b).tried.iter().filter(beyond).count(), 0, "{blocked:?}: {:?}", why(a, b).tried);
        }
        let kinds: Vec<String> = scene.status(alice).me.candidates.iter().map(|c| format!("{:?}", c.kind)).collect();
        assert_eq!(kinds, ["Host"], "what TCP shows is no address of UDP");
    }
}

#[test]
fn when_udp_passes_again_all_goes_by_it_and_directly_without_a_lost_packet_and_the_stream_ends() {
    let (mut scene, alice, bob) = pair([true, false]);
    scene.settle(alice, bob, PeerState::Relayed, SECOND * 6).expect("they meet");
    scene.flows(alice, bob, SECOND / 20);
    scene.run(SECOND * 40);
    assert_eq!(scene.world.streams_open(), 1);
    let mark = scene.mark();
    set_blocked(&mut scene, alice, false);
    scene.settle(alice, bob, PeerState::Direct, SECOND * 40).expect("by UDP");
    scene.run(SECOND * 10);
    assert_eq!(transport(&scene, alice), by("udp"));
    assert_eq!(scene.world.streams_open(), 0);
    assert_eq!(scene.lost(mark, alice, bob).1 + scene.lost(mark, bob, alice).1, 0);
}

/// How long nothing arrives when all streams die without a word; a minute passes.
fn gap_when_streams_die(scene: &mut Scene, alice: HostId, bob: HostId) -> Duration {
    scene.flows(alice, bob, SECOND / 10);
    scene.run(SECOND * 20);
    let (mark, start) = (scene.mark(), scene.now());
    scene.world.forget_streams();
    scene.run(SECOND * 60);
    scene.longest_gap(mark, alice, bob, start)
}

/// The NATs in front of a pair of which UDP does not reach one side, or either.
fn nats() -> [Option<NatConfig>; 6] {
    [
        None,
        Some(NatConfig::full_cone()),
        Some(NatConfig::address_restricted()),
        Some(NatConfig::port_restricted()),
        Some(NatConfig::linux_masquerade()),
        Some(NatConfig::symmetric()),
    ]
}

#[test]
fn where_the_nats_let_a_connection_through_a_pair_without_udp_is_direct_by_tcp() {
    for here in nats() {
        for there in nats() {
            for blocked in [[true, false], [true, true]] {
                let (mut scene, alice, bob) = behind([here, there], blocked);
                let what = format!("{here:?} × {there:?}, {blocked:?}");
                let state = match direct_is_possible(here, there) {
                    true => PeerState::Direct,
                    false => PeerState::Relayed,
                };
                let met = scene.settle(alice, bob, state, SECOND * 8).unwrap_or_else(|| panic!("{what}"));
                assert!(met < SECOND * 5, "{what}: {met:?}");
                scene.run(SECOND * 20);
                assert_eq!([scene.state(alice, bob), scene.state(bob, alice)], [Some(state); 2], "{what}");
                let path = scene.view(alice, bob).expect("listed").path.expect("a path");
                assert_eq!(
                    (path.transport.as_str(), path.relay.is_none()),
                    ("tcp", state == PeerState::Direct),
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn a_pair_that_is_connected_loses_nothing_on_the_way_there_and_keeps_one_connection() {
    let (mut scene, alice, bob) = behind([Some(NatConfig::linux_masquerade()); 2], [true, true]);
    scene.settle(alice, bob, PeerState::Relayed, SECOND * 6).expect("they meet");
    scene.flows(alice, bob, SECOND / 50);
    let mark = scene.mark();
    scene.settle(alice, bob, PeerState::Direct, SECOND * 6).expect("by TCP");
    scene.run(SECOND * 60);
    assert_eq!(scene.lost(mark, alice, bob).1 + scene.lost(mark, bob, alice).1, 0);
    assert_eq!(scene.world.streams_between(alice, bob), 1);
    assert_eq!(scene.world.streams_open(), 3, "one with the rendezvous each, beside it");
}

#[test]
fn a_connection_that_ends_is_made_again_and_udp_takes_its_place_when_it_passes() {
    let (mut scene, alice, bob) = behind([Some(NatConfig::port_restricted()); 2], [true, false]);
    scene.settle(alice, bob, PeerState::Direct, SECOND * 8).expect("by TCP");
    scene.flows(alice, bob, SECOND / 20);
    scene.run(SECOND * 20);
    let (mark, start) = (scene.mark(), scene.now());
    scene.world.end_streams(bob);
    scene.settle(alice, bob, PeerState::Direct, SECOND * 8).expect("by TCP again");
    let gap = scene.longest_gap(mark, alice, bob, start);
    assert!(gap < SECOND, "{gap:?}");
    scene.run(SECOND * 20);
    let mark = scene.mark();
    set_blocked(&mut scene, alice, false);
    let by_udp = |scene: &Scene| {
        let path = scene.view(alice, bob).and_then(|peer| peer.path);
        path.is_some_and(|path| path.relay.is_none() && path.transport == "udp")
    };
    (0..120)
        .find(|_| {
            scene.run(SECOND / 2);
            by_udp(&scene)
        })
        .expect("by UDP");
    scene.run(SECOND * 30);
    assert!(by_udp(&scene));
    assert_eq!((scene.world.streams_between(alice, bob), scene.world.streams_open()), (0, 0));
    assert_eq!(scene.lost(mark, alice, bob).1 + scene.lost(mark, bob, alice).1, 0);
}

#[test]
fn a_connection_that_dies_without_a_word_is_left_for_the_relay_within_seconds() {
    let (mut scene, alice, bob) = behind([Some(NatConfig::port_restricted()), None], [true, true]);
    scene.settle(alice, bob, PeerState::Direct, SECOND * 8).expect("by TCP");
    let gap = gap_when_streams_die(&mut scene, alice, bob);
    assert!(gap < SECOND * 15, "{gap:?}: those to the rendezvous died as well");
    assert_eq!(scene.state(alice, bob), Some(PeerState::Direct), "by another connection");
}

#[test]
fn when_udp_stops_passing_a_pair_goes_on_by_tcp() {
    let (mut scene, alice, bob) = pair([false, false]);
    scene.settle(alice, bob, PeerState::Direct, SECOND * 6).expect("they meet");
    scene.flows(alice, bob, SECOND / 10);
    scene.run(SECOND * 20);
    let (mark, start) = (scene.mark(), scene.now());
    set_blocked(&mut scene, alice, true);
    scene.settle(alice, bob, PeerState::Relayed, SECOND * 15).expect("by TCP");
    scene.run(SECOND * 30);
    assert_eq!(transport(&scene, alice), by("tcp"));
    let gap = scene.longest_gap(mark, alice, bob, start);
    assert!(gap < SECOND * 8, "{gap:?}");
}

#[test]
fn a_rendezvous_that_is_started_again_is_found_again_by_tcp() {
    let (mut scene, alice, bob) = pair([true, true]);
    scene.settle(alice, bob, PeerState::Relayed, SECOND * 6).expect("they meet");
    scene.flows(alice, bob, SECOND / 10);
    scene.run(SECOND * 15);
    let server = scene.servers[0];
    scene.kill_server(server);
    scene.run(SECOND * 5);
    scene.start_server(server);
    let (mark, start) = (scene.mark(), scene.now());
    scene.run(SECOND * 40);
    let gap = scene.longest_gap(mark, alice, bob, start);
    assert!(gap < SECOND * 9, "{gap:?}");
    assert_eq!((transport(&scene, alice), transport(&scene, bob)), (by("tcp"), by("tcp")));
}

#[test]
fn who_comes_back_quickly_by_another_stream_was_never_away_for_the_others() {
    let (mut scene, alice, bob) = pair([true, false]);
    scene.settle(alice, bob, PeerState::Relayed, SECOND * 6).expect("they meet");
    scene.flows(alice, bob, SECOND / 10);
    scene.run(SECOND * 20);
    let (mark, start) = (scene.mark(), scene.now());
    scene.world.end_streams(scene.servers[0]);
    scene.world.run_until(SECOND * 5, |w| w.streams_open() == 1).expect("it is back");
    for _ in 0..100 {
        scene.run(SECOND / 10);
        assert_eq!(scene.state(bob, alice), Some(PeerState::Relayed));
    }
    let gap = scene.longest_gap(mark, alice, bob, start);
    assert!(gap < SECOND * 2, "{gap:?}");
}

#[test]
fn a_stream_that_dies_without_a_word_is_given_up_and_another_takes_its_place_within_seconds() {
    let (mut scene, alice, bob) = pair([true, false]);
    scene.settle(alice, bob, PeerState::Relayed, SECOND * 6).expect("they meet");
    let gap = gap_when_streams_die(&mut scene, alice, bob);
    assert!(gap < SECOND * 15, "{gap:?}");
    assert_eq!((transport(&scene, alice), scene.state(alice, bob)), (by("tcp"), Some(PeerState::Relayed)));
}

#[test]
fn who_wants_the_rendezvous_by_tcp_alone_is_direct_to_whom_it_reaches() {
    let mut scene = Scene::new(11);
    let peers = ["alice", "bob"].map(|name| scene.peer(name, House::v4(None)));
    for peer in peers {
        scene.edit(peer, |peer| peer.profile.rendezvous = vec!["tcp://rdv1.example".to_owned()]);
        scene.up(peer);
    }
    scene.settle(peers[0], peers[1], PeerState::Direct, SECOND * 8).expect("both have public addresses");
    assert_eq!(transport(&scene, peers[0]), by("tcp"));
}

#[test]
fn where_udp_comes_and_goes_the_registration_does_not_follow_each_time() {
    let (mut scene, alice, _) = pair([true, false]);
    for _ in 0..40 {
        set_blocked(&mut scene, alice, false);
        scene.run(SECOND * 4);
        set_blocked(&mut scene, alice, true);
        scene.run(SECOND * 16);
    }
    let streams = scene.world.streams_ever();
    assert!(streams < 20, "{streams}");
}

#[test]
fn one_rendezvous_in_two_ways_that_no_name_shows_is_one() {
    let mut scene = Scene::new(13);
    let [v4, v6] = ["198.51.100.1", "2001:db8:ff::1"].map(|text| text.parse().expect("address"));
    scene.name(scene.servers[0], &[v4]);
    scene.alias("other.example", v6);
    let alice = scene.peer("alice", House { nat: Some(NatConfig::port_restricted()), ipv6: true });
    scene.edit(alice, |peer| peer.profile.rendezvous.push("tcp://other.example".to_owned()));
    scene.up(alice);
    for _ in 0..100 {
        scene.run(SECOND);
        let registered = |r: &RendezvousState| *r == RendezvousState::Registered;
        let states: Vec<RendezvousState> = scene.status(alice).rendezvous.into_iter().map(|r| r.state).collect();
        assert!(states.iter().filter(|state| registered(state)).count() <= 1, "{states:?}");
    }
    let status = scene.status(alice);
    assert!(status.rendezvous.iter().any(|r| r.state == RendezvousState::Refused), "it is said which is one too many");
    assert!(!status.warnings.iter().any(|warning| format!("{warning:?}").to_lowercase().contains("duplicate")));
}

#[test]
fn peers_behind_one_router_that_lets_no_udp_out_are_direct_all_the_same() {
    let mut scene = Scene::new(9);
    let house = House::v4(Some(NatConfig::port_restricted()));
    let gateway = scene.house(house);
    let [alice, bob] = [("alice", 2), ("bob", 3)].map(|(name, place)| scene.peer_in(name, gateway, house, place));
    scene.world.gate(gateway).udp_blocked = true;
    scene.up(alice);
    scene.up(bob);
    scene.settle(alice, bob, PeerState::Direct, SECOND * 8).expect("over the LAN");
}
