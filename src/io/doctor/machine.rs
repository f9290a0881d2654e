//! This machine as a game finds it: the overlay's interface, where packets to everybody leave, the firewall, and who
//! listens. What this system does not tell is said to be unknown.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::router::filter::Protocol;

/// Where games send to: the limited broadcast, a group that many play in, and all nodes of a link.
pub const EVERYBODY: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::BROADCAST),
    IpAddr::V4(Ipv4Addr::new(224, 0, 2, 60)),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
];

/// Why nothing is known.
pub type Unknown = String;

/// All of it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The overlay's interface; `None`: it is gone.
    pub interface: Result<Option<Interface>, Unknown>,
    /// The interface by which each of [`EVERYBODY`] leaves; `None`: it cannot.
    pub leads: Result<Vec<(IpAddr, Option<String>)>, Unknown>,
    /// The rules, as `nft -j list ruleset` gives them.
    pub firewall: Result<String, Unknown>,
    /// Sockets that others may speak to first.
    pub listening: Result<Vec<Listening>, Unknown>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Whether it is up.
    pub up: bool,
    /// Whether it takes broadcasts.
    pub broadcast: bool,
    /// Whether it takes multicast.
    pub multicast: bool,
    /// Whether there is one machine alone at its other end: programs that look for LANs pass it by.
    pub point_to_point: bool,
    /// The largest packet, bytes.
    pub mtu: Option<u32>,
    /// What leads to it, with its metric; the smallest wins among equals.
    pub routes: Vec<(IpNet, u32)>,
}

/// A socket that others may speak to first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    /// By this protocol.
    pub protocol: Protocol,
    /// At this address.
    pub ip: IpAddr,
    /// And this port.
    pub port: u16,
}

#[cfg(target_os = "linux")]
pub use linux::look;

/// Looks at this machine and its interface of this name.
#[cfg(not(target_os = "linux"))]
pub async fn look(_interface: &str) -> Machine {
    let unknown = || "it is not read on this system".to_owned();
    Machine { interface: Err(unknown()), leads: Err(unknown()), firewall: Err(unknown()), listening: Err(unknown()) }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::io::ErrorKind;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::process::Command;

    use super::{EVERYBODY, Interface, Listening, Machine, Unknown};
    use crate::io::net::{NetError, Network};
    use crate::router::filter::Protocol;

    /// Looks at this machine and its interface of this name.
    pub async fn look(interface: &str) -> Machine {
        let firewall = tokio::task::spawn_blocking(rules);
        let (interface, leads) = match Network::open() {
            Ok(net) => (of(&net, interface).await, leads(&net).await),
            Err(error) => (Err(error.to_string()), Err(error.to_string())),
        };
        let firewall = firewall.await.unwrap_or_else(|error| Err(error.to_string()));
        Machine { interface, leads, firewall, listening: listening() }
    }

    async fn of(net: &Network, name: &str) -> Result<Option<Interface>, Unknown> {
        net.facts(name).await.map_err(|error| error.to_string())
    }

    async fn leads(net: &Network) -> Result<Vec<(IpAddr, Option<String>)>, Unknown> {
        let mut leads = Vec::new();
        for ip in EVERYBODY {
            let by = net.leads_by_name(ip).await.map_err(|error: NetError| error.to_string())?;
            leads.push((ip, by));
        }
        Ok(leads)
    }

    fn rules() -> Result<String, Unknown> {
        let listed =
            Command::new("nft").args(["-j", "list", "ruleset"]).output().map_err(|error| match error.kind() {
                ErrorKind::NotFound => "there is no `nft` here to read it with: install nftables".to_owned(),
                _ => format!("nft: {error}"),
            })?;
        if !listed.status.success() {
            return Err(match nix::unistd::geteuid().is_root() {
                true => String::from_utf8_lossy(&listed.stderr).lines().next().unwrap_or("nft says nothing").to_owned(),
                false => "only root may read it: sudo punchlan games".to_owned(),
            });
        }
        String::from_utf8(listed.stdout).map_err(|_| "nft's answer is no text".to_owned())
    }

    /// The kernel's lists of sockets, and in which state of each they may be spoken to first.
    const LISTS: [(&str, Protocol, &str); 4] = [
        ("tcp", Protocol::Tcp, "0A"),
        ("tcp6", Protocol::Tcp, "0A"),
        ("udp", Protocol::Udp, "07"),
        ("udp6", Protocol::Udp, "07"),
    ];

    fn listening() -> Result<Vec<Listening>, Unknown> {
        let mut all = Vec::new();
        for (name, protocol, state) in LISTS {
            // Without IPv6 there is no list of it.
            let Ok(list) = fs::read_to_string(format!("/proc/net/{name}")) else { continue };
            let ends = list.lines().filter_map(|line| end(line, state));
            all.extend(ends.map(|(ip, port)| Listening { protocol, ip, port }));
        }
        all.sort_unstable();
        all.dedup();
        if all.is_empty() { Err("the system does not list its sockets".to_owned()) } else { Ok(all) }
    }

    /// The local end of a line of such a list, if it is in this state: `0: 0100007F:1F90 00000000:0000 0A …`.
    fn end(line: &str, wanted: &str) -> Option<(IpAddr, u16)> {
        let mut words = line.split_whitespace().skip(1);
        let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
        let (ip, port) = local.split_once(':')?;
        (state == wanted).then_some(())?;
        Some((ip_of(ip)?, u16::from_str_radix(port, 16).ok()?))
    }

    /// Words of four bytes as this machine has them in memory.
    fn ip_of(text: &str) -> Option<IpAddr> {
        let words: Option<Vec<[u8; 4]>> = text
            .as_bytes()
            .chunks(8)
            .map(|word| Some(u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok()?.to_ne_bytes()))
            .collect();
        match words?[..] {
            [v4] => Some(Ipv4Addr::from(v4).into()),
            [a, b, c, d] => {
                let octets: [u8; 16] = [a, b, c, d].concat().try_into().ok()?;
                Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
            }
            _ => None,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        #[cfg(target_endian = "little")]
        fn the_kernels_lists_are_read() {
            let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1";
            assert_eq!(end(line, "0A"), Some((Ipv4Addr::LOCALHOST.into(), 8_080)));
            assert_eq!(end(line, "07"), None);
            let line = "  1: 00000000000000000000000001000000:0F8B 00000000000000000000000000000000:0000 07 0";
            assert_eq!(end(line, "07"), Some((Ipv6Addr::LOCALHOST.into(), 3_979)));
            for other in ["  sl  local_address rem_address   st", "", "0: x:1 y:2 0A", "0: 0100007F 0 0A"] {
                assert_eq!(end(other, "0A"), None);
            }
        }

        #[test]
        fn a_socket_that_listens_is_listed() {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
            let local = socket.local_addr().expect("an address");
            let wanted = Listening { protocol: Protocol::Udp, ip: local.ip(), port: local.port() };
            assert!(listening().expect("a list").contains(&wanted));
        }
    }
}
