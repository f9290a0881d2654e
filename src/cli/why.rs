//! `punchlan why`: the evidence in order, one cause, and the one thing that helps.

use std::fmt::Write as _;

use super::args::Why as Args;
use super::daemons::{PATIENCE, select, unexpected};
use super::output::{GOOD, NOTABLE, bold, harmless, styled};
use super::ping::{describe_path, find, milliseconds};
use super::{Failure, block_on, output};
use crate::control::{Request, Response};
use crate::node::status::{PathKind, PeerState};
use crate::node::why::{CarrierState, Cause, Search, SearchState, Side, Tried, Why};

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    block_on(async {
        let mut daemon = select(&args.select).await?;
        let peer = find(&daemon.status, &args.peer)?.name.clone();
        match daemon.client.ask(&Request::Why { peer }, PATIENCE).await? {
            Response::Why { why } if args.json => output::answer(
                &serde_json::to_string_pretty(&why)
                    .map_err(|error| Failure::Failed(format!("the answer has no JSON form: {error}")))?,
            ),
            Response::Why { why } => output::answer(&for_people(&why)),
            Response::Refused { code, text } => Err(Failure::refused(code, &text)),
            other => Err(unexpected(&other)),
        }
    })
}

fn for_people(why: &Why) -> String {
    let mut rows = vec![["this machine".to_owned(), behind(&why.here)], [why.peer.name.clone(), behind(&why.there)]];
    for (i, tried) in why.tried.iter().enumerate() {
        let what = if i == 0 { "direct ways".to_owned() } else { String::new() };
        rows.push([what, way(tried)]);
    }
    rows.extend(why.search.as_ref().map(|search| ["search over ports".to_owned(), searched(search)]));
    rows.extend(why.tcp.as_ref().map(|tcp| ["connections by TCP".to_owned(), connected(tcp)]));
    rows.extend(why.here.nat.port_mapping.as_ref().map(|said| ["port mapping here".to_owned(), harmless(said)]));
    for (i, carrier) in why.carriers.iter().enumerate() {
        let what = if i == 0 { "other members".to_owned() } else { String::new() };
        rows.push([what, format!("{} {}", carrier.name, carries(carrier.state))]);
    }
    rows.push(["in use".to_owned(), in_use(why)]);
    let mut text = output::table(["what was looked at", "what came of it"], rows);
    let style = if why.cause == Cause::Direct { GOOD } else { NOTABLE };
    let (cause, help) = explain(why);
    let _ = write!(text, "\n{} {}", bold("Why:"), styled(style, &cause));
    if let Some(help) = help {
        let _ = write!(text, "\n{} {help}", bold("What helps:"));
    }
    text
}

/// What an end is behind, as far as it is known.
fn behind(side: &Side) -> String {
    let families = match (side.ipv4, side.ipv6) {
        (true, true) => "IPv4 and IPv6",
        (true, false) => "IPv4 alone",
        (false, true) => "IPv6 alone",
        (false, false) => "no address known",
    };
    let nat = &side.nat;
    let port = match side.changes_port {
        Some(true) => match nat.allocation.as_deref() {
            Some(allocation) => format!("a router that shows each friend another port ({})", harmless(allocation)),
            None => "a router that shows each friend another port".to_owned(),
        },
        Some(false) if nat.mapping.as_deref() == Some("none") => "no router that translates".to_owned(),
        Some(false) => "a router that shows all friends one port".to_owned(),
        None => "its router is not known yet".to_owned(),
    };
    let filter = nat.filtering.as_deref().map(|filtering| match filtering {
        "endpoint-independent" => ", lets everybody in",
        _ => ", lets in who was written to",
    });
    let mapped = if side.mapped { ", and maps a port for punchlan" } else { "" };
    format!("{families}; {port}{}{mapped}", filter.unwrap_or_default())
}

fn way(tried: &Tried) -> String {
    let came = match (tried.answered, tried.narrow, tried.heard) {
        (true, true, _) => "answers small packets alone",
        (true, false, _) => "answers",
        (false, _, true) => "its probes come, ours get no answer",
        (false, _, false) if tried.sent == 0 => "not tried yet",
        (false, _, false) => "no answer",
    };
    let kind = match tried.kind {
        PathKind::Host => "its own",
        PathKind::Mapped => "mapped by its router",
        PathKind::Reflexive => "as a rendezvous sees it",
        PathKind::PeerReflexive => "as it came here",
        PathKind::Predicted => "guessed",
        PathKind::Relay => "a relay's",
    };
    format!("{} ({kind}): {} probes, {came}", tried.address, tried.sent)
}

