//! Step 3: each value means something, and the values agree with each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use toml::Spanned;

use super::file::{Lan, NetToml, Network, Peer, Relay};
use super::report::Problem;
use super::{DEFAULT_NETWORK, DEFAULT_PORT, NetConfig, NetworkConfig, PeerConfig};
use crate::addr::OverlayNet;
use crate::id::{NetworkKey, PeerId, ServerKey};
use crate::node::config::{StreamWay, WEB_PORT};
use crate::node::{AddressChoice, LanConfig, RelayConfig, RendezvousConfig};
use crate::sans::Carrier;

/// Longest name of a network or peer.
const NAME_LEN: usize = 32;

/// More rendezvous than this are a mistake: a peer registers with each of them.
const MAX_RENDEZVOUS: usize = 100;

/// Megabits a second that a member may carry for others.
const MBIT: std::ops::RangeInclusive<u32> = 1..=10_000;

/// What is wrong with a value, and what to type instead.
pub type Wrong = (String, String);

/// Collects what is wrong while the values are taken one by one.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// The meaning of `typed`, if it was typed and has one.
    pub(super) fn take<T, U>(
        &mut self,
        typed: Option<&Spanned<T>>,
        meaning: impl FnOnce(&T) -> Result<U, Wrong>,
    ) -> Option<U> {
        let typed = typed?;
        match meaning(typed.get_ref()) {
            Ok(value) => Some(value),
            Err((what, help)) => {
                self.0.push(Problem::at(typed.span(), what).help(help));
                None
            }
        }
    }
}

/// The meaning of a whole file.
pub(super) fn check(typed: NetToml) -> Result<NetConfig, Vec<Problem>> {
    let mut problems = Problems::default();
    let network = network(&mut problems, typed.network);
    let peer = peer(&mut problems, &typed.peer, network.as_ref());
    let relay = relay(&mut problems, &typed.relay);
    let lan = lan(&typed.lan);
    match network {
        Some(network) if problems.0.is_empty() => Ok(NetConfig { network, peer, relay, lan }),
        _ => Err(problems.0),
    }
}

fn network(problems: &mut Problems, typed: Option<Spanned<Network>>) -> Option<NetworkConfig> {
    let section = typed.as_ref().map(Spanned::span);
    let Some(Network { name, key: Some(key), subnet, rendezvous, deny }) = typed.map(Spanned::into_inner) else {
        let what = if section.is_some() { "[network] has no `key`" } else { "there is no [network] section" };
        problems.0.push(Problem::at(section.unwrap_or(0..0), what).help(
            "the network's key is the one thing that a net.toml must have; \
             `punchlan join LINK` writes a whole one from a friend's invite, `punchlan init` makes a new network",
        ));
        return None;
    };
    let name = problems.take(name.as_ref(), |name| check_name("a network's name", name));
    let subnet = problems.take(subnet.as_ref(), |text| parse_subnet(text));
    let mut servers: Vec<RendezvousConfig> = Vec::new();
    for text in &rendezvous {
        servers.extend(problems.take(Some(text), |text| {
            let server = parse_rendezvous(text)?;
            let same = |other: &RendezvousConfig| {
                (&other.host, other.port, other.udp, &other.streams)
                    == (&server.host, server.port, server.udp, &server.streams)
            };
            match servers.iter().any(same) {
                true => Err(("this rendezvous is in the list twice".into(), "delete one of the two".into())),
                false => Ok(server),
            }
        }));
    }
    if let Some(text) = rendezvous.get(MAX_RENDEZVOUS) {
        let what = format!("more than {MAX_RENDEZVOUS} rendezvous");
        problems.0.push(Problem::at(text.span(), what).help("one is enough; a second helps when the first is away"));
    }
    let deny = deny.iter().filter_map(|id| problems.take(Some(id), |id| parse_peer_id(id))).collect();
    let key = problems.take(Some(&key), |key| parse_key(&key.0))?;
    let name = name.unwrap_or_else(|| DEFAULT_NETWORK.to_owned());
    Some(NetworkConfig { name, key, subnet, rendezvous: servers, deny })
}

