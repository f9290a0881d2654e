//! The kinds of routers that stand between a home and the internet.

use std::time::Duration;

use super::mapper::Offer;
use super::probe::{Allocated, Findings};
use crate::nat::Behaviour::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
use crate::nat::model::NatConfig;

/// What a site's router does with IPv4. (IPv6, where a site has it, is routed behind a stateful firewall.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gateway {
    /// Hosts have public addresses, nothing is filtered.
    Public,
    /// Hosts have public addresses; only answers come in.
    PublicFirewall,
    /// User space, EIM + EIF.
    FullCone,
    /// User space, EIM + ADF.
    AddressRestricted,
    /// User space, EIM + APDF.
    PortRestricted,
    /// User space, APDM + APDF, random ports.
    Symmetric,
    /// User space, APDM + APDF, one port after the other.
    SymmetricSequential,
    /// User space, APDM + APDF, random ports of one block.
    SymmetricBlock,
    /// User space, ADM + APDF, random ports.
    AddressDependent,
    /// Linux masquerade that accepts input, as most do: a probe that comes first is remembered as a flow of
    /// the router itself and costs the host its preserved port.
    Masquerade,
    /// Linux masquerade that drops unsolicited input, so that nothing remembers it.
    MasqueradeDroppingInput,
    /// Linux masquerade with `fully-random`.
    MasqueradeRandom,
    /// Two routers in a row: Linux masquerade as [`Self::Masquerade`], whose public address is none but one of a
    /// carrier's network, behind a carrier's NAT as [`Self::PortRestricted`].
    CarrierCone,
    /// The same, behind a carrier's NAT as [`Self::Symmetric`].
    CarrierSymmetric,
    /// Linux masquerade as [`Self::Masquerade`] that forgets a mapping after 20 s of silence.
    ShortMappings,
    /// Linux masquerade as [`Self::MasqueradeRandom`], whose router maps ports by UPnP.
    Upnp,
    /// The same by PCP and NAT-PMP.
    Pcp,
    /// No IPv4 at all; only answers come in.
    Ipv6Firewall,
    /// As [`Self::MasqueradeDroppingInput`], and lets no UDP through.
    UdpBlocked,
    /// The same, and of TCP to port 443 alone: a hotel.
    Tcp443Only,
    /// No IPv4 at all, nothing is filtered.
    Ipv6Only,
}

impl Gateway {
    /// The five kinds whose table is the contract, in its order.
    pub const TABLE: [Self; 5] =
        [Self::Public, Self::FullCone, Self::AddressRestricted, Self::PortRestricted, Self::Symmetric];

    /// All kinds.
    pub const ALL: [Self; 21] = [
        Self::Public,
        Self::PublicFirewall,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::SymmetricSequential,
        Self::SymmetricBlock,
        Self::AddressDependent,
        Self::Masquerade,
        Self::MasqueradeDroppingInput,
        Self::MasqueradeRandom,
        Self::ShortMappings,
        Self::CarrierCone,
        Self::CarrierSymmetric,
        Self::Upnp,
        Self::Pcp,
        Self::Ipv6Firewall,
        Self::Ipv6Only,
        Self::UdpBlocked,
        Self::Tcp443Only,
    ];

