//! Members who invent, flood and talk without end: nobody else goes without.

use super::*;

#[test]
fn invented_devices_of_a_member_keep_no_friend_from_a_handshake_through_a_relay() {
    let mut lan = three();
    let carol = lan.node(2).my_id();
    let now = lan.now;
    for n in 0..60 {
        let signed = invented(n, Vec::new());
        let id = signed.peer;
        lan.node(0).learn(now, signed);
        // Whatever a member sends that has the right mac1.
        let mut initiation = Handshake::new(&mut lan, 1, 0).initiation(&mut lan, 1);
        lan.node(0).handle_relayed(now, id, &mut initiation);
    }
    assert!(lan.node(0).dropped("under-load") > 0, "the newcomers' share is used up");
    let mut honest = Handshake::new(&mut lan, 2, 0).initiation(&mut lan, 2);
    assert_eq!(lan.node(0).handle_relayed(now, carol, &mut honest), Inbound::Taken);
}

/// The `n`-th device that a member has invented, with these candidates.
fn invented(n: u32, candidates: Vec<Candidate>) -> Signed {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    seed[31] = 0xAA;
    let device = DeviceSecrets::from_seed(&seed);
    let text = Announcement {
        version: crate::wire::VERSION,
        epoch: Epoch::default(),
        seq: 1,
        peer: device.id(),
        x25519: device.x25519(),
        features: 0,
        name: format!("x{n}"),
        v4: V4Claim::None,
        candidates,
    };
    announcement::sign(&device, &identity(1, 1).network.id(), &text)
}

#[test]
fn devices_that_a_member_invents_and_brings_up_one_after_the_other_crowd_nobody_out() {
    let mut lan = pair();
    let now = lan.now;
    for n in 0..1_100 {
        let device = invented(n, Vec::new());
        let id = device.peer;
        lan.node(0).learn(now, device);
        // As after a session and a goodbye.
        lan.node(0).grant_seniority(&id);
        let peer = lan.node(0).peers.get_mut(&id).expect("there is always room");
        (peer.met, peer.received, peer.offline) = (true, Some(now), Some(now));
    }
    let carol = announcement::verify(&claim(3, 7, "carol", V4Claim::None), &identity(1, 1).network.id());
    lan.node(0).learn(now, carol.expect("signed"));
    let names: Vec<String> = lan.node(0).status(now).peers.into_iter().map(|p| p.name).collect();
    assert!(names.iter().any(|name| name == "bob") && names.iter().any(|name| name == "carol"));
    assert_eq!(names.len(), 1_024);
    assert!(lan.node(0).dropped("evicted-peer") > 70);
}

#[test]
fn a_friend_who_moves_is_found_while_a_member_has_us_search_for_hundreds_of_devices() {
    let mut lan = pair();
    let target = |n: u32, i: u32| SocketAddr::new(Ipv4Addr::from(0xC633_0000 + n * 16 + i).into(), 4000);
    let mut rogues = Vec::new();
    for n in 0..256 {
        let candidates = (0..16).map(|i| Candidate { kind: CandidateKind::Host, addr: target(n, i) });
        let device = invented(n, candidates.collect());
        rogues.push(device.peer);
        let now = lan.now;
        lan.node(0).learn(now, device);
    }
    let moved: SocketAddr = "192.168.1.77:4000".parse().expect("address");
    for second in 0..8 {
        let now = lan.now;
        for id in &rogues {
            if let Some(peer) = lan.node(0).peers.get_mut(id) {
                peer.punch.introduce(now);
            }
        }
        lan.node(0).handle_timeout(now);
        if second == 3 {
            lan.hosts[1].0 = moved;
            let packet = udp(&lan.v4(1), &lan.v4(0));
            lan.send(1, &packet);
        }
        lan.run(Duration::from_secs(2));
    }
    assert!(lan.node(0).dropped("probe-budget") > 1_000, "the search for rogues is at its limits");
    let path = lan.peer(0, "bob").path.expect("a path");
    assert_eq!((lan.peer(0, "bob").state, path.remote), (status::PeerState::Direct, moved));
}

#[test]
fn a_member_who_talks_without_end_is_not_listened_to_without_end() {
    let mut lan = pair();
    let (now, alice) = (lan.now, lan.node(0).my_id());
    for n in 0..1_000 {
        lan.node(1).send_control(now, &alice, &Control::Ping(n));
    }
    lan.settle();
    assert!(lan.node(0).dropped("control-rate") >= 600, "{}", lan.node(0).dropped("control-rate"));
    lan.run(Duration::from_secs(10));
    lan.node(1).handle_command(now, Command::Ping { peer: alice, id: 7 });
    let packet = udp(&lan.v4(0), &lan.v4(1));
    lan.send(0, &packet);
    assert_eq!(
        (lan.hosts[1].2.len(), lan.peer(0, "bob").state),
        (1, status::PeerState::Direct),
        "all else is as before"
    );
}