fn peer(problems: &mut Problems, typed: &Peer, network: Option<&NetworkConfig>) -> PeerConfig {
    let name = problems.take(typed.name.as_ref(), |name| check_name("a peer's name", name));
    let address = problems.take(typed.address.as_ref(), |text| parse_address(text, network));
    let listen = problems.take(typed.listen.as_ref(), |port| {
        u16::try_from(*port).map_err(|_| {
            (format!("{port} is no UDP port"), "a port is a number from 0 to 65535; 0 takes any free one".to_owned())
        })
    });
    let log = problems.take(typed.log.as_ref(), |text| check_log(text));
    let default = PeerConfig::default();
    PeerConfig {
        name,
        address: address.unwrap_or(default.address),
        listen: listen.unwrap_or(default.listen),
        port_mapping: typed.port_mapping.unwrap_or(default.port_mapping),
        lan_discovery: typed.lan_discovery.unwrap_or(default.lan_discovery),
        log,
    }
}

fn relay(problems: &mut Problems, typed: &Relay) -> RelayConfig {
    let default = RelayConfig::default();
    let mbit = problems.take(typed.mbit.as_ref(), |mbit| {
        u32::try_from(*mbit).ok().filter(|mbit| MBIT.contains(mbit)).ok_or_else(|| {
            let help = format!("a number from {} to {}; to carry nothing: offer = false", MBIT.start(), MBIT.end());
            (format!("`mbit` cannot be {mbit}"), help)
        })
    });
    RelayConfig { offer: typed.offer.unwrap_or(default.offer), mbit: mbit.unwrap_or(default.mbit) }
}

fn lan(typed: &Lan) -> LanConfig {
    let default = LanConfig::default();
    LanConfig {
        broadcast: typed.broadcast.unwrap_or(default.broadcast),
        multicast: typed.multicast.unwrap_or(default.multicast),
    }
}

/// What to log, in the language of `PUNCHLAN_LOG`.
pub(super) fn check_log(text: &str) -> Result<String, Wrong> {
    let help = || "for example: log = \"punchlan=debug\"".to_owned();
    crate::log::check(text).map(|()| text.to_owned()).map_err(|why| (why, help()))
}

/// Whether `text` can be a name: `[a-z0-9-]{1,32}`.
pub fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=NAME_LEN).contains(&text.len()) && text.chars().all(allowed)
}

/// The name nearest to `text`, which may be a host name: its first label, with dashes for what no name has.
pub fn name_from(text: &str) -> String {
    let mut name = String::new();
    for c in text.trim().split('.').next().unwrap_or_default().chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    name.truncate(NAME_LEN); // Only ASCII got in.
    let name = name.trim_end_matches('-');
    if name.is_empty() { "peer".to_owned() } else { name.to_owned() }
}

pub(super) fn check_name(what: &str, text: &str) -> Result<String, Wrong> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    Err((
        format!("{what} has 1 to {NAME_LEN} of the characters a-z, 0-9 and -, and this is {text:?}"),
        format!("for example: name = \"{}\"", name_from(text)),
    ))
}

/// The key in conf/net.toml. Everybody has it, so it keeps nobody out.
pub(super) const EXAMPLE_KEY: &str = "plk1-drqwazx9-s2jazr48-dys53rv5-4a5dqeml-e2rs7w67-hzujmazr-83gsg27r-kg";

pub(super) fn parse_key(text: &str) -> Result<NetworkKey, Wrong> {
    if text.trim_start().get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("plr")) {
        let help = "that one stands behind the # of a `rendezvous`; the network's begins with \"plk1-\", and is in the \
                    invite and in another member's net.toml";
        return Err(("this is a rendezvous' key, not a network's".to_owned(), help.to_owned()));
    }
    let key = text.parse::<NetworkKey>().map_err(|error| {
        let help = "copy the key again from the invite or from another member's net.toml, from \"plk1-\" to its end";
        (format!("the network key is damaged: {error}"), help.to_owned())
    })?;
    match EXAMPLE_KEY.parse() == Ok(key.clone()) {
        true => Err((
            "this is the key of the example, which is public: anybody could join".to_owned(),
            "make a network with a key of its own: punchlan init; or take your friends' invite: punchlan join LINK"
                .to_owned(),
        )),
        false => Ok(key),
    }
}

