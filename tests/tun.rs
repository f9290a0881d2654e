//! The TUN device and what is configured on it, against the real kernel: each test stands in a network
//! namespace of its own, made for it and gone with it, and plays the other side of the overlay at the level
//! of packets.
//!
//! ```text
//!            the test's namespace
//!   +---------------------------------------+
//!   |  kernel: 10.77.0.1, fd77::1, fe80::1  |
//!   +-------------------+-------------------+
//!                    punch0
//!   +-------------------+-------------------+
//!   |  test: 10.77.0.2, fd77::2, fe80::2    |  reads and writes packets
//!   +---------------------------------------+
//! ```
//!
//! Needs root and /dev/net/tun.
#![cfg(target_os = "linux")]

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use punchlan::io::interfaces;
use punchlan::io::net::{Addresses, Changes, Clash, Network};
use punchlan::io::tun::{NAME_PREFIX, Tun};
use punchlan::io::udp::Socket;
use punchlan::offload::{Offload, Vnet};

/// Where packets are read to.
const AT: usize = Vnet::LEN;
const MTU: u16 = 1400;
/// The three addresses of the kernel's side, and of ours.
const KERNEL: [&str; 3] = ["10.77.0.1", "fd77::1", "fe80::1"];
const PEER: [&str; 3] = ["10.77.0.2", "fd77::2", "fe80::2"];

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
fn the_ipv4_address_changes_while_everything_runs() {
    in_namespace(async {
        let (tun, network) = up().await;
        let net = |text: &str| Some(text.parse().expect("net"));
        network.replace_v4(&tun, net("10.77.0.1/24"), net("10.77.0.9/24")).await.expect("changed");
        assert!(ping(&tun, ip("10.77.0.2"), ip("10.77.0.9")).await);
        assert!(!ping(&tun, ip("10.77.0.2"), ip("10.77.0.1")).await);
        assert_eq!(addresses("punch0").await, ["10.77.0.9/24", "fd77::1/64", "fe80::1/64"]);
        assert!(routes().await.contains(&"10.77.0.0/24".to_owned()));
        // Taken away, and given again although the old one is not there.
        network.replace_v4(&tun, net("10.77.0.9/24"), None).await.expect("taken");
        assert!(!routes().await.contains(&"10.77.0.0/24".to_owned()));
        assert!(ping(&tun, ip("fd77::2"), ip("fd77::1")).await);
        network.replace_v4(&tun, net("10.77.0.9/24"), net("10.77.0.3/24")).await.expect("given");
        assert!(ping(&tun, ip("10.77.0.2"), ip("10.77.0.3")).await);
    });
}

