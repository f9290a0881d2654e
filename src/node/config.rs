//! What a node runs on: everything decided, nothing as typed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::addr::OverlayNet;
use crate::crypto::Identity;
pub use crate::forward::LanConfig;
use crate::id::{PeerId, ServerKey, SocketId};
use crate::relay;
pub use crate::rendezvous::client::StreamWay;
use crate::sans::Carrier;

/// Channels that one member may have through this machine, and channel ends in all.
const CHANNELS_PER_PEER: usize = 32;
const CHANNELS: usize = 256;
/// HTTPS.
pub const WEB_PORT: u16 = 443;

/// What a node runs on.
#[derive(Debug)]
pub struct NodeConfig {
    /// The network's and the device's keys.
    pub identity: Arc<Identity>,
    /// The network's name, for people.
    pub network_name: String,
    /// This machine's name.
    pub name: String,
    /// The overlay's prefixes.
    pub overlay: OverlayNet,
    /// This machine's overlay IPv4 address.
    pub address: AddressChoice,
    /// The servers to register with, in the order of net.toml.
    pub rendezvous: Vec<RendezvousConfig>,
    /// Devices that are refused.
    pub deny: Vec<PeerId>,
    /// Whether the router is asked for a port mapping.
    pub port_mapping: bool,
    /// Whether members on our LANs are told that we are here, and heard.
    pub lan_discovery: bool,
    /// What is carried for others.
    pub relay: RelayConfig,
    /// Which of what is for many there is.
    pub lan: LanConfig,
    /// The bound UDP sockets.
    pub sockets: Vec<LocalSocket>,
    /// Numbers below may have been used by earlier runs.
    pub stored_ceiling: u64,
    /// The cache that an earlier run saved ([`crate::sans::Action::SaveCache`]).
    pub cache: Option<Vec<u8>>,
    /// Wall time at the start, milliseconds since 1970.
    pub wall_ms: u64,
}

/// What is carried between members who do not reach each other directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// Whether anything is.
    pub offer: bool,
    /// Megabits a second at most, headers included.
    pub mbit: u32,
}

impl Default for RelayConfig {
    /// Enough for some games, and no more than any line can spare.
    fn default() -> Self {
        Self { offer: true, mbit: 10 }
    }
}

impl RelayConfig {
    /// The same for the relay's table. What one source prefix sends takes half of it at most.
    pub(super) fn limits(self) -> relay::Limits {
        let bytes = u64::from(self.mbit) * 1_000_000 / 8;
        relay::Limits {
            prefix_bytes: bytes / 2,
            network_bytes: bytes,
            total_bytes: bytes,
            channels_per_peer: CHANNELS_PER_PEER,
            channels: CHANNELS,
        }
    }
}

/// How the overlay IPv4 address is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressChoice {
    /// Derived; another if it is taken.
    Auto,
    /// As configured; none if it is taken.
    Configured(Ipv4Addr),
}

/// One rendezvous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RendezvousConfig {
    /// Host name, or an address as text.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it is asked by UDP.
    pub udp: bool,
    /// The ways where UDP does not pass, in the order in which they are tried.
    pub streams: Vec<StreamWay>,
    /// The key it must have.
    pub pin: Option<ServerKey>,
}

impl RendezvousConfig {
    /// By UDP; where that does not pass by TCP on the same port; and where that does not pass either, and the host has a
    /// name that a certificate can be of, as a web server.
    pub fn plain(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        let web = host.parse::<IpAddr>().is_err().then(|| StreamWay::web(&host, WEB_PORT, "/"));
        let streams = [Some(StreamWay { port, carrier: Carrier::Tcp }), web].into_iter().flatten().collect();
        Self { host, port, udp: true, streams, pin: None }
    }

    /// In this way alone.
    pub fn stream(host: String, way: StreamWay) -> Self {
        Self { host, port: way.port, udp: false, streams: vec![way], pin: None }
    }

    /// As in net.toml, but for its pin.
    pub fn text(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.streams.first().filter(|_| !self.udp) {
            None => format!("{host}:{}", self.port),
            Some(StreamWay { port, carrier: Carrier::Tcp }) => format!("tcp://{host}:{port}"),
            Some(StreamWay { port: WEB_PORT, carrier: Carrier::WebSocket { path, .. } }) => {
                format!("wss://{host}{}", path.strip_suffix('/').unwrap_or(path))
            }
            Some(StreamWay { port, carrier: Carrier::WebSocket { path, .. } }) => {
                format!("wss://{host}:{port}{}", path.strip_suffix('/').unwrap_or(path))
            }
        }
    }

    /// Several ways to one host are of one rendezvous, in their order: a stream belongs to the first that it is named
    /// with, before those that go without saying. Another pin means another rendezvous; one is enough for all ways.
    pub(super) fn merge(all: &[Self]) -> Vec<Self> {
        let mut merged: Vec<(Self, usize)> = Vec::new();
        let of_datagrams = all.iter().filter(|one| one.udp);
        merged.extend(of_datagrams.map(|one| (one.clone(), 0)));
        for one in all.iter().filter(|one| !one.udp) {
            let pins = |other: &Self| other.pin.is_none() || one.pin.is_none() || other.pin == one.pin;
            match merged.iter_mut().find(|(other, _)| other.host == one.host && pins(other)) {
                Some((other, named)) => {
                    other.pin = other.pin.or(one.pin);
                    other.streams.retain(|way| !one.streams.contains(way));
                    let place = (*named).min(other.streams.len());
                    other.streams.splice(place..place, one.streams.iter().cloned());
                    *named = place + one.streams.len();
                }
                None => merged.push((one.clone(), one.streams.len())),
            }
        }
        merged.into_iter().map(|(one, _)| one).collect()
    }
}

/// A bound UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSocket {
    /// Its id: 0 for IPv4, 1 for IPv6.
    pub id: SocketId,
    /// What it is bound to.
    pub addr: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_one_host_are_of_one_rendezvous_and_those_that_were_named_come_first() {
        let web = || RendezvousConfig::stream("a.example".into(), StreamWay::web("a.example", 8443, "/x"));
        let tcp = || RendezvousConfig::stream("a.example".into(), StreamWay { port: 443, carrier: Carrier::Tcp });
        let [a, b] = [RendezvousConfig::plain("a.example", 3478), RendezvousConfig::plain("192.0.2.1", 3478)];
        let ports = |config: &RendezvousConfig| config.streams.iter().map(|way| way.port).collect::<Vec<_>>();
        assert_eq!((ports(&a), ports(&b)), (vec![3478, 443], vec![3478]));
        let merged = RendezvousConfig::merge(&[web(), a, b.clone(), tcp()]);
        assert_eq!((merged.len(), merged[0].udp, ports(&merged[0])), (2, true, vec![8443, 443, 3478, 443]));
        assert_eq!(merged[1], b);
        let alone = RendezvousConfig::merge(&[web(), tcp()]);
        assert_eq!((alone.len(), alone[0].udp, ports(&alone[0])), (1, false, vec![8443, 443]));
        let pinned = RendezvousConfig { pin: Some(ServerKey([7; 32])), ..tcp() };
        let other = RendezvousConfig { pin: Some(ServerKey([8; 32])), ..web() };
        let merged = RendezvousConfig::merge(&[web(), pinned.clone(), other.clone()]);
        assert_eq!((merged.len(), merged[0].pin, ports(&merged[0])), (2, pinned.pin, vec![8443, 443]));
        assert_eq!(merged[1], other);
        assert_eq!(web().text(), "wss://a.example:8443/x");
    }
}
