//! What strangers, liars and old messages get: nothing.

use proptest::prelude::*;

use super::super::*;
use super::pair::*;
use crate::crypto::announcement::{AnnouncementError, sign};
use crate::crypto::{CookieJar, Suites, mac};
use crate::id::Epoch;
use crate::sans::{Rng, Seed};
use crate::wire::announcement::Announcement;
use crate::wire::announcement::tests::example;
use crate::wire::session::{INITIATION_LEN, RESPONSE_LEN};
use crate::wire::{Class, Malformed, classify};

/// The first initiation of the lower id, and the pair, stopped.
fn initiation() -> (Pair, Vec<u8>) {
    let mut pair = Pair::new();
    pair.link = Box::new(|_, _, _| vec![]);
    pair.connect(LOW);
    pair.run(ms(0));
    let bytes = pair.all(LOW, Class::Initiation).pop().expect("initiates");
    (pair, bytes)
}

/// Writes mac1 anew, as any member can.
fn fix_mac1(message: &mut [u8], receiver: &Identity) {
    let end = message.len() - mac::LEN;
    mac::write_last(receiver.network.mac1_key(&receiver.device.id()).as_slice(), &mut message[..end]);
}

fn read(reader: &Identity, bytes: &[u8]) -> Result<Initiation, Refusal> {
    read_initiation(reader, bytes, &mut Seed::from_u64(9).rng())
}

#[test]
fn who_has_another_network_key_gets_no_answer() {
    let mut pair = Pair::new();
    pair.ends[HIGH].identity.network = identity(2, 1).network;
    pair.connect(LOW);
    pair.connect(HIGH);
    pair.run(s(20));
    for end in [LOW, HIGH] {
        assert_eq!(pair.sent.iter().filter(|(_, by, b)| *by == end && classify(b) != Class::Initiation).count(), 0);
        assert!(pair.ends[end].refusals.iter().all(|refusal| *refusal == Refusal::Mac1));
        assert_eq!(pair.ends[end].events, []);
    }
}

#[test]
fn any_changed_byte_of_an_initiation_fails_at_mac1() {
    let (pair, bytes) = initiation();
    assert_eq!(bytes.len(), INITIATION_LEN);
    for i in 1..INITIATION_LEN - mac::LEN {
        let mut changed = bytes.clone();
        changed[i] ^= 1;
        assert_eq!(read(&pair.ends[HIGH].identity, &changed).err(), Some(Refusal::Mac1), "byte {i}");
    }
    assert!(read(&pair.ends[HIGH].identity, &bytes).is_ok());
    assert_eq!(read(&pair.ends[LOW].identity, &bytes).err(), Some(Refusal::Mac1), "meant for another");
}

#[test]
fn a_member_who_damages_an_initiation_gets_no_further_than_noise() {
    let (pair, bytes) = initiation();
    let reader = &pair.ends[HIGH].identity;
    for i in (8..INITIATION_LEN - 2 * mac::LEN).step_by(7) {
        let mut changed = bytes.clone();
        changed[i] ^= 1;
        fix_mac1(&mut changed, reader);
        assert!(matches!(read(reader, &changed), Err(Refusal::Noise(_))), "byte {i}");
    }
}

#[test]
fn another_version_is_named_once_its_mac_holds() {
    let (mut pair, mut bytes) = initiation();
    bytes[4] = 7;
    assert_eq!(read(&pair.ends[HIGH].identity, &bytes).err(), Some(Refusal::Mac1));
    fix_mac1(&mut bytes, &pair.ends[HIGH].identity);
    assert_eq!(read(&pair.ends[HIGH].identity, &bytes).err(), Some(Refusal::Version(7)));
    let mut longer = bytes.clone();
    longer.splice(100..100, [0; 64]);
    fix_mac1(&mut longer, &pair.ends[HIGH].identity);
    assert_eq!(read(&pair.ends[HIGH].identity, &longer).err(), Some(Refusal::Version(7)), "of any length");
    longer[4] = 1;
    fix_mac1(&mut longer, &pair.ends[HIGH].identity);
    let wrong_length = Refusal::Malformed(Malformed::Bad("handshake length"));
    assert_eq!(read(&pair.ends[HIGH].identity, &longer).err(), Some(wrong_length));
    let mut response = crate::wire::session::Handshake::encode(0xe3, 1, 9, 2, &[0; 80]);
    fix_mac1(&mut response, &pair.ends[LOW].identity);
    pair.inject(LOW, &response);
    assert_eq!(pair.ends[LOW].refusals, [Refusal::Version(9)]);
}

