//! The interfaces that packets to everybody leave by: those that the kernel chooses for a socket that is bound to nothing.
//! Mostly it is the one with the default route. Where there is none, all that have a LAN behind them take its place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use if_addrs::{IfAddr, Interface};
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
    /// Its address of IPv4, if it has one.
    pub v4: Option<Ipv4Addr>,
    /// What everybody in its subnets is addressed by.
    pub broadcasts: Vec<Ipv4Addr>,
    /// All addresses of this machine, on whichever interface.
    pub hosts: Vec<IpAddr>,
}

/// The interfaces by index, none of any overlay of ours. `all`: all LANs of IPv4 too.
///
/// # Errors
/// The system does not list them.
pub async fn uplinks(net: &Network, all: bool) -> Result<BTreeMap<u32, Uplink>, NetError> {
    let listed = if_addrs::get_if_addrs().map_err(NetError::List)?;
    let hosts: Vec<IpAddr> = listed.iter().map(Interface::ip).collect();
    let lans: Vec<_> = listed.iter().filter(|found| !found.is_loopback() && !is_ours(&found.name)).collect();
    let has_v4 = |lan: &&&Interface| lan.is_oper_up() && !lan.is_p2p() && lan.ip().is_ipv4();
    let mut indices: BTreeSet<u32> = lans.iter().filter(has_v4).filter_map(|lan| lan.index.filter(|_| all)).collect();
    for probe in PROBES {
        indices.extend(net.leads_by(probe).await?);
    }
    let uplink = |index: u32| {
        let here: Vec<_> = lans.iter().filter(|lan| lan.index == Some(index)).collect();
        let v4 = here.iter().find_map(|lan| match lan.ip() {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        });
        let broadcasts = here.iter().filter_map(|lan| broadcast(&lan.addr)).collect();
        Some((index, Uplink { name: here.first()?.name.clone(), v4, broadcasts, hosts: hosts.clone() }))
    };
    Ok(indices.into_iter().filter_map(uplink).collect())
}

/// A subnet of two addresses has none (RFC 3021).
fn broadcast(addr: &IfAddr) -> Option<Ipv4Addr> {
    match interfaces::net(addr)? {
        IpNet::V4(net) => (net.prefix_len() < 31).then(|| net.broadcast()),
        IpNet::V6(_) => None,
    }
}
