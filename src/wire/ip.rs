//! Inner packets: what the router must know of an IP packet, and no more. Parsed by `etherparse`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    IpNumber, IpSlice, Ipv4HeaderSlice, Ipv6ExtensionSlice, Ipv6HeaderSlice, NetSlice, SlicedPacket, TransportSlice,
};

use super::Malformed;

/// Who an inner packet is from and for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
}

/// Reads the addresses of an IPv4 (RFC 791) or IPv6 (RFC 8200) packet whose stated length fits `packet`.
pub fn addresses(packet: &[u8]) -> Result<Addresses, Malformed> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| Malformed::Bad("IPv4 header"))?;
            let total = usize::from(header.total_len());
            if total < header.slice().len() || total > packet.len() {
                return Err(Malformed::Bad("IPv4 length"));
            }
            Ok(Addresses { source: header.source_addr().into(), destination: header.destination_addr().into() })
        }
        Some(6) => {
            let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| Malformed::Bad("IPv6 header"))?;
            if Ipv6HeaderSlice::slice(&header).len() + usize::from(header.payload_length()) > packet.len() {
                return Err(Malformed::Bad("IPv6 length"));
            }
            Ok(Addresses { source: header.source_addr().into(), destination: header.destination_addr().into() })
        }
        Some(_) => Err(Malformed::Bad("IP version")),
        None => Err(Malformed::Truncated),
    }
}

/// Whether an IPv6 packet is a multicast listener report or done (RFC 2710, RFC 3810): the only packets that
/// a host may send from `::` here. Their ICMPv6 header follows a hop-by-hop header of 8 bytes.
pub fn is_listener_report(packet: &[u8]) -> bool {
    const HEADER: usize = 40;
    const HOP_BY_HOP: usize = 8;
    let Ok(header) = Ipv6HeaderSlice::from_slice(packet) else { return false };
    header.next_header() == IpNumber::IPV6_HEADER_HOP_BY_HOP
        && packet.get(HEADER) == Some(&IpNumber::IPV6_ICMP.0)
        && packet.get(HEADER + 1) == Some(&0)
        && matches!(packet.get(HEADER + HOP_BY_HOP), Some(131 | 132 | 143))
}

/// Whether a packet would change how its receiver routes: router advertisements and redirects (RFC 4861), ICMP
/// redirects (RFC 792); and what is neither TCP nor UDP and cannot be read. The overlay has no routers, so nobody has reason to send one.
pub fn is_router_message(packet: &[u8]) -> bool {
    // What most packets are is seen at a glance: the protocol field of IPv4, the first next-header of IPv6.
    let protocol = match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(9),
        _ => packet.get(6),
    };
    if protocol.is_some_and(|p| [IpNumber::TCP.0, IpNumber::UDP.0].contains(p)) {
        return false;
    }
    // What cannot be read to its end could be one.
    let Ok(sliced) = SlicedPacket::from_ip(packet) else { return true };
    match sliced.transport {
        _ if sliced.is_ip_payload_fragmented() => begins_router_message(&sliced),
        Some(TransportSlice::Icmpv6(icmp)) => matches!(icmp.type_u8(), 134 | 137),
        Some(TransportSlice::Icmpv4(icmp)) => icmp.type_u8() == 5,
        _ => false,
    }
}

/// The same of a fragment. Only the first says what the whole is, and without it the others are nothing.
fn begins_router_message(sliced: &SlicedPacket<'_>) -> bool {
    let (payload, offset) = match &sliced.net {
        Some(NetSlice::Ipv4(v4)) => (v4.payload(), v4.header().fragments_offset()),
        Some(NetSlice::Ipv6(v6)) => {
            let fragment = v6.extensions().clone().into_iter().find_map(|header| match header {
                Ipv6ExtensionSlice::Fragment(fragment) => Some(fragment.fragment_offset()),
                _ => None,
            });
            (v6.payload(), fragment.unwrap_or_default())
        }
        _ => return true,
    };
    if offset.value() != 0 {
        return false;
    }
    match (payload.ip_number, payload.payload.first()) {
        (IpNumber::ICMP, Some(kind)) => *kind == 5,
        (IpNumber::IPV6_ICMP, Some(kind)) => matches!(kind, 134 | 137),
        // Nothing of it, or more headers of IPv6: what it is stands further on.
        (IpNumber::ICMP | IpNumber::IPV6_ICMP, None) => true,
        (number, _) => matches!(sliced.net, Some(NetSlice::Ipv6(_))) && number.is_ipv6_ext_header_value(),
    }
}

/// What an IP packet carries, behind its headers and theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper<'a> {
    /// Its protocol.
    pub protocol: IpNumber,
    /// It is a fragment, and not the first.
    pub later: bool,
    /// It, or as much of it as is in this fragment.
    pub bytes: &'a [u8],
}

/// What an IPv4 or IPv6 packet carries; `None` if its headers cannot be read.
pub fn upper(packet: &[u8]) -> Option<Upper<'_>> {
    let (later, payload) = match IpSlice::from_slice(packet).ok()? {
        IpSlice::Ipv4(v4) => (v4.header().fragments_offset().value() != 0, v4.payload().clone()),
        IpSlice::Ipv6(v6) => {
            let later = v6.extensions().clone().into_iter().any(
                |header| matches!(header, Ipv6ExtensionSlice::Fragment(part) if part.fragment_offset().value() != 0),
            );
            (later, v6.payload().clone())
        }
    };
    Some(Upper { protocol: payload.ip_number, later, bytes: payload.payload })
}

