//! One machine against forgery, floods and random events. Whole searches are in `tests/punch.rs`.

mod relays;

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::paths::MAX_PEER_REFLEXIVE;
use super::*;
use crate::id::ServerId;
use crate::wire::announcement::CandidateKind;
use crate::wire::probe::{FULL_LEN, MIN_LEN};

const V4: SocketId = SocketId(0);
const OTHER: SocketId = SocketId(7);
const RELAY: ServerId = ServerId(0);

fn start() -> Instant {
    Instant::ZERO + Duration::from_secs(1000)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn host(text: &str) -> Candidate {
    Candidate { kind: CandidateKind::Host, addr: addr(text) }
}

fn direct(socket: SocketId, remote: &str) -> Via {
    Via::Direct { socket, remote: addr(remote) }
}

fn message(kind: ProbeKind, nonce: u64, len: usize) -> ProbeIn {
    ProbeIn { kind, nonce, len, observed: None }
}

fn punch(candidates: &[&str]) -> Punch {
    let mut punch = Punch::new(start(), &Seed::from_u64(1));
    punch.set_sockets(start(), &[(V4, Family::V4)]);
    punch.set_candidates(start(), candidates.iter().map(|text| host(text)).collect());
    punch
}

fn drain(punch: &mut Punch, now: Instant, budget: &mut Budget) -> Vec<ProbeOut> {
    std::iter::from_fn(|| punch.poll_probe(now, budget)).collect()
}

/// Introduces, lets the wait end, and returns the first full request on the way to `remote`.
fn asked(punch: &mut Punch, budget: &mut Budget) -> (Instant, ProbeOut) {
    punch.introduce(start());
    let primes = drain(punch, start(), budget);
    assert!(primes.iter().all(|probe| probe.ttl == Some(PRIME_TTL)), "{primes:?}");
    let now = start() + ms(300);
    punch.handle_timeout(now);
    let request = drain(punch, now, budget).into_iter().find(|probe| probe.ttl.is_none()).expect("a request");
    (now, request)
}

fn is_proven(punch: &Punch, now: Instant) -> bool {
    punch.paths(now).any(|path| path.via.is_direct() && path.proven.is_some())
}

// ---- proof ----

#[test]
fn only_the_echo_of_our_nonce_from_there_on_that_socket_proves_a_path() {
    let (there, elsewhere) = ("203.0.113.9:5000", "203.0.113.9:5001");
    let (mut punch, mut budget) = (punch(&[there]), Budget::new());
    let (now, request) = asked(&mut punch, &mut budget);
    let forged = [
        (direct(V4, there), message(ProbeKind::Echo, request.nonce ^ 1, MIN_LEN)),
        (direct(V4, there), message(ProbeKind::Echo, request.nonce, FULL_LEN)),
        (direct(V4, elsewhere), message(ProbeKind::Echo, request.nonce, MIN_LEN)),
        (direct(OTHER, there), message(ProbeKind::Echo, request.nonce, MIN_LEN)),
        (Via::Relay { server: RELAY }, message(ProbeKind::Echo, request.nonce, MIN_LEN)),
        (direct(V4, there), message(ProbeKind::Primed, request.nonce, MIN_LEN)),
        (direct(V4, there), message(ProbeKind::Request, request.nonce, MIN_LEN)),
    ];
    for (via, probe) in forged {
        punch.handle_probe(now + ms(5), via, None, &probe);
        assert!(!is_proven(&punch, now), "{via:?} {probe:?}");
        assert_eq!(punch.choice(), None);
    }
    punch.handle_probe(now + ms(5), direct(V4, there), None, &message(ProbeKind::Echo, request.nonce, MIN_LEN));
    assert!(is_proven(&punch, now));
    assert_eq!(punch.choice(), None, "a small echo is not enough for data");
}

#[test]
fn data_moves_only_after_a_full_size_echo() {
    moved("203.0.113.9:5000");
}

/// A peer behind a relay whose data has just moved to a direct path.
fn moved(there: &str) -> (Punch, Budget, Instant) {
    let (mut punch, mut budget) = (punch(&[there]), Budget::new());
    punch.relay_up(start(), RELAY);
    punch.introduce(start());
    drain(&mut punch, start(), &mut budget);
    punch.handle_probe(start(), Via::Relay { server: RELAY }, None, &message(ProbeKind::Primed, 1, MIN_LEN));
    let request = drain(&mut punch, start(), &mut budget).into_iter().find(|p| p.via.is_direct()).expect("asked");
    let now = start() + ms(20);
    punch.handle_probe(now, direct(V4, there), None, &message(ProbeKind::Echo, request.nonce, MIN_LEN));
    assert_eq!(punch.choice().map(|choice| choice.kind), Some(PathKind::Relay));
    let full = drain(&mut punch, now, &mut budget).into_iter().find(|p| p.len == FULL_LEN).expect("asked at full size");
    let now = now + ms(20);
    punch.handle_probe(now, direct(V4, there), None, &message(ProbeKind::Echo, full.nonce, MIN_LEN));
    assert_eq!(punch.choice().map(|choice| choice.kind), Some(PathKind::Relay), "a short echo of it proves nothing");
    punch.handle_probe(now, direct(V4, there), None, &message(ProbeKind::Echo, full.nonce, FULL_LEN));
    assert_eq!(punch.choice().map(|choice| choice.kind), Some(PathKind::Host));
    (punch, budget, now)
}

#[test]
fn a_candidate_that_comes_while_we_wait_is_waited_for_too() {
    let (old, new) = ("203.0.113.9:5000", "203.0.113.9:6000");
    let (mut punch, mut budget) = (punch(&[old]), Budget::new());
    punch.introduce(start());
    drain(&mut punch, start(), &mut budget);
    // The peer has begun anew: its NAT opens from now on, and what comes before that would spoil it.
    punch.set_candidates(start() + ms(290), vec![host(old), host(new)]);
    let mut asked_at = |after: u64| {
        let now = start() + ms(after);
        punch.handle_timeout(now);
        let out = drain(&mut punch, now, &mut budget);
        out.iter().any(|probe| probe.ttl.is_none() && probe.via == direct(V4, new))
    };
    assert_eq!([290, 300, 589, 590].map(&mut asked_at), [false, false, false, true]);
}

#[test]
fn who_hears_the_peer_by_a_relay_alone_wonders_with_it() {
    let there = "203.0.113.9:5000";
    let relay = Via::Relay { server: RELAY };
    for (direct_before, wonders) in [(ms(200), false), (ms(1200), true)] {
        // The last that was sent has been answered: no silence of its own to wonder at.
        let (mut punch, mut budget, now) = moved(there);
        punch.handle_timeout(now);
        drain(&mut punch, now, &mut budget);
        punch.received(now + ms(3000) - direct_before, direct(V4, there));
        let mut now = now + ms(3000);
        punch.handle_timeout(now);
        drain(&mut punch, now, &mut budget);
        punch.received(now, relay);
        let asks = |out: &[ProbeOut]| out.iter().any(|p| p.kind == ProbeKind::Request && p.via == direct(V4, there));
        assert_eq!(asks(&drain(&mut punch, now, &mut budget)), wonders);
        now += ms(500);
        punch.handle_timeout(now);
        let by_relay = punch.choice().is_some_and(|choice| choice.via == relay || choice.also == Some(relay));
        assert_eq!(by_relay, wonders, "{:?}", punch.choice());
    }
}

#[test]
fn a_request_is_echoed_at_its_own_length_the_way_it_came_and_asked_back() {
    let (mut punch, mut budget) = (punch(&[]), Budget::new());
    let stranger = direct(V4, "198.51.100.3:777");
    punch.handle_probe(start(), stranger, None, &message(ProbeKind::Request, 99, 200));
    assert_eq!(punch.poll_event(), Some(Event::PeerReflexive { addr: addr("198.51.100.3:777") }));
    let out = drain(&mut punch, start(), &mut budget);
    let observed = Some(addr("198.51.100.3:777"));
    assert_eq!(out[0], ProbeOut { via: stranger, kind: ProbeKind::Echo, nonce: 99, len: 200, ttl: None, observed });
    let mut asked: Vec<usize> = out[1..].iter().map(|probe| probe.len).collect();
    asked.sort_unstable();
    assert_eq!(asked, [MIN_LEN, FULL_LEN]);
    assert!(out.iter().all(|probe| probe.via == stranger));
}

#[test]
fn a_fruitless_peer_reflexive_address_is_forgotten() {
    let (mut punch, mut budget) = (punch(&[]), Budget::new());
    punch.handle_probe(start(), direct(V4, "198.51.100.3:777"), None, &message(ProbeKind::Request, 99, 62));
    let mut now = start();
    while let Some(wakeup) = punch.poll_timeout() {
        drain(&mut punch, now, &mut budget);
        now = wakeup.at.max(now) + ms(1);
        assert!(now < start() + Duration::from_secs(60), "{wakeup:?}");
        punch.handle_timeout(now);
    }
    punch.handle_timeout(now + Duration::from_secs(10));
    assert_eq!(punch.paths(now).count(), 0);
}

// ---- bounds ----

#[test]
fn a_flood_of_requests_from_everywhere_stays_bounded() {
    let (mut punch, mut budget) = (punch(&["203.0.113.9:5000"]), Budget::new());
    let mut sent = 0;
    for i in 0..20_000_u32 {
        let remote = SocketAddr::new(IpAddr::from(std::net::Ipv4Addr::from(0xC633_6400 + i / 200)), 1000);
        let remote = SocketAddr::new(remote.ip(), u16::try_from(1000 + i % 200).expect("small"));
        let now = start() + ms(u64::from(i) / 20);
        punch.handle_probe(now, Via::Direct { socket: V4, remote }, None, &message(ProbeKind::Request, 1, MIN_LEN));
        if i % 50 == 0 {
            sent += drain(&mut punch, now, &mut budget).len();
        }
        assert!(punch.paths(now).count() <= MAX_PEER_REFLEXIVE + 1);
        assert!(punch.echoes.len() <= MAX_ECHOES && punch.events.len() <= MAX_EVENTS);
    }
    assert!(sent < 1000, "{sent} answers to 20,000 requests in a second");
    assert!(punch.paths(start()).any(|path| path.kind == PathKind::Host), "announced ones are not evicted");
}

#[test]
fn restarting_searches_of_many_peers_cannot_exceed_the_budget_of_a_target() {
    let victim = addr("192.0.2.66:53").ip();
    let mut budget = Budget::new();
    let mut peers: Vec<Punch> = (0..10)
        .map(|peer| {
            let mut punch = Punch::new(start(), &Seed::from_u64(peer));
            punch.set_sockets(start(), &[(V4, Family::V4)]);
            punch
        })
        .collect();
    let mut sent = Vec::new();
    for step in 0..6000_u64 {
        let now = start() + ms(step * 50);
        for (i, punch) in peers.iter_mut().enumerate() {
            let port = |n: u64| u16::try_from(1000 + n % 60_000).expect("a port");
            // Every way to start again: new candidates, introductions, primed, requests and data that seem to come from there.
            let shift = if step % 7 == 0 { step } else { 0 };
            let candidates = (0..16).map(|n| Candidate {
                kind: CandidateKind::Host,
                addr: SocketAddr::new(victim, port(n + shift + 100 * i as u64)),
            });
            punch.set_candidates(now, candidates.collect());
            punch.introduce(now);
            punch.handle_probe(now, Via::Relay { server: RELAY }, None, &message(ProbeKind::Primed, 1, MIN_LEN));
            let via = Via::Direct { socket: V4, remote: SocketAddr::new(victim, port(step)) };
            punch.handle_probe(now, via, None, &message(ProbeKind::Request, step, MIN_LEN));
            punch.received(now, via);
            punch.handle_timeout(now);
            let requests = drain(punch, now, &mut budget).into_iter().filter(|p| p.kind == ProbeKind::Request);
            sent.extend(requests.map(|_| now));
        }
    }
    let mut worst = 0;
    for (i, first) in sent.iter().enumerate() {
        worst = worst.max(sent[i..].iter().take_while(|at| **at - *first < Duration::from_secs(60)).count());
    }
    assert!((50..=60).contains(&worst), "{worst} probes in a minute");
}

#[test]
fn a_repeated_introduction_means_nothing() {
    let (mut punch, mut budget) = (punch(&["203.0.113.9:5000"]), Budget::new());
    punch.relay_up(start(), RELAY);
    let relay = Via::Relay { server: RELAY };
    let mut sent = 0;
    for i in 0..14 {
        let now = start() + ms(i * 100);
        punch.introduce(now);
        punch.handle_probe(now, relay, None, &message(ProbeKind::Primed, 1, MIN_LEN));
        punch.handle_timeout(now);
        sent += drain(&mut punch, now, &mut budget).iter().filter(|p| p.via.is_direct()).count();
    }
    assert_eq!(sent, 1 + 5, "one prime, and the rungs that 100 ms steps see");
}

// ---- relays ----

// ---- anything at all ----

#[derive(Clone, Debug)]
enum Stimulus {
    Probe(u8, u8, u8, bool),
    /// Echoes a request that was really sent.
    Honest(u8),
    Data(u8),
    Received(u8),
    Introduce,
    Candidates(u8),
    Sockets(u8),
    Relay(u8, bool),
    Stop,
    Wait(u16),
    Wake,
}

fn stimulus() -> impl Strategy<Value = Stimulus> {
    prop_oneof![
        any::<(u8, u8, u8, bool)>().prop_map(|(a, b, c, d)| Stimulus::Probe(a, b, c, d)),
        any::<u8>().prop_map(Stimulus::Honest),
        any::<u8>().prop_map(Stimulus::Honest),
        any::<u8>().prop_map(Stimulus::Data),
        any::<u8>().prop_map(Stimulus::Received),
        Just(Stimulus::Introduce),
        any::<u8>().prop_map(Stimulus::Candidates),
        any::<u8>().prop_map(Stimulus::Sockets),
        any::<(u8, bool)>().prop_map(|(server, up)| Stimulus::Relay(server, up)),
        Just(Stimulus::Stop),
        any::<u16>().prop_map(Stimulus::Wait),
        Just(Stimulus::Wake),
        Just(Stimulus::Wake),
    ]
}

fn some_via(n: u8) -> Via {
    if n.is_multiple_of(8) {
        return Via::Relay { server: ServerId(u16::from(n / 8 % 3)) };
    }
    let remote = if n % 8 == 1 { format!("[2001:db8::{n:x}]:9") } else { format!("203.0.113.{}:9", n % 32) };
    Via::Direct { socket: SocketId(u16::from(n % 8 == 1)), remote: addr(&remote) }
}

fn apply(punch: &mut Punch, now: &mut Instant, sent: &[ProbeOut], stimulus: &Stimulus) {
    match *stimulus {
        Stimulus::Probe(via, kind, nonce, full) => {
            let kind = [ProbeKind::Request, ProbeKind::Echo, ProbeKind::Primed][usize::from(kind % 3)];
            let len = if full { FULL_LEN } else { MIN_LEN };
            punch.handle_probe(*now, some_via(via), None, &message(kind, u64::from(nonce), len));
        }
        Stimulus::Honest(i) if !sent.is_empty() => {
            let probe = sent[sent.len() - 1 - usize::from(i) % sent.len().min(8)];
            punch.handle_probe(*now, probe.via, None, &message(ProbeKind::Echo, probe.nonce, probe.len));
        }
        Stimulus::Honest(_) | Stimulus::Wake => {
            if let Some(wakeup) = punch.poll_timeout() {
                *now = wakeup.at.max(*now);
            }
            punch.handle_timeout(*now);
        }
        Stimulus::Data(via) => {
            let via = punch.choice().map_or(some_via(via), |choice| choice.via);
            punch.data_sent(*now, via);
        }
        Stimulus::Received(via) => punch.received(*now, some_via(via)),
        Stimulus::Introduce => punch.introduce(*now),
        Stimulus::Candidates(n) => {
            let addrs = (n..n.saturating_add(n % 20)).filter_map(|n| some_via(n).remote());
            punch.set_candidates(*now, addrs.map(|addr| Candidate { kind: CandidateKind::Reflexive, addr }).collect());
        }
        Stimulus::Sockets(n) => {
            let both = [(SocketId(0), Family::V4), (SocketId(1), Family::V6)];
            punch.set_sockets(*now, &both[..usize::from(n % 3)]);
        }
        Stimulus::Relay(server, true) => punch.relay_up(*now, ServerId(u16::from(server % 3))),
        Stimulus::Relay(server, false) => punch.relay_down(*now, ServerId(u16::from(server % 3))),
        Stimulus::Stop => punch.stop(*now),
        Stimulus::Wait(ms) => *now += Duration::from_millis(u64::from(ms)),
    }
}

proptest! {
    #[test]
    fn in_any_order_of_events_it_stays_bounded_and_never_spins(stimuli in prop::collection::vec(stimulus(), 1..200)) {
        let (mut punch, mut budget, mut now) = (punch(&["203.0.113.9:9"]), Budget::new(), start());
        let mut sent: Vec<ProbeOut> = Vec::new();
        for stimulus in &stimuli {
            apply(&mut punch, &mut now, &sent, stimulus);
            for turn in 0..2 {
                let out = drain(&mut punch, now, &mut budget);
                prop_assert!(out.len() < 200);
                sent.extend(out.into_iter().filter(|probe| probe.kind == ProbeKind::Request));
                while punch.poll_keepalive().is_some() {}
                while punch.poll_event().is_some() {}
                if turn == 0 {
                    punch.handle_timeout(now);
                }
            }
            let wakeup = punch.poll_timeout();
            prop_assert!(wakeup.is_none_or(|wakeup| wakeup.at > now), "{wakeup:?} at {now:?} after {stimulus:?}");
            prop_assert!(punch.paths(now).count() <= MAX_CANDIDATES * MAX_SOCKETS + MAX_PEER_REFLEXIVE + MAX_RELAYS);
            if let Some(choice) = punch.choice() {
                let path = punch.paths(now).find(|path| path.via == choice.via).expect("the choice is a path");
                prop_assert!(path.usable);
                prop_assert!(choice.also.is_none_or(|also| choice.via.is_direct() && !also.is_direct()));
            }
        }
    }
}

#[test]
fn a_stream_is_usable_by_the_first_echo_and_outlives_other_candidates() {
    let (mut punch, mut budget) = (punch(&["198.51.100.1:9"]), Budget::new());
    let (stream, remote) = (SocketId::FIRST_STREAM, addr("203.0.113.9:40000"));
    punch.stream_up(start(), stream, remote);
    punch.set_candidates(start(), vec![host("198.51.100.2:9")]);
    assert!(punch.uses(stream), "it may lead there yet");
    let via = Via::Direct { socket: stream, remote };
    let requests = drain(&mut punch, start(), &mut budget);
    let small = requests.iter().find(|probe| probe.via == via && probe.len == MIN_LEN).expect("asked");
    let now = start() + ms(900);
    punch.handle_probe(now, via, None, &message(ProbeKind::Echo, small.nonce, MIN_LEN));
    assert_eq!(punch.choice().map(|choice| choice.via), Some(via));
    for second in 2..9 {
        punch.handle_timeout(start() + Duration::from_secs(second));
    }
    assert!(punch.paths(now).all(|path| !path.narrow), "size is nothing to a stream");
}
