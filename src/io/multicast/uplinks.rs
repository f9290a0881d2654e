//! The interfaces that packets to everybody leave by: those that the kernel chooses for a socket that is bound to nothing.
//! Mostly it is the one with the default route. Where there is none, all that have a LAN behind them take its place.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use if_addrs::{IfAddr, Interface};
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

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
    let hosts = hosts().map_err(NetError::List)?;
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

/// With those of links, which the other list leaves out.
fn hosts() -> io::Result<Vec<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|found| found.address);
    let ip = |address: SockaddrStorage| match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(v4.ip().into()),
        (_, Some(v6)) => Some(v6.ip().into()),
        _ => None,
    };
    Ok(addresses.filter_map(ip).collect())
}

/// A subnet of two addresses has none (RFC 3021).
fn broadcast(addr: &IfAddr) -> Option<Ipv4Addr> {
    match interfaces::net(addr)? {
        IpNet::V4(net) => (net.prefix_len() < 31).then(|| net.broadcast()),
        IpNet::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_addresses_are_known_those_of_the_loopback_interface_too() {
        let hosts = hosts().unwrap();
        assert!(hosts.contains(&Ipv4Addr::LOCALHOST.into()), "{hosts:?}");
    }

    #[test]
    fn a_subnet_has_a_broadcast_address_unless_it_has_two_addresses() {
        let subnet = |prefixlen| {
            let (ip, netmask) = (Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::UNSPECIFIED);
            broadcast(&IfAddr::V4(if_addrs::Ifv4Addr { ip, netmask, prefixlen, broadcast: None }))
        };
        let last = |last| Some(Ipv4Addr::new(192, 0, 2, last));
        assert_eq!([24, 29, 30, 31, 32].map(subnet), [last(255), last(15), last(11), None, None]);
    }
}
