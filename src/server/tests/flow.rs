//! What honest peers see.

use std::time::Duration;

use super::world::{MS, S, World, server_v4, server_v6};
use crate::rendezvous::{Event, State};

fn introduced(peer: &crate::id::PeerId) -> impl Fn(&Event) -> bool {
    let peer = *peer;
    move |event| *event == Event::Introduced { peer }
}

#[test]
fn two_peers_find_each_other_and_start_at_the_same_moment() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(S);
    let b = world.join(1, 2);
    let joined = world.now;
    let took = world.run_until(S, |w| w.all_know_each_other(&[a, b])).expect("they meet");
    // Hello, Cookie, Register and announcement, news: four one-way trips of 10 ms.
    assert_eq!(took, MS * 40);
    let (id_a, id_b) = (world.id(a), world.id(b));
    let start = world.peers[a].when(introduced(&id_b)).expect("introduced");
    assert_eq!(world.peers[b].when(introduced(&id_a)), Some(start));
    assert_eq!(start - joined, MS * 40);
    let addr = world.peers[b].addr;
    let member = Event::Member { peer: id_b, observed: Some(addr), sealed: vec![2; 512] };
    assert_eq!(world.peers[a].count(|event| *event == member), 1);
    assert_eq!(world.peers[b].client.state(), State::Registered);
    assert_eq!(world.peers[b].client.rtt(), Some(MS * 20));
}

#[test]
fn the_first_announcement_can_name_the_observed_address() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(MS * 20);
    let (addr, socket) = (world.peers[a].addr, crate::id::SocketId(0));
    assert_eq!(world.peers[a].count(|e| *e == Event::Observed { socket, addr }), 1);
    assert_eq!(world.peers[a].count(|e| *e == Event::Registered), 0, "it comes before the registration");
}

#[test]
fn nothing_is_said_in_steady_state_but_refreshes() {
    let mut world = World::new();
    for device in 0..4 {
        world.join(1, device);
    }
    world.run(S * 5);
    world.wire.clear();
    world.run(S * 600);
    let per_peer = world.wire.len() / 4;
    assert!((80..=92).contains(&per_peer), "a question and an answer every 15 s at most: {per_peer}");
    assert!(world.peers.iter().all(|peer| peer.count(|e| matches!(e, Event::Left { .. } | Event::Lost)) == 0));
}

#[test]
fn networks_do_not_see_each_other() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(2, 2));
    world.run(S * 60);
    assert_eq!(world.peers[a].count(|e| matches!(e, Event::Member { .. })), 0);
    assert_eq!(world.peers[b].count(|e| matches!(e, Event::Member { .. })), 0);
}

#[test]
fn loss_of_a_third_of_all_datagrams_heals() {
    for round in 0..10 {
        let mut world = World::new();
        world.loss = 30;
        world.delay = MS * (5 + round);
        let all: Vec<usize> = (0..8).map(|device| world.join(1, device)).collect();
        assert!(world.run_until(S * 20, |w| w.all_know_each_other(&all)).is_some());
        for peer in &all[1..] {
            let id = world.id(*peer);
            world.peers[0].client.open_channel(world.now, id);
            let first = world.id(0);
            world.peers[*peer].client.open_channel(world.now, first);
        }
        let open = |w: &World| all[1..].iter().all(|p| w.peers[0].client.relay_header(&w.id(*p), b"x").is_some());
        assert!(world.run_until(S * 30, open).is_some());
        world.run(S * 120);
        assert!(world.all_know_each_other(&all), "and stays so");
        let left = all[3];
        world.peers[left].client.leave(world.now);
        let id = world.id(left);
        let gone = |w: &World| all.iter().filter(|p| **p != left).all(|p| !w.peers[*p].heard_of(&id));
        assert!(world.run_until(S * 20, gone).is_some());
        world.run(S * 2);
        assert!(world.peers[left].client.has_left());
    }
}

#[test]
fn a_leave_is_heard_at_once() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 3);
    world.peers[b].client.leave(world.now);
    world.drain();
    let id = world.id(b);
    let took = world.run_until(S, |w| w.peers[a].count(|e| *e == Event::Left { peer: id }) == 1);
    assert_eq!(took, Some(MS * 20));
    world.run(MS * 5);
    assert!(world.peers[b].client.has_left());
}

