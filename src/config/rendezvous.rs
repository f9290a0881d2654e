//! rendezvous.toml: where a rendezvous listens, whom it serves, and how much.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::check::{Problems, check_log};
use super::names::{self, Names};
use super::report::{ConfigError, Problem};
use super::{DEFAULT_PORT, Wrong, file};
use crate::id::NetworkId;
use crate::node::config::WEB_PORT;
use crate::rendezvous::server::Rate;
use crate::server;

/// rendezvous.toml, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RendezvousFile {
    /// Where it is a web server as well.
    pub web: server::Web,
    /// Addresses to listen on; empty: the default.
    pub listen: Vec<SocketAddr>,
    /// What to log; `None`: the default.
    pub log: Option<String>,
    /// What is allowed.
    pub limits: server::Config,
}

/// The file as typed.
#[derive(Debug, Deserialize)]
struct Typed {
    #[serde(default)]
    listen: Vec<Spanned<String>>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    log: Option<Spanned<String>>,
    tls: Option<Spanned<Tls>>,
    websocket: Option<Spanned<Listen>>,
    #[serde(default)]
    limits: BTreeMap<String, Spanned<i64>>,
}

/// The section `[tls]` as typed.
#[derive(Debug, Deserialize)]
struct Tls {
    #[serde(default)]
    listen: Vec<Spanned<String>>,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
}

/// The section `[websocket]` as typed.
#[derive(Debug, Deserialize)]
struct Listen {
    #[serde(default)]
    listen: Vec<Spanned<String>>,
}

/// One number of the section `[limits]`.
struct Limit {
    key: &'static str,
    least: u32,
    most: u32,
    set: fn(&mut server::Config, u32),
}

const fn limit(key: &'static str, least: u32, most: u32, set: fn(&mut server::Config, u32)) -> Limit {
    Limit { key, least, most, set }
}

/// Ten million of anything is a gigabyte or more.
const MANY: u32 = 10_000_000;
/// A million datagrams a second is more than a machine takes.
const FAST: u32 = 1_000_000;
/// A terabit a second.
const WIDE: u32 = 1_000_000;

const LIMITS: &[Limit] = &[
    limit("members", 1, MANY, |c, n| c.registrations.registrations = count(n)),
    limit("members_per_network", 1, MANY, |c, n| c.registrations.per_network = count(n)),
    limit("members_per_prefix", 1, MANY, |c, n| c.registrations.per_prefix = count(n)),
    limit("hellos_per_second", 1, FAST, |c, n| scale(&mut c.registrations.hellos, n)),
    limit("hellos_per_second_per_prefix", 1, FAST, |c, n| scale(&mut c.registrations.hellos_per_prefix, n)),
    limit("registers_per_second", 1, FAST, |c, n| scale(&mut c.registrations.registers, n)),
    limit("registers_per_second_per_network", 1, FAST, |c, n| scale(&mut c.registrations.registers_per_network, n)),
    limit("registers_per_second_per_prefix", 1, FAST, |c, n| scale(&mut c.registrations.registers_per_prefix, n)),
    limit("stun_per_second", 1, FAST, |c, n| scale(&mut c.stun, n)),
    limit("stun_per_second_per_prefix", 1, FAST, |c, n| scale(&mut c.stun_per_prefix, n)),
    limit("relay_mbit", 1, WIDE, |c, n| c.relay.total_bytes = bytes_of_megabits(n)),
    limit("relay_mbit_per_network", 1, WIDE, |c, n| c.relay.network_bytes = bytes_of_megabits(n)),
    limit("relay_mbit_per_prefix", 1, WIDE, |c, n| c.relay.prefix_bytes = bytes_of_megabits(n)),
    limit("relay_channels", 0, MANY, |c, n| c.relay.channels = count(n)),
    limit("relay_channels_per_member", 1, MANY, |c, n| c.relay.channels_per_peer = count(n)),
    limit("streams", 0, server::MOST_STREAMS, |c, n| c.streams.all = n),
    limit("streams_per_prefix", 1, server::MOST_STREAMS, |c, n| c.streams.per_prefix = n),
    limit("ipv4_prefix", 8, 32, |c, n| c.registrations.v4_prefix = length(n)),
    limit("ipv6_prefix", 16, 128, |c, n| c.registrations.v6_prefix = length(n)),
];

