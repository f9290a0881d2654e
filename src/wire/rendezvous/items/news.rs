//! What the rendezvous tells a peer of another member.

use std::net::SocketAddr;

use super::MAX_ANNOUNCEMENT;
use crate::id::PeerId;
use crate::wire::{Malformed, Reader, Writer};

/// ```text
/// 0         4        36       37
/// +---------+--------+--------+----------------------------+------------------+
/// | id      | peer   | what   | observed 18, length u16,   | channel u24      |
/// |         |        |        | sealed: if bit 0           | if bit 3         |
/// +---------+--------+--------+----------------------------+------------------+
/// what: bit 0 member · bit 1 gone · bit 2 start now · bit 3 channel open · bit 4 channel closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerNews<'a> {
    /// Acknowledged; the highest is the newest.
    pub id: u32,
    /// Who.
    pub peer: PeerId,
    /// Whether it is listed, if that changed.
    pub listing: Option<Listing<'a>>,
    /// Both sides are told now to search a path.
    pub start: bool,
    /// The channel to it, if that changed: `Some(0)` closed, else open under the receiver's number.
    pub channel: Option<u32>,
}

/// Whether a peer is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing<'a> {
    /// It is.
    Member {
        /// Where the server sees it.
        observed: Option<SocketAddr>,
        /// Its sealed announcement.
        sealed: &'a [u8],
    },
    /// It is not any more.
    Gone,
}

impl<'a> PeerNews<'a> {
    const MEMBER: u8 = 1;
    const GONE: u8 = 2;
    const START: u8 = 4;
    const OPEN: u8 = 8;
    const CLOSED: u8 = 16;

    pub(super) fn parse(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (id, peer, what) = (r.u32()?, PeerId(r.array()?), r.u8()?);
        let listing = if what & Self::MEMBER != 0 {
            let (observed, len) = (r.socket_addr()?, r.u16()?);
            Some(Listing::Member { observed, sealed: r.bytes(len.into())? })
        } else {
            (what & Self::GONE != 0).then_some(Listing::Gone)
        };
        let channel = match what & (Self::OPEN | Self::CLOSED) {
            0 => None,
            Self::OPEN => Some(r.u24()?),
            _ => Some(0),
        };
        Ok(Self { id, peer, listing, start: what & Self::START != 0, channel })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let what = match self.listing {
            Some(Listing::Member { .. }) => Self::MEMBER,
            Some(Listing::Gone) => Self::GONE,
            None => 0,
        } | if self.start { Self::START } else { 0 }
            | match self.channel {
                None => 0,
                Some(0) => Self::CLOSED,
                Some(_) => Self::OPEN,
            };
        let mut body = Writer::with_capacity(60 + MAX_ANNOUNCEMENT);
        body.u32(self.id).bytes(&self.peer.0).u8(what);
        if let Some(Listing::Member { observed, sealed }) = self.listing {
            body.socket_addr(observed).u16(u16::try_from(sealed.len()).unwrap_or(u16::MAX)).bytes(sealed);
        }
        if let Some(channel @ 1..) = self.channel {
            body.u24(channel);
        }
        body.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rendezvous::items::ToPeer;

    #[test]
    fn news_about_a_member_are_these_bytes() {
        let mut w = Writer::default();
        let listing = Some(Listing::Member { observed: Some("192.0.2.1:9".parse().expect("v4")), sealed: &[0xAB; 2] });
        ToPeer::Peer(PeerNews { id: 5, peer: PeerId([0x11; 32]), listing, start: true, channel: Some(0x0a0b0c) })
            .write(&mut w);
        let mut expected = vec![4, 0, 62, 0, 0, 0, 5];
        expected.extend([0x11; 32]);
        expected.extend([0b01101, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1, 0, 9, 0, 2, 0xAB, 0xAB]);
        expected.extend([0x0a, 0x0b, 0x0c]);
        assert_eq!(w.finish(), expected);
    }
}
