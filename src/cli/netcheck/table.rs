//! The table for people: what was looked at, what was found, what that means; and a verdict.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::super::output::{self, GOOD, NOTABLE, bold, harmless, styled};
use super::super::ping::milliseconds;
use super::Found;
use crate::io::portmap::Offer;
use crate::nat::{Allocation, Behaviour, Bounds};
use crate::netcheck::{Finding, Ipv6, Report};

/// What was looked at, what was found, what it means for play.
type Row = [String; 3];

pub(super) fn text(found: &Found) -> String {
    let mut text = output::table(["what", "found", "what it means for play"], rows(found));
    let (style, verdict) = match verdict(found) {
        Verdict::Good(text) => (GOOD, text),
        Verdict::Notable(text) => (NOTABLE, text),
    };
    let _ = write!(text, "\n{} {}", bold("Verdict:"), styled(style, &verdict));
    text
}

fn rows(found: &Found) -> Vec<Row> {
    let Found { report, names, .. } = found;
    let mut rows: Vec<Row> = Vec::new();
    for (asked, (_, name)) in report.servers.iter().zip(names) {
        let answered = asked.rtt.map(|rtt| format!("answers, {}", milliseconds(rtt.as_secs_f64() * 1000.0)));
        let by = if asked.server.to_string() == *name { String::new() } else { format!("as {}", asked.server) };
        rows.push([format!("server {name}"), answered.unwrap_or_else(|| "no answer".to_owned()), by]);
    }
    rows.push(row("UDP", &report.udp, |passes| (if *passes { "passes" } else { "no answer" }).to_owned(), udp));
    if report.udp.known() != Some(&true) {
        rows.push(port_mapping(found));
        return rows;
    }
    rows.push(row("IPv4 outside", &report.ipv4, ToString::to_string, |_| translated(report)));
    rows.push(row("IPv6", &report.ipv6, ipv6_found, ipv6));
    if let Finding::Unknown(why) = &report.translates {
        rows.push(["NAT".to_owned(), "not known".to_owned(), harmless(why)]);
        rows.push(port_mapping(found));
        return rows;
    }
    if report.translates.known() != Some(&false) {
        rows.push(row("mapping", &report.mapping, ToString::to_string, mapping));
        rows.push(row("ports", &report.allocation, ToString::to_string, allocation));
        rows.push(row("hairpin", &report.hairpin, |works| yes(*works), hairpin));
    }
    rows.push(row("filtering", &report.filtering, ToString::to_string, filtering));
    if found.lifetime {
        rows.push(row("lifetime", &report.lifetime, ToString::to_string, |_| {
            "how long a way stays open in silence; it is kept open every 15 s".to_owned()
        }));
    }
    rows.push(port_mapping(found));
    rows
}

/// A finding and its meaning; or `not known`, and why.
fn row<T>(what: &str, finding: &Finding<T>, found: impl FnOnce(&T) -> String, means: impl FnOnce(&T) -> String) -> Row {
    match finding {
        Finding::Known(value) => [what.to_owned(), found(value), means(value)],
        Finding::Unknown(why) => [what.to_owned(), "not known".to_owned(), harmless(why)],
    }
}

fn yes(yes: bool) -> String {
    (if yes { "yes" } else { "no" }).to_owned()
}

fn udp(passes: &bool) -> String {
    let text =
        if *passes { "punchlan works here" } else { "in a network that blocks UDP, if this is one, all goes by TCP" };
    text.to_owned()
}

fn translated(report: &Report) -> String {
    let text = match report.translates.known() {
        Some(true) => "a router translates: friends see this address",
        Some(false) => "this machine's own: nothing translates",
        None => "",
    };
    text.to_owned()
}

fn ipv6_found(ipv6: &Ipv6) -> String {
    match ipv6 {
        Ipv6::Public(ip) => format!("public, {ip}"),
        Ipv6::Translated(ip) => format!("translated, {ip}"),
        Ipv6::Silent => "none".to_owned(),
    }
}

fn ipv6(ipv6: &Ipv6) -> String {
    let text = match ipv6 {
        Ipv6::Public(_) => "direct with every friend who has it too",
        Ipv6::Translated(_) => "of little use for play",
        Ipv6::Silent => "no answer came over IPv6",
    };
    text.to_owned()
}

pub(super) fn mapping(mapping: &Bounds) -> String {
    let text = match mapping.exact() {
        Some(Behaviour::EndpointIndependent) => "all friends find you at one address",
        Some(_) => "every friend sees another port: strict (\"symmetric\")",
        None if mapping.least == Behaviour::EndpointIndependent => {
            "which of the two only a server with two addresses tells"
        }
        None => "strict (\"symmetric\"); how much only a server with two ports tells",
    };
    text.to_owned()
}

