//! What a node runs on: everything decided, nothing as typed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::addr::OverlayNet;
use crate::crypto::Identity;
use crate::id::{PeerId, ServerKey, SocketId};
pub use crate::rendezvous::client::StreamWay;
use crate::sans::Carrier;

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
    /// The bound UDP sockets.
    pub sockets: Vec<LocalSocket>,
    /// Numbers below may have been used by earlier runs.
    pub stored_ceiling: u64,
    /// The cache that an earlier run saved ([`crate::sans::Action::SaveCache`]).
    pub cache: Option<Vec<u8>>,
    /// Wall time at the start, milliseconds since 1970.
    pub wall_ms: u64,
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
    /// By UDP, and where that does not pass by TCP on the same port.
    pub fn plain(host: impl Into<String>, port: u16) -> Self {
        let streams = vec![StreamWay { port, carrier: Carrier::Tcp }];
        Self { host: host.into(), port, udp: true, streams, pin: None }
    }

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
