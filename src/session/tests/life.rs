//! Sessions that live among loss, delay, sleep and restarts.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::*;
use super::pair::*;
use crate::crypto::Suites;
use crate::wire::{Class, classify};

#[test]
fn a_handshake_takes_one_round_trip() {
    let mut pair = Pair::new();
    pair.connect(LOW);
    pair.run(ms(100));
    assert!(pair.ends[LOW].session.is_established(pair.now));
    assert_eq!(pair.ends[LOW].events, [Event::Established { suite: Suite::Aes256Gcm }]);
    assert!(!pair.ends[HIGH].session.is_established(pair.now), "nothing was opened under the new keys yet");
    pair.run(ms(50));
    assert_eq!(pair.ends[HIGH].events, [Event::Confirmed { suite: Suite::Aes256Gcm }]);
    assert!(pair.both_established());
    pair.run(s(60));
    assert_eq!(pair.sent.len(), 4, "initiation, response, and one Nothing each way; then silence");
}

#[test]
fn data_flows_both_ways() {
    let mut pair = Pair::established();
    for end in [LOW, HIGH] {
        pair.send_data(end, b"\x01packet").expect("seals");
    }
    pair.run(ms(50));
    assert_eq!(pair.ends[LOW].opened, [b"\x01packet"]);
    assert_eq!(pair.ends[HIGH].opened, [b"\x01packet"]);
    assert_eq!(pair.ends[LOW].session.handshake_age(pair.now), Some(ms(250)));
}

#[test]
fn the_best_suite_of_both_is_used() {
    for (low, high, suite) in [
        (Suites::ALL, Suites::BASE, Suite::ChaCha20Poly1305),
        (Suites::BASE, Suites::ALL, Suite::ChaCha20Poly1305),
        (Suites::ALL, Suites::ALL, Suite::Aes256Gcm),
    ] {
        let mut pair = Pair::new();
        (pair.ends[LOW].identity.suites, pair.ends[HIGH].identity.suites) = (low, high);
        pair.connect(LOW);
        pair.run(ms(200));
        assert!(pair.both_established());
        assert_eq!((pair.ends[LOW].session.suite(), pair.ends[HIGH].session.suite()), (Some(suite), Some(suite)));
    }
}

#[test]
fn when_initiations_cross_the_lower_ids_survives() {
    let mut pair = Pair::new();
    pair.connect(LOW);
    pair.connect(HIGH);
    pair.run(ms(150));
    assert!(pair.both_established());
    assert_eq!((pair.count(LOW, Class::Response), pair.count(HIGH, Class::Response)), (0, 1));
    pair.run(s(10));
    assert_eq!(pair.count(HIGH, Class::Initiation), 1, "the other attempt is given up");
}

#[test]
fn when_initiations_almost_cross_one_session_stands() {
    for delay in (0..160).step_by(10) {
        for first in [LOW, HIGH] {
            let mut pair = Pair::new();
            pair.connect(first);
            pair.run(ms(delay));
            pair.connect(1 - first);
            pair.run(ms(400));
            assert!(pair.both_established(), "{first} first by {delay} ms");
            assert_exchange(&mut pair);
        }
    }
}

/// Both ends can send to each other.
fn assert_exchange(pair: &mut Pair) {
    let before = [pair.ends[LOW].opened.len(), pair.ends[HIGH].opened.len()];
    for end in [LOW, HIGH] {
        pair.send_data(end, b"\x01packet").expect("seals");
    }
    pair.run(s(1));
    assert_eq!(pair.ends[LOW].opened.len(), before[LOW] + 1);
    assert_eq!(pair.ends[HIGH].opened.len(), before[HIGH] + 1);
}

#[test]
fn the_lower_id_answers_after_all_when_its_own_does_not_get_through() {
    let mut pair = Pair::new();
    pair.link =
        Box::new(|_, from, b| if from == LOW && classify(b) == Class::Initiation { vec![] } else { vec![ms(50)] });
    pair.connect(LOW);
    pair.connect(HIGH);
    pair.run(s(2));
    assert!(pair.both_established());
    assert_exchange(&mut pair);
}

