//! The interface and what is configured on it, against the real kernel: each test stands in a network
//! namespace of its own, made for it and gone with it, and plays the other side of the overlay at the level
//! of packets.
//!
//! ```text
//!            the test's namespace
//!   +---------------------------------------+
//!   |  kernel: 10.77.0.1, fd77::1, fe80::1  |
//!   +-------------------+-------------------+
//!                    punch0
//!   +-------------------+-------------------+
//!   |  test: 10.77.0.2, fd77::2, fe80::2    |  reads and writes packets
//!   +---------------------------------------+
//! ```
//!
//! Needs root and /dev/net/tun.
#![cfg(target_os = "linux")]

#[path = "tun/device.rs"]
mod device;
#[path = "tun/ethernet.rs"]
mod ethernet;
#[path = "tun/namespace.rs"]
mod namespace;
#[path = "tun/network.rs"]
mod network;
#[path = "tun/packets.rs"]
mod packets;

use punchlan::io::tun::LEAD;

/// Where packets are read to.
const AT: usize = LEAD;
const MTU: u16 = 1400;
/// The three addresses of the kernel's side, and of ours.
const KERNEL: [&str; 3] = ["10.77.0.1", "fd77::1", "fe80::1"];
const PEER: [&str; 3] = ["10.77.0.2", "fd77::2", "fe80::2"];
