//! L4: what the members are called outside of punchlan: `alice.friday.internal`, and the other way round.
//!
//! A [`Zone`] is all names of one network at one moment. It is told in two ways: as a name server says it
//! ([`Zone::answer`], question in, answer out), and as lines of a hosts file ([`hosts`]), for systems that cannot be told
//! to ask the server.
//!
//! Who is called what, and who holds which address, has been settled before ([`crate::node`]); here it is only told. Left
//! out is what would do harm outside: names that are no host names (RFC 952: a dash at either end), and those by which
//! programs configure themselves ([`RESERVED`]), which a member could otherwise take for all the others.
//!
//! `internal` is reserved for private use: nobody on the internet is called so.

mod answer;
pub mod hosts;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::addr::OverlayNet;

/// The domain that all networks are below.
const ROOT: &str = "internal";

/// What no member is called here: programs find their web proxy as `wpad`, their IPv6 tunnel as `isatap`, and themselves
/// as `localhost`.
const RESERVED: [&str; 4] = ["wpad", "isatap", "localhost", "broadcasthost"];

/// A member and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name here.
    pub name: String,
    /// Its overlay IPv4 address, if it has one.
    pub v4: Option<Ipv4Addr>,
    /// Its overlay IPv6 address.
    pub v6: Ipv6Addr,
}

impl Host {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain([IpAddr::V6(self.v6)])
    }
}

/// All names of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    domain: String,
    overlay: OverlayNet,
    by_name: BTreeMap<String, Host>,
    by_address: BTreeMap<IpAddr, String>,
}

impl Zone {
    /// The zone of the network called `network`. Of two hosts with one name, or one address, the first has it.
    pub fn new(network: &str, overlay: OverlayNet, hosts: impl IntoIterator<Item = Host>) -> Self {
        let (mut by_name, mut by_address) = (BTreeMap::new(), BTreeMap::new());
        for host in hosts.into_iter().filter(|host| is_host_name(&host.name)) {
            if by_name.contains_key(&host.name) {
                continue;
            }
            for address in host.addresses() {
                by_address.entry(address).or_insert_with(|| host.name.clone());
            }
            by_name.insert(host.name.clone(), host);
        }
        Self { domain: domain(network), overlay, by_name, by_address }
    }

    /// The network's domain, `friday.internal`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// A member's whole name.
    pub fn full_name(&self, name: &str) -> String {
        format!("{name}.{}", self.domain)
    }

    /// The members, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.by_name.values()
    }

    /// The prefixes whose reverse zones are this network's, each on the edge of a label (an octet of IPv4, four bits of
    /// IPv6): those of a prefix that is not are as many as it takes, so that nobody else's addresses are in them.
    pub fn reverse_nets(&self) -> Vec<IpNet> {
        let OverlayNet { v4, v6 } = self.overlay;
        let pieces = v4.subnets(octet_edge(v4)).into_iter().flatten().map(IpNet::V4);
        pieces.chain([IpNet::V6(v6)]).collect()
    }

    /// The reverse zone that `net` is in, if it is this network's.
    fn reverse_net(&self, net: IpNet) -> Option<IpNet> {
        let edge = match net {
            IpNet::V4(net) => Some(octet_edge(self.overlay.v4)).filter(|_| self.overlay.v4.contains(&net.addr())),
            IpNet::V6(net) => Some(self.overlay.v6.prefix_len()).filter(|_| self.overlay.v6.contains(&net.addr())),
        };
        let edge = edge.filter(|edge| net.prefix_len() >= *edge)?;
        IpNet::new(net.addr(), edge).ok().map(|net| net.trunc())
    }
}

/// The prefix length of the next edge of an octet.
fn octet_edge(net: Ipv4Net) -> u8 {
    net.prefix_len().next_multiple_of(8)
}

/// A network's domain. Its name may begin and end with a dash, which a label may not.
pub fn domain(network: &str) -> String {
    let label = network.trim_matches('-');
    if label.is_empty() { ROOT.to_owned() } else { format!("{label}.{ROOT}") }
}

/// Whether a member's name is one outside too.
pub fn is_host_name(name: &str) -> bool {
    !name.starts_with('-') && !name.ends_with('-') && !RESERVED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn zone(subnet: &str, hosts: &[(&str, &str, u16)]) -> Zone {
        let overlay =
            OverlayNet { v4: subnet.parse().expect("a prefix"), v6: "fd01:203:405::/64".parse().expect("a prefix") };
        let host = |(name, v4, last): &(&str, &str, u16)| Host {
            name: (*name).to_owned(),
            v4: v4.parse().ok(),
            v6: Ipv6Addr::new(0xfd01, 0x203, 0x405, 0, 0, 0, 0, *last),
        };
        Zone::new("friday", overlay, hosts.iter().map(host))
    }

    fn pieces(subnet: &str) -> Vec<String> {
        zone(subnet, &[]).reverse_nets().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_would_do_harm_outside_is_left_out() {
        let names = ["wpad", "isatap", "localhost", "-", "-x", "x-", "bob-2", "7"];
        let hosts: Vec<_> = names.iter().zip(1..).map(|(name, n)| (*name, "", n)).collect();
        let zone = zone("10.77.0.0/24", &hosts);
        assert_eq!(zone.hosts().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["7", "bob-2"]);
        assert_eq!(
            (domain("friday"), domain("-x-"), domain("--")),
            ("friday.internal".into(), "x.internal".into(), "internal".into())
        );
    }

    #[test]
    fn a_name_and_an_address_belong_to_whoever_is_first() {
        let zone = zone("10.77.0.0/24", &[("bob", "10.77.0.2", 2), ("bob", "10.77.0.3", 3), ("eve", "10.77.0.2", 4)]);
        assert_eq!(zone.by_name["bob"].v4, "10.77.0.2".parse().ok());
        assert_eq!(zone.by_address[&IpAddr::from([10, 77, 0, 2])], "bob");
        assert!(!zone.by_address.contains_key(&IpAddr::from([10, 77, 0, 3])));
    }

    #[test]
    fn reverse_zones_end_at_octets_and_hold_nobody_elses_addresses() {
        let v6 = "fd01:203:405::/64";
        assert_eq!(pieces("10.77.0.0/24"), ["10.77.0.0/24", v6]);
        assert_eq!(pieces("10.0.0.0/8"), ["10.0.0.0/8", v6]);
        assert_eq!(pieces("10.77.4.0/23"), ["10.77.4.0/24", "10.77.5.0/24", v6]);
        assert_eq!(pieces("10.77.0.8/29").len(), 8 + 1);
        assert_eq!(pieces("10.64.0.0/10").len(), 64 + 1);
        for prefix in OverlayNet::V4_PREFIX {
            let subnet = Ipv4Net::new(Ipv4Addr::new(10, 77, 1, 9), prefix).expect("a prefix").trunc();
            let zone = zone(&subnet.to_string(), &[]);
            let nets = zone.reverse_nets();
            assert!(nets.len() <= 129, "{subnet}: {}", nets.len());
            for net in nets {
                assert_eq!(zone.reverse_net(net), Some(net));
                assert!(net.prefix_len() == 64 || subnet.contains(&net.to_string().parse::<Ipv4Net>().expect("IPv4")));
            }
        }
    }
}
