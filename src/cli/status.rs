//! `punchlan status`: who is here, and how they are reached.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::presets;
use comfy_table::{CellAlignment, Table};

use super::args;
use super::daemons::select;
use super::output::{FAINT, GOOD, NOTABLE, bold, harmless, styled};
use super::ping::{describe_path, milliseconds};
use super::{Failure, block_on, output};
use crate::io::signal;
use crate::node::status::{Carries, Dns, DnsBy, Nat, Peer, PeerState, Rendezvous, RendezvousState, Status};

/// Between two looks of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);
/// Moves to the top of an empty screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(args: &args::Status) -> Result<(), Failure> {
    block_on(async {
        if args.watch {
            let stop = signal::stop().map_err(|error| Failure::Failed(format!("signals cannot be caught: {error}")))?;
            return tokio::select! {
                ended = watch(args) => ended,
                _ = stop => Ok(()),
            };
        }
        let status = select(&args.select).await?.status;
        output::answer(&if args.json { json(serde_json::to_string_pretty(&status))? } else { for_people(&status) })
    })
}

/// Looks again and again, for as long as somebody reads and the daemon runs.
async fn watch(args: &args::Status) -> Result<(), Failure> {
    let clear = if output::is_terminal() { CLEAR } else { "" };
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let status = select(&args.select).await?.status;
        let text = match args.json {
            true => json(serde_json::to_string(&status))?,
            false => format!("{clear}{}\n", for_people(&status)),
        };
        if !output::answer_reader(&text)? {
            return Ok(());
        }
    }
}

fn json(text: serde_json::Result<String>) -> Result<String, Failure> {
    text.map_err(|error| Failure::Failed(format!("the status has no JSON form: {error}")))
}

fn for_people(status: &Status) -> String {
    let mut text = me(status);
    let mut said = Vec::new();
    for server in &status.rendezvous {
        // What keeps us from one is its line.
        let start = format!("rendezvous {}: ", server.address);
        let trouble = status.warnings.iter().filter(|_| server.state != RendezvousState::Registered);
        let trouble = trouble.filter(|warning| warning.code == "rendezvous").find(|w| w.text.starts_with(&start));
        said.extend(trouble);
        let line = trouble.map(|warning| start.clone() + &styled(NOTABLE, &harmless(&warning.text[start.len()..])));
        let _ = writeln!(text, "{}", line.unwrap_or_else(|| rendezvous(server)));
    }
    text.extend(status.network.dns.as_ref().and_then(|dns| names(&status.me.name, dns)));
    text.extend(nat(&status.me.nat));
    text.extend(status.me.nat.port_mapping.as_deref().map(port_mapping));
    text.extend(carries(status.me.carries));
    text.push('\n');
    if status.peers.is_empty() {
        text.push_str(&nobody(status.network.denied));
    } else {
        text.push_str(&peers(&status.peers));
    }
    for (i, warning) in status.warnings.iter().filter(|warning| !said.contains(warning)).enumerate() {
        let gap = if i == 0 { "\n" } else { "" };
        let _ = writeln!(text, "{gap}{}: {}", styled(NOTABLE, "warning"), harmless(&warning.text));
    }
    text
}

/// What to do when the list is empty.
fn nobody(denied: usize) -> String {
    let denied = match denied {
        0 => String::new(),
        1 => " One device is refused (`deny` in net.toml).".to_owned(),
        n => format!(" {n} devices are refused (`deny` in net.toml)."),
    };
    format!(
        "Nobody else is here.{denied} `punchlan invite` makes a link for a friend.\n\
         Is a friend up and not in this list? Compare `key` and `rendezvous` in both net.toml.\n"
    )
}

/// `friday: you are alice, 10.77.0.1 (interface punch0)`
fn me(status: &Status) -> String {
    let (network, me) = (&status.network, &status.me);
    let address = me.addresses.first().map_or("without an address".to_owned(), ToString::to_string);
    let interface = network.interface.as_ref().map(|name| format!(" (interface {name})")).unwrap_or_default();
    let mut text = format!("{}: you are {}, {address}{interface}\n", bold(&network.name), bold(&me.name));
    if let [_, others @ ..] = me.addresses.as_slice() {
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        if !others.is_empty() {
            let _ = writeln!(text, "{}", styled(FAINT, &format!("also {}", others.join(", "))));
        }
    }
    text
}

