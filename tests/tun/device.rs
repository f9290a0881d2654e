//! The device: what the kernel and we say to each other through it.

use std::net::SocketAddr;

use etherparse::{NetSlice, SlicedPacket};
use punchlan::io::udp::Socket;
use punchlan::offload::{Offload, Vnet};

use crate::namespace::{in_namespace, kernel_addresses, up, up_with};
use crate::packets::{destination, has_right_checksum, ip, packet_to, parse_udp, ping, udp, unspecified, within};
use crate::{AT, KERNEL, MTU, PEER};

#[test]
fn packets_pass_both_ways_on_every_address() {
    in_namespace(async {
        let (tun, _) = up().await;
        for (kernel, peer) in KERNEL.iter().zip(PEER) {
            assert!(ping(&tun, ip(peer), ip(kernel)).await, "{kernel}");
        }
        // What a program sends to the overlay comes out of the device, from the interface's own address.
        for (kernel, peer) in KERNEL.iter().zip(PEER).take(2) {
            let socket = std::net::UdpSocket::bind((unspecified(ip(peer)), 0)).expect("bound");
            socket.send_to(b"to the overlay", (ip(peer), 7777)).expect("sent");
            let packet = packet_to(&tun, ip(peer)).await.expect("a packet");
            let (source, payload) = parse_udp(&packet);
            assert_eq!((source, payload.as_slice()), (ip(kernel), &b"to the overlay"[..]));
        }
    });
}

#[test]
fn a_waiting_program_gets_the_packets_that_we_send() {
    in_namespace(async {
        let (tun, _) = up().await;
        for (kernel, peer) in KERNEL.iter().zip(PEER).take(2) {
            let socket = tokio::net::UdpSocket::bind((ip(kernel), 0)).await.expect("bound");
            let port = socket.local_addr().expect("address").port();
            tun.send(&udp(ip(peer), ip(kernel), port, b"from the overlay")).expect("sent");
            let mut bytes = [0; 64];
            let (len, from) = within(socket.recv_from(&mut bytes)).await.expect("in time").expect("received");
            assert_eq!((&bytes[..len], from.ip()), (&b"from the overlay"[..], ip(peer)));
        }
    });
}

#[test]
fn a_burst_is_drained_after_one_wake_up() {
    in_namespace(async {
        let (tun, _) = up().await;
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("bound");
        for i in 0..300_u16 {
            socket.send_to(&i.to_be_bytes(), "10.77.0.2:7777").expect("sent");
        }
        let mut buf = vec![0; AT + usize::from(MTU)];
        let mut seen = Vec::new();
        let mut read = Some(within(tun.recv(&mut buf, AT, &mut [])).await.expect("in time").expect("a packet"));
        while let Some((_, len)) = read {
            let packet = &buf[AT..AT + len];
            if destination(packet) == Some(ip("10.77.0.2")) {
                let payload = parse_udp(packet).1;
                seen.push(u16::from_be_bytes(payload.try_into().expect("two bytes")));
            }
            read = tun.try_recv(&mut buf, AT, &mut []).expect("drained");
        }
        assert_eq!(seen, (0..300).collect::<Vec<u16>>());
    });
}

#[test]
fn the_kernel_leaves_to_us_what_it_is_asked_to_and_no_more() {
    for (offload, tcp, udp) in [(Offload::Off, false, false), (Offload::Tcp, true, false), (Offload::All, true, true)] {
        in_namespace(async move {
            let (tun, _) = up_with(offload).await;
            assert_eq!((tun.takes(Vnet::TCP_V4), tun.takes(Vnet::UDP)), (tcp, udp), "{offload:?}");
            // Three datagrams at once: as one, or one by one.
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("bound");
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGsoSegment, &1_000).expect("set");
            socket.send_to(&[7; 2_500], "10.77.0.2:7777").expect("sent");
            let (mut buf, mut lengths) = (vec![0; AT + 10_000], Vec::new());
            while lengths.iter().sum::<usize>() < 2_500 {
                let (vnet, len) = within(tun.recv(&mut buf, AT, &mut [])).await.expect("in time").expect("a packet");
                let packet = &mut buf[AT..AT + len];
                if destination(packet) != Some(ip("10.77.0.2")) {
                    continue;
                }
                assert_eq!(vnet == Vnet::PLAIN, offload == Offload::Off, "{vnet:?}");
                if vnet.gso_type == 0 {
                    vnet.finish(packet);
                    assert!(has_right_checksum(packet), "{offload:?}");
                }
                lengths.push(len - 28);
            }
            assert_eq!(lengths, if udp { vec![2_500] } else { vec![1_000, 1_000, 500] }, "{offload:?}");
        });
    }
}

