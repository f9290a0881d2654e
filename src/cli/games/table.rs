//! The tables for people: this machine, the members, who is there to play; and what stands in the way.

use std::fmt::Write as _;

use super::super::output::{self, GOOD, NOTABLE, bold, harmless, styled};
use super::super::ping::{describe_path, milliseconds};
use super::findings::{Finding, games, word};
use super::{Announced, By, Looked, Member, Who};
use crate::io::doctor::round_trip::WAYS;
use crate::node::status::PeerState;

pub(super) fn text(looked: &Looked, findings: &[Finding]) -> String {
    let mut text = output::table(["this machine", ""], machine(looked));
    text.push('\n');
    text += &match looked.members.is_empty() {
        true => "Nobody else is here now.\n".to_owned(),
        false => output::table(
            ["member", "reached", "255.255.255.255", "subnet", "multicast", "alone"],
            looked.members.iter().map(member),
        ),
    };
    text.push('\n');
    text += &match looked.announced.is_empty() {
        true if looked.seconds == 0 => String::new(),
        true => format!("Nobody was heard to offer anything within {} s.\n", looked.seconds),
        false => {
            output::table(["who", "by", "what it says", "players", "join at"], looked.announced.iter().map(announced))
        }
    };
    for unsaid in unknown(looked) {
        let _ = writeln!(text, "{}", styled(output::FAINT, &harmless(&unsaid)));
    }
    for finding in findings {
        let _ = write!(text, "\n{} {}", bold("Found:"), styled(NOTABLE, &harmless(&finding.text)));
        let _ = writeln!(text, "\n{} {}", bold("What to do:"), harmless(&finding.help));
    }
    if findings.is_empty() {
        let _ = write!(text, "\n{} {}", bold("Found:"), styled(GOOD, clean(looked)));
    }
    text
}

fn clean(looked: &Looked) -> &'static str {
    match looked.members.is_empty() {
        true => "nothing here stands in the way of games; whether it does at the others is seen when one is here",
        false => "nothing stands in the way of games: everybody who is here hears what is sent to all, and is heard",
    }
}

fn machine(looked: &Looked) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    let mut row = |what: &str, found: String| rows.push([what.to_owned(), found]);
    row("interface", interface(looked));
    if let Ok(Some(found)) = &looked.machine.interface {
        let routes: Vec<String> = found.routes.iter().map(|(net, metric)| format!("{net} (metric {metric})")).collect();
        row("routes to it", routes.join(", "));
    }
    if let Ok(leads) = &looked.machine.leads {
        let way =
            |(ip, by): &(std::net::IpAddr, Option<String>)| format!("{ip} by {}", by.as_deref().unwrap_or("no way"));
        row("sent to everybody", leads.iter().map(way).collect::<Vec<_>>().join(", "));
    }
    if let Some(lan) = &looked.status.lan {
        let on = |on: bool| if on { "on" } else { "off" };
        let allow = lan.allow.as_ref().map_or_else(
            || "everything".to_owned(),
            |ports| match ports.is_empty() {
                true => "answers alone".to_owned(),
                false => ports.join(" "),
            },
        );
        let switches =
            format!("broadcast {}, multicast {}, guard {}", on(lan.broadcast), on(lan.multicast), on(lan.guard));
        row("[lan]", format!("{switches}, lets in {allow}"));
    }
    row(
        "firewall",
        match &looked.firewall {
            Ok(blocked) if blocked.is_empty() => "lets members in".to_owned(),
            Ok(_) => "keeps members out".to_owned(),
            Err(why) => format!("not known: {why}"),
        },
    );
    if let Ok(listening) = &looked.machine.listening {
        let mut ports: Vec<String> = games(listening)
            .map(|(game, socket)| format!("{} {}/{}", game.name, socket.port, word(socket.protocol)))
            .collect();
        ports.dedup();
        if !ports.is_empty() {
            row("games' ports open", ports.join(", "));
        }
    }
    rows.into_iter().map(|row| row.map(|text| harmless(&text))).collect()
}

