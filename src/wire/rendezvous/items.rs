//! What is inside a sealed frame: items, as many as fit.
//!
//! ```text
//! +------+--------+----------+------+--------+----
//! | kind | length |  body    | kind | length | …
//! |  u8  |  u16   |          |      |        |
//! +------+--------+----------+------+--------+----
//! ```
//!
//! An item that must arrive carries an id and is repeated until the other side has acknowledged that id. Ids grow;
//! of two items about the same thing the higher id is the newer. Items of unknown kind are skipped.

use std::net::SocketAddr;

use super::super::{Malformed, Reader, Writer};
use super::{FRAME_HEADER, FRAME_TAG, MAX_DATAGRAM, Reason};
use crate::id::PeerId;

/// Room for items in one frame.
pub const MAX_ITEMS: usize = MAX_DATAGRAM - FRAME_HEADER - FRAME_TAG;
/// The longest sealed announcement.
pub const MAX_ANNOUNCEMENT: usize = 1024;

mod to_server {
    pub(super) const ACK: u8 = 1;
    pub(super) const ANNOUNCE: u8 = 2;
    pub(super) const REFRESH: u8 = 3;
    pub(super) const INTRODUCE: u8 = 4;
    pub(super) const CHANNEL: u8 = 5;
    pub(super) const LIST: u8 = 6;
    pub(super) const LEAVE: u8 = 7;
    pub(super) const ALIVE: u8 = 8;
}

/// From a peer to the rendezvous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToServer<'a> {
    /// `ids u32 × n`: these items arrived.
    Ack(Ids<'a>),
    /// `id u32 | sealed announcement`: what members are to know about us.
    Announce {
        /// Acknowledged.
        id: u32,
        /// For members' eyes.
        sealed: &'a [u8],
    },
    /// `token u64`: still here. Answered by [`ToPeer::Refreshed`].
    Refresh {
        /// In the answer again.
        token: u64,
    },
    /// `id u32 | peer 32`: tell both of us to start at the same moment.
    Introduce {
        /// Acknowledged.
        id: u32,
        /// The other.
        peer: PeerId,
    },
    /// `id u32 | peer 32 | channel u24`: frames with this number are for that member; 0 closes.
    Channel {
        /// Acknowledged.
        id: u32,
        /// The other.
        peer: PeerId,
        /// The sender's number for it.
        channel: u32,
    },
    /// Nothing inside: tell me all members again.
    List,
    /// `id u32`: forget me.
    Leave {
        /// Acknowledged, if the answer still arrives.
        id: u32,
    },
    /// `token u64`: answer to [`ToPeer::AreYouThere`].
    Alive {
        /// The question's.
        token: u64,
    },
}

mod to_peer {
    pub(super) const ACK: u8 = 1;
    pub(super) const REGISTERED: u8 = 2;
    pub(super) const REFRESHED: u8 = 3;
    pub(super) const PEER: u8 = 4;
    pub(super) const REFUSED: u8 = 5;
    pub(super) const ARE_YOU_THERE: u8 = 6;
    pub(super) const DUPLICATE: u8 = 7;
    pub(super) const STOPPING: u8 = 8;
}

/// From the rendezvous to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToPeer<'a> {
    /// `ids u32 × n`: these items arrived.
    Ack(Ids<'a>),
    /// `fresh u8 | observed 18 | summary 13`: the Register was accepted.
    Registered {
        /// The server held nothing of this device before: its channels are closed, its list is empty.
        fresh: bool,
        /// The registration's address.
        observed: Option<SocketAddr>,
        /// What the list should look like.
        summary: Summary,
    },
    /// `token u64 | observed 18 | summary 13`: answer to [`ToServer::Refresh`].
    Refreshed {
        /// The question's.
        token: u64,
        /// The registration's address.
        observed: Option<SocketAddr>,
        /// What the list should look like.
        summary: Summary,
    },
    /// News about a member.
    Peer(PeerNews<'a>),
    /// `reason u8 | id u32`: the item with this id was not accepted; do not repeat it.
    Refused {
        /// Why.
        reason: Reason,
        /// Which.
        id: u32,
    },
    /// `token u64`: somebody else registers under our name; answer at once.
    AreYouThere {
        /// In the answer again.
        token: u64,
    },
    /// `id u32`: somebody else tried to register under our name and was refused.
    Duplicate {
        /// Acknowledged.
        id: u32,
    },
    /// Nothing inside: the server stops; whatever it relays ends.
    Stopping,
}

/// What a peer's list of members should look like, so that a difference is found whatever was lost.
///
/// `pending u8 | count u32 | digest u64`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Summary {
    /// News are still on their way: do not compare yet.
    pub pending: bool,
    /// Members apart from the receiver.
    pub count: u32,
    /// XOR of the members' digests.
    pub digest: u64,
}

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

/// The ids of an Ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids<'a>(&'a [u8]);

