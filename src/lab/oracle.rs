//! What each pair must become, said without a look at how punchlan does it: only from what the gateways do
//! ([`Gateway::findings`]).
//!
//! | a router lets no TCP through but to a web server | relayed |
//! |---|---|
//! | a router lets no UDP through | by TCP, where plain punching by UDP would do, or the other router maps ports; else relayed |
//! | both have IPv6 | by IPv6: there are only firewalls |
//! | one has IPv4 alone and the other IPv6 alone | relayed |
//! | a router maps ports | by the mapped port: everybody reaches it |
//! | neither port changes, or the other side lets in any port | by plain punching |
//! | the port of one changes, and the other admits only whom it has written to | by a search over ports |
//! | both change, and count upwards | by a search |
//! | both change, and one or both have any of a block | by a search, or relayed: one search an introduction finds a way in about two of three |
//! | both change | relayed |
//!
//! The simulation has an oracle of its own; `tests/simulation` holds them side by side.

use std::fmt;

use serde::Serialize;

use super::probe::Allocated;
use super::{Gateway, SitePlan};
use crate::nat::Behaviour;
use crate::node::why::Cause;

/// How two peers reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// By ordinary punching, or because nothing is in the way.
    Direct,
    /// By a port that a router maps.
    Mapped,
    /// By IPv6.
    Ipv6,
    /// By a search over ports.
    Search,
    /// By TCP.
    Tcp,
    /// Through a relay.
    Relayed,
    /// Not at all.
    None,
}

impl Way {
    /// Every one, the best first.
    pub const ALL: [Self; 7] =
        [Self::Direct, Self::Mapped, Self::Ipv6, Self::Search, Self::Tcp, Self::Relayed, Self::None];

    /// Whether it leads from one peer to the other without a third.
    pub fn is_direct(self) -> bool {
        self < Self::Relayed
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Mapped => "mapped",
            Self::Ipv6 => "IPv6",
            Self::Search => "search",
            Self::Tcp => "TCP",
            Self::Relayed => "relayed",
            Self::None => "none",
        })
    }
}

/// The ways that a pair may end on, of which each is as good as another.
pub fn ways(a: SitePlan, b: SitePlan) -> Vec<Way> {
    let is_one = |gateway| [a, b].iter().any(|site| site.gateway() == gateway);
    if is_one(Gateway::Tcp443Only) {
        return vec![Way::Relayed];
    }
    let is_mapped = [a, b].iter().any(|site| site.gateway().offer().is_some());
    if is_one(Gateway::UdpBlocked) {
        let v4 = a.has_ipv4() && b.has_ipv4() && (is_mapped || direct_is_possible(a.gateway(), b.gateway()));
        return vec![if v4 || a.has_ipv6() && b.has_ipv6() { Way::Tcp } else { Way::Relayed }];
    }
    if a.has_ipv6() && b.has_ipv6() {
        return vec![Way::Ipv6];
    }
    if !(a.has_ipv4() && b.has_ipv4()) {
        return vec![Way::Relayed];
    }
    let (a, b) = (a.gateway(), b.gateway());
    let mapped = is_mapped.then_some(Way::Mapped);
    let found: &[Way] = match () {
        () if direct_is_possible(a, b) => &[Way::Direct],
        () if !direct_by_search_is_possible(a, b) => &[],
        () if needs_luck(a, b) => &[Way::Search, Way::Relayed],
        () => &[Way::Search],
    };
    let ways: Vec<Way> = mapped.into_iter().chain(found.iter().copied()).collect();
    if ways.is_empty() { vec![Way::Relayed] } else { ways }
}

/// What `punchlan why` must name as the cause on each side, where they ended on `way`; `None`: they did not meet.
pub fn causes(a: SitePlan, b: SitePlan, way: Way) -> Option<[Cause; 2]> {
    let is_blocked = |site: SitePlan| Gateway::BLOCKED.contains(&site.gateway());
    let blocked = [a, b].map(is_blocked);
    let has_family = a.has_ipv4() && b.has_ipv4() || a.has_ipv6() && b.has_ipv6();
    Some(match (blocked, [a, b].map(|site| changes(site.gateway()))) {
        _ if way == Way::None => return None,
        _ if way.is_direct() => [Cause::Direct; 2],
        ([true, true], _) => [Cause::UdpBlockedHere; 2],
        ([true, false], _) => [Cause::UdpBlockedHere, Cause::UdpBlockedThere],
        ([false, true], _) => [Cause::UdpBlockedThere, Cause::UdpBlockedHere],
        _ if !has_family => [Cause::NoCommonFamily; 2],
        (_, [true, true]) => [Cause::BothSymmetric; 2],
        (_, [true, false]) => [Cause::SymmetricHere, Cause::SymmetricThere],
        (_, [false, true]) => [Cause::SymmetricThere, Cause::SymmetricHere],
        (_, [false, false]) => [Cause::Blocked; 2],
    })
}

