//! The packet path past the node: what whoever goes by its table may do while the node goes on.

#[path = "bench/lan.rs"]
mod lan;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use lan::{Lan, PORT, framed, lan_addr, overlay_addr, udp};
use punchlan::forward::{Bell, Drops, Inbound, Table, Traffic, Unsealed};
use punchlan::id::SocketId;
use punchlan::node::{Command, HEADROOM, Node, Outbound};
use punchlan::offload::describe;
use punchlan::sans::{Datagram, Instant};
use punchlan::wire::session::{Segment, data};
use punchlan::wire::{Class, classify, relay};

/// Two that reach each other directly, and know by which way each other's packets come.
fn pair() -> Lan {
    let mut lan = Lan::new(1);
    for (from, to) in [(0, 1), (1, 0)] {
        let (to_addr, mut bytes) = sealed(&mut lan, from, to);
        assert!(matches!(lan.deliver(from, to_addr, &mut bytes), Some((_, Inbound::Deliver(_)))));
    }
    lan
}

/// A datagram with a packet from one to the other.
fn sealed(lan: &mut Lan, from: usize, to: usize) -> (SocketAddr, Vec<u8>) {
    let mut buf = framed(&udp(overlay_addr(from), overlay_addr(to), 100));
    let now = lan.now;
    match lan.nodes[from].handle_packet(now, &mut buf) {
        Outbound::Send { to, range, .. } => (to, buf[range].to_vec()),
        other => panic!("not sent: {other:?}"),
    }
}

fn table(lan: &mut Lan, n: usize) -> Arc<Table> {
    let now = lan.now;
    let _ = lan.nodes[n].poll_table(now);
    lan.nodes[n].table()
}

/// As it came from that node.
fn arriving(from: usize, payload: &mut [u8]) -> Datagram<'_> {
    Datagram { socket: SocketId(0), local: None, from: (lan_addr(from), PORT).into(), payload }
}

fn count(drops: &Drops, word: &str) -> u64 {
    drops.all().into_iter().find(|(known, _)| *known == word).map_or(0, |(_, n)| n)
}

/// What it sends within that time, and when, if nothing comes.
fn alone(node: &mut Node, from: Instant, time: Duration) -> Vec<(Duration, Class)> {
    let mut sent = Vec::new();
    let mut now = from;
    loop {
        while node.poll_event().is_some() || node.poll_action().is_some() {}
        while let Some(transmit) = node.poll_transmit() {
            let lead = if classify(&transmit.payload) == Class::Relay { relay::HEADER } else { 0 };
            sent.push((now - from, classify(&transmit.payload[lead..])));
        }
        match node.poll_timeout() {
            Some(wakeup) if wakeup.at <= from + time => now = now.max(wakeup.at),
            _ => return sent,
        }
        node.handle_timeout(now);
    }
}

#[test]
fn no_datagram_is_delivered_twice_by_a_thread_and_the_node() {
    const COUNT: usize = 20_000;
    let mut lan = pair();
    let datagrams: Vec<Vec<u8>> = (0..COUNT).map(|_| sealed(&mut lan, 0, 1).1).collect();
    let (now, table) = (lan.now, table(&mut lan, 1));
    let got: Vec<AtomicUsize> = (0..COUNT).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        // Some hold the window for a run of datagrams, some for one.
        for run in [1, 64] {
            let (table, datagrams, got) = (&table, &datagrams, &got);
            scope.spawn(move || {
                for (some, counts) in datagrams.chunks(run).zip(got.chunks(run)) {
                    let mut openings = table.openings();
                    for (bytes, count) in some.iter().zip(counts) {
                        let opened = openings.open(now, &mut arriving(0, &mut bytes.clone()));
                        count.fetch_add(usize::from(matches!(opened, Some(Inbound::Deliver(_)))), Ordering::Relaxed);
                    }
                }
            });
        }
        for (bytes, count) in datagrams.iter().zip(&got).rev() {
            let opened = lan.nodes[1].handle_datagram(now, arriving(0, &mut bytes.clone()));
            count.fetch_add(usize::from(matches!(opened, Inbound::Deliver(_))), Ordering::Relaxed);
        }
    });
    assert!(got.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    assert_eq!(lan.nodes[1].dropped("replayed"), 2 * COUNT as u64);
}

