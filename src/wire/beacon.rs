//! A beacon: "I am here", said on a LAN to everybody who listens, and understood by members alone.
//!
//! ```text
//!  0       1
//! +-------+------------------------------------------+
//! | 0xE8  | sealed announcement, 512 or 1,024 bytes  |
//! +-------+------------------------------------------+
//! ```
//!
//! It goes to a group, with a hop limit of 1, and arrives at sockets of its own ([`GROUP_V4`], [`GROUP_V6`], [`PORT`]): no
//! other socket takes one. The seal's salt is fresh each time, so that nothing in it says which network it is of.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::rendezvous::items::MAX_ANNOUNCEMENT;
use super::{Malformed, Reader, kind};

/// The group on IPv4: of the block that stays within a site (RFC 2365 §6.1).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 112, 108);
/// The group on IPv6: of one link, not assigned by anybody (RFC 4291 §2.7).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x7075, 0x6e63);
/// The UDP port of both.
pub const PORT: u16 = 34_785;

/// The longest beacon, bytes.
pub const MAX: usize = 1 + MAX_ANNOUNCEMENT;

/// The beacon that says what `sealed`, a sealed announcement, does.
pub fn encode(sealed: &[u8]) -> Vec<u8> {
    [&[kind::BEACON], sealed].concat()
}

/// The sealed announcement of a beacon.
///
/// # Errors
/// It is none.
pub fn decode(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        kind::BEACON => Ok(reader.rest()),
        other => Err(Malformed::UnknownKind(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_and_nothing_else_is_a_beacon() {
        assert_eq!(decode(&encode(&[7; 512])), Ok(&[7; 512][..]));
        assert_eq!(decode(&[]), Err(Malformed::Truncated));
        assert_eq!(decode(&[kind::DATA, 1]), Err(Malformed::UnknownKind(kind::DATA)));
        assert!(GROUP_V4.is_multicast() && GROUP_V6.is_multicast());
    }
}
