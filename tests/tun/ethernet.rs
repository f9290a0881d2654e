//! The interface as programs and the kernel's other parts see it: an Ethernet one.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use punchlan::io::net;
use punchlan::io::tun::{LEAD, Tun};
use punchlan::offload::{Offload, Vnet};
use rtnetlink::packet_route::link::LinkFlags;

use crate::namespace::{
    Elsewhere, configured, hardware_address, in_namespace, link_flags, multicast_metrics, netlink, up, up_with,
};
use crate::packets::{ip, packet_to, ping, udp, unspecified, within};
use crate::{KERNEL, PEER};

/// The interface's own address, which follows from fe80::1.
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

#[test]
fn programs_see_an_interface_that_broadcasts_and_asks_for_nobodys_address() {
    in_namespace(async {
        let (tun, _) = up().await;
        let flags = link_flags("punch0").await;
        let wanted =
            LinkFlags::Broadcast | LinkFlags::Multicast | LinkFlags::Noarp | LinkFlags::Up | LinkFlags::LowerUp;
        assert!(flags.contains(wanted) && !flags.contains(LinkFlags::Pointopoint), "{flags:?}");
        assert_eq!(hardware_address("punch0").await, OWN);
        drop(tun);
        let _again = up().await;
        assert_eq!(hardware_address("punch0").await, OWN, "the same in every run");
    });
}

#[test]
fn frames_of_packets_to_many_are_to_many_and_to_no_other() {
    in_namespace(async {
        let (tun, _) = up().await;
        let watcher = Watcher::new();
        for (to, address, kind) in [
            ("10.77.0.1", OWN, libc::PACKET_HOST),
            ("10.77.0.255", [0xff; 6], libc::PACKET_BROADCAST),
            ("255.255.255.255", [0xff; 6], libc::PACKET_BROADCAST),
            ("224.0.2.60", [1, 0, 0x5e, 0, 2, 60], libc::PACKET_MULTICAST),
            ("fd77::1", OWN, libc::PACKET_HOST),
            ("fe80::1", OWN, libc::PACKET_HOST),
            ("ff02::fb", [0x33, 0x33, 0, 0, 0, 0xfb], libc::PACKET_MULTICAST),
        ] {
            let from = PEER[usize::from(ip(to).is_ipv6())];
            let packet = udp(ip(from), ip(to), 7777, b"here");
            tun.send(&packet).expect("sent");
            let (frame, seen) = watcher.frame_with(&packet);
            assert_eq!((&frame[..6], seen), (&address[..], kind), "{to}");
            assert!(frame[6] & 3 == 2 && frame[6..12] != OWN, "from somebody else: {frame:02x?}");
        }
    });
}

#[test]
fn broadcasts_and_joined_groups_are_heard() {
    in_namespace(async {
        let (tun, _) = up().await;
        for (bound, to) in [
            ("0.0.0.0", "10.77.0.255"),
            ("0.0.0.0", "255.255.255.255"),
            ("0.0.0.0", "224.0.2.60"),
            ("::", "ff02::1234"),
            ("::", "ff15::1234"),
        ] {
            let socket = tokio::net::UdpSocket::bind((ip(bound), 0)).await.expect("bound");
            match ip(to) {
                IpAddr::V4(group) if group.is_multicast() => {
                    socket.join_multicast_v4(group, "10.77.0.1".parse().expect("v4")).expect("joined");
                }
                IpAddr::V6(group) => socket.join_multicast_v6(&group, tun.index()).expect("joined"),
                IpAddr::V4(_) => {}
            }
            let port = socket.local_addr().expect("address").port();
            let from = ip(PEER[usize::from(ip(to).is_ipv6())]);
            tun.send(&udp(from, ip(to), port, b"to everybody")).expect("sent");
            let mut bytes = [0; 64];
            let (len, source) = within(socket.recv_from(&mut bytes)).await.expect("in time").expect("received");
            assert_eq!((&bytes[..len], source.ip()), (&b"to everybody"[..], from), "{to}");
        }
    });
}

