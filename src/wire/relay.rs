//! The relay frame: a datagram between two members, carried by a rendezvous or by a third member through a channel that
//! both opened.
//!
//! ```text
//! 0        1                 4                                   12
//! +--------+-----------------+-----------------------------------+-------------+
//! |  0xE6  | channel (u24)   | tag (u64)                         | a datagram  |
//! +--------+-----------------+-----------------------------------+-------------+
//! ```
//!
//! The channel is the number that is agreed on with the frame's *peer*, the same in both directions; who relays
//! rewrites it. The tag is SipHash-2-4 under the relay key of the direction (a registration's, or the pair's), over
//! channel (u32), payload length (u32) and the payload's first 32 bytes: it keeps strangers from spending the relay's
//! bandwidth. What is inside is sealed end to end.

use super::{Malformed, Reader, kind};

/// Bytes in front of the datagram.
pub const HEADER: usize = 12;
/// The highest channel number; 0 is none.
pub const MAX_CHANNEL: u32 = 0x00ff_ffff;

/// A relay frame's clear header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 1 to [`MAX_CHANNEL`].
    pub channel: u32,
    /// Proof that sender and receiver share a registration's key.
    pub tag: u64,
}

impl Header {
    /// Reads the header and says what follows it.
    pub fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut r = Reader::new(datagram);
        match r.u8()? {
            kind::RELAY => {}
            other => return Err(Malformed::UnknownKind(other)),
        }
        let header = Self { channel: r.u24()?, tag: r.u64()? };
        if header.channel == 0 {
            return Err(Malformed::Bad("channel"));
        }
        Ok((header, r.rest()))
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(&self.channel.to_be_bytes());
        out[0] = kind::RELAY;
        out[4..].copy_from_slice(&self.tag.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_these_bytes() {
        let header = Header { channel: 0x0a0b0c, tag: 0x0102_0304_0506_0708 };
        let mut bytes = header.encode().to_vec();
        assert_eq!(bytes, [0xE6, 0x0a, 0x0b, 0x0c, 1, 2, 3, 4, 5, 6, 7, 8]);
        bytes.extend([0xE0, 9]);
        assert_eq!(Header::parse(&bytes), Ok((header, &[0xE0, 9][..])));
        assert_eq!(Header::parse(&bytes[..11]), Err(Malformed::Truncated));
        assert_eq!(Header::parse(&[0xE6, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]), Err(Malformed::Bad("channel")));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Header::parse(&bytes);
        }
    }
}
