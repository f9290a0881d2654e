//! A NAT as RFC 4787 describes one: a value without clock or socket, so that the simulation (virtual time)
//! and the laboratory (a real router in a namespace) run the very same translation.
//!
//! Three questions make a NAT, and each is a field of [`NatConfig`]:
//!
//! 1. **Mapping**: when one socket inside talks to a second remote, does it keep its external port?
//! 2. **Filtering**: which remotes may answer to that external port?
//! 3. **Allocation**: which external port does a new mapping get?
//!
//! ```text
//!   inside                         Nat                              outside
//!   192.168.1.2:5000 ── outbound(internal, remote) ─▶ 203.0.113.1:41000 ──▶ remote
//!   192.168.1.2:5000 ◀── inbound(to, remote) ◀─────── 203.0.113.1:41000 ◀── remote
//! ```
//!
//! One `Nat` translates one protocol: UDP by ports, ICMP echo by identifiers. Only outbound traffic keeps
//! a mapping alive (RFC 4787 REQ-6 asks for no more).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

pub use super::Behaviour;
use crate::sans::{Instant, Rng, Seed};

/// Which external port a new mapping gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Allocation {
    /// The internal one, while it is free. With a mapping that depends on the remote, "free" means free
    /// towards that remote, as in Linux: one external port then carries several mappings. And as in Linux
    /// the port that the socket's newest mapping has comes first, whatever it is: one that had to give way
    /// towards one remote draws the next ones after it.
    Preserving,
    /// The one after the last.
    Sequential,
    /// Any.
    Random,
    /// Any from `first` on, of so many: what a provider gives to one customer.
    Block {
        /// Its lowest port.
        first: u16,
        /// How many it has.
        size: u16,
    },
}

/// A kind of NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// When a mapping is reused.
    pub mapping: Behaviour,
    /// Who may send to it.
    pub filtering: Behaviour,
    /// Which port it gets.
    pub allocation: Allocation,
    /// How long it lives after the last outbound packet.
    pub lifetime: Duration,
    /// How long it lives while nothing has come back through it.
    pub lifetime_unanswered: Duration,
    /// Whether inside may talk to inside through the external address.
    pub hairpin: bool,
    /// `false`: a firewall, which only filters.
    pub translates: bool,
    /// The trap of a Linux router that accepts input: it remembers an unsolicited packet as a flow of its
    /// own for so long, and a mapping towards the same remote then cannot have the port it came to.
    pub remembers_unsolicited: Option<Duration>,
}

impl NatConfig {
    /// EIM + EIF: whoever learns the external port can send to it.
    pub const fn full_cone() -> Self {
        Self::cone(Behaviour::EndpointIndependent)
    }

    /// EIM + ADF: whom the inside has sent to may answer from any port.
    pub const fn address_restricted() -> Self {
        Self::cone(Behaviour::AddressDependent)
    }

    /// EIM + APDF: whom the inside has sent to may answer. What most home routers do.
    pub const fn port_restricted() -> Self {
        Self::cone(Behaviour::AddressAndPortDependent)
    }

    /// APDM + APDF with random ports: every remote sees another port, which cannot be guessed.
    pub const fn symmetric() -> Self {
        Self {
            mapping: Behaviour::AddressAndPortDependent,
            allocation: Allocation::Random,
            ..Self::cone(Behaviour::AddressAndPortDependent)
        }
    }

    /// APDM + APDF with one port after the other: whoever has just seen one knows where about the next ones are.
    pub const fn symmetric_sequential() -> Self {
        Self { allocation: Allocation::Sequential, ..Self::symmetric() }
    }

    /// APDM + APDF with random ports of one block, as where a provider shares an address among its customers.
    pub const fn symmetric_block() -> Self {
        Self { allocation: Allocation::Block { first: 20_480, size: 1_024 }, ..Self::symmetric() }
    }

    /// ADM + APDF with random ports: as a symmetric one, only that all ports of one remote address see the same port.
    pub const fn address_dependent() -> Self {
        Self { mapping: Behaviour::AddressDependent, ..Self::symmetric() }
    }

    /// Linux masquerade that accepts input: the port is preserved flow by flow, unless the peer's probe came
    /// first.
    pub const fn linux_masquerade() -> Self {
        Self {
            mapping: Behaviour::AddressAndPortDependent,
            allocation: Allocation::Preserving,
            remembers_unsolicited: Some(Duration::from_secs(30)),
            lifetime_unanswered: Duration::from_secs(30),
            ..Self::cone(Behaviour::AddressAndPortDependent)
        }
    }

    /// No translation; only whom the inside has sent to may answer.
    pub const fn stateful_firewall() -> Self {
        Self { translates: false, hairpin: true, ..Self::cone(Behaviour::AddressAndPortDependent) }
    }

