//! L0: addresses. The overlay's two prefixes, and which addresses of the real network may be used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The overlay: an IPv4 subnet that people see, and a ULA prefix (RFC 4193) derived from the network key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayNet {
    /// The IPv4 subnet, /8 to /29.
    pub v4: Ipv4Net,
    /// The ULA /64: `fd` + 40 derived bits + subnet 0.
    pub v6: Ipv6Net,
}

impl OverlayNet {
    /// The shortest and longest prefix an overlay may have: room for at least 6 machines.
    pub const V4_PREFIX: std::ops::RangeInclusive<u8> = 8..=29;

    /// Whether `addr` can belong to a machine: inside the subnet, neither network nor broadcast address.
    pub fn is_host_v4(&self, addr: Ipv4Addr) -> bool {
        self.v4.contains(&addr) && addr != self.v4.network() && addr != self.v4.broadcast()
    }

    /// Whether `addr` is an overlay address of either family.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(a) => self.v4.contains(&a),
            IpAddr::V6(a) => self.v6.contains(&a),
        }
    }
}

/// The same socket address without IPv4-mapped IPv6 (`::ffff:0:0/96`), which never reaches the wire.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// What one source can have of the address space.
pub fn site(ip: IpAddr) -> IpNet {
    IpNet::new(ip, if ip.is_ipv4() { 32 } else { 64 }).expect("no longer than the address").trunc()
}

/// Whether a datagram may be sent to `addr` because a peer's announcement names it. Refused are port 0,
/// unspecified, loopback, broadcast, multicast, and every address inside `overlays` (prefixes of overlays of this machine).
/// Documentation and benchmark ranges are ordinary addresses: laboratories use them as public ones.
pub fn is_usable_candidate(addr: SocketAddr, overlays: &[IpNet]) -> bool {
    let ip = addr.ip().to_canonical();
    let refused = match ip {
        IpAddr::V4(a) => a.octets()[0] == 0 || a.is_loopback() || a.is_multicast() || a.octets()[0] >= 240,
        // A link-local address means nothing without its interface.
        IpAddr::V6(a) => a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.is_unicast_link_local(),
    };
    addr.port() != 0 && !refused && !overlays.iter().any(|net| net.contains(&ip))
}

/// Whether only machines of one site can reach `addr` (RFC 1918, RFC 6598, link-local, ULA).
pub fn is_private(addr: IpAddr) -> bool {
    match addr.to_canonical() {
        IpAddr::V4(a) => a.is_private() || a.is_link_local() || is_shared_v4(a),
        IpAddr::V6(a) => a.is_unique_local() || a.is_unicast_link_local(),
    }
}

/// Whether nobody on the internet has addresses of `net`: private ranges (RFC 1918, RFC 6598), and those for
/// documentation and benchmarks.
pub fn is_private_net(net: Ipv4Net) -> bool {
    const PRIVATE: [Ipv4Net; 8] = [
        Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
        Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
        Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
        Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24),
        Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24),
        Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24),
        Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
    ];
    PRIVATE.iter().any(|range| range.contains(&net))
}

/// 100.64.0.0/10, the carrier-NAT range (RFC 6598).
fn is_shared_v4(a: Ipv4Addr) -> bool {
    a.octets()[0] == 100 && a.octets()[1] & 0xc0 == 64
}

/// The derived link-local address with this 64-bit interface identifier.
pub fn link_local(interface_id: u64) -> Ipv6Addr {
    Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(interface_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_ranges_are_candidates_and_dangerous_addresses_are_not() {
        let overlay: Vec<IpNet> = vec!["10.77.0.0/24".parse().expect("prefix")];
        for good in ["203.0.113.9:1", "192.168.1.4:9", "198.18.0.1:9", "[2001:db8::1]:7"] {
            assert!(is_usable_candidate(good.parse().expect("address"), &overlay), "{good}");
        }
        for bad in [
            "127.0.0.1:9",
            "0.0.0.0:9",
            "0.1.2.3:9",
            "255.255.255.255:9",
            "224.0.0.1:9",
            "240.0.0.1:9",
            "10.77.0.5:9",
            "203.0.113.9:0",
            "[::]:9",
            "[::1]:9",
            "[ff02::1]:9",
            "[fe80::1]:9",
            "[::ffff:127.0.0.1]:9",
        ] {
            assert!(!is_usable_candidate(bad.parse().expect("address"), &overlay), "{bad}");
        }
    }

    #[test]
    fn a_private_net_is_private_as_a_whole() {
        let is = |net: &str| is_private_net(net.parse().expect("prefix"));
        assert!(["10.77.0.0/24", "10.0.0.0/8", "172.31.0.0/16", "100.64.0.0/10", "198.18.5.0/24"].into_iter().all(is));
        assert!(!["8.8.8.0/24", "172.0.0.0/8", "192.168.0.0/15", "100.128.0.0/24"].into_iter().any(is));
    }

    #[test]
    fn network_and_broadcast_addresses_are_not_hosts() {
        let net = OverlayNet { v4: "10.77.0.0/24".parse().expect("v4"), v6: "fd00::/64".parse().expect("v6") };
        assert!(net.is_host_v4(Ipv4Addr::new(10, 77, 0, 1)));
        assert!(!net.is_host_v4(Ipv4Addr::new(10, 77, 0, 0)));
        assert!(!net.is_host_v4(Ipv4Addr::new(10, 77, 0, 255)));
        assert!(!net.is_host_v4(Ipv4Addr::new(10, 78, 0, 1)));
    }
}