#[test]
fn no_counter_is_sealed_twice_by_a_thread_and_the_node() {
    let mut lan = pair();
    let (now, table) = (lan.now, table(&mut lan, 0));
    let packet = framed(&udp(overlay_addr(0), overlay_addr(1), 100));
    let mut headers = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let header = |_| {
                let mut buf = packet.clone();
                let train = table.seal(now, &mut buf).expect("a session");
                buf[train.range.start..train.range.start + 8].to_vec()
            };
            (0..5_000).map(header).collect::<Vec<_>>()
        });
        let mut ours: Vec<Vec<u8>> = (0..5_000).map(|_| sealed(&mut lan, 0, 1).1[..8].to_vec()).collect();
        ours.extend(thread.join().expect("ended"));
        ours
    });
    headers.sort();
    headers.dedup();
    assert_eq!(headers.len(), 10_000);
}

#[test]
fn new_keys_and_a_table_from_before_them_lose_nothing_and_take_nothing_twice() {
    let mut lan = pair();
    let old = table(&mut lan, 1);
    let (_, before) = sealed(&mut lan, 0, 1);
    lan.run(Duration::from_secs(125));
    let now = lan.now;
    let (_, after) = sealed(&mut lan, 0, 1);
    assert_ne!(before[1..4], after[1..4], "another index");

    // Of the new keys the old table says nothing.
    let mut untouched = after.clone();
    assert_eq!(old.openings().open(now, &mut arriving(0, &mut untouched)), None);
    assert_eq!(untouched, after);
    assert!(matches!(lan.nodes[1].handle_datagram(now, arriving(0, &mut untouched)), Inbound::Deliver(_)));
    let new = table(&mut lan, 1);
    let mut again = after.clone();
    assert_eq!(new.openings().open(now, &mut arriving(0, &mut again)), Some(Inbound::Dropped), "replayed");

    // What was on its way under the old ones is taken once, by whom it may be.
    let taken = old.openings().open(now, &mut arriving(0, &mut before.clone()));
    assert!(matches!(taken, Some(Inbound::Deliver(_))));
    assert_eq!(new.openings().open(now, &mut arriving(0, &mut before.clone())), Some(Inbound::Dropped));
    assert_eq!(lan.nodes[1].handle_datagram(now, arriving(0, &mut before.clone())), Inbound::Dropped);
}

#[test]
fn keys_that_expired_seal_and_open_nothing_and_the_packet_waits_for_new_ones() {
    let mut lan = pair();
    let (ours, theirs) = (table(&mut lan, 0), table(&mut lan, 1));
    let (_, mut datagram) = sealed(&mut lan, 0, 1);
    // As after a sleep.
    let late = lan.now + Duration::from_secs(181);
    let packet = udp(overlay_addr(0), overlay_addr(1), 100);
    let mut buf = framed(&packet);
    assert_eq!(ours.seal(late, &mut buf), Err(Unsealed::Node));
    assert_eq!(&buf[HEADROOM..HEADROOM + packet.len()], &packet, "it is as it was");
    assert_eq!(lan.nodes[0].handle_packet(late, &mut buf), Outbound::Taken);
    assert_eq!(theirs.openings().open(late, &mut arriving(0, &mut datagram)), Some(Inbound::Dropped));
    assert_eq!(count(theirs.drops(), "no-keys"), 1);
}

