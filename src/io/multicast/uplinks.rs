//! The interfaces that packets to everybody leave by: those that the kernel chooses for a socket that is bound to nothing.
//! Mostly it is the one with the default route.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use if_addrs::IfAddr;
use ipnet::IpNet;

use crate::io::interfaces::{self, is_ours};
use crate::io::net::{NetError, Network};

/// Where games send to: the limited broadcast, the group of one that many play, and all nodes of a link.
const PROBES: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::BROADCAST),
    IpAddr::V4(Ipv4Addr::new(224, 0, 2, 60)),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
];

/// An interface with a LAN behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// What everybody in its subnets is addressed by.
    pub broadcasts: Vec<Ipv4Addr>,
    /// All addresses of this machine, on whichever interface.
    pub hosts: Vec<IpAddr>,
}

/// The interfaces by index, none of any overlay of ours.
///
/// # Errors
/// The system does not list them.
pub async fn uplinks(net: &Network) -> Result<BTreeMap<u32, Uplink>, NetError> {
    let listed = if_addrs::get_if_addrs().map_err(NetError::List)?;
    let hosts: Vec<IpAddr> = listed.iter().map(if_addrs::Interface::ip).collect();
    let mut uplinks = BTreeMap::new();
    for probe in PROBES {
        let Some(index) = net.leads_by(probe).await? else { continue };
        let here = listed.iter().filter(|found| found.index == Some(index));
        let usable: Vec<_> = here.filter(|found| !found.is_loopback() && !is_ours(&found.name)).collect();
        if let Some(first) = usable.first() {
            let broadcasts = usable.iter().filter_map(|found| broadcast(&found.addr)).collect();
            uplinks.insert(index, Uplink { name: first.name.clone(), broadcasts, hosts: hosts.clone() });
        }
    }
    Ok(uplinks)
}

/// A subnet of two addresses has none (RFC 3021).
fn broadcast(addr: &IfAddr) -> Option<Ipv4Addr> {
    match interfaces::net(addr)? {
        IpNet::V4(net) => (net.prefix_len() < 31).then(|| net.broadcast()),
        IpNet::V6(_) => None,
    }
}