#[test]
fn a_member_who_tells_of_strangers_without_end_is_not_listened_to_without_end() {
    let mut lan = pair();
    let (now, bob) = (lan.now, lan.node(1).my_id());
    for n in 0..500 {
        let told = invented(n, Vec::new());
        lan.node(0).told_of(now, &bob, told.bytes());
    }
    assert_eq!(lan.node(0).peers.len(), 1 + 32);
    assert_eq!(lan.node(0).dropped("hearsay"), 500 - 32);
    lan.run(Duration::from_secs(60));
    let states: Vec<_> =
        lan.node(0).peers.values().filter(|peer| peer.offline.is_none()).map(|p| p.name.clone()).collect();
    assert_eq!(states, ["bob"], "and what is not told again is gone");
}

#[test]
fn a_member_cannot_shut_newcomers_out_with_invented_devices() {
    let mut lan = pair();
    let now = lan.now;
    for n in 0..1_100 {
        lan.node(0).learn(now, invented(n, Vec::new()));
    }
    let carol = announcement::verify(&claim(3, 7, "carol", V4Claim::None), &identity(1, 1).network.id());
    lan.node(0).learn(now, carol.expect("signed"));
    let names: Vec<String> = lan.node(0).status(now).peers.into_iter().map(|p| p.name).collect();
    assert!(names.iter().any(|name| name == "bob") && names.iter().any(|name| name == "carol"));
    assert!(names.len() <= 1_024, "{}", names.len());
}

#[test]
fn garbage_initiations_do_not_put_members_under_load() {
    let mut lan = pair();
    let to = lan.hosts[0].0;
    for _ in 0..60 {
        lan.deliver("198.51.100.66:666".parse().expect("address"), to, vec![0xE2; 664]);
    }
    // Nothing of this was from a member, so a member still needs no cookie.
    assert_eq!(lan.node(0).dropped("unauthentic"), 60, "under-load: {}", lan.node(0).dropped("under-load"));
}

/// A member's handshake beside the one that its node keeps.
struct Handshake(crate::session::Session);

impl Handshake {
    fn new(lan: &mut Lan, from: usize, to: usize) -> Self {
        let (me, peer) = (lan.node(from).my_id(), lan.node(to).shared.identity.clone());
        let mut session = crate::session::Session::new(me, peer.device.id(), peer.device.x25519());
        session.connect(lan.now);
        Self(session)
    }

    /// Its newest initiation.
    fn initiation(&mut self, lan: &mut Lan, from: usize) -> Vec<u8> {
        let now = lan.now;
        self.0.handle_timeout(now, &mut lan.node(from).shared.env());
        self.0.poll_transmit().expect("it is due")
    }
}

#[test]
fn a_member_who_floods_a_relay_with_initiations_keeps_no_other_from_a_handshake() {
    let mut lan = three();
    let (mallory, carol) = (lan.node(1).my_id(), lan.node(2).my_id());
    let flood = Handshake::new(&mut lan, 1, 0).initiation(&mut lan, 1);
    let now = lan.now;
    for _ in 0..200 {
        lan.node(0).handle_relayed(now, mallory, &mut flood.clone());
    }
    assert!(lan.node(0).dropped("under-load") > 150);
    let mut honest = Handshake::new(&mut lan, 2, 0).initiation(&mut lan, 2);
    assert_eq!(lan.node(0).handle_relayed(now, carol, &mut honest), Inbound::Taken);
}

#[test]
fn a_member_who_proves_its_address_cannot_have_handshakes_without_end() {
    let mut lan = three();
    let (to, from) = (lan.hosts[0].0, "198.51.100.66:666".parse().expect("address"));
    let mut handshake = Handshake::new(&mut lan, 1, 0);
    let unproven = handshake.initiation(&mut lan, 1);
    let mut cookies = 0;
    for _ in 0..60 {
        lan.deliver(from, to, unproven.clone());
        while let Some(reply) = lan.node(0).poll_transmit() {
            assert!(reply.payload.len() < unproven.len());
            cookies += usize::from(handshake.0.handle_cookie_reply(T0, &reply.payload));
        }
    }
    assert_eq!(cookies, 20, "what is beyond the calm is asked for proof");
    // All in one moment, so that nothing refills.
    let proven = handshake.0.poll_timeout().map(|due| due.at).map(|at| {
        let mut env = lan.hosts[1].1.shared.env();
        handshake.0.handle_timeout(at, &mut env);
        handshake.0.poll_transmit().expect("it goes out again")
    });
    let (proven, before) = (proven.expect("it is due"), lan.node(0).dropped("under-load"));
    for _ in 0..500 {
        lan.deliver(from, to, proven.clone());
    }
    assert!(lan.node(0).dropped("under-load") - before >= 480, "{}", lan.node(0).dropped("under-load"));
}