fn interface(looked: &Looked) -> String {
    let name = &looked.interface;
    match &looked.machine.interface {
        Err(why) => format!("{name} (not known: {why})"),
        Ok(None) => format!("{name}, gone"),
        Ok(Some(found)) => {
            let has = |has: bool, flag: &str| if has { flag.to_owned() } else { format!("no {flag}") };
            let mtu = found.mtu.map(|mtu| format!(", MTU {mtu}")).unwrap_or_default();
            let up = if found.up { "up" } else { "down" };
            format!("{name}, {up}, {}, {}{mtu}", has(found.broadcast, "broadcast"), has(found.multicast, "multicast"))
        }
    }
}

fn member(member: &Member) -> [String; 6] {
    let path = member.peer.path.as_ref().map(describe_path);
    let state = if member.peer.state == PeerState::Relayed { "relayed" } else { "direct" };
    let [limited, subnet, multicast, alone] = WAYS.map(|by| answered(member, by));
    [
        harmless(&member.peer.name),
        harmless(&path.unwrap_or_else(|| state.to_owned())),
        limited,
        subnet,
        multicast,
        alone,
    ]
}

fn answered(member: &Member, by: By) -> String {
    member.answered.get(&by).map_or_else(|| "no answer".to_owned(), |ms| milliseconds(*ms))
}

fn announced(announced: &Announced) -> [String; 5] {
    let Announced { who, found, from } = announced;
    let who = match who {
        Who::Member(name) => name.clone(),
        Who::Here => "this machine".to_owned(),
        Who::Lan => format!("{} on your real LAN", from.ip()),
    };
    let words = [Some(found.name.clone()).filter(|name| !name.is_empty()), found.game.clone(), found.map.clone()];
    let said: Vec<String> = words.into_iter().flatten().collect();
    let players = found.players.map(|[now, most]| format!("{now}/{most}")).unwrap_or_default();
    let join = announced.join().map(|addr| addr.to_string()).unwrap_or_default();
    [who, found.protocol.name().to_owned(), said.join(", "), players, join].map(|text| harmless(&text))
}

/// What could not be looked at.
fn unknown(looked: &Looked) -> Vec<String> {
    let unsent = looked.unsent.iter().map(|(_, why)| format!("not sent: {why}"));
    unsent.chain(looked.deaf.iter().map(|why| format!("not heard: {why}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::super::findings::tests::looked;
    use super::*;

    fn plain(looked: &Looked) -> String {
        anstream::adapter::strip_str(&text(looked, &findings::of(looked))).to_string()
    }

    #[test]
    fn everything_that_was_looked_at_is_shown_and_a_clean_result_is_one_line() {
        let expected = "\
this machine
interface          punch0, up, broadcast, multicast, MTU 1400
routes to it       10.77.0.0/24 (metric 0)
sent to everybody  255.255.255.255 by eth0, 224.0.2.60 by eth0, ff02::1 by eth0
[lan]              broadcast on, multicast on, guard off, lets in everything
firewall           lets members in
games' ports open  openttd 3979/udp

member  reached                   255.255.255.255  subnet   multicast  alone
bob     direct 203.0.113.9:41641  21.4 ms          20.9 ms  22.0 ms    0.8 ms

who  by         what it says     players  join at
bob  Minecraft  bob - New World           10.77.0.2:52417

Found: nothing stands in the way of games: everybody who is here hears what is sent to all, and is heard";
        let said = plain(&looked());
        assert_eq!(said, expected, "\n{said}");
    }

    #[test]
    fn what_stands_in_the_way_ends_in_what_to_do_and_what_is_unknown_is_said() {
        let mut looked = looked();
        looked.members[0].answered.clear();
        looked.announced.clear();
        looked.firewall = Err("only root may read it: sudo punchlan games".to_owned());
        looked.deaf.push("224.0.2.60:4445: in use".to_owned());
        let said = plain(&looked);
        assert!(
            said.contains("bob     direct 203.0.113.9:41641  no answer        no answer  no answer  no answer"),
            "{said}"
        );
        assert!(said.contains("firewall           not known: only root may read it: sudo punchlan games"), "{said}");
        assert!(said.contains("Nobody was heard to offer anything within 5 s."), "{said}");
        assert!(said.contains("\nnot heard: 224.0.2.60:4445: in use\n"), "{said}");
        assert!(
            said.contains("\nFound: bob is here (direct") && said.contains("\nWhat to do: punchlan games on bob"),
            "{said}"
        );
    }
}
