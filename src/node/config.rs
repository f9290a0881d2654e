//! What a node runs on: everything decided, nothing as typed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::addr::OverlayNet;
use crate::crypto::Identity;
use crate::id::{PeerId, ServerKey, SocketId};
use crate::relay;

/// Channels that one member may have through this machine, and channel ends in all.
const CHANNELS_PER_PEER: usize = 32;
const CHANNELS: usize = 256;

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
    /// UDP port.
    pub port: u16,
    /// The key it must have.
    pub pin: Option<ServerKey>,
}

impl RendezvousConfig {
    /// `host:port`, for people.
    pub fn text(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
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