#[test]
fn a_super_packet_is_no_longer_than_it_may_be() {
    in_namespace(async {
        let (tun, network) = up().await;
        network.limit_super_packets(&tun, 61_000).await;
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("bound");
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGsoSegment, &1_200).expect("set");
        let mut buf = vec![0; AT + 65_536];
        for (sent, first) in [(60_000, 60_000), (62_400, 1_200)] {
            socket.send_to(&vec![7; sent], "10.77.0.2:7777").expect("sent");
            let mut arrived = Vec::new();
            while arrived.iter().sum::<usize>() < sent {
                let (_, len) = within(tun.recv(&mut buf, AT, &mut [])).await.expect("in time").expect("a packet");
                if destination(&buf[AT..AT + len]) == Some(ip("10.77.0.2")) {
                    arrived.push(len - 28);
                }
            }
            assert_eq!(arrived[0], first, "{sent} bytes");
        }
    });
}

#[test]
fn what_does_not_fit_into_the_first_place_goes_on_in_the_rest() {
    in_namespace(async {
        let (tun, _) = up().await;
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("bound");
        for first in [20, 28, 100, 1028, 1400] {
            let payload: Vec<u8> = (0..1000).map(|i: u32| i.to_le_bytes()[0]).collect();
            socket.send_to(&payload, "10.77.0.2:7777").expect("sent");
            let (mut buf, mut rest) = (vec![0; AT + first], vec![0; 2000]);
            let packet = within(async {
                loop {
                    let (_, len) = tun.recv(&mut buf, AT, &mut rest).await.expect("the device is there");
                    let packet = [&buf[AT..], &rest].concat()[..len].to_vec();
                    if destination(&packet) == Some(ip("10.77.0.2")) {
                        return packet;
                    }
                }
            });
            assert_eq!(parse_udp(&packet.await.expect("in time")).1, payload, "{first}");
        }
    });
}

#[test]
fn what_is_no_packet_is_refused_and_harms_nothing() {
    in_namespace(async {
        let (tun, _) = up().await;
        for rubbish in [&[][..], &[0], &[0xFF; 40], &[0x45], &[0x60; 39], &vec![0x45; 70_000]] {
            // The kernel may refuse it at once or drop it later.
            let _ = tun.send(rubbish);
        }
        assert!(ping(&tun, ip("10.77.0.2"), ip("10.77.0.1")).await);
    });
}

#[test]
fn a_datagram_that_is_wider_than_the_path_arrives_in_pieces() {
    in_namespace(async {
        let (tun, network) = up().await;
        network.configure(&tun, 1280, &kernel_addresses()).await.expect("narrowed");
        for peer in &PEER[..2] {
            let to = SocketAddr::new(ip(peer), 7777);
            let socket = Socket::bind((unspecified(ip(peer)), 0).into()).expect("bound");
            socket.send(to, None, None, &[0; 1432]).expect("sent");
            for _ in 0..2 {
                let packet = packet_to(&tun, ip(peer)).await.expect("a fragment");
                let sliced = SlicedPacket::from_ip(&packet).expect("a packet");
                assert!(sliced.is_ip_payload_fragmented(), "{peer}");
                if let Some(NetSlice::Ipv4(v4)) = sliced.net {
                    assert!(!v4.header().dont_fragment());
                }
            }
            // And one that fits goes whole, free to be cut on its way.
            socket.send(to, None, None, &[0; 1000]).expect("sent");
            let packet = packet_to(&tun, ip(peer)).await.expect("a packet");
            if let Some(NetSlice::Ipv4(v4)) = SlicedPacket::from_ip(&packet).expect("a packet").net {
                assert!(!v4.header().dont_fragment());
            }
        }
    });
}