#[test]
fn two_handshakes_that_both_complete_leave_one_working_session() {
    let mut pair = Pair::new();
    // Initiations and responses crawl, so that each side answers the other's attempt.
    pair.link = Box::new(|_, _, b| match classify(b) {
        Class::Initiation | Class::Response => vec![ms(2_000)],
        _ => vec![ms(50)],
    });
    pair.connect(LOW);
    pair.connect(HIGH);
    pair.run(s(30));
    assert!(pair.count(LOW, Class::Response) > 0 && pair.count(HIGH, Class::Response) > 0, "both answered");
    assert!(pair.both_established());
    for _ in 0..5 {
        assert_exchange(&mut pair);
    }
}

#[test]
fn lost_messages_are_sent_again_with_growing_pauses() {
    let mut pair = Pair::new();
    pair.link = Box::new(|_, _, _| vec![]);
    pair.connect(LOW);
    pair.run(s(30));
    let at: Vec<u128> = pair.sent.iter().map(|(at, _, _)| at.since(START).as_millis()).collect();
    assert_eq!(at[..5], [0, 250, 750, 1750, 3750]);
    assert!(at[5..].windows(2).all(|w| (4500..5500).contains(&(w[1] - w[0]))), "{at:?}");
    let distinct: BTreeSet<_> = pair.all(LOW, Class::Initiation).into_iter().collect();
    assert_eq!(distinct.len(), at.len() - 4, "the first message five times, then a fresh one each time");
    pair.link = Box::new(|_, _, _| vec![ms(50)]);
    pair.run(s(6));
    assert!(pair.both_established());
}

#[test]
fn a_new_way_is_tried_at_once() {
    let mut pair = Pair::new();
    pair.link = Box::new(|_, _, _| vec![]);
    pair.connect(LOW);
    pair.run(s(10));
    pair.link = Box::new(|_, _, _| vec![ms(50)]);
    pair.ends[LOW].session.restart(pair.now);
    pair.run(ms(200));
    assert!(pair.both_established());
    for _ in 0..100 {
        pair.ends[LOW].session.restart(pair.now);
    }
    let before = pair.sent.len();
    pair.run(ms(50));
    assert_eq!(pair.sent.len(), before, "nothing waits for an answer");
}

#[test]
fn restarts_in_a_row_are_spaced() {
    let mut pair = Pair::new();
    pair.link = Box::new(|_, _, _| vec![]);
    pair.connect(LOW);
    for _ in 0..1000 {
        pair.ends[LOW].session.restart(pair.now);
        pair.run(ms(1));
    }
    assert!(pair.sent.len() <= 11, "{}", pair.sent.len());
}

#[test]
fn a_lost_response_is_given_again_without_new_keys() {
    let mut pair = Pair::new();
    pair.link = Box::new(|at, from, _| if from == HIGH && at < START + ms(200) { vec![] } else { vec![ms(50)] });
    pair.connect(LOW);
    pair.run(s(1));
    assert!(pair.both_established());
    let responses = pair.all(HIGH, Class::Response);
    assert_eq!((responses.len(), &responses[0]), (2, &responses[1]));
}

#[test]
fn a_lost_proof_is_given_again() {
    let mut pair = Pair::new();
    pair.link =
        Box::new(|at, from, _| if from == LOW && at > START && at < START + s(3) { vec![] } else { vec![ms(50)] });
    pair.connect(LOW);
    pair.run(s(3));
    assert!(!pair.ends[HIGH].session.is_established(pair.now));
    pair.run(s(2));
    assert!(pair.both_established());
    let nothings = pair.count(LOW, Class::Control);
    pair.run(s(60));
    assert_eq!(pair.count(LOW, Class::Control), nothings, "proven once, no more");
}

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

#[test]
fn a_restarted_peer_comes_back_by_its_own_initiation() {
    for who in [LOW, HIGH] {
        let mut pair = Pair::established();
        pair.run(s(10));
        pair.restart(who);
        pair.connect(who);
        pair.run(ms(200));
        assert!(pair.both_established());
        assert_exchange(&mut pair);
    }
}

