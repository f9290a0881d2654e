//! What a peer says to the rendezvous.

use super::{Bodies, Ids, item};
use crate::id::PeerId;
use crate::wire::{Malformed, Reader, Writer};

mod kinds {
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
    /// `token u64`: still here. Answered by [`ToPeer::Refreshed`](super::ToPeer::Refreshed).
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
    /// `token u64`: answer to [`ToPeer::AreYouThere`](super::ToPeer::AreYouThere).
    Alive {
        /// The question's.
        token: u64,
    },
}

impl<'a> ToServer<'a> {
    /// Reads one item; `Ok(None)` if its kind is unknown.
    fn parse(kind: u8, body: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut r = Reader::new(body);
        Ok(Some(match kind {
            kinds::ACK => Self::Ack(Ids(body)),
            kinds::ANNOUNCE => Self::Announce { id: r.u32()?, sealed: r.rest() },
            kinds::REFRESH => Self::Refresh { token: r.u64()? },
            kinds::INTRODUCE => Self::Introduce { id: r.u32()?, peer: PeerId(r.array()?) },
            kinds::CHANNEL => Self::Channel { id: r.u32()?, peer: PeerId(r.array()?), channel: r.u24()? },
            kinds::LIST => Self::List,
            kinds::LEAVE => Self::Leave { id: r.u32()? },
            kinds::ALIVE => Self::Alive { token: r.u64()? },
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
            Self::Announce { id, sealed } => item(w, kinds::ANNOUNCE, &[&id.to_be_bytes(), sealed]),
            Self::Refresh { token } => item(w, kinds::REFRESH, &[&token.to_be_bytes()]),
            Self::Introduce { id, peer } => item(w, kinds::INTRODUCE, &[&id.to_be_bytes(), &peer.0]),
            Self::Channel { id, peer, channel } => {
                item(w, kinds::CHANNEL, &[&id.to_be_bytes(), &peer.0, &channel.to_be_bytes()[1..]]);
            }
            Self::List => item(w, kinds::LIST, &[]),
            Self::Leave { id } => item(w, kinds::LEAVE, &[&id.to_be_bytes()]),
            Self::Alive { token } => item(w, kinds::ALIVE, &[&token.to_be_bytes()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
