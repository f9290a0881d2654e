use zeroize::Zeroizing;

use super::*;

const A: u32 = 0;
const B: u32 = 1;
const C: u32 = 2;

fn addr(slot: u32) -> Origin {
    Origin::Udp(std::net::SocketAddr::new(
        std::net::Ipv4Addr::new(192, 0, 2, u8::try_from(slot).expect("small")).into(),
        9,
    ))
}

fn key(n: u8) -> RelayKey {
    RelayKey::new(Zeroizing::new([n; 16]))
}

fn to_server(slot: u32) -> RelayKey {
    key(u8::try_from(slot).expect("small"))
}

fn to_peer(slot: u32) -> RelayKey {
    key(100 + u8::try_from(slot).expect("small"))
}

fn table(limits: Limits) -> Table {
    let mut table = Table::new(limits);
    for slot in [A, B, C] {
        let prefix = prefix(addr(slot));
        table.attach(slot, addr(slot), to_server(slot), to_peer(slot), NetworkId([1; 32]), prefix);
    }
    table
}

fn prefix(origin: Origin) -> IpNet {
    IpNet::new(origin.udp().expect("by UDP").ip(), 32).expect("prefix")
}

fn frame(key: &RelayKey, channel: u32, payload: &[u8]) -> Vec<u8> {
    [&Header { channel, tag: key.tag(channel, payload) }.encode()[..], payload].concat()
}

#[test]
fn a_frame_goes_out_under_the_receivers_number_and_key() {
    let mut table = table(Limits::default());
    assert_eq!(table.open(A, B, 5), Ok(None));
    assert_eq!(table.open(B, A, 7), Ok(Some(Change { asker: (B, 7), other: (A, 5) })));
    let mut sent = frame(&to_server(A), 5, b"hello");
    assert_eq!(table.forward(Instant::ZERO, addr(A), &mut sent), Verdict::Forward { to: B });
    assert_eq!(sent, frame(&to_peer(B), 7, b"hello"));
    let mut back = frame(&to_server(B), 7, b"hi");
    assert_eq!(table.forward(Instant::ZERO, addr(B), &mut back), Verdict::Forward { to: A });
    assert_eq!(back, frame(&to_peer(A), 5, b"hi"));
    assert_eq!((table.counters().frames, table.counters().bytes), (2, 17 + 14));
}

#[test]
fn a_channel_that_one_end_opened_carries_nothing() {
    let mut table = table(Limits::default());
    table.open(A, B, 5).expect("room");
    assert_eq!(table.forward(Instant::ZERO, addr(A), &mut frame(&to_server(A), 5, b"x")), Verdict::Dropped);
    assert_eq!(table.counters().half_open, 1);
}

#[test]
fn forged_frames_and_frames_from_elsewhere_are_not_forwarded() {
    let mut table = table(Limits::default());
    table.open(A, B, 5).expect("room");
    table.open(B, A, 7).expect("room");
    assert_eq!(table.forward(Instant::ZERO, addr(A), &mut frame(&key(77), 5, b"x")), Verdict::Dropped);
    assert_eq!(table.counters().forged, 1);
    assert_eq!(table.forward(Instant::ZERO, addr(C), &mut frame(&to_server(A), 5, b"x")), Verdict::Unknown);
    assert_eq!(table.forward(Instant::ZERO, addr(A), &mut frame(&to_server(A), 6, b"x")), Verdict::Unknown);
    let mut bent = frame(&to_server(A), 5, b"x");
    bent.push(0);
    assert_eq!(table.forward(Instant::ZERO, addr(A), &mut bent), Verdict::Dropped);
}

#[test]
fn a_channel_closes_and_opens_again() {
    let mut table = table(Limits::default());
    table.open(A, B, 5).expect("room");
    table.open(B, A, 7).expect("room");
    assert_eq!(table.close(A, B), Some(Change { asker: (A, 0), other: (B, 0) }));
    assert_eq!(table.close(A, B), None);
    assert_eq!(table.forward(Instant::ZERO, addr(B), &mut frame(&to_server(B), 7, b"x")), Verdict::Dropped);
    assert_eq!(table.open(A, B, 6), Ok(Some(Change { asker: (A, 6), other: (B, 7) })));
    assert_eq!(table.forward(Instant::ZERO, addr(B), &mut frame(&to_server(B), 7, b"x")), Verdict::Forward { to: A });
}

#[test]
fn who_is_gone_takes_its_channels_along() {
    let mut table = table(Limits::default());
    table.open(A, B, 5).expect("room");
    table.open(B, A, 7).expect("room");
    table.open(A, C, 8).expect("room");
    table.open(C, B, 3).expect("room");
    assert_eq!(table.detach(A), [B]);
    assert_eq!(table.len(), 1);
    assert!(table.detach(A).is_empty());
    assert_eq!(table.open(B, A, 9), Err(Refusal::NoSuchEnd));
    assert_eq!(table.detach(B), [C], "one end is enough to be told");
    assert!(table.is_empty());
}

