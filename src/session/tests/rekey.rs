//! Keys that grow old: replaced in time under any stream, refused when it is too late.

use std::collections::BTreeSet;

use super::super::*;
use super::pair::*;
use crate::wire::{Class, classify};

/// Streams numbered packets both ways for `time`, one each way every `gap`; all that were sealed.
fn stream(pair: &mut Pair, time: Duration, gap: Duration) -> [Vec<Vec<u8>>; 2] {
    let mut sealed = [Vec::new(), Vec::new()];
    let end = pair.now + time;
    let mut n = 0_u64;
    while pair.now < end {
        for from in [LOW, HIGH] {
            let body = [&[1][..], &n.to_be_bytes()].concat();
            pair.send_data(from, &body).expect("seals at any time");
            sealed[from].push(body);
        }
        n += 1;
        pair.run(gap);
    }
    pair.run(s(1));
    sealed
}

#[test]
fn keys_change_at_120_seconds_under_a_stream_without_a_lost_packet() {
    let mut pair = Pair::established();
    let sealed = stream(&mut pair, s(400), ms(20));
    assert_eq!((&pair.ends[HIGH].opened, &pair.ends[LOW].opened), (&sealed[LOW], &sealed[HIGH]));
    assert_eq!(pair.ends[LOW].failures, []);
    assert_eq!(pair.ends[HIGH].failures, []);
    let initiations: Vec<u64> = pair
        .sent
        .iter()
        .filter(|(_, _, b)| classify(b) == Class::Initiation)
        .map(|(at, by, _)| {
            assert_eq!(*by, LOW, "the initiator changes them");
            at.since(START).as_secs()
        })
        .collect();
    assert_eq!(initiations, [0, 120, 240, 360]);
}

#[test]
fn keys_change_without_a_lost_packet_when_packets_overtake_each_other() {
    for seed in 1..4_u64 {
        let mut pair = Pair::established();
        let mut rng = crate::sans::Seed::from_u64(seed).rng();
        pair.link = Box::new(move |_, _, _| match rng.u64() % 300 {
            delay if delay % 10 == 0 => vec![ms(delay), ms(delay + 40)],
            delay => vec![ms(delay)],
        });
        let sealed = stream(&mut pair, s(250), ms(10));
        for (from, to) in [(LOW, HIGH), (HIGH, LOW)] {
            let opened: BTreeSet<_> = pair.ends[to].opened.iter().collect();
            assert_eq!(opened.len(), pair.ends[to].opened.len(), "none twice");
            assert_eq!(opened, sealed[from].iter().collect());
            assert!(pair.ends[to].failures.iter().all(|error| *error == OpenError::Replayed), "doubles alone fail");
        }
        assert!(pair.count(LOW, Class::Initiation) >= 3);
    }
}

#[test]
fn keys_change_without_a_lost_packet_when_handshakes_get_lost() {
    for seed in 1..4_u64 {
        let mut pair = Pair::established();
        let mut rng = crate::sans::Seed::from_u64(seed).rng();
        pair.link = Box::new(move |_, _, b| match classify(b) {
            Class::Data => vec![ms(50)],
            _ if rng.u64().is_multiple_of(2) => vec![],
            _ => vec![ms(50), ms(70)],
        });
        let sealed = stream(&mut pair, s(700), ms(50));
        assert_eq!((&pair.ends[HIGH].opened, &pair.ends[LOW].opened), (&sealed[LOW], &sealed[HIGH]));
        assert!(pair.ends.iter().all(|end| !end.events.contains(&Event::Expired)));
    }
}

#[test]
fn keys_change_without_a_lost_packet_when_both_sides_begin() {
    let mut pair = Pair::established();
    pair.run(s(5));
    for end in &pair.ends {
        end.session.sealing_key(Channel::Data).expect("established").skip_to(REKEY_PACKETS);
    }
    let sealed = stream(&mut pair, s(5), ms(1));
    assert_eq!((&pair.ends[HIGH].opened, &pair.ends[LOW].opened), (&sealed[LOW], &sealed[HIGH]));
    assert_eq!(pair.count(HIGH, Class::Initiation), 1, "it began, too");
    assert_eq!(pair.count(LOW, Class::Response), 0, "the lower id's survived");
}

#[test]
fn the_responder_changes_keys_at_150_seconds_if_the_initiator_does_not() {
    let mut pair = Pair::established();
    pair.link =
        Box::new(|_, from, b| if from == LOW && classify(b) == Class::Initiation { vec![] } else { vec![ms(50)] });
    let sealed = stream(&mut pair, s(170), ms(50));
    assert_eq!((&pair.ends[HIGH].opened, &pair.ends[LOW].opened), (&sealed[LOW], &sealed[HIGH]));
    assert_eq!(pair.count(HIGH, Class::Initiation), 1);
    assert_eq!(pair.count(LOW, Class::Response), 1);
    assert!(pair.ends[LOW].session.handshake_age(pair.now) < Some(s(30)));
}