#[test]
fn what_is_not_the_common_case_is_left_as_it_is() {
    let mut lan = pair();
    let (now, table) = (lan.now, table(&mut lan, 1));
    let (_, datagram) = sealed(&mut lan, 0, 1);
    let elsewhere = Datagram { from: "192.0.2.77:4000".parse().expect("an address"), ..arriving(0, &mut []) };
    let other_socket = Datagram { socket: SocketId(1), ..arriving(0, &mut []) };
    for Datagram { socket, local, from, .. } in [elsewhere, other_socket] {
        let mut bytes = datagram.clone();
        let opened = table.openings().open(now, &mut Datagram { socket, local, from, payload: &mut bytes });
        assert_eq!((opened, &bytes), (None, &datagram));
    }
    // Another index, another kind, in a relay frame, cut short.
    let changed = |at: usize, byte: u8| {
        let mut bytes = datagram.clone();
        bytes[at] = byte;
        bytes
    };
    let framed = [&[0xE6, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], &datagram[..]].concat();
    for bytes in [changed(2, !datagram[2]), changed(0, 0xE1), framed, datagram[..20].to_vec()] {
        let mut given = bytes.clone();
        assert_eq!(table.openings().open(now, &mut arriving(0, &mut given)), None);
        assert_eq!(given, bytes);
    }
    let everyone = udp(overlay_addr(0), "10.77.255.255".parse().expect("v4"), 90);
    let mut buf = self::framed(&everyone);
    assert_eq!(self::table(&mut lan, 0).seal(now, &mut buf), Err(Unsealed::Shared));
    assert_eq!(&buf[HEADROOM..HEADROOM + everyone.len()], &everyone);
}

#[test]
fn what_is_nobodys_does_not_trouble_the_node() {
    let mut lan = pair();
    let (now, table) = (lan.now, table(&mut lan, 0));
    let [nobody, foreign] = [("10.77.0.1", "10.77.9.9"), ("192.0.2.1", "10.77.0.2")]
        .map(|(from, to)| udp(from.parse().expect("v4"), to.parse().expect("v4"), 90));
    let long = udp(overlay_addr(0), overlay_addr(1), 1_401);
    for (packet, word) in
        [(nobody, "no-such-address"), (foreign, "source-not-ours"), (long, "too-big"), (vec![0x45], "not-ip")]
    {
        let before = count(table.drops(), word);
        assert_eq!(table.seal(now, &mut framed(&packet)), Err(Unsealed::Dropped));
        assert_eq!(count(table.drops(), word), before + 1, "{word}");
    }
    assert_eq!(table.seal(now, &mut [0; 40]), Err(Unsealed::Dropped), "no room around it");

    let keepalive = table.openings().open(now, &mut arriving(1, &mut [0]));
    assert_eq!(keepalive, Some(Inbound::Taken));
    let malformed = count(table.drops(), "malformed");
    for mut junk in [vec![], vec![0x99; 40], vec![0xE6; 3_000]] {
        assert_eq!(table.openings().open(now, &mut arriving(1, &mut junk)), Some(Inbound::Dropped));
    }
    assert_eq!(count(table.drops(), "malformed"), malformed + 3);
}

#[test]
fn a_descriptor_that_lies_and_a_source_that_is_anothers_are_dropped_and_counted() {
    let mut lan = pair();
    let now = lan.now;
    let bob = lan.nodes[0].status(now).peers[0].id;
    let (hostile, table) = (table(&mut lan, 0), table(&mut lan, 1));
    let key = hostile.egress(&bob).expect("a session").key.clone();
    let open = |inner: &[u8]| {
        let mut bytes = [&[0; 8], inner, &[0; 16]].concat();
        key.seal(now, &mut bytes).expect("sealed");
        table.openings().open(now, &mut arriving(0, &mut bytes)).expect("its own")
    };
    let mut packet = Vec::new();
    let (from, to) = (overlay_addr(0).octets(), overlay_addr(1).octets());
    let builder = etherparse::PacketBuilder::ipv4(from, to, 64).tcp(1, 2, 3, 4).ack(5);
    builder.write(&mut packet, &[7; 500]).expect("a vector takes all");
    let truth = describe(&packet).expect("a segment");
    let segment = |segment: Segment| [&[data::SEGMENT][..], &segment.encode(), &packet].concat();
    assert!(matches!(open(&segment(truth)), Inbound::Segment { .. }));
    for lie in
        [Segment { csum_start: 0, ..truth }, Segment { header_len: 9, ..truth }, Segment { gso_type: 5, ..truth }]
    {
        assert_eq!(open(&segment(lie)), Inbound::Dropped);
    }
    assert_eq!(count(table.drops(), "segment"), 3);
    let anothers = [&[data::PACKET][..], &udp(overlay_addr(7), overlay_addr(1), 90)].concat();
    let to_another = [&[data::PACKET][..], &udp(overlay_addr(0), overlay_addr(7), 90)].concat();
    for inner in [&anothers[..], &to_another, &[data::FRAGMENT, 1, 2, 3, 4], &[9], &[data::SEGMENT, 1]] {
        assert_eq!(open(inner), Inbound::Dropped, "{inner:?}");
    }
    let words = ["source-not-owned", "destination-not-ours", "reserved-kind", "malformed"];
    assert_eq!(words.map(|word| count(table.drops(), word)), [1, 1, 2, 1]);
    assert_eq!(lan.nodes[1].dropped("segment"), 3, "and `status` shows them");
}

