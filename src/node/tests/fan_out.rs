//! Packets for many: who gets them, how many, and from which door.

use super::*;
use crate::forward::RealLan;
use crate::router::filter::Ports;
use crate::wire::groups::Groups;

const SECOND: Duration = Duration::from_secs(1);

/// Alice, bob and carol, who all say their groups.
fn friends() -> Lan {
    let setup = |(device, name)| Setup { features: feature::GROUPS, ..Setup::new(device, name) };
    let mut lan = Lan::new(&[(1, "alice"), (2, "bob"), (3, "carol")].map(setup));
    lan.run(SECOND * 5);
    lan
}

fn joins(groups: &[&str]) -> Joins {
    let join = |group: &&str| Join { group: group.parse().expect("a group"), interface: Interface::Other(2), users: 1 };
    Joins::new(groups.iter().map(join))
}

impl Lan {
    fn join(&mut self, i: usize, groups: &[&str]) {
        let now = self.now;
        self.node(i).set_groups(now, joins(groups));
        self.settle();
    }

    /// Has alice send there; who got it.
    fn heard(&mut self, to: &str) -> Vec<usize> {
        let from = if to.contains(':') { self.hosts[0].1.me().ula.to_string() } else { self.v4(0) };
        let packet = udp(&from, to);
        assert_eq!(self.send(0, &packet), Outbound::Taken);
        let got = |i: &usize| self.hosts[*i].2.iter().filter(|got| **got == packet).count();
        let heard: Vec<usize> = (1..self.hosts.len()).filter(|i| got(i) > 0).collect();
        assert!(heard.iter().all(|i| got(i) == 1), "once each");
        self.hosts.iter_mut().for_each(|host| host.2.clear());
        heard
    }

    /// In-session messages that went from `i`.
    fn controls(&self, i: usize, since: usize) -> usize {
        let from = self.hosts[i].0;
        self.wire[since..].iter().filter(|(f, _, bytes)| *f == from && bytes[0] == kind::CONTROL).count()
    }

    fn storm(&mut self, i: usize, packets: u64, duration: Duration) {
        let (pause, packet) = (duration / u32::try_from(packets).expect("few"), udp(&self.v4(i), "255.255.255.255"));
        for _ in 0..packets {
            let now = self.now + pause;
            self.hosts.iter_mut().for_each(|host| {
                while host.1.poll_timeout().is_some_and(|due| due.at <= now) {
                    host.1.handle_timeout(now);
                }
            });
            self.now = now;
            self.send(i, &packet);
        }
    }
}

#[test]
fn multicast_goes_to_those_who_have_joined_and_broadcast_to_all() {
    let mut lan = friends();
    lan.join(1, &["239.1.2.3", "ff15::1"]);
    lan.join(2, &["239.1.2.4"]);
    lan.run(SECOND * 2);
    for (to, expected) in [
        ("239.1.2.3", &[1][..]),
        ("ff15::1", &[1]),
        ("239.1.2.4", &[2]),
        ("239.1.2.5", &[]),
        ("224.0.0.1", &[1, 2]),
        ("ff02::1", &[1, 2]),
        ("255.255.255.255", &[1, 2]),
        ("10.77.0.255", &[1, 2]),
    ] {
        assert_eq!(lan.heard(to), expected, "{to}");
    }
    let unwanted: u64 = [1, 2].map(|i| lan.node(i).dropped("not-joined")).iter().sum();
    assert_eq!(unwanted, 0, "it was not even sent");
    lan.run(SECOND * 10);
    lan.join(1, &["239.1.2.5"]);
    assert_eq!((lan.heard("239.1.2.5"), lan.heard("239.1.2.3")), (vec![1], vec![]));
}