#[test]
fn everything_is_gone_after_drop() {
    in_namespace(async {
        let before = routes().await;
        let (tun, _) = up().await;
        assert_eq!(tun.name(), "punch0");
        assert_eq!(addresses("punch0").await, ["10.77.0.1/24", "fd77::1/64", "fe80::1/64"]);
        assert_eq!(mtu("punch0").await, Some(u32::from(MTU)));
        for expected in ["10.77.0.0/24", "fd77::/64", "fe80::/64"] {
            assert!(routes().await.contains(&expected.to_owned()), "{expected}");
        }
        drop(tun);
        assert_eq!(mtu("punch0").await, None);
        assert_eq!(routes().await, before);
        assert_eq!(Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened").name(), "punch0");
    });
}

#[test]
fn the_first_number_that_nobody_has_is_taken() {
    in_namespace(async {
        add_veth("punch0", "other").await;
        let one = Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened");
        let two = Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened");
        assert_eq!((one.name(), two.name()), ("punch1", "punch2"));
        assert_ne!(one.index(), two.index());
        drop(one);
        assert_eq!(Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened").name(), "punch1");
    });
}

#[test]
fn a_device_whose_owner_died_is_deleted_and_all_others_stay() {
    in_namespace(async {
        persistent_tun("punch0");
        persistent_tun("game0");
        add_veth("punch7", "other").await;
        let network = Network::open().expect("netlink");
        configure_by_name("punch0", "10.77.0.1/24").await;
        let alive = Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened");
        assert_eq!(alive.name(), "punch1");
        assert!(routes().await.contains(&"10.77.0.0/24".to_owned()));
        assert_eq!(network.remove_leftovers().await.expect("removed"), ["punch0"]);
        assert!(!routes().await.contains(&"10.77.0.0/24".to_owned()));
        assert_eq!(network.remove_leftovers().await.expect("nothing"), [""; 0]);
        for name in ["punch1", "punch7", "game0"] {
            assert!(mtu(name).await.is_some(), "{name}");
        }
        // Also while it is up, a device that is held is no leftover.
        network.configure(&alive, MTU, &kernel_addresses()).await.expect("configured");
        assert_eq!(network.remove_leftovers().await.expect("nothing"), [""; 0]);
        assert_eq!(Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened").name(), "punch0");
    });
}

#[test]
fn a_clash_with_a_network_of_this_machine_is_found() {
    in_namespace(async {
        add_veth("lan0", "lan1").await;
        configure_by_name("lan0", "10.77.0.200/24").await;
        let listed = Network::open().expect("netlink").routes().await.expect("routes");
        let find = |subnet: &str| Clash::find(subnet.parse().expect("subnet"), &listed);
        let clash = find("10.77.0.0/24").expect("equal");
        assert!(matches!(&clash, Clash::Equal(route) if route.device.as_deref() == Some("lan0")), "{clash}");
        assert!(matches!(find("10.77.0.64/26"), Some(Clash::Inside(_))));
        assert!(matches!(find("10.77.0.0/16"), Some(Clash::Covers(_))));
        assert_eq!(find("10.78.0.0/24"), None);
    });
}

#[test]
fn a_change_of_the_network_is_told_once_and_our_own_interface_is_none() {
    in_namespace(async {
        // Else the kernel would give the pair link-local addresses, in its own time.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("setting");
        add_veth("lan0", "lan1").await;
        let mut changes = Changes::watch().expect("watched");
        let (_tun, network) = up().await;
        assert_eq!(within(changes.next()).await.map(|told| told.is_ok()), None, "our own");
        configure_by_name("lan0", "192.0.2.7/24").await;
        within(changes.next()).await.expect("in time").expect("told");
        drop(network);
        assert_eq!(within(changes.next()).await.map(|told| told.is_ok()), None, "nothing new");
        netlink().link().del(nix::net::if_::if_nametoindex("lan0").expect("index")).execute().await.expect("deleted");
        within(changes.next()).await.expect("in time").expect("told");
    });
}

#[test]
fn our_own_interface_is_not_listed_as_an_address_of_this_machine() {
    in_namespace(async {
        add_veth("lan0", "lan1").await;
        configure_by_name("lan0", "192.0.2.7/24").await;
        configure_by_name("lan1", "10.88.0.1/24").await;
        let _up = up().await;
        let overlay: IpNet = "10.88.0.0/16".parse().expect("net");
        let listed = interfaces::list(&[overlay]).expect("listed");
        assert_eq!(listed, ["192.0.2.7/24".parse::<IpNet>().expect("net")]);
    });
}

#[test]
fn the_kernel_makes_no_address_of_its_own_and_believes_no_router() {
    in_namespace(async {
        let (tun, _) = up().await;
        let before = routes().await;
        tun.send(&router_advertisement()).expect("sent");
        assert!(ping(&tun, ip("fe80::2"), ip("fe80::1")).await, "after it, in order");
        assert_eq!(routes().await, before);
        assert_eq!(addresses("punch0").await, ["10.77.0.1/24", "fd77::1/64", "fe80::1/64"]);
        // The same advertisement does harm where the interface is not shielded.
        std::fs::write("/proc/sys/net/ipv6/conf/punch0/accept_ra", "2").expect("setting");
        tun.send(&router_advertisement()).expect("sent");
        assert!(ping(&tun, ip("fe80::2"), ip("fe80::1")).await, "after it, in order");
        assert_ne!(routes().await, before);
    });
}

#[test]
fn ipv6_comes_up_where_it_is_off_for_new_interfaces() {
    in_namespace(async {
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("setting");
        let (tun, _) = up().await;
        assert!(ping(&tun, ip("fd77::2"), ip("fd77::1")).await);
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

// --- the namespace ---

/// Runs `test` on a thread with a network namespace of its own, in which loopback is up.
fn in_namespace(test: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root makes a network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            link_up("lo").await;
            test.await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A configured `punch0`.
async fn up() -> (Tun, Network) {
    up_with(Offload::All).await
}

async fn up_with(offload: Offload) -> (Tun, Network) {
    let tun = Tun::open(NAME_PREFIX, MTU, offload).expect("opened");
    let network = Network::open().expect("netlink");
    assert!(network.configure(&tun, MTU, &kernel_addresses()).await.expect("configured"), "IPv6");
    (tun, network)
}

fn kernel_addresses() -> Addresses {
    Addresses {
        v4: Some("10.77.0.1/24".parse().expect("net")),
        v6: vec!["fd77::1/64".parse().expect("net"), "fe80::1/64".parse().expect("net")],
    }
}

fn netlink() -> rtnetlink::Handle {
    let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
    tokio::spawn(connection);
    handle
}

async fn add_veth(name: &str, peer: &str) {
    netlink().link().add(rtnetlink::LinkVeth::new(name, peer).build()).execute().await.expect("veth");
    link_up(name).await;
    link_up(peer).await;
}

async fn link_up(name: &str) {
    let message = rtnetlink::LinkUnspec::new_with_name(name).up().build();
    netlink().link().set(message).execute().await.expect("up");
}

async fn configure_by_name(name: &str, net: &str) {
    let net: IpNet = net.parse().expect("net");
    let index = nix::net::if_::if_nametoindex(name).expect("index");
    netlink().address().add(index, net.addr(), net.prefix_len()).execute().await.expect("address");
    link_up(name).await;
}

/// A TUN device without an owner.
fn persistent_tun(name: &str) {
    let mut config = tun::Configuration::default();
    config.tun_name(name).platform_config(|platform| {
        platform.ensure_root_privileges(false);
    });
    tun::create(&config).expect("made").persist().expect("persistent");
}

async fn routes() -> Vec<String> {
    let routes = Network::open().expect("netlink").routes().await.expect("routes");
    routes.iter().map(|route| route.net.to_string()).collect()
}

/// All addresses of an interface, sorted.
async fn addresses(name: &str) -> Vec<String> {
    let index = nix::net::if_::if_nametoindex(name).expect("index");
    let handle = netlink();
    let request = handle.address().get().set_link_index_filter(index).execute();
    let messages: Vec<_> = request.try_collect().await.expect("addresses");
    let mut nets: Vec<String> = messages
        .iter()
        .filter_map(|message| {
            message.attributes.iter().find_map(|attribute| match attribute {
                rtnetlink::packet_route::address::AddressAttribute::Address(ip) => {
                    Some(format!("{ip}/{}", message.header.prefix_len))
                }
                _ => None,
            })
        })
        .collect();
    nets.sort_unstable();
    nets
}

/// The MTU of an interface; `None` if there is none of that name.
async fn mtu(name: &str) -> Option<u32> {
    let handle = netlink();
    let request = handle.link().get().match_name(name).execute();
    let links: Vec<_> = request.try_collect().await.ok()?;
    links.first()?.attributes.iter().find_map(|attribute| match attribute {
        rtnetlink::packet_route::link::LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

// --- the packets ---

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn unspecified(family_of: IpAddr) -> IpAddr {
    if family_of.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

async fn within<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_secs(2), future).await.ok()
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match SlicedPacket::from_ip(packet).ok()?.net? {
        NetSlice::Ipv4(v4) => Some(v4.header().destination_addr().into()),
        NetSlice::Ipv6(v6) => Some(v6.header().destination_addr().into()),
        NetSlice::Arp(_) => None,
    }
}

/// The next packet that the kernel sends to `to`; `None` if none comes.
async fn packet_to(tun: &Tun, to: IpAddr) -> Option<Vec<u8>> {
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
async fn ping(tun: &Tun, from: IpAddr, to: IpAddr) -> bool {
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

fn udp(from: IpAddr, to: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
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

/// Source and payload of a UDP packet.
fn has_right_checksum(packet: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ip(packet).expect("a packet");
    let (Some(NetSlice::Ipv4(v4)), Some(TransportSlice::Udp(udp))) = (&sliced.net, &sliced.transport) else {
        return false;
    };
    let header = udp.to_header();
    header.calc_checksum_ipv4(&v4.header().to_header(), udp.payload()) == Ok(header.checksum)
}

fn parse_udp(packet: &[u8]) -> (IpAddr, Vec<u8>) {
    let sliced = SlicedPacket::from_ip(packet).expect("a packet");
    let source = match sliced.net.expect("a network layer") {
        NetSlice::Ipv4(v4) => v4.header().source_addr().into(),
        NetSlice::Ipv6(v6) => v6.header().source_addr().into(),
        NetSlice::Arp(_) => panic!("no ARP on a TUN"),
    };
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("not UDP: {packet:?}") };
    (source, udp.payload().to_vec())
}

/// What a router says (RFC 4861 §4.2): use me for half an hour, and the prefix 2001:db8:bad::/64 is here.
fn router_advertisement() -> Vec<u8> {
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