fn rendezvous(server: &Rendezvous) -> String {
    let rtt = server.rtt_ms.map(|ms| format!(", {}", milliseconds(ms))).unwrap_or_default();
    let state = match server.state {
        RendezvousState::Registered => styled(GOOD, "registered") + &rtt,
        RendezvousState::Resolving => styled(NOTABLE, "its name is being looked up"),
        RendezvousState::Registering => styled(NOTABLE, "no answer yet"),
        RendezvousState::Unreachable => styled(NOTABLE, "no answer"),
        RendezvousState::Refused => styled(NOTABLE, "not registered"),
    };
    format!("rendezvous {}: {state}", server.address)
}

/// What programs here call this machine, and how they come to know that.
fn names(me: &str, dns: &Dns) -> Option<String> {
    let me = bold(&format!("{me}.{}", dns.domain));
    Some(match dns.by? {
        DnsBy::SystemdResolved => format!("names: {me} by systemd-resolved\n"),
        DnsBy::Hosts => format!("names: {me} by /etc/hosts\n"),
        DnsBy::Nothing => {
            let servers: Vec<String> = dns.servers.iter().map(ToString::to_string).collect();
            format!("names: {me} for those who ask {}\n", servers.join(" or "))
        }
        DnsBy::Off => styled(FAINT, "names: off") + "\n",
    })
}

/// What the NAT does, as far as it is known. `punchlan netcheck` says what that means.
fn nat(nat: &Nat) -> Option<String> {
    let said = |what: &str, found: &Option<String>| found.as_deref().map(|found| format!("{what} {}", harmless(found)));
    let known: Vec<String> =
        [said("mapping", &nat.mapping), said("filtering", &nat.filtering), said("ports", &nat.allocation)]
            .into_iter()
            .flatten()
            .collect();
    (!known.is_empty()).then(|| format!("NAT: {}\n", known.join(", ")))
}

/// What the router does for us. That it does nothing is worth a look, but no worry: most friends are reached without.
fn port_mapping(said: &str) -> String {
    let line = format!("port mapping: {}", harmless(said));
    let nothing = ["none: ", "off: "].iter().any(|word| said.starts_with(word));
    format!("{}\n", if nothing { styled(FAINT, &line) } else { line })
}

/// What goes over this machine's line for others.
fn carries(Carries { pairs, bytes: carried }: Carries) -> Option<String> {
    let of = if pairs == 1 { "one pair of members" } else { "pairs of members" };
    let number = if pairs == 1 { String::new() } else { format!("{pairs} ") };
    (pairs > 0).then(|| format!("relays for {number}{of}: {} so far\n", bytes(carried)))
}

const HEADINGS: [&str; 7] = ["name", "address", "path", "round trip", "loss", "sent", "received"];

/// The peers, a line each.
fn peers(peers: &[Peer]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(HEADINGS);
    for peer in peers {
        table.add_row(cells(peer));
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        let padding = if i == 0 { 0 } else { 2 };
        column.set_padding((padding, 0));
        column.set_cell_alignment(if i < 3 { CellAlignment::Left } else { CellAlignment::Right });
    }
    let mut text = String::new();
    for (i, line) in table.lines().enumerate() {
        let line = line.trim_end();
        let style = match i.checked_sub(1).and_then(|i| peers.get(i)).map(|peer| peer.state) {
            None => Some(FAINT),
            Some(PeerState::Offline) => Some(FAINT),
            Some(PeerState::Connecting | PeerState::Relayed) => Some(NOTABLE),
            Some(PeerState::Direct) => None,
        };
        let _ = writeln!(text, "{}", style.map_or(line.to_owned(), |style| styled(style, line)));
    }
    text
}

