//! What becomes of packets, alone and as segments.

use super::*;

#[test]
fn two_that_have_met_find_each_other_without_a_rendezvous() {
    let mut lan = pair();
    let bob = lan.peer(0, "bob");
    assert_eq!(bob.state, status::PeerState::Direct, "{bob:?}");
    assert_eq!(bob.path.expect("a path").kind, status::PathKind::Host);
    let packet = udp(&lan.v4(0), &lan.v4(1));
    lan.send(0, &packet);
    assert_eq!(lan.hosts[1].2, [packet]);
}

#[test]
fn a_packet_before_the_session_waits_and_arrives() {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "bob")]);
    let (alice, bob) = (lan.hosts[0].1.me().ula.to_string(), lan.hosts[1].1.me().ula.to_string());
    let packet = udp(&alice, &bob);
    assert_eq!(lan.send(0, &packet), Outbound::Taken);
    lan.run(Duration::from_secs(2));
    assert_eq!(lan.hosts[1].2, [packet]);
}

/// A super-packet from the first to the second, and what the second gets: whether as segments, and the packets.
fn sent_as_super(lan: &mut Lan, udp: bool) -> (Vec<u8>, bool, Vec<Vec<u8>>) {
    let (now, from, to) = (lan.now, lan.hosts[0].0, lan.hosts[1].0);
    let (vnet, packet) = between(&lan.v4(0), &lan.v4(1), udp, 100_000 / 2, 1_300, 0, true);
    let cut = Cut::new(&vnet, &packet).expect("a super-packet");
    let (mut next, mut arena, mut trains, mut arrived) = (0, vec![0; 1 << 16], Vec::new(), Vec::new());
    let mut segments = false;
    while next < cut.count() {
        let train = lan.node(0).handle_super(now, &cut, &mut next, &mut arena).expect("a session stands");
        assert_eq!(train.to, to);
        trains.extend(arena[train.range].chunks(train.size).map(<[u8]>::to_vec));
    }
    for mut payload in trains {
        assert!(payload.len() <= 1_400 + 32, "{}", payload.len());
        let datagram = Datagram { socket: SocketId(0), local: None, from, payload: &mut payload };
        match lan.node(1).handle_datagram(now, datagram) {
            Inbound::Deliver(range) => arrived.push(payload[range].to_vec()),
            Inbound::Segment { range, .. } => {
                segments = true;
                let layout = Layout::of(&payload[range.clone()]).expect("a segment");
                offload::finish(&mut payload[range.clone()], &layout);
                arrived.push(payload[range].to_vec());
            }
            other => panic!("{other:?}"),
        }
    }
    (packet, segments, arrived)
}

#[test]
fn super_packets_travel_as_segments_to_those_who_take_them_and_as_packets_to_others() {
    for (features, udp) in [(feature::SEGMENTS, false), (feature::SEGMENTS, true), (0, false), (0, true)] {
        let bob = Setup { features, ..Setup::new(2, "bob") };
        let mut lan = Lan::new(&[Setup { features: feature::SEGMENTS, ..Setup::new(1, "alice") }, bob]);
        lan.run(Duration::from_secs(3));
        let (packet, segments, arrived) = sent_as_super(&mut lan, udp);
        assert_eq!(segments, features != 0);
        arrived.iter().for_each(|packet| assert_valid(packet));
        let header = Layout::of(&packet).expect("a packet").header_len;
        let payload: Vec<u8> = arrived.iter().flat_map(|packet| &packet[header..]).copied().collect();
        assert_eq!(payload, packet[header..]);
        let bytes = arrived.iter().map(|packet| packet.len() as u64).sum::<u64>();
        let [alice, bob] = [(0, "bob"), (1, "alice")].map(|(i, name)| lan.peer(i, name));
        assert_eq!((alice.tx_bytes, bob.rx_bytes), (bytes, bytes));
    }
}

#[test]
fn segments_that_fit_into_no_datagram_are_dropped_one_by_one() {
    let mut lan = pair();
    let (vnet, packet) = between(&lan.v4(0), &lan.v4(1), false, 60_000, 20_000, 0, true);
    let cut = Cut::new(&vnet, &packet).expect("a super-packet");
    let (now, mut next, mut arena) = (lan.now, 0, vec![0; 1 << 16]);
    while next < cut.count() {
        assert_eq!(lan.node(0).handle_super(now, &cut, &mut next, &mut arena), None);
    }
    assert_eq!(lan.node(0).dropped("too-big"), 3);
}

#[test]
fn segments_to_nobody_are_dropped_one_by_one() {
    // An address that nobody has; and one whose holder is not there.
    for routed in [false, true] {
        let mut lan = pair();
        let (bob, to) = (lan.hosts[1].1.my_id(), lan.v4(1));
        lan.node(0).peers.remove(&bob).expect("bob");
        if !routed {
            Arc::make_mut(&mut lan.node(0).router).remove(&bob);
        }
        let (vnet, packet) = between(&lan.v4(0), &to, false, 3_000, 1_000, 0, true);
        let cut = Cut::new(&vnet, &packet).expect("a super-packet");
        let (now, mut next, mut arena) = (lan.now, 0, vec![0; 1 << 16]);
        for n in 1..=3 {
            assert_eq!(lan.node(0).handle_super(now, &cut, &mut next, &mut arena), None);
            assert_eq!((next, lan.node(0).dropped("no-such-address")), (n, n as u64));
        }
    }
}

