//! The words that [`super::Punch`] and its caller exchange.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PathStats;
use crate::id::{PeerId, ServerId, SocketId};
use crate::wire::announcement::CandidateKind;
use crate::wire::probe::ProbeKind;

/// A way to a peer. Two ways are the same only when socket and address are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Via {
    /// Straight from one of our sockets to an address of the peer.
    Direct {
        /// Our socket.
        socket: SocketId,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// Inside a channel of a rendezvous.
    Relay {
        /// The rendezvous.
        server: ServerId,
    },
    /// Inside a channel of another member, which has a direct way to both.
    Member {
        /// That member.
        carrier: PeerId,
    },
}

impl From<ServerId> for Via {
    fn from(server: ServerId) -> Self {
        Self::Relay { server }
    }
}

impl Via {
    /// The peer's address; `None` through a relay.
    pub const fn remote(self) -> Option<SocketAddr> {
        match self {
            Self::Direct { remote, .. } => Some(remote),
            Self::Relay { .. } | Self::Member { .. } => None,
        }
    }

    /// Whether nobody is in between.
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::Direct { .. })
    }

    /// Our socket; `None` through a relay.
    pub const fn socket(self) -> Option<SocketId> {
        match self {
            Self::Direct { socket, .. } => Some(socket),
            Self::Relay { .. } | Self::Member { .. } => None,
        }
    }

    /// Whether it is a connection with the peer itself: nobody hears of it who did not agree to it, and no NAT is to be
    /// opened any more.
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Direct { socket, .. } if socket.is_stream())
    }

    /// Straight, by datagrams: what is primed and searched for.
    pub const fn is_by_datagrams(self) -> bool {
        self.is_direct() && !self.is_stream()
    }
}

/// How a path's remote end was found, or that it is relayed; in order of preference among equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// An address of the machine's own interface.
    Host,
    /// A port mapping on the router (PCP, NAT-PMP, UPnP-IGD).
    Mapped,
    /// As a rendezvous saw it.
    Reflexive,
    /// As a peer saw it.
    PeerReflexive,
    /// Guessed from how a NAT allocates ports.
    Predicted,
    /// Through a rendezvous, or another member.
    Relay,
}

impl From<CandidateKind> for PathKind {
    fn from(kind: CandidateKind) -> Self {
        match kind {
            CandidateKind::Host => Self::Host,
            CandidateKind::Mapped => Self::Mapped,
            CandidateKind::Reflexive => Self::Reflexive,
            CandidateKind::Predicted => Self::Predicted,
        }
    }
}

/// An address family; IPv6 first, because it needs no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv6.
    V6,
    /// IPv4.
    V4,
}

impl Family {
    /// The family of `ip`.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V6(_) => Self::V6,
            IpAddr::V4(_) => Self::V4,
        }
    }
}

/// Where a peer's data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The path.
    pub via: Via,
    /// How its remote end was found.
    pub kind: PathKind,
    /// Our address on it, if the system told.
    pub local: Option<IpAddr>,
    /// A relay that data goes through *as well*, because the direct path is not sure at the moment; the other
    /// side's replay window drops the doubles.
    pub also: Option<Via>,
}

/// A probe that came in: its MAC held and its counter was fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeIn {
    /// What it asks or says.
    pub kind: ProbeKind,
    /// The request's nonce.
    pub nonce: u64,
    /// Its length as a datagram, bytes.
    pub len: usize,
    /// Where its sender saw us.
    pub observed: Option<SocketAddr>,
}

/// A probe to send. The caller adds tag, counter and MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOut {
    /// The way it goes.
    pub via: Via,
    /// What it asks or says.
    pub kind: ProbeKind,
    /// Fresh, or in an echo the request's.
    pub nonce: u64,
    /// Length as a datagram, bytes; padded with zeros.
    pub len: usize,
    /// Hop limit of this datagram alone, when it is to open our NAT and not to arrive.
    pub ttl: Option<u8>,
    /// Where we see the peer, in an echo.
    pub observed: Option<SocketAddr>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Data goes another way from now on.
    Chosen {
        /// The path.
        via: Via,
        /// How its remote end was found.
        kind: PathKind,
    },
    /// The direct path died and no other is proven: data is relayed, if there is a relay, and the search has
    /// started again. Ask the rendezvous to introduce both sides anew.
    PathLost,
    /// The relay that data goes through does not answer, and data goes through another, if there is one; or the direct
    /// path does not, and data goes through relays too. Ask whoever relays whether it is still there, and knows us.
    RelayDoubtful {
        /// The way through it.
        relay: Via,
    },
    /// Both sides have probed each other's candidates, and nothing came.
    Stuck,
    /// The peer's probes come from an address that nobody announced, or to a socket for which it was not.
    PeerReflexive {
        /// The address.
        addr: SocketAddr,
    },
}

/// One path, for people and for tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathReport {
    /// The way.
    pub via: Via,
    /// How its remote end was found.
    pub kind: PathKind,
    /// Whether data may use it.
    pub usable: bool,
    /// Time since the last echo.
    pub proven: Option<Duration>,
    /// Small packets pass here, and full-size ones do not.
    pub narrow: bool,
    /// Requests sent on it.
    pub asked: u32,
    /// Time since the peer's last request came this way.
    pub heard: Option<Duration>,
    /// The last minute.
    pub stats: PathStats,
}
