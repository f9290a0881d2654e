//! What is said on the LAN, and what is made of it.

use super::*;
use crate::wire::beacon;

/// A node of its own, with a number and an interface.
fn alone(lan_discovery: bool) -> Node {
    let mut node = Setup::new(1, "alice").node(&[]);
    node.beacons = Beacons::new(lan_discovery);
    node
}

/// Lets `duration` pass; when beacons were said.
fn beacons(node: &mut Node, from: Instant, duration: Duration) -> Vec<Duration> {
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
                    assert!(beacon::decode(&bytes).is_ok() && bytes.len() <= beacon::MAX);
                    said.push(now - from);
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

/// What a device of this network says.
fn beacon_of(network_key: u8, device: u8) -> Vec<u8> {
    let setup = Setup { network_key, ..Setup::new(device, "bob") };
    let network = identity(network_key, device).network;
    let signed = announcement::verify_member(&setup.signed(), &network).expect("signed");
    beacon::encode(&announcement::seal(&network, &signed, &mut Seed::from_u64(device.into()).rng()))
}

#[test]
fn it_is_said_at_the_start_twice_more_and_then_every_half_minute() {
    let mut node = alone(true);
    let said = beacons(&mut node, T0, Duration::from_secs(100));
    let pauses: Vec<u64> = said.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(said[0].as_secs(), 0);
    assert!(matches!(pauses[..], [1, 3, 30..=33, 30..=33, ..]), "{said:?}");
    assert!(beacons(&mut alone(false), T0, Duration::from_secs(100)).is_empty());
}

#[test]
fn who_hears_a_stranger_answers_soon_and_never_twice_in_a_second() {
    let mut node = alone(true);
    let quiet = T0 + Duration::from_secs(10);
    beacons(&mut node, T0, Duration::from_secs(10));
    for n in 0..10 {
        node.handle_beacon(quiet + Duration::from_millis(n), &beacon_of(1, 2));
    }
    let said = beacons(&mut node, quiet, Duration::from_millis(400));
    assert!(said.len() == 1 && said[0] < Duration::from_millis(400), "{said:?}");
    for n in 0..10 {
        node.handle_beacon(quiet + Duration::from_millis(400 + n), &beacon_of(1, 3));
    }
    let said = beacons(&mut node, quiet + Duration::from_millis(400), Duration::from_secs(2));
    assert!(said.len() == 1 && said[0] > Duration::from_millis(600), "{said:?}");
}

/// A stranger on the LAN can repeat what was said days ago.
#[test]
fn a_beacon_that_somebody_repeats_makes_nobody_be_here() {
    let mut node = alone(true);
    beacons(&mut node, T0, Duration::from_secs(1));
    let now = T0 + Duration::from_secs(1);
    node.handle_beacon(now, &beacon_of(1, 2));
    let bob = identity(1, 2).device.id();
    assert!(!node.is_here(&bob));
    assert_eq!(node.status(now).peers[0].state, status::PeerState::Connecting);
    beacons(&mut node, now, Duration::from_secs(35));
    let warning = |node: &Node| node.status(now).warnings.into_iter().find(|warning| warning.code == "lan-unreachable");
    assert!(warning(&node).expect("the user is told").text.contains("client isolation"));
    beacons(&mut node, now + Duration::from_secs(35), Duration::from_secs(60));
    assert_eq!(node.status(now).peers[0].state, status::PeerState::Offline);
    assert_eq!(warning(&node), None);
}

#[test]
fn of_devices_that_a_member_invents_on_the_lan_few_are_searched() {
    let mut node = alone(true);
    beacons(&mut node, T0, Duration::from_secs(1));
    for device in 2..100 {
        node.handle_beacon(T0 + Duration::from_secs(1), &beacon_of(1, device));
    }
    assert_eq!(node.peers.len(), 32);
    assert_eq!(node.dropped("hearsay"), 66);
}

#[test]
fn other_networks_beacons_rubbish_and_our_own_are_nothing_and_a_flood_is_cut() {
    let mut node = alone(true);
    beacons(&mut node, T0, Duration::from_secs(1));
    let now = T0 + Duration::from_secs(1);
    for nothing in
        [&[][..], &[kind::BEACON], &[kind::DATA; 513], &beacon_of(2, 2), &[beacon_of(1, 2), vec![0]].concat()]
    {
        node.handle_beacon(now, nothing);
    }
    assert_eq!((node.dropped("beacon"), node.peers.len()), (5, 0));
    node.handle_beacon(now, &beacon_of(1, 1));
    assert_eq!((node.dropped("beacon"), node.peers.len()), (5, 0));
    for _ in 0..300 {
        node.handle_beacon(now, &beacon_of(1, 2));
    }
    assert_eq!((node.dropped("beacon-rate"), node.peers.len()), (106, 1));
}

#[test]
fn it_is_switched_on_and_off_while_it_runs() {
    let mut node = alone(false);
    beacons(&mut node, T0, Duration::from_secs(10));
    let now = T0 + Duration::from_secs(10);
    node.handle_beacon(now, &beacon_of(1, 2));
    assert_eq!(node.peers.len(), 0);
    node.handle_command(now, Command::Reconfigure(Changeable { lan_discovery: true, ..changeable() }));
    assert_eq!(beacons(&mut node, now, Duration::from_secs(3)).len(), 2);
    let now = now + Duration::from_secs(3);
    node.handle_command(now, Command::Reconfigure(Changeable { lan_discovery: false, ..changeable() }));
    assert!(beacons(&mut node, now, Duration::from_secs(60)).is_empty());
}
