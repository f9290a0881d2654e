//! No heap allocation on the path of a packet: sockets and the TUN device, counted.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::Ipv4Addr;

use punchlan::io::net::{Addresses, Network};
use punchlan::io::tun::Tun;
use punchlan::io::udp::{Batch, Socket};
use punchlan::offload::Vnet;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends allocates without its counter.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
                before = COUNT.get();
            }
            a.send(b.local_addr(), Some(Ipv4Addr::LOCALHOST.into()), None, &[7; 1400]).expect("sent");
            b.recv(&mut batch).await.expect("received");
            bytes += batch.datagrams().map(|datagram| datagram.payload.len()).sum::<usize>();
        }
        assert_eq!(COUNT.get() - before, 0, "allocations in {ROUNDS} rounds of {bytes} bytes");
    });
}

#[test]
fn inner_packets_cost_no_allocation() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root makes a network namespace");
    runtime().block_on(async {
        let tun = Tun::open("punch", 1400).expect("opened");
        let addresses = Addresses { v4: Some("10.77.0.1/24".parse().expect("net")), v6: Vec::new() };
        Network::open().expect("netlink").configure(&tun, 1400, &addresses).await.expect("configured");
        let program = std::net::UdpSocket::bind("10.77.0.1:7").expect("bound");
        let (mut buf, mut rest) = ([0; 1500], [0; 1500]);
        let mut before = 0;
        for round in 0..ROUNDS + WARM_UP {
            if round == WARM_UP {
                before = COUNT.get();
            }
            program.send_to(&[7; 1300], (Ipv4Addr::new(10, 77, 0, 2), 7)).expect("sent");
            let (vnet, len) = tun.recv(&mut buf, Vnet::LEN).await.expect("a packet");
            let packet = Vnet::LEN..Vnet::LEN + len;
            vnet.finish(&mut buf[packet.clone()]);
            while tun.try_recv(&mut rest, Vnet::LEN).expect("drained").is_some() {}
            tun.send(&buf[packet]).expect("sent");
        }
        assert_eq!(COUNT.get() - before, 0, "allocations in {ROUNDS} rounds");
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}