#[test]
fn an_idle_session_changes_its_keys_too() {
    let mut pair = Pair::established();
    pair.run(s(1000));
    assert!(pair.both_established());
    assert!(!pair.ends.iter().any(|end| end.events.contains(&Event::Expired)));
    assert!(pair.sent.len() < 60, "{}", pair.sent.len());
    assert!(pair.steps < 120, "{} wake-ups", pair.steps);
}

#[test]
fn keys_change_after_two_to_the_thirty_packets() {
    for channel in [Channel::Data, Channel::Control] {
        let mut pair = Pair::established();
        pair.ends[LOW].session.sealing_key(channel).expect("established").skip_to(REKEY_PACKETS - 1);
        pair.run(s(1));
        assert_eq!(pair.count(LOW, Class::Initiation), 1);
        let mut datagram = vec![0; 40];
        pair.ends[LOW].session.seal(pair.now, channel, &mut datagram).expect("seals");
        pair.run(s(1));
        assert_eq!(pair.count(LOW, Class::Initiation), 2);
        assert!(pair.ends[LOW].session.handshake_age(pair.now) <= Some(s(1)));
        assert_exchange(&mut pair);
    }
}

#[test]
fn exhausted_keys_seal_nothing_and_are_replaced() {
    let mut pair = Pair::established();
    pair.link = Box::new(|_, _, _| vec![]);
    pair.ends[LOW].session.sealing_key(Channel::Data).expect("established").skip_to(u64::from(u32::MAX));
    assert_eq!(pair.send_data(LOW, b"\x01"), Err(SealError::Exhausted));
    pair.run(s(30));
    assert_eq!(pair.send_data(LOW, b"\x01"), Err(SealError::Exhausted));
    pair.link = Box::new(|_, _, _| vec![ms(50)]);
    pair.run(s(6));
    assert_exchange(&mut pair);
}

#[test]
fn keys_refuse_after_a_suspend_and_a_new_session_comes_at_once() {
    let mut pair = Pair::established();
    let sealed = pair.ends[HIGH].seal(pair.now, b"\x01early").expect("seals");
    pair.now += s(180);
    assert!(!pair.ends[LOW].session.is_established(pair.now));
    assert_eq!(pair.send_data(LOW, b"\x01"), Err(SealError::Expired));
    pair.inject(LOW, &sealed);
    assert_eq!(pair.ends[LOW].failures, [OpenError::Expired]);
    assert_eq!(pair.ends[LOW].session.handshake_age(pair.now), None);
    pair.run(ms(250));
    assert!(pair.ends[LOW].events.contains(&Event::Expired));
    assert_exchange(&mut pair);
}

#[test]
fn handshakes_that_cross_in_a_suspend_leave_no_keys_that_one_side_forgets_first() {
    for sleep in [1, 14, 16, 31, 60, 163, 179, 181] {
        let mut pair = Pair::new();
        pair.connect(LOW);
        pair.connect(HIGH);
        pair.run(ms(10));
        assert_eq!((pair.count(LOW, Class::Initiation), pair.count(HIGH, Class::Initiation)), (1, 1));
        // Both sleep with the other's initiation before them, and both answer it when they wake.
        pair.now += s(sleep);
        pair.run(s(3));
        let sealed = stream(&mut pair, s(200), ms(250));
        assert_eq!((&pair.ends[HIGH].opened, &pair.ends[LOW].opened), (&sealed[LOW], &sealed[HIGH]), "{sleep} s");
        assert!(pair.ends.iter().all(|end| end.failures.is_empty() && !end.events.contains(&Event::Expired)));
    }
}

#[test]
fn a_suspend_of_one_side_heals() {
    // The sleeper's clock jumps with the other's; its link is silent meanwhile.
    let mut pair = Pair::established();
    pair.link = Box::new(|_, _, _| vec![]);
    pair.run(s(3600));
    assert!(!pair.both_established());
    pair.link = Box::new(|_, _, _| vec![ms(50)]);
    pair.run(s(6));
    assert_exchange(&mut pair);
}

#[test]
fn the_responder_seals_nothing_under_keys_that_were_not_proven() {
    let mut pair = Pair::established();
    // From 100 s on, what the initiator seals is lost: the responder gets initiations, but no proof.
    pair.link = Box::new(|at, from, b| match classify(b) {
        Class::Data | Class::Control if from == LOW && at > START + s(100) => vec![],
        _ => vec![ms(50)],
    });
    pair.run(s(122));
    let response = pair.all(HIGH, Class::Response).pop().expect("answered again");
    let new_keys = crate::wire::session::Handshake::decode(&response).expect("ours").receiver;
    pair.send_data(HIGH, b"\x01packet").expect("seals");
    let (_, _, sealed) = pair.sent.last().expect("sent");
    assert_ne!(crate::wire::session::receiver_index(sealed), Some(new_keys));
    pair.run(ms(100));
    assert_eq!(pair.ends[LOW].opened, [b"\x01packet"], "the initiator opens it under its previous keys");
}