impl<'a> Ids<'a> {
    /// Big-endian ids, four bytes each.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Each id.
    pub fn iter(self) -> impl Iterator<Item = u32> + 'a {
        self.0.as_chunks().0.iter().map(|id| u32::from_be_bytes(*id))
    }
}

impl<'a> ToServer<'a> {
    /// Reads one item; `Ok(None)` if its kind is unknown.
    fn parse(kind: u8, body: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut r = Reader::new(body);
        Ok(Some(match kind {
            to_server::ACK => Self::Ack(Ids(body)),
            to_server::ANNOUNCE => Self::Announce { id: r.u32()?, sealed: r.rest() },
            to_server::REFRESH => Self::Refresh { token: r.u64()? },
            to_server::INTRODUCE => Self::Introduce { id: r.u32()?, peer: PeerId(r.array()?) },
            to_server::CHANNEL => Self::Channel { id: r.u32()?, peer: PeerId(r.array()?), channel: r.u24()? },
            to_server::LIST => Self::List,
            to_server::LEAVE => Self::Leave { id: r.u32()? },
            to_server::ALIVE => Self::Alive { token: r.u64()? },
            _ => return Ok(None),
        }))
    }

    /// The items of an opened frame, up to the first that is malformed.
    pub fn all(items: &'a [u8]) -> impl Iterator<Item = Self> {
        Bodies(Reader::new(items)).map_while(|(kind, body)| Self::parse(kind, body).ok()).flatten()
    }

    /// Appends the item.
    pub fn write(&self, w: &mut Writer) {
        match *self {
            Self::Ack(ids) => item(w, to_server::ACK, &[ids.0]),
            Self::Announce { id, sealed } => item(w, to_server::ANNOUNCE, &[&id.to_be_bytes(), sealed]),
            Self::Refresh { token } => item(w, to_server::REFRESH, &[&token.to_be_bytes()]),
            Self::Introduce { id, peer } => item(w, to_server::INTRODUCE, &[&id.to_be_bytes(), &peer.0]),
            Self::Channel { id, peer, channel } => {
                item(w, to_server::CHANNEL, &[&id.to_be_bytes(), &peer.0, &channel.to_be_bytes()[1..]]);
            }
            Self::List => item(w, to_server::LIST, &[]),
            Self::Leave { id } => item(w, to_server::LEAVE, &[&id.to_be_bytes()]),
            Self::Alive { token } => item(w, to_server::ALIVE, &[&token.to_be_bytes()]),
        }
    }
}

impl<'a> ToPeer<'a> {
    fn parse(kind: u8, body: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut r = Reader::new(body);
        Ok(Some(match kind {
            to_peer::ACK => Self::Ack(Ids(body)),
            to_peer::REGISTERED => {
                let (fresh, observed) = (r.u8()? != 0, r.socket_addr()?);
                Self::Registered { fresh, observed, summary: Summary::parse(&mut r)? }
            }
            to_peer::REFRESHED => {
                let (token, observed) = (r.u64()?, r.socket_addr()?);
                Self::Refreshed { token, observed, summary: Summary::parse(&mut r)? }
            }
            to_peer::PEER => Self::Peer(PeerNews::parse(&mut r)?),
            to_peer::REFUSED => Self::Refused { reason: Reason::from_wire(r.u8()?)?, id: r.u32()? },
            to_peer::ARE_YOU_THERE => Self::AreYouThere { token: r.u64()? },
            to_peer::DUPLICATE => Self::Duplicate { id: r.u32()? },
            to_peer::STOPPING => Self::Stopping,
            _ => return Ok(None),
        }))
    }

    /// The items of an opened frame, up to the first that is malformed.
    pub fn all(items: &'a [u8]) -> impl Iterator<Item = Self> {
        Bodies(Reader::new(items)).map_while(|(kind, body)| Self::parse(kind, body).ok()).flatten()
    }

    /// Appends the item.
    pub fn write(&self, w: &mut Writer) {
        match *self {
            Self::Ack(ids) => item(w, to_peer::ACK, &[ids.0]),
            Self::Registered { fresh, observed, summary } => {
                let mut body = Writer::with_capacity(32);
                body.u8(fresh.into()).socket_addr(observed);
                item(w, to_peer::REGISTERED, &[body.as_slice(), &summary.encode()]);
            }
            Self::Refreshed { token, observed, summary } => {
                let mut body = Writer::with_capacity(39);
                body.u64(token).socket_addr(observed);
                item(w, to_peer::REFRESHED, &[body.as_slice(), &summary.encode()]);
            }
            Self::Peer(news) => news.write(w),
            Self::Refused { reason, id } => item(w, to_peer::REFUSED, &[&[reason.wire()], &id.to_be_bytes()]),
            Self::AreYouThere { token } => item(w, to_peer::ARE_YOU_THERE, &[&token.to_be_bytes()]),
            Self::Duplicate { id } => item(w, to_peer::DUPLICATE, &[&id.to_be_bytes()]),
            Self::Stopping => item(w, to_peer::STOPPING, &[]),
        }
    }
}

