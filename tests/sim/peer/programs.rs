//! What is behind a peer's tunnel: programs that send and receive, and a kernel that answers pings.

use std::net::IpAddr;
use std::time::Duration;

use punchlan::node::{HEADROOM, Outbound, TAILROOM};
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

    /// A packet came out of the tunnel.
    pub(super) fn read_tunnel(&mut self, now: Instant, bytes: &[u8]) {
        let (source, destination, inner) = packet::read(bytes);
        let me = self.node().me();
        let shared = matches!(destination, IpAddr::V4(a) if a.is_broadcast() || a.octets()[3] == 255);
        assert!(shared || me.iter().any(|a| a == destination), "{destination} is not an address of this tunnel");
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
