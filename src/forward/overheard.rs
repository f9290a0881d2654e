//! A packet for many that a program here sent on a real LAN, as it would have been had it been sent on the overlay.
//!
//! A socket that is bound to nothing sends such packets by one interface, mostly a real LAN's. They are heard there as ever;
//! here a copy is adopted: its source becomes our own address in the overlay, so that answers come by the overlay, and the
//! LAN's broadcast address the overlay's. How far it may go stays as it is: multicast mostly has a TTL of 1.
//!
//! What a program left to the network card is not done in a copy that was taken before: checksums are computed anew. Only
//! a datagram in pieces has a finished one, in its first piece, which is corrected (RFC 1624).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::udp::{CHECKSUM, Part, UDP, Udp};
use crate::offload::sum;
use crate::router::Owned;
use crate::wire::beacon;

/// Ports of what is about one LAN alone: DHCP, DHCPv6, mDNS and LLMNR, which send on each interface what is true there, and
/// our own beacons.
const OF_ONE_LAN: [u16; 7] = [67, 68, 546, 547, 5353, 5355, beacon::PORT];

/// The scope of a group that stays on its link (RFC 4291 §2.7).
const LINK_LOCAL: u8 = 2;

/// A real LAN of this machine.
#[derive(Clone, Copy, Debug)]
pub struct RealLan<'a> {
    /// The interface's index.
    pub interface: u32,
    /// The broadcast addresses of the subnets there.
    pub broadcasts: &'a [Ipv4Addr],
    /// All addresses of this machine, of whichever interface: what others send is not ours to pass on.
    pub hosts: &'a [IpAddr],
}

/// Such a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overheard(Udp);

impl Overheard {
    /// Reads a packet that was sent on `lan`; `None`: it is none that the overlay should have.
    pub fn read(packet: &[u8], lan: &RealLan<'_>) -> Option<Self> {
        let udp = Udp::read(packet)?;
        let is_for_many = match udp.destination {
            IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || lan.broadcasts.contains(&v4),
            IpAddr::V6(v6) => v6.is_multicast(),
        };
        (is_for_many && lan.hosts.contains(&udp.source) && is_of_the_overlay(&udp, packet)).then_some(Self(udp))
    }

    /// Where it was sent to.
    pub const fn destination(&self) -> IpAddr {
        self.0.destination
    }

    /// Makes it one of ours, `me`, on an overlay with this broadcast address: its bytes. `None`: we have no address of its
    /// family.
    pub fn adopt<'a>(&self, packet: &'a mut [u8], me: &Owned, broadcast: Ipv4Addr) -> Option<&'a mut [u8]> {
        let Self(udp) = self;
        let packet = packet.get_mut(..udp.len)?;
        let before = sum::sum(&packet[udp.addresses()], 0);
        match udp.destination {
            IpAddr::V4(to) => {
                let to = if to.is_multicast() || to.is_broadcast() { to } else { broadcast };
                packet[12..16].copy_from_slice(&me.v4?.octets());
                packet[16..20].copy_from_slice(&to.octets());
                set_header_checksum(packet);
            }
            IpAddr::V6(to) => packet[8..24].copy_from_slice(&source_for(to, me).octets()),
        }
        match udp.part {
            Part::Whole => {
                let partial = sum::pseudo(&packet[udp.addresses()], UDP, udp.len - udp.at);
                packet[udp.at + CHECKSUM..][..2].copy_from_slice(&partial.to_be_bytes());
                sum::finish(packet, udp.at, CHECKSUM);
            }
            Part::First => {
                let after = sum::sum(&packet[udp.addresses()], 0);
                correct(&mut packet[udp.at + CHECKSUM..][..2], before, after);
            }
            Part::Later(_) => {}
        }
        Some(packet)
    }
}

/// Whether it is about more than one LAN. That is not seen of a later piece: without the first it is nothing.
fn is_of_the_overlay(udp: &Udp, packet: &[u8]) -> bool {
    if [IpAddr::V4(beacon::GROUP_V4), IpAddr::V6(beacon::GROUP_V6)].contains(&udp.destination) {
        return false;
    }
    match (udp.part, udp.header(packet)) {
        (Part::Later(_), _) => true,
        (_, None) => false,
        (part, Some((source, destination, len))) => {
            let is_whole = len == udp.len - udp.at;
            !OF_ONE_LAN.contains(&source) && !OF_ONE_LAN.contains(&destination) && (part == Part::First || is_whole)
        }
    }
}