fn count(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn length(n: u32) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

fn bytes_of_megabits(n: u32) -> u64 {
    u64::from(n) * 1_000_000 / 8
}

/// Another rate, with as many seconds' worth at once as before.
fn scale(rate: &mut Rate, per_second: u32) {
    let burst = u64::from(rate.burst) * u64::from(per_second) / u64::from(rate.per_second.max(1));
    *rate = Rate::new(per_second, u32::try_from(burst).unwrap_or(u32::MAX));
}

/// Reads and understands the rendezvous.toml at `path`.
///
/// # Errors
/// Everything that is wrong with it: exit code 2.
pub fn load_rendezvous(path: &Path) -> Result<RendezvousFile, ConfigError> {
    let text = file::read(path)?;
    parse_rendezvous_file(&path.display().to_string(), &text)
}

/// Understands the text of a rendezvous.toml; `shown_path` appears in errors.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_rendezvous_file(shown_path: &str, text: &str) -> Result<RendezvousFile, ConfigError> {
    let complain = |problems| ConfigError::in_text(shown_path, text, problems);
    let limits: Vec<&str> = LIMITS.iter().map(|limit| limit.key).collect();
    let names = Names {
        top: &["listen", "allow", "log"],
        sections: &[("tls", &["listen", "certificate", "key"]), ("websocket", &["listen"]), ("limits", &limits)],
        later: &[],
    };
    let table = names::check(&names, text).map_err(complain)?;
    let typed = file::typed(text, table).map_err(|problem| complain(vec![problem]))?;
    check(&typed).map_err(complain)
}

fn check(typed: &Typed) -> Result<RendezvousFile, Vec<Problem>> {
    let mut problems = Problems::default();
    let mut limits = server::Config::default();
    for (key, value) in &typed.limits {
        let Some(limit) = LIMITS.iter().find(|limit| limit.key == key) else { continue };
        if let Some(n) = problems.take(Some(value), |n| in_range(limit, *n)) {
            (limit.set)(&mut limits, n);
        }
    }
    let listen = typed.listen.iter().filter_map(|text| problems.take(Some(text), |text| parse_listen(text))).collect();
    let allow = typed.allow.iter().filter_map(|id| problems.take(Some(id), |id| parse_network_id(id))).collect();
    limits.registrations.allow = allow;
    let log = problems.take(typed.log.as_ref(), |text| check_log(text));
    let proxied = typed.websocket.as_ref().map(|section| check_websocket(&mut problems, section)).unwrap_or_default();
    let web = server::Web { tls: typed.tls.as_ref().and_then(|tls| check_tls(&mut problems, tls)), proxied };
    if problems.0.is_empty() { Ok(RendezvousFile { web, listen, log, limits }) } else { Err(problems.0) }
}

fn check_tls(problems: &mut Problems, typed: &Spanned<Tls>) -> Option<server::Tls> {
    let Tls { listen, certificate, key } = typed.get_ref();
    let listen = match listen.as_slice() {
        [] => vec![SocketAddr::from(([0; 16], WEB_PORT))],
        listen => listeners(problems, listen),
    };
    let (Some(certificate), Some(key)) = (certificate, key) else {
        let what = "[tls] needs a `certificate` and its `key`";
        let help = "the PEM files of who gives certificates out, for example \
                    certificate = \"/etc/letsencrypt/live/play.example.org/fullchain.pem\" and \
                    key = \"/etc/letsencrypt/live/play.example.org/privkey.pem\"";
        problems.0.push(Problem::at(typed.span(), what).help(help));
        return None;
    };
    Some(server::Tls { listen, certificate: certificate.get_ref().clone(), key: key.get_ref().clone() })
}

fn check_websocket(problems: &mut Problems, typed: &Spanned<Listen>) -> Vec<SocketAddr> {
    let listen = &typed.get_ref().listen;
    if listen.is_empty() {
        let help = "where the reverse proxy passes WebSockets on to, for example listen = [\"127.0.0.1:8080\"]";
        problems.0.push(Problem::at(typed.span(), "[websocket] needs `listen`").help(help));
    }
    listeners(problems, listen)
}

fn listeners(problems: &mut Problems, typed: &[Spanned<String>]) -> Vec<SocketAddr> {
    typed.iter().filter_map(|text| problems.take(Some(text), |text| parse_listen_at(text, WEB_PORT))).collect()
}

fn in_range(limit: &Limit, n: i64) -> Result<u32, Wrong> {
    let Limit { key, least, most, .. } = limit;
    u32::try_from(n)
        .ok()
        .filter(|n| (least..=most).contains(&n))
        .ok_or_else(|| (format!("`{key}` cannot be {n}"), format!("a number from {least} to {most}")))
}

fn parse_network_id(text: &str) -> Result<NetworkId, Wrong> {
    let help = "`punchlan status --json` shows the id of a network that is up";
    text.trim().parse().map_err(|error| (format!("{error}, and this is {text:?}"), help.to_owned()))
}