fn cells(peer: &Peer) -> [String; 7] {
    let address = peer.addresses.first().map(ToString::to_string).unwrap_or_default();
    let way = peer.path.as_ref().map(describe_path);
    let path = match peer.state {
        PeerState::Offline => "offline".to_owned(),
        PeerState::Connecting => "connecting".to_owned(),
        PeerState::Relayed => way.unwrap_or_else(|| "relayed".to_owned()),
        PeerState::Direct => way.unwrap_or_else(|| "direct".to_owned()),
    };
    let is_here = peer.path.is_some() && peer.state != PeerState::Offline;
    let rtt = peer.rtt_ms.filter(|_| is_here).map(milliseconds).unwrap_or_default();
    let loss = peer.loss.filter(|_| is_here).map(percent).unwrap_or_default();
    [peer.name.clone(), address, path, rtt, loss, bytes(peer.tx_bytes), bytes(peer.rx_bytes)]
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p > 0.0 && p < 10.0 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

/// A number of bytes with three digits.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let (mut value, mut unit) = (n, 0);
    while value >= 1_000_000 && unit + 1 < UNITS.len() {
        value /= 1000;
        unit += 1;
    }
    // `value` is thousandths of the unit.
    match value {
        0..10_000 => format!("{}.{:02} {}", value / 1000, value % 1000 / 10, UNITS[unit]),
        10_000..100_000 => format!("{}.{} {}", value / 1000, value % 1000 / 100, UNITS[unit]),
        _ => format!("{} {}", value / 1000, UNITS[unit]),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::id::{NetworkId, PeerId};
    use crate::node::status::{Counters, Me, Network, Path, PathKind, SCHEMA, Warning};

    /// alice in friday, with bob.
    pub(in crate::cli) fn status() -> Status {
        let ip = |text: &str| text.parse().expect("address");
        let path = Path {
            kind: PathKind::Reflexive,
            transport: "udp".into(),
            family: "ipv4".into(),
            local: None,
            remote: "203.0.113.9:41641".parse().expect("address"),
            relay: None,
        };
        let bob = Peer {
            name: "bob".into(),
            id: PeerId([2; 32]),
            addresses: vec![ip("10.77.0.2"), ip("fd00::2")],
            state: PeerState::Direct,
            path: Some(path),
            rtt_ms: Some(0.8),
            jitter_ms: None,
            loss: Some(0.0),
            tx_bytes: 1_234_567,
            rx_bytes: 0,
            handshake_age_s: None,
            direct_after_ms: None,
            cipher: None,
        };
        Status {
            schema: SCHEMA,
            version: "0".into(),
            network: Network {
                name: "friday".into(),
                id: NetworkId([1; 32]),
                interface: Some("punch0".into()),
                subnet: "10.77.0.0/24".parse().expect("prefix"),
                mtu: 1400,
                denied: 0,
                dns: None,
            },
            me: Me {
                name: "alice".into(),
                id: PeerId([1; 32]),
                addresses: vec![ip("10.77.0.1"), ip("fd00::1")],
                candidates: Vec::new(),
                nat: Nat::default(),
                carries: Carries::default(),
            },
            rendezvous: vec![Rendezvous {
                address: "play.example.org:3478".into(),
                transport: "udp".into(),
                state: RendezvousState::Registered,
                rtt_ms: Some(1.2),
            }],
            peers: vec![bob],
            warnings: Vec::new(),
            lan: None,
            counters: Counters::default(),
        }
    }

    fn plain(status: &Status) -> String {
        anstream::adapter::strip_str(&for_people(status)).to_string()
    }

    #[test]
    fn the_table_says_who_is_here_and_how() {
        let mut status = status();
        let mut carol = status.peers[0].clone();
        carol.name = "carol-with-a-long-name".into();
        carol.addresses = vec!["10.77.0.103".parse().expect("address")];
        carol.state = PeerState::Relayed;
        let path = carol.path.as_mut().expect("a path");
        (path.kind, path.relay) = (PathKind::Relay, Some("play.example.org:3478".into()));
        (carol.rtt_ms, carol.loss) = (Some(141.3), Some(0.05));
        let mut dave = status.peers[0].clone();
        (dave.name, dave.state) = ("dave".into(), PeerState::Offline);
        status.peers.extend([carol, dave]);
        status.warnings =
            vec![Warning { code: "x".into(), text: "Something is odd.".into(), since: "2026-11-21T20:00:00Z".into() }];
        let expected = "\
friday: you are alice, 10.77.0.1 (interface punch0)
also fd00::1
rendezvous play.example.org:3478: registered, 1.2 ms

name                    address      path                                   round trip   loss     sent  received
bob                     10.77.0.2    direct 203.0.113.9:41641                   0.8 ms    0 %  1.23 MB       0 B
carol-with-a-long-name  10.77.0.103  relayed through play.example.org:3478      141 ms  5.0 %  1.23 MB       0 B
dave                    10.77.0.2    offline                                                   1.23 MB       0 B

warning: Something is odd.
";
        assert_eq!(plain(&status), expected, "\n{}", plain(&status));
    }

    #[test]
    fn what_this_machine_is_called_and_how_that_is_known_has_a_line() {
        let mut status = status();
        let servers = vec!["10.77.0.1:1053".parse().expect("address")];
        for (by, line) in [
            (DnsBy::SystemdResolved, "names: alice.friday.internal by systemd-resolved"),
            (DnsBy::Hosts, "names: alice.friday.internal by /etc/hosts"),
            (DnsBy::Nothing, "names: alice.friday.internal for those who ask 10.77.0.1:1053"),
            (DnsBy::Off, "names: off"),
        ] {
            let domain = "friday.internal".to_owned();
            status.network.dns = Some(Dns { domain, by: Some(by), servers: servers.clone() });
            assert!(plain(&status).contains(&format!("\n{line}\n\n")), "{}", plain(&status));
        }
    }

    #[test]
    fn what_the_router_maps_has_a_line() {
        let mut status = status();
        for said in ["11.0.0.2:4000 by PCP of the router 192.168.1.1", "none: the router \u{1b}[2J is silent"] {
            status.me.nat.port_mapping = Some(said.to_owned());
            assert!(plain(&status).contains(&format!("\nport mapping: {}\n\n", harmless(said))), "{}", plain(&status));
        }
    }

    #[test]
    fn what_goes_over_the_line_for_others_has_a_line() {
        let mut status = status();
        status.me.carries = Carries { pairs: 1, bytes: 1_234_567 };
        assert!(plain(&status).contains("\nrelays for one pair of members: 1.23 MB so far\n\n"), "{}", plain(&status));
        status.me.carries.pairs = 3;
        assert!(plain(&status).contains("\nrelays for 3 pairs of members: 1.23 MB so far\n\n"), "{}", plain(&status));
    }

    #[test]
    fn what_is_known_of_the_nat_has_a_line() {
        let mut status = status();
        status.me.nat.filtering = Some("address-dependent".to_owned());
        assert!(plain(&status).contains("\nNAT: filtering address-dependent\n\n"), "{}", plain(&status));
        status.me.nat.mapping = Some("endpoint-independent".to_owned());
        status.me.nat.allocation = Some("sequential, step 1".to_owned());
        let line = "NAT: mapping endpoint-independent, filtering address-dependent, ports sequential, step 1";
        assert!(plain(&status).contains(line), "{}", plain(&status));
    }

    #[test]
    fn an_empty_network_says_how_to_fill_it() {
        let mut status = status();
        status.peers.clear();
        status.warnings =
            vec![Warning { code: "x".into(), text: "\u{1b}[2Jboo".into(), since: "2026-11-21T20:00:00Z".into() }];
        assert!(!for_people(&status).contains("\u{1b}[2J"));
        let said = plain(&status);
        assert!(said.contains("punchlan invite") && said.contains("Compare `key`"), "{said}");
        assert!(!said.contains("refused"), "{said}");
        status.network.denied = 1;
        assert!(plain(&status).contains("One device is refused"), "{}", plain(&status));
    }

    #[test]
    fn what_keeps_us_from_a_rendezvous_is_its_line_and_is_said_once() {
        let mut status = status();
        let text = "rendezvous play.example.org:3478: play.example.org does not resolve; check how it is spelled";
        let warning =
            |text: &str| Warning { code: "rendezvous".into(), text: text.into(), since: "2026-11-21T20:00:00Z".into() };
        status.warnings = vec![warning(text)];
        status.rendezvous[0].state = RendezvousState::Resolving;
        let said = plain(&status);
        assert!(said.contains(&format!("\n{text}\n")) && !said.contains("warning"), "{said}");
        status.rendezvous[0].state = RendezvousState::Registered;
        let said = plain(&status);
        assert!(said.contains(": registered, 1.2 ms\n") && said.contains(&format!("warning: {text}")), "{said}");
    }

    #[test]
    fn bytes_are_shown_with_three_digits() {
        let shown = [0, 999, 1000, 9_999, 10_000, 99_999, 123_456, 999_999, 1_000_000, u64::MAX].map(bytes);
        let expected =
            ["0 B", "999 B", "1.00 kB", "9.99 kB", "10.0 kB", "99.9 kB", "123 kB", "999 kB", "1.00 MB", "18446 PB"];
        assert_eq!(shown, expected);
    }
}
