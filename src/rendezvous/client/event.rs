//! What a client has to say.

use std::net::SocketAddr;

use crate::id::{PeerId, SocketId};
use crate::sans::Carrier;

/// What a client tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Look up the host name and call [`set_addresses`](super::Client::set_addresses) or [`unresolved`](super::Client::unresolved).
    ResolveAgain,
    /// The server sees this socket at this address. Comes before the registration, so that the first announcement
    /// can name it.
    Observed {
        /// Our socket.
        socket: SocketId,
        /// Its address outside.
        addr: SocketAddr,
    },
    /// The server sees no socket of ours any more: UDP does not pass.
    Unobserved,
    /// Connect to the server by a stream, and call [`connected`](super::Client::connected).
    Connect {
        /// To tell the answers apart.
        attempt: u64,
        /// Where it is.
        to: SocketAddr,
        /// What carries the stream.
        carrier: Carrier,
    },
    /// End this stream.
    Disconnect(SocketId),
    /// The registration stands.
    Registered,
    /// It does not stand any more; attempts go on.
    Lost,
    /// The server said no, with a sentence for people. Attempts go on with growing pauses.
    Refused(String),
    /// The same device runs somewhere else: its state folder was copied.
    Duplicate,
    /// A member is listed, or its announcement or address changed.
    Member {
        /// Who.
        peer: PeerId,
        /// Where the server sees it.
        observed: Option<SocketAddr>,
        /// Its sealed announcement.
        sealed: Vec<u8>,
    },
    /// A member is not listed any more.
    Left {
        /// Who.
        peer: PeerId,
    },
    /// Both sides are told now to search a path.
    Introduced {
        /// The other.
        peer: PeerId,
    },
    /// The relay channel is open on both ends.
    RelayOpen {
        /// The other.
        peer: PeerId,
    },
    /// It is not any more. It opens again by itself while it is wished for.
    RelayClosed {
        /// The other.
        peer: PeerId,
    },
}
