//! The clear part of a sealed frame. What is sealed are [`items`](super::items).

use super::message;
use crate::wire::{Malformed, Reader, kind};

/// Bytes before the sealed part of a frame; all of them are authenticated.
pub const FRAME_HEADER: usize = 14;
/// Bytes of the seal behind it.
pub const FRAME_TAG: usize = 16;

/// Which way a sealed frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a peer to the rendezvous.
    ToServer,
    /// From the rendezvous to a peer.
    ToPeer,
}

/// In front of the sealed items; all of it is authenticated, and the counter is the nonce.
///
/// ```text
/// 0        1        2            6              14
/// +--------+--------+------------+--------------+----------------+-----+
/// |  0xE7  | 6 or 7 | handle     | counter      | sealed items   | tag |
/// +--------+--------+------------+--------------+----------------+-----+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which way; each has keys of its own.
    pub direction: Direction,
    /// The registration, as its [`Claim`](super::Claim) named it.
    pub handle: u32,
    /// Grows with every frame of a direction.
    pub counter: u64,
}

impl FrameHeader {
    pub(super) fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() < FRAME_HEADER + FRAME_TAG {
            return Err(Malformed::Truncated);
        }
        let mut r = Reader::new(&datagram[1..]);
        let direction = if r.u8()? == message::TO_SERVER { Direction::ToServer } else { Direction::ToPeer };
        Ok(Self { direction, handle: r.u32()?, counter: r.u64()? })
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; FRAME_HEADER] {
        let mut out = [0; FRAME_HEADER];
        out[0] = kind::RENDEZVOUS;
        out[1] = match self.direction {
            Direction::ToServer => message::TO_SERVER,
            Direction::ToPeer => message::TO_PEER,
        };
        out[2..6].copy_from_slice(&self.handle.to_be_bytes());
        out[6..].copy_from_slice(&self.counter.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rendezvous::Message;

    #[test]
    fn a_frame_header_is_these_bytes() {
        let header = FrameHeader { direction: Direction::ToPeer, handle: 0x0102_0304, counter: 5 };
        let mut bytes = header.encode().to_vec();
        assert_eq!(bytes, [0xE7, 7, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5]);
        bytes.resize(FRAME_HEADER + FRAME_TAG, 0);
        assert_eq!(Message::parse(&bytes), Ok(Message::Frame(header)));
        bytes.pop();
        assert_eq!(Message::parse(&bytes), Err(Malformed::Truncated));
    }
}