fn parse_peer_id(text: &str) -> Result<PeerId, Wrong> {
    let help = "`punchlan status --json` shows the id of every peer";
    text.trim().parse().map_err(|error| (format!("{error}, and this is {text:?}"), help.to_owned()))
}

/// The overlay's subnet, as `10.77.0.0/24`.
///
/// # Errors
/// What is wrong and what to type.
pub fn parse_subnet(text: &str) -> Result<Ipv4Net, Wrong> {
    const LIKE: &str = "for example: subnet = \"10.77.0.0/24\"";
    let Ok(net) = text.trim().parse::<Ipv4Net>() else {
        return Err((format!("{text:?} is no IPv4 subnet"), LIKE.to_owned()));
    };
    let (shortest, longest) = OverlayNet::V4_PREFIX.into_inner();
    if net.prefix_len() > longest {
        let text = format!("the subnet {net} is too small: it has room for {} machines", room(net));
        return Err((text, format!("use at least a /{longest}; {LIKE}")));
    }
    if net.prefix_len() < shortest {
        return Err((format!("the subnet {net} is too large"), format!("use at most a /{shortest}; {LIKE}")));
    }
    if net.addr() != net.network() {
        let what = format!("{net} is an address, not a subnet: the bits behind /{} must be zero", net.prefix_len());
        return Err((what, format!("type: subnet = \"{}\"", net.trunc())));
    }
    if !is_unicast(net.network()) || !is_unicast(net.broadcast()) {
        let what = format!("machines cannot have addresses of {net} (loopback, link-local, multicast or reserved)");
        return Err((what, format!("use a private range; {LIKE}")));
    }
    Ok(net)
}

/// Machines that fit into a subnet.
fn room(net: Ipv4Net) -> usize {
    net.hosts().take(8).filter(|addr| OverlayNet { v4: net, v6: ipnet::Ipv6Net::default() }.is_host_v4(*addr)).count()
}

fn is_unicast(addr: Ipv4Addr) -> bool {
    addr.octets()[0] != 0 && addr.octets()[0] < 224 && !addr.is_loopback() && !addr.is_link_local()
}

fn parse_address(text: &str, network: Option<&NetworkConfig>) -> Result<AddressChoice, Wrong> {
    if text.trim() == "auto" {
        return Ok(AddressChoice::Auto);
    }
    let Ok(addr) = text.trim().parse::<Ipv4Addr>() else {
        let what = format!("{text:?} is no IPv4 address");
        return Err((what, "type: address = \"auto\", or an address of the subnet without its /24".to_owned()));
    };
    // Without a network there is a complaint already, and no subnet to hold the address against.
    network.map_or(Ok(()), |network| address_in(&network.overlay(), addr))?;
    Ok(AddressChoice::Configured(addr))
}

/// Whether a machine of `overlay` can have the address `addr`.
///
/// # Errors
/// What is wrong and what to type.
pub fn address_in(overlay: &OverlayNet, addr: Ipv4Addr) -> Result<(), Wrong> {
    if overlay.is_host_v4(addr) {
        return Ok(());
    }
    let net = overlay.v4;
    let what = if !net.contains(&addr) {
        format!("the address {addr} is outside of the network's subnet {net}")
    } else if addr == net.broadcast() {
        format!("{addr} is the broadcast address of {net}, which no machine can have")
    } else {
        format!("{addr} is the address of the network {net} itself, which no machine can have")
    };
    let (first, last) = (u32::from(net.network()) + 1, u32::from(net.broadcast()) - 1);
    let help = format!("choose one from {} to {}, or \"auto\"", Ipv4Addr::from(first), Ipv4Addr::from(last));
    Err((what, help))
}

