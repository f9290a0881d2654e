//! What the rendezvous says to a peer.

use std::net::SocketAddr;

use super::{Bodies, Ids, PeerNews, Reason, item};
use crate::wire::{Malformed, Reader, Writer};

mod kinds {
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
    /// `token u64 | observed 18 | summary 13`: answer to [`ToServer::Refresh`](super::ToServer::Refresh).
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

impl<'a> ToPeer<'a> {
    fn parse(kind: u8, body: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut r = Reader::new(body);
        Ok(Some(match kind {
            kinds::ACK => Self::Ack(Ids(body)),
            kinds::REGISTERED => {
                let (fresh, observed) = (r.u8()? != 0, r.socket_addr()?);
                Self::Registered { fresh, observed, summary: Summary::parse(&mut r)? }
            }
            kinds::REFRESHED => {
                let (token, observed) = (r.u64()?, r.socket_addr()?);
                Self::Refreshed { token, observed, summary: Summary::parse(&mut r)? }
            }
            kinds::PEER => Self::Peer(PeerNews::parse(&mut r)?),
            kinds::REFUSED => Self::Refused { reason: Reason::from_wire(r.u8()?)?, id: r.u32()? },
            kinds::ARE_YOU_THERE => Self::AreYouThere { token: r.u64()? },
            kinds::DUPLICATE => Self::Duplicate { id: r.u32()? },
            kinds::STOPPING => Self::Stopping,
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
            Self::Ack(ids) => item(w, kinds::ACK, &[ids.0]),
            Self::Registered { fresh, observed, summary } => {
                let mut body = Writer::with_capacity(32);
                body.u8(fresh.into()).socket_addr(observed);
                item(w, kinds::REGISTERED, &[body.as_slice(), &summary.encode()]);
            }
            Self::Refreshed { token, observed, summary } => {
                let mut body = Writer::with_capacity(39);
                body.u64(token).socket_addr(observed);
                item(w, kinds::REFRESHED, &[body.as_slice(), &summary.encode()]);
            }
            Self::Peer(news) => item(w, kinds::PEER, &[&news.encode()]),
            Self::Refused { reason, id } => item(w, kinds::REFUSED, &[&[reason.wire()], &id.to_be_bytes()]),
            Self::AreYouThere { token } => item(w, kinds::ARE_YOU_THERE, &[&token.to_be_bytes()]),
            Self::Duplicate { id } => item(w, kinds::DUPLICATE, &[&id.to_be_bytes()]),
            Self::Stopping => item(w, kinds::STOPPING, &[]),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;
    use crate::wire::rendezvous::items::Listing;

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
}
