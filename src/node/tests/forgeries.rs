//! What is replayed, invented or not for us changes nothing.

use super::*;

#[test]
fn another_network_key_is_never_answered() {
    let mut lan = pair();
    let mut stranger = Setup::new(3, "mallory");
    stranger.network_key = 9;
    let met = [Setup::new(1, "alice").signed()];
    lan.hosts.push((stranger.lan_addr(), stranger.node(&met), Vec::new()));
    lan.run(Duration::from_secs(5));
    let now = lan.now;
    assert_eq!(lan.node(0).status(now).peers.len(), 1);
    assert!(lan.node(2).status(now).peers.is_empty());
}

#[test]
fn a_denied_device_gets_no_session() {
    let mut alice = Setup::new(1, "alice");
    alice.deny = vec![identity(1, 2).device.id()];
    let mut lan = Lan::new(&[alice, Setup::new(2, "bob")]);
    lan.run(Duration::from_secs(5));
    let now = lan.now;
    assert!(lan.node(0).status(now).peers.is_empty());
    assert_ne!(lan.peer(1, "alice").state, status::PeerState::Direct);
}

#[test]
fn replayed_and_random_datagrams_are_counted_and_change_nothing() {
    let mut lan = pair();
    let packet = udp(&lan.v4(0), &lan.v4(1));
    let mut buf = vec![0; HEADROOM + packet.len() + TAILROOM];
    buf[HEADROOM..HEADROOM + packet.len()].copy_from_slice(&packet);
    let now = lan.now;
    let Outbound::Send { to, range, .. } = lan.node(0).handle_packet(now, &mut buf) else { panic!("not sent") };
    let datagram = buf[range].to_vec();
    lan.deliver(lan.hosts[0].0, to, datagram.clone());
    // The same bytes again, from somebody else.
    lan.deliver("198.51.100.66:666".parse().expect("address"), to, datagram.clone());
    assert_eq!(lan.node(1).dropped("replayed"), 1);
    let mut rng = Seed::from_u64(1).rng();
    for i in 0..2_000_u32 {
        let mut bytes = datagram.clone();
        let at = rng.u32() as usize % bytes.len();
        bytes[at] ^= 1 << (i % 8);
        bytes.truncate(1 + rng.u32() as usize % bytes.len());
        bytes[0] = if i % 2 == 0 { bytes[0] } else { 0xE0 + (i % 16) as u8 };
        lan.deliver("198.51.100.66:666".parse().expect("address"), to, bytes);
    }
    assert_eq!(lan.hosts[1].2.len(), 1);
    lan.send(0, &packet);
    assert_eq!(lan.hosts[1].2.len(), 2);
    assert_eq!(lan.peer(1, "alice").state, status::PeerState::Direct);
}

#[test]
fn a_member_cannot_speak_for_another() {
    let mut lan = pair();
    // Alice tells Bob that she is somebody else: the signature does not hold.
    let mut forged = Setup::new(3, "carol").signed();
    forged[60] ^= 1;
    let (now, bob) = (lan.now, lan.hosts[1].1.my_id());
    lan.node(0).send_control(now, &bob, &Control::Announcement(&forged));
    lan.settle();
    assert_eq!(lan.node(1).dropped("announcement"), 1);
    assert_eq!(lan.node(1).status(now).peers.len(), 1);
}

#[test]
fn probes_that_an_earlier_run_took_bring_nobody_back() {
    let mut lan = pair();
    lan.run(Duration::from_secs(60));
    let (alice_at, bob_at) = (lan.hosts[0].0, lan.hosts[1].0);
    let is_probe = |(from, to, bytes): &&(SocketAddr, SocketAddr, Vec<u8>)| {
        *from == alice_at && *to == bob_at && bytes[0] == kind::PROBE
    };
    let probes: Vec<Vec<u8>> = lan.wire.iter().filter(is_probe).map(|sent| sent.2.clone()).collect();
    assert!(!probes.is_empty());
    let cache = lan.cache(1);
    lan.hosts[1].1 = Setup::new(2, "bob").restarted(lan.now, cache);
    lan.hosts.remove(0);
    lan.run(Duration::from_secs(70));
    assert_eq!(lan.peer(0, "alice").state, status::PeerState::Offline);
    let (before, mallory) = (lan.wire.len(), "198.51.100.66:666".parse().expect("address"));
    probes.iter().for_each(|probe| lan.deliver(mallory, bob_at, probe.clone()));
    lan.run(Duration::from_secs(3));
    assert_eq!(lan.peer(0, "alice").state, status::PeerState::Offline);
    assert_eq!(lan.wire[before..].iter().filter(|sent| sent.1 == mallory).count(), 0);
    assert_eq!(lan.node(0).dropped("replayed"), probes.len() as u64);
}

#[test]
fn a_warning_of_another_version_goes_when_it_is_no_longer_so() {
    let mut lan = pair();
    let (now, bob) = (lan.now, lan.hosts[1].1.my_id());
    lan.node(0).warn_of_version(now, Some(&bob), 2);
    lan.node(0).warn_of_version(now, None, 2);
    assert_eq!(lan.warnings(0), ["version", "version"]);
    // The next keys are agreed on in this version; whoever it was has not been heard since.
    lan.run(Duration::from_secs(400));
    assert_eq!(lan.warnings(0), [""; 0]);
}