#[test]
fn channels_survive_new_keys_and_a_new_address_without_a_lost_frame() {
    let mut table = table(Limits::default());
    table.open(A, B, 5).expect("room");
    table.open(B, A, 7).expect("room");
    let moved = Origin::Udp("198.51.100.3:9".parse().expect("address"));
    table.renew(A, moved, key(50), key(51), prefix(moved));
    assert_eq!(
        table.forward(Instant::ZERO, moved, &mut frame(&to_server(A), 5, b"old key")),
        Verdict::Forward { to: B }
    );
    assert_eq!(table.forward(Instant::ZERO, moved, &mut frame(&key(50), 5, b"new key")), Verdict::Forward { to: B });
    let mut late = || table.forward(Instant::ZERO, addr(A), &mut frame(&to_server(A), 5, b"still under way"));
    assert_eq!(late(), Verdict::Forward { to: B });
    let later = Instant::ZERO + LATE;
    for from in [addr(A), moved] {
        assert_eq!(table.forward(later, from, &mut frame(&to_server(A), 5, b"old key")), Verdict::Dropped);
    }
    let again = Origin::Udp("198.51.100.3:10".parse().expect("address"));
    table.renew(A, again, key(50), key(51), prefix(again));
    assert_eq!(table.forward(later, addr(A), &mut frame(&to_server(A), 5, b"long ago")), Verdict::Unknown);
    let mut back = frame(&to_server(B), 7, b"x");
    assert_eq!(table.forward(Instant::ZERO, addr(B), &mut back), Verdict::Forward { to: A });
    assert_eq!(back, frame(&key(51), 5, b"x"));
}

#[test]
fn limits_are_counted_and_told_once_in_a_while() {
    let mut table = table(Limits { prefix_bytes: 10_000, ..Limits::default() });
    table.open(A, B, 5).expect("room");
    table.open(B, A, 7).expect("room");
    let mut told = Vec::new();
    for _ in 0..10 {
        let verdict = table.forward(Instant::ZERO, addr(A), &mut frame(&to_server(A), 5, &[0; 1000]));
        told.extend(matches!(verdict, Verdict::Throttled { .. }).then_some(verdict));
    }
    assert_eq!(table.counters().frames, 2);
    assert_eq!(table.counters().over_prefix, 8);
    assert_eq!(told[..2], [Verdict::Throttled { tell: Some(A) }, Verdict::Throttled { tell: None }]);
    // Others are not concerned.
    assert_eq!(table.forward(Instant::ZERO, addr(B), &mut frame(&to_server(B), 7, b"x")), Verdict::Forward { to: A });
}

#[test]
fn who_moved_spends_what_its_new_prefix_may_and_nobody_elses() {
    let mut table = table(Limits { prefix_bytes: 10_000, ..Limits::default() });
    table.open(A, B, 5).expect("room");
    table.open(B, A, 7).expect("room");
    // A registered beside B's router once, and moves on.
    table.renew(A, addr(B), to_server(A), to_peer(A), prefix(addr(B)));
    let moved = Origin::Udp("203.0.113.77:9".parse().expect("address"));
    table.renew(A, moved, to_server(A), to_peer(A), prefix(moved));
    for _ in 0..10 {
        table.forward(Instant::ZERO, moved, &mut frame(&to_server(A), 5, &[0; 1000]));
    }
    assert_eq!(table.counters().over_prefix, 8);
    assert_eq!(table.forward(Instant::ZERO, addr(B), &mut frame(&to_server(B), 7, b"x")), Verdict::Forward { to: A });
}

#[test]
fn networks_and_the_whole_have_limits_too() {
    for (limits, network) in
        [(Limits { network_bytes: 1, ..Limits::default() }, 1), (Limits { total_bytes: 1, ..Limits::default() }, 0)]
    {
        let mut table = table(limits);
        table.open(A, B, 5).expect("room");
        table.open(B, A, 7).expect("room");
        for from in [A, B, A, B] {
            let number = if from == A { 5 } else { 7 };
            table.forward(Instant::ZERO, addr(from), &mut frame(&to_server(from), number, &[0; 1000]));
        }
        let counters = table.counters();
        assert_eq!((counters.over_network, counters.over_total), (2 * network, 2 * (1 - network)));
    }
}

#[test]
fn there_are_only_so_many_channels_and_each_number_stands_for_one() {
    let mut table = table(Limits { channels_per_peer: 2, channels: 3, ..Limits::default() });
    assert_eq!(table.open(A, B, 5), Ok(None));
    assert_eq!(table.open(A, C, 5), Err(Refusal::NumberTaken));
    assert_eq!(table.open(A, C, 6), Ok(None));
    assert_eq!(table.open(A, 9, 7), Err(Refusal::Full));
    assert_eq!(table.open(B, 9, 7), Err(Refusal::NoSuchEnd));
    assert_eq!(table.open(B, A, 1), Ok(Some(Change { asker: (B, 1), other: (A, 5) })));
    assert_eq!(table.open(C, A, 1), Err(Refusal::Full));
    assert_eq!(table.open(9, A, 1), Err(Refusal::NoSuchEnd));
}
