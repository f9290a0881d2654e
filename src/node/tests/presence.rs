//! Who is here, who is gone, and who comes back.

use super::*;

#[test]
fn what_opens_our_nat_at_the_start_is_not_lost_for_want_of_a_number() {
    let bob = Setup::new(2, "bob");
    let mut node = Setup::new(1, "alice").node(&[bob.signed()]);
    // The disk answers last.
    node.handle_done(T0, Done::Overlays(Vec::new()));
    node.handle_done(T0, Done::Interfaces(vec!["192.168.1.1/24".parse().expect("prefix")]));
    node.handle_timeout(T0);
    let primes = |node: &mut Node| {
        let sent: Vec<Transmit> = std::iter::from_fn(|| node.poll_transmit()).collect();
        sent.iter().filter(|t| t.to == bob.lan_addr() && t.ttl.is_some()).count()
    };
    assert_eq!(primes(&mut node), 0);
    let ceiling = std::iter::from_fn(|| node.poll_action()).find_map(|action| match action {
        Action::Reserve { ceiling } => Some(ceiling),
        _ => None,
    });
    node.handle_done(T0 + Duration::from_millis(3), Done::Reserved { ceiling: ceiling.expect("asked for") });
    assert_eq!(primes(&mut node), 1);
}

#[test]
fn among_many_peers_each_is_woken_in_time() {
    let names = ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "n10", "n11", "n12"];
    let setups: Vec<Setup> = (1..).zip(names).map(|(device, name)| Setup::new(device, name)).collect();
    let mut lan = Lan::new(&setups);
    lan.run(Duration::from_secs(200));
    for (i, j) in [(0, 1), (0, 11), (5, 6), (11, 3)] {
        let packet = udp(&lan.v4(i), &lan.v4(j));
        assert!(matches!(lan.send(i, &packet), Outbound::Send { .. }));
    }
    lan.hosts.truncate(10);
    lan.run(Duration::from_secs(200));
    let direct = |name: &&&str| lan.peer(0, name).state == status::PeerState::Direct;
    assert_eq!(names[1..10].iter().filter(direct).count(), 9);
}

#[test]
fn a_goodbye_is_seen_at_once() {
    let mut lan = pair();
    let now = lan.now;
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Offline);
}

#[test]
fn a_restarted_peer_is_back_within_seconds() {
    let mut lan = pair();
    let bob = Setup::new(2, "bob");
    let met = [Setup::new(1, "alice").signed()];
    let mut node = bob.node(&met);
    node.set_wall_clock(T0, WALL_MS + 10_000);
    node.shared.numbers = Numbers::new(WALL_MS + 20_000, WALL_MS + 20_000);
    lan.hosts[1].1 = node;
    lan.run(Duration::from_secs(2));
    let packet = udp(&lan.hosts[0].1.me().ula.to_string(), &lan.hosts[1].1.me().ula.to_string());
    lan.send(0, &packet);
    assert_eq!(lan.hosts[1].2, [packet]);
}

#[test]
fn forgetting_frees_name_and_address_of_a_peer_that_is_gone() {
    let mut lan = pair();
    let now = lan.now;
    let (id, v4) = (lan.hosts[1].1.my_id(), lan.hosts[1].1.me().v4.expect("an address"));
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    assert_eq!(lan.node(0).find_peer(now, "bob"), Some(id));
    lan.node(0).handle_command(now, Command::Forget(id));
    assert_eq!(lan.node(0).find_peer(now, "bob"), None);
    assert_eq!(lan.node(0).find_peer(now, &v4.to_string()), None);
}

#[test]
fn an_idle_direct_pair_without_a_rendezvous_stays_direct() {
    let mut lan = pair();
    lan.run(Duration::from_secs(120));
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Direct);
}

/// The cable is out: both go on, and nothing that they send arrives.
fn outage(lan: &mut Lan, duration: Duration) {
    lan.is_cut = true;
    lan.run(duration);
    lan.is_cut = false;
}

#[test]
fn after_an_outage_a_packet_brings_the_peer_back() {
    let mut lan = pair();
    outage(&mut lan, Duration::from_secs(40));
    let packet = udp(&lan.v4(0), &lan.v4(1));
    for _ in 0..60 {
        lan.send(0, &packet);
        lan.run(Duration::from_secs(2));
    }
    assert!(!lan.hosts[1].2.is_empty(), "2 minutes after the cable was put back nothing arrives");
}

#[test]
fn after_a_short_outage_without_traffic_a_pair_is_direct_again() {
    let mut lan = pair();
    outage(&mut lan, Duration::from_secs(12));
    let packet = udp(&lan.v4(0), &lan.v4(1));
    for _ in 0..60 {
        lan.send(0, &packet);
        lan.run(Duration::from_secs(2));
    }
    assert!(!lan.hosts[1].2.is_empty());
}

