//! The overlay's network interface: inner packets from and to the kernel. On Linux it is an Ethernet one, and a [`Vnet`]
//! stands before each packet: the kernel hands over super-packets and takes them, and leaves checksums to us. Elsewhere it
//! is a TUN device; and above here it is called *the TUN* for short, whatever it is.
//!
//! [`Tun::open`] takes the first free `punchN`. The device is not persistent: when the value is dropped,
//! or the process dies in whatever way, it is gone with its addresses and routes. What is configured on it
//! is the business of [`super::net`].

#[cfg(target_os = "linux")]
pub(super) mod ethernet;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

#[cfg(target_os = "linux")]
pub use linux::Tun;
#[cfg(not(target_os = "linux"))]
pub use other::Tun;

use crate::offload::Vnet;

/// Free bytes that are needed before the place where a packet is read to: for [`Vnet`] and Ethernet header.
pub const LEAD: usize = Vnet::LEN + 14;

/// Our interfaces are named so, with a number behind it.
pub const NAME_PREFIX: &str = "punch";

/// Numbers tried before giving up; nobody runs this many networks at once.
#[cfg(any(target_os = "linux", windows))]
const LAST_NUMBER: u32 = 255;