/// Whether `destination` means several machines: multicast, the limited broadcast, or `subnet_broadcast`.
pub fn is_fan_out(destination: IpAddr, subnet_broadcast: Ipv4Addr) -> bool {
    match destination {
        IpAddr::V4(a) => a.is_broadcast() || a.is_multicast() || a == subnet_broadcast,
        IpAddr::V6(a) => a.is_multicast(),
    }
}

/// The unspecified IPv6 address, `::`.
pub const UNSPECIFIED_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    /// A UDP packet between two addresses of one family.
    pub(crate) fn udp(source: &str, destination: &str) -> Vec<u8> {
        let builder = match (source.parse().expect("source"), destination.parse().expect("destination")) {
            (IpAddr::V4(s), IpAddr::V4(d)) => PacketBuilder::ipv4(s.octets(), d.octets(), 64),
            (IpAddr::V6(s), IpAddr::V6(d)) => PacketBuilder::ipv6(s.octets(), d.octets(), 64),
            _ => panic!("one family"),
        };
        let mut out = Vec::new();
        builder.udp(1000, 2000).write(&mut out, b"payload").expect("a vector takes all");
        out
    }

    #[test]
    fn both_families_are_read() {
        for (s, d) in [("10.77.0.1", "10.77.0.2"), ("fd00::1", "ff02::1")] {
            let found = addresses(&udp(s, d)).expect("valid");
            assert_eq!((found.source.to_string(), found.destination.to_string()), (s.into(), d.into()));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for packet in [udp("10.77.0.1", "10.77.0.2"), udp("fd00::1", "fd00::2")] {
            for cut in 0..packet.len() {
                assert!(addresses(&packet[..cut]).is_err(), "cut at {cut}");
            }
        }
        let mut short = udp("10.77.0.1", "10.77.0.2");
        short[2..4].copy_from_slice(&19_u16.to_be_bytes());
        assert!(addresses(&short).is_err());
        assert!(addresses(&[0x50; 40]).is_err());
    }

    #[test]
    fn messages_of_routers_are_told_from_pings() {
        for (icmp_type, expected) in [(134, true), (137, true), (128, false), (135, false)] {
            let mut packet = vec![0x60, 0, 0, 0, 0, 16, 58, 255];
            packet.extend([0xfe; 32]);
            packet.extend([icmp_type; 16]);
            assert_eq!(is_router_message(&packet), expected, "{icmp_type}");
            // The same behind an extension header of 8 bytes.
            packet.splice(40..40, [58, 0, 1, 4, 0, 0, 0, 0]);
            (packet[5], packet[6]) = (24, 60);
            assert_eq!(is_router_message(&packet), expected, "{icmp_type} behind options");
        }
        let mut redirect = Vec::new();
        let builder = PacketBuilder::ipv4([10, 77, 0, 1], [10, 77, 0, 2], 64);
        builder.icmpv4_raw(5, 1, [10, 77, 0, 1]).write(&mut redirect, &[0; 28]).expect("a vector takes all");
        assert!(is_router_message(&redirect));
        assert!(!is_router_message(&udp("10.77.0.1", "10.77.0.2")));
    }

    #[test]
    fn the_first_fragment_tells_what_the_whole_is() {
        for (kind, offset, expected) in [(5, 0, true), (8, 0, false), (5, 3, false)] {
            let mut packet = Vec::new();
            let builder = PacketBuilder::ipv4([10, 77, 0, 1], [10, 77, 0, 2], 64);
            builder.icmpv4_raw(kind, 1, [0; 4]).write(&mut packet, &[kind; 24]).expect("a vector takes all");
            // "More fragments", and where it stands.
            packet[6..8].copy_from_slice(&(0x2000_u16 | offset).to_be_bytes());
            assert_eq!(is_router_message(&packet), expected, "ICMP {kind} at {offset}");
        }
        for (next, kind, offset, expected) in [
            (58, 134, 0, true),
            (58, 137, 0, true),
            (58, 128, 0, false),
            (58, 134, 8, false),
            (60, 128, 0, true),
            (17, 134, 0, false),
            (132, 134, 0, false),
        ] {
            let mut packet = vec![0x60, 0, 0, 0, 0, 32, 44, 255];
            packet.extend([0xfe; 32]);
            packet.extend([next, 0, 0, offset | 1, 0, 0, 0, 7]);
            packet.extend([kind; 24]);
            assert_eq!(is_router_message(&packet), expected, "{next}: {kind} at {offset}");
        }
    }

    #[test]
    fn listener_reports_are_told_from_other_packets() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 36, 0, 1];
        packet.extend([0; 16]);
        packet.extend("ff02::16".parse::<Ipv6Addr>().expect("address").octets());
        packet.extend([58, 0, 5, 2, 0, 0, 1, 0]);
        packet.extend([143; 28]);
        assert!(is_listener_report(&packet));
        packet[48] = 128;
        assert!(!is_listener_report(&packet));
        assert!(!is_listener_report(&udp("fd00::1", "fd00::2")));
        assert!(!is_listener_report(&packet[..44]));
    }
}