#[test]
fn a_member_cannot_have_others_search_new_addresses_all_the_time() {
    let mut lan = pair();
    let (now, alice) = (lan.now, lan.node(0).my_id());
    for n in 0..500_u16 {
        let sprayed =
            (0..16).map(|port| SocketAddr::new(Ipv4Addr::from(0xC633_0000 + u32::from(n)).into(), 1000 + port));
        let identity = identity(1, 2);
        let text = Announcement {
            seq: (1 << 60) + u64::from(n),
            candidates: sprayed.map(|addr| Candidate { kind: CandidateKind::Host, addr }).collect(),
            ..lan.node(1).shared.announcement.announcement().clone()
        };
        let signed = announcement::sign(&identity.device, &identity.network.id(), &text);
        lan.node(1).send_control(now, &alice, &Control::Announcement(signed.bytes()));
        let mut sent = Vec::new();
        while let Some(t) = lan.node(1).poll_transmit() {
            sent.push(t);
        }
        for t in sent {
            lan.deliver(lan.hosts[1].0, t.to, t.payload);
        }
    }
    assert_eq!(lan.node(0).dropped("announcement-rate") + lan.node(0).dropped("control-rate"), 480);
    // It is told no more than that, and what stood still stands.
    lan.run(Duration::from_secs(10));
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Direct);
}

#[test]
fn ports_that_a_member_sprays_over_one_address_share_what_a_stranger_gets() {
    let mut lan = pair();
    let victim = Ipv4Addr::new(198, 51, 100, 99);
    let mut most = 0;
    for round in 0..12_u16 {
        // Every ten seconds sixteen others of its ports.
        let sprayed = (0..16).map(|port| SocketAddr::new(victim.into(), 1000 + 16 * round + port));
        let identity = identity(1, 2);
        let text = Announcement {
            seq: (1 << 60) + u64::from(round),
            candidates: sprayed.map(|addr| Candidate { kind: CandidateKind::Reflexive, addr }).collect(),
            ..lan.node(1).shared.announcement.announcement().clone()
        };
        let signed = announcement::sign(&identity.device, &identity.network.id(), &text);
        let now = lan.now;
        lan.node(0).learn(now, signed);
        let bob = lan.node(1).my_id();
        lan.node(0).handle_command(now, Command::Ping { peer: bob, id: round.into() });
        if let Some(peer) = lan.node(0).peers.get_mut(&bob) {
            peer.punch.introduce(now);
        }
        lan.wire.clear();
        lan.run(Duration::from_secs(10));
        most += lan.wire.iter().filter(|(_, to, _)| to.ip() == victim).count();
    }
    assert!(most > 0 && most <= 2 * 60 + 12, "{most} in two minutes");
}

#[test]
fn candidates_that_nobody_may_announce_are_counted_and_not_tried() {
    let mut lan = pair();
    let wrong = ["127.0.0.1:5", "0.0.0.0:5", "224.0.0.251:5353", "255.255.255.255:9", "198.51.100.9:0", "10.77.0.9:5"];
    let announced = wrong.iter().chain(&["198.51.100.9:5"]).map(|text| text.parse().expect("address"));
    let device = invented(1, announced.map(|addr| Candidate { kind: CandidateKind::Host, addr }).collect());
    let (now, id) = (lan.now, device.peer);
    lan.node(0).learn(now, device);
    assert_eq!(lan.node(0).dropped("candidate"), 6);
    let tried = lan.node(0).peers[&id].punch.paths(now).map(|path| path.via.remote());
    assert_eq!(tried.collect::<Vec<_>>(), [Some("198.51.100.9:5".parse().expect("address"))]);
}

#[test]
fn requests_beyond_a_peers_pace_are_counted_and_stay_counted_when_it_goes() {
    let mut lan = pair();
    let (now, bob) = (lan.now, lan.node(1).my_id());
    let from = lan.hosts[1].0;
    for port in 1000..1300_u16 {
        let request = ProbeIn { kind: ProbeKind::Request, nonce: port.into(), len: 62, observed: None };
        let via = Via::Direct { socket: SocketId(0), remote: SocketAddr::new(from.ip(), port) };
        lan.node(0).peers.get_mut(&bob).expect("bob").punch.handle_probe(now, via, None, &request);
    }
    let counts = |node: &Node| ["echo-rate", "too-many-paths"].map(|word| node.dropped(word));
    let before = counts(lan.node(0));
    assert!(before[0] >= 200 && before[1] >= 280, "{before:?}");
    lan.node(0).remove_peer(now, &bob);
    assert_eq!(counts(lan.node(0)), before);
}
