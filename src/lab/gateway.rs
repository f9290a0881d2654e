//! The kinds of routers that stand between a home and the internet.

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
    /// No IPv4 at all.
    Ipv6Firewall,
    /// As [`Self::MasqueradeDroppingInput`], and lets no UDP through.
    UdpBlocked,
    /// The same, and of TCP to port 443 alone: a hotel.
    Tcp443Only,
}

impl Gateway {
    /// The five kinds whose table is the contract, in its order.
    pub const TABLE: [Self; 5] =
        [Self::Public, Self::FullCone, Self::AddressRestricted, Self::PortRestricted, Self::Symmetric];

    /// All kinds.
    pub const ALL: [Self; 15] = [
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
        Self::CarrierCone,
        Self::CarrierSymmetric,
        Self::Ipv6Firewall,
    ];

    /// Those that let no UDP through. What they do cannot be measured by it.
    pub const BLOCKED: [Self; 2] = [Self::UdpBlocked, Self::Tcp443Only];

    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::PublicFirewall => "public, firewall",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::SymmetricSequential => "symmetric, sequential",
            Self::SymmetricBlock => "symmetric, of a block",
            Self::AddressDependent => "address-dependent",
            Self::Masquerade => "masquerade",
            Self::MasqueradeDroppingInput => "masquerade, input dropped",
            Self::MasqueradeRandom => "masquerade fully-random",
            Self::CarrierCone => "carrier, cone",
            Self::CarrierSymmetric => "carrier, symmetric",
            Self::Ipv6Firewall => "IPv6 firewall",
            Self::UdpBlocked => "UDP blocked",
            Self::Tcp443Only => "TCP 443 only",
        }
    }

    /// Whether its site has IPv4.
    pub const fn has_ipv4(self) -> bool {
        !matches!(self, Self::Ipv6Firewall)
    }

    /// Whether hosts behind it have private addresses.
    pub const fn translates(self) -> bool {
        !matches!(self, Self::Public | Self::PublicFirewall | Self::Ipv6Firewall)
    }

    /// Whether a carrier's NAT stands between its site's router and the internet.
    pub const fn has_carrier(self) -> bool {
        matches!(self, Self::CarrierCone | Self::CarrierSymmetric)
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
            Self::Masquerade | Self::CarrierCone | Self::CarrierSymmetric => {
                firewall + &MASQUERADE.replace("FLAGS", "")
            }
            Self::MasqueradeDroppingInput => firewall + &MASQUERADE.replace("FLAGS", "") + DROP_INPUT,
            Self::MasqueradeRandom => firewall + &MASQUERADE.replace("FLAGS", "fully-random"),
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
