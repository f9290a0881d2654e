//! Overlay addresses that need no lease: everybody derives them alike from the network key and a peer's id.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::keys::{NetworkSecrets, hkdf};
use crate::addr::{self, OverlayNet};
use crate::id::PeerId;

impl NetworkSecrets {
    /// The ULA prefix (RFC 4193): `fd`, 40 derived bits, subnet 0.
    pub fn overlay_v6(&self) -> Ipv6Net {
        let global: [u8; 5] = *hkdf(&[], self.addresses.as_slice(), "ula", &[]);
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&global);
        Ipv6Net::new_assert(Ipv6Addr::from(octets), 64)
    }

    /// The IPv4 subnet for a network that names none: a /24 of 10.64.0.0/10, away from what home routers use.
    pub fn default_v4(&self) -> Ipv4Net {
        let [x, y]: [u8; 2] = *hkdf(&[], self.addresses.as_slice(), "subnet", &[]);
        Ipv4Net::new_assert(Ipv4Addr::new(10, 64 | (x & 63), y, 0), 24)
    }

    /// The overlay's prefixes; `v4` in the place of the derived IPv4 one, if it is given.
    pub fn overlay(&self, v4: Option<Ipv4Net>) -> OverlayNet {
        OverlayNet { v4: v4.unwrap_or_else(|| self.default_v4()), v6: self.overlay_v6() }
    }

    /// The interface identifier of a peer's IPv6 addresses.
    pub fn interface_id(&self, peer: &PeerId) -> u64 {
        u64::from_be_bytes(*hkdf(&[], self.addresses.as_slice(), "interface", &[&peer.0]))
    }

    /// A peer's ULA address.
    pub fn ula(&self, peer: &PeerId) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.overlay_v6().network()) | u128::from(self.interface_id(peer)))
    }

    /// A peer's link-local address.
    pub fn link_local(&self, peer: &PeerId) -> Ipv6Addr {
        addr::link_local(self.interface_id(peer))
    }

    /// The `k`-th address that a peer claims in `subnet`: never its network or broadcast address.
    pub fn auto_v4(&self, subnet: Ipv4Net, peer: &PeerId, k: u32) -> Ipv4Addr {
        let hash = u64::from_be_bytes(*hkdf(&[], self.addresses.as_slice(), "ipv4", &[&peer.0, &k.to_be_bytes()]));
        let hosts = (1_u64 << (32 - subnet.prefix_len())).saturating_sub(2).max(1);
        let host = u32::try_from(1 + hash % hosts).expect("a host number is below 2^32");
        Ipv4Addr::from(u32::from(subnet.network()).wrapping_add(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::OverlayNet;
    use crate::id::{Epoch, NetworkKey};

    fn network(key: u8) -> NetworkSecrets {
        NetworkSecrets::derive(&NetworkKey::new([key; 32]), Epoch(0))
    }

    #[test]
    fn prefixes_are_of_the_right_kind_and_differ_by_network() {
        let (a, b) = (network(1), network(2));
        assert_eq!((a.overlay_v6().prefix_len(), a.overlay_v6().network().octets()[0]), (64, 0xfd));
        assert_eq!(a.overlay_v6().network().octets()[6..], [0; 10]);
        assert_ne!(a.overlay_v6(), b.overlay_v6());
        assert_eq!((a.default_v4().prefix_len(), a.default_v4().network().octets()[0]), (24, 10));
        assert_eq!(a.default_v4(), a.default_v4().trunc());
    }

    #[test]
    fn a_peer_has_one_interface_identifier() {
        let (net, peer) = (network(1), PeerId([3; 32]));
        assert!(net.overlay_v6().contains(&net.ula(&peer)));
        assert_eq!(net.ula(&peer).segments()[4..], net.link_local(&peer).segments()[4..]);
        assert!(net.link_local(&peer).is_unicast_link_local());
        assert_ne!(net.ula(&peer), net.ula(&PeerId([4; 32])));
    }

    #[test]
    fn automatic_addresses_are_hosts_in_every_size_of_subnet() {
        let (net, peer) = (network(1), PeerId([3; 32]));
        for prefix in 0..=30 {
            let v4 = Ipv4Net::new(Ipv4Addr::new(10, 77, 1, 9), prefix).expect("prefix").trunc();
            let overlay = OverlayNet { v4, v6: net.overlay_v6() };
            for k in 0..50 {
                let auto = net.auto_v4(v4, &peer, k);
                assert!(overlay.is_host_v4(auto), "{auto} in {v4}");
            }
        }
        let all: std::collections::BTreeSet<_> =
            (0..200).map(|k| net.auto_v4("10.0.0.0/29".parse().expect("net"), &peer, k)).collect();
        assert_eq!(all.len(), 6, "every host address comes up");
    }
}
