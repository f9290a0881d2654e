//! What dishonest strangers, members and lines try, and what comes of it.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::world::{MS, S, World, identity, server_v4};
use crate::crypto::Identity;
use crate::crypto::dh::Secret;
use crate::crypto::registration::{self, Keys};
use crate::id::{Epoch, PeerId};
use crate::rendezvous::{Event, State};
use crate::sans::Seed;
use crate::wire::rendezvous::items::{Ids, Listing, PeerNews, ToPeer, ToServer};
use crate::wire::rendezvous::{Claim, Cookie, Direction, FrameHeader, Hello, Message, Reason, Refused, Unknown};
use crate::wire::stun::{BindingRequest, Change};
use crate::wire::{Class, VERSION, Writer, classify, kind, stun};

/// An attacker's address.
fn mallory() -> SocketAddr {
    "192.0.2.66:666".parse().expect("address")
}

/// What the server sent to `to` since the wire was last cleared.
fn answers(world: &World, to: SocketAddr) -> Vec<Vec<u8>> {
    world.wire.iter().filter(|p| p.from == server_v4() && p.to == to).map(|p| p.bytes.clone()).collect()
}

fn send(world: &mut World, from: SocketAddr, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    world.wire.clear();
    world.inject(from, server_v4(), bytes);
    world.run(MS * 15);
    answers(world, from)
}

fn cookie(world: &mut World, from: SocketAddr) -> Cookie {
    let hello = Hello { version: VERSION, nonce: [1; 16], asked: Some(server_v4()) };
    let answers = send(world, from, hello.encode());
    let cookie = |answer: &Vec<u8>| match Message::parse(answer) {
        Ok(Message::Cookie(cookie)) => Some(cookie),
        _ => None,
    };
    answers.iter().find_map(cookie).expect("answered")
}

fn claim(world: &mut World, from: SocketAddr, identity: &Identity, number: u64) -> (Claim, Secret) {
    let cookie = cookie(world, from);
    let ephemeral = Secret::generate(&mut Seed::from_u64(number).rng());
    let claim = Claim {
        version: VERSION,
        nonce: [2; 16],
        cookie: cookie.cookie,
        asked: Some(server_v4()),
        server: cookie.server,
        ephemeral: ephemeral.public(),
        network: identity.network.id(),
        peer: identity.device.id(),
        number,
        boot: number,
        epoch: Epoch::default(),
        handle: 7,
    };
    (claim, ephemeral)
}

fn signed(claim: &Claim, network: &Identity, device: &Identity) -> Vec<u8> {
    registration::sign(claim.encode(), |m| network.network.sign(m), |m| device.device.sign(m))
}

/// Registers by hand; the keys.
fn register(world: &mut World, from: SocketAddr, identity: &Identity, number: u64) -> Keys {
    let (claim, ephemeral) = claim(world, from, identity, number);
    let register = signed(&claim, identity, identity);
    let answer = send(world, from, register.clone()).pop().expect("answered");
    assert_eq!(answer[..2], [0xE7, 7], "a sealed frame");
    Keys::derive(&ephemeral, &claim.server.0, &register).expect("keys")
}