#[test]
fn nobody_speaks_in_anothers_name() {
    // A member begins a handshake with its own static key and another's announcement.
    let (mut pair, _) = initiation();
    let liar = identity(1, 3);
    let stolen = pair.ends[LOW].announcement.clone();
    let mut end = End::new(liar, &identities()[HIGH], 1, 5);
    end.announcement = stolen;
    end.session.connect(START);
    end.with_env(|session, env| session.handle_timeout(START, env));
    let bytes = end.session.poll_transmit().expect("initiates");
    assert_eq!(read(&pair.ends[HIGH].identity, &bytes).err(), Some(Refusal::Identity));
    // With its own announcement it is read, but it is not this session's peer.
    let mut end = End::new(identity(1, 3), &identities()[HIGH], 1, 5);
    end.session.connect(START);
    end.with_env(|session, env| session.handle_timeout(START, env));
    let bytes = end.session.poll_transmit().expect("initiates");
    pair.inject(HIGH, &bytes);
    assert_eq!(pair.ends[HIGH].refusals, [Refusal::Identity]);
    assert_eq!(pair.count(HIGH, Class::Response), 0);
}

#[test]
fn our_own_device_elsewhere_is_no_peer() {
    let mut end = End::new(identity(1, 1), &identity(1, 1), 1, 5);
    end.session.connect(START);
    end.with_env(|session, env| session.handle_timeout(START, env));
    let bytes = end.session.poll_transmit().expect("initiates");
    assert_eq!(read(&end.identity, &bytes).err(), Some(Refusal::Identity));
}

#[test]
fn an_announcement_of_another_epoch_is_refused() {
    let mut pair = Pair::new();
    let me = &pair.ends[LOW].identity;
    let later = Announcement { epoch: Epoch(3), ..example() };
    pair.ends[LOW].announcement = sign(&me.device, &me.network.id(), &later);
    pair.connect(LOW);
    pair.run(ms(100));
    assert_eq!(pair.ends[HIGH].refusals, [Refusal::Announcement(AnnouncementError::Epoch)]);
    assert_eq!(pair.count(HIGH, Class::Response), 0);
}

#[test]
fn no_suite_in_common_is_no_session() {
    let mut pair = Pair::new();
    pair.ends[LOW].identity.suites = Suites(4);
    pair.connect(LOW);
    pair.run(ms(100));
    assert_eq!(pair.ends[HIGH].refusals, [Refusal::Suite]);
    assert_eq!(pair.count(HIGH, Class::Response), 0);
}

#[test]
fn an_initiation_again_gets_the_same_response_until_it_is_proven_and_then_none() {
    let (mut pair, bytes) = initiation();
    for _ in 0..20 {
        pair.inject(HIGH, &bytes);
    }
    let responses = pair.all(HIGH, Class::Response);
    assert_eq!(responses.len(), 20);
    assert!(responses.iter().all(|r| *r == responses[0] && r.len() == RESPONSE_LEN));
    pair.link = Box::new(|_, _, _| vec![ms(50)]);
    pair.inject(LOW, &responses[0]);
    pair.run(s(1));
    assert!(pair.both_established());
    pair.inject(HIGH, &bytes);
    assert_eq!((pair.count(HIGH, Class::Response), &pair.ends[HIGH].refusals), (20, &vec![]));
}

#[test]
fn old_handshake_messages_change_nothing() {
    let mut pair = Pair::established();
    pair.run(s(125));
    let (old, new) = (pair.all(LOW, Class::Initiation), pair.all(HIGH, Class::Response));
    assert_eq!((old.len(), new.len()), (2, 2));
    let (sent, refused) = (pair.sent.len(), [Refusal::Unexpected; 2]);
    pair.inject(HIGH, &old[0]);
    assert_eq!(pair.ends[HIGH].refusals, [Refusal::Replayed]);
    for response in &new {
        pair.inject(LOW, response);
    }
    assert_eq!(pair.ends[LOW].refusals, refused);
    assert_eq!(pair.sent.len(), sent);
    assert!(pair.both_established());
}

