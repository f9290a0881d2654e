//! The same for programs. A contract: fields are added, never renamed; what is not known is `null`, and `unknown` says
//! why. The names under `nat` are those of `punchlan status --json`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::Failure;
use super::{Found, table};
use crate::io::portmap::{Offer, Offers};
use crate::nat::{Allocation, Bounds};
use crate::netcheck::{Finding, Ipv6};
use crate::sans::MappingProtocol;

/// The schema's number.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    servers: Vec<Server<'a>>,
    udp: Option<bool>,
    ipv4: Option<String>,
    ipv6: Option<String>,
    ipv6_public: Option<bool>,
    nat: Nat,
    port_mapping: Option<PortMapping>,
    unknown: BTreeMap<&'static str, String>,
    verdict: String,
}

#[derive(Serialize)]
struct Server<'a> {
    name: &'a str,
    address: String,
    rtt_ms: Option<f64>,
}

#[derive(Serialize)]
struct Nat {
    translates: Option<bool>,
    /// `none`: nothing is translated.
    mapping: Option<String>,
    /// The least and the most that it can be.
    mapping_between: Option<[String; 2]>,
    filtering: Option<String>,
    filtering_between: Option<[String; 2]>,
    hairpin: Option<bool>,
    /// `preserved`, `sequential`, `block` or `random`.
    allocation: Option<&'static str>,
    allocation_step: Option<i32>,
    allocation_block: Option<[u16; 2]>,
    /// Seconds; the second is `null` if nobody waited for so long.
    lifetime_s: Option<[Option<u64>; 2]>,
}

#[derive(Serialize)]
struct PortMapping {
    router: String,
    /// The address that it says it has outside. Another than `ipv4`: it is itself behind a NAT.
    outside: Option<String>,
    offers: BTreeMap<String, bool>,
    /// In the router's words, why it would not.
    refused: BTreeMap<String, String>,
}

pub(super) fn text(found: &Found) -> Result<String, Failure> {
    serde_json::to_string_pretty(&document(found))
        .map_err(|error| Failure::Failed(format!("the findings have no JSON form: {error}")))
}

fn document(found: &Found) -> Document<'_> {
    let Found { report, offers, names, .. } = found;
    let servers = report.servers.iter().zip(names).map(|(asked, (_, name))| Server {
        name,
        address: asked.server.to_string(),
        rtt_ms: asked.rtt.map(|rtt| (rtt.as_secs_f64() * 100_000.0).round() / 100.0),
    });
    let (ipv6, ipv6_public) = match report.ipv6.known() {
        Some(Ipv6::Public(ip)) => (Some(ip.to_string()), Some(true)),
        Some(Ipv6::Translated(ip)) => (Some(ip.to_string()), Some(false)),
        Some(Ipv6::Silent) | None => (None, None),
    };
    let silent = report.ipv6.known() == Some(&Ipv6::Silent);
    let allocation = report.allocation.known();
    let translates = report.translates.known().copied();
    let nat = Nat {
        translates,
        mapping: exact(&report.mapping).or_else(|| (translates == Some(false)).then(|| "none".to_owned())),
        mapping_between: between(&report.mapping),
        filtering: exact(&report.filtering),
        filtering_between: between(&report.filtering),
        hairpin: report.hairpin.known().copied(),
        allocation: allocation.map(kind),
        allocation_step: allocation.and_then(|allocation| match allocation {
            Allocation::Sequential { step } => Some(*step),
            _ => None,
        }),
        allocation_block: allocation.and_then(|allocation| match allocation {
            Allocation::Block { first, last } => Some([*first, *last]),
            _ => None,
        }),
        lifetime_s: report.lifetime.known().map(|l| [Some(l.least.as_secs()), l.most.map(|most| most.as_secs())]),
    };
    let unknown = [
        ("udp", report.udp.why()),
        ("ipv4", report.ipv4.why()),
        ("ipv6", report.ipv6.why().or(silent.then_some("no answer came over IPv6"))),
        ("translates", report.translates.why()),
        ("allocation", report.allocation.why()),
        ("hairpin", report.hairpin.why()),
        ("lifetime", report.lifetime.why()),
        ("port_mapping", offers.as_ref().err().map(String::as_str)),
    ];
    let open = [
        ("mapping", why_open(&report.mapping, table::mapping).filter(|_| translates != Some(false))),
        ("filtering", why_open(&report.filtering, table::filtering)),
    ];
    let open = open.into_iter().filter_map(|(what, why)| Some((what, why?)));
    Document {
        schema: SCHEMA,
        servers: servers.collect(),
        udp: report.udp.known().copied(),
        ipv4: report.ipv4.known().map(ToString::to_string),
        ipv6,
        ipv6_public,
        nat,
        port_mapping: offers.as_ref().ok().map(port_mapping),
        unknown: unknown.into_iter().filter_map(|(what, why)| Some((what, why?.to_owned()))).chain(open).collect(),
        verdict: table::verdict_text(found),
    }
}

