//! What a peer says about itself: the contract of `punchlan status --json`. Fields are added, never
//! renamed; what is not measured is `null`, never a guess.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, PeerId};
pub use crate::punch::PathKind;

/// The schema's number.
pub const SCHEMA: u32 = 1;

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The program's version.
    pub version: String,
    /// The network and its interface here.
    pub network: Network,
    /// This machine.
    pub me: Me,
    /// Each rendezvous of net.toml.
    pub rendezvous: Vec<Rendezvous>,
    /// Every peer known, by name.
    pub peers: Vec<Peer>,
    /// What somebody must act on.
    pub warnings: Vec<Warning>,
    /// `[lan]` of net.toml as it is in force; `None`: an older version's daemon.
    #[serde(default)]
    pub lan: Option<Lan>,
    /// Numbers since start.
    pub counters: Counters,
}

/// The network and its interface here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Its name in net.toml.
    pub name: String,
    /// Its public id.
    pub id: NetworkId,
    /// The overlay's interface.
    pub interface: Option<String>,
    /// The IPv4 overlay.
    pub subnet: ipnet::Ipv4Net,
    /// Largest inner packet, bytes.
    pub mtu: u16,
    /// Devices that are refused here.
    #[serde(default)]
    pub denied: usize,
    /// Its names outside of punchlan.
    #[serde(default)]
    pub dns: Option<Dns>,
}

/// Names outside of punchlan: a member is called `NAME.DOMAIN`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// The domain.
    pub domain: String,
    /// How the programs of this machine come to know them; `None`: not known yet.
    pub by: Option<DnsBy>,
    /// Where the network's name server answers programs of this machine.
    pub servers: Vec<SocketAddr>,
}

/// How programs come to know names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsBy {
    /// systemd-resolved asks the network's name server.
    SystemdResolved,
    /// They are in the hosts file.
    Hosts,
    /// Not at all, but by asking the network's name server themselves.
    Nothing,
    /// Not at all: net.toml says so.
    Off,
}

/// This machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Me {
    /// Its name.
    pub name: String,
    /// Its device id.
    pub id: PeerId,
    /// Its overlay addresses: IPv4 first, if it has one.
    pub addresses: Vec<IpAddr>,
    /// Where others may try to reach it.
    pub candidates: Vec<Candidate>,
    /// What is known of the NAT in front of it.
    pub nat: Nat,
    /// What it carries for others.
    #[serde(default)]
    pub carries: Carries,
}

/// `[lan]` of net.toml as it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lan {
    /// Whether broadcasts go to the others, and come from them.
    pub broadcast: bool,
    /// The same of multicast.
    pub multicast: bool,
    /// At which ports members may speak to this machine first, as `25565/tcp` or `27015-27020/udp`; `None`: at all.
    pub allow: Option<Vec<String>>,
    /// Whether what comes for the overlay by another interface is kept out.
    pub guard: bool,
}

/// What a member carries between others, who do not reach each other directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carries {
    /// Pairs that have a channel now.
    pub pairs: usize,
    /// Bytes since start, headers included.
    pub bytes: u64,
}

/// A candidate of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its kind.
    pub kind: PathKind,
    /// Its address.
    pub address: SocketAddr,
}

/// What is known of a NAT, in the words of [`crate::nat`]; `None`: not measured, or not certain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the terms are RFC 4787's")]
pub struct Nat {
    /// `none`: nothing is translated.
    pub mapping: Option<String>,
    pub filtering: Option<String>,
    pub hairpin: Option<bool>,
    pub allocation: Option<String>,
    /// What the router maps to this machine and by which protocol; or, behind `none: ` or `off: `, why it does not.
    pub port_mapping: Option<String>,
}

/// A rendezvous.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rendezvous {
    /// `host:port` as in net.toml.
    pub address: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Where registration stands.
    pub state: RendezvousState,
    /// Round trip, milliseconds.
    pub rtt_ms: Option<f64>,
}

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum RendezvousState {
    Resolving,
    Registering,
    Registered,
    Unreachable,
    Refused,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name here (`bob-2` if `bob` is another).
    pub name: String,
    /// Its device id.
    pub id: PeerId,
    /// Its overlay addresses that are bound here: IPv4 first, if it has one.
    pub addresses: Vec<IpAddr>,
    /// How it is reached.
    pub state: PeerState,
    /// The path in use.
    pub path: Option<Path>,
    /// Round trip over the path in use, last 60 s of probes, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Mean deviation of the round trip, milliseconds.
    pub jitter_ms: Option<f64>,
    /// Share of probes that were not echoed, 0 to 1.
    pub loss: Option<f64>,
    /// Inner bytes sent to it.
    pub tx_bytes: u64,
    /// Inner bytes received from it.
    pub rx_bytes: u64,
    /// Age of the keys in use, seconds.
    pub handshake_age_s: Option<f64>,
    /// From when the peer was first heard of in this run to its first direct path, milliseconds.
    pub direct_after_ms: Option<u64>,
    /// The suite in use.
    pub cipher: Option<String>,
}

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// Was here, is not.
    Offline,
    /// No session yet.
    Connecting,
    /// Through a rendezvous, or another member.
    Relayed,
    /// Directly.
    Direct,
}

/// The path in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// How the remote end was found.
    pub kind: PathKind,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Our end.
    pub local: Option<SocketAddr>,
    /// The other end; the relay's address when relayed.
    pub remote: SocketAddr,
    /// The rendezvous that relays, as in net.toml; or the member that does, by its name here.
    pub relay: Option<String>,
}

/// What somebody must act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// A stable word for programs.
    pub code: String,
    /// A sentence for people: what is wrong and what to do.
    pub text: String,
    /// Since when, RFC 3339.
    pub since: String,
}

/// Numbers since start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// What was dropped, by reason.
    pub drop: BTreeMap<String, u64>,
}
