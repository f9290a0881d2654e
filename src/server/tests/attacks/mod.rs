//! What the dishonest try, and what comes of it: strangers, those on the line, and members. Here are their hands: all that
//! a client does, done by itself.

mod line;
mod members;
mod strangers;

use std::net::SocketAddr;

use crate::crypto::Identity;
use crate::crypto::dh::Secret;
use crate::crypto::registration::{self, Keys};
use crate::id::Epoch;
use crate::sans::Seed;
use crate::server::tests::world::{MS, World, server_v4};
use crate::wire::rendezvous::items::{ToPeer, ToServer};
use crate::wire::rendezvous::{Claim, Cookie, Direction, FrameHeader, Hello, Message, Reason};
use crate::wire::{VERSION, Writer};

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
