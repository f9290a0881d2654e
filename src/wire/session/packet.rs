//! The clear header of data and control, and what may stand before a packet inside the seal.

use super::{HEADER, OVERHEAD};
use crate::wire::{Malformed, Reader, kind};

/// The two streams under one pair of keys, each with keys and counters of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Packets of the overlay.
    Data,
    /// Messages between the two nodes.
    Control,
}

impl Channel {
    /// Its first byte.
    pub const fn kind(self) -> u8 {
        match self {
            Self::Data => kind::DATA,
            Self::Control => kind::CONTROL,
        }
    }
}

/// The clear header of data and control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which stream.
    pub channel: Channel,
    /// The receiver's index, 24 bits.
    pub index: u32,
    /// The packet's number under its key.
    pub counter: u32,
}

impl Header {
    /// The header's bytes.
    pub const fn encode(&self) -> [u8; HEADER] {
        let ([_, i, j, k], [a, b, c, d]) = (self.index.to_be_bytes(), self.counter.to_be_bytes());
        [self.channel.kind(), i, j, k, a, b, c, d]
    }

    /// Reads the header of a datagram that has room for an inner kind and a tag.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() < OVERHEAD {
            return Err(Malformed::Truncated);
        }
        let mut r = Reader::new(datagram);
        let channel = match r.u8()? {
            kind::DATA => Channel::Data,
            kind::CONTROL => Channel::Control,
            other => return Err(Malformed::UnknownKind(other)),
        };
        Ok(Self { channel, index: r.u24()?, counter: r.u32()? })
    }
}

/// What a peer can do, bits of `features` in the handshake.
pub mod feature {
    /// It takes [`super::data::SEGMENT`].
    pub const SEGMENTS: u32 = 1;
    /// It knows what to do with [`super::super::Control::Carry`] and the answers to it.
    pub const CARRYING: u32 = 2;
    /// It says which multicast groups it wants ([`super::super::Control::Groups`]), and understands those who do.
    pub const GROUPS: u32 = 8;
}

/// Inner kinds of the data channel.
pub mod data {
    /// A packet.
    pub const PACKET: u8 = 1;
    /// A segment of a super-packet, after its [`super::Segment`].
    pub const SEGMENT: u8 = 2;
    /// A part of a packet, after its [`super::Fragment`].
    pub const FRAGMENT: u8 = 3;
}

/// Describes the super-packet that a segment was cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// `gso_type` of virtio-net.
    pub gso_type: u8,
    /// Where the checksummed part starts.
    pub csum_start: u8,
    /// Where the checksum goes, from there.
    pub csum_offset: u8,
    /// Bytes of headers.
    pub header_len: u16,
    /// The segment's place in the super-packet.
    pub index: u16,
}

impl Segment {
    /// Bytes on the wire.
    pub const LEN: usize = 7;

    /// The descriptor's bytes.
    pub const fn encode(&self) -> [u8; Self::LEN] {
        let ([a, b], [c, d]) = (self.header_len.to_be_bytes(), self.index.to_be_bytes());
        [self.gso_type, self.csum_start, self.csum_offset, a, b, c, d]
    }

    /// The descriptor, and the packet behind it.
    pub fn decode(body: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut r = Reader::new(body);
        let segment = Self {
            gso_type: r.u8()?,
            csum_start: r.u8()?,
            csum_offset: r.u8()?,
            header_len: r.u16()?,
            index: r.u16()?,
        };
        Ok((segment, r.rest()))
    }
}

/// Says which part of a packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Common to the parts of one packet.
    pub id: u16,
    /// Whether a later part follows.
    pub more: bool,
    /// Where the part belongs, in units of 8 bytes; 15 bits.
    pub offset: u16,
}

impl Fragment {
    /// Bytes on the wire.
    pub const LEN: usize = 4;
    const MORE: u16 = 0x8000;

    /// The header's bytes.
    pub const fn encode(&self) -> [u8; Self::LEN] {
        let offset = (self.offset & !Self::MORE) | if self.more { Self::MORE } else { 0 };
        let ([a, b], [c, d]) = (self.id.to_be_bytes(), offset.to_be_bytes());
        [a, b, c, d]
    }

    /// The header, and the part behind it.
    pub fn decode(body: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut r = Reader::new(body);
        let (id, offset) = (r.u16()?, r.u16()?);
        Ok((Self { id, more: offset & Self::MORE != 0, offset: offset & !Self::MORE }, r.rest()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::receiver_index;
    use super::*;

    #[test]
    fn the_header_holds_in_both_directions() {
        for (channel, first) in [(Channel::Data, 0xe0), (Channel::Control, 0xe1)] {
            let header = Header { channel, index: 0x010203, counter: 0x04050607 };
            assert_eq!(header.encode(), [first, 1, 2, 3, 4, 5, 6, 7]);
            let mut datagram = header.encode().to_vec();
            assert_eq!(Header::decode(&datagram), Err(Malformed::Truncated));
            datagram.extend([0; 17]);
            assert_eq!(Header::decode(&datagram), Ok(header));
            assert_eq!(receiver_index(&datagram), Some(0x010203));
        }
    }

    #[test]
    fn segments_and_fragments_hold_in_both_directions() {
        let segment = Segment { gso_type: 1, csum_start: 2, csum_offset: 3, header_len: 0x0405, index: 0x0607 };
        assert_eq!(segment.encode(), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Segment::decode(&[1, 2, 3, 4, 5, 6, 7, 8]), Ok((segment, &[8][..])));
        let fragment = Fragment { id: 0x0102, more: true, offset: 0x0304 };
        assert_eq!(fragment.encode(), [1, 2, 0x83, 4]);
        assert_eq!(Fragment::decode(&[1, 2, 0x83, 4, 5]), Ok((fragment, &[5][..])));
        assert_eq!(Fragment { more: false, ..fragment }.encode(), [1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn any_header_survives_the_wire(index in 0..1_u32 << 24, counter: u32, id: u16, more: bool, offset in 0..0x8000_u16) {
            let header = Header { channel: Channel::Data, index, counter };
            prop_assert_eq!(Header::decode(&[&header.encode()[..], &[0; 17]].concat()), Ok(header));
            let fragment = Fragment { id, more, offset };
            let bytes = fragment.encode();
            prop_assert_eq!(Fragment::decode(&bytes), Ok((fragment, &[][..])));
        }
    }
}