#[test]
fn frames_that_hold_no_ip_are_passed_over() {
    in_namespace(async {
        let (tun, _) = up().await;
        let watcher = Watcher::new();
        let arp = async |on: bool| {
            let message = rtnetlink::LinkUnspec::new_with_index(tun.index()).arp(on).build();
            netlink().link().set(message).execute().await.expect("set");
        };
        // With ARP on, the kernel asks for the address before it sends anything there.
        arp(true).await;
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bound");
        socket.send_to(b"lost", "10.77.0.9:7777").expect("sent");
        watcher.frame_that(|frame| frame[12..14] == [0x08, 0x06]);
        arp(false).await;
        socket.send_to(b"seen", "10.77.0.2:7777").expect("sent");
        let mut buf = vec![0; LEAD + 2048];
        let seen = within(async {
            loop {
                let (_, len) = tun.recv(&mut buf, LEAD, &mut []).await.expect("the device is there");
                let packet = &buf[LEAD..LEAD + len];
                assert!([4, 6].contains(&(packet[0] >> 4)), "{packet:02x?}");
                if packet.ends_with(b"seen") {
                    return;
                }
            }
        });
        seen.await.expect("it is not kept waiting by what came before");
    });
}

/// ```text
///   10.77.0.1, fd77::1 ── punch0 ── this test ── punch0 ── 10.77.0.2, fd77::2
/// ```
#[test]
fn super_packets_and_begun_checksums_go_from_one_kernel_to_another() {
    in_namespace(async {
        let there = Elsewhere::new();
        let far = there.visit(|| Tun::open("punch", crate::MTU, Offload::All).expect("opened"));
        there.visit_async(configured(&far, PEER)).await;
        let (near, _) = up_with(Offload::All).await;
        let sent: Arc<[u8]> = (0..2_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        for (kernel, peer) in KERNEL.iter().zip(PEER).take(2) {
            let listener = there.visit(|| TcpListener::bind((ip(peer), 0)).expect("bound"));
            let to = listener.local_addr().expect("address");
            let echo = std::thread::spawn(move || echo(&listener));
            let (from, bytes) = (ip(kernel), sent.clone());
            let back = tokio::task::spawn_blocking(move || exchange(from, to, &bytes));
            let (carried, back) = carry(&near, &far, async { back.await.expect("no panic") }).await;
            assert!(back.expect("exchanged") == *sent, "{peer}");
            echo.join().expect("no panic").expect("echoed");
            let gso = if to.is_ipv4() { Vnet::TCP_V4 } else { Vnet::TCP_V6 };
            for carried in carried {
                let longest = carried.iter().filter(|(vnet, _)| vnet.gso_type == gso).map(|(_, len)| *len).max();
                assert!(longest.is_some_and(|len| len > 20_000), "{peer}: {longest:?}");
                assert!(carried.iter().any(|(vnet, _)| vnet.gso_type == 0 && vnet.checksum_offset.is_some()), "{peer}");
            }

            let receiver = there.visit(|| UdpSocket::bind((ip(peer), 0)).expect("bound"));
            receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
            let (to, bytes) = (receiver.local_addr().expect("address"), sent.clone());
            let got = tokio::task::spawn_blocking(move || {
                let socket = UdpSocket::bind((unspecified(from), 0))?;
                setsockopt(&socket, sockopt::UdpGsoSegment, &1_000)?;
                socket.send_to(&bytes[..20_500], to)?;
                datagrams(&receiver, 20_500)
            });
            let ([there, _], got) = carry(&near, &far, async { got.await.expect("no panic") }).await;
            assert!(got.expect("received") == sent[..20_500], "{peer}");
            assert!(there.iter().any(|(vnet, len)| vnet.gso_type == Vnet::UDP && *len > 20_500), "{peer}: {there:?}");
        }
    });
}

#[test]
fn multicast_of_ipv6_leaves_by_another_interface_first_also_after_ours_was_down() {
    in_namespace(async {
        let (tun, _) = up().await;
        assert_eq!(multicast_metrics(tun.index()).await, [4096]);
        let tun = Arc::new(tun);
        let keeper = tokio::spawn(net::keep(Arc::downgrade(&tun)));
        tokio::task::yield_now().await;
        for _ in 0..3 {
            down_and_up(&tun).await;
            let mut metrics = Vec::new();
            for _ in 0..200 {
                metrics = multicast_metrics(tun.index()).await;
                if metrics == [4096] {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(metrics, [4096]);
        }
        drop(tun);
        within(keeper).await.expect("it ends with the interface").expect("no panic").expect("told");
    });
}

#[test]
fn packets_reach_an_interface_that_was_given_another_address() {
    in_namespace(async {
        let (tun, _) = up().await;
        let tun = Arc::new(tun);
        tokio::spawn(net::keep(Arc::downgrade(&tun)));
        tokio::task::yield_now().await;
        let other = vec![2, 9, 9, 9, 9, 9];
        let message = rtnetlink::LinkUnspec::new_with_index(tun.index()).address(other.clone()).build();
        netlink().link().set(message).execute().await.expect("set");
        assert_eq!(hardware_address("punch0").await, *other);
        let mut answered = false;
        for _ in 0..5 {
            answered |= ping(&tun, ip("10.77.0.2"), ip("10.77.0.1")).await;
        }
        assert!(answered);
    });
}

#[test]
fn a_device_without_offloads_is_an_ethernet_one_too() {
    in_namespace(async {
        let (tun, _) = up_with(Offload::Off).await;
        for (kernel, peer) in KERNEL.iter().zip(PEER) {
            assert!(ping(&tun, ip(peer), ip(kernel)).await, "{kernel}");
        }
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bound");
        socket.set_broadcast(true).expect("set");
        socket.send_to(b"to everybody", "10.77.0.255:7777").expect("sent");
        assert!(packet_to(&tun, ip("10.77.0.255")).await.is_some());
    });
}

async fn down_and_up(tun: &Tun) {
    for message in [
        rtnetlink::LinkUnspec::new_with_index(tun.index()).down().build(),
        rtnetlink::LinkUnspec::new_with_index(tun.index()).up().build(),
    ] {
        netlink().link().set(message).execute().await.expect("set");
    }
}

/// Sees every frame.
struct Watcher(OwnedFd);

impl Watcher {
    fn new() -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).expect("a packet socket");
        setsockopt(&socket, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(5, 0)).expect("set");
        Self(socket)
    }

    /// The next frame like that, and what the kernel says for whom it is.
    fn frame_that(&self, is_it: impl Fn(&[u8]) -> bool) -> (Vec<u8>, u8) {
        let mut bytes = vec![0; 2048];
        loop {
            let (len, from) = recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut bytes).expect("in time");
            if is_it(&bytes[..len]) {
                return (bytes[..len].to_vec(), from.expect("a frame's").pkttype());
            }
        }
    }

    fn frame_with(&self, packet: &[u8]) -> (Vec<u8>, u8) {
        self.frame_that(|frame| frame.get(14..) == Some(packet))
    }
}

