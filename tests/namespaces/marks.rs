//! What routers on the way read and write of a datagram: its class (DSCP) and its marks (ECN).

use std::io::IoSliceMut;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use punchlan::node::status::PeerState;

use crate::lab::programs::{Network, Peer, await_true};
use crate::lab::wire::Wire;
use crate::lab::{Gateway, Lab, RENDEZVOUS};
use crate::shared_turn;

const PATIENCE: Duration = Duration::from_secs(10);

/// "Expedited forwarding", as a game or a call asks for it; with marks understood (ECT(0)), and after one (CE).
const EF: u8 = 0xb8;
const EF_ECT: u8 = EF | 2;
const EF_CE: u8 = EF | 3;

/// Payloads that the router in the middle marks if they may be, and that it marks even so.
const POLITE: usize = 500;
const RUDE: usize = 800;

#[test]
fn on_a_direct_path_a_packets_class_is_its_datagrams_and_a_mark_on_the_way_is_the_packets() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::PortRestricted, Gateway::Masquerade]).unwrap();
    classes_and_marks_pass(&lab, PeerState::Direct, "");
}

#[test]
fn a_mark_before_the_relay_is_the_packets_too() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::Symmetric, Gateway::MasqueradeRandom]).unwrap();
    classes_and_marks_pass(&lab, PeerState::Relayed, &format!("ip daddr {RENDEZVOUS}"));
}

/// `to`: which datagrams are marked, for nft.
fn classes_and_marks_pass(lab: &Lab, state: PeerState, to: &str) {
    let network = Network::start(lab).unwrap();
    let alice = network.up(lab.host(0), "alice", 1).unwrap();
    let bob = network.up(lab.host(1), "bob", 2).unwrap();
    alice.await_peer("bob", state, PATIENCE).unwrap();
    bob.await_peer("alice", state, PATIENCE).unwrap();
    let wire = Wire::tap(lab).unwrap();
    let there = socket(&bob).unwrap();
    setsockopt(&there, sockopt::IpRecvTos, &true).unwrap();
    let here = socket(&alice).unwrap();
    let send = |tos: u8, len| {
        setsockopt(&here, sockopt::Ipv4Tos, &tos.into()).unwrap();
        here.send_to(&vec![7; len], there.local_addr().unwrap()).unwrap();
    };

    for tos in [EF_ECT, EF, 0] {
        send(tos, POLITE);
        assert_eq!(arrived(&there).unwrap(), (tos, POLITE));
    }
    let first_hop = || -> Vec<u8> {
        let from = lab.host(0).public_addresses();
        let packets = wire.packets();
        packets.iter().filter(|p| from.contains(&p.from) && p.bytes.len() > POLITE).map(|p| p.bytes[1]).collect()
    };
    await_true("three datagrams on the wire", PATIENCE, || Ok(first_hop().len() == 3)).unwrap();
    assert_eq!(first_hop(), [EF_ECT, EF, 0]);

    lab.core
        .nft(&format!(
            "table inet marks {{
                chain way {{
                    type filter hook forward priority 0
                    {to} udp length {POLITE}-{} ip ecn {{ ect0, ect1 }} ip ecn set ce
                    {to} udp length {RUDE}-{} ip ecn set ce
                }}
            }}",
            POLITE + 100,
            RUDE + 100
        ))
        .unwrap();
    send(EF, RUDE);
    send(EF_ECT, POLITE);
    assert_eq!(arrived(&there).unwrap(), (EF_CE, POLITE), "marked, and what could not be is lost");
    assert_eq!(bob.status().unwrap().counters.drop.get("congested"), Some(&1));
    send(EF, POLITE);
    assert_eq!(arrived(&there).unwrap(), (EF, POLITE));
    if state == PeerState::Relayed {
        // Alike datagrams may leave as one.
        let relayed = || {
            let packets = wire.packets().into_iter();
            let relayed = packets.filter(|p| p.from == IpAddr::from(RENDEZVOUS) && p.bytes.len() > POLITE);
            let mut classes: Vec<u8> = relayed.map(|p| p.bytes[1]).collect();
            classes.dedup();
            classes
        };
        await_true("the ECN bits alone", PATIENCE, || Ok(relayed() == [2, 0, 3, 0])).unwrap();
    }
}

fn socket(peer: &Peer<'_>) -> Result<UdpSocket> {
    let socket = peer.host.netns.enter(|| UdpSocket::bind((peer.address, 0)))??;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// The next datagram's TOS and length.
fn arrived(socket: &UdpSocket) -> Result<(u8, usize)> {
    let (mut bytes, mut control) = ([0; 2_000], nix::cmsg_space!([i32; 8]));
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let tos = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4Tos(tos) => Some(tos),
        _ => None,
    });
    Ok((tos.context("told")?, message.bytes))
}
