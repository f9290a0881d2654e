//! Sessions that live among loss, delay, sleep and restarts.

use std::collections::BTreeSet;

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