impl Summary {
    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { pending: r.u8()? != 0, count: r.u32()?, digest: r.u64()? })
    }

    fn encode(&self) -> [u8; 13] {
        let mut out = [0; 13];
        out[0] = self.pending.into();
        out[1..5].copy_from_slice(&self.count.to_be_bytes());
        out[5..].copy_from_slice(&self.digest.to_be_bytes());
        out
    }
}

impl<'a> PeerNews<'a> {
    const MEMBER: u8 = 1;
    const GONE: u8 = 2;
    const START: u8 = 4;
    const OPEN: u8 = 8;
    const CLOSED: u8 = 16;

    fn parse(r: &mut Reader<'a>) -> Result<Self, Malformed> {
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

    fn write(&self, w: &mut Writer) {
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
        item(w, to_peer::PEER, &[body.as_slice()]);
    }
}

/// The parts behind their kind and length.
fn item(w: &mut Writer, kind: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    w.u8(kind).u16(u16::try_from(len).unwrap_or(u16::MAX));
    for part in parts {
        w.bytes(part);
    }
}

/// Kind and body of each item.
struct Bodies<'a>(Reader<'a>);

impl<'a> Iterator for Bodies<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let kind = self.0.u8().ok()?;
        let len = self.0.u16().ok()?;
        Some((kind, self.0.bytes(len.into()).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_peer_says_survives_the_wire() {
        let (id, peer) = (7, PeerId([1; 32]));
        let said = [
            ToServer::Ack(Ids(&[0, 0, 0, 1, 0, 0, 1, 0])),
            ToServer::Announce { id, sealed: &[9; 512] },
            ToServer::Refresh { token: 5 },
            ToServer::Introduce { id, peer },
            ToServer::Channel { id, peer, channel: 0x01_0203 },
            ToServer::List,
            ToServer::Leave { id },
            ToServer::Alive { token: 6 },
        ];
        let mut w = Writer::default();
        said.iter().for_each(|item| item.write(&mut w));
        let bytes = w.finish();
        assert_eq!(ToServer::all(&bytes).collect::<Vec<_>>(), said);
        assert_eq!(Ids(&[0, 0, 0, 1, 0, 0, 1, 0]).iter().collect::<Vec<_>>(), [1, 256]);
    }

    #[test]
    fn what_a_server_says_survives_the_wire() {
        let observed = Some("[2001:db8::9]:7".parse().expect("address"));
        let summary = Summary { pending: true, count: 3, digest: 0x1122_3344_5566_7788 };
        let peer = PeerId([2; 32]);
        let said = [
            ToPeer::Ack(Ids(&[0, 0, 0, 4])),
            ToPeer::Registered { fresh: true, observed, summary },
            ToPeer::Refreshed { token: 8, observed: None, summary: Summary::default() },
            ToPeer::Peer(PeerNews {
                id: 1,
                peer,
                listing: Some(Listing::Member { observed, sealed: &[3; 1024] }),
                start: true,
                channel: Some(0xffff),
            }),
            ToPeer::Peer(PeerNews { id: 2, peer, listing: Some(Listing::Gone), start: false, channel: Some(0) }),
            ToPeer::Peer(PeerNews { id: 3, peer, listing: None, start: true, channel: None }),
            ToPeer::Refused { reason: Reason::NoSuchMember, id: 9 },
            ToPeer::AreYouThere { token: 1 },
            ToPeer::Duplicate { id: 2 },
            ToPeer::Stopping,
        ];
        let mut w = Writer::default();
        said.iter().for_each(|item| item.write(&mut w));
        let bytes = w.finish();
        assert_eq!(ToPeer::all(&bytes).collect::<Vec<_>>(), said);
    }

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

    #[test]
    fn items_of_unknown_kind_are_skipped() {
        let mut w = Writer::default();
        item(&mut w, 200, &[&[1, 2, 3]]);
        ToServer::List.write(&mut w);
        assert_eq!(ToServer::all(w.as_slice()).collect::<Vec<_>>(), [ToServer::List]);
    }

    #[test]
    fn the_longest_item_fits_a_frame() {
        let mut w = Writer::default();
        let listing = Some(Listing::Member { observed: None, sealed: &[0; MAX_ANNOUNCEMENT] });
        ToPeer::Peer(PeerNews { id: 1, peer: PeerId([0; 32]), listing, start: true, channel: Some(1) }).write(&mut w);
        assert!(w.as_slice().len() <= MAX_ITEMS);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), first in 0u8..9) {
            let _ = (ToServer::all(&bytes).count(), ToPeer::all(&bytes).count());
            let mut framed = vec![first, 0, u8::try_from(bytes.len().min(255)).expect("capped")];
            framed.extend(bytes);
            let _ = (ToServer::all(&framed).count(), ToPeer::all(&framed).count());
        }
    }
}