#[test]
fn who_does_not_say_its_groups_gets_everything_and_is_not_told_ours() {
    let [alice, carol] = [(1, "alice"), (3, "carol")]
        .map(|(device, name)| Setup { features: feature::GROUPS, ..Setup::new(device, name) });
    let mut lan = Lan::new(&[alice, Setup::new(2, "bob"), carol]);
    lan.run(SECOND * 5);
    // Bob's system knows what is joined, but an old punchlan says nothing of it.
    lan.join(1, &["239.1.2.4"]);
    lan.join(2, &[]);
    assert_eq!(lan.heard("239.1.2.4"), [1]);
    assert_eq!(
        (lan.heard("239.1.2.3"), lan.node(1).dropped("not-joined")),
        (vec![], 1),
        "it was sent, and nobody listens"
    );
    assert_eq!(lan.node(1).dropped("malformed"), 0);
}

#[test]
fn groups_that_change_all_the_time_are_told_once_a_second_and_the_last_is_what_counts() {
    let mut lan = friends();
    lan.run(SECOND * 10);
    let before = lan.wire.len();
    for n in 0..100 {
        let group = format!("239.1.2.{n}");
        lan.join(1, &[&group]);
        lan.run(SECOND / 50);
    }
    lan.run(SECOND * 10);
    let told = lan.controls(1, before);
    // Two seconds, and twice more, for two peers each.
    assert!((6..=12).contains(&told), "{told}");
    assert_eq!((lan.heard("239.1.2.99"), lan.heard("239.1.2.98")), (vec![1, 2], vec![2]));
}

#[test]
fn a_word_that_is_lost_is_said_again() {
    let mut lan = friends();
    lan.join(1, &["239.1.2.3"]);
    lan.run(SECOND * 10);
    lan.is_cut = true;
    lan.join(1, &["239.1.2.4"]);
    lan.is_cut = false;
    assert_eq!(lan.heard("239.1.2.4"), [2]);
    lan.run(SECOND);
    assert_eq!(lan.heard("239.1.2.4"), [1, 2]);
}

#[test]
fn what_is_switched_off_is_neither_sent_nor_delivered_and_at_once() {
    for (lan_config, off, on) in [
        (LanConfig { broadcast: false, multicast: true }, "255.255.255.255", "239.1.2.3"),
        (LanConfig { broadcast: true, multicast: false }, "239.1.2.3", "255.255.255.255"),
    ] {
        let mut lan = friends();
        lan.reconfigure(1, Changeable { name: "bob".into(), lan: lan_config, ..changeable() });
        lan.run(SECOND);
        assert_eq!((lan.heard(off), lan.heard(on)), (vec![2], vec![1, 2]), "bob takes none");
        lan.reconfigure(0, Changeable { lan: lan_config, ..changeable() });
        let packet = udp(&lan.v4(0), off);
        assert_eq!((lan.send(0, &packet), lan.node(0).dropped("lan-off")), (Outbound::Dropped, 1), "alice sends none");
        assert_eq!(lan.heard(on), [1, 2]);
        lan.reconfigure(0, changeable());
        assert_eq!(lan.heard(off), [2]);
    }
}

#[test]
fn a_storm_is_cut_on_both_sides_and_named_while_it_lasts() {
    let mut lan = friends();
    lan.storm(0, 6_000, SECOND * 3);
    let text = lan.warning(0, "storm");
    assert!(text.contains("a program on this machine sends 2000 ") && text.contains("500 go"), "{text}");
    assert!(lan.warnings(1).is_empty(), "the others hear nothing of it");
    lan.run(SECOND * 10);
    assert!(lan.warnings(0).is_empty());
    // One who does not hold back: its own limit is reset all the time.
    let bob = lan.hosts[1].1.my_id();
    let packet = udp(&lan.v4(1), "255.255.255.255");
    for n in 0..3_000 {
        let sharing = lan.node(1).table.sharing().clone();
        let free = crate::forward::Sharing { gate: Arc::default(), ..sharing };
        Arc::make_mut(&mut lan.node(1).table).set_sharing(free);
        lan.send(1, &packet);
        if n % 10 == 0 {
            lan.run(SECOND / 100);
        }
    }
    let text = lan.warning(0, "storm");
    assert!(text.starts_with("bob sends 10") && text.contains("500 of one member"), "{text}");
    assert!(text.contains(&bob.to_string()) && lan.node(0).dropped("fan-in-rate") > 500);
    let heard = lan.hosts[0].2.len();
    assert!((1_900..=2_100).contains(&heard), "{heard}");
    lan.run(SECOND * 10);
    assert!(lan.warnings(0).is_empty());
}

