//! What members may have others carry, and say of carrying.

use super::*;
use crate::id::{NetworkId, ServerId};
use crate::relay::{Limits, Table};
use crate::wire::relay::Header;
use crate::wire::session::{Carried, Control, feature};

const CAROL: usize = 2;
const SECOND: Duration = Duration::from_secs(1);

/// Members who all reach each other and know of carrying: alice, bob, carol and more. The last one is not up.
fn members(names: &[&'static str]) -> Lan {
    let setups: Vec<Setup> = (1..)
        .zip(names)
        .map(|(device, name)| Setup { features: feature::CARRYING, ..Setup::new(device, name) })
        .collect();
    let mut lan = Lan::new(&setups);
    lan.hosts.pop();
    lan.run(SECOND * 5);
    lan
}

fn three_up() -> Lan {
    members(&["alice", "bob", "carol", "dave"])
}

fn id(lan: &Lan, i: usize) -> PeerId {
    lan.hosts[i].1.my_id()
}

fn way(lan: &Lan, i: usize) -> Via {
    Via::Direct { socket: SocketId(0), remote: lan.hosts[i].0 }
}

/// Host `a` has asked carol to carry to `b`, at this moment.
fn ask(lan: &mut Lan, a: usize, b: PeerId) {
    let (now, asker, via) = (lan.now, id(lan, a), way(lan, a));
    lan.node(CAROL).told_to_carry(now, &asker, via, &b, true);
}

fn number(lan: &Lan, a: usize, b: usize) -> Option<u32> {
    lan.hosts[CAROL].1.carrying.number(&id(lan, a), &id(lan, b))
}

/// A frame as host `a` makes it for carol.
fn frame(lan: &Lan, a: usize, channel: u32, payload: &[u8]) -> Vec<u8> {
    let carol = id(lan, CAROL);
    let keys = &lan.hosts[a].1.peers.get(&carol).expect("known").probe_keys;
    [&Header { channel, tag: keys.relay_tx.tag(channel, payload) }.encode()[..], payload].concat()
}

fn give(lan: &mut Lan, from: SocketAddr, mut frame: Vec<u8>) -> (Inbound, Vec<u8>) {
    let now = lan.now;
    let datagram = Datagram { socket: SocketId(0), local: None, from, payload: &mut frame };
    (lan.node(CAROL).handle_datagram(now, datagram), frame)
}

#[test]
fn a_frame_is_carried_between_two_who_both_asked_and_only_under_its_senders_key_from_its_address() {
    let mut lan = three_up();
    let (alice, bob) = (id(&lan, 0), id(&lan, 1));
    ask(&mut lan, 0, bob);
    let mine = number(&lan, 0, 1).expect("half open");
    let (early, from) = (frame(&lan, 0, mine, b"hello"), lan.hosts[0].0);
    let (half_open, _) = give(&mut lan, from, early);
    assert_eq!(half_open, Inbound::Dropped, "bob has not asked");
    ask(&mut lan, 1, alice);
    let theirs = number(&lan, 1, 0).expect("open");
    let good = frame(&lan, 0, mine, b"hello");
    let [from, to] = [lan.hosts[0].0, lan.hosts[1].0];
    let (verdict, sent) = give(&mut lan, from, good.clone());
    assert_eq!(verdict, Inbound::Forward { socket: SocketId(0), to });
    let (header, payload) = Header::parse(&sent).expect("a frame");
    let keys = &lan.hosts[1].1.peers.get(&id(&lan, CAROL)).expect("known").probe_keys;
    assert_eq!((header.channel, payload), (theirs, &b"hello"[..]));
    assert!(keys.relay_rx.check(header.channel, payload, header.tag));

    let mut forged = good.clone();
    forged[12] ^= 1;
    let elsewhere = "192.168.1.77:4000".parse().expect("address");
    for (from, frame) in [(from, forged), (elsewhere, good.clone()), (to, good.clone())] {
        assert_eq!(give(&mut lan, from, frame).0, Inbound::Dropped, "{from}");
    }
    let now = lan.now;
    let asker = way(&lan, 0);
    lan.node(CAROL).told_to_carry(now, &alice, asker, &bob, false);
    assert_eq!((number(&lan, 0, 1), number(&lan, 1, 0)), (None, None));
    assert_eq!(give(&mut lan, from, good).0, Inbound::Dropped);
}

#[test]
fn nothing_is_carried_to_where_nobody_was_proven_to_be_nor_through_a_second_relay() {
    let mut lan = three_up();
    let (alice, bob, now) = (id(&lan, 0), id(&lan, 1), lan.now);
    let via = way(&lan, 0);
    let offline = identity(1, 4).device.id();
    for other in [PeerId([9; 32]), offline, alice, id(&lan, CAROL)] {
        lan.node(CAROL).told_to_carry(now, &alice, via, &other, true);
    }
    for via in [Via::Relay { server: ServerId(0) }, Via::Member { carrier: bob }] {
        lan.node(CAROL).told_to_carry(now, &alice, via, &bob, true);
    }
    // Carol reaches bob by a relay alone.
    let peer = lan.node(CAROL).peers.get_mut(&bob).expect("known");
    peer.punch.stop(now);
    peer.punch.relay_up(now, ServerId(0));
    lan.node(CAROL).told_to_carry(now, &alice, via, &bob, true);
    assert!(lan.node(CAROL).carrying.is_idle() && lan.node(CAROL).table.carriage().change(|t| t.is_empty()));
}

#[test]
fn who_asks_without_end_is_not_listened_to_without_end_and_cannot_have_another_told_as_often() {
    let mut lan = three_up();
    let (bob, addr) = (id(&lan, 1), lan.hosts[1].0);
    let mark = lan.wire.len();
    for _ in 0..1_000 {
        ask(&mut lan, 0, bob);
    }
    lan.settle();
    let (now, to_bob) = (lan.now, lan.wire[mark..].iter().filter(|(_, to, _)| *to == addr).count());
    assert!(to_bob <= 3, "{to_bob} datagrams to bob");
    assert!(lan.node(CAROL).dropped("carry-rate") >= 900, "{now:?}");
}

/// Carol's table has devices in these places that nobody has met.
fn invent(lan: &mut Lan, places: std::ops::Range<u32>) {
    let keys = &lan.hosts[0].1.peers.get(&id(lan, CAROL)).expect("known").probe_keys;
    let (receive, send) = (keys.relay_rx.clone(), keys.relay_tx.clone());
    lan.node(CAROL).table.carriage().change(|channels| {
        for place in places {
            let from = SocketAddr::from(([198, 51, 100, 1], u16::try_from(place).expect("small")));
            let site = crate::addr::site(from.ip());
            channels.attach(place, from.into(), receive.clone(), send.clone(), NetworkId([0; 32]), site);
        }
    });
}

/// The one in this place of carol's table opens a channel to each of the others.
fn open_all(lan: &mut Lan, place: u32, others: std::ops::Range<u32>) {
    let open = |channels: &mut Table| others.map(|other| channels.open(place, other, 1_000 + other)).collect();
    let opened: Vec<_> = lan.node(CAROL).table.carriage().change(open);
    assert!(opened.iter().all(|opened| *opened == Ok(None)), "{opened:?}");
}

#[test]
fn a_member_may_have_32_channels_and_all_together_256() {
    let mut lan = members(&["alice", "bob", "carol", "dave", "erin"]);
    let (alice, bob, dave) = (id(&lan, 0), id(&lan, 1), id(&lan, 3));
    ask(&mut lan, 0, bob);
    // Alice has the first place, and bob the second.
    invent(&mut lan, 100..207);
    open_all(&mut lan, 0, 100..131);
    ask(&mut lan, 0, dave);
    assert_eq!((lan.node(CAROL).dropped("carry-full"), number(&lan, 0, 3)), (1, None));
    assert!(number(&lan, 0, 1).is_some(), "what stands is not lost");
    // Others have room still, until there is none in all.
    (200..206).for_each(|place| open_all(&mut lan, place, 100..132));
    open_all(&mut lan, 206, 100..131);
    ask(&mut lan, 1, alice);
    assert!(number(&lan, 1, 0).is_some(), "the last one");
    ask(&mut lan, 3, alice);
    assert_eq!((lan.node(CAROL).dropped("carry-full"), number(&lan, 3, 0)), (2, None));
}

#[test]
fn beyond_the_channels_there_may_be_it_is_refused_counted_and_said() {
    let mut lan = three_up();
    let bob = id(&lan, 1);
    let limits = Limits { channels: 0, ..RelayConfig::default().limits() };
    lan.node(CAROL).table.carriage().change(|channels| channels.set_limits(limits));
    ask(&mut lan, 0, bob);
    assert_eq!((lan.node(CAROL).dropped("carry-full"), lan.node(CAROL).carrying.is_idle()), (1, true));
    // All places are free again.
    assert!((0..40).all(|_| lan.node(CAROL).carrying.free_slot() == 0));
}

#[test]
fn a_channel_that_nobody_asks_for_any_more_ends() {
    let mut lan = three_up();
    let (alice, bob) = (id(&lan, 0), id(&lan, 1));
    ask(&mut lan, 0, bob);
    ask(&mut lan, 1, alice);
    // They are on one LAN and want none: what they say of it does not arrive.
    let end = lan.now + SECOND * 61;
    while lan.now < end {
        lan.now += SECOND;
        let now = lan.now;
        lan.node(CAROL).expire_carrying(now);
    }
    assert!(lan.node(CAROL).carrying.is_idle());
}

#[test]
fn what_a_member_says_of_carrying_unasked_opens_nothing_and_only_so_many_carry_for_one() {
    let names = ["alice", "c1", "c2", "c3", "c4", "c5", "c6", "dave"];
    let mut lan = members(&names);
    let (now, dave) = (lan.now, identity(1, 8).device.id());
    let carriers: Vec<PeerId> = (1..7).map(|i| id(&lan, i)).collect();
    let alice = lan.node(0);
    alice.leave_carriers(now, &dave);
    for carrier in &carriers {
        alice.told_carried(now, carrier, &dave, Carried::Open { number: 7 });
        alice.told_carried(now, carrier, &PeerId([9; 32]), Carried::Asked);
    }
    let peer = alice.peers.get(&dave).expect("known");
    assert!(peer.punch.choice().is_none() && peer.carriers.is_empty());
    for carrier in &carriers {
        alice.told_carried(now, carrier, &dave, Carried::Asked);
    }
    assert_eq!((alice.peers.get(&dave).expect("known").carriers.len(), alice.dropped("too-many-carriers")), (4, 2));
    // One who answers for many carries for none that did not ask it.
    alice.told_carried(now, &carriers[0], &dave, Carried::Open { number: 7 });
    let choice = alice.peers.get(&dave).and_then(|peer| peer.punch.choice()).map(|choice| choice.via);
    assert_eq!(choice, Some(Via::Member { carrier: carriers[0] }));
}

#[test]
fn what_is_said_of_carrying_travels_in_the_session() {
    let mut lan = three_up();
    let (now, bob, carol) = (lan.now, id(&lan, 1), id(&lan, CAROL));
    let (mark, [a, b, c]) = (lan.wire.len(), [0, 1, CAROL].map(|i| lan.hosts[i].0));
    assert!(lan.node(0).send_control(now, &carol, &Control::Carry { peer: bob, wanted: true }));
    lan.settle();
    let said: Vec<_> = lan.wire[mark..].iter().map(|(from, to, _)| (*from, *to)).collect();
    assert!([(a, c), (c, b), (b, c), (c, a)].iter().all(|way| said.contains(way)), "{said:?}");
    // Bob reaches alice, and says so.
    assert!(lan.node(CAROL).carrying.is_idle());
    assert!(lan.node(0).peers.get(&bob).expect("known").carriers.is_empty());
}