#[test]
fn an_idle_direct_pair_that_a_server_lists_is_not_shown_as_connecting() {
    let mut lan = pair();
    let ids = [lan.hosts[0].1.my_id(), lan.hosts[1].1.my_id()];
    for i in 0..2 {
        let peer = lan.node(i).peers.get_mut(&ids[1 - i]).expect("met");
        peer.listed.insert(crate::id::ServerId(0), None);
    }
    lan.run(Duration::from_secs(40));
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Direct);
}

#[test]
fn direct_after_is_measured_from_when_the_peer_appeared() {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "bob")]);
    let bob = lan.hosts.pop().expect("bob");
    lan.run(Duration::from_secs(15));
    lan.hosts.push(bob);
    lan.run(Duration::from_secs(60));
    let after = lan.peer(0, "bob").direct_after_ms.expect("direct");
    assert!(after < 5_000, "{after} ms: counted from our own start, because bob was in the cache");
}

#[test]
fn who_is_here_by_hearsay_alone_can_be_forgotten() {
    let mut lan = three();
    let (now, mallory, carol) = (lan.now, lan.node(1).my_id(), lan.node(2).my_id());
    lan.node(2).handle_command(now, Command::Leave);
    lan.settle();
    lan.hosts.truncate(2);
    lan.run(Duration::from_secs(60));
    let (now, alice) = (lan.now, lan.node(0).my_id());
    let old = lan.node(1).peers[&carol].signed.bytes().to_vec();
    lan.node(1).send_control(now, &alice, &Control::Stranger(&old));
    lan.settle();
    assert_eq!(lan.peer(0, "carol").state, status::PeerState::Connecting);
    lan.node(0).handle_command(now, Command::Forget(carol));
    let wall = lan.node(0).wall_ms(now);
    assert!(!lan.node(0).naming_holds(wall, "carol"));
    assert_ne!(mallory, carol);
}

#[test]
fn a_clock_that_is_set_after_the_start_makes_nobody_old() {
    let mut lan = pair();
    let mut later = lan.now;
    // A machine without a clock of its own: it began in 1970, and learns the time from the network.
    let cache = lan.cache(0);
    lan.hosts[0].1 = Setup::new(1, "alice").node_of((later, 60_000), cache, WALL_MS + 1_000_000, Vec::new());
    lan.run(Duration::from_secs(30));
    later = lan.now;
    lan.node(0).set_wall_clock(later, WALL_MS + 60_000);
    let cache: cache::Cache = serde_json::from_slice(&lan.cache(0)).expect("a cache");
    assert!(cache.peers.iter().all(|peer| peer.seen_ms >= WALL_MS), "{:?}", cache.peers);
    assert!(cache.names.iter().all(|name| name.seen_ms >= WALL_MS), "{:?}", cache.names);
}

#[test]
fn a_reservation_that_failed_is_asked_for_again() {
    let mut node = Setup::new(1, "alice").node(&[]);
    let mut now = T0;
    let mut asked = 0;
    for _ in 0..600 {
        node.handle_timeout(now);
        while let Some(action) = node.poll_action() {
            // The disk is full: the shell warns and answers nothing.
            asked += usize::from(matches!(action, Action::Reserve { .. }));
        }
        now += Duration::from_secs(1);
    }
    assert!(asked > 1, "asked {asked} time(s) in 10 minutes: no announcement, no registration, for ever");
}

#[test]
fn a_peer_gone_for_two_days_can_be_forgotten() {
    let mut lan = pair();
    let now = lan.now;
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    lan.hosts.truncate(1);
    let later = now + Duration::from_hours(49);
    lan.node(0).handle_timeout(later);
    let wall = lan.node(0).wall_ms(later);
    assert!(lan.node(0).naming_holds(wall, "bob"), "bob's name is still bound");
    assert!(lan.node(0).find_peer(later, "bob").is_some(), "so `punchlan forget bob` must find it");
}

#[test]
fn a_live_peer_is_not_forgotten() {
    let mut lan = pair();
    let (now, id) = (lan.now, lan.hosts[1].1.my_id());
    lan.node(0).handle_command(now, Command::Forget(id));
    let wall = lan.node(0).wall_ms(now);
    assert!(lan.node(0).naming_holds(wall, "bob"), "bob is here, and lost his name");
}

#[test]
fn who_has_said_goodbye_takes_no_new_session() {
    let mut lan = pair();
    let (now, bob) = (lan.now, lan.hosts[1].1.my_id());
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Offline);
    // Alice's game goes on sending during bob's farewell: her initiation comes, by a relay say.
    let node = lan.node(0);
    let peer = node.peers.get_mut(&bob).expect("met");
    let later = now + Duration::from_millis(300);
    peer.session.connect(later);
    peer.session.handle_timeout(later, &mut node.shared.env());
    let initiation = peer.session.poll_transmit().expect("an initiation");
    lan.now = later;
    let (from, to) = (lan.hosts[0].0, lan.hosts[1].0);
    lan.deliver(from, to, initiation);
    lan.settle();
    assert_eq!(lan.peer(0, "bob").state, status::PeerState::Offline, "bob is back, just before he exits");
}