#[test]
fn a_segment_whose_descriptor_lies_is_dropped_and_counted() {
    let mut lan = pair();
    let (now, from, alice) = (lan.now, lan.hosts[0].0, lan.hosts[0].1.my_id());
    let (_, packet) = between(&lan.v4(0), &lan.v4(1), false, 1_000, 1_300, 0, true);
    let truth = offload::describe(&packet).expect("a segment");
    let lies =
        [Segment { csum_start: 0, ..truth }, Segment { header_len: 9, ..truth }, Segment { gso_type: 5, ..truth }];
    for (n, segment) in [truth].into_iter().chain(lies).enumerate() {
        let inner = [&[data::SEGMENT][..], &segment.encode(), &packet].concat();
        let mut sealed = [&[0; 8], &inner[..], &[0; 16]].concat();
        let bob = lan.hosts[1].1.my_id();
        let session = &mut lan.node(0).peers.get_mut(&bob).expect("bob").session;
        session.seal(now, Channel::Data, &mut sealed).expect("sealed");
        let datagram = Datagram { socket: SocketId(0), local: None, from, payload: &mut sealed };
        let verdict = lan.node(1).handle_datagram(now, datagram);
        assert_eq!(matches!(verdict, Inbound::Segment { .. }), n == 0, "{segment:?}");
        assert_eq!(lan.node(1).dropped("segment"), n as u64);
    }
    assert!(lan.node(1).peers[&alice].session.is_established(now));
}

#[test]
fn packets_that_wait_too_long_or_are_too_many_are_counted() {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "bob")]);
    let packet = udp(&lan.hosts[0].1.me().ula.to_string(), &lan.hosts[1].1.me().ula.to_string());
    lan.hosts.truncate(1);
    for _ in 0..70 {
        assert_eq!(lan.send(0, &packet), Outbound::Taken);
    }
    assert_eq!(lan.node(0).dropped("no-session"), 6);
    lan.run(Duration::from_secs(3));
    assert_eq!(lan.node(0).dropped("no-session"), 70);
}

#[test]
fn inner_packets_from_foreign_sources_are_dropped_on_both_sides() {
    let mut lan = pair();
    let foreign = udp("192.0.2.1", &lan.v4(1));
    assert_eq!(lan.send(0, &foreign), Outbound::Dropped);
    assert_eq!(lan.node(0).dropped("source-not-ours"), 1);
    // A member that does not hold back: its own router is told a lie.
    Arc::make_mut(&mut lan.node(0).router).set_my_v4(Some(Ipv4Addr::new(10, 77, 0, 200)));
    let forged = udp("10.77.0.200", &lan.v4(1));
    lan.send(0, &forged);
    assert_eq!(lan.node(1).dropped("source-not-owned"), 1);
    assert!(lan.hosts[1].2.is_empty());
}

#[test]
fn a_ping_is_answered_with_its_path() {
    let mut lan = pair();
    let (now, bob) = (lan.now, lan.hosts[1].1.my_id());
    lan.node(0).handle_command(now, Command::Ping { peer: bob, id: 7 });
    lan.settle();
    match lan.node(0).poll_event() {
        Some(Event::Pong { id: 7, path, .. }) => assert_eq!(path.kind, status::PathKind::Host),
        other => panic!("no pong: {other:?}"),
    }
}

#[test]
fn a_storm_of_broadcasts_is_cut_and_counted() {
    let mut lan = pair();
    let storm = udp(&lan.v4(0), "255.255.255.255");
    let sent = (0..700).filter(|_| lan.send(0, &storm) == Outbound::Taken).count();
    assert_eq!(sent, 500);
    assert_eq!(lan.node(0).dropped("fan-out-rate"), 200);
}

#[test]
fn exhausted_keys_seal_nothing_whoever_has_them_and_are_replaced() {
    let mut lan = pair();
    let (now, bob) = (lan.now, lan.hosts[1].1.my_id());
    let _ = lan.node(0).poll_table(now);
    let table = lan.node(0).table();
    table.egress(&bob).expect("a session").key.skip_to(u64::from(u32::MAX));
    let packet = udp(&lan.v4(0), &lan.v4(1));
    let mut buf = [&[0; HEADROOM][..], &packet, &[0; TAILROOM]].concat();
    assert_eq!(table.seal(now, &mut buf), Err(Unsealed::Node));
    assert_eq!(buf[HEADROOM..HEADROOM + packet.len()], packet, "it is as it was");
    assert_eq!(lan.send(0, &packet), Outbound::Dropped);
    assert_eq!(lan.node(0).dropped("no-keys"), 1);
    lan.run(Duration::from_secs(6));
    lan.send(0, &packet);
    assert_eq!(lan.hosts[1].2, [packet]);
}