/// A rendezvous: `host:port`, `host`, `[v6]:port`, `[v6]`, or behind `tcp://` or `wss://` (which may have a path), each with
/// `#plr1-…` behind it or not.
///
/// # Errors
/// What is wrong and what to type.
pub fn parse_rendezvous(text: &str) -> Result<RendezvousConfig, Wrong> {
    let (place, pin) = match text.trim().split_once('#') {
        Some((place, pin)) => (place.trim_end(), Some(parse_pin(pin)?)),
        None => (text.trim(), None),
    };
    let Some((scheme, rest)) = place.split_once("://") else {
        let (host, port) = host_and_port(place, DEFAULT_PORT).ok_or_else(|| not_a_place(place))?;
        return Ok(RendezvousConfig { pin, ..RendezvousConfig::plain(host, port) });
    };
    let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host_and_port = |default| host_and_port(place, default).ok_or_else(|| not_a_place(place));
    let (host, way) = match scheme {
        "tcp" if !path.is_empty() => {
            return Err((format!("TCP has no path, and this is {path:?}"), format!("type: \"tcp://{place}\"")));
        }
        "tcp" => host_and_port(DEFAULT_PORT).map(|(host, port)| (host, StreamWay { port, carrier: Carrier::Tcp }))?,
        "wss" if !path.chars().all(|c| c.is_ascii_graphic()) => {
            let help = "letters, digits and /, as in \"wss://play.example.org/punchlan\"".to_owned();
            return Err((format!("{path:?} is no path of a web server"), help));
        }
        "wss" => {
            let (host, port) = host_and_port(WEB_PORT)?;
            let way = StreamWay::web(&host, port, if path.is_empty() { "/" } else { path });
            (host, way)
        }
        _ => {
            let help = format!(
                "by UDP, else by TCP: \"{place}\"; by TCP alone: \"tcp://{place}\"; as a web server: \"wss://{place}\""
            );
            return Err((format!("\"{scheme}://\" is no way to reach a rendezvous"), help));
        }
    };
    Ok(RendezvousConfig { pin, ..RendezvousConfig::stream(host, way) })
}

fn parse_pin(text: &str) -> Result<ServerKey, Wrong> {
    let wrong = |what: String, help: &str| Err((what, help.to_owned()));
    if text.trim_start().get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("plk")) {
        let help = "it belongs behind `key`, and to nobody but members; here stands what `punchlan rendezvous` prints";
        return wrong("this is a network's key, not a rendezvous'".to_owned(), help);
    }
    let help = "copy what stands behind the # again, or leave # and all behind it out";
    text.parse().or_else(|error| wrong(format!("the rendezvous' key is damaged: {error}"), help))
}

fn not_a_place(place: &str) -> Wrong {
    const LIKE: &str = "for example \"198.51.100.1:3478\" or \"play.example.org\"";
    if place.parse::<Ipv6Addr>().is_ok() {
        let help = format!("IPv6 addresses stand in brackets: \"[{place}]:{DEFAULT_PORT}\"");
        return (format!("{place:?}: where the address ends and the port begins cannot be told"), help);
    }
    if place.is_empty() {
        return ("this names no rendezvous".to_owned(), format!("write where it is, {LIKE}"));
    }
    // The host alone is well: it is the port.
    if let Some((host, port)) = place.rsplit_once(':').filter(|(host, _)| host_and_port(host, DEFAULT_PORT).is_some()) {
        let help = format!("a port is a number from 1 to 65535: \"{host}:{DEFAULT_PORT}\"");
        return (format!("{port:?} is no port"), help);
    }
    (format!("{place:?} is no \"host:port\""), format!("write where the rendezvous is, {LIKE}"))
}

fn host_and_port(place: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = port.map_or(Some(default), |port| port.parse().ok().filter(|port| *port != 0))?;
    match host.parse::<IpAddr>() {
        Ok(addr) => can_be_asked(addr.to_canonical()).then(|| (addr.to_canonical().to_string(), port)),
        Err(_) => is_host_name(host).then(|| (host.to_ascii_lowercase(), port)),
    }
}

fn can_be_asked(addr: IpAddr) -> bool {
    let broadcast = matches!(addr, IpAddr::V4(addr) if addr.is_broadcast() || addr.octets()[0] == 0);
    !addr.is_unspecified() && !addr.is_multicast() && !broadcast
}

/// A name that DNS could know; what looks like an IPv4 address and is none is not.
fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_label =
        |label: &str| (1..=63).contains(&label.len()) && label.chars().all(allowed) && !label.starts_with('-');
    let last_is_number = host.rsplit('.').next().is_some_and(|label| label.chars().all(|c| c.is_ascii_digit()));
    host.len() <= 253 && host.split('.').all(is_label) && !last_is_number
}