#[test]
fn a_restarted_peer_that_waits_is_found_by_who_sends_to_it() {
    for who in [LOW, HIGH] {
        let mut pair = Pair::established();
        pair.run(s(10));
        pair.restart(who);
        pair.send_data(1 - who, b"\x01lost").expect("the other does not know yet");
        pair.run(s(7));
        assert!(pair.both_established());
        assert_exchange(&mut pair);
    }
}

#[test]
fn a_one_way_stream_is_answered_by_nothings_and_keeps_its_session() {
    let mut pair = Pair::established();
    for _ in 0..600 {
        pair.send_data(LOW, b"\x01packet").expect("seals");
        pair.run(ms(100));
    }
    assert_eq!(pair.ends[HIGH].opened.len(), 600);
    assert_eq!(pair.count(LOW, Class::Initiation), 1);
    assert!((25..=31).contains(&pair.count(HIGH, Class::Control)), "{}", pair.count(HIGH, Class::Control));
    let before = pair.sent.len();
    pair.run(s(50));
    assert!(pair.sent.len() <= before + 1, "an answer to the last one, and no answers to answers");
}

#[test]
fn both_sides_of_a_dead_path_seek_each_other_with_keys_in_hand() {
    let mut pair = Pair::established();
    pair.link = Box::new(|at, _, _| if at < START + s(20) { vec![] } else { vec![ms(50)] });
    for _ in 0..15 {
        pair.send_data(LOW, b"\x01packet").expect("the old keys still seal");
        pair.run(s(1));
    }
    assert!(pair.count(LOW, Class::Initiation) > 1);
    pair.run(s(15));
    assert_exchange(&mut pair);
}

#[test]
fn close_forgets_everything_and_frees_the_indices() {
    let mut pair = Pair::established();
    pair.run(s(125));
    let now = pair.now;
    let indices: Vec<u32> = pair
        .sent
        .iter()
        .filter_map(|(_, _, b)| crate::wire::session::receiver_index(b))
        .filter(|index| pair.ends[LOW].indices.owner(*index).is_some())
        .collect();
    assert!(!indices.is_empty());
    pair.ends[LOW].with_env(|session, env| session.close(now, env));
    assert!(indices.iter().all(|index| pair.ends[LOW].indices.owner(*index).is_none()));
    assert_eq!(pair.send_data(LOW, b"\x01"), Err(SealError::NotEstablished));
    assert_eq!(pair.ends[LOW].session.poll_timeout(), None);
    pair.connect(LOW);
    pair.run(ms(200));
    assert_exchange(&mut pair);
}

#[test]
fn no_index_is_used_twice_within_180_seconds() {
    let mut pair = Pair::new();
    // Half of everything is lost, so that many attempts fail.
    let mut n = 0_u32;
    pair.link = Box::new(move |_, _, _| {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if n >> 31 == 0 { vec![] } else { vec![ms(50)] }
    });
    pair.connect(LOW);
    pair.connect(HIGH);
    pair.run(s(2000));
    let mut last_seen = std::collections::BTreeMap::new();
    for (at, by, bytes) in pair.sent.iter().filter(|(_, _, b)| classify(b) == Class::Initiation) {
        let frame = crate::wire::session::Handshake::decode(bytes).expect("ours");
        let first_of_message = last_seen.insert((*by, frame.sender), (*at, frame.noise.to_vec()));
        if let Some((before, noise)) = first_of_message {
            assert!(noise == frame.noise || at.since(before) >= s(180));
        }
    }
    assert!(last_seen.len() > 20);
}

#[test]
fn without_numbers_nothing_is_sent_until_they_come() {
    let mut pair = Pair::new();
    let end = &mut pair.ends[LOW];
    end.session.connect(START);
    let mut unreserved = Numbers::new(5, 0);
    let mut now = START;
    for _ in 0..10 {
        let mut env = Env {
            identity: &end.identity,
            indices: &mut end.indices,
            numbers: &mut unreserved,
            rng: &mut end.rng,
            announcement: &end.announcement,
        };
        end.session.handle_timeout(now, &mut env);
        assert_eq!(end.session.poll_transmit(), None);
        let wakeup = end.session.poll_timeout().expect("tries again");
        assert!(wakeup.at > now);
        now = wakeup.at;
    }
    pair.now = now;
    pair.run(ms(200));
    assert!(pair.both_established());
}