#[test]
fn one_members_storm_does_not_cut_anothers_packets_nor_what_is_for_one() {
    let mut lan = friends();
    let gate = lan.hosts[0].1.peers[&lan.hosts[1].1.my_id()].gate.clone();
    let now = lan.now;
    let packet = udp(&lan.v4(2), &lan.v4(0));
    let (bob, carol) = (udp(&lan.v4(1), "255.255.255.255"), udp(&lan.v4(2), "255.255.255.255"));
    for _ in 0..600 {
        lan.send(1, &bob);
    }
    let unicast = udp(&lan.v4(1), &lan.v4(0));
    lan.hosts[0].2.clear();
    lan.send(2, &carol);
    lan.send(2, &packet);
    lan.send(1, &unicast);
    assert_eq!(lan.hosts[0].2, [carol, packet, unicast]);
    assert_eq!(gate.storm(now), None, "a second is not over");
}

#[test]
fn a_member_that_says_its_groups_without_end_is_not_listened_to_without_end() {
    let mut lan = friends();
    let (now, alice) = (lan.now, lan.hosts[0].1.my_id());
    let long = Groups::these((0..255).map(|n| std::net::IpAddr::from([239, 1, 2, n]))).encode();
    for n in 0..1_000 {
        let said = if n % 2 == 0 { &long[..] } else { &[0, 9, 9, 1, 2] };
        lan.node(1).send_control(now, &alice, &Control::Groups(said));
    }
    lan.settle();
    let [rate, malformed] = ["control-rate", "malformed"].map(|word| lan.node(0).dropped(word));
    assert!(rate >= 590 && (190..=210).contains(&malformed), "{rate}, {malformed}");
    let bob = lan.hosts[1].1.my_id();
    assert_eq!(lan.node(0).peers[&bob].groups.wants.encode(), long, "no more than one message is kept of it");
}

/// A program on alice's machine sends on her real LAN.
fn overhear(lan: &mut Lan, packet: &[u8]) {
    let hosts = ["192.0.2.10", "fe80::10"].map(|text| text.parse().expect("an address"));
    let real = RealLan { interface: 2, broadcasts: &["192.0.2.255".parse().expect("an address")], hosts: &hosts };
    let (now, mut packet) = (lan.now, packet.to_vec());
    lan.node(0).handle_overheard(now, &real, &mut packet);
    lan.settle();
}

#[test]
fn what_a_program_says_on_a_real_lan_is_heard_by_the_peers_as_ours() {
    let mut lan = friends();
    lan.join(1, &["239.1.2.3"]);
    let (alice, link_local) = (lan.v4(0), lan.hosts[0].1.me().link_local.to_string());
    for (said, heard, by_carol) in [
        (udp("192.0.2.10", "192.0.2.255"), udp(&alice, "10.77.0.255"), 1),
        (udp("192.0.2.10", "255.255.255.255"), udp(&alice, "255.255.255.255"), 1),
        (udp("192.0.2.10", "239.1.2.3"), udp(&alice, "239.1.2.3"), 1),
        (udp("fe80::10", "ff02::1"), udp(&link_local, "ff02::1"), 1),
    ] {
        overhear(&mut lan, &said);
        assert_eq!(lan.hosts[1].2, [heard]);
        assert_eq!(lan.hosts[2].2.len(), by_carol, "carol has not said that her system knows");
        lan.hosts.iter_mut().for_each(|host| host.2.clear());
        lan.run(SECOND);
    }
    // Not what is for one machine there, nor what somebody else said.
    overhear(&mut lan, &udp("192.0.2.10", "192.0.2.20"));
    overhear(&mut lan, &udp("192.0.2.20", "192.0.2.255"));
    assert!(lan.hosts[1].2.is_empty());
}