#[test]
fn an_old_initiation_after_a_restart_unseats_nobody() {
    let mut pair = Pair::established();
    let old = pair.all(LOW, Class::Initiation)[0].clone();
    pair.restart(HIGH);
    pair.connect(HIGH);
    pair.run(ms(500));
    assert!(pair.both_established());
    pair.inject(HIGH, &old);
    for _ in 0..3 {
        pair.send_data(HIGH, b"\x01packet").expect("still the proven keys");
        pair.run(ms(100));
    }
    assert_eq!(pair.ends[LOW].opened.len(), 3);
    assert_eq!(pair.ends[LOW].failures, []);
}

#[test]
fn replayed_and_forged_data_is_refused_and_moves_nothing() {
    let mut pair = Pair::established();
    pair.send_data(LOW, b"\x01packet").expect("seals");
    let sealed = pair.all(LOW, Class::Data)[0].clone();
    pair.run(ms(100));
    pair.inject(HIGH, &sealed);
    let mut forged = sealed.clone();
    forged[7] ^= 0x80;
    pair.inject(HIGH, &forged);
    let mut other_stream = sealed.clone();
    other_stream[0] = 0xe1;
    other_stream[7] = 99;
    pair.inject(HIGH, &other_stream);
    let mut elsewhere = sealed.clone();
    elsewhere[1] ^= 1;
    pair.inject(HIGH, &elsewhere);
    pair.inject(HIGH, &sealed[..20]);
    let expected =
        [OpenError::Replayed, OpenError::Forged, OpenError::Forged, OpenError::UnknownIndex, OpenError::Malformed];
    assert_eq!(pair.ends[HIGH].failures, expected);
    assert_eq!(pair.ends[HIGH].opened.len(), 1);
    pair.send_data(LOW, b"\x01packet").expect("seals");
    pair.run(ms(100));
    assert_eq!(pair.ends[HIGH].opened.len(), 2, "a forged high counter did not move the window");
}

#[test]
fn data_within_the_window_may_come_in_any_order() {
    let mut pair = Pair::established();
    let now = pair.now;
    let count = u16::try_from(DATA_WINDOW).expect("fits");
    let sealed: Vec<_> = (0..=count).map(|_| pair.ends[LOW].seal(now, b"\x01").expect("seals")).collect();
    for datagram in sealed.iter().rev() {
        pair.ends[HIGH].receive(now, datagram.clone());
    }
    assert_eq!(pair.ends[HIGH].opened.len(), DATA_WINDOW);
    assert_eq!(pair.ends[HIGH].failures, [OpenError::Replayed], "one was just outside");
}

#[test]
fn forged_data_proves_no_keys() {
    let (mut pair, bytes) = initiation();
    pair.inject(HIGH, &bytes);
    let response = pair.all(HIGH, Class::Response)[0].clone();
    let index = crate::wire::session::Handshake::decode(&response).expect("ours").sender;
    let header = Header { channel: Channel::Control, index, counter: 0 };
    pair.inject(HIGH, &[&header.encode()[..], &[0; 17]].concat());
    assert_eq!(pair.ends[HIGH].failures, [OpenError::Forged]);
    assert!(!pair.ends[HIGH].session.is_established(pair.now));
}

#[test]
fn a_forged_response_does_not_cost_the_right_one() {
    let (mut pair, bytes) = initiation();
    pair.inject(HIGH, &bytes);
    let response = pair.all(HIGH, Class::Response)[0].clone();
    for i in (8..RESPONSE_LEN - 2 * mac::LEN).step_by(11) {
        let mut forged = response.clone();
        forged[i] ^= 1;
        fix_mac1(&mut forged, &pair.ends[LOW].identity);
        pair.inject(LOW, &forged);
        assert!(matches!(pair.ends[LOW].refusals.pop(), Some(Refusal::Noise(_))), "byte {i}");
    }
    pair.inject(LOW, &response);
    assert!(pair.ends[LOW].session.is_established(pair.now));
}

#[test]
fn a_peer_cannot_begin_handshakes_without_end() {
    let mut pair = Pair::new();
    pair.link = Box::new(|_, _, _| vec![]);
    for n in 0..100 {
        let [low, high] = identities();
        let mut again = End::new(low, &high, 10_000 + n * 1000, n);
        again.session.connect(START);
        again.with_env(|session, env| session.handle_timeout(START, env));
        let bytes = again.session.poll_transmit().expect("initiates");
        pair.inject(HIGH, &bytes);
    }
    assert_eq!(pair.count(HIGH, Class::Response), 8);
    assert!(pair.ends[HIGH].refusals.iter().all(|refusal| *refusal == Refusal::TooMany));
}

