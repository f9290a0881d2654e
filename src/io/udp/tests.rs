use std::time::Duration;

use super::*;

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn bind(ip: IpAddr) -> Socket {
    Socket::bind((ip, 0).into()).expect("loopback binds")
}

/// Everything that arrives until `count` datagrams are there: who sent it, to where, and its bytes.
async fn collect(socket: &Socket, count: usize) -> Vec<(SocketAddr, Option<IpAddr>, Vec<u8>)> {
    let mut batch = Batch::new();
    let mut all = Vec::new();
    while all.len() < count {
        let received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut batch));
        let received = received.await.expect("in time").expect("received");
        let before = all.len();
        all.extend(batch.datagrams().map(|datagram| (datagram.from, datagram.local, datagram.payload.to_vec())));
        assert_eq!(all.len() - before, received);
    }
    all
}

#[tokio::test]
async fn a_datagram_arrives_with_its_sender_and_local_address_in_both_families() {
    for ip in LOOPBACKS {
        let (a, b) = (bind(ip), bind(ip));
        a.send(b.local_addr(), None, None, b"hello").expect("sent");
        assert_eq!(collect(&b, 1).await, [(a.local_addr(), Some(ip), b"hello".to_vec())]);
    }
}

#[tokio::test]
async fn an_empty_datagram_and_the_largest_one_arrive_whole() {
    for ip in LOOPBACKS {
        let (a, b) = (bind(ip), bind(ip));
        let largest = vec![7; 65_507];
        for payload in [&[][..], &largest] {
            a.send(b.local_addr(), None, None, payload).expect("sent");
            assert_eq!(collect(&b, 1).await[0].2, payload);
        }
    }
}

#[tokio::test]
async fn a_datagram_that_is_too_big_is_an_error_of_its_own() {
    for ip in LOOPBACKS {
        let (a, b) = (bind(ip), bind(ip));
        let error = a.send(b.local_addr(), None, None, &vec![0; 70_000]).expect_err("too big");
        assert_eq!(fault(&error), Fault::TooBig, "{error}");
        a.send(b.local_addr(), None, None, b"next").expect("sent");
        assert_eq!(collect(&b, 1).await[0].2, b"next");
    }
}

