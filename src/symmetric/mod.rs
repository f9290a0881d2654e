//! L3: the way through symmetric NATs: a search over ports.
//!
//! Behind a symmetric NAT each destination sees another port, so the one at which a peer would be let in cannot be
//! announced. Where the peer lets in only whom it has written to as well, ordinary punching leads nowhere. What is left:
//!
//! | ours | the peer's | what is done |
//! |---|---|---|
//! | another for each | the same for all | we open many ports to the peer ([`Hunt`]), the peer looks for one of them ([`Look`]) |
//! | the same for all | another for each | the other way round |
//! | counted or in a block | counted or in a block | both send from many ports to many: where two meet is a way |
//! | any port | counted, or any port | nothing: it would take some ten thousand probes |
//!
//! ```text
//!   alice, symmetric                    relay                        bob
//!   STUN from 8 new sockets: which ports does my NAT give?
//!   ports: any ─────────────────────────────────────────▶ asks himself the same
//!              ◀───────────────────────────────────────── ports: the same for all
//!   primes (TTL 2) from 256 sockets to bob ──×
//!   look for me ─────────────────────────────────────────▶
//!              ◀── probes to 1,000 of alice's 64,512 ports: one of them meets one of the 256 in 98 of 100 cases
//!   echo, and a probe of her own from that socket ───────▶ a path as any other
//!   looked ◀────────────────────────────────────────────── or none: full probes to bob, from all
//! ```
//!
//! The last step is for who sits behind two NATs: there a TTL of 2 does not reach the outer one, and its ports are
//! opened only now; those that bob has probed let him in.
//!
//! How many ports are opened and looked for depends on how they are given: next to each other 8 will do, in a block of
//! 4,096 ports 64. What both sides may send is [`Budget`](crate::punch::Budget)'s to say; that it goes only to addresses
//! that a rendezvous observed, and once per introduction, is the node's.

mod aim;
mod hunt;
mod look;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use hunt::{Hunt, MOST_OPEN, Outcome, Want};
pub use look::Look;

use crate::id::SocketId;
use crate::nat::NextPorts;

/// A probe to send: nobody waits for its echo, for whoever it reaches asks back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shot {
    /// From this socket.
    pub socket: SocketId,
    /// There.
    pub to: SocketAddr,
    /// Whether it is only to open our NAT, and not to arrive.
    pub primes: bool,
}

/// What is to be told to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// How our NAT gives ports; the other is to say so of its own.
    Ports(NextPorts),
    /// So many ports are open there.
    LookForMe(NextPorts, u16),
}