/// Our address for what is sent to a group: answers to what stays on a link come there.
const fn source_for(group: Ipv6Addr, me: &Owned) -> Ipv6Addr {
    let scope = group.octets()[1] & 0xf;
    if scope == LINK_LOCAL { me.link_local } else { me.ula }
}

/// Puts the right checksum into an IPv4 header.
pub(super) fn set_header_checksum(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 0xf) * 4;
    packet[10..12].fill(0);
    let checksum = !sum::sum(&packet[..header], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Corrects a checksum after what it covers has changed: its sum was `before`, and is `after`.
fn correct(field: &mut [u8], before: u16, after: u16) {
    let checksum = u16::from_be_bytes([field[0], field[1]]);
    // Zero: there is none.
    if checksum != 0 {
        let corrected = match !sum::add([!checksum, !before, after]) {
            0 => 0xffff,
            other => other,
        };
        field.copy_from_slice(&corrected.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    use super::super::pieces;
    use super::*;

    const BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 255);

    fn me() -> Owned {
        let ip = |text: &str| text.parse().expect("an address");
        Owned { v4: Some(Ipv4Addr::new(10, 77, 0, 1)), ula: ip("fd00::1"), link_local: ip("fe80::77") }
    }

    /// As it is seen before the network card has finished it: with a checksum that is none.
    fn sent(source: &str, destination: &str, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let builder = match (source.parse().expect("source"), destination.parse().expect("destination")) {
            (IpAddr::V4(s), IpAddr::V4(d)) => PacketBuilder::ipv4(s.octets(), d.octets(), 1),
            (IpAddr::V6(s), IpAddr::V6(d)) => PacketBuilder::ipv6(s.octets(), d.octets(), 1),
            _ => panic!("one family"),
        };
        let mut out = Vec::new();
        builder.udp(ports.0, ports.1).write(&mut out, payload).expect("a vector takes all");
        let at = if destination.contains(':') { 46 } else { 26 };
        out[at..at + 2].copy_from_slice(&[0x12, 0x34]);
        out
    }

    fn read(packet: &[u8]) -> Option<Overheard> {
        let hosts =
            ["192.0.2.10", "fe80::10", "2001:db8::10", "fe80::77"].map(|text| text.parse().expect("an address"));
        let lan = RealLan { interface: 2, broadcasts: &[Ipv4Addr::new(192, 0, 2, 255)], hosts: &hosts };
        Overheard::read(packet, &lan)
    }

    fn adopted(mut packet: Vec<u8>) -> Vec<u8> {
        let heard = read(&packet).expect("for many");
        heard.adopt(&mut packet, &me(), BROADCAST).expect("we have both").to_vec()
    }

    fn assert_right(packet: &[u8]) {
        let sliced = SlicedPacket::from_ip(packet).expect("a packet");
        let Some(TransportSlice::Udp(udp)) = &sliced.transport else { panic!("no UDP: {sliced:?}") };
        let whole = Udp::read(packet).expect("UDP");
        assert!(sum::is_right(&packet[whole.addresses()], UDP, whole.datagram(packet)), "{udp:?}");
        if packet[0] >> 4 == 4 {
            assert_eq!(sum::sum(&packet[..20], 0), 0xffff);
        }
    }

    #[test]
    fn what_was_sent_on_a_real_lan_becomes_ours_whole_and_right() {
        for (source, to, new_source, new_to) in [
            ("192.0.2.10", "255.255.255.255", "10.77.0.1", "255.255.255.255"),
            ("192.0.2.10", "192.0.2.255", "10.77.0.1", "10.77.0.255"),
            ("192.0.2.10", "224.0.2.60", "10.77.0.1", "224.0.2.60"),
            ("fe80::10", "ff02::c", "fe80::77", "ff02::c"),
            ("fe80::77", "ff02::c", "fe80::77", "ff02::c"),
            ("2001:db8::10", "ff15::1", "fd00::1", "ff15::1"),
        ] {
            for payload in [&b"who is there?"[..], &[], &[0xff; 1_001]] {
                let padded = [sent(source, to, (50_000, 4_445), payload), vec![0; 7]].concat();
                let packet = adopted(padded);
                let found = crate::wire::ip::addresses(&packet).expect("a packet");
                assert_eq!(
                    (found.source.to_string(), found.destination.to_string()),
                    (new_source.into(), new_to.into())
                );
                assert_right(&packet);
                let (hops, head) = if source.contains(':') { (7, 48) } else { (8, 28) };
                assert_eq!((packet[hops], &packet[head..]), (1, payload), "TTL and payload are as they were");
            }
        }
    }

    #[test]
    fn what_is_about_one_lan_alone_stays_there() {
        let beacons = [beacon::GROUP_V4.to_string(), beacon::GROUP_V6.to_string()];
        let v4 = |to: &str, source: u16, destination: u16| sent("192.0.2.10", to, (source, destination), b"x");
        for packet in [
            v4("255.255.255.255", 68, 67),
            v4("224.0.0.251", 5_353, 5_353),
            v4("224.0.0.251", 50_000, 5_353),
            v4("224.0.0.252", 50_000, 5_355),
            v4("239.1.2.3", 50_000, beacon::PORT),
            v4(&beacons[0], 1, 2),
            sent("fe80::10", &beacons[1], (1, 2), b"x"),
            sent("fe80::10", "ff02::1:2", (546, 547), b"x"),
            // To one machine; to another LAN's broadcast address; from somebody else.
            v4("192.0.2.20", 1, 2),
            v4("198.51.100.255", 1, 2),
            sent("2001:db8::10", "2001:db8::20", (1, 2), b"x"),
            sent("192.0.2.20", "255.255.255.255", (1, 2), b"x"),
            sent("0.0.0.0", "255.255.255.255", (1, 2), b"x"),
        ] {
            assert_eq!(read(&packet), None, "{packet:?}");
        }
        // What is not UDP; and what is not whole.
        let mut tcp = v4("239.1.2.3", 1, 2);
        tcp[9] = 6;
        assert_eq!(read(&tcp), None);
        for packet in [v4("239.1.2.3", 1, 2), sent("fe80::10", "ff02::c", (1, 2), b"x")] {
            assert!(read(&packet).is_some());
            (0..packet.len()).for_each(|cut| assert_eq!(read(&packet[..cut]), None, "cut at {cut}"));
        }
        let mut lies = v4("239.1.2.3", 1, 2);
        lies[25] = 200;
        assert_eq!(read(&lies), None, "more is stated than there is");
        let nobody = Owned { v4: None, ..me() };
        let mut packet = v4("239.1.2.3", 1, 2);
        assert_eq!(read(&packet).expect("for many").adopt(&mut packet, &nobody, BROADCAST), None);
    }

    #[test]
    fn a_datagram_in_pieces_is_right_when_it_is_put_together() {
        let payload: Vec<u8> = (0..3_000_u16).map(|n| n.to_be_bytes()[1]).collect();
        let mut whole = sent("192.0.2.10", "192.0.2.255", (1, 2), &payload);
        // The system finishes it before it cuts it.
        let partial = sum::pseudo(&whole[12..20], UDP, payload.len() + 8);
        whole[26..28].copy_from_slice(&partial.to_be_bytes());
        sum::finish(&mut whole, 20, CHECKSUM);
        let cut = pieces(&whole, 1_500, 7).expect("IPv4");
        assert_eq!(cut.len(), 3);
        let adopted: Vec<Vec<u8>> = cut.into_iter().map(adopted).collect();
        let mut together = adopted[0][..20].to_vec();
        adopted.iter().for_each(|piece| together.extend(&piece[20..]));
        together[2..4].copy_from_slice(&3_028_u16.to_be_bytes());
        together[6..8].fill(0);
        set_header_checksum(&mut together);
        assert_right(&together);
        assert_eq!((&together[12..20], &together[28..]), (&[10, 77, 0, 1, 10, 77, 0, 255][..], &payload[..]));
    }

    #[test]
    fn random_bytes_never_panic() {
        use proptest::prelude::*;
        proptest!(|(first in 0x44..=0x6f_u8, bytes in prop::collection::vec(any::<u8>(), 0..90))| {
            let mut packet = [&[first], &bytes[..]].concat();
            let source = Udp::read(&packet).map(|udp| udp.source);
            let hosts: Vec<IpAddr> = source.into_iter().collect();
            let lan = RealLan { interface: 2, broadcasts: &[], hosts: &hosts };
            let _ = pieces(&packet, 60, 7);
            if let Some(heard) = Overheard::read(&packet, &lan) {
                let _ = heard.adopt(&mut packet, &me(), BROADCAST);
            }
        });
    }
}