fn searched(search: &Search) -> String {
    let ago = search.ago_s.map(|seconds| format!(", {} ago", age(seconds))).unwrap_or_default();
    let what = match search.state {
        SearchState::Running => "goes on, or waits for its turn",
        SearchState::Found => "found the way that is used",
        SearchState::InVain => "none that was tried fitted",
        SearchState::Hopeless => "not begun: both sides have too many ports",
        SearchState::Unknown => "not begun: how the router here gives ports could not be found out",
        SearchState::Unanswered => "not begun: the other side was busy",
        SearchState::Theirs => "is the other side's: the port here is the same for all",
    };
    format!("{what}{ago}")
}

fn connected(tcp: &Search) -> String {
    let ago = tcp.ago_s.map(|seconds| format!(", {} ago", age(seconds))).unwrap_or_default();
    match tcp.state {
        SearchState::Running => "being tried, from both sides at once".to_owned(),
        SearchState::Found => "one stands, and is used".to_owned(),
        _ => format!("tried from both sides at once: none came about{ago}"),
    }
}

fn carries(state: CarrierState) -> &'static str {
    match state {
        CarrierState::Carries => "relays between you",
        CarrierState::Asked => "was asked to relay, and has not answered",
        CarrierState::NoWay => "has no direct way to both of you",
        CarrierState::NotOffered => "could relay, and is told not to",
        CarrierState::Full => "relays for as many as it may",
        CarrierState::Throttled => "relays less than was sent",
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        s if s < 120 => format!("{s} s"),
        s => format!("{} min", s / 60),
    }
}

fn in_use(why: &Why) -> String {
    let peer = &why.peer;
    let path = peer.path.as_ref().map(describe_path);
    let rtt = peer.rtt_ms.map(|ms| format!(", {}", milliseconds(ms))).unwrap_or_default();
    match (peer.state, path) {
        (PeerState::Offline, _) => "nothing: it is offline".to_owned(),
        (PeerState::Connecting, _) => "nothing yet".to_owned(),
        (_, Some(path)) => format!("{path}{rtt}"),
        (_, None) => "nothing yet".to_owned(),
    }
}

/// The cause, and what helps.
fn explain(why: &Why) -> (String, Option<String>) {
    let (me, peer) = ("this machine", why.peer.name.as_str());
    let v6 = if why.here.ipv6 && why.there.ipv6 { "" } else { "; or IPv6 on both sides" };
    let third = carrier_wanted(why);
    let upnp =
        |whose: &str| format!("switch on UPnP (or PCP, NAT-PMP) in {whose}, if it is yours to change{v6}{third}");
    let (cause, help) = match why.cause {
        Cause::Direct if why.peer.path.as_ref().is_some_and(|path| path.transport == "tcp") => {
            let whose = match (why.here.udp_blocked, why.there.udp_blocked) {
                (true, true) => "neither network lets UDP out".to_owned(),
                (false, true) => format!("the network of {peer} lets no UDP out"),
                (true, false) => "the network here lets no UDP out".to_owned(),
                (false, false) => "no way was found by UDP".to_owned(),
            };
            let help = "UDP on both sides: what is lost then holds up nothing behind it".to_owned();
            let is_blocked = why.here.udp_blocked || why.there.udp_blocked;
            (format!("{peer} is reached directly by TCP, for {whose}"), is_blocked.then_some(help))
        }
        Cause::Direct => (format!("{peer} is reached directly"), None),
        Cause::Offline => (
            format!("{peer} is not there"),
            Some(format!("`sudo punchlan up` on {peer}; is it up, compare `key` and `rendezvous` in both net.toml")),
        ),
        Cause::NoRendezvous => (
            "no rendezvous answers this machine, and nothing else leads there".to_owned(),
            Some("`punchlan netcheck` says whether UDP passes here; else look after the rendezvous".to_owned()),
        ),
        Cause::NoSession => (
            format!("{peer} is known to be there, and no handshake with it has come through"),
            Some(format!("wait some seconds; then run `punchlan status` here and on {peer}, and read its warnings")),
        ),
        Cause::Trying => {
            ("direct ways are being tried".to_owned(), Some("wait some seconds, and ask again".to_owned()))
        }
        Cause::NoCommonFamily => {
            let alone = |side: &Side| if side.ipv4 { "IPv4" } else { "IPv6" };
            let [here, there] = [&why.here, &why.there].map(alone);
            (
                format!("{me} has {here} alone and {peer} {there} alone"),
                Some(format!("{there} for {me}, or {here} for {peer}")),
            )
        }
        Cause::UdpBlockedHere => (
            "no rendezvous answers this machine by UDP, so all goes through one by TCP: the network here lets no UDP out, or the \
             rendezvous' UDP port is closed"
                .to_owned(),
            Some(
                "another network (a phone's, say), a firewall here that is to let UDP out, or UDP opened where the \
                 rendezvous is"
                    .to_owned(),
            ),
        ),
        Cause::UdpBlockedThere => (
            format!(
                "{peer} is with the rendezvous by TCP, so all that goes there goes through that: its network lets no UDP \
                 out, or it does not reach the rendezvous by UDP"
            ),
            Some(format!(
                "another network for {peer} (a phone's, say), a firewall there that is to let UDP out, or a rendezvous in \
                 its net.toml that is not by TCP alone"
            )),
        ),
        Cause::BothSymmetric => (
            "both routers show each friend another port, and a search for two that fit leads nowhere".to_owned(),
            Some(upnp("one of both routers")),
        ),
        Cause::SymmetricHere => (symmetric("the router here", why), Some(upnp("the router here"))),
        Cause::SymmetricThere => (symmetric(&format!("{peer}'s router"), why), Some(upnp("that router"))),
        Cause::Narrow => (
            "a direct way carries small packets alone".to_owned(),
            Some("a larger MTU on the line between (a VPN or tunnel below punchlan makes it small)".to_owned()),
        ),
        Cause::BlockedThere => (
            format!("packets from {peer} arrive here, and ours do not arrive there"),
            Some(format!("a firewall on {peer} or in its router is to let punchlan's UDP in")),
        ),
        Cause::Blocked => (
            format!("nothing that {peer} sends directly arrives here, though both routers should let it through"),
            Some("a firewall on one of both machines, or in an office or a hotel, is to let UDP through".to_owned()),
        ),
        Cause::Unknown => (
            "nothing comes directly, and what one of the two routers does is not known".to_owned(),
            Some(format!("ask again in half a minute; `punchlan netcheck` on both, here and on {peer}, tells more")),
        ),
    };
    (harmless(&cause), help.map(|help| harmless(&help)))
}