#[test]
fn the_same_seeds_give_the_same_bytes() {
    let run = || {
        let mut pair = Pair::new();
        pair.connect(LOW);
        pair.connect(HIGH);
        pair.run(s(300));
        pair.sent
    };
    assert_eq!(run(), run());
}

/// What happens to a pair.
#[derive(Clone, Debug)]
enum Happening {
    Connect(usize),
    Restart(usize),
    NewProcess(usize),
    Close(usize),
    Data(usize),
    Replay(u16),
    Pass(u64),
    Suspend(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let end = || prop_oneof![Just(LOW), Just(HIGH)];
    prop_oneof![
        2 => end().prop_map(Happening::Connect),
        1 => end().prop_map(Happening::Restart),
        1 => end().prop_map(Happening::NewProcess),
        1 => end().prop_map(Happening::Close),
        8 => end().prop_map(Happening::Data),
        4 => any::<u16>().prop_map(Happening::Replay),
        8 => (0..3_000_u64).prop_map(Happening::Pass),
        2 => (0..200_u64).prop_map(Happening::Suspend),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_packet_is_opened_twice_and_the_session_heals(
        happenings in prop::collection::vec(happening(), 1..60),
        mut luck in any::<u64>(),
        loss in 0..60_u64,
    ) {
        let mut pair = Pair::new();
        pair.link = Box::new(move |_, _, _| {
            luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (dice, delay) = ((luck >> 33) % 100, ms((luck >> 45) % 300));
            match dice {
                d if d < loss => vec![],
                d if d > 90 => vec![delay, delay * 2],
                _ => vec![delay],
            }
        });
        let mut sealed = [BTreeSet::new(), BTreeSet::new()];
        for (n, happening) in happenings.into_iter().enumerate() {
            let now = pair.now;
            match happening {
                Happening::Connect(end) => pair.connect(end),
                Happening::Restart(end) => pair.ends[end].session.restart(now),
                Happening::NewProcess(end) => {
                    let opened = std::mem::take(&mut pair.ends[end].opened);
                    let ceiling = pair.ends[end].numbers.take().unwrap_or(1 << 30) + (1 << 20);
                    pair.restart(end);
                    pair.ends[end].numbers = Numbers::new(ceiling, 0);
                    pair.ends[end].opened = opened;
                }
                Happening::Close(end) => pair.ends[end].with_env(|session, env| session.close(now, env)),
                Happening::Data(end) => {
                    let body = [&[1][..], &n.to_be_bytes()].concat();
                    if pair.send_data(end, &body).is_ok() {
                        sealed[end].insert(body);
                    }
                }
                Happening::Replay(which) if !pair.sent.is_empty() => {
                    let (_, from, bytes) = pair.sent[usize::from(which) % pair.sent.len()].clone();
                    pair.inject(1 - from, &bytes);
                }
                Happening::Replay(_) => {}
                Happening::Pass(time) => pair.run(ms(time)),
                Happening::Suspend(time) => pair.now += s(time),
            }
        }
        pair.run(s(1));
        for end in [LOW, HIGH] {
            let opened: BTreeSet<_> = pair.ends[end].opened.iter().cloned().collect();
            prop_assert_eq!(opened.len(), pair.ends[end].opened.len(), "opened twice");
            prop_assert!(opened.is_subset(&sealed[1 - end]), "opened what was not sealed");
        }
        pair.link = Box::new(|_, _, _| vec![ms(50)]);
        pair.connect(LOW);
        pair.connect(HIGH);
        pair.run(s(8));
        // One side may hold keys that the other forgot; data tells.
        for end in [LOW, HIGH] {
            let _ = pair.send_data(end, b"\x01probe");
        }
        pair.run(s(8));
        prop_assert!(pair.both_established());
        assert_exchange(&mut pair);
    }
}