#[test]
fn answers_to_what_was_overheard_are_let_in_where_members_may_speak_to_nothing_first() {
    let mut lan = friends();
    lan.node(0).set_allow(Some(Ports::default()));
    let mut answer = udp(&lan.v4(1), &lan.v4(0));
    answer[22..24].copy_from_slice(&1_000_u16.to_be_bytes());
    lan.send(1, &answer);
    assert_eq!((lan.hosts[0].2.len(), lan.node(0).dropped("not-allowed")), (0, 1));
    overhear(&mut lan, &udp("192.0.2.10", "192.0.2.255"));
    lan.send(1, &answer);
    assert_eq!(lan.hosts[0].2, [answer]);
}

#[test]
fn what_a_program_says_on_every_interface_is_heard_once_and_an_echo_comes_to_its_end() {
    let mut lan = friends();
    let alice = lan.v4(0);
    lan.send(0, &udp(&alice, "10.77.0.255"));
    overhear(&mut lan, &udp("192.0.2.10", "192.0.2.255"));
    assert_eq!((lan.hosts[1].2.len(), lan.node(0).dropped("repeated")), (1, 1));
    // Bob's words come back by a reflector on alice's machine, again and again.
    let bob = udp(&lan.v4(1), "10.77.0.255");
    lan.run(SECOND);
    for _ in 0..10 {
        lan.send(1, &bob);
        overhear(&mut lan, &udp("192.0.2.10", "192.0.2.255"));
    }
    assert_eq!((lan.hosts[1].2.len(), lan.node(0).dropped("echo")), (3, 8));
}

#[test]
fn what_is_too_long_for_the_overlay_goes_in_pieces_where_that_can_be() {
    let mut lan = friends();
    let long = |source: &str, to: &str| {
        let builder = match (source.parse().expect("source"), to.parse().expect("destination")) {
            (std::net::IpAddr::V4(s), std::net::IpAddr::V4(d)) => {
                etherparse::PacketBuilder::ipv4(s.octets(), d.octets(), 1)
            }
            (std::net::IpAddr::V6(s), std::net::IpAddr::V6(d)) => {
                etherparse::PacketBuilder::ipv6(s.octets(), d.octets(), 1)
            }
            _ => panic!("one family"),
        };
        let mut packet = Vec::new();
        builder.udp(1, 2).write(&mut packet, &[7; 1_440]).expect("a vector takes all");
        packet
    };
    overhear(&mut lan, &long("192.0.2.10", "192.0.2.255"));
    let lengths: Vec<usize> = lan.hosts[1].2.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1_396, 92]);
    overhear(&mut lan, &long("fe80::10", "ff02::1"));
    assert_eq!((lan.hosts[1].2.len(), lan.node(0).dropped("too-big")), (2, 1));
}

#[test]
fn what_leaves_for_many_has_the_class_of_its_packet() {
    let mut lan = friends();
    let mut packet = udp(&lan.v4(0), "255.255.255.255");
    packet[1] = 0xb8;
    let now = lan.now;
    let mut buf = [&[0; HEADROOM][..], &packet, &[0; TAILROOM]].concat();
    assert_eq!(lan.node(0).handle_packet(now, &mut buf), Outbound::Taken);
    let classes: Vec<u8> = std::iter::from_fn(|| lan.node(0).poll_transmit()).map(|sent| sent.tos).collect();
    assert_eq!(classes, [0xb8; 2]);
}