/// A third member may be a shorter way than the rendezvous.
fn carrier_wanted(why: &Why) -> String {
    let first = |state| why.carriers.iter().find(|carrier| carrier.state == state);
    match first(CarrierState::NotOffered) {
        _ if first(CarrierState::Carries).is_some() => String::new(),
        Some(carrier) => {
            format!("; or `offer = true` under [relay] in the net.toml of {}, who then relays", carrier.name)
        }
        None => "; a member with a public address would relay".to_owned(),
    }
}

fn symmetric(whose: &str, why: &Why) -> String {
    let tried = match why.search.as_ref().map(|search| search.state) {
        Some(SearchState::InVain) => ", and of those that were tried none fitted; it is tried again, ever more seldom",
        Some(SearchState::Running) => ", and a search for one that fits goes on",
        Some(SearchState::Theirs) => ", and the search that it began has found none that fits so far",
        Some(SearchState::Unanswered) => ", and for a search the other side was busy; it is tried again",
        Some(SearchState::Unknown | SearchState::Hopeless | SearchState::Found) | None => {
            ", and a search for one that fits could not be begun"
        }
    };
    format!("{whose} shows each friend another port{tried}")
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::status;
    use super::*;
    use crate::node::status::Nat;
    use crate::node::why::MayCarry;

    fn why(cause: Cause) -> Why {
        let mut peer = status().peers.remove(0);
        (peer.name, peer.state) = ("bob".to_owned(), PeerState::Relayed);
        if let Some(path) = &mut peer.path {
            (path.kind, path.relay) = (PathKind::Relay, Some("play.example.org:3478".to_owned()));
        }
        let nat = |mapping: &str, allocation: &str| Nat {
            mapping: Some(mapping.to_owned()),
            filtering: Some("address-and-port-dependent".to_owned()),
            allocation: Some(allocation.to_owned()),
            ..Nat::default()
        };
        let side = |changes, nat| Side { nat, changes_port: Some(changes), ipv4: true, ..Side::default() };
        let mut here = side(true, nat("address-and-port-dependent", "random"));
        here.nat.port_mapping = Some("none: the router 192.168.0.1 answers by none of PCP, NAT-PMP, UPnP".to_owned());
        let address = "203.0.113.9:41641".parse().expect("address");
        let kind = PathKind::Reflexive;
        Why {
            schema: 1,
            me: "alice".to_owned(),
            peer,
            here,
            there: side(false, nat("endpoint-independent", "preserved")),
            tried: vec![Tried { kind, address, sent: 12, heard: false, answered: false, narrow: false }],
            search: Some(Search { state: SearchState::InVain, ago_s: Some(125) }),
            tcp: None,
            carriers: vec![MayCarry { name: "carol".to_owned(), state: CarrierState::NoWay }],
            cause,
        }
    }

    fn plain(why: &Why) -> String {
        anstream::adapter::strip_str(&for_people(why)).to_string()
    }

    #[test]
    fn the_evidence_comes_first_then_the_cause_then_what_helps() {
        let expected = "\
what was looked at  what came of it
this machine        IPv4 alone; a router that shows each friend another port (random), lets in who was written to
bob                 IPv4 alone; a router that shows all friends one port, lets in who was written to
direct ways         203.0.113.9:41641 (as a rendezvous sees it): 12 probes, no answer
search over ports   none that was tried fitted, 2 min ago
port mapping here   none: the router 192.168.0.1 answers by none of PCP, NAT-PMP, UPnP
other members       carol has no direct way to both of you
in use              relayed through play.example.org:3478, 0.8 ms

Why: the router here shows each friend another port, and of those that were tried none fitted; it is tried again, ever more seldom
What helps: switch on UPnP (or PCP, NAT-PMP) in the router here, if it is yours to change; or IPv6 on both sides; a member with a public address would relay";
        assert_eq!(plain(&why(Cause::SymmetricHere)), expected, "\n{}", plain(&why(Cause::SymmetricHere)));
    }

    #[test]
    fn a_connection_with_the_peer_itself_is_named_and_so_is_one_that_did_not_come_about() {
        let mut by_tcp = why(Cause::Direct);
        by_tcp.there.udp_blocked = true;
        by_tcp.tcp = Some(Search { state: SearchState::Found, ago_s: None });
        by_tcp.peer.path.as_mut().expect("a path").transport = "tcp".to_owned();
        let said = plain(&by_tcp);
        assert!(said.contains("connections by TCP  one stands, and is used"), "{said}");
        assert!(said.contains("Why: bob is reached directly by TCP, for the network of bob lets no UDP out"), "{said}");
        let mut relayed = why(Cause::UdpBlockedHere);
        relayed.tcp = Some(Search { state: SearchState::InVain, ago_s: Some(30) });
        let said = plain(&relayed);
        assert!(
            said.contains("connections by TCP  tried from both sides at once: none came about, 30 s ago"),
            "{said}"
        );
    }

    #[test]
    fn a_member_that_could_relay_is_named_and_one_that_does_is_enough() {
        let mut both = why(Cause::BothSymmetric);
        both.carriers.push(MayCarry { name: "dave".to_owned(), state: CarrierState::NotOffered });
        let said = plain(&both);
        assert!(said.ends_with("; or `offer = true` under [relay] in the net.toml of dave, who then relays"), "{said}");
        both.carriers[0].state = CarrierState::Carries;
        let said = plain(&both);
        assert!(said.contains("carol relays between you") && said.ends_with("; or IPv6 on both sides"), "{said}");
    }

    #[test]
    fn every_cause_has_a_sentence_and_all_but_one_something_that_helps() {
        use Cause::{
            Blocked, BlockedThere, BothSymmetric, Direct, Narrow, NoCommonFamily, NoRendezvous, NoSession, Offline,
            SymmetricHere, SymmetricThere, Trying, UdpBlockedHere, UdpBlockedThere, Unknown,
        };
        let all = [
            Offline,
            NoSession,
            NoRendezvous,
            Trying,
            NoCommonFamily,
            BothSymmetric,
            SymmetricHere,
            SymmetricThere,
            Narrow,
            UdpBlockedHere,
            UdpBlockedThere,
            BlockedThere,
            Unknown,
            Blocked,
        ];
        for cause in all {
            let said = plain(&why(cause));
            assert!(said.contains("\nWhy: ") && said.contains("\nWhat helps: "), "{cause:?}: {said}");
        }
        assert!(plain(&why(Direct)).ends_with("Why: bob is reached directly"));
        let mut one_family = why(NoCommonFamily);
        (one_family.there.ipv4, one_family.there.ipv6) = (false, true);
        assert!(plain(&one_family).ends_with(
            "Why: this machine has IPv4 alone and bob IPv6 alone\nWhat helps: IPv6 for this machine, or IPv4 for bob"
        ));
    }
}
