//! What is behind a peer's tunnel: programs that send and receive, and a kernel that answers pings.

use std::net::IpAddr;
use std::time::Duration;

use punchlan::node::{HEADROOM, Interface, Join, Joins, Outbound, RealLan, TAILROOM};
use punchlan::sans::{Instant, Transmit};

use super::Peer;
use crate::sim::packet::{self, Inner, Kind};
use crate::sim::world::HostId;

/// Inner packets waiting in flows are sent with this payload.
const PAYLOAD: usize = 64;

/// A flow of inner packets.
pub(super) struct Flow {
    to: HostId,
    address: IpAddr,
    kind: Kind,
    every: Duration,
    pub(super) next: Instant,
}

impl Peer {
    /// A program here sends to `address`, which must be `to`'s.
    pub fn send(&mut self, now: Instant, kind: Kind, to: HostId, address: IpAddr, size: usize) {
        let payload = self.ledger.borrow_mut().send(now, self.host, to, size);
        let me = self.node().me();
        let source = match address {
            IpAddr::V4(_) => me.v4.map(IpAddr::V4),
            IpAddr::V6(_) => Some(IpAddr::V6(me.ula)),
        };
        if let Some(source) = source {
            self.write_tunnel(now, &packet::write(kind, source, address, &payload));
        }
    }

    /// A program here sends every so often.
    pub fn flow(&mut self, now: Instant, kind: Kind, to: HostId, address: IpAddr, every: Duration) {
        self.flows.push(Flow { to, address, kind, every, next: now });
    }

    /// All programs here stop sending.
    pub fn hush(&mut self) {
        self.flows.clear();
    }

    /// The kernel routes any packet into the tunnel.
    pub fn write_tunnel(&mut self, now: Instant, packet: &[u8]) {
        let mut buf = vec![0; HEADROOM];
        buf.extend_from_slice(packet);
        buf.resize(buf.len() + TAILROOM, 0);
        match self.node.as_mut().expect("the peer runs").handle_packet(now, &mut buf) {
            Outbound::Send { socket, to, range } => {
                let payload = buf[range].to_vec();
                self.out.push_back(Transmit { socket, src: None, to, ttl: None, tos: 0, payload });
            }
            Outbound::Taken => {}
            Outbound::Dropped => self.refused += 1,
        }
        self.settle(now);
    }

    /// Programs here join these groups, and leave all others.
    pub fn join(&mut self, now: Instant, groups: &[IpAddr]) {
        let join = |group: &IpAddr| Join { group: *group, interface: Interface::Other(2), users: 1 };
        let joins = Joins::new(groups.iter().map(join));
        self.node.as_mut().expect("the peer runs").set_groups(now, joins);
        self.settle(now);
    }

    /// A program here says something to many, on the overlay.
    pub fn say(&mut self, now: Instant, to: IpAddr, payload: &[u8]) {
        let me = self.node().me();
        let source = if to.is_ipv4() { me.v4.expect("an address").into() } else { me.ula.into() };
        self.write_tunnel(now, &packet::write(Kind::Udp, source, to, payload));
    }

    /// A packet for many came out of the tunnel.
    pub(super) fn read_shared(&mut self, now: Instant, bytes: &[u8]) {
        self.shared.push(bytes.to_vec());
        if let (true, (_, destination, Inner::Udp(payload))) = (self.reflects, packet::read(bytes)) {
            let lan: Vec<IpAddr> = self.interfaces.iter().map(ipnet::IpNet::addr).filter(IpAddr::is_ipv4).collect();
            let mut again = packet::write(Kind::Udp, lan[0], destination, &payload);
            let real = RealLan { interface: 2, broadcasts: &[], hosts: &lan };
            self.node.as_mut().expect("the peer runs").handle_overheard(now, &real, &mut again);
        }
    }

    /// A packet came out of the tunnel.
    pub(super) fn read_tunnel(&mut self, now: Instant, bytes: &[u8]) {
        let (source, destination, inner) = packet::read(bytes);
        let me = self.node().me();
        assert!(me.iter().any(|a| a == destination), "{destination} is not an address of this tunnel");
        match inner {
            Inner::Udp(payload) => self.ledger.borrow_mut().arrived(now, self.host, &payload),
            Inner::EchoReply(payload) => self.ledger.borrow_mut().answered(now, self.host, &payload),
            Inner::EchoRequest(payload) => {
                self.ledger.borrow_mut().arrived(now, self.host, &payload);
                self.write_tunnel(now, &packet::write(Kind::EchoReply, destination, source, &payload));
            }
        }
    }

    /// Sends what its flows have due.
    pub(super) fn pump(&mut self, now: Instant) {
        for i in 0..self.flows.len() {
            if self.flows[i].next <= now {
                let Flow { to, address, kind, every, .. } = self.flows[i];
                let next = self.flows[i].next + every;
                self.flows[i].next = if next > now { next } else { now + every };
                self.send(now, kind, to, address, PAYLOAD);
            }
        }
    }
}