    const fn cone(filtering: Behaviour) -> Self {
        Self {
            mapping: Behaviour::EndpointIndependent,
            filtering,
            allocation: Allocation::Preserving,
            lifetime: Duration::from_secs(120),
            lifetime_unanswered: Duration::from_secs(120),
            hairpin: false,
            translates: true,
            remembers_unsolicited: None,
        }
    }
}

/// One NAT and its mappings.
#[derive(Debug)]
pub struct Nat {
    config: NatConfig,
    external: IpAddr,
    rng: Rng,
    next_port: u16,
    made: u64,
    mappings: BTreeMap<Key, Mapping>,
    /// The same by their external ends: {external, remote} and the internal socket.
    ends: BTreeMap<SocketAddr, BTreeMap<Scope, SocketAddr>>,
    /// Unsolicited packets that are remembered, {port, remote}, and until when.
    foreign: BTreeMap<(u16, SocketAddr), Instant>,
    /// Nothing of all this ends before, so that not every packet costs a look at every mapping.
    calm_until: Instant,
}

/// Which packets share a mapping: those of one internal socket, and as much of the remote as the mapping
/// depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    internal: SocketAddr,
    remote: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Any,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

#[derive(Debug)]
struct Mapping {
    external: SocketAddr,
    /// Whom the inside has sent to through it, and when that permission ends.
    permits: BTreeMap<SocketAddr, Instant>,
    expires: Instant,
    answered: bool,
    /// Grows with each mapping.
    number: u64,
}

impl Behaviour {
    fn scope(self, remote: SocketAddr) -> Scope {
        match self {
            Self::EndpointIndependent => Scope::Any,
            Self::AddressDependent => Scope::Address(remote.ip()),
            Self::AddressAndPortDependent => Scope::Endpoint(remote),
        }
    }
}

/// External ports are taken from here on; lower ones are preserved only.
const FIRST_PORT: u16 = 1024;
const PORTS: RangeInclusive<u16> = FIRST_PORT..=u16::MAX;

impl Nat {
    /// A NAT with this external address (of no meaning for a firewall). The seed decides its random ports.
    pub fn new(config: NatConfig, external: IpAddr, seed: &Seed) -> Self {
        let mut rng = seed.rng();
        let next_port = random_port(&mut rng, &PORTS);
        let (mappings, ends, foreign) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { config, external, rng, next_port, made: 0, mappings, ends, foreign, calm_until: Instant::ZERO }
    }

    /// What it is.
    pub fn config(&self) -> NatConfig {
        self.config
    }

    /// Its external address.
    pub fn external(&self) -> IpAddr {
        self.external
    }

    /// A packet from `internal` to `remote`: the source it leaves with, or `None` if it does not leave.
    ///
    /// If `remote` is the external address itself and the answer is `Some(source)`, the caller turns the
    /// packet around: `inbound(now, remote, source)` says who gets it (hairpin).
    pub fn outbound(&mut self, now: Instant, internal: SocketAddr, remote: SocketAddr) -> Option<SocketAddr> {
        let turns_around = self.config.translates && remote.ip() == self.external;
        let other_family = self.config.translates && internal.is_ipv4() != self.external.is_ipv4();
        if other_family || (turns_around && !self.config.hairpin) {
            return None;
        }
        self.expire(now);
        let key = Key { internal, remote: self.config.mapping.scope(remote) };
        let external = match self.mappings.get(&key) {
            Some(mapping) => mapping.external,
            None => {
                let external = self.allocate(internal, remote)?;
                self.ends.entry(external).or_default().insert(key.remote, internal);
                external
            }
        };
        let NatConfig { lifetime, lifetime_unanswered, .. } = self.config;
        self.made += 1;
        let number = self.made;
        let fresh = || Mapping { external, permits: BTreeMap::new(), expires: now, answered: false, number };
        let mapping = self.mappings.entry(key).or_insert_with(fresh);
        let expires = now + if mapping.answered { lifetime } else { lifetime.min(lifetime_unanswered) };
        mapping.expires = mapping.expires.max(expires);
        mapping.permits.insert(remote, expires);
        self.calm_until = self.calm_until.min(expires);
        Some(external)
    }

    /// A packet from `remote` to `to`: the internal socket that gets it, or `None` if it is filtered.
    pub fn inbound(&mut self, now: Instant, to: SocketAddr, remote: SocketAddr) -> Option<SocketAddr> {
        self.expire(now);
        let admitting = self.admitting(to, remote);
        if let Some((key, mapping)) = admitting.and_then(|key| Some((key, self.mappings.get_mut(&key)?))) {
            mapping.answered = true;
            return Some(key.internal);
        }
        if let Some(memory) = self.config.remembers_unsolicited
            && to.ip() == self.external
        {
            self.foreign.insert((to.port(), remote), now + memory);
            self.calm_until = self.calm_until.min(now + memory);
        }
        None
    }

