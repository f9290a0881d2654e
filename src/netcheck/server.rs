//! A server that answered, and what it is good for.

use std::net::{IpAddr, SocketAddr};

use crate::addr::{canonical, is_private, is_usable_candidate};
use crate::wire::stun::Answer;

/// The server that is asked most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    /// See [`sees_the_world`]; the others tell nothing of the NAT.
    pub(super) sees_the_world: bool,
    /// Its other port, at the same address.
    pub(super) other_port: Option<SocketAddr>,
    /// Its other address and port.
    pub(super) other: Option<SocketAddr>,
    /// It proves who was where.
    pub(super) proves: bool,
}

impl Server {
    pub(super) fn new(addr: SocketAddr, answer: &Answer) -> Self {
        // A server may name anybody as its other address: only who could be one is asked.
        let believable = |there: &SocketAddr| {
            let local = there.ip().is_loopback() && addr.ip().is_loopback();
            let as_near = !is_private(there.ip()) || is_private(addr.ip());
            local || as_near && is_usable_candidate(*there, &[])
        };
        let other = answer.other.map(canonical).filter(|other| other.is_ipv4() && other.ip() != addr.ip());
        let other = other.filter(|other| other.port() != addr.port()).filter(believable);
        let port = other.map(|other| other.port()).or(answer.other_port).filter(|port| *port != addr.port());
        let other_port = port.map(|port| SocketAddr::new(addr.ip(), port));
        let sees_the_world = sees_the_world(answer.mapped.ip());
        Self { addr, sees_the_world, other_port, other, proves: answer.proof.is_some() }
    }
}

/// Whether a server that sees us there is on the other side of all routers.
pub(super) fn sees_the_world(mapped: IpAddr) -> bool {
    !is_private(mapped) && !mapped.is_loopback()
}
