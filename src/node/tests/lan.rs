//! What is said on the LAN, and what is made of it.

use super::*;
use crate::wire::beacon::{Beacon, MAX};

/// A node of its own, with a number and an interface.
fn alone(lan_discovery: bool) -> Node {
    let mut node = Setup::new(1, "alice").node(&[]);
    node.beacons = Beacons::new(lan_discovery, &mut Seed::from_u64(1).rng());
    node
}

/// Lets `duration` pass; when beacons were said, and whether they asked for answers.
fn beacons_said(node: &mut Node, from: Instant, duration: Duration) -> Vec<(Duration, bool)> {
    let (mut now, mut said) = (from, Vec::new());
    loop {
        while node.poll_transmit().is_some() {}
        while let Some(action) = node.poll_action() {
            match action {
                Action::Reserve { ceiling } => node.handle_done(now, Done::Reserved { ceiling }),
                Action::ListInterfaces => {
                    node.handle_done(now, Done::Interfaces(vec!["192.168.1.1/24".parse().expect("prefix")]));
                }
                Action::SayOnLan(bytes) => {
                    assert!(bytes.len() <= MAX);
                    said.push((now - from, Beacon::decode(&bytes).expect("a beacon").asks));
                }
                _ => {}
            }
        }
        match node.poll_timeout().filter(|wakeup| wakeup.at <= from + duration) {
            Some(wakeup) => now = now.max(wakeup.at),
            None => return said,
        }
        node.handle_timeout(now);
    }
}

fn beacons(node: &mut Node, from: Instant, duration: Duration) -> Vec<Duration> {
    beacons_said(node, from, duration).into_iter().map(|(at, _)| at).collect()
}

/// What a device of this network says for the `seq`-th time.
fn beacon_of(network_key: u8, device: u8, seq: u64, asks: bool) -> Vec<u8> {
    let network = identity(network_key, device).network;
    let signed = claim_in(network_key, device, seq, "bob", V4Claim::None);
    let signed = announcement::verify_member(&signed, &network).expect("signed");
    let sealed = announcement::seal(&network, &signed, &mut Seed::from_u64(device.into()).rng());
    Beacon { asks, sealed: &sealed }.encode()
}

/// It comes from a machine of its own.
fn hear(node: &mut Node, now: Instant, device: u8, beacon: &[u8]) {
    node.handle_beacon(now, Ipv4Addr::new(192, 168, 1, device).into(), beacon);
}

#[test]
fn it_is_said_at_the_start_twice_more_and_then_every_half_minute_and_at_first_it_asks() {
    let mut node = alone(true);
    let said = beacons_said(&mut node, T0, Duration::from_secs(100));
    let pauses: Vec<u64> = said.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs()).collect();
    assert_eq!(said[0].0.as_secs(), 0);
    assert!(matches!(pauses[..], [1, 3, 30..=33, 30..=33, ..]), "{said:?}");
    assert!(said.iter().map(|(_, asks)| *asks).take(4).eq([true, true, false, false]), "{said:?}");
    assert!(beacons(&mut alone(false), T0, Duration::from_secs(100)).is_empty());
}

#[test]
fn who_asks_and_who_was_not_known_is_answered_soon_and_never_twice_in_a_second() {
    let mut node = alone(true);
    let quiet = T0 + Duration::from_secs(10);
    beacons(&mut node, T0, Duration::from_secs(10));
    for n in 0..10 {
        hear(&mut node, quiet + Duration::from_millis(n), 2, &beacon_of(1, 2, 10 + n, true));
    }
    let said = beacons(&mut node, quiet, Duration::from_millis(400));
    assert!(said.len() == 1, "{said:?}");
    hear(&mut node, quiet + Duration::from_millis(400), 3, &beacon_of(1, 3, 1, false));
    let said = beacons(&mut node, quiet + Duration::from_millis(400), Duration::from_secs(2));
    assert!(said.len() == 1 && said[0] > Duration::from_millis(600), "{said:?}");
}

