//! What is configured on the overlay's interface, and what else this machine reaches.
//!
//! One type, [`Network`], with one file for each kind of system. Everything set through it belongs to the
//! interface and vanishes with it.

mod changes;
#[cfg(target_os = "linux")]
mod everybody;
#[cfg(target_os = "linux")]
mod facts;
#[cfg(target_os = "linux")]
mod keep;
#[cfg(target_os = "linux")]
mod multicast;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(not(target_os = "linux"))]
mod other;
mod routes;

use std::io;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use changes::Changes;
#[cfg(target_os = "linux")]
pub use keep::keep;
#[cfg(target_os = "linux")]
pub use netlink::Network;
#[cfg(not(target_os = "linux"))]
pub use other::Network;
pub use routes::{Clash, Route};

/// What an interface is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The IPv4 address with the subnet's prefix length, if this machine has one.
    pub v4: Option<Ipv4Net>,
    /// The IPv6 addresses with their prefix lengths: ULA and link-local.
    pub v6: Vec<Ipv6Net>,
}

/// Why something was not set or listed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The system gives no access to its network settings.
    #[error("the system gives no access to its network settings: {0}")]
    Access(#[source] io::Error),
    /// The interface refused its MTU, did not come up, or could not be deleted.
    #[error("interface {name}: {source}")]
    Link {
        /// The interface.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The interface refused an address.
    #[error("interface {name} does not take the address {address}: {source}")]
    Address {
        /// The interface.
        name: String,
        /// The address.
        address: IpNet,
        /// Why.
        source: io::Error,
    },
    /// Routes or interfaces could not be listed.
    #[error("this machine's routes cannot be listed: {0}")]
    List(#[source] io::Error),
}

impl NetError {
    /// Whether rights are missing: exit code 3.
    pub fn is_permission(&self) -> bool {
        let (Self::Access(source) | Self::Link { source, .. } | Self::Address { source, .. } | Self::List(source)) =
            self;
        source.kind() == io::ErrorKind::PermissionDenied
    }
}
