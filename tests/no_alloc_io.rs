//! No heap allocation on the path of a packet: sockets and the interface, counted.
#![cfg(target_os = "linux")]

#[path = "common/counting.rs"]
mod counting;

use std::io::IoSlice;
use std::net::Ipv4Addr;

use punchlan::io::net::{Addresses, Network};
use punchlan::io::ready::{Ready, Told};
use punchlan::io::tun::{LEAD, Tun};
use punchlan::io::udp::{Batch, Socket, Way};
use punchlan::offload::Offload;

use counting::allocations;

const ROUNDS: u64 = 10_000;
/// The event loop's own lists grow to their size in the first rounds.
const WARM_UP: u64 = 1_000;

#[test]
fn datagrams_cost_no_allocation() {
    runtime().block_on(async {
        let a = Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound");
        let b = Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound");
        let mut batch = Batch::new();
        let mut bytes = 0;
        let mut before = 0;
        for round in 0..ROUNDS + WARM_UP {
            if round == WARM_UP {
                before = allocations();
            }
            a.send(b.local_addr(), Some(Ipv4Addr::LOCALHOST.into()), None, &[7; 1400]).expect("sent");
            // One with a class of its own, and several at once.
            for len in [1400, 2800] {
                let way = Way { to: b.local_addr(), src: Some(Ipv4Addr::LOCALHOST.into()), tos: 0xba };
                a.send_train(way, 1400, &[IoSlice::new(&[7; 2800][..len])]).expect("sent");
            }
            b.recv(&mut batch).await.expect("received");
            bytes += batch.datagrams().map(|datagram| datagram.payload.len()).sum::<usize>();
        }
        assert_eq!(allocations() - before, 0, "allocations in {ROUNDS} rounds of {bytes} bytes");
    });
}

#[test]
fn waiting_for_many_sockets_costs_no_allocation() {
    let (a, ready) =
        (Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound"), Ready::new().expect("descriptors"));
    let sockets = Vec::from_iter((0..50).map(|_| Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound")));
    (0..).zip(&sockets).for_each(|(token, socket)| ready.add(socket, token).expect("added"));
    let (mut batch, mut told, mut came) = (Batch::new(), Told::new(), 0);
    let before = allocations();
    for round in 0..usize::try_from(ROUNDS).expect("few") {
        // A few at a time.
        for socket in sockets.iter().skip(round % sockets.len()).take(3) {
            a.send(socket.local_addr(), None, None, &[7; 1400]).expect("sent");
        }
        ready.wait(&mut told).expect("waited");
        for token in told.tokens() {
            came += sockets[usize::from(token)].try_recv(&mut batch).expect("received");
        }
    }
    assert_eq!(allocations() - before, 0, "allocations in {ROUNDS} rounds of {came} datagrams");
}

#[test]
fn inner_packets_cost_no_allocation() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root makes a network namespace");
    runtime().block_on(async {
        let tun = Tun::open("punch", 1400, Offload::All).expect("opened");
        let addresses = Addresses { v4: Some("10.77.0.1/24".parse().expect("net")), v6: Vec::new() };
        Network::open().expect("netlink").configure(&tun, 1400, &addresses).await.expect("configured");
        let program = std::net::UdpSocket::bind("10.77.0.1:7").expect("bound");
        let (mut buf, mut rest) = ([0; 1500], [0; 1500]);
        let mut before = 0;
        for round in 0..ROUNDS + WARM_UP {
            if round == WARM_UP {
                before = allocations();
            }
            program.send_to(&[7; 1300], (Ipv4Addr::new(10, 77, 0, 2), 7)).expect("sent");
            let (vnet, len) = tun.recv(&mut buf, LEAD, &mut []).await.expect("a packet");
            let packet = LEAD..LEAD + len;
            vnet.finish(&mut buf[packet.clone()]);
            while tun.try_recv(&mut rest, LEAD, &mut []).expect("drained").is_some() {}
            tun.send(&buf[packet]).expect("sent");
        }
        assert_eq!(allocations() - before, 0, "allocations in {ROUNDS} rounds");
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}
