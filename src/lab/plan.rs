//! What a site is to be.

use std::fmt;
use std::time::Duration;

use super::Gateway;

/// What a site is to be.
#[derive(Clone, Copy, Debug)]
pub struct SitePlan {
    pub(super) gateway: Gateway,
    pub(super) hosts: u8,
    pub(super) ipv6: bool,
    pub(super) lan: Option<[u8; 3]>,
    pub(super) mappings: Option<Duration>,
    pub(super) looks_public: bool,
    pub(super) hairpin: bool,
    pub(super) apart: Apart,
}

/// What is between the hosts of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    /// Nothing: they are on one LAN.
    No,
    /// Their Wi-Fi lets them talk to its router alone.
    Guests,
    /// Each is in a home of its own, with a router of its own; the carrier's is theirs in common.
    Homes,
}

impl SitePlan {
    /// What its router is.
    pub const fn gateway(&self) -> Gateway {
        self.gateway
    }

    /// A site with one host and IPv4 alone (an IPv6 gateway: IPv6 alone).
    pub const fn new(gateway: Gateway) -> Self {
        let ipv6 = matches!(gateway, Gateway::Ipv6Firewall);
        Self {
            gateway,
            hosts: 1,
            ipv6,
            lan: None,
            mappings: None,
            looks_public: false,
            hairpin: false,
            apart: Apart::No,
        }
    }

    /// That many hosts on its LAN.
    pub const fn hosts(self, hosts: u8) -> Self {
        Self { hosts, ..self }
    }

    /// IPv6 beside IPv4, behind a stateful firewall.
    pub const fn with_ipv6(self) -> Self {
        Self { ipv6: true, ..self }
    }

    /// The router forgets a mapping so long after the last packet.
    pub const fn mappings(self, lifetime: Duration) -> Self {
        Self { mappings: Some(lifetime), ..self }
    }

    /// Addresses outside that no list of reserved ones has: there are programs that refuse those of documentation.
    pub const fn looks_public(self) -> Self {
        Self { looks_public: true, ..self }
    }

    /// Its NAT, or its carrier's, one of user space, sends back what its own hosts send to its public address.
    pub const fn hairpin(self) -> Self {
        Self { hairpin: true, ..self }
    }

    /// Its hosts are kept apart, as guests of a Wi-Fi are.
    pub const fn guests(self) -> Self {
        Self { apart: Apart::Guests, ..self }
    }

    /// Each of its hosts is in a home of its own behind the one carrier, all homes with the same private addresses.
    pub const fn homes(self) -> Self {
        Self { apart: Apart::Homes, ..self }
    }

    /// This private /24 for its LAN, in place of one of its own.
    pub const fn lan(self, lan: [u8; 3]) -> Self {
        Self { lan: Some(lan), ..self }
    }
}

impl fmt::Display for SitePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beside = self.ipv6 && self.gateway.has_ipv4();
        write!(f, "{}{}", self.gateway.name(), if beside { " + IPv6" } else { "" })
    }
}

impl From<Gateway> for SitePlan {
    fn from(gateway: Gateway) -> Self {
        Self::new(gateway)
    }
}