pub(super) fn filtering(filtering: &Bounds) -> String {
    let text = match filtering.exact() {
        Some(Behaviour::EndpointIndependent) => "whoever knows your address can begin",
        Some(Behaviour::AddressDependent) => "whom you have written to can answer, from any port",
        Some(Behaviour::AddressAndPortDependent) => "only whom you have written to can answer: both must knock",
        None => "which of the two only a server with two addresses tells",
    };
    text.to_owned()
}

fn allocation(allocation: &Allocation) -> String {
    let text = match allocation {
        Allocation::Preserved => "outside as inside: easily found",
        Allocation::Sequential { .. } => "the next one can be guessed",
        Allocation::Block { .. } => "the next one can be searched for",
        Allocation::Random => "the next one cannot be guessed",
    };
    text.to_owned()
}

fn hairpin(works: &bool) -> String {
    let text = match works {
        true => "friends in the same house may use the address outside",
        false => "friends in the same house use their addresses inside",
    };
    text.to_owned()
}

/// What a router's offer to open ports is worth.
enum Opens {
    /// It would not.
    Nothing,
    /// It would, and others reach it.
    ToAll,
    /// It would, and does not say which address it has outside.
    Perhaps,
    /// It would, and has another address outside than others see.
    BehindAnother { outside: IpAddr, seen: IpAddr },
}

fn opens(found: &Found) -> Opens {
    let Some(offers) = found.offers.as_ref().ok().filter(|offers| offers.agreed().next().is_some()) else {
        return Opens::Nothing;
    };
    let seen = found.report.ipv4.known().map(SocketAddr::ip);
    // What says its address speaks for what does not: it is the same router.
    match (offers.outside().map(IpAddr::V4), seen) {
        (Some(outside), Some(seen)) if outside == seen => Opens::ToAll,
        (Some(outside), Some(seen)) => Opens::BehindAnother { outside, seen },
        (None, _) | (_, None) => Opens::Perhaps,
    }
}

fn port_mapping(found: &Found) -> Row {
    let what = "port mapping".to_owned();
    let offers = match &found.offers {
        Ok(offers) => offers,
        Err(why) => return [what, "not known".to_owned(), harmless(why)],
    };
    let agreed: Vec<String> = offers.agreed().map(|protocol| protocol.to_string()).collect();
    let gateway = offers.gateway;
    let means = match opens(found) {
        Opens::Nothing => None,
        Opens::ToAll => Some(format!("the router {gateway} opens a port for you: direct with everybody")),
        Opens::Perhaps => Some(format!("the router {gateway} opens a port for you, if it is not itself behind a NAT")),
        Opens::BehindAnother { outside, seen } => Some(format!(
            "of no use: the router {gateway} is itself behind a NAT (it has {outside} outside, others see {seen})"
        )),
    };
    if let Some(means) = means {
        return [what, list(agreed.iter().map(String::as_str)), means];
    }
    let refused = offers.protocols.iter().find_map(|(protocol, offer)| match offer {
        Offer::No(words) => Some(format!("the router {} says by {protocol}: {}", offers.gateway, harmless(words))),
        Offer::Yes { .. } | Offer::Absent => None,
    });
    let silent = || format!("switch on UPnP, NAT-PMP or PCP in the router {}, if it is yours", offers.gateway);
    [what, "none".to_owned(), refused.unwrap_or_else(silent)]
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<&str> = items.collect();
    match items.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [others @ .., last] => format!("{} and {last}", others.join(", ")),
    }
}

enum Verdict {
    Good(String),
    Notable(String),
}

impl Verdict {
    fn into_text(self) -> String {
        match self {
            Self::Good(text) | Self::Notable(text) => text,
        }
    }
}

/// The verdict's words alone.
pub(super) fn verdict_text(found: &Found) -> String {
    verdict(found).into_text()
}