/// What went one way: what was to be done with it, and its length.
type Carried = Vec<(Vnet, usize)>;

/// Carries packets between two devices as they are until `done`.
async fn carry<T>(near: &Tun, far: &Tun, done: impl Future<Output = T>) -> ([Carried; 2], T) {
    let mut carried = [Carried::new(), Carried::new()];
    let [mut there, mut back] = [vec![0; LEAD + (1 << 16)], vec![0; LEAD + (1 << 16)]];
    let mut done = std::pin::pin!(done);
    loop {
        let (way, to, buf, (vnet, len)) = tokio::select! {
            read = near.recv(&mut there, LEAD, &mut []) => (0, far, &there, read.expect("a packet")),
            read = far.recv(&mut back, LEAD, &mut []) => (1, near, &back, read.expect("a packet")),
            result = &mut done => return (carried, result),
        };
        to.send_joined(&vnet, &buf[LEAD..LEAD + len], &[]).expect("the kernel takes what a kernel gave");
        carried[way].push((vnet, len));
    }
}

/// Sends a stream there and gives what comes back.
fn exchange(from: IpAddr, to: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to)?;
    assert_eq!(stream.local_addr()?.ip(), from);
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut sender = stream.try_clone()?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            sender.write_all(bytes)?;
            sender.shutdown(std::net::Shutdown::Write)
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back)?;
        sending.join().expect("no panic")?;
        Ok(back)
    })
}

fn echo(listener: &TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    stream.write_all(&bytes)
}

fn datagrams(socket: &UdpSocket, len: usize) -> io::Result<Vec<u8>> {
    let (mut all, mut bytes) = (Vec::new(), [0; 2048]);
    while all.len() < len {
        let (len, _) = socket.recv_from(&mut bytes)?;
        all.extend(&bytes[..len]);
    }
    Ok(all)
}