    /// Those that let no UDP through. What they do cannot be measured by it.
    pub const BLOCKED: [Self; 2] = [Self::UdpBlocked, Self::Tcp443Only];

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.words().0
    }

    /// What it is, in a line.
    pub const fn about(self) -> &'static str {
        self.words().1
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Public => ("public", "public addresses, nothing is filtered"),
            Self::PublicFirewall => ("public-firewall", "public addresses, only answers come in"),
            Self::FullCone => ("full-cone", "one port for all, and all may send to it"),
            Self::AddressRestricted => {
                ("address-restricted", "one port for all; who was written to may answer from any")
            }
            Self::PortRestricted => ("port-restricted", "one port for all; who was written to may answer"),
            Self::Symmetric => ("symmetric-random", "each remote sees another port, any"),
            Self::SymmetricSequential => ("symmetric-sequential", "each remote sees another port, the next one"),
            Self::SymmetricBlock => ("symmetric-block", "each remote sees another port of a block of 1,024"),
            Self::AddressDependent => ("address-dependent", "each remote address sees another port, any"),
            Self::Masquerade => ("masquerade", "Linux masquerade; a probe that comes too early costs the port"),
            Self::MasqueradeDroppingInput => {
                ("masquerade-dropping-input", "Linux masquerade that drops what nobody asked for")
            }
            Self::MasqueradeRandom => ("masquerade-random", "Linux masquerade, fully-random: as symmetric-random"),
            Self::ShortMappings => ("short-mappings", "Linux masquerade that forgets a mapping after 20 s of silence"),
            Self::CarrierCone => ("carrier-cone", "masquerade behind a carrier's NAT as port-restricted"),
            Self::CarrierSymmetric => ("carrier-symmetric", "masquerade behind a carrier's NAT as symmetric-random"),
            Self::Upnp => ("upnp", "masquerade-random whose router maps ports by UPnP"),
            Self::Pcp => ("pcp", "masquerade-random whose router maps ports by PCP and NAT-PMP"),
            Self::Ipv6Firewall => ("ipv6-firewall", "IPv6 alone, only answers come in"),
            Self::Ipv6Only => ("ipv6-only", "IPv6 alone, nothing is filtered"),
            Self::UdpBlocked => ("udp-blocked", "masquerade-dropping-input that lets no UDP through"),
            Self::Tcp443Only => ("tcp-443-only", "the same, and of TCP to port 443 alone: a hotel"),
        }
    }

    /// What a look at it from outside must find.
    pub fn findings(self) -> Findings {
        let (mapping, filtering) = match self {
            Self::Public | Self::Ipv6Only => (None, EndpointIndependent),
            Self::PublicFirewall | Self::Ipv6Firewall => (None, AddressAndPortDependent),
            Self::FullCone => (Some(EndpointIndependent), EndpointIndependent),
            Self::AddressRestricted => (Some(EndpointIndependent), AddressDependent),
            Self::PortRestricted
            | Self::Masquerade
            | Self::MasqueradeDroppingInput
            | Self::ShortMappings
            | Self::UdpBlocked
            | Self::Tcp443Only
            | Self::CarrierCone => (Some(EndpointIndependent), AddressAndPortDependent),
            Self::AddressDependent => (Some(AddressDependent), AddressAndPortDependent),
            Self::Symmetric
            | Self::SymmetricSequential
            | Self::SymmetricBlock
            | Self::MasqueradeRandom
            | Self::CarrierSymmetric
            | Self::Upnp
            | Self::Pcp => (Some(AddressAndPortDependent), AddressAndPortDependent),
        };
        let allocation = match self {
            Self::SymmetricSequential => Allocated::Sequential,
            Self::SymmetricBlock => Allocated::Block,
            _ if mapping.is_some_and(|mapping| mapping != EndpointIndependent) => Allocated::Random,
            _ => Allocated::Preserved,
        };
        // What a carrier's NAT filters never reaches the router behind it.
        let remembers_unsolicited = matches!(self, Self::Masquerade | Self::ShortMappings);
        Findings { mapping, filtering, allocation, remembers_unsolicited }
    }

    /// Whether its site has IPv4.
    pub const fn has_ipv4(self) -> bool {
        !matches!(self, Self::Ipv6Firewall | Self::Ipv6Only)
    }

    /// Whether hosts behind it have private addresses.
    pub const fn translates(self) -> bool {
        self.has_ipv4() && !matches!(self, Self::Public | Self::PublicFirewall)
    }

    /// Whether a carrier's NAT stands between its site's router and the internet.
    pub const fn has_carrier(self) -> bool {
        matches!(self, Self::CarrierCone | Self::CarrierSymmetric)
    }

    /// By which protocols its router maps ports.
    pub const fn offer(self) -> Option<Offer> {
        match self {
            Self::Upnp => Some(Offer::Upnp),
            Self::Pcp => Some(Offer::Control),
            _ => None,
        }
    }

    /// After how much silence it forgets a mapping, where that is soon.
    pub const fn lifetime(self) -> Option<Duration> {
        match self {
            Self::ShortMappings => Some(Duration::from_secs(20)),
            _ => None,
        }
    }

    /// The user-space NAT that it is, or that its carrier's is.
    pub const fn nat_config(self) -> Option<NatConfig> {
        match self {
            Self::FullCone => Some(NatConfig::full_cone()),
            Self::AddressRestricted => Some(NatConfig::address_restricted()),
            Self::PortRestricted | Self::CarrierCone => Some(NatConfig::port_restricted()),
            Self::Symmetric | Self::CarrierSymmetric => Some(NatConfig::symmetric()),
            Self::SymmetricSequential => Some(NatConfig::symmetric_sequential()),
            Self::SymmetricBlock => Some(NatConfig::symmetric_block()),
            Self::AddressDependent => Some(NatConfig::address_dependent()),
            _ => None,
        }
    }

    /// The nft ruleset of its site's router.
    pub fn rules(self) -> String {
        let firewall = FIREWALL.replace("FAMILY", "ip6");
        match self {
            Self::PublicFirewall => firewall + &FIREWALL.replace("FAMILY", "ip"),
            Self::Ipv6Only => String::new(),
            Self::Masquerade | Self::ShortMappings | Self::CarrierCone | Self::CarrierSymmetric => {
                firewall + &MASQUERADE.replace("FLAGS", "")
            }
            Self::MasqueradeDroppingInput => firewall + &MASQUERADE.replace("FLAGS", "") + DROP_INPUT,
            Self::MasqueradeRandom | Self::Upnp | Self::Pcp => firewall + &MASQUERADE.replace("FLAGS", "fully-random"),
            Self::UdpBlocked => firewall + &MASQUERADE.replace("FLAGS", "") + DROP_INPUT + &blocked(ALL_UDP),
            Self::Tcp443Only => firewall + &MASQUERADE.replace("FLAGS", "") + DROP_INPUT + &blocked(ALL_BUT_443),
            _ => firewall,
        }
    }
}

/// Rules in a table of their own, `blocked`, which can be taken away.
fn blocked(rules: &str) -> String {
    format!("table inet blocked {{ chain forward {{ type filter hook forward priority -10; {rules}; }}; }}\n")
}

const ALL_UDP: &str = "meta l4proto udp drop";
const ALL_BUT_443: &str = r#"oifname "wan" tcp dport != 443 drop; meta l4proto udp drop"#;

const FIREWALL: &str = r#"
table FAMILY firewall {
  chain forward {
    type filter hook forward priority filter;
    iifname "wan" ct state != { established, related } drop
  }
}
"#;

const MASQUERADE: &str = r#"
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "wan" masquerade FLAGS
  }
}
"#;

const DROP_INPUT: &str = r#"
table ip drop-input {
  chain input {
    type filter hook input priority filter;
    iifname "wan" ct state != { established, related } drop
  }
}
"#;
