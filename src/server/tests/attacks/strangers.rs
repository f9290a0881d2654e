//! Whoever knows no more than the server's address, and members who are not the device that they say.

use proptest::prelude::*;

use super::{claim, mallory, reason, send, signed};
use crate::rendezvous::{Event, State};
use crate::server::tests::world::{S, World, identity, server_v4};
use crate::wire::rendezvous::{Claim, Message, Reason, Refused, Unknown};
use crate::wire::stun::{BindingRequest, Change};
use crate::wire::{Class, classify, stun};

/// Datagrams of every kind, as a stranger can make them.
fn of_every_kind() -> Vec<Vec<u8>> {
    let mut world = World::new();
    let (a, b) = world.relayed_pair();
    world.relay(a, b, &[0xE0; 200]);
    world.run(S);
    let mut all: Vec<Vec<u8>> = world.wire.into_iter().map(|packet| packet.bytes).collect();
    all.push([&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat());
    all.push([&[0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12], &[0, 3, 0, 4, 0, 0, 0, 6]].concat());
    let wish = BindingRequest { change: Change::BOTH, proof: Some([7; 16]), ..BindingRequest::default() };
    let elsewhere = BindingRequest { response_port: Some(53), proof: Some([7; 16]), ..BindingRequest::default() };
    all.extend([wish, elsewhere].map(|request| request.encode()));
    all.push(Refused { version: 1, reason: Reason::Busy, nonce: [0; 16], retry_s: 0 }.encode());
    all.extend(Unknown::to(&[0xE6; 100]).map(|unknown| unknown.encode()));
    all
}

/// Before its address is proven nobody gets more than he sent, and nobody else gets anything.
fn assert_no_reflection(world: &mut World, question: &[u8]) {
    let now = world.now;
    let core = world.core.as_mut().expect("runs");
    let before = core.registrations();
    let mut payload = question.to_vec();
    let (local, socket) = (Some(server_v4().ip()), crate::id::SocketId(0));
    let datagram = crate::sans::Datagram { socket, local, from: mallory(), payload: &mut payload };
    let verdict = core.handle_datagram(now, datagram);
    assert!(!matches!(verdict, crate::server::Verdict::Forward { .. }));
    let is_stock = classify(question) == Class::Stun && question.len() == 20;
    let growth = if is_stock { stun::MAX_GROWTH } else { 0 };
    let mut answered = 0;
    while let Some(answer) = core.poll_transmit() {
        answered += 1;
        assert_eq!(answer.to, mallory());
        assert!(answer.payload.len() <= question.len() + growth, "{question:02x?} -> {:02x?}", answer.payload);
    }
    assert!(answered <= 1);
    assert_eq!(core.registrations(), before, "and no state is kept");
}

#[test]
fn no_answer_is_longer_than_its_question_before_the_address_is_proven() {
    let mut world = World::new();
    world.join(1, 1);
    world.join(1, 2);
    world.run(S * 3);
    for question in of_every_kind() {
        for len in 0..=question.len() {
            world.now += S / 10;
            assert_no_reflection(&mut world, &question[..len]);
        }
    }
    for first in 0..=255_u8 {
        for second in 0..=16_u8 {
            for len in [1, 2, 15, 16, 22, 30, 86, 96, 334, 1232] {
                let mut question = vec![first, second, 1, 0];
                question.resize(len.max(4), 0x5A);
                question.truncate(len);
                world.now += S / 10;
                assert_no_reflection(&mut world, &question);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn mutated_datagrams_are_not_reflected(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let all = of_every_kind();
        let mut question = which.get(&all).clone();
        *at.get_mut(&mut question) = byte;
        assert_no_reflection(&mut World::new(), &question);
    }
}

#[test]
fn a_registration_with_a_wrong_signature_is_refused() {
    let mut world = World::new();
    let victim = world.join(1, 1);
    world.run(S * 3);
    let (member, outsider, device) = (identity(1, 9), identity(2, 9), identity(1, 1));
    let (genuine, _) = claim(&mut world, mallory(), &device, 1 << 60);
    // A member without the device's key, and a stranger with a device of his own.
    for register in [signed(&genuine, &member, &member), signed(&genuine, &outsider, &device)] {
        assert_eq!(reason(&send(&mut world, mallory(), register)), Some(Reason::Forged));
    }
    // Any bit of a genuine one.
    let register = signed(&genuine, &member, &device);
    for bit in (54..register.len()).step_by(7) {
        let mut bent = register.clone();
        bent[bit] ^= 1;
        assert_eq!(reason(&send(&mut world, mallory(), bent)), Some(Reason::Forged), "byte {bit}");
    }
    assert_eq!(world.core.as_ref().expect("runs").registrations(), 1);
    world.run(S * 60);
    assert_eq!(world.peers[victim].client.state(), State::Registered);
    assert_eq!(
        world.peers[victim].count(|e| !matches!(e, Event::ResolveAgain | Event::Registered | Event::Observed { .. })),
        0
    );
}

#[test]
fn a_flood_of_registers_costs_few_signatures_and_keeps_nobody_out() {
    let mut world = World::new();
    let (member, device) = (identity(1, 9), identity(1, 1));
    let (genuine, _) = claim(&mut world, mallory(), &device, 5);
    for handle in 0..5_000 {
        world.inject(mallory(), server_v4(), signed(&Claim { handle, ..genuine }, &member, &member));
    }
    let a = world.join(1, 2);
    world.run(S);
    assert!((300..=321).contains(&world.counter("forged")), "{}", world.counter("forged"));
    assert!(world.counter("busy") >= 4_600);
    assert_eq!(world.peers[a].client.state(), State::Registered);
    assert_eq!(world.core.as_ref().expect("runs").registrations(), 1);
}

#[test]
fn a_cookie_is_good_for_its_address_its_server_address_and_a_short_time() {
    let mut world = World::new();
    let device = identity(1, 1);
    let (genuine, _) = claim(&mut world, mallory(), &device, 5);
    let register = signed(&genuine, &device, &device);
    let elsewhere = "192.0.2.66:667".parse().expect("address");
    let answer = send(&mut world, elsewhere, register.clone()).pop().expect("answered");
    assert!(matches!(Message::parse(&answer), Ok(Message::Cookie(_))), "prove this address first");
    let (other, _) = (Claim { asked: Some("198.51.100.2:3478".parse().expect("address")), ..genuine }, ());
    let answer = send(&mut world, mallory(), signed(&other, &device, &device)).pop().expect("answered");
    assert!(matches!(Message::parse(&answer), Ok(Message::Cookie(_))));
    world.run(S * 121);
    let answer = send(&mut world, mallory(), register).pop().expect("answered");
    assert!(matches!(Message::parse(&answer), Ok(Message::Cookie(_))));
    assert_eq!(world.core.as_ref().expect("runs").registrations(), 0);
}