fn port_mapping(offers: &Offers) -> PortMapping {
    let refused = offers.protocols.iter().filter_map(|(name, offer)| match offer {
        Offer::No(words) => Some((name.to_string(), words.clone())),
        Offer::Yes { .. } | Offer::Absent => None,
    });
    PortMapping {
        router: offers.gateway.to_string(),
        outside: offers.outside().map(|outside| outside.to_string()),
        offers: offers.protocols.iter().map(offered).collect(),
        refused: refused.collect(),
    }
}

fn offered((name, offer): &(MappingProtocol, Offer)) -> (String, bool) {
    (name.to_string(), matches!(offer, Offer::Yes { .. }))
}

fn exact(finding: &Finding<Bounds>) -> Option<String> {
    finding.known().and_then(Bounds::exact).map(|behaviour| behaviour.to_string())
}

/// Why it is not known exactly.
fn why_open(finding: &Finding<Bounds>, means: impl Fn(&Bounds) -> String) -> Option<String> {
    match finding {
        Finding::Known(bounds) => bounds.exact().is_none().then(|| means(bounds)),
        Finding::Unknown(why) => Some(why.clone()),
    }
}

fn between(finding: &Finding<Bounds>) -> Option<[String; 2]> {
    finding.known().map(|bounds| [bounds.least.to_string(), bounds.most.to_string()])
}

const fn kind(allocation: &Allocation) -> &'static str {
    match allocation {
        Allocation::Preserved => "preserved",
        Allocation::Sequential { .. } => "sequential",
        Allocation::Block { .. } => "block",
        Allocation::Random => "random",
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::found;
    use super::*;
    use crate::nat::Behaviour;

    #[test]
    fn what_is_not_known_is_null_and_has_a_reason() {
        let mut found = found();
        found.report.mapping = Finding::Known(Bounds { most: Behaviour::AddressDependent, ..Bounds::ANY });
        found.report.allocation = Finding::Known(Allocation::Sequential { step: 2 });
        let json: serde_json::Value = serde_json::from_str(&text(&found).expect("json")).expect("json");
        assert_eq!(json["nat"]["mapping"], serde_json::Value::Null);
        assert_eq!(json["nat"]["mapping_between"][1], "address-dependent");
        assert_eq!(json["unknown"]["mapping"], "which of the two only a server with two addresses tells");
        assert_eq!(json["nat"]["filtering"], "address-and-port-dependent");
        assert_eq!(json["nat"]["hairpin"], false);
        assert_eq!((&json["nat"]["allocation"], &json["nat"]["allocation_step"]), (&"sequential".into(), &2.into()));
        assert_eq!(json["unknown"]["lifetime"], "it was not asked for, and takes minutes");
        assert_eq!(json["port_mapping"]["offers"]["NAT-PMP"], false);
        assert_eq!((&json["servers"][0]["rtt_ms"], &json["udp"]), (&18.0.into(), &true.into()));
        assert!(json["verdict"].as_str().is_some_and(|text| text.starts_with("direct")), "{json}");
    }
}