/// What of the table in the README this machine is.
fn verdict(found: &Found) -> Verdict {
    let report = &found.report;
    if report.udp.known() != Some(&true) {
        return Verdict::Notable(match &report.udp {
            Finding::Unknown(why) => harmless(why),
            Finding::Known(_) => "nobody answered by UDP: no server runs there, or this network blocks UDP".to_owned(),
        });
    }
    let translates = match (&report.translates, report.ipv4.known()) {
        (Finding::Known(translates), _) => *translates,
        (Finding::Unknown(why), Some(_)) => {
            return Verdict::Notable(format!("what the router does cannot be told: {}", harmless(why)));
        }
        (Finding::Unknown(_), None) if report.servers.iter().any(|asked| asked.server.is_ipv4()) => {
            return Verdict::Notable("no IPv4: direct with friends who have IPv6, relayed with others".to_owned());
        }
        (Finding::Unknown(why), None) => {
            let why = report.ipv4.why().unwrap_or(why);
            return Verdict::Notable(format!("what IPv4 is good for here cannot be told: {}", harmless(why)));
        }
    };
    match opens(found) {
        Opens::ToAll => return Verdict::Good("direct with everybody: the router opens a port".to_owned()),
        Opens::Perhaps => {
            let text = "direct with everybody, if the router, which opens a port, is not itself behind another NAT";
            return Verdict::Good(text.to_owned());
        }
        Opens::Nothing | Opens::BehindAnother { .. } => {}
    }
    let least = report.mapping.known().map(|mapping| mapping.least);
    let most = report.filtering.known().map(|filtering| filtering.most);
    // Two ports of one address cannot tell a router that shows each friend another port.
    let is_open = translates && report.mapping.known().is_some_and(|mapping| mapping.exact().is_none());
    let unless = if is_open { ", if the router shows all friends one port, as most do" } else { "" };
    match (translates, least, most) {
        (true, None, _) => Verdict::Notable(format!(
            "how strict the router is cannot be told: {}",
            harmless(report.mapping.why().unwrap_or("nothing was found out"))
        )),
        (true, Some(Behaviour::AddressDependent | Behaviour::AddressAndPortDependent), _) => Verdict::Notable(
            "a strict router: relayed with friends behind another strict one, direct with the rest, with some after a \
             search of seconds"
                .to_owned(),
        ),
        (_, _, Some(Behaviour::EndpointIndependent | Behaviour::AddressDependent)) => {
            Verdict::Good(format!("direct with everybody{unless}"))
        }
        (_, _, Some(Behaviour::AddressAndPortDependent)) => Verdict::Good(format!(
            "direct with everybody{unless}; with friends behind a strict (\"symmetric\") router after a search of seconds"
        )),
        (_, _, None) => Verdict::Good(format!(
            "direct with most friends{unless}; whether with those behind a strict router too cannot be told"
        )),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::io::portmap::Offers;
    use crate::netcheck::{Asked, Lifetime};
    use crate::sans::MappingProtocol;

    /// Behind a usual router.
    pub(in super::super) fn found() -> Found {
        let server = "198.51.100.1:3478".parse().expect("address");
        let cone = Bounds::exactly(Behaviour::EndpointIndependent);
        let report = Report {
            servers: vec![Asked { server, rtt: Some(Duration::from_millis(18)) }],
            udp: Finding::Known(true),
            ipv4: Finding::Known("203.0.113.9:41641".parse().expect("address")),
            ipv6: Finding::Unknown("no server with an IPv6 address was asked".to_owned()),
            translates: Finding::Known(true),
            mapping: Finding::Known(cone),
            filtering: Finding::Known(Bounds::exactly(Behaviour::AddressAndPortDependent)),
            allocation: Finding::Known(Allocation::Preserved),
            hairpin: Finding::Known(false),
            lifetime: Finding::Unknown("it was not asked for, and takes minutes".to_owned()),
        };
        let protocols = [MappingProtocol::Pcp, MappingProtocol::NatPmp, MappingProtocol::Upnp];
        let offers = Offers {
            gateway: "192.168.0.1".parse().expect("address"),
            protocols: protocols.map(|protocol| (protocol, Offer::Absent)).to_vec(),
        };
        Found { report, offers: Ok(offers), names: vec![(server, "play.example.org:3478".to_owned())], lifetime: false }
    }

    fn plain(found: &Found) -> String {
        anstream::adapter::strip_str(&text(found)).to_string()
    }

    #[test]
    fn the_table_says_what_was_found_and_what_it_means() {
        let expected = "\
what                          found                       what it means for play
server play.example.org:3478  answers, 18.0 ms            as 198.51.100.1:3478
UDP                           passes                      punchlan works here
IPv4 outside                  203.0.113.9:41641           a router translates: friends see this address
IPv6                          not known                   no server with an IPv6 address was asked
mapping                       endpoint-independent        all friends find you at one address
ports                         preserved                   outside as inside: easily found
hairpin                       no                          friends in the same house use their addresses inside
filtering                     address-and-port-dependent  only whom you have written to can answer: both must knock
port mapping                  none                        switch on UPnP, NAT-PMP or PCP in the router 192.168.0.1, if it is yours

Verdict: direct with everybody; with friends behind a strict (\"symmetric\") router after a search of seconds";
        assert_eq!(plain(&found()), expected, "\n{}", plain(&found()));
    }

    #[test]
    fn the_verdict_is_that_of_the_table_of_routers() {
        let with = |mapping, filtering| {
            let mut found = found();
            found.report.mapping = Finding::Known(Bounds::exactly(mapping));
            found.report.filtering = Finding::Known(Bounds::exactly(filtering));
            verdict_text(&found)
        };
        use Behaviour::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        assert_eq!(with(EndpointIndependent, EndpointIndependent), "direct with everybody");
        assert_eq!(with(EndpointIndependent, AddressDependent), "direct with everybody");
        assert!(with(EndpointIndependent, AddressAndPortDependent).contains("friends behind a strict"));
        assert!(with(AddressAndPortDependent, AddressAndPortDependent).starts_with("a strict router"));
        let mut two_ports = found();
        two_ports.report.mapping =
            Finding::Known(Bounds { most: AddressDependent, ..Bounds::exactly(EndpointIndependent) });
        assert!(verdict_text(&two_ports).contains("everybody, if the router shows all friends one port, as most do;"));
        let mut dark = found();
        dark.report.mapping = Finding::Unknown("only one place was asked".to_owned());
        assert!(verdict_text(&dark).ends_with("cannot be told: only one place was asked"));
        dark.report.translates = Finding::Unknown("the server is next door".to_owned());
        assert_eq!(verdict_text(&dark), "what the router does cannot be told: the server is next door");
        assert!(!plain(&dark).contains("\nmapping ") && plain(&dark).contains("\nNAT "), "{}", plain(&dark));
        dark.report.udp = Finding::Known(false);
        assert!(
            verdict_text(&dark).starts_with("nobody answered by UDP: no server runs there, or")
                && !plain(&dark).contains("\nmapping ")
        );
    }

    #[test]
    fn a_router_that_opens_ports_helps_where_it_is_the_last_one() {
        let with = |offered: [Option<&str>; 2]| {
            let mut found = found();
            let offers = offered.map(|outside| Offer::Yes { outside: outside.map(|ip| ip.parse().expect("address")) });
            for (slot, offer) in found.offers.as_mut().expect("known").protocols.iter_mut().zip(offers) {
                slot.1 = offer;
            }
            found
        };
        // By PCP it does not say its address, by NAT-PMP it does.
        let open = with([None, Some("203.0.113.9")]);
        assert_eq!(verdict_text(&open), "direct with everybody: the router opens a port");
        assert!(
            plain(&open).contains("PCP and NAT-PMP  ") && plain(&open).contains("for you: direct"),
            "{}",
            plain(&open)
        );
        let double = with([None, Some("100.64.0.7")]);
        assert!(verdict_text(&double).starts_with("direct with everybody; with friends behind a strict"));
        let told = "is itself behind a NAT (it has 100.64.0.7 outside, others see 203.0.113.9)";
        assert!(plain(&double).contains(told), "{}", plain(&double));
        let unsaid = with([None, None]);
        assert!(verdict_text(&unsaid).ends_with("is not itself behind another NAT"), "{}", plain(&unsaid));
    }

    #[test]
    fn what_was_not_asked_is_not_taken_for_missing() {
        let mut found = found();
        found.report.translates = Finding::Unknown("nothing is known of IPv4".to_owned());
        found.report.ipv4 = Finding::Unknown("no server answered over IPv4".to_owned());
        assert!(verdict_text(&found).starts_with("no IPv4: direct with friends who have IPv6"));
        found.report.servers[0].server = "[2001:db8::1]:3478".parse().expect("address");
        found.report.ipv4 = Finding::Unknown("no server with an IPv4 address was asked".to_owned());
        assert!(verdict_text(&found).ends_with("cannot be told: no server with an IPv4 address was asked"));
        found.report.udp = Finding::Unknown("no server could be asked: this machine has no IPv6".to_owned());
        assert_eq!(verdict_text(&found), "no server could be asked: this machine has no IPv6");
    }

    #[test]
    fn a_lifetime_is_shown_where_it_was_asked_for_and_a_routers_words_are_harmless() {
        let mut found = found();
        found.lifetime = true;
        let lifetime = Lifetime { least: Duration::from_secs(29), most: Some(Duration::from_secs(44)) };
        found.report.lifetime = Finding::Known(lifetime);
        found.offers.as_mut().expect("known").protocols[2].1 = Offer::No("\u{1b}[2Jno".to_owned());
        let text = text(&found);
        assert!(text.contains("29 to 44 s") && text.contains("says by UPnP: \u{fffd}[2Jno"), "{text}");
    }
}