#[test]
fn who_left_is_neither_heard_nor_brought_back_by_what_came_before() {
    let mut lan = pair();
    let now = lan.now;
    let (_, early) = sealed(&mut lan, 0, 1);
    let (_, late) = sealed(&mut lan, 0, 1);
    let table = table(&mut lan, 1);
    // It comes by a thread, and the node has not looked yet when the goodbye is here.
    let opened = table.openings().open(now, &mut arriving(0, &mut early.clone()));
    assert!(matches!(opened, Some(Inbound::Deliver(_))));
    lan.nodes[0].handle_command(now, Command::Leave);
    while let Some(transmit) = lan.nodes[0].poll_transmit() {
        lan.nodes[1].handle_datagram(now, arriving(0, &mut transmit.payload.clone()));
    }
    let after = self::table(&mut lan, 1);
    assert_eq!(after.openings().open(now, &mut arriving(0, &mut late.clone())), None);
    assert_eq!(lan.nodes[1].handle_datagram(now, arriving(0, &mut late.clone())), Inbound::Dropped);
    lan.nodes[1].handle_bell(now);
    alone(&mut lan.nodes[1], now, Duration::from_secs(1));
    let status = lan.nodes[1].status(now + Duration::from_secs(1));
    assert_eq!(status.peers[0].state, punchlan::node::status::PeerState::Offline);
    // And who leaves goes by nothing any more.
    let left = self::table(&mut lan, 0);
    let packet = framed(&udp(overlay_addr(0), overlay_addr(1), 90));
    assert_eq!((left.peers(), left.seal(now, &mut packet.clone())), (0, Err(Unsealed::Node)));
    let everyone = framed(&udp(overlay_addr(0), "10.77.255.255".parse().expect("v4"), 90));
    for mut packet in [packet, everyone] {
        assert_eq!(lan.nodes[0].handle_packet(now, &mut packet), Outbound::Dropped);
    }
    assert!(lan.nodes[0].poll_transmit().is_none(), "nothing comes after the goodbye");
}

/// What a node says when a thread alone sends every 50 ms, and nothing comes back.
fn into_silence(lan: &mut Lan) -> Vec<(Duration, Class)> {
    lan.run(Duration::from_secs(60));
    let (start, table) = (lan.now, table(lan, 0));
    let node = &mut lan.nodes[0];
    assert!(!table.bell().is_rung(), "it is quiet");
    let packet = framed(&udp(overlay_addr(0), overlay_addr(1), 100));
    let mut sent = Vec::new();
    for n in 0..140 {
        let now = start + Duration::from_millis(50) * n;
        assert!(table.seal(now, &mut packet.clone()).is_ok());
        assert_eq!(table.bell().is_rung(), n == 0, "from the first on it is looked at");
        node.handle_bell(now);
        let said = alone(node, now, Duration::from_millis(50));
        sent.extend(said.into_iter().map(|(at, class)| (now + at - start, class)));
    }
    sent
}

fn first(sent: &[(Duration, Class)], wanted: Class, after: f64) -> f64 {
    let all = sent.iter().filter(|(_, class)| *class == wanted).map(|(at, _)| at.as_secs_f64());
    all.into_iter().find(|at| *at >= after).expect("it is sent")
}

#[test]
fn what_threads_send_into_silence_puts_path_and_session_in_doubt_in_time() {
    let probe = first(&into_silence(&mut pair()), Class::Probe, 0.95);
    assert!((1.0..1.2).contains(&probe), "{probe}");
    let mut relayed = Lan::relayed();
    let initiation = first(&into_silence(&mut relayed), Class::Initiation, 0.0);
    assert!((6.0..6.2).contains(&initiation), "{initiation}");
}

