//! A beacon: "I am here", said on a LAN to everybody who listens, and understood by members alone.
//!
//! ```text
//!  0       1       2
//! +-------+-------+------------------------------------------+
//! | 0xE8  | flags | sealed announcement, 512 or 1,024 bytes  |
//! +-------+-------+------------------------------------------+
//!   flags: 1 = whoever hears this says so at once
//! ```
//!
//! It goes to a group, with a hop limit of 1, and arrives at sockets of its own ([`GROUP_V4`], [`GROUP_V6`], [`PORT`]): no
//! other socket takes one. The seal's salt is fresh each time, so that nothing in it says which network it is of; so is the
//! announcement's number, so that one that is repeated is known as such.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::rendezvous::items::MAX_ANNOUNCEMENT;
use super::{Malformed, Reader, kind};

/// The group on IPv4: of the block that stays within a site (RFC 2365 §6.1).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 112, 108);
/// The group on IPv6: of one link, not assigned by anybody (RFC 4291 §2.7).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x7075, 0x6e63);
/// The UDP port of both: not one of those that systems give to who asks for any.
pub const PORT: u16 = 24_785;

/// The longest beacon, bytes.
pub const MAX: usize = 2 + MAX_ANNOUNCEMENT;

const ASKS: u8 = 1;

/// "I am here."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beacon<'a> {
    /// Whoever hears it says so at once.
    pub asks: bool,
    /// A sealed announcement.
    pub sealed: &'a [u8],
}

impl<'a> Beacon<'a> {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        [&[kind::BEACON, if self.asks { ASKS } else { 0 }], self.sealed].concat()
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            kind::BEACON => {}
            other => return Err(Malformed::UnknownKind(other)),
        }
        let flags = reader.u8()?;
        Ok(Self { asks: flags & ASKS != 0, sealed: reader.rest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_and_nothing_else_is_a_beacon() {
        for asks in [false, true] {
            let beacon = Beacon { asks, sealed: &[7; 512] };
            assert_eq!(Beacon::decode(&beacon.encode()), Ok(beacon));
        }
        assert_eq!(Beacon::decode(&[]), Err(Malformed::Truncated));
        assert_eq!(Beacon::decode(&[kind::BEACON]), Err(Malformed::Truncated));
        assert_eq!(Beacon::decode(&[kind::DATA, 1]), Err(Malformed::UnknownKind(kind::DATA)));
        assert!(GROUP_V4.is_multicast() && GROUP_V6.is_multicast());
    }
}