#[tokio::test]
async fn a_burst_arrives_complete_and_in_order() {
    for ip in LOOPBACKS {
        let (a, b) = (bind(ip), bind(ip));
        let payload = |i: u16| [&i.to_be_bytes()[..], &vec![0; usize::from(i) * 23]].concat();
        for i in 0..60 {
            a.send(b.local_addr(), None, None, &payload(i)).expect("sent");
        }
        let all = collect(&b, 60).await;
        for (i, (_, _, bytes)) in (0..).zip(&all) {
            assert_eq!(*bytes, payload(i), "{i}");
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn datagrams_that_the_kernel_joins_come_apart_again() {
    for ip in LOOPBACKS {
        let (a, b) = (bind(ip), bind(ip));
        let joined: Vec<u8> = (0..10_u8).flat_map(|i| vec![i; 1000]).chain(vec![10; 500]).collect();
        let transmit = Transmit {
            destination: b.local_addr(),
            ecn: None,
            contents: &joined,
            segment_size: Some(1000),
            src_ip: None,
        };
        a.state.try_send((&a.io).into(), &transmit).expect("sent");
        let lengths: Vec<(u8, usize)> = collect(&b, 11).await.iter().map(|(_, _, p)| (p[0], p.len())).collect();
        assert_eq!(lengths, (0..10).map(|i| (i, 1000)).chain([(10, 500)]).collect::<Vec<_>>());
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hop_limit_and_a_source_address_travel_with_one_datagram_alone() {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};

    for (ip, source) in [(LOOPBACKS[0], Ipv4Addr::new(127, 0, 0, 9).into()), (LOOPBACKS[1], LOOPBACKS[1])] {
        let a = Socket::bind(
            (if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }, 0).into(),
        )
        .expect("bound");
        let b = std::net::UdpSocket::bind((ip, 0)).expect("bound");
        if ip.is_ipv4() {
            setsockopt(&b, sockopt::Ipv4RecvTtl, &true).expect("set");
        } else {
            setsockopt(&b, sockopt::Ipv6RecvHopLimit, &true).expect("set");
        }
        let to = b.local_addr().expect("address");
        a.send(to, Some(source), Some(3), b"primed").expect("sent");
        a.send(to, None, None, b"usual").expect("sent");
        a.send(to, None, Some(5), b"primed").expect("sent");
        let mut hops = Vec::new();
        for _ in 0..3 {
            let mut bytes = [0; 16];
            let mut control = nix::cmsg_space!([i32; 8]);
            let mut slices = [io::IoSliceMut::new(&mut bytes)];
            let message = recvmsg::<SockaddrStorage>(b.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())
                .expect("received");
            let from = message.address.expect("address");
            let from =
                from.as_sockaddr_in().map(|a| IpAddr::V4(a.ip())).or(from.as_sockaddr_in6().map(|a| a.ip().into()));
            let limit = message.cmsgs().expect("whole").find_map(|message| match message {
                ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => Some(ttl),
                _ => None,
            });
            hops.push((limit, from));
        }
        assert_eq!(hops[0], (Some(3), Some(source)));
        assert_eq!(hops[1].0, Some(64));
        assert_eq!(hops[2], (Some(5), Some(ip)));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_comes_in_can_be_answered_from_the_address_it_was_sent_to() {
    let server = Socket::bind((Ipv4Addr::UNSPECIFIED, 0).into()).expect("bound");
    let client = bind(LOOPBACKS[0]);
    let asked = Ipv4Addr::new(127, 0, 0, 42);
    client.send((asked, server.local_addr().port()).into(), None, None, b"question").expect("sent");
    let [(from, local, _)] = &collect(&server, 1).await[..] else { panic!("one datagram") };
    assert_eq!(*local, Some(asked.into()));
    server.send(*from, *local, None, b"answer").expect("sent");
    assert_eq!(collect(&client, 1).await[0].0.ip(), IpAddr::V4(asked));
}

#[tokio::test]
async fn a_dead_port_does_not_hurt_the_socket() {
    for ip in LOOPBACKS {
        let (a, b) = (bind(ip), bind(ip));
        let dead = bind(ip).local_addr();
        for _ in 0..3 {
            if let Err(error) = a.send(dead, None, None, b"anybody?") {
                assert_eq!(fault(&error), Fault::Destination, "{error}");
            }
        }
        b.send(a.local_addr(), None, None, b"me").expect("sent");
        assert_eq!(collect(&a, 1).await[0].2, b"me");
    }
}

#[tokio::test]
async fn a_destination_of_the_other_family_or_nowhere_breaks_nothing() {
    let a = bind(LOOPBACKS[0]);
    for to in ["[::1]:9", "0.0.0.0:0", "255.255.255.255:9"] {
        if let Err(error) = a.send(to.parse().expect("address"), None, None, b"x") {
            assert_ne!(fault(&error), Fault::Broken, "{to}: {error}");
        }
    }
    let b = bind(LOOPBACKS[0]);
    a.send(b.local_addr(), None, None, b"fine").expect("sent");
    assert_eq!(collect(&b, 1).await[0].2, b"fine");
}

#[tokio::test]
async fn a_pair_has_one_port_and_each_family_keeps_to_itself() {
    let (v4, v6) = bind_pair(0).expect("bound");
    let v6 = v6.expect("this machine has IPv6");
    let port = v4.local_addr().port();
    assert_eq!(v6.local_addr().port(), port);
    let (c4, c6) = (bind(LOOPBACKS[0]), bind(LOOPBACKS[1]));
    c4.send((LOOPBACKS[0], port).into(), None, None, b"four").expect("sent");
    c6.send((LOOPBACKS[1], port).into(), None, None, b"six").expect("sent");
    assert_eq!(collect(&v4, 1).await[0].2, b"four");
    assert_eq!(collect(&v6, 1).await[0].2, b"six");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_port_that_is_taken_is_said_with_its_holder() {
    let (v4, _v6) = bind_pair(0).expect("bound");
    let error = bind_pair(v4.local_addr().port()).expect_err("taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let text = error.to_string();
    assert!(text.starts_with(&format!("UDP port {} is taken by ", v4.local_addr().port())), "{text}");
    assert!(text.ends_with(&format!("(pid {})", std::process::id())), "{text}");
}

/// Ten datagrams of 1,000 bytes and a shorter one, in two pieces.
fn train() -> [Vec<u8>; 2] {
    let part = |from: u8, to: u8| (from..to).flat_map(|i| vec![i; 1_000]).collect::<Vec<u8>>();
    [part(0, 4), [part(4, 10), vec![10; 500]].concat()]
}

fn lengths_of(all: &[(SocketAddr, Option<IpAddr>, Vec<u8>)]) -> Vec<(u8, usize)> {
    all.iter().map(|(_, _, payload)| (payload[0], payload.len())).collect()
}

#[tokio::test]
async fn a_train_arrives_datagram_by_datagram_with_and_without_the_kernels_help() {
    let expected: Vec<(u8, usize)> = (0..10).map(|i| (i, 1_000)).chain([(10, 500)]).collect();
    let pieces = train();
    let pieces = pieces.each_ref().map(|piece| IoSlice::new(piece));
    for ip in LOOPBACKS {
        for helped in [true, false] {
            let (a, b) = (bind(ip), bind(ip));
            if !helped {
                [&a, &b].into_iter().for_each(Socket::forgo_offload);
            }
            for src in [None, Some(ip)] {
                a.send_train(Way { to: b.local_addr(), src, tos: 0 }, 1_000, &pieces).expect("sent");
                let all = collect(&b, 11).await;
                assert_eq!(lengths_of(&all), expected);
                assert!(all.iter().all(|(from, _, _)| *from == a.local_addr()));
            }
        }
    }
}

/// Network cards that cannot send trains say so when they are given one, some only later (EIO), others of one train
/// (EINVAL).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_train_that_is_refused_goes_one_by_one_and_is_not_lost() {
    let pieces = train();
    let pieces = pieces.each_ref().map(|piece| IoSlice::new(piece));
    for (error, then) in [(nix::libc::EIO, false), (nix::libc::EINVAL, true)] {
        let (a, b) = (bind(LOOPBACKS[0]), bind(LOOPBACKS[0]));
        let way = Way { to: b.local_addr(), src: None, tos: 0 };
        a.send_train(way, 1_000, &pieces).expect("sent");
        a.refuses.store(error, Ordering::Relaxed);
        a.send_train(way, 1_000, &pieces).expect("sent");
        assert_eq!(a.trains.load(Ordering::Relaxed), then, "whether others are tried");
        a.send_train(way, 1_000, &pieces).expect("sent");
        assert_eq!((collect(&b, 33).await.len(), a.dropped()), (33, 0));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_train_leaves_from_the_address_that_was_asked_for() {
    let server = Socket::bind((Ipv4Addr::UNSPECIFIED, 0).into()).expect("bound");
    let client = bind(LOOPBACKS[0]);
    let src = Ipv4Addr::new(127, 0, 0, 42).into();
    let pieces = train();
    let pieces = pieces.each_ref().map(|piece| IoSlice::new(piece));
    server.send_train(Way { to: client.local_addr(), src: Some(src), tos: 0 }, 1_000, &pieces).expect("sent");
    assert!(collect(&client, 11).await.iter().all(|(from, _, _)| from.ip() == src));
}

#[tokio::test]
async fn a_run_sends_together_what_belongs_together_and_everything_in_order() {
    let (a, b, c) = (bind(LOOPBACKS[0]), bind(LOOPBACKS[0]), bind(LOOPBACKS[0]));
    let datagrams: Vec<(bool, Vec<u8>)> =
        [700_usize, 700, 300, 300, 900, 100].iter().zip(0..).map(|(len, i)| (i % 5 != 4, vec![i; *len])).collect();
    let mut run = Run::new(&a);
    for (to_b, datagram) in &datagrams {
        let to = if *to_b { b.local_addr() } else { c.local_addr() };
        run.push(Way { to, src: None, tos: 0 }, datagram);
    }
    run.flush();
    assert_eq!(lengths_of(&collect(&b, 5).await), [(0, 700), (1, 700), (2, 300), (3, 300), (5, 100)]);
    assert_eq!(lengths_of(&collect(&c, 1).await), [(4, 900)]);
    // More than one train's worth.
    let many: Vec<Vec<u8>> = (0..150).map(|i| vec![i; 1_200]).collect();
    many.iter().for_each(|datagram| run.push(Way { to: b.local_addr(), src: None, tos: 0 }, datagram));
    run.flush();
    assert_eq!(lengths_of(&collect(&b, 150).await), (0..150).map(|i| (i, 1_200)).collect::<Vec<_>>());
}

/// What a program sees of the next `count` datagrams: the TOS or traffic class, the first byte and the length.
#[cfg(target_os = "linux")]
fn classes(socket: &std::net::UdpSocket, count: usize) -> Vec<(u8, u8, usize)> {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};

    if socket.local_addr().expect("address").is_ipv4() {
        setsockopt(socket, sockopt::IpRecvTos, &true).expect("set");
    } else {
        setsockopt(socket, sockopt::Ipv6RecvTClass, &true).expect("set");
    }
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let next = |_| {
        let (mut bytes, mut control) = ([0; 2_000], nix::cmsg_space!([i32; 8]));
        let mut slices = [io::IoSliceMut::new(&mut bytes)];
        let fd = socket.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), MsgFlags::empty());
        let message = message.expect("received");
        let class = message.cmsgs().expect("whole").find_map(|message| match message {
            ControlMessageOwned::Ipv4Tos(tos) => Some(tos),
            ControlMessageOwned::Ipv6TClass(class) => u8::try_from(class).ok(),
            _ => None,
        });
        let len = message.bytes;
        (class.expect("told"), bytes[0], len)
    };
    (0..count).map(next).collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_tos_of_a_way_is_the_datagrams_alone_or_in_a_train_with_and_without_a_source() {
    for ip in LOOPBACKS {
        let b = std::net::UdpSocket::bind((ip, 0)).expect("bound");
        classes(&b, 0);
        let to = b.local_addr().expect("address");
        for (src, helped) in [(None, true), (Some(ip), true), (Some(ip), false)] {
            let a = bind(ip);
            a.trains.store(helped, Ordering::Relaxed);
            for tos in [0xb8, 0, 0x02, 0xff] {
                let way = Way { to, src, tos };
                a.send_train(way, 700, &[IoSlice::new(&[7; 700])]).expect("sent");
                a.send_train(way, 700, &[IoSlice::new(&[8; 1_500])]).expect("sent");
                assert_eq!(classes(&b, 4), [(tos, 7, 700), (tos, 8, 700), (tos, 8, 700), (tos, 8, 100)], "{way:?}");
            }
            a.send(to, src, None, b"control").expect("sent");
            assert_eq!(classes(&b, 1), [(0, b'c', 7)], "of what came before it nothing stays");
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_run_joins_no_datagrams_of_another_class_and_the_receiver_is_told_their_marks() {
    for ip in LOOPBACKS {
        let (a, b, c) = (bind(ip), bind(ip), std::net::UdpSocket::bind((ip, 0)).expect("bound"));
        classes(&c, 0);
        let sent = [0x00, 0x02, 0x02, 0x03, 0xb9, 0x00];
        let datagrams: Vec<Vec<u8>> = (0..6).map(|n| vec![n; 500]).collect();
        for to in [b.local_addr(), c.local_addr().expect("address")] {
            let mut run = Run::new(&a);
            for (tos, datagram) in sent.iter().zip(&datagrams) {
                run.push(Way { to, src: None, tos: *tos }, datagram);
            }
            run.flush();
        }
        let expected: Vec<(u8, u8, usize)> = (0..6).map(|n| (sent[usize::from(n)], n, 500)).collect();
        assert_eq!(classes(&c, 6), expected);
        let (mut batch, mut told) = (Batch::new(), Vec::new());
        while told.len() < 6 {
            let received = tokio::time::timeout(Duration::from_secs(10), b.recv(&mut batch));
            received.await.expect("in time").expect("received");
            told.extend(batch.datagrams().map(|datagram| {
                assert_eq!(datagram.local, Some(ip));
                (datagram.payload[0], datagram.ecn)
            }));
        }
        assert_eq!(told, [(0, 0), (1, 2), (2, 2), (3, 3), (4, 1), (5, 0)]);
    }
}