fn say(world: &mut World, from: SocketAddr, keys: &Keys, counter: u64, items: &[ToServer<'_>]) -> Vec<Vec<u8>> {
    let mut w = Writer::default();
    items.iter().for_each(|item| item.write(&mut w));
    let header = FrameHeader { direction: Direction::ToServer, handle: 7, counter };
    send(world, from, keys.to_server.seal(&header, w.as_slice()))
}

/// What the server says in `frames`.
fn heard(keys: &Keys, frames: &[Vec<u8>], mut each: impl FnMut(&ToPeer<'_>)) {
    for frame in frames {
        let Ok(Message::Frame(header)) = Message::parse(frame) else { continue };
        let mut frame = frame.clone();
        let items = keys.to_peer.open(&header, &mut frame).expect("sealed for us").to_vec();
        ToPeer::all(&items).for_each(|item| each(&item));
    }
}

fn refusals(keys: &Keys, frames: &[Vec<u8>]) -> Vec<Reason> {
    let mut reasons = Vec::new();
    heard(keys, frames, |item| {
        reasons.extend(if let ToPeer::Refused { reason, .. } = item { Some(*reason) } else { None })
    });
    reasons
}

fn reason(answers: &[Vec<u8>]) -> Option<Reason> {
    match Message::parse(answers.last()?) {
        Ok(Message::Refused(refused)) => Some(refused.reason),
        _ => None,
    }
}

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
fn a_member_behind_the_same_router_takes_no_seat() {
    let mut world = World::new();
    let (a, b) = (world.join(1, 1), world.join(1, 2));
    world.run(S * 3);
    let victim = world.peers[a].addr;
    let captured = world.wire.iter().find(|p| p.from == victim && p.bytes[1] == 3).expect("a Register").bytes.clone();
    world.peers[b].events.clear();
    let neighbour = SocketAddr::new(victim.ip(), victim.port() + 1);
    // The victim's own Register, from another port.
    let answer = send(&mut world, neighbour, captured).pop().expect("answered");
    assert!(matches!(Message::parse(&answer), Ok(Message::Cookie(_))));
    // A claim to be the victim, signed by a member who is not, of a newer and of the same run.
    let mallory = identity(1, 9);
    let (genuine, _) = claim(&mut world, neighbour, &identity(1, 1), 1 << 60);
    for boot in [0, genuine.boot] {
        let register = signed(&Claim { boot, ..genuine }, &mallory, &mallory);
        assert_eq!(reason(&send(&mut world, neighbour, register)), Some(Reason::Forged));
    }
    // Itself it may register, and nobody else's standing changes.
    register(&mut world, neighbour, &mallory, 5);
    world.run(S * 60);
    assert_eq!(world.peers[a].client.state(), State::Registered);
    assert!(world.peers[b].events.is_empty(), "{:?}", world.peers[b].events);
    assert_eq!(world.counter("contest") + world.counter("replaced"), 0);
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

#[test]
fn frames_of_another_registration_are_not_accepted() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(S * 3);
    let device = identity(1, 9);
    let keys = register(&mut world, mallory(), &device, 5);
    let victim = world.peers[a].addr;
    // A member who leaves in another's name: with his own keys from the other's address.
    let answers = {
        let mut w = Writer::default();
        ToServer::Leave { id: 1 }.write(&mut w);
        let header = FrameHeader { direction: Direction::ToServer, handle: 7, counter: 9 };
        send(&mut world, victim, keys.to_server.seal(&header, w.as_slice()))
    };
    assert!(answers.iter().all(|answer| answer[1] == 5), "unknown");
    world.run(S * 30);
    assert_eq!(world.peers[a].client.state(), State::Registered);
    assert_eq!(world.core.as_ref().expect("runs").registrations(), 2);
}

#[test]
fn channels_lead_to_members_of_the_own_network_alone() {
    let mut world = World::new();
    let other_network = world.join(2, 1);
    world.run(S * 3);
    let device = identity(1, 9);
    let keys = register(&mut world, mallory(), &device, 5);
    let peer = world.id(other_network);
    let wish = |id| ToServer::Channel { id, peer, channel: 3 };
    // Before it announced itself, to another network, to itself, to nobody.
    let answers = say(&mut world, mallory(), &keys, 0, &[wish(1)]);
    assert_eq!(refusals(&keys, &answers), [Reason::NoSuchMember]);
    let own = ToServer::Channel { id: 3, peer: device.device.id(), channel: 4 };
    let nobody = ToServer::Introduce { id: 4, peer: PeerId([3; 32]) };
    let announce = ToServer::Announce { id: 1, sealed: &[1; 512] };
    let answers = say(&mut world, mallory(), &keys, 1, &[announce, wish(2), own, nobody]);
    assert_eq!(refusals(&keys, &answers), [Reason::NoSuchMember; 3]);
    // And frames for it are answered with a shrug.
    let tag = keys.relay_to_server.tag(3, &[0; 50]);
    let frame = [&crate::wire::relay::Header { channel: 3, tag }.encode()[..], &[0; 50]].concat();
    let answers = send(&mut world, mallory(), frame);
    assert_eq!(answers[0][..2], [kind::RENDEZVOUS, 5]);
    assert_eq!(world.peers[other_network].relayed, []);
    assert_eq!(world.counter("relay-frames"), 0);
}

#[test]
fn a_member_cannot_turn_others_into_a_flood() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(S * 3);
    let (victim, peer) = (world.peers[a].addr, world.id(a));
    let keys = register(&mut world, mallory(), &identity(1, 9), 5);
    say(&mut world, mallory(), &keys, 0, &[ToServer::Announce { id: 1, sealed: &[1; 512] }]);
    world.run(S);
    let mut sent = 0;
    for counter in 1..2000_u32 {
        let items = [
            ToServer::Introduce { id: counter * 2, peer },
            ToServer::Announce { id: counter * 2 + 1, sealed: &[1; 1024] },
        ];
        say(&mut world, mallory(), &keys, counter.into(), &items);
        sent += answers(&world, victim).len();
    }
    // 30 s: a burst of 64 introductions and 5 announcements, then one of each a second.
    assert!(sent < 64 + 5 + 2 * 31 + 10, "{sent}");
    assert!(world.counter("introduction-rate") > 1000 && world.counter("announcement-rate") > 1000);
}

#[test]
fn a_member_that_moves_to_and_fro_tells_others_once_a_second_at_most() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(S * 3);
    let (victim, device) = (world.peers[a].addr, identity(1, 9));
    let mut sent = 0;
    for number in 1..500 {
        let from = SocketAddr::new(mallory().ip(), 1000 + u16::try_from(number % 2).expect("small"));
        let (mut claim, ephemeral) = claim(&mut world, from, &device, number);
        (claim.boot, claim.handle) = (1, u32::try_from(number).expect("small"));
        let register = signed(&claim, &device, &device);
        send(&mut world, from, register.clone());
        sent += answers(&world, victim).len();
        let keys = Keys::derive(&ephemeral, &claim.server.0, &register).expect("keys");
        let mut w = Writer::default();
        ToServer::Announce { id: 1, sealed: &[1; 512] }.write(&mut w);
        let header = FrameHeader { direction: Direction::ToServer, handle: claim.handle, counter: 0 };
        send(&mut world, from, keys.to_server.seal(&header, w.as_slice()));
        sent += answers(&world, victim).len();
    }
    // 22 s: a burst of 10 and one a second.
    assert!(sent <= 10 + 23 + 5, "{sent}");
    assert!(world.counter("busy") > 400);
}

