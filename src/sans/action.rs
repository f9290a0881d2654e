//! Effects as plain values: what a machine asks of its shell, and what became of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::id::{ServerId, SocketId};
use crate::nat::Traits;

/// An effect that is not a datagram. The shell performs it and answers with the [`Done`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look up a rendezvous' host name.
    Resolve {
        /// Which rendezvous.
        server: ServerId,
        /// Host name, or an address as text.
        host: String,
        /// UDP port.
        port: u16,
    },
    /// List the addresses of this machine's interfaces.
    ListInterfaces,
    /// Durably store that numbers below `ceiling` may have been used.
    Reserve {
        /// First number that is not reserved.
        ceiling: u64,
    },
    /// Store this snapshot of bindings and known peers.
    SaveCache(Vec<u8>),
    /// The overlay IPv4 address of this machine changed: put it on the interface in place of the old one.
    SetOverlayV4(Option<std::net::Ipv4Addr>),
    /// Ask the router for a mapping of a port of this machine, or to renew the one it gave. Takes the place of a question
    /// for that transport which still waits for its answer.
    MapPort {
        /// By what the port is reached.
        transport: Transport,
        /// To tell the answers apart.
        attempt: u64,
        /// The port.
        port: u16,
    },
    /// Give back what [`Action::MapPort`] got. Not answered: there is nobody to act on it.
    UnmapPort(Transport),
    /// Find out what the NAT does by asking these rendezvous, on sockets opened for that. Takes the place of a look that
    /// is not done.
    CheckNat {
        /// To tell the answers apart.
        attempt: u64,
        /// Where they are.
        servers: Vec<SocketAddr>,
    },
    /// Open more IPv4 sockets, each on a port of its own, all with ids that no other open socket has: each can carry
    /// everything that the first one carries.
    OpenSockets {
        /// To tell the answers apart.
        attempt: u64,
        /// How many; fewer will do where the system has no more.
        count: usize,
    },
    /// Close these of them. Not answered.
    CloseSockets(Vec<SocketId>),
    /// Connect to a rendezvous by a stream, which is a socket from then on: each datagram from it or to it is one.
    Connect {
        /// Which rendezvous.
        server: ServerId,
        /// To tell the answers apart.
        attempt: u64,
        /// Where it is.
        to: SocketAddr,
        /// What carries the stream.
        carrier: Carrier,
    },
    /// End this one. Not answered; what was sent before still goes, if it can at once.
    Disconnect(SocketId),
    /// Listen for streams of peers, on one port for both families, if it is not done; each that comes is told of by
    /// [`Done::Accepted`].
    Listen,
    /// Connect by a stream from the port that is listened on: to a peer, or to a rendezvous, to be told how that sees the
    /// port.
    Dial {
        /// To tell the answers apart.
        attempt: u64,
        /// Where to.
        to: SocketAddr,
        /// What carries the stream.
        carrier: Carrier,
        /// Hop limit, where it is to open our NAT first: until [`Action::LetGo`] it goes no further.
        ttl: Option<u8>,
    },
    /// Let this attempt of [`Action::Dial`] go all the way. Not answered.
    LetGo {
        /// Its number.
        attempt: u64,
    },
    /// Give it up, if it was not let go. Not answered.
    GiveUp {
        /// Its number.
        attempt: u64,
    },
    /// Listen no longer. Not answered; streams stay.
    StopListening,
    /// Say this to everybody on the LANs of this machine, overlays excepted; what others say so is handed to
    /// [`crate::node::Node::handle_beacon`]. Not answered.
    SayOnLan(Vec<u8>),
    /// Listen there no longer, until something is said there again. Not answered.
    LeaveLan,
}

/// What carries a stream of datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// TCP alone.
    Tcp,
    /// A WebSocket by TLS, each datagram a binary message: what a web server's reverse proxy passes on.
    WebSocket {
        /// Whom the certificate must name.
        host: String,
        /// The path that is asked for, from its `/` on.
        path: String,
    },
}

impl Carrier {
    /// A word of `status`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::WebSocket { .. } => "tls",
        }
    }
}

/// By what a port is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// A protocol by which routers map ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingProtocol {
    /// The Port Control Protocol, RFC 6887.
    Pcp,
    /// The NAT Port Mapping Protocol, RFC 6886.
    NatPmp,
    /// UPnP Internet Gateway Device, service `WANIPConnection`.
    Upnp,
}

impl fmt::Display for MappingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// A port mapping, in the words of the router that gave it: nothing of it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// How it was asked for.
    pub protocol: MappingProtocol,
    /// The router.
    pub gateway: IpAddr,
    /// Where it says that what is for the port arrives.
    pub external: SocketAddr,
    /// For how long from now; `None`: until it is given back.
    pub lifetime: Option<Duration>,
    /// Seconds for which the router has kept its mappings (RFC 6886 §3.6, RFC 6887 §8.5); UPnP knows none.
    pub epoch: Option<u32>,
}

/// What became of an [`Action`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Answer to [`Action::Resolve`]: the addresses in order of preference, or why there are none.
    Resolved {
        /// Which rendezvous.
        server: ServerId,
        /// Addresses, or a sentence for `status`.
        result: Result<Vec<SocketAddr>, String>,
    },
    /// Answer to [`Action::ListInterfaces`]: addresses of all interfaces but loopback and overlays.
    Interfaces(Vec<ipnet::IpNet>),
    /// Beside it: the prefixes of all overlays of this machine, other networks' included.
    Overlays(Vec<ipnet::IpNet>),
    /// Answer to [`Action::Reserve`]: everything below is durably reserved.
    Reserved {
        /// First number that is not reserved.
        ceiling: u64,
    },
    /// Answer to [`Action::MapPort`].
    PortMapped {
        /// Its transport.
        transport: Transport,
        /// Its number.
        attempt: u64,
        /// What the router gave, or a sentence for `status`.
        result: Result<PortMapping, String>,
    },
    /// Answer to [`Action::CheckNat`].
    NatChecked {
        /// Its number.
        attempt: u64,
        /// What was found.
        found: Traits,
    },
    /// Answer to [`Action::OpenSockets`].
    SocketsOpened {
        /// Its number.
        attempt: u64,
        /// Each with the port it is bound to, in the order in which they were opened.
        sockets: Vec<(SocketId, u16)>,
    },
    /// Answer to [`Action::Connect`].
    Connected {
        /// Which rendezvous.
        server: ServerId,
        /// Its number.
        attempt: u64,
        /// The stream, or a sentence for people.
        result: Result<SocketId, String>,
    },
    /// Unasked, once for each stream that was not ended by us: it ended.
    Disconnected(SocketId),
    /// Answer to [`Action::Listen`]: the port, or why there is none.
    Listening(Result<u16, String>),
    /// Answer to [`Action::Dial`].
    Dialled {
        /// Its number.
        attempt: u64,
        /// The stream, or a sentence for people.
        result: Result<SocketId, String>,
    },
    /// Unasked, while it is listened: somebody has connected.
    Accepted {
        /// The stream.
        socket: SocketId,
        /// Who.
        from: SocketAddr,
    },
    /// Unasked: the router announced something, or the way to it may be another. What it gave may be gone.
    RouterChanged,
}