#[test]
fn who_falls_silent_is_gone_after_60_s() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 3);
    world.peers[b].alive = false;
    let id = world.id(b);
    let took = world.run_until(S * 100, |w| !w.peers[a].heard_of(&id)).expect("noticed");
    assert!(took > S * 50 && took < S * 62, "{took:?}");
    assert_eq!(world.core.as_ref().expect("runs").registrations(), 1);
}

#[test]
fn a_restarted_server_is_noticed_by_a_relayed_packet_within_a_round_trip_or_two() {
    let mut world = World::new();
    let (a, b) = world.relayed_pair();
    assert!(world.relay(a, b, b"before"));
    world.run(S);
    world.start();
    assert!(world.relay(a, b, b"lost") && world.relay(b, a, b"lost"));
    let back = |w: &World| w.peers[b].relayed.len() == 2;
    let mut took = Duration::ZERO;
    while !back(&world) {
        assert!(took < S, "not back");
        world.relay(a, b, b"after");
        world.run(MS * 10);
        took += MS * 10;
    }
    assert!(took < MS * 200, "{took:?}");
    assert!(world.all_know_each_other(&[a, b]));
}

#[test]
fn a_restarted_server_is_noticed_at_the_next_refresh() {
    let mut world = World::new();
    let all: Vec<usize> = (0..5).map(|device| world.join(1, device)).collect();
    world.run(S * 3);
    world.start();
    let took = world.run_until(S * 60, |w| w.core.as_ref().is_some_and(|c| c.registrations() == 5)).expect("back");
    assert!(took < S * 16, "{took:?}");
    world.run(S * 20);
    assert!(world.all_know_each_other(&all));
}

#[test]
fn a_server_that_is_gone_is_unreachable_and_found_again() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(S * 3);
    world.core = None;
    world.run(S * 30);
    assert_eq!(world.peers[a].client.state(), State::Unreachable);
    assert!(world.peers[a].client.problem().is_some_and(|text| text.contains("no answer from 198.51.100.1:3478")));
    assert_eq!(world.peers[a].count(|e| *e == Event::Lost), 1);
    let asked = world.peers[a].count(|e| *e == Event::ResolveAgain);
    assert!(asked >= 3, "its name is looked up again: {asked}");
    world.run(S * 600);
    world.start();
    let took = world.run_until(S * 40, |w| w.peers[a].client.state() == State::Registered).expect("back");
    assert!(took <= S * 31, "{took:?}");
    assert_eq!(world.peers[a].client.problem(), None);
}

#[test]
fn a_server_that_stops_says_so() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(S * 3);
    world.core.as_mut().expect("runs").stop();
    world.drain();
    world.run(MS * 15);
    assert_eq!(world.peers[a].count(|e| *e == Event::Lost), 1);
}

#[test]
fn a_new_source_address_needs_a_new_cookie_and_keeps_everything_else() {
    let mut world = World::new();
    let (a, b) = world.relayed_pair();
    let (id_a, id_b) = (world.id(a), world.id(b));
    let moved = "203.0.113.200:7".parse().expect("address");
    world.peers[b].addr = moved;
    world.wire.clear();
    world.peers[b].client.reregister(world.now);
    world.run(MS * 45);
    assert_eq!(world.wire.iter().filter(|p| p.from == moved && p.bytes[..2] == [0xE7, 1]).count(), 1, "a Hello");
    let news = Event::Member { peer: id_b, observed: Some(moved), sealed: vec![2; 512] };
    assert_eq!(world.peers[a].count(|e| *e == news), 1);
    assert_eq!(world.peers[a].count(introduced(&id_b)), 2, "a new search for a path");
    assert!(world.relay(a, b, b"to the new address") && world.relay(b, a, b"from it"));
    world.run(MS * 30);
    assert_eq!(world.peers[b].relayed, [(id_a, b"to the new address".to_vec())]);
    assert_eq!(world.peers[a].relayed, [(id_b, b"from it".to_vec())]);
    assert_eq!(world.peers[b].count(|e| matches!(e, Event::Lost | Event::RelayClosed { .. })), 0);
    assert_eq!(world.core.as_ref().expect("runs").registrations(), 2);
}

#[test]
fn a_mapping_that_a_nat_forgot_is_noticed_at_the_next_packet() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(S * 3);
    world.peers[a].addr = "203.0.113.1:55".parse().expect("address");
    let observed = Event::Observed { socket: crate::id::SocketId(0), addr: world.peers[a].addr };
    let took = world.run_until(S * 30, |w| w.peers[a].count(|e| *e == observed) == 1).expect("noticed");
    assert!(took < S * 16, "{took:?}");
}

