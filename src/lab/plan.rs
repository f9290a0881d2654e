//! What a site is to be.

use std::fmt;
use std::str::FromStr;
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

    /// Whether its hosts have IPv4.
    pub const fn has_ipv4(&self) -> bool {
        self.gateway.has_ipv4()
    }

    /// Whether its hosts have IPv6.
    pub const fn has_ipv6(&self) -> bool {
        self.ipv6
    }

    /// A site with one host and IPv4 alone (an IPv6 gateway: IPv6 alone).
    pub const fn new(gateway: Gateway) -> Self {
        let (ipv6, looks_public) = (!gateway.has_ipv4(), gateway.offer().is_some());
        Self {
            gateway,
            hosts: 1,
            ipv6,
            lan: None,
            mappings: gateway.lifetime(),
            looks_public,
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
        write!(f, "{}{}", self.gateway.name(), if beside { BESIDE } else { "" })
    }
}

/// What stands behind the name of a site that has IPv6 beside IPv4.
const BESIDE: &str = "+ipv6";

/// As it is displayed: `masquerade`, `masquerade+ipv6`.
impl FromStr for SitePlan {
    type Err = NoSuchSite;

    fn from_str(text: &str) -> Result<Self, NoSuchSite> {
        let (name, beside) = text.strip_suffix(BESIDE).map_or((text, false), |name| (name, true));
        let gateway = Gateway::ALL.into_iter().find(|gateway| gateway.name() == name);
        let gateway = gateway.ok_or_else(|| NoSuchSite::Unknown(name.to_owned()))?;
        match beside {
            true if !gateway.has_ipv4() || gateway.has_carrier() => Err(NoSuchSite::WithoutIpv6(gateway.name())),
            true => Ok(Self::new(gateway).with_ipv6()),
            false => Ok(gateway.into()),
        }
    }
}

/// Why a text names no site.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchSite {
    /// No gateway is called so.
    #[error("there is no gateway `{0}`")]
    Unknown(String),
    /// IPv6 beside it has no meaning: it has IPv6 alone, or a carrier's network, which here routes none.
    #[error("`{0}` cannot have IPv6 beside IPv4")]
    WithoutIpv6(&'static str),
}

impl From<Gateway> for SitePlan {
    fn from(gateway: Gateway) -> Self {
        Self::new(gateway)
    }
}
