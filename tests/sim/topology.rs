//! What a datagram crosses: lines that are not perfect, and gateways.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use punchlan::sans::{Instant, Rng, Seed};

use crate::nat::{Nat, NatConfig};

/// One direction of the line between a gateway and the core.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Time to cross it.
    pub delay: Duration,
    /// Added at random, up to this: datagrams overtake each other.
    pub jitter: Duration,
    /// Share that is lost, per mille.
    pub loss: u32,
    /// Share that comes twice, per mille.
    pub doubled: u32,
    /// Nothing crosses it.
    pub dead: bool,
}

impl Line {
    /// A good line.
    pub const CLEAN: Self =
        Self { delay: Duration::from_millis(5), jitter: Duration::ZERO, loss: 0, doubled: 0, dead: false };

    /// From end to end 100 ms and 5 % loss: each datagram crosses two such lines.
    pub const FAR: Self = Self { delay: Duration::from_millis(50), loss: 25, ..Self::CLEAN };

    /// When copies of a datagram come out: none, one, or two.
    pub fn cross(&self, now: Instant, rng: &mut Rng) -> Vec<Instant> {
        let lost = self.dead || chance(rng, self.loss);
        let copies = if lost { 0 } else { 1 + usize::from(chance(rng, self.doubled)) };
        (0..copies).map(|_| now + self.delay + rng.between(Duration::ZERO, self.jitter)).collect()
    }
}

fn chance(rng: &mut Rng, per_mille: u32) -> bool {
    per_mille > 0 && rng.u32() % 1000 < per_mille
}

/// A house: its router and its two lines to the core.
pub struct Gateway {
    pub name: String,
    /// IPv4: a NAT; none: a plain router before public addresses.
    pub nat: Option<Nat>,
    /// IPv6: a firewall; none: a plain router.
    pub firewall: Option<Nat>,
    /// The same for streams.
    nat_tcp: Option<Nat>,
    firewall_tcp: Option<Nat>,
    pub up: Line,
    pub down: Line,
    /// Its hosts are kept apart, as guests of a Wi-Fi are: only what goes through the router passes between them.
    pub isolates: bool,
    /// No datagram gets out, streams do.
    pub udp_blocked: bool,
    /// What crosses each line, in bytes: up, down.
    pub carried: (u64, u64),
}

impl Gateway {
    /// A gateway of this kind, on clean lines.
    pub fn new(name: &str, nat: Option<(NatConfig, IpAddr)>, firewall: bool, rng: &mut Rng) -> Self {
        let nat = nat.map(|(config, external)| Nat::new(config, external, &rng.seed()));
        let inside = IpAddr::from([0; 16]);
        let guard = || firewall.then(|| Nat::new(NatConfig::stateful_firewall(), inside, &Seed::from_u64(0)));
        let nat_tcp = nat.as_ref().map(|nat| Nat::new(nat.config(), nat.external(), &Seed::from_u64(6)));
        let (firewall, firewall_tcp) = (guard(), guard());
        Self {
            name: name.to_owned(),
            nat,
            firewall,
            nat_tcp,
            firewall_tcp,
            up: Line::CLEAN,
            down: Line::CLEAN,
            isolates: false,
            udp_blocked: false,
            carried: (0, 0),
        }
    }

    /// What stands in the way of this family.
    pub fn translator(&mut self, ip: IpAddr) -> Option<&mut Nat> {
        if ip.is_ipv4() { self.nat.as_mut() } else { self.firewall.as_mut() }
    }

    /// The same for streams.
    pub fn translator_of_streams(&mut self, ip: IpAddr) -> Option<&mut Nat> {
        if ip.is_ipv4() { self.nat_tcp.as_mut() } else { self.firewall_tcp.as_mut() }
    }

    /// Whether the core sends datagrams for `ip` here because it is the NAT's own address.
    pub fn is_external(&self, ip: IpAddr) -> bool {
        self.nat.as_ref().is_some_and(|nat| nat.config().translates && nat.external() == ip)
    }

    /// Whether hosts behind it can be reached by their own address of this family from the core.
    pub fn is_routed(&self, ip: IpAddr) -> bool {
        ip.is_ipv6() || self.nat.as_ref().is_none_or(|nat| !nat.config().translates)
    }
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub struct Flight {
    /// The host that sent it.
    pub host: usize,
    pub sent: Instant,
    /// As the host wrote it, for the diagram.
    pub written: (SocketAddr, SocketAddr),
    pub ttl_written: Option<u8>,
    pub ttl: u8,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub payload: Vec<u8>,
}
