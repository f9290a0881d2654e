//! Inner packets: what the router must know of an IP packet, and no more. Parsed by `etherparse`.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    IpNumber, IpSlice, Ipv4HeaderSlice, Ipv6ExtensionSlice, Ipv6HeaderSlice, SlicedPacket, TransportSlice,
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

/// Whether a packet is one by which hosts and routers of one link arrange themselves, and no program's: neighbour and router
/// discovery and redirects (RFC 4861, RFC 792, RFC 1256), and who listens to which group (IGMP; MLD, RFC 3810); and what is
/// neither TCP nor UDP and cannot be read. The overlay has neither neighbours nor routers, so that nobody has reason to send
/// one, and its receiver would believe it.
pub fn is_link_message(packet: &[u8]) -> bool {
    // What most packets are is seen at a glance: the protocol field of IPv4, the first next-header of IPv6.
    let protocol = match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(9),
        _ => packet.get(6),
    };
    match protocol.copied().map(IpNumber) {
        Some(IpNumber::TCP | IpNumber::UDP) => return false,
        Some(IpNumber::IGMP) => return true,
        _ => {}
    }
    // What cannot be read to its end could be one.
    let Ok(sliced) = SlicedPacket::from_ip(packet) else { return true };
    match sliced.transport {
        _ if sliced.is_ip_payload_fragmented() => begins_link_message(packet),
        Some(TransportSlice::Icmpv6(icmp)) => is_of_link_v6(icmp.type_u8()),
        Some(TransportSlice::Icmpv4(icmp)) => is_of_link_v4(icmp.type_u8()),
        _ => false,
    }
}

/// Types of ICMP: redirect, router advertisement and solicitation.
const fn is_of_link_v4(kind: u8) -> bool {
    matches!(kind, 5 | 9 | 10)
}

/// Types of ICMPv6: listeners (130–132, 143), routers, neighbours and redirects (133–138, 141, 142), multicast routers
/// (151–153).
const fn is_of_link_v6(kind: u8) -> bool {
    matches!(kind, 130..=138 | 141..=143 | 151..=153)
}

/// The same of a fragment. Only the first says what the whole is, and without it the others are nothing.
fn begins_link_message(packet: &[u8]) -> bool {
    match upper(packet) {
        None => true,
        Some(Upper { later: true, .. }) => false,
        Some(Upper { protocol, bytes, .. }) => match (protocol, bytes.first()) {
            (IpNumber::ICMP, Some(kind)) => is_of_link_v4(*kind),
            (IpNumber::IPV6_ICMP, Some(kind)) => is_of_link_v6(*kind),
            // Nothing of it, or more headers of IPv6: what it is stands further on.
            (IpNumber::ICMP | IpNumber::IPV6_ICMP, None) => true,
            (number, _) => packet.first().is_some_and(|byte| byte >> 4 == 6) && number.is_ipv6_ext_header_value(),
        },
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

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv6Addr;

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

    /// An ICMPv6 message of this type.
    pub(crate) fn icmpv6(source: &str, destination: &str, kind: u8) -> Vec<u8> {
        let [source, destination] =
            [source, destination].map(|ip| ip.parse::<Ipv6Addr>().expect("an address").octets());
        let mut out = Vec::new();
        let builder = PacketBuilder::ipv6(source, destination, 255).icmpv6_raw(kind, 0, [0; 4]);
        builder.write(&mut out, &[0; 20]).expect("a vector takes all");
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
    fn what_is_said_to_the_link_is_told_from_pings_and_errors() {
        let of_link = [130, 131, 132, 133, 134, 135, 136, 137, 143];
        for (kind, expected) in
            of_link.map(|kind| (kind, true)).into_iter().chain([1, 2, 3, 128, 129].map(|kind| (kind, false)))
        {
            let packet = icmpv6("fe80::1", "ff02::16", kind);
            assert_eq!(is_link_message(&packet), expected, "{kind}");
            // The same behind options for the destination, and behind a router alert, as listeners report.
            for (next, option) in [(60, [1, 4, 0, 0, 0, 0]), (0, [5, 2, 0, 0, 1, 0])] {
                let mut packet = packet.clone();
                packet.splice(40..40, [&[58, 0][..], &option].concat());
                (packet[5], packet[6]) = (packet[5] + 8, next);
                assert_eq!(is_link_message(&packet), expected, "{kind} behind {next}");
                // Cut off: it could be one.
                assert!((40..49).all(|cut| is_link_message(&packet[..cut])), "{kind} behind {next}");
            }
        }
        for (kind, expected) in [(5, true), (9, true), (10, true), (0, false), (3, false), (8, false)] {
            let mut packet = Vec::new();
            let builder = PacketBuilder::ipv4([10, 77, 0, 1], [10, 77, 0, 2], 64);
            builder.icmpv4_raw(kind, 1, [10, 77, 0, 1]).write(&mut packet, &[0; 28]).expect("a vector takes all");
            assert_eq!(is_link_message(&packet), expected, "ICMP {kind}");
        }
        for packet in [udp("10.77.0.1", "10.77.0.2"), udp("fd00::1", "ff02::fb")] {
            assert!(!is_link_message(&packet));
        }
    }

    #[test]
    fn reports_of_igmp_are_said_to_the_link_with_and_without_a_router_alert() {
        let report = [0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3];
        let (source, destination) = ([10, 77, 0, 1], [224, 0, 0, 22]);
        let mut plain = Vec::new();
        PacketBuilder::ipv4(source, destination, 1)
            .write(&mut plain, IpNumber::IGMP, &report)
            .expect("a vector takes all");
        let mut alert = plain.clone();
        alert.splice(20..20, [0x94, 4, 0, 0]);
        (alert[0], alert[3]) = (0x46, alert[3] + 4);
        for packet in [plain, alert] {
            assert!(addresses(&packet).is_ok() && is_link_message(&packet));
        }
    }

    #[test]
    fn the_first_fragment_tells_what_the_whole_is() {
        for (kind, offset, expected) in [(5, 0, true), (8, 0, false), (5, 3, false)] {
            let mut packet = Vec::new();
            let builder = PacketBuilder::ipv4([10, 77, 0, 1], [10, 77, 0, 2], 64);
            builder.icmpv4_raw(kind, 1, [0; 4]).write(&mut packet, &[kind; 24]).expect("a vector takes all");
            // "More fragments", and where it stands.
            packet[6..8].copy_from_slice(&(0x2000_u16 | offset).to_be_bytes());
            assert_eq!(is_link_message(&packet), expected, "ICMP {kind} at {offset}");
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
            assert_eq!(is_link_message(&packet), expected, "{next}: {kind} at {offset}");
        }
    }
}
