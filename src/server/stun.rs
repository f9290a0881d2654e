//! STUN for anybody, and what RFC 5780 adds where the rendezvous listens on two ports or two addresses.
//!
//! Sockets on one address with different ports are each other's *other port*; sockets on two addresses of one family,
//! with the same port, each other's *other address*. Who asks that the answer come from there gets it from there, at
//! the address that asked and nowhere else, as often as any answer; where there is no such socket the wish is refused
//! as one that is not understood.
//!
//! RESPONSE-PORT has the answer go to another port of the asker, which a forged question could make anybody's. So it is
//! served only with a *proof*: a cookie over that address, which whoever is there was sent with an earlier answer, from
//! the very address and port that is asked now. With it `punchlan netcheck` learns how long a silent socket can still
//! be reached, and the proof holds for at least as long as that takes. No
//! answer that goes elsewhere carries a proof.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::Config;
use crate::crypto::CookieJar;
use crate::id::SocketId;
use crate::rendezvous::server::{RateTable, Route};
use crate::sans::{Instant, RateLimit, Rng, Transmit};
use crate::wire::Writer;
use crate::wire::stun::{Answer, BindingRequest, Change, attribute};

/// A proof is good for so long at least, and at most twice as long: `punchlan netcheck --lifetime` needs 305 s.
const PROOF_LIFETIME: Duration = Duration::from_secs(330);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// The question is not understood, or the answer would be longer than it.
    Odd,
    /// Too many ask.
    Rate,
}

/// See the module's documentation.
pub(super) struct Stun {
    /// What the sockets are bound to, by their ids.
    sockets: Vec<SocketAddr>,
    proofs: CookieJar,
    limit: RateLimit,
    limit_of: RateTable,
}

impl Stun {
    pub(super) fn new(config: &Config, rng: &mut Rng) -> Self {
        Self {
            sockets: Vec::new(),
            limit_of: RateTable::new(config.stun_per_prefix, rng),
            limit: config.stun.limit(),
            proofs: CookieJar::with_lifetime(rng, PROOF_LIFETIME),
        }
    }

    pub(super) fn set_sockets(&mut self, sockets: &[SocketAddr]) {
        self.sockets = sockets.to_vec();
    }

    /// The answer to a question that came this way from somebody of the prefix.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        route: Route,
        prefix: &IpNet,
        question: &[u8],
    ) -> Result<Transmit, Silence> {
        let request = BindingRequest::parse(question).map_err(|_| Silence::Odd)?;
        if !self.limit_of.allow(now, prefix) || !self.limit.allow(now) {
            return Err(Silence::Rate);
        }
        let (from, to, payload) = match self.understand(now, route, &request) {
            Ok((from, to)) => (from, to, self.success(now, route, (from, to), &request, question.len())),
            Err(kind) => (route, route.remote, request.refuse(kind)),
        };
        // Only the stock request may be answered with more bytes than it has; others are padded or go without.
        if payload.len() > question.len() && !BindingRequest::is_stock(question) {
            return Err(Silence::Odd);
        }
        Ok(Transmit { socket: from.socket, src: from.local, to, ttl: None, tos: 0, payload })
    }

    /// From where and to where the answer goes, or the attribute that cannot be served.
    fn understand(&self, now: Instant, route: Route, request: &BindingRequest) -> Result<(Route, SocketAddr), u16> {
        if let Some(kind) = request.not_understood {
            return Err(kind);
        }
        let from = self.elsewhere(route, request.change).ok_or(attribute::CHANGE_REQUEST)?;
        let to = SocketAddr::new(route.remote.ip(), request.response_port.unwrap_or(route.remote.port()));
        let proven = || request.proof.is_some_and(|proof| self.proofs.check(now, &proven_bytes(route, to), &proof));
        let as_asked = request.response_port.is_none() || request.change == Change::NONE && proven();
        if as_asked { Ok((from, to)) } else { Err(attribute::RESPONSE_PORT) }
    }

    fn success(
        &self,
        now: Instant,
        route: Route,
        (from, to): (Route, SocketAddr),
        request: &BindingRequest,
        room: usize,
    ) -> Vec<u8> {
        let port = |route: Route| self.sockets.get(usize::from(route.socket.0)).map(SocketAddr::port);
        let address = |route: Route| Some(SocketAddr::new(route.local?, port(route)?));
        let other = self.elsewhere(route, Change::BOTH).and_then(address);
        // Whoever is there gets none that is somebody else's.
        let proof = request.proof.filter(|_| to == route.remote);
        let proof = proof.map(|_| self.proofs.cookie(now, &proven_bytes(route, route.remote)));
        Answer {
            origin: address(from),
            other,
            other_port: self.elsewhere(route, Change::PORT).and_then(port),
            proof,
            ..Answer::new(request.transaction, route.remote)
        }
        .encode(room)
    }

    /// The way back that is as wished, if there is one.
    fn elsewhere(&self, route: Route, change: Change) -> Option<Route> {
        if change == Change::NONE {
            return Some(route);
        }
        let own = *self.sockets.get(usize::from(route.socket.0))?;
        let there = match change {
            Change { address: true, port: false } => self.other_addresses(own).next(),
            Change { address: false, .. } => self.other_ports(own).next(),
            // Not every other address has every other port.
            Change { address: true, port: true } => self
                .other_addresses(own)
                .flat_map(|other| self.other_ports(own).map(move |port| SocketAddr::new(other.ip(), port.port())))
                .find(|there| self.sockets.contains(there)),
        }?;
        let socket = self.sockets.iter().position(|socket| *socket == there)?;
        let local = if change.address { Some(there.ip()) } else { route.local.or(specified(there.ip())) };
        Some(Route { socket: SocketId(u16::try_from(socket).ok()?), local, remote: route.remote })
    }

    fn other_ports(&self, own: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().copied().filter(move |other| other.ip() == own.ip() && other.port() != own.port())
    }

    fn other_addresses(&self, own: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().copied().filter(move |other| is_other_address(own, *other))
    }
}

/// What a proof is over: who was there, and whom it asked.
fn proven_bytes(route: Route, there: SocketAddr) -> Vec<u8> {
    let local = route.local.map(|ip| SocketAddr::new(ip, 1));
    Writer::with_capacity(38).socket_addr(Some(there)).socket_addr(local).u16(route.socket.0).finish()
}

fn is_other_address(own: SocketAddr, other: SocketAddr) -> bool {
    let both_named = !own.ip().is_unspecified() && !other.ip().is_unspecified();
    both_named && own.is_ipv4() == other.is_ipv4() && own.ip() != other.ip() && own.port() == other.port()
}

fn specified(ip: IpAddr) -> Option<IpAddr> {
    Some(ip).filter(|ip| !ip.is_unspecified())
}