#[test]
fn what_threads_received_keeps_a_session_and_is_acknowledged() {
    let mut lan = pair();
    lan.run(Duration::from_secs(60));
    let (start, table) = (lan.now, table(&mut lan, 1));
    let mut sent = Vec::new();
    for n in 0..80 {
        let now = start + Duration::from_millis(50) * n;
        lan.now = now;
        let (_, mut bytes) = sealed(&mut lan, 0, 1);
        assert!(matches!(table.openings().open(now, &mut arriving(0, &mut bytes)), Some(Inbound::Deliver(_))));
        let node = &mut lan.nodes[1];
        if table.bell().is_rung() {
            node.handle_bell(now);
        }
        sent.extend(
            alone(node, now, Duration::from_millis(50)).into_iter().map(|(at, class)| (now + at - start, class)),
        );
    }
    let said = sent.iter().find(|(_, class)| *class == Class::Control).expect("Nothing, into the silence");
    assert!((2.0..2.25).contains(&said.0.as_secs_f64()), "{said:?}");
    let status = lan.nodes[1].status(lan.now);
    assert_eq!(status.peers[0].rx_bytes, 100 * 81, "what threads open counts");
    // When it is quiet, nobody looks any more.
    alone(&mut lan.nodes[1], lan.now, Duration::from_secs(1));
    let (now, (_, mut bytes)) = (lan.now + Duration::from_secs(1), sealed(&mut lan, 0, 1));
    let _ = table.openings().open(now, &mut arriving(0, &mut bytes));
    assert!(table.bell().is_rung());
}

#[test]
fn a_packet_is_seen_by_the_last_look_or_rings() {
    let bell = Arc::new(Bell::default());
    let traffic = Traffic::new(bell.clone());
    let missed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=20_000 {
                traffic.on_sent(Instant::from_nanos(n), 1);
                std::thread::yield_now();
            }
        });
        let mut seen = 0;
        while seen < 20_000 {
            traffic.rest();
            let last = traffic.sent_at().as_nanos();
            if last == seen {
                // Asleep until the bell rings, which must be if anything comes.
                let mut turns = 0_u32;
                while !bell.is_rung() {
                    turns += 1;
                    std::thread::yield_now();
                    if turns > 1_000_000 {
                        missed.store(seen, Ordering::Relaxed);
                        return;
                    }
                }
                bell.answer();
            }
            seen = traffic.sent_at().as_nanos();
        }
    });
    assert_eq!(missed.load(Ordering::Relaxed), 0);
    assert_eq!(traffic.tx_bytes(), 20_000);
}

#[test]
fn what_the_peer_answered_is_in_no_doubt_however_late_the_node_looks() {
    let mut lan = pair();
    lan.run(Duration::from_secs(60));
    let (start, table) = (lan.now, table(&mut lan, 0));
    let alice = lan.nodes[1].status(start).peers[0].id;
    let packet = framed(&udp(overlay_addr(0), overlay_addr(1), 100));
    let seal = |lan: &mut Lan, ms: u64| {
        let now = start + Duration::from_millis(ms);
        assert!(table.seal(now, &mut packet.clone()).is_ok());
        lan.nodes[0].handle_bell(now);
        alone(&mut lan.nodes[0], now, Duration::from_millis(40));
    };
    seal(&mut lan, 0);
    // Between two looks a packet goes, and what the peer says after it is heard by the node itself.
    seal(&mut lan, 50);
    let now = start + Duration::from_millis(95);
    lan.nodes[1].handle_command(now, Command::Ping { peer: alice, id: 1 });
    let ping = std::iter::from_fn(|| lan.nodes[1].poll_transmit()).find(|t| classify(&t.payload) == Class::Control);
    lan.nodes[0].handle_datagram(now, arriving(1, &mut ping.expect("a ping").payload));
    let said = alone(&mut lan.nodes[0], now, Duration::from_secs(2));
    assert!(said.iter().any(|(_, class)| *class == Class::Control), "the pong: {said:?}");
    let doubt = |at: &Duration| (0.9..1.3).contains(&at.as_secs_f64());
    assert!(!said.iter().any(|(at, class)| *class == Class::Probe && doubt(at)), "{said:?}");
}