#[test]
fn a_channel_that_is_opened_and_closed_all_the_time_is_no_flood() {
    let mut world = World::new();
    let a = world.join(1, 1);
    world.run(S * 3);
    let device = identity(1, 9);
    let keys = register(&mut world, mallory(), &device, 5);
    say(&mut world, mallory(), &keys, 0, &[ToServer::Announce { id: 1, sealed: &[1; 512] }]);
    world.peers[a].client.open_channel(world.now, device.device.id());
    world.drain();
    world.run(S);
    let (victim, peer) = (world.peers[a].addr, world.id(a));
    let mut bytes = 0;
    for counter in 1..200 {
        let wish = |id| ToServer::Channel { id, peer, channel: id % 2 };
        let items: Vec<_> = (0..25).map(|i| wish(1000 + counter * 25 + i)).collect();
        say(&mut world, mallory(), &keys, counter.into(), &items);
        bytes += answers(&world, victim).iter().map(Vec::len).sum::<usize>();
    }
    assert!(bytes < 20_000, "5,000 wishes in 3 s: {bytes} bytes to the other");
    assert!(world.counter("channel-rate") > 4000);
}

#[test]
fn the_list_is_not_told_as_often_as_somebody_asks() {
    let mut world = World::new();
    for device in 1..=5 {
        world.join(1, device);
    }
    world.run(S * 3);
    let keys = register(&mut world, mallory(), &identity(1, 9), 5);
    say(&mut world, mallory(), &keys, 0, &[ToServer::Announce { id: 1, sealed: &[1; 512] }]);
    world.run(S);
    let (mut asked, mut told) = (0, 0);
    for counter in 1..500_u32 {
        let lists = [ToServer::List; 300];
        told += say(&mut world, mallory(), &keys, counter.into(), &lists).iter().map(Vec::len).sum::<usize>();
        asked += lists.len() * 3 + 30;
    }
    assert!(told < asked / 2, "{told} bytes for {asked}");
    assert!(world.counter("list-rate") > 100_000);
    // Once it asks less it is answered: a refresh beside a list that was not told waits for it.
    world.run(S * 3);
    let both = [ToServer::List, ToServer::Refresh { token: 5 }];
    let answers = say(&mut world, mallory(), &keys, 1000, &both);
    let mut refreshed = 0;
    heard(&keys, &answers, |item| refreshed += usize::from(matches!(item, ToPeer::Refreshed { .. })));
    assert_eq!(refreshed, 1);
}

#[test]
fn oversized_and_damaged_items_are_dropped() {
    let mut world = World::new();
    let keys = register(&mut world, mallory(), &identity(1, 9), 5);
    let announce = ToServer::Announce { id: 1, sealed: &[1; 1025] };
    let empty = ToServer::Announce { id: 2, sealed: &[] };
    say(&mut world, mallory(), &keys, 0, &[announce, empty, ToServer::Ack(Ids::new(&[1, 2, 3]))]);
    assert_eq!(world.counter("malformed"), 2);
    // Refreshing still works: it was the peer's own trouble.
    let answers = say(&mut world, mallory(), &keys, 1, &[ToServer::Refresh { token: 5 }]);
    let mut tokens = Vec::new();
    heard(&keys, &answers, |item| {
        tokens.extend(if let ToPeer::Refreshed { token, .. } = item { Some(*token) } else { None })
    });
    assert_eq!(tokens, [5]);
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