/// Whether plain punching leads there. A port that changes cannot be named to the other beforehand; that is harmless
/// unless the other admits only ports that it has been told.
pub fn direct_is_possible(a: Gateway, b: Gateway) -> bool {
    !(changes(a) && is_strict(b) || changes(b) && is_strict(a))
}

/// Whether plain punching, or else a search over ports, leads there. If both ports change, both of a pair must be met at
/// once, which can be only where both are of few.
pub fn direct_by_search_is_possible(a: Gateway, b: Gateway) -> bool {
    direct_is_possible(a, b) || changes(a) != changes(b) || has_few(a) && has_few(b)
}

/// Whether a search that is possible may still be in vain: both ports must be met at once, and at least one is any of a
/// block, so that no order of guesses leads to it.
fn needs_luck(a: Gateway, b: Gateway) -> bool {
    let is_block = |gateway: Gateway| gateway.findings().allocation == Allocated::Block;
    changes(a) && changes(b) && (is_block(a) || is_block(b))
}

/// Whether each destination sees another port.
pub fn changes(gateway: Gateway) -> bool {
    gateway.findings().mapping.is_some_and(|mapping| mapping != Behaviour::EndpointIndependent)
}

/// Whether only whom it has written to, by address and port, may answer.
fn is_strict(gateway: Gateway) -> bool {
    gateway.findings().filtering == Behaviour::AddressAndPortDependent
}

/// Whether the next port is one of few.
fn has_few(gateway: Gateway) -> bool {
    matches!(gateway.findings().allocation, Allocated::Sequential | Allocated::Block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(a: &str, b: &str) -> Vec<Way> {
        ways(a.parse().expect("a site"), b.parse().expect("a site"))
    }

    #[test]
    fn every_pair_has_a_way_and_the_order_of_its_sides_says_nothing() {
        for a in Gateway::ALL {
            for b in Gateway::ALL {
                let ways = super::ways(a.into(), b.into());
                assert_eq!(ways, super::ways(b.into(), a.into()));
                assert!(!ways.is_empty() && !ways.contains(&Way::None), "{} × {}", a.name(), b.name());
            }
        }
    }

    #[test]
    fn the_causes_are_those_of_the_gateways() {
        let of = |a: &str, b: &str, way| causes(a.parse().expect("a site"), b.parse().expect("a site"), way);
        assert_eq!(of("public", "symmetric-random", Way::Direct), Some([Cause::Direct; 2]));
        assert_eq!(of("public", "symmetric-random", Way::None), None);
        let named = |a, b| of(a, b, Way::Relayed).expect("they met");
        assert_eq!(named("symmetric-random", "carrier-symmetric"), [Cause::BothSymmetric; 2]);
        assert_eq!(named("masquerade", "symmetric-random"), [Cause::SymmetricThere, Cause::SymmetricHere]);
        assert_eq!(named("udp-blocked", "symmetric-random"), [Cause::UdpBlockedHere, Cause::UdpBlockedThere]);
        assert_eq!(named("tcp-443-only", "udp-blocked"), [Cause::UdpBlockedHere; 2]);
        assert_eq!(named("public", "ipv6-only"), [Cause::NoCommonFamily; 2]);
        assert_eq!(named("public", "masquerade"), [Cause::Blocked; 2]);
    }

    #[test]
    fn the_ways_are_those_that_the_gateways_leave() {
        assert_eq!(of("masquerade", "carrier-cone"), [Way::Direct]);
        assert_eq!(of("address-restricted", "symmetric-random"), [Way::Direct]);
        assert_eq!(of("masquerade", "masquerade-random"), [Way::Search]);
        assert_eq!(of("symmetric-sequential", "symmetric-sequential"), [Way::Search]);
        assert_eq!(of("symmetric-sequential", "symmetric-block"), [Way::Search, Way::Relayed]);
        assert_eq!(of("symmetric-random", "symmetric-block"), [Way::Relayed]);
        assert_eq!(of("upnp", "symmetric-random"), [Way::Mapped]);
        assert_eq!(of("pcp", "masquerade"), [Way::Mapped, Way::Search]);
        assert_eq!(of("ipv6-only", "ipv6-firewall"), [Way::Ipv6]);
        assert_eq!(of("symmetric-random+ipv6", "ipv6-only"), [Way::Ipv6]);
        assert_eq!(of("public", "ipv6-only"), [Way::Relayed]);
        assert_eq!(of("public", "udp-blocked"), [Way::Tcp]);
        assert_eq!(of("udp-blocked", "udp-blocked"), [Way::Tcp]);
        assert_eq!(of("full-cone", "udp-blocked"), [Way::Tcp]);
        assert_eq!(of("symmetric-random", "udp-blocked"), [Way::Relayed]);
        assert_eq!(of("upnp", "udp-blocked"), [Way::Tcp]);
        assert_eq!(of("udp-blocked", "pcp"), [Way::Tcp]);
        assert_eq!(of("public", "tcp-443-only"), [Way::Relayed]);
    }
}
