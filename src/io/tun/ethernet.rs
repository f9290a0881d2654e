//! The Ethernet header before every packet. The overlay knows no links: above this file there are IP packets alone.
//!
//! ```text
//!   0      6      12     14
//!   [ to   | from | type | IP packet ]      RFC 894 §2, RFC 2464 §3
//! ```
//!
//! Nobody asks for an address by ARP or neighbour discovery, for the interface is NOARP: the kernel writes frames to the
//! interface's own address, which says nothing, and takes frames that are sent there. What it believes of the others is
//! whether they are for many: a packet to a group in a frame for one is counted and shown as the wrong thing.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// An Ethernet address.
pub(crate) type Address = [u8; 6];

const BROADCAST: Address = [0xff; 6];
/// Where all packets come from: as locally administered as ours, and never the same.
const FROM: Address = [0x06, b'p', b'u', b'n', b'c', b'h'];

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// The address of the interface that has this link-local IPv6 address: locally administered, and the same in every run.
pub(crate) const fn address(link_local: Ipv6Addr) -> Address {
    let [.., a, b, c, d, e] = link_local.octets();
    [0x02, a, b, c, d, e]
}

/// What one has to know of the interface to write to it. Others may change it while packets pass.
#[derive(Debug, Default)]
pub(super) struct Ethernet {
    /// The interface's own address, in the low bytes.
    own: AtomicU64,
    /// Its subnet's broadcast address.
    broadcast: AtomicU32,
}

impl Ethernet {
    /// Bytes of the header.
    pub(super) const LEN: usize = 14;

    pub(super) fn set_own(&self, [a, b, c, d, e, f]: Address) {
        self.own.store(u64::from_be_bytes([0, 0, a, b, c, d, e, f]), Relaxed);
    }

    pub(super) fn set_broadcast(&self, broadcast: Ipv4Addr) {
        self.broadcast.store(broadcast.into(), Relaxed);
    }

    /// The header for the packet that begins with `head`, all of its IP header; `None`: it is no IP packet.
    pub(super) fn header(&self, head: &[u8]) -> Option<[u8; Self::LEN]> {
        let (to, kind) = match head.first()? >> 4 {
            4 => (self.to_v4(*head.get(16..)?.first_chunk()?), IPV4),
            6 => (self.to_v6(*head.get(24..)?.first_chunk()?), IPV6),
            _ => return None,
        };
        let mut header = [0; Self::LEN];
        header[..6].copy_from_slice(&to);
        header[6..12].copy_from_slice(&FROM);
        header[12..].copy_from_slice(&kind);
        Some(header)
    }

    /// RFC 1112 §6.4.
    fn to_v4(&self, ip @ [_, b, c, d]: [u8; 4]) -> Address {
        let ip = Ipv4Addr::from(ip);
        if ip.is_multicast() {
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        } else if ip.is_broadcast() || u32::from(ip) == self.broadcast.load(Relaxed) {
            BROADCAST
        } else {
            self.own()
        }
    }

    /// RFC 2464 §7.
    fn to_v6(&self, ip: [u8; 16]) -> Address {
        match ip {
            [0xff, .., a, b, c, d] => [0x33, 0x33, a, b, c, d],
            _ => self.own(),
        }
    }

    fn own(&self) -> Address {
        let [_, _, own @ ..] = self.own.load(Relaxed).to_be_bytes();
        own
    }
}

/// Whether a frame with this header holds an IP packet.
pub(super) fn is_ip(header: &[u8]) -> bool {
    header.ends_with(&IPV4) || header.ends_with(&IPV6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::tests::udp;

    const OWN: Address = [0x02, 1, 2, 3, 4, 5];

    fn ethernet() -> Ethernet {
        let ethernet = Ethernet::default();
        ethernet.set_own(OWN);
        ethernet.set_broadcast(Ipv4Addr::new(10, 77, 0, 255));
        ethernet
    }

    #[test]
    fn a_frame_is_for_one_for_a_group_or_for_all_as_its_packet_is() {
        for (source, destination, to) in [
            ("10.77.0.2", "10.77.0.1", OWN),
            ("10.77.0.2", "10.77.1.255", OWN),
            ("10.77.0.2", "10.77.0.255", BROADCAST),
            ("10.77.0.2", "255.255.255.255", BROADCAST),
            ("10.77.0.2", "224.0.0.251", [0x01, 0x00, 0x5e, 0, 0, 251]),
            ("10.77.0.2", "239.129.2.60", [0x01, 0x00, 0x5e, 1, 2, 60]),
            ("fe80::2", "fe80::1", OWN),
            ("fd77::2", "fd77::1", OWN),
            ("fe80::2", "ff02::fb", [0x33, 0x33, 0, 0, 0, 0xfb]),
            ("fd77::2", "ff15::1234:5678", [0x33, 0x33, 0x12, 0x34, 0x56, 0x78]),
        ] {
            let packet = udp(source, destination);
            let kind = if packet[0] >> 4 == 4 { IPV4 } else { IPV6 };
            let header = ethernet().header(&packet).expect("a packet");
            assert_eq!(header, *[&to[..], &FROM, &kind].concat(), "{destination}");
            assert!(is_ip(&header));
        }
    }

    #[test]
    fn what_is_no_packet_gets_no_header() {
        for packet in [udp("10.77.0.2", "10.77.0.1"), udp("fd77::2", "fd77::1")] {
            let upto = if packet[0] >> 4 == 4 { 20 } else { 40 };
            assert!((0..upto).all(|cut| ethernet().header(&packet[..cut]).is_none()));
            assert!(ethernet().header(&packet[..upto]).is_some());
        }
        assert_eq!(ethernet().header(&[0x50; 60]), None);
        assert!(!is_ip(&[0x08, 0x06]), "ARP");
    }

    #[test]
    fn an_interfaces_address_is_its_own_locally_administered_and_for_one() {
        let [one, two] =
            ["fe80::a1b2:c3d4:e5f6:708", "fe80::a1b2:c3d4:e5f6:709"].map(|ip| address(ip.parse().expect("v6")));
        assert_eq!(one, [0x02, 0xd4, 0xe5, 0xf6, 0x07, 0x08]);
        assert_ne!(one, two);
        for address in [one, FROM] {
            assert_eq!(address[0] & 0x03, 0x02);
        }
        assert_ne!(one[0], FROM[0]);
    }
}
