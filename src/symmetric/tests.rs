//! One side of a search, step by step.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::nat::NextPorts;
use crate::sans::{Instant, Seed};
use crate::wire::stun::{Answer, BindingRequest};

const T0: Instant = Instant::from_nanos(1_000_000_000_000);
const MS: Duration = Duration::from_millis(1);
const BOB: ([u8; 4], u16) = ([203, 0, 113, 2], 41_641);
const SERVER: ([u8; 4], u16) = ([198, 51, 100, 1], 3_478);

/// A hunt, and what it wanted.
struct Alice {
    hunt: Hunt,
    now: Instant,
    /// Sockets that the system has given.
    sockets: u16,
    /// How its NAT gives the n-th port.
    nat: fn(u16) -> u16,
    given: u16,
    words: VecDeque<Word>,
}

impl Alice {
    fn new(known: Option<NextPorts>, nat: fn(u16) -> u16) -> Self {
        let hunt = Hunt::new(T0, &Seed::from_u64(1), SocketAddr::from(BOB), SocketAddr::from(SERVER), known);
        Self { hunt, now: T0, sockets: 0, nat, given: 0, words: VecDeque::new() }
    }

    /// Everything that it wants is done at once; questions only if there is a rendezvous.
    fn serve(&mut self, answers: bool) -> usize {
        let mut asked = 0;
        while let Some(want) = self.hunt.poll_want() {
            match want {
                Want::Sockets(count) => {
                    let first = self.sockets;
                    self.sockets += u16::try_from(count).expect("few");
                    let opened: Vec<_> = (first..self.sockets).map(|n| (SocketId(2 + n), 50_000 + n)).collect();
                    self.hunt.opened(self.now, &opened);
                }
                Want::Ask { socket, to, question } => {
                    assert_eq!(to, SocketAddr::from(SERVER));
                    asked += 1;
                    let outside = SocketAddr::from(([203, 0, 113, 1], (self.nat)(self.given)));
                    self.given += 1;
                    let transaction = BindingRequest::parse(&question).expect("a question").transaction;
                    let answer = Answer::new(transaction, outside).encode(question.len());
                    if answers {
                        assert!(!self.hunt.answered(self.now, socket, SocketAddr::from(BOB), &answer), "of a stranger");
                        assert!(!self.hunt.answered(self.now, SocketId(999), to, &answer), "to another socket");
                        assert!(self.hunt.answered(self.now, socket, to, &answer));
                    }
                }
                Want::Say(word) => self.words.push_back(word),
            }
        }
        asked
    }

    fn words(&mut self) -> Vec<Word> {
        self.serve(true);
        self.words.drain(..).collect()
    }

    /// All that is due now.
    fn shots(&mut self) -> Vec<Shot> {
        let mut shots = Vec::new();
        while let Some(shot) = self.hunt.next() {
            shots.push(shot);
            self.hunt.sent(self.now);
        }
        shots
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(wakeup) = self.hunt.poll_timeout().filter(|wakeup| wakeup.at <= end) {
            self.now = self.now.max(wakeup.at);
            self.hunt.handle_timeout(self.now);
        }
        self.now = self.now.max(end);
    }
}

fn counting(n: u16) -> u16 {
    7_000 + n
}

fn random(n: u16) -> u16 {
    1_024 + n.wrapping_mul(25_173) % 64_000
}

fn in_a_block(n: u16) -> u16 {
    20_480 + n.wrapping_mul(389) % 1_024
}

#[test]
fn a_nat_that_counts_has_eight_ports_open_next_to_each_other() {
    let mut alice = Alice::new(None, counting);
    assert_eq!(alice.serve(true), 8, "asked from eight sockets");
    let next = NextPorts::Counted { first: 7_008, step: 1 };
    assert_eq!((alice.words(), alice.hunt.mine()), (vec![Word::Ports(next)], Some(next)));
    assert_eq!(alice.shots(), []);
    alice.hunt.told(T0, NextPorts::Same, true);
    let shots = alice.shots();
    assert!(shots.iter().all(|shot| shot.to == SocketAddr::from(BOB) && shot.primes));
    assert_eq!(shots.iter().map(|shot| shot.socket.0).collect::<Vec<_>>(), (2..10).collect::<Vec<_>>());
    assert_eq!(alice.words(), [Word::LookForMe(next, 8)]);
}

#[test]
fn of_all_ports_256_are_open_and_of_a_block_64() {
    for (nat, open) in [(random as fn(u16) -> u16, 256), (in_a_block, 64)] {
        let mut alice = Alice::new(None, nat);
        alice.hunt.told(T0, NextPorts::Same, true);
        alice.serve(true);
        assert_eq!(alice.shots().len(), open);
        let words = alice.words();
        assert!(matches!(words[..], [Word::Ports(_), Word::LookForMe(_, n)] if usize::from(n) == open), "{words:?}");
        // Bob looked in vain: perhaps our outer NAT is not open yet.
        alice.hunt.looked();
        let full = alice.shots();
        assert!(full.len() == open && full.iter().all(|shot| !shot.primes));
        alice.hunt.looked();
        assert_eq!(alice.shots(), [], "once");
        alice.pass(MS * 1_000);
        assert_eq!(alice.hunt.outcome(), Some(Outcome::InVain));
        assert_eq!(alice.hunt.sockets().count(), open);
    }
}

#[test]
fn who_is_seen_by_all_at_one_port_says_so_and_opens_none() {
    let mut alice = Alice::new(None, |n| 50_000 + n);
    assert_eq!(alice.words(), [Word::Ports(NextPorts::Same)]);
    assert_eq!(alice.hunt.outcome(), Some(Outcome::Needless));
    let mut alice = Alice::new(Some(NextPorts::Same), random);
    assert_eq!((alice.words(), alice.sockets), (vec![Word::Ports(NextPorts::Same)], 0));
    assert_eq!(alice.hunt.outcome(), Some(Outcome::Needless));
}