#[test]
fn both_families_learn_their_address_and_the_first_to_answer_is_used() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.peers[a].addr6 = Some("[2001:db8::7]:9".parse().expect("address"));
    world.peers[a].client.set_addresses(world.now, vec![server_v6(), server_v4()]);
    world.run(S);
    assert_eq!(world.peers[a].count(|e| matches!(e, Event::Observed { .. })), 2);
    assert_eq!(world.peers[a].client.server_addr(), Some(server_v6()));
    world.wire.clear();
    world.run(S * 16);
    let keeps_v4 = world.wire.iter().filter(|p| p.to == server_v4()).count();
    assert_eq!(keeps_v4, 1, "one Hello a refresh keeps the other family's mapping");
}

#[test]
fn changed_announcements_reach_members_at_most_once_a_second() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 10);
    let id = world.id(a);
    let members = |w: &World| w.peers[b].count(|e| matches!(e, Event::Member { peer, .. } if *peer == id));
    let before = members(&world);
    for change in 0..100 {
        world.peers[a].client.set_announcement(world.now, vec![100 + change; 512]);
        world.drain();
        world.run(MS * 100);
    }
    let told = members(&world) - before;
    assert!((12..=16).contains(&told), "a burst of 5 and one a second: {told}");
    world.run(S * 2);
    let newest = |e: &Event| matches!(e, Event::Member { sealed, .. } if sealed[0] == 199);
    assert_eq!(world.peers[b].count(newest), 1, "the newest arrives in the end");
}

#[test]
fn an_introduction_tells_both_at_the_same_moment() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 3);
    let (id_a, id_b) = (world.id(a), world.id(b));
    world.peers[a].events.clear();
    world.peers[b].events.clear();
    world.peers[a].client.introduce(world.now, id_b);
    world.drain();
    world.run(S);
    assert_eq!((world.peers[a].events.len(), world.peers[b].events.len()), (1, 1));
    assert_eq!(world.peers[a].when(introduced(&id_b)), world.peers[b].when(introduced(&id_a)));
}

#[test]
fn a_channel_opens_when_both_want_it_and_closes_when_one_does_not() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 3);
    let (id_a, id_b) = (world.id(a), world.id(b));
    world.peers[a].client.open_channel(world.now, id_b);
    world.drain();
    world.run(S * 3);
    assert!(!world.relay(a, b, b"x"));
    world.peers[b].client.open_channel(world.now, id_a);
    world.drain();
    assert!(
        world.run_until(S, |w| w.peers[a].client.relay_header(&id_b, b"x").is_some()).is_some_and(|t| t <= MS * 20)
    );
    world.run(MS * 20);
    assert!(world.relay(a, b, b"hello") && world.relay(b, a, b"hi"));
    world.run(MS * 50);
    assert_eq!(world.peers[b].relayed, [(id_a, b"hello".to_vec())]);
    assert_eq!(world.peers[a].relayed, [(id_b, b"hi".to_vec())]);
    world.peers[b].client.close_channel(world.now, id_a);
    world.drain();
    world.run(S);
    assert_eq!(world.peers[a].count(|e| *e == Event::RelayClosed { peer: id_b }), 1);
    world.peers[b].client.open_channel(world.now, id_a);
    world.drain();
    world.run(S * 3);
    assert!(world.relay(a, b, b"again"));
}

#[test]
fn what_the_relay_sent_before_a_new_registration_and_is_overtaken_by_it_is_taken() {
    let mut world = World::new();
    let (a, b) = world.relayed_pair();
    let id_a = world.id(a);
    assert!(world.relay(a, b, b"slow"));
    // It takes a longer way from the server on.
    world.delay = MS * 300;
    world.run(MS * 10);
    world.delay = MS * 10;
    world.peers[b].client.reregister(world.now);
    world.run(MS * 200);
    assert_eq!((world.counter("renewed"), world.peers[b].relayed.len()), (1, 0), "it is still under way");
    world.run(S);
    assert_eq!(world.peers[b].relayed, [(id_a, b"slow".to_vec())]);
}

#[test]
fn a_channel_to_who_is_not_there_yet_opens_when_it_comes() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(S * 3);
    let (id_a, id_b) = (world.id(a), super::world::identity(1, 2).device.id());
    world.peers[a].client.open_channel(world.now, id_b);
    world.drain();
    world.run(S * 60);
    let b = world.join(1, 2);
    world.peers[b].client.open_channel(world.now, id_a);
    let both = |w: &World| w.peers[a].client.relay_header(&id_b, b"x").is_some();
    assert!(world.run_until(S, both).is_some());
    assert!(world.relay(a, b, b"x"));
}

