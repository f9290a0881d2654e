//! The words that [`super::Node`] and its caller exchange, beside those that all machines share ([`crate::sans`]).

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::{Changeable, Train, status};
use crate::id::{PeerId, SocketId};

/// What became of a packet from the TUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Send these bytes of the buffer.
    Send {
        /// From this socket.
        socket: SocketId,
        /// To this address.
        to: SocketAddr,
        /// Which bytes.
        range: Range<usize>,
    },
    /// It waits, or went to many: see [`super::Node::poll_transmit`].
    Taken,
    /// It was dropped and counted.
    Dropped,
}

impl Outbound {
    /// As a train of one, if it is to be sent.
    pub(crate) fn train(self) -> Option<Train> {
        match self {
            Self::Send { socket, to, range } => Some(Train { socket, to, size: range.len(), range }),
            Self::Taken | Self::Dropped => None,
        }
    }
}

impl From<Train> for Outbound {
    /// A train of one.
    fn from(train: Train) -> Self {
        Self::Send { socket: train.socket, to: train.to, range: train.range }
    }
}

/// What the user wants of a running node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Say goodbye to everybody. Drain, send, and drop the node.
    Leave,
    /// Ping a peer over the overlay; answered by [`Event::Pong`] with this id, or never.
    Ping {
        /// Whom.
        peer: PeerId,
        /// To tell the answers apart.
        id: u64,
    },
    /// Free the address and name of a peer that is gone.
    Forget(PeerId),
    /// Run on as this says.
    Reconfigure(Changeable),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer answered a ping.
    Pong {
        /// The ping's id.
        id: u64,
        /// Round trip.
        rtt: Duration,
        /// The way the answer came.
        path: status::Path,
    },
}