/// An address to listen on: with its port, without it, or a port alone.
///
/// # Errors
/// What is wrong and what to type.
pub fn parse_listen(text: &str) -> Result<SocketAddr, Wrong> {
    parse_listen_at(text, DEFAULT_PORT)
}

fn parse_listen_at(text: &str, default: u16) -> Result<SocketAddr, Wrong> {
    let with_port = || text.parse::<SocketAddr>().ok();
    let bare = || Some(SocketAddr::new(text.trim_matches(['[', ']']).parse::<IpAddr>().ok()?, default));
    let port = || Some(SocketAddr::from(([0; 16], text.trim_start_matches(':').parse::<u16>().ok()?)));
    with_port().or_else(bare).or_else(port).ok_or_else(|| {
        let what = format!("{text:?} is no address of this machine");
        (what, "for example \"0.0.0.0:3478\" (IPv4), \"[::]:3478\" (IPv6 and IPv4)".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        let example = include_str!("../../conf/rendezvous.toml");
        let file = parse_rendezvous_file("conf/rendezvous.toml", example).expect("the example");
        assert_eq!(file.limits, server::Config::default());
        assert_eq!(file.listen, ["[::]:3478".parse().expect("address")]);
        assert_eq!(file.web, server::Web::default());
        for section in ["tls", "websocket"] {
            assert!(example.contains(&format!("\n# [{section}]\n")), "the example does not show [{section}]");
        }
        for key in LIMITS.iter().map(|limit| limit.key).chain(["listen", "allow", "log"]) {
            assert!(example.contains(&format!("\n{key} =")), "the example does not show `{key}`");
        }
        assert_eq!(parse_rendezvous_file("empty", "").expect("all defaults"), RendezvousFile::default());
    }

    #[test]
    fn what_is_wrong_is_shown_with_its_remedy() {
        let complains = |text: &str, parts: &[&str]| {
            let said = parse_rendezvous_file("r.toml", text).expect_err(text).to_string();
            assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
        };
        complains("listen = [\"here\"]", &["r.toml:1:11", "no address of this machine"]);
        complains("listn = []", &["r.toml:1:1", "did you mean `listen`"]);
        complains("allow = [\"friday\"]", &["64 hexadecimal digits"]);
        complains("log = \"punchlan=loud\"", &["r.toml:1:7", "log = \"punchlan=debug\""]);
        complains("log = \"loud\"", &["r.toml:1:7", "\"loud\" is no level", "off, error, warn, info"]);
        complains("listen = \"[::]:4000\"", &["r.toml:1:10", "type: listen = [\"[::]:4000\"]"]);
        complains("[websocket]", &["r.toml:1:1", "[websocket] needs `listen`", "127.0.0.1:8080"]);
        complains("[limits]\nmembers = 0", &["r.toml:2:11", "a number from 1 to"]);
        complains("[limits]\nmember = 5", &["did you mean `members`"]);
        complains("[limits]\nmembers = \"5\"", &["a whole number"]);
        complains("members = 5", &["put the line [limits] above it"]);
        complains("[limits]\nlog = \"x\"", &["above the first section"]);
        complains(
            "[tls]\ncertificate = \"a.pem\"",
            &["r.toml:1:1", "needs a `certificate` and its `key`", "privkey.pem"],
        );
        complains("[tls]\nlisten = [\"x\"]\ncertificate = \"a\"\nkey = \"b\"", &["r.toml:2:11", "no address"]);
        complains("[limit]\nmembers = 5", &["did you mean [limits]"]);
    }

    #[test]
    fn a_rate_keeps_its_burst_in_proportion() {
        let file = parse_rendezvous_file("r.toml", "[limits]\nrelay_mbit = 8\nregisters_per_second_per_prefix = 40")
            .expect("good");
        let default = server::Config::default();
        assert_eq!(file.limits.relay.total_bytes, 1_000_000);
        let rate = file.limits.registrations.registers_per_prefix;
        let before = default.registrations.registers_per_prefix;
        assert_eq!(rate.burst, before.burst * 40 / before.per_second);
    }

    #[test]
    fn places_to_listen_are_understood() {
        for (text, expected) in [
            ("0.0.0.0:4000", "0.0.0.0:4000"),
            ("[::1]:0", "[::1]:0"),
            ("192.0.2.1", "192.0.2.1:3478"),
            ("[::]", "[::]:3478"),
            ("::1", "[::1]:3478"),
            (":4000", "[::]:4000"),
            ("4000", "[::]:4000"),
        ] {
            assert_eq!(parse_listen(text), Ok(expected.parse().expect("address")), "{text}");
        }
        assert!(parse_listen("example.org:1").is_err());
    }
}