    /// Which of the mappings that end there lets the remote in.
    fn admitting(&self, to: SocketAddr, remote: SocketAddr) -> Option<Key> {
        let ends = self.ends.get(&to)?;
        let filtering = self.config.filtering;
        let towards_remote = ends.get_key_value(&self.config.mapping.scope(remote));
        // Where only who was written to may answer, no other mapping can have been used for that.
        let others = (filtering != Behaviour::AddressAndPortDependent).then_some(ends);
        let candidates = towards_remote.into_iter().chain(others.into_iter().flatten());
        let mut keys = candidates.map(|(&remote, &internal)| Key { internal, remote });
        keys.find(|key| self.mappings.get(key).is_some_and(|mapping| mapping.admits(filtering, remote)))
    }

    /// Loses all mappings, as a router that was restarted.
    pub fn forget(&mut self) {
        self.mappings.clear();
        self.ends.clear();
        self.foreign.clear();
    }

    /// Gets another external address, and loses all mappings, as a line that was dialled again.
    pub fn set_external(&mut self, external: IpAddr) {
        self.external = external;
        self.forget();
    }

    fn expire(&mut self, now: Instant) {
        if now < self.calm_until {
            return;
        }
        let Self { mappings, ends, foreign, .. } = self;
        mappings.retain(|key, mapping| {
            mapping.permits.retain(|_, until| *until > now);
            let lives = mapping.expires > now;
            if !lives && let Some(remotes) = ends.get_mut(&mapping.external) {
                remotes.remove(&key.remote);
            }
            lives
        });
        ends.retain(|_, remotes| !remotes.is_empty());
        foreign.retain(|_, until| *until > now);
        let times = mappings.values().flat_map(|mapping| mapping.permits.values().chain([&mapping.expires]));
        self.calm_until = times.chain(foreign.values()).copied().min().unwrap_or(now + Duration::MAX);
    }

    /// The external end of a new mapping; `None` when every port is taken.
    fn allocate(&mut self, internal: SocketAddr, remote: SocketAddr) -> Option<SocketAddr> {
        if !self.config.translates {
            return Some(internal);
        }
        let port = match self.config.allocation {
            Allocation::Preserving => self.preserved_port(internal, remote).or_else(|| self.draw_port(PORTS, remote)),
            Allocation::Sequential => {
                let port = self.free_port(PORTS, self.next_port, remote);
                self.next_port = port.and_then(|port| port.checked_add(1)).unwrap_or(FIRST_PORT);
                port
            }
            Allocation::Random => self.draw_port(PORTS, remote),
            Allocation::Block { first, size } => self.draw_port(first..=first.saturating_add(size - 1), remote),
        };
        Some(SocketAddr::new(self.external, port?))
    }

    /// That of the youngest mapping of the socket (Linux: `find_appropriate_src`), else the socket's own.
    fn preserved_port(&self, internal: SocketAddr, remote: SocketAddr) -> Option<u16> {
        let first = Key { internal, remote: Scope::Any };
        let own = self.mappings.range(first..).take_while(|(key, _)| key.internal == internal);
        let youngest = own.max_by_key(|(_, mapping)| mapping.number).map(|(_, mapping)| mapping.external.port());
        [youngest, Some(internal.port())].into_iter().flatten().find(|port| self.is_free(*port, remote))
    }

    fn draw_port(&mut self, ports: RangeInclusive<u16>, remote: SocketAddr) -> Option<u16> {
        let start = random_port(&mut self.rng, &ports);
        self.free_port(ports, start, remote)
    }

    /// The first from `start` on, going round.
    fn free_port(&self, ports: RangeInclusive<u16>, start: u16, remote: SocketAddr) -> Option<u16> {
        (start..=*ports.end()).chain(*ports.start()..start).find(|&port| self.is_free(port, remote))
    }

    fn is_free(&self, port: u16, remote: SocketAddr) -> bool {
        let overloads = self.config.allocation == Allocation::Preserving;
        let towards_remote = self.config.mapping.scope(remote);
        let ends = self.ends.get(&SocketAddr::new(self.external, port));
        let taken = ends.is_some_and(|remotes| !overloads || remotes.contains_key(&towards_remote));
        !taken && !self.foreign.contains_key(&(port, remote))
    }
}

impl Mapping {
    fn admits(&self, filtering: Behaviour, remote: SocketAddr) -> bool {
        let any_port = || SocketAddr::new(remote.ip(), 0)..=SocketAddr::new(remote.ip(), u16::MAX);
        match filtering {
            Behaviour::EndpointIndependent => !self.permits.is_empty(),
            Behaviour::AddressDependent => self.permits.range(any_port()).next().is_some(),
            Behaviour::AddressAndPortDependent => self.permits.contains_key(&remote),
        }
    }
}

fn random_port(rng: &mut Rng, ports: &RangeInclusive<u16>) -> u16 {
    let span = u32::from(ports.end() - ports.start()) + 1;
    ports.start() + u16::try_from(rng.u32() % span).expect("the span is at most 2^16 and the start is in it")
}
