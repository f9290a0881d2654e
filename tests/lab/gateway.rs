//! The kinds of routers that stand between a home and the internet.

use super::nat::NatConfig;

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
    /// Linux masquerade that accepts input, as most do: a probe that comes first is remembered as a flow of
    /// the router itself and costs the host its preserved port.
    Masquerade,
    /// Linux masquerade that drops unsolicited input, so that nothing remembers it.
    MasqueradeDroppingInput,
    /// Linux masquerade with `fully-random`.
    MasqueradeRandom,
    /// No IPv4 at all.
    Ipv6Firewall,
}

impl Gateway {
    /// The five kinds whose table is the contract, in its order.
    pub const TABLE: [Self; 5] =
        [Self::Public, Self::FullCone, Self::AddressRestricted, Self::PortRestricted, Self::Symmetric];

    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Public,
        Self::PublicFirewall,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::Masquerade,
        Self::MasqueradeDroppingInput,
        Self::MasqueradeRandom,
        Self::Ipv6Firewall,
    ];

    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::PublicFirewall => "public, firewall",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::Masquerade => "masquerade",
            Self::MasqueradeDroppingInput => "masquerade, input dropped",
            Self::MasqueradeRandom => "masquerade fully-random",
            Self::Ipv6Firewall => "IPv6 firewall",
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

    /// The user-space NAT that it is, if it is one.
    pub const fn nat_config(self) -> Option<NatConfig> {
        match self {
            Self::FullCone => Some(NatConfig::full_cone()),
            Self::AddressRestricted => Some(NatConfig::address_restricted()),
            Self::PortRestricted => Some(NatConfig::port_restricted()),
            Self::Symmetric => Some(NatConfig::symmetric()),
            _ => None,
        }
    }

    /// Its nft ruleset.
    pub fn rules(self) -> String {
        let firewall = FIREWALL.replace("FAMILY", "ip6");
        match self {
            Self::PublicFirewall => firewall + &FIREWALL.replace("FAMILY", "ip"),
            Self::Masquerade => firewall + &MASQUERADE.replace("FLAGS", ""),
            Self::MasqueradeDroppingInput => firewall + &MASQUERADE.replace("FLAGS", "") + DROP_INPUT,
            Self::MasqueradeRandom => firewall + &MASQUERADE.replace("FLAGS", "fully-random"),
            _ => firewall,
        }
    }
}

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