#[test]
fn two_symmetric_nats_cross_their_shots_from_sockets_that_nobody_has_seen_yet() {
    let mut alice = Alice::new(None, counting);
    alice.serve(true);
    alice.hunt.told(T0, NextPorts::Within { first: 2_000, last: 2_999 }, true);
    alice.serve(true);
    let shots = alice.shots();
    assert_eq!((shots.len(), alice.sockets), (1_024, 8 + 32));
    assert!(shots.iter().all(|shot| !shot.primes && (2_000..3_000).contains(&shot.to.port()) && shot.socket.0 >= 10));
    for round in shots.chunks(32) {
        let targets: std::collections::BTreeSet<u16> = round.iter().map(|shot| shot.to.port()).collect();
        assert!(round.iter().all(|shot| shot.socket == round[0].socket) && targets.len() == 32, "a mapping for each");
    }
    let mut alice = Alice::new(None, random);
    alice.serve(true);
    alice.hunt.told(T0, NextPorts::Counted { first: 2_000, step: 1 }, true);
    assert_eq!((alice.shots(), alice.hunt.outcome()), (vec![], Some(Outcome::Hopeless)));
    let mut alice = Alice::new(None, counting);
    alice.serve(true);
    alice.hunt.told(T0, NextPorts::Counted { first: 2_000, step: 1 }, false);
    assert_eq!((alice.shots(), alice.hunt.outcome()), (vec![], Some(Outcome::Unanswered)), "it takes two");
}

#[test]
fn whoever_does_not_answer_is_asked_again_and_then_given_up() {
    let mut alice = Alice::new(None, counting);
    let mut asked = alice.serve(false);
    for _ in 0..10 {
        alice.pass(MS * 100);
        asked += alice.serve(false);
    }
    assert_eq!((asked, alice.hunt.outcome()), (24, Some(Outcome::Unknown)), "the rendezvous");

    let mut alice = Alice::new(None, counting);
    let mut said = alice.words().len();
    for _ in 0..30 {
        alice.pass(MS * 100);
        said += alice.words().len();
    }
    assert_eq!((said, alice.hunt.outcome(), alice.hunt.has_shot()), (4, Some(Outcome::Unanswered), false), "the peer");

    let mut alice = Alice::new(None, counting);
    alice.serve(true);
    alice.hunt.told(T0, NextPorts::Same, true);
    assert_eq!(alice.shots().len(), 8);
    alice.pass(MS * 7_000);
    assert!(alice.shots().iter().all(|shot| !shot.primes), "who looks, and whose word of it was lost");
    assert_eq!(alice.words().iter().filter(|word| matches!(word, Word::LookForMe(..))).count(), 5);

    let mut alice = Alice::new(None, counting);
    while alice.hunt.poll_want().is_some() {}
    alice.pass(MS * 1_000);
    assert_eq!(alice.hunt.outcome(), Some(Outcome::Unknown), "the system");
}

#[test]
fn few_sockets_are_better_than_none() {
    let mut alice = Alice::new(None, random);
    alice.serve(true);
    alice.hunt.told(T0, NextPorts::Same, true);
    assert_eq!(alice.hunt.poll_want(), Some(Want::Sockets(248)));
    alice.hunt.opened(alice.now, &[(SocketId(90), 51_000)]);
    assert_eq!(alice.shots().len(), 9);
    let mut alice = Alice::new(None, random);
    assert_eq!(alice.hunt.poll_want(), Some(Want::Sockets(8)));
    alice.hunt.opened(T0, &[]);
    assert_eq!(alice.hunt.outcome(), Some(Outcome::Unknown));
}

#[test]
fn what_the_budget_refuses_ends_it() {
    let begun = || {
        let mut alice = Alice::new(None, counting);
        alice.serve(true);
        alice.hunt.told(T0, NextPorts::Same, true);
        alice.words();
        alice
    };
    let mut alice = begun();
    alice.hunt.end(T0);
    assert_eq!((alice.hunt.outcome(), alice.hunt.has_shot()), (Some(Outcome::Unknown), false));
    let mut alice = begun();
    alice.hunt.sent(T0);
    alice.hunt.end(T0);
    assert!(matches!(alice.words()[..], [Word::LookForMe(..)]), "what is open may do");
    alice.hunt.looked();
    alice.hunt.end(T0);
    alice.pass(MS * 1_000);
    assert_eq!(alice.hunt.outcome(), Some(Outcome::InVain));
}

#[test]
fn who_looks_tries_each_port_once_and_says_when_all_were_in_vain() {
    let ip = SocketAddr::from(BOB).ip();
    let ports = NextPorts::Counted { first: 7_000, step: 1 };
    let mut look = Look::new(SocketId(0), ip, ports, 8, &mut Seed::from_u64(1).rng());
    let now = T0;
    assert!(!look.has_tried(SocketAddr::new(ip, 7_007)));
    let mut tried = 0;
    while let Some(shot) = look.next() {
        assert_eq!((shot.socket, shot.primes, shot.to.ip()), (SocketId(0), false, ip));
        assert!(!look.take_word(now));
        look.sent(now);
        assert!(look.has_tried(shot.to));
        tried += 1;
    }
    assert_eq!(tried, 128);
    let words = (0..100).filter(|n| look.take_word(now + MS * 10 * *n)).count();
    assert_eq!((words, look.poll_timeout().map(|w| w.at - now)), (3, Some(MS * 10_000)));
    assert!(!look.is_over(now + MS * 9_999) && look.is_over(now + MS * 10_000));
}
