//! Inner packets as a kernel writes and reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

/// What an inner packet is to the kernel behind the tunnel.
#[derive(Debug, PartialEq, Eq)]
pub enum Inner {
    Udp(Vec<u8>),
    EchoRequest(Vec<u8>),
    EchoReply(Vec<u8>),
}

/// Which packet to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Udp,
    EchoRequest,
    EchoReply,
}

/// A packet with this payload.
pub fn write(kind: Kind, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => write_v4(kind, s, d, payload, &mut out),
        (IpAddr::V6(s), IpAddr::V6(d)) => write_v6(kind, s, d, payload, &mut out),
        mixed => panic!("two families: {mixed:?}"),
    }
    out
}

fn write_v4(kind: Kind, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8], out: &mut Vec<u8>) {
    let ip = PacketBuilder::ipv4(source.octets(), destination.octets(), 64);
    match kind {
        Kind::Udp => ip.udp(27_000, 27_001).write(out, payload),
        Kind::EchoRequest => ip.icmpv4_echo_request(1, 1).write(out, payload),
        Kind::EchoReply => ip.icmpv4_echo_reply(1, 1).write(out, payload),
    }
    .expect("a vector takes everything");
}

fn write_v6(kind: Kind, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8], out: &mut Vec<u8>) {
    let ip = PacketBuilder::ipv6(source.octets(), destination.octets(), 64);
    match kind {
        Kind::Udp => ip.udp(27_000, 27_001).write(out, payload),
        Kind::EchoRequest => ip.icmpv6_echo_request(1, 1).write(out, payload),
        Kind::EchoReply => ip.icmpv6_echo_reply(1, 1).write(out, payload),
    }
    .expect("a vector takes everything");
}

/// Source, destination and content of a packet that came out of a tunnel.
pub fn read(packet: &[u8]) -> (IpAddr, IpAddr, Inner) {
    let sliced = SlicedPacket::from_ip(packet).expect("only whole packets come out of a tunnel");
    let (source, destination): (IpAddr, IpAddr) = match sliced.net.expect("an IP packet") {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        other => panic!("{other:?} is no IP packet"),
    };
    let inner = match sliced.transport.expect("a transport") {
        TransportSlice::Udp(udp) => Inner::Udp(udp.payload().to_vec()),
        TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            Icmpv4Type::EchoRequest(_) => Inner::EchoRequest(icmp.payload().to_vec()),
            Icmpv4Type::EchoReply(_) => Inner::EchoReply(icmp.payload().to_vec()),
            other => panic!("{other:?}"),
        },
        TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
            Icmpv6Type::EchoRequest(_) => Inner::EchoRequest(icmp.payload().to_vec()),
            Icmpv6Type::EchoReply(_) => Inner::EchoReply(icmp.payload().to_vec()),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    (source, destination, inner)
}

#[test]
fn what_is_written_can_be_read() {
    let v4 = ["10.77.0.1", "10.77.0.2"].map(|a| a.parse::<IpAddr>().expect("an address"));
    let v6 = ["fd00::1", "fd00::2"].map(|a| a.parse::<IpAddr>().expect("an address"));
    for [source, destination] in [v4, v6] {
        let wrapped = [
            (Kind::Udp, Inner::Udp(vec![7; 16])),
            (Kind::EchoRequest, Inner::EchoRequest(vec![7; 16])),
            (Kind::EchoReply, Inner::EchoReply(vec![7; 16])),
        ];
        for (kind, inner) in wrapped {
            assert_eq!(read(&write(kind, source, destination, &[7; 16])), (source, destination, inner));
        }
    }
}
