//! Packets as the other side of the overlay writes and reads them.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use punchlan::io::tun::Tun;

use crate::AT;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

pub(crate) fn unspecified(family_of: IpAddr) -> IpAddr {
    if family_of.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_secs(2), future).await.ok()
}

pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match SlicedPacket::from_ip(packet).ok()?.net? {
        NetSlice::Ipv4(v4) => Some(v4.header().destination_addr().into()),
        NetSlice::Ipv6(v6) => Some(v6.header().destination_addr().into()),
        NetSlice::Arp(_) => None,
    }
}

/// The next packet that the kernel sends to `to`; `None` if none comes.
pub(crate) async fn packet_to(tun: &Tun, to: IpAddr) -> Option<Vec<u8>> {
    let mut buf = vec![0; AT + 2048];
    within(async {
        loop {
            let (vnet, len) = tun.recv(&mut buf, AT, &mut []).await.expect("the device is there");
            let packet = &mut buf[AT..AT + len];
            vnet.finish(packet);
            if destination(packet) == Some(to) {
                return packet.to_vec();
            }
        }
    })
    .await
}

/// Sends an echo request from `from` to `to`; whether the kernel answers it.
pub(crate) async fn ping(tun: &Tun, from: IpAddr, to: IpAddr) -> bool {
    let mut packet = Vec::new();
    let payload = [7; 56];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64)
            .icmpv4_echo_request(1, 1)
            .write(&mut packet, &payload)
            .expect("packet"),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64)
            .icmpv6_echo_request(1, 1)
            .write(&mut packet, &payload)
            .expect("packet"),
        _ => panic!("one family"),
    }
    tun.send(&packet).expect("sent");
    let Some(reply) = packet_to(tun, from).await else { return false };
    match SlicedPacket::from_ip(&reply).expect("a packet").transport {
        Some(TransportSlice::Icmpv4(icmp)) => icmp.type_u8() == 0 && icmp.payload() == payload,
        Some(TransportSlice::Icmpv6(icmp)) => icmp.type_u8() == 129 && icmp.payload() == payload,
        _ => false,
    }
}

pub(crate) fn udp(from: IpAddr, to: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64)
            .udp(9, port)
            .write(&mut packet, payload)
            .expect("packet"),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64)
            .udp(9, port)
            .write(&mut packet, payload)
            .expect("packet"),
        _ => panic!("one family"),
    }
    packet
}

pub(crate) fn has_right_checksum(packet: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ip(packet).expect("a packet");
    let (Some(NetSlice::Ipv4(v4)), Some(TransportSlice::Udp(udp))) = (&sliced.net, &sliced.transport) else {
        return false;
    };
    let header = udp.to_header();
    header.calc_checksum_ipv4(&v4.header().to_header(), udp.payload()) == Ok(header.checksum)
}

/// Source and payload of a UDP packet.
pub(crate) fn parse_udp(packet: &[u8]) -> (IpAddr, Vec<u8>) {
    let sliced = SlicedPacket::from_ip(packet).expect("a packet");
    let source = match sliced.net.expect("a network layer") {
        NetSlice::Ipv4(v4) => v4.header().source_addr().into(),
        NetSlice::Ipv6(v6) => v6.header().source_addr().into(),
        NetSlice::Arp(_) => panic!("no ARP here"),
    };
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("not UDP: {packet:?}") };
    (source, udp.payload().to_vec())
}

/// What a router says (RFC 4861 §4.2): use me for half an hour, and the prefix 2001:db8:bad::/64 is here.
pub(crate) fn router_advertisement() -> Vec<u8> {
    let mut body = vec![0; 8]; // reachable time, retransmission time: unspecified
    body.extend([3, 4, 64, 0xC0]); // prefix information: on-link, autonomous
    body.extend(3600_u32.to_be_bytes());
    body.extend(3600_u32.to_be_bytes());
    body.extend([0; 4]);
    body.extend("2001:db8:bad::".parse::<Ipv6Addr>().expect("prefix").octets());
    let mut packet = Vec::new();
    let (from, to): (Ipv6Addr, Ipv6Addr) = ("fe80::2".parse().expect("v6"), "ff02::1".parse().expect("v6"));
    PacketBuilder::ipv6(from.octets(), to.octets(), 255)
        .icmpv6_raw(134, 0, [64, 0, 0x07, 0x08])
        .write(&mut packet, &body)
        .expect("packet");
    packet
}