#[test]
fn a_restarted_peer_takes_its_seat_again() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 3);
    let id = world.id(b);
    // Killed, and back on another port: the old registration is asked first and does not answer.
    world.peers[b].alive = false;
    let again = world.join_as(1, 2, 77, None);
    world.peers[again].number = world.peers[b].number + 10;
    world.peers[a].events.clear();
    let took = world.run_until(S * 5, |w| w.peers[again].client.state() == State::Registered).expect("seated");
    assert!(took > MS * 500 && took < MS * 700, "{took:?}");
    world.run(MS * 100);
    let addr = world.peers[again].addr;
    let member = Event::Member { peer: id, observed: Some(addr), sealed: vec![2; 512] };
    assert_eq!(world.peers[a].count(|e| *e == member), 1);
    assert_eq!(world.peers[a].count(introduced(&id)), 1);
    assert_eq!(world.peers[a].count(|e| matches!(e, Event::Left { .. })), 0);
    // And once more, from the same address and port: at once.
    world.peers[again].alive = false;
    let third = world.join_as(1, 2, 78, None);
    world.peers[third].number = world.peers[again].number + 10;
    world.peers[third].addr = addr;
    let took = world.run_until(S * 5, |w| w.peers[third].client.state() == State::Registered).expect("seated");
    assert_eq!(took, MS * 40);
    assert_eq!(world.core.as_ref().expect("runs").registrations(), 2);
}

#[test]
fn a_copied_state_folder_is_reported_to_both_and_the_first_keeps_working() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 3);
    let copy = world.join_as(1, 2, 77, None);
    world.peers[copy].number = world.peers[b].number + 1000;
    world.run(S * 60);
    assert_eq!(world.peers[copy].client.state(), State::Refused);
    assert!(world.peers[copy].client.problem().is_some_and(|text| text.contains("state folder was copied")));
    assert!(world.peers[copy].count(|e| *e == Event::Duplicate) >= 2);
    assert!(world.peers[b].count(|e| *e == Event::Duplicate) >= 2);
    assert_eq!(world.peers[b].client.state(), State::Registered);
    assert_eq!(world.peers[b].count(|e| *e == Event::Lost), 0);
    assert!(world.all_know_each_other(&[a, b]));
    assert_eq!(world.peers[a].count(|e| matches!(e, Event::Left { .. })), 0);
}

#[test]
fn a_pinned_key_lets_only_its_server_in() {
    let mut world = World::new();
    let pin = world.key();
    let right = world.join_as(1, 1, 1, Some(pin));
    let other = crate::id::ServerKey([9; 32]);
    let wrong = world.join_as(1, 2, 2, Some(other));
    world.run(S * 60);
    assert_eq!(world.peers[right].client.state(), State::Registered);
    assert_eq!(world.peers[wrong].client.state(), State::Refused);
    let problem = world.peers[wrong].client.problem().expect("said").to_owned();
    assert!(problem.contains(&pin.to_string()) && problem.contains(&other.to_string()), "{problem}");
    assert_eq!(world.peers[wrong].count(|e| matches!(e, Event::Refused(_))), 1, "once in the log");
    assert_eq!(world.counter("registered"), 1);
}

#[test]
fn a_large_network_is_told_in_full() {
    let mut world = World::new();
    let all: Vec<usize> = (0..150).map(|device| world.join(1, device)).collect();
    assert!(world.run_until(S * 20, |w| w.all_know_each_other(&all)).is_some());
    world.wire.clear();
    world.run(S * 60);
    assert!(world.wire.len() < 150 * 12, "{}", world.wire.len());
}

#[test]
fn a_server_that_is_silent_when_asked_out_of_turn_is_lost_soon_and_looked_up_again() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(S * 4);
    world.peers[a].client.check(world.now);
    world.run(S * 3);
    assert_eq!(world.peers[a].count(|e| *e == Event::Lost), 0, "it answers");

    world.core = None;
    world.peers[a].client.check(world.now);
    world.run(S * 6);
    assert_eq!(world.peers[a].count(|e| *e == Event::Lost), 1);
    assert!(world.peers[a].count(|e| *e == Event::ResolveAgain) >= 2, "its name may lead elsewhere now");
}