#[test]
fn under_load_an_address_is_proven_first() {
    let mut pair = Pair::new();
    pair.ends[HIGH].jar = Some(CookieJar::new(&mut Seed::from_u64(3).rng()));
    pair.connect(LOW);
    pair.run(ms(400));
    assert!(pair.both_established());
    assert_eq!((pair.count(HIGH, Class::CookieReply), pair.count(HIGH, Class::Response)), (1, 1));
    let initiations = pair.all(LOW, Class::Initiation);
    assert_eq!(initiations.len(), 2);
    assert_eq!(initiations[0][..INITIATION_LEN - 16], initiations[1][..INITIATION_LEN - 16]);
    pair.run(s(121));
    assert_eq!(pair.count(HIGH, Class::CookieReply), 2, "an old cookie is not sent, a new one is asked for");
    assert!(pair.ends[LOW].session.handshake_age(pair.now) < Some(s(2)));
}

#[test]
fn cookies_are_demanded_of_members_alone_and_hold_at_their_address_alone() {
    let (mut pair, bytes) = initiation();
    let mut rng = Seed::from_u64(3).rng();
    let jar = CookieJar::new(&mut rng);
    let reader = &pair.ends[HIGH].identity;
    let ask = |bytes: &[u8], source: &[u8], rng: &mut Rng| prove_source(reader, &jar, START, source, bytes, rng);
    let mut stranger = bytes.clone();
    stranger[600] ^= 1;
    assert_eq!(ask(&stranger, b"here", &mut rng), Proof::Refused(Refusal::Mac1));
    let Proof::Demand(reply) = ask(&bytes, b"here", &mut rng) else { panic!("no cookie yet") };
    assert!(reply.len() < bytes.len());
    assert!(pair.ends[LOW].session.handle_cookie_reply(START, &reply));
    pair.ends[LOW].session.restart(START);
    pair.now = START + ms(200);
    let now = pair.now;
    pair.ends[LOW].with_env(|session, env| session.handle_timeout(now, env));
    let again = pair.ends[LOW].session.poll_transmit().expect("sends again");
    let reader = &pair.ends[HIGH].identity;
    assert_eq!(prove_source(reader, &jar, now, b"here", &again, &mut rng), Proof::Given);
    assert!(matches!(prove_source(reader, &jar, now, b"there", &again, &mut rng), Proof::Demand(_)));
}

#[test]
fn a_forged_cookie_reply_is_ignored() {
    let (mut pair, bytes) = initiation();
    let mut rng = Seed::from_u64(3).rng();
    let jar = CookieJar::new(&mut rng);
    let Proof::Demand(reply) = prove_source(&pair.ends[HIGH].identity, &jar, START, b"here", &bytes, &mut rng) else {
        panic!("no cookie yet")
    };
    for i in 0..reply.len() {
        let mut forged = reply.clone();
        forged[i] ^= 1;
        assert!(!pair.ends[LOW].session.handle_cookie_reply(START, &forged), "byte {i}");
    }
    assert!(pair.ends[LOW].session.handle_cookie_reply(START, &reply));
}

#[test]
fn no_secret_is_in_debug() {
    let pair = Pair::established();
    let text = format!("{:?} {:?}", pair.ends[LOW].session, pair.ends[LOW].identity);
    assert!(text.len() < 400, "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_no_panic_and_change_nothing(
        first in 0xdf..=0xe8_u8,
        mut bytes in prop::collection::vec(any::<u8>(), 0..800),
        authentic in any::<bool>(),
        index in any::<bool>(),
    ) {
        let mut pair = Pair::established();
        let live = crate::wire::session::receiver_index(&pair.all(LOW, Class::Control)[0]).expect("ours");
        if let Some(b) = bytes.first_mut() {
            *b = first;
        }
        if index && bytes.len() > 8 {
            bytes[1..4].copy_from_slice(&live.to_be_bytes()[1..]);
            bytes[5..8].copy_from_slice(&live.to_be_bytes()[1..]);
        }
        if authentic && bytes.len() >= 40 {
            fix_mac1(&mut bytes, &pair.ends[HIGH].identity);
        }
        let sent = pair.sent.len();
        pair.inject(HIGH, &bytes);
        prop_assert_eq!(pair.sent.len(), sent);
        assert!(pair.both_established());
        pair.send_data(LOW, b"\x01packet").expect("seals");
        pair.run(ms(100));
        prop_assert_eq!(pair.ends[HIGH].opened.len(), 1);
    }
}