#[test]
fn what_is_sent_back_to_its_sender_changes_nothing() {
    let mut lan = pair();
    lan.run(Duration::from_secs(40));
    lan.wire.clear();
    let packet = udp(&lan.v4(0), &lan.v4(1));
    lan.send(0, &packet);
    lan.run(Duration::from_secs(130));
    let (alice, bob) = (lan.hosts[0].0, lan.hosts[1].0);
    let own: Vec<Vec<u8>> = lan.wire.iter().filter(|(from, ..)| *from == alice).map(|w| w.2.clone()).collect();
    let kinds: std::collections::BTreeSet<u8> = own.iter().map(|bytes| bytes[0]).collect();
    assert!(kinds.len() >= 3, "probes, a handshake, control: {kinds:02x?}");
    let before = lan.peer(0, "bob");
    for from in [bob, "198.51.100.66:666".parse().expect("address")] {
        for bytes in own.iter().filter(|bytes| bytes.len() > 1) {
            let (now, mut payload) = (lan.now, bytes.clone());
            let datagram = Datagram { socket: SocketId(0), local: None, from, payload: &mut payload };
            assert_eq!(lan.node(0).handle_datagram(now, datagram), Inbound::Dropped, "{:02x}", bytes[0]);
            assert_eq!(lan.node(0).poll_transmit(), None, "and no answer");
        }
    }
    assert_eq!(lan.peer(0, "bob").path, before.path);
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Direct);
}

#[test]
fn a_packet_that_was_held_back_and_sent_from_elsewhere_moves_no_path() {
    let mut lan = pair();
    lan.run(Duration::from_secs(5));
    let elsewhere: SocketAddr = "198.51.100.66:666".parse().expect("address");
    let path = lan.peer(1, "alice").path;
    let mut probes = 0;
    for _ in 0..50 {
        let packet = udp(&lan.v4(0), &lan.v4(1));
        let mut buf = vec![0; HEADROOM + packet.len() + TAILROOM];
        buf[HEADROOM..HEADROOM + packet.len()].copy_from_slice(&packet);
        let now = lan.now;
        let Outbound::Send { to, range, .. } = lan.node(0).handle_packet(now, &mut buf) else { panic!("not sent") };
        lan.deliver(elsewhere, to, buf[range].to_vec());
        lan.wire.clear();
        lan.run(Duration::from_secs(1));
        probes += lan.wire.iter().filter(|(_, to, _)| *to == elsewhere).count();
        assert!(lan.wire.iter().all(|(_, to, bytes)| *to != elsewhere || bytes[0] == 0xE5 || bytes.len() == 1));
        assert_eq!(lan.peer(1, "alice").path, path);
    }
    assert!(probes <= 60 + 4, "{probes}: no more than any stranger gets in a minute, and keepalives");
    assert_eq!(lan.hosts[1].2.len(), 50, "they are genuine all the same");
}

#[test]
fn what_comes_from_a_servers_address_and_proves_nothing_is_counted() {
    let mut node = Setup::new(1, "alice").node_with("198.51.100.1:3478");
    let server: SocketAddr = "198.51.100.1:3478".parse().expect("address");
    node.handle_done(T0, Done::Resolved { server: crate::id::ServerId(0), result: Ok(vec![server]) });
    let mut sent = 0;
    for second in 0..=255_u8 {
        for len in [2, 16, 22, 30, 86, 96, 334, 1232] {
            let mut payload = vec![0x5A; len];
            (payload[0], payload[1]) = (0xE7, second);
            let datagram = Datagram { socket: SocketId(0), local: None, from: server, payload: &mut payload };
            assert_eq!(node.handle_datagram(T0, datagram), Inbound::Dropped);
            sent += 1;
        }
    }
    assert_eq!(node.dropped("unknown-rendezvous"), sent);
}

#[test]
fn one_captured_initiation_of_another_version_is_one_warning() {
    let mut lan = pair();
    // A member of a later version: same frame and mac1.
    let mut mallory = Setup::new(3, "mallory").node(&[Setup::new(1, "alice").signed()]);
    let mut now = lan.now;
    let mut initiation = None;
    let to = lan.hosts[0].0;
    for _ in 0..100 {
        mallory.handle_timeout(now);
        while let Some(action) = mallory.poll_action() {
            if let Action::Reserve { ceiling } = action {
                mallory.handle_done(now, Done::Reserved { ceiling });
            }
        }
        let alice = lan.hosts[0].1.my_id();
        if let Some(p) = mallory.peers.get_mut(&alice) {
            p.session.close(now, &mut mallory.shared.env());
            p.session.connect(now);
            p.session.handle_timeout(now, &mut mallory.shared.env());
            initiation = p.session.poll_transmit().or(initiation);
        }
        now += Duration::from_millis(100);
    }
    let mut frame = initiation.expect("an initiation");
    frame[4] = 2;
    let end = frame.len() - 32;
    let key = identity(1, 3).network.mac1_key(&lan.hosts[0].1.my_id());
    crate::crypto::mac::write_last(key.as_slice(), &mut frame[..end + 16]);
    for port in 1..=30_u16 {
        lan.deliver(SocketAddr::new("198.51.100.66".parse().expect("address"), port), to, frame.clone());
    }
    let now = lan.now;
    let n = lan.node(0).status(now).warnings.len();
    assert!(n <= 2, "{n} warnings from replays of one frame with invented sources");
}

#[test]
fn the_status_says_how_many_are_denied() {
    let alice = Setup { deny: vec![identity(1, 2).device.id()], ..Setup::new(1, "alice") };
    assert_eq!(alice.node(&[]).status(T0).network.denied, 1);
}
