//! Members of a network who take others' seats, wake them without end, or reach for other networks.

use std::net::SocketAddr;

use super::{answers, claim, heard, mallory, reason, refusals, register, say, send, signed};
use crate::crypto::registration::Keys;
use crate::id::PeerId;
use crate::rendezvous::State;
use crate::server::tests::world::{S, World, identity};
use crate::wire::rendezvous::items::{Ids, ToPeer, ToServer};
use crate::wire::rendezvous::{Claim, Direction, FrameHeader, Message, Reason};
use crate::wire::{Writer, kind};

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
