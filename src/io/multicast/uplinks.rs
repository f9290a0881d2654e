//! The interfaces that packets to everybody leave by: those that the kernel chooses for a socket that is bound to nothing.
//! Mostly it is the one with the default route.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

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
    /// Its addresses, with their prefixes.
    pub v4: Vec<Ipv4Net>,
    /// Its addresses.
    pub v6: Vec<Ipv6Addr>,
}

impl Uplink {
    /// What everybody in its subnets is addressed by.
    pub fn broadcasts(&self) -> Vec<Ipv4Addr> {
        let has_broadcast = |net: &&Ipv4Net| net.prefix_len() < 31;
        self.v4.iter().filter(has_broadcast).map(Ipv4Net::broadcast).collect()
    }
}

/// The interfaces by index, none of any overlay of ours.
///
/// # Errors
/// The system does not list them.
pub async fn uplinks(net: &Network) -> Result<BTreeMap<u32, Uplink>, NetError> {
    let mut uplinks = BTreeMap::new();
    let listed = if_addrs::get_if_addrs().map_err(NetError::List)?;
    for probe in PROBES {
        let Some(index) = net.leads_by(probe).await? else { continue };
        let here = listed.iter().filter(|found| found.index == Some(index));
        let mut usable = here.filter(|found| !found.is_loopback() && !is_ours(&found.name)).peekable();
        let Some(name) = usable.peek().map(|found| found.name.clone()) else { continue };
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for found in usable {
            match interfaces::net(&found.addr) {
                Some(ipnet::IpNet::V4(net)) => v4.push(net),
                Some(ipnet::IpNet::V6(net)) => v6.push(net.addr()),
                None => {}
            }
        }
        uplinks.insert(index, Uplink { name, v4, v6 });
    }
    Ok(uplinks)
}
