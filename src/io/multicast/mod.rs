//! What is said to everybody, between the LANs of this machine and the overlay: broadcast and multicast of programs that
//! are bound to no address, which the kernel sends on one interface alone, mostly the LAN's, and hears there.
//!
//! | what | where |
//! |---|---|
//! | which interfaces those are | [`uplinks()`] |
//! | what leaves by them to everybody, overheard | [`Tap`], [`filter`] |
//! | whether it is meant for those there alone | [`Senders`] |
//! | which groups programs are in, and where | [`Groups`] |
//! | to those that are in a group on a LAN | [`Loopback`]; by IPv6 [`held`] |
//!
//! Nothing here changes anything on this machine: it is sockets alone, gone with the process. What becomes of a packet is
//! decided elsewhere.

mod filter;
mod groups;
mod held;
mod loopback;
mod senders;
mod tap;
mod uplinks;

pub use filter::Wanted;
pub use groups::{Groups, Membership};
pub use loopback::Loopback;
pub use senders::Senders;
pub use tap::{Overheard, Tap};
pub use uplinks::{Uplink, uplinks};
