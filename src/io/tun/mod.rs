//! The TUN device: inner packets from and to the kernel. On Linux a [`Vnet`](crate::offload::Vnet) stands before each:
//! the kernel hands over super-packets and takes them, and leaves checksums to us.
//!
//! [`Tun::open`] takes the first free `punchN`. The device is not persistent: when the value is dropped,
//! or the process dies in whatever way, it is gone with its addresses and routes. What is configured on it
//! is the business of [`super::net`].

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

#[cfg(target_os = "linux")]
pub use linux::Tun;
#[cfg(not(target_os = "linux"))]
pub use other::Tun;

/// Our interfaces are named so, with a number behind it.
pub const NAME_PREFIX: &str = "punch";

/// Numbers tried before giving up; nobody runs this many networks at once.
#[cfg(any(target_os = "linux", windows))]
const LAST_NUMBER: u32 = 255;
