//! L2: super-packets. A kernel that may leave its work to us hands over up to 64 KB at once, one header in front of
//! the payload of many packets, with checksums begun but not finished. [`Cut`] makes the packets of it, one a
//! datagram; on the other side [`Join`] puts together again what arrives in one piece, and the kernel has the work
//! of one packet. Knows no peer and no key.
//!
//! ```text
//!   TUN ─▶ [vnet | IP TCP | ─────── payload ─────── ]          one read
//!            Cut    [IP TCP | pay] [IP TCP | load] [IP TCP | …]   each sealed with its descriptor
//!   TUN ◀─ [vnet | IP TCP | ─────── payload ─────── ]   Join      one write
//! ```
//!
//! A segment is a packet of its own: it has the header it would have had on a wire, but for the checksum of its
//! TCP or UDP, which covers the pseudo-header alone (*partial*). [`finish`] completes it where the receiving kernel
//! does not.
//!
//! **The sender may be hostile.** What a segment's descriptor says is believed nowhere: the receiver reads the
//! packet itself ([`Layout`]), and a descriptor that says anything else is refused.

mod cut;
mod ecn;
mod join;
mod layout;
pub(crate) mod sum;
mod vnet;

#[cfg(test)]
pub(crate) mod tests;

pub use cut::Cut;
pub use ecn::{decapsulate, mark, tos, understands_marks};
pub use join::{Join, Place};
pub use layout::{Layout, Transport};
pub use vnet::Vnet;

use crate::wire::session::Segment;

/// How much of its work the kernel is to leave to us, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: one packet at a time, whole. For network drivers that do it wrong.
    Off,
    /// Super-packets of TCP: what kernels before Linux 6.2 can.
    Tcp,
    /// And of UDP.
    #[default]
    All,
}

impl std::str::FromStr for Offload {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "tcp" => Ok(Self::Tcp),
            "all" => Ok(Self::All),
            _ => Err("possible are off, tcp and all"),
        }
    }
}

/// Completes the checksum of a packet that has a partial one.
pub fn finish(packet: &mut [u8], layout: &Layout) {
    sum::finish(packet, layout.transport_at, layout.transport.checksum_offset());
}

/// What a segment's descriptor has to say about this packet, but for its place; `None` if no segment is like that.
pub fn describe(packet: &[u8]) -> Option<Segment> {
    Layout::of(packet).map(|layout| layout.descriptor(0))
}
