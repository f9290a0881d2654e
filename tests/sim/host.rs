//! A host: its addresses and sockets, and how datagrams leave it and arrive at it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use punchlan::id::SocketId;
use punchlan::sans::{Datagram, Instant, Transmit, Wakeup};
use punchlan::wire::{self, Class, beacon};

use super::journey::Stage;
use super::machine::Machine;
use super::topology::Flight;
use super::world::{HostId, LAN_DELAY, TTL, World};

/// Datagrams that a stopped process finds in its socket when it goes on.
const SOCKET_BUFFER: usize = 256;

pub(super) struct Host {
    pub(super) name: String,
    pub(super) gateway: usize,
    pub(super) addresses: Vec<IpAddr>,
    /// What its sockets are bound to; none: no process listens.
    pub(super) sockets: BTreeMap<SocketId, SocketAddr>,
    pub(super) machine: Box<dyn Machine>,
    /// When it is woken. It changes only with the machine, and to ask all of them at every step would take longer than all else.
    pub(super) timer: Option<Wakeup>,
    /// How often it may have changed.
    pub(super) changes: u64,
    /// A stopped process: what waits in its socket.
    pub(super) stopped: Option<Vec<(SocketId, Flight)>>,
    pub(super) woken: (Instant, u32),
}

impl Host {
    /// What a socket is bound to.
    fn bound(&self, socket: SocketId) -> Option<SocketAddr> {
        let own = self.sockets.get(&socket).copied();
        own.or_else(|| self.opened().find(|(id, _)| *id == socket).map(|(_, bound)| bound))
    }

    /// The socket that takes what is for this address.
    pub(super) fn socket_at(&self, to: SocketAddr) -> Option<SocketId> {
        let takes = |bound: SocketAddr| {
            let everything = bound.ip().is_unspecified() && bound.is_ipv4() == to.is_ipv4();
            bound.port() == to.port() && (everything || bound.ip() == to.ip())
        };
        let sockets = self.sockets.iter().map(|(id, bound)| (*id, *bound));
        let socket = sockets.chain(self.opened()).find(|(_, bound)| takes(*bound)).map(|(id, _)| id);
        socket.filter(|_| self.addresses.contains(&to.ip()))
    }

    /// What its machine has opened itself.
    fn opened(&self) -> impl Iterator<Item = (SocketId, SocketAddr)> {
        self.machine.opened().iter().map(|(id, port)| (*id, SocketAddr::from(([0; 4], *port))))
    }
}

impl World {
    pub(super) fn send(&mut self, index: usize, transmit: Transmit) {
        let host = &self.hosts[index];
        let Some(bound) = host.bound(transmit.socket) else { return };
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == transmit.to.is_ipv4();
        let own = Some(bound.ip()).filter(|ip| !ip.is_unspecified());
        let wanted = transmit.src.or(own).filter(|src| host.addresses.contains(src));
        let Some(ip) = wanted.or_else(|| host.addresses.iter().find(same_family).copied()) else { return };
        assert_eq!(bound.is_ipv4(), transmit.to.is_ipv4(), "{} uses the wrong socket", host.name);
        let source = SocketAddr::new(ip, bound.port());
        let flight = Flight {
            host: index,
            sent: self.now,
            written: (source, transmit.to),
            ttl_written: transmit.ttl,
            ttl: transmit.ttl.unwrap_or(TTL),
            source,
            destination: transmit.to,
            payload: transmit.payload,
        };
        // A neighbour is reached without the gateway.
        let gateway = host.gateway;
        let stage = match self.host_in(gateway, transmit.to.ip()) {
            Some(neighbour) if self.gateways[gateway].isolates && neighbour != index => {
                return self.lose(&flight, "neighbours are kept apart");
            }
            Some(neighbour) => Stage::Arriving(neighbour),
            None => Stage::Leaving(gateway),
        };
        self.enqueue(self.now + LAN_DELAY, stage, flight);
    }

    /// Everybody else in the house hears it.
    pub(super) fn say(&mut self, index: usize, payload: Vec<u8>) {
        let gateway = self.hosts[index].gateway;
        if self.gateways[gateway].isolates {
            return;
        }
        let neighbours = self.hosts.iter().enumerate().filter(|(n, host)| *n != index && host.gateway == gateway);
        for neighbour in neighbours.map(|(n, _)| n).collect::<Vec<_>>() {
            let all = SocketAddr::from((beacon::GROUP_V4, beacon::PORT));
            let from = SocketAddr::new(self.hosts[index].addresses[0], beacon::PORT);
            let flight = Flight {
                host: index,
                sent: self.now,
                written: (from, all),
                ttl_written: Some(1),
                ttl: 1,
                source: from,
                destination: all,
                payload: payload.clone(),
            };
            self.enqueue(self.now + LAN_DELAY, Stage::Said(neighbour), flight);
        }
    }

    pub(super) fn hear(&mut self, host: usize, flight: &Flight) {
        self.record(flight, Some(host), None);
        if self.hosts[host].stopped.is_none() {
            self.hosts[host].machine.handle_said(self.now, flight.source.ip(), &flight.payload);
            self.drain(host);
        }
    }

    pub(super) fn arrive(&mut self, host: usize, flight: Flight) {
        let there = &mut self.hosts[host];
        let Some(socket) = there.socket_at(flight.destination) else {
            return self.lose(&flight, "nobody listens there");
        };
        match &mut there.stopped {
            Some(waiting) if waiting.len() < SOCKET_BUFFER => waiting.push((socket, flight)),
            Some(_) => self.lose(&flight, "the socket of a stopped process is full"),
            None => self.deliver(host, socket, flight),
        }
    }

    pub(super) fn deliver(&mut self, host: usize, socket: SocketId, mut flight: Flight) {
        self.record(&flight, Some(host), None);
        if wire::classify(&flight.payload) == Class::Data {
            *self.straight.entry((HostId(flight.host), HostId(host))).or_default() += 1;
        }
        if let Some(tap) = &mut self.tap {
            tap.push((HostId(host), flight.payload.clone()));
        }
        let local = Some(flight.destination.ip());
        let datagram = Datagram { socket, local, from: flight.source, payload: &mut flight.payload };
        self.hosts[host].machine.handle_datagram(self.now, datagram);
        self.drain(host);
    }
}
