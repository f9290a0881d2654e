//! The oracle of this simulation and that of the laboratory, side by side: they were written apart, and say the same of
//! every pair that both know.
#![cfg(target_os = "linux")]

use punchlan::lab::Gateway;
use punchlan::lab::oracle::{self, Way, ways};

use crate::nat::NatConfig;
use crate::sim::oracle::{direct_by_search_is_possible, direct_is_possible};

/// Pairs of which the two oracles say different things, and why both are right.
const DIFFERENT: &[(Gateway, Gateway, &str)] = &[
    (Gateway::SymmetricSequential, Gateway::SymmetricBlock, ONE_SEARCH),
    (Gateway::SymmetricBlock, Gateway::SymmetricBlock, ONE_SEARCH),
];

const ONE_SEARCH: &str = "the simulation's oracle says what searches achieve that go on until one succeeds; a peer searches \
    once an introduction, and two ports that must be met at once, one of them any of a block, are met in two of three: so \
    the laboratory takes a relayed pair for as good";

/// What the simulation puts in front of a host, where the laboratory has this gateway; `None`: it has nothing like it.
///
/// | the laboratory's gateway | the simulation has |
/// |---|---|
/// | `masquerade-dropping-input` | what masquerade is when it remembers nothing |
/// | `masquerade-random` | a symmetric NAT: that is what it is from outside |
/// | `short-mappings` | the same with another lifetime, on which no way depends |
/// | carriers | the carrier's NAT alone: the home's before it preserves ports and filters no more than it |
/// | `upnp`, `pcp` | nothing: its gateways map no ports |
/// | `udp-blocked` | a switch of a house, beside the NAT: see below |
/// | `tcp-443-only` | nothing: its gateways let out every connection |
/// | IPv6 | it is a property of a house, beside the NAT, and no gateway of its own |
fn simulated(gateway: Gateway) -> Option<Option<NatConfig>> {
    let masquerade = NatConfig::linux_masquerade();
    let nat = match gateway {
        Gateway::Public => return Some(None),
        Gateway::PublicFirewall => NatConfig::stateful_firewall(),
        Gateway::Masquerade => masquerade,
        Gateway::MasqueradeDroppingInput => NatConfig { remembers_unsolicited: None, ..masquerade },
        Gateway::ShortMappings => NatConfig { lifetime: std::time::Duration::from_secs(20), ..masquerade },
        Gateway::MasqueradeRandom => NatConfig::symmetric(),
        Gateway::Upnp | Gateway::Pcp | Gateway::Ipv6Firewall | Gateway::Ipv6Only => return None,
        Gateway::UdpBlocked | Gateway::Tcp443Only => return None,
        _ => gateway.nat_config().expect("all others are NATs of this model"),
    };
    Some(Some(nat))
}

#[test]
fn the_two_oracles_say_the_same_of_every_pair_that_both_know() {
    let known = || Gateway::ALL.into_iter().filter_map(|gateway| Some((gateway, simulated(gateway)?)));
    assert_eq!(known().count(), 15);
    for (a, in_front_of_a) in known() {
        for (b, in_front_of_b) in known() {
            let here = match (
                direct_is_possible(in_front_of_a, in_front_of_b),
                direct_by_search_is_possible(in_front_of_a, in_front_of_b),
            ) {
                (true, _) => Way::Direct,
                (false, true) => Way::Search,
                (false, false) => Way::Relayed,
            };
            let (there, pair) = (ways(a.into(), b.into()), format!("{} × {}", a.name(), b.name()));
            let why = DIFFERENT.iter().find(|(x, y, _)| [(x, y), (y, x)].contains(&(&a, &b))).map(|(.., why)| why);
            assert!(there.contains(&here), "{pair}: the simulation says {here}, the laboratory {there:?}");
            assert_eq!(there == [here], why.is_none(), "{pair}: {here}, {there:?}; {why:?}");
            assert_eq!(oracle::direct_is_possible(a, b), here == Way::Direct, "{pair}");
        }
    }
}

/// What holds of plain punching by UDP holds of it by TCP (the simulation's own proof of that is in `streams`).
#[test]
fn the_two_oracles_say_the_same_of_every_pair_that_has_no_udp_on_one_side() {
    let masquerade = Some(NatConfig { remembers_unsolicited: None, ..NatConfig::linux_masquerade() });
    for (gateway, in_front) in Gateway::ALL.into_iter().filter_map(|gateway| Some((gateway, simulated(gateway)?))) {
        let here = if direct_is_possible(masquerade, in_front) { Way::Tcp } else { Way::Relayed };
        assert_eq!(ways(Gateway::UdpBlocked.into(), gateway.into()), [here], "{}", gateway.name());
    }
}
