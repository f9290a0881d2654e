//! Whoever sees what passes, keeps it, bends it, says it again, and answers in the server's place.

use super::{answers, claim, mallory, reason, register, send, signed};
use crate::crypto::dh::Secret;
use crate::crypto::registration::Keys;
use crate::rendezvous::{Event, State};
use crate::sans::Seed;
use crate::server::tests::world::{MS, S, World, identity, server_v4};
use crate::wire::Writer;
use crate::wire::rendezvous::items::{Listing, PeerNews, ToPeer};
use crate::wire::rendezvous::{Direction, FrameHeader, Message, Reason, Refused, Unknown};

#[test]
fn a_replayed_registration_changes_nothing() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 3);
    let captured: Vec<_> = world.wire.iter().filter(|p| p.from == world.peers[b].addr).cloned().collect();
    world.peers[a].events.clear();
    // While it stands, from where it came and from elsewhere.
    for packet in &captured {
        world.inject(packet.from, packet.to, packet.bytes.clone());
        world.inject(mallory(), packet.to, packet.bytes.clone());
    }
    world.run(S * 30);
    assert!(world.all_know_each_other(&[a, b]));
    assert!(world.peers[a].events.is_empty(), "{:?}", world.peers[a].events);
    assert_eq!(world.peers[b].count(|e| matches!(e, Event::Lost)), 0);
    assert_eq!(world.core.as_ref().expect("runs").registrations(), 2);
}

#[test]
fn who_left_is_not_brought_back_by_a_replay() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 3);
    let captured: Vec<_> = world.wire.iter().filter(|p| p.from == world.peers[b].addr).cloned().collect();
    world.peers[b].client.leave(world.now);
    world.drain();
    world.run(S);
    world.peers[b].alive = false;
    world.peers[a].events.clear();
    for _ in 0..100 {
        for packet in &captured {
            world.inject(packet.from, packet.to, packet.bytes.clone());
        }
        world.run(S * 2);
    }
    assert!(world.peers[a].events.is_empty(), "{:?}", world.peers[a].events);
    assert_eq!(world.core.as_ref().expect("runs").registrations(), 1);
    assert!(world.counter("stale") > 0);
}

#[test]
fn who_fell_silent_is_not_brought_back_by_a_replay_under_keys_that_were_used() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 3);
    let captured: Vec<_> = world.wire.iter().filter(|p| p.from == world.peers[b].addr).cloned().collect();
    world.peers[b].alive = false;
    world.run(S * 62);
    assert_eq!(world.core.as_ref().expect("runs").registrations(), 1, "it expired");
    world.peers[a].events.clear();
    // Its cookie is good for some seconds more.
    for _ in 0..40 {
        for packet in &captured {
            world.inject(packet.from, packet.to, packet.bytes.clone());
        }
        world.run(S * 2);
        assert_eq!(world.core.as_ref().expect("runs").registrations(), 1);
    }
    assert!(world.peers[a].events.is_empty(), "{:?}", world.peers[a].events);
    assert!(world.counter("stale") > 0);
}

#[test]
fn a_number_that_does_not_grow_is_stale() {
    let mut world = World::new();
    let device = identity(1, 1);
    register(&mut world, mallory(), &device, 100);
    let other = "192.0.2.66:667".parse().expect("address");
    for number in [1, 99, 100] {
        let (claim, _) = claim(&mut world, other, &device, number);
        let answer = send(&mut world, other, signed(&claim, &device, &device));
        assert_eq!(reason(&answer), Some(Reason::Stale));
    }
}

#[test]
fn nobody_but_the_server_can_speak_for_it() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 3);
    let (id_b, to) = (world.id(b), world.peers[a].addr);
    let to_a: Vec<Vec<u8>> = answers(&world, to);
    world.peers[a].events.clear();
    // Frames sealed under keys of our own, with the handle of a genuine one.
    let handle = match Message::parse(to_a.last().expect("some")) {
        Ok(Message::Frame(header)) => header.handle,
        other => panic!("{other:?}"),
    };
    let secret = Secret::generate(&mut Seed::from_u64(5).rng());
    let keys = Keys::derive(&secret, &[9; 32], &[]).expect("keys");
    for (listing, start) in [(Some(Listing::Gone), false), (None, true)] {
        for counter in 0..50 {
            let mut w = Writer::default();
            ToPeer::Peer(PeerNews { id: 1000, peer: id_b, listing, start, channel: Some(0) }).write(&mut w);
            ToPeer::Stopping.write(&mut w);
            let header = FrameHeader { direction: Direction::ToPeer, handle, counter };
            world.inject(server_v4(), to, keys.to_peer.seal(&header, w.as_slice()));
        }
    }
    // Whatever the server ever said, once more; refusals; and rubbish.
    for bytes in to_a {
        world.inject(server_v4(), to, bytes);
    }
    for reason in Reason::ALL {
        world.inject(server_v4(), to, Refused { version: 1, reason, nonce: [0; 16], retry_s: 9 }.encode());
    }
    world.inject(server_v4(), to, Unknown { question: [0xE7; 14] }.encode());
    world.run(S * 30);
    assert!(world.peers[a].events.is_empty(), "{:?}", world.peers[a].events);
    assert_eq!(world.peers[a].client.state(), State::Registered);
    assert!(world.all_know_each_other(&[a, b]));
}

#[test]
fn an_unknown_from_nobody_resets_nothing_and_costs_little() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(S * 3);
    let addr = world.peers[a].addr;
    let question = world.wire.iter().rfind(|p| p.from == addr && p.bytes[1] == 6).expect("a frame").bytes.clone();
    world.wire.clear();
    for _ in 0..1000 {
        world.inject(server_v4(), addr, Unknown::to(&question).expect("long enough").encode());
        world.run(MS * 10);
    }
    let sent = world.wire.iter().filter(|p| p.from == addr).count();
    assert!(sent <= 20, "at most a Hello, a Register and two frames every two seconds: {sent}");
    assert_eq!(world.peers[a].client.state(), State::Registered);
    assert_eq!(world.peers[a].count(|e| matches!(e, Event::Lost)), 0);
}

/// Half of what an attacker sends was captured on this very line.
#[test]
fn mutated_datagrams_of_a_live_session_harm_nobody() {
    let mut world = World::new();
    let (a, b) = world.relayed_pair();
    let captured = world.wire.clone();
    let mut rng = Seed::from_u64(3).rng();
    let mut delivered = 0;
    for round in 0..20_000_u32 {
        let mut packet = captured[rng.u32() as usize % captured.len()].clone();
        for _ in 0..rng.u32() % 4 {
            let at = rng.u32() as usize % packet.bytes.len();
            packet.bytes[at] = rng.array::<1>()[0];
        }
        if rng.u32().is_multiple_of(4) {
            packet.bytes.truncate(rng.u32() as usize % (packet.bytes.len() + 1));
        }
        world.inject(packet.from, packet.to, packet.bytes);
        if round % 100 == 0 {
            assert!(world.relay(a, b, &round.to_be_bytes()));
            delivered += 1;
            world.run(MS * 5);
        }
        if round % 1000 == 0 {
            world.wire.clear();
        }
    }
    world.run(S);
    let genuine = world.peers[b].relayed.iter().filter(|(_, payload)| payload.len() == 4).count();
    assert!(genuine >= delivered, "{genuine} of {delivered}");
    assert_eq!(world.core.as_ref().expect("runs").registrations(), 2);
    for peer in [a, b] {
        assert_eq!(world.peers[peer].count(|e| matches!(e, Event::Lost | Event::Left { .. } | Event::Duplicate)), 0);
    }
}
