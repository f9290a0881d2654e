//! How datagrams go to a peer, and how they come from it.

use std::net::SocketAddr;

use crate::crypto::relay::RelayKey;
use crate::id::SocketId;
use crate::punch::Via;
use crate::sans::Datagram;
use crate::wire::relay::{HEADER, Header};

/// A way, and all that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// As the path-finder calls it.
    pub via: Via,
    /// Our socket.
    pub socket: SocketId,
    /// The peer's address, or the rendezvous'.
    pub remote: SocketAddr,
    /// Through a rendezvous.
    pub relay: Option<RelayChannel>,
}

/// A relay channel, in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayChannel {
    /// Its number at our end.
    pub number: u32,
    /// What tags the frames; what comes in may be tagged by any of them.
    pub keys: Vec<RelayKey>,
}

impl Leg {
    /// Bytes before a datagram that goes this way.
    pub(super) const fn lead(&self) -> usize {
        if self.relay.is_some() { HEADER } else { 0 }
    }

    /// Makes a datagram behind [`Leg::lead`] free bytes ready to go this way.
    pub(super) fn frame(&self, datagram: &mut [u8]) {
        let Some(RelayChannel { number, keys }) = &self.relay else { return };
        if let (Some(key), Some((head, payload))) = (keys.first(), datagram.split_first_chunk_mut::<HEADER>()) {
            *head = Header { channel: *number, tag: key.tag(*number, payload) }.encode();
        }
    }

    /// Where in a datagram that came this way the peer's begins; `None`: it did not.
    pub(super) fn unframe(&self, datagram: &Datagram<'_>) -> Option<usize> {
        if datagram.from != self.remote {
            return None;
        }
        let Some(RelayChannel { number, keys }) = &self.relay else {
            return (datagram.socket == self.socket && !is_frame(datagram.payload)).then_some(0);
        };
        let (header, payload) = Header::parse(datagram.payload).ok()?;
        let genuine = header.channel == *number && keys.iter().any(|key| key.check(*number, payload, header.tag));
        genuine.then_some(HEADER)
    }
}

/// Whether it looks like a relay frame.
pub(super) fn is_frame(datagram: &[u8]) -> bool {
    datagram.first() == Some(&crate::wire::kind::RELAY)
}