/// Two who hear each other and never reach each other.
#[test]
fn answers_are_not_answered() {
    let mut node = alone(true);
    beacons(&mut node, T0, Duration::from_secs(10));
    let mut said = 0;
    for n in 0..20 {
        let now = T0 + Duration::from_secs(10 + n);
        hear(&mut node, now, 2, &beacon_of(1, 2, 10 + n, false));
        said += beacons(&mut node, now, Duration::from_secs(1)).len();
    }
    assert_eq!(said, 1);
}

/// A stranger on the LAN can repeat what was said days ago.
#[test]
fn a_beacon_that_somebody_repeats_makes_nobody_be_here_and_counts_once() {
    let mut node = alone(true);
    beacons(&mut node, T0, Duration::from_secs(1));
    let now = T0 + Duration::from_secs(1);
    hear(&mut node, now, 2, &beacon_of(1, 2, 10, true));
    let bob = identity(1, 2).device.id();
    assert!(!node.is_here(&bob));
    assert_eq!(node.status(now).peers[0].state, status::PeerState::Connecting);
    beacons(&mut node, now, Duration::from_secs(35));
    let warning = |node: &Node| node.status(now).warnings.into_iter().find(|warning| warning.code == "lan-unreachable");
    assert!(warning(&node).expect("the user is told").text.contains("client isolation"));
    for repeated in [10, 9] {
        hear(&mut node, now + Duration::from_secs(36), 2, &beacon_of(1, 2, repeated, true));
    }
    assert_eq!(node.dropped("replayed"), 2);
    beacons(&mut node, now + Duration::from_secs(36), Duration::from_secs(60));
    assert_eq!(node.status(now).peers, [], "who was never met is forgotten");
    assert_eq!(warning(&node), None);
}

#[test]
fn of_devices_that_a_member_invents_on_the_lan_few_are_searched() {
    let mut node = alone(true);
    beacons(&mut node, T0, Duration::from_secs(1));
    for device in 2..100 {
        hear(&mut node, T0 + Duration::from_secs(1), device, &beacon_of(1, device, 1, false));
    }
    assert_eq!(node.peers.len(), 32);
    assert_eq!(node.dropped("hearsay"), 66);
}

#[test]
fn other_networks_beacons_rubbish_and_our_own_are_nothing_and_a_flood_is_cut() {
    let mut node = alone(true);
    beacons(&mut node, T0, Duration::from_secs(1));
    let now = T0 + Duration::from_secs(1);
    let longer = [beacon_of(1, 2, 1, true), vec![0]].concat();
    for nothing in [&[][..], &[kind::BEACON, 0], &[kind::DATA; 514], &beacon_of(2, 2, 1, true), &longer] {
        hear(&mut node, now, 9, nothing);
    }
    assert_eq!((node.dropped("beacon"), node.peers.len()), (5, 0));
    hear(&mut node, now, 9, &beacon_of(1, 1, 1, true));
    assert_eq!((node.dropped("beacon"), node.peers.len()), (5, 0));
    for seq in 1..=100 {
        hear(&mut node, now, 9, &beacon_of(2, 3, seq, true));
    }
    assert_eq!((node.dropped("beacon"), node.dropped("beacon-rate")), (5 + 14, 86), "20 from one address");
    hear(&mut node, now, 2, &beacon_of(1, 2, 1, true));
    assert_eq!(node.peers.len(), 1, "another is heard");
}

#[test]
fn it_is_switched_on_and_off_while_it_runs() {
    let mut node = alone(false);
    beacons(&mut node, T0, Duration::from_secs(10));
    let now = T0 + Duration::from_secs(10);
    hear(&mut node, now, 2, &beacon_of(1, 2, 1, true));
    assert_eq!(node.peers.len(), 0);
    node.handle_command(now, Command::Reconfigure(Changeable { lan_discovery: true, ..changeable() }));
    assert_eq!(beacons(&mut node, now, Duration::from_secs(3)).len(), 2);
    let now = now + Duration::from_secs(3);
    node.handle_command(now, Command::Reconfigure(Changeable { lan_discovery: false, ..changeable() }));
    assert!(std::iter::from_fn(|| node.poll_action()).any(|action| action == Action::LeaveLan));
    assert!(beacons(&mut node, now, Duration::from_secs(60)).is_empty());
}
