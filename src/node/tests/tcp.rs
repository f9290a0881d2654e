//! What others can do with our readiness to connect by TCP.

use super::*;
use crate::id::ServerId;
use crate::tcp::{MOST_PLACES, SYNS};
use crate::wire::announcement::encode_candidates;
use crate::wire::probe::MIN_LEN;

const PORT: u16 = 52_000;
const STREAM: SocketId = SocketId::FIRST_STREAM;

/// Alice, who reaches mallory by a relay alone, and mallory's id.
fn relayed() -> (Lan, PeerId) {
    let mut lan = pair();
    let (now, mallory) = (lan.now, lan.hosts[1].1.my_id());
    let peer = lan.node(0).peers.get_mut(&mallory).expect("known");
    peer.punch.stop(now);
    peer.punch.relay_up(now, ServerId(0));
    (lan, mallory)
}

fn place(text: &str) -> Candidate {
    Candidate { kind: CandidateKind::Host, addr: text.parse().expect("address") }
}

/// Mallory says that she listens there.
fn tell(lan: &mut Lan, mallory: &PeerId, places: &[Candidate]) {
    let now = lan.now;
    lan.node(0).told_tcp(now, mallory, true, &encode_candidates(places));
}

/// What alice does in so much time, with a port to listen on and nobody who answers.
fn done(lan: &mut Lan, time: Duration) -> Vec<(Instant, Action)> {
    let end = lan.now + time;
    let mut all = Vec::new();
    loop {
        let (now, node) = (lan.now, &mut lan.hosts[0].1);
        while let Some(action) = node.poll_action() {
            match &action {
                Action::Listen => node.handle_done(now, Done::Listening(Ok(PORT))),
                Action::Dial { attempt, .. } => {
                    let (attempt, result) = (*attempt, Err("does not answer".to_owned()));
                    node.handle_done(now, Done::Dialled { attempt, result });
                }
                _ => {}
            }
            all.push((now, action));
        }
        while node.poll_transmit().is_some() {}
        match node.poll_timeout().filter(|wakeup| wakeup.at <= end) {
            Some(wakeup) => lan.now = now.max(wakeup.at),
            None => break,
        }
        node.handle_timeout(lan.now);
    }
    lan.now = end;
    all
}

fn dialled(done: &[(Instant, Action)]) -> Vec<(Instant, SocketAddr)> {
    let to = |(at, action): &(Instant, Action)| match action {
        Action::Dial { to, .. } => Some((*at, *to)),
        _ => None,
    };
    done.iter().filter_map(to).collect()
}

#[test]
fn who_names_somebody_else_has_us_knock_there_within_the_budget_and_never_at_a_service() {
    let (mut lan, mallory) = relayed();
    let victim: Vec<Candidate> = (0..16).map(|n| place(&format!("203.0.113.9:{}", 40_000 + n))).collect();
    let services = ["203.0.113.8:22", "203.0.113.8:443", "203.0.113.8:1023"].map(place);
    let mut knocks = Vec::new();
    for _ in 0..600 {
        tell(&mut lan, &mallory, &[&services[..], &victim].concat());
        knocks.extend(dialled(&done(&mut lan, Duration::from_secs(1))));
    }
    assert!(knocks.len() > MOST_PLACES && knocks.iter().all(|(_, to)| to.ip() == victim[0].addr.ip()), "{knocks:?}");
    for (first, _) in &knocks {
        let minute = knocks.iter().filter(|(at, _)| at >= first && *at - *first < Duration::from_mins(1)).count();
        assert!(minute * SYNS as usize <= 60, "{minute} in a minute");
    }
}

#[test]
fn a_service_near_us_is_no_peer() {
    let (mut lan, mallory) = relayed();
    let near = lan.node(0).gather.candidates()[0].addr.ip();
    let places = [9_100, 8_080, 32_767, 40_000]
        .map(|port| Candidate { kind: CandidateKind::Host, addr: SocketAddr::new(near, port) });
    tell(&mut lan, &mallory, &places);
    let knocks = dialled(&done(&mut lan, Duration::from_secs(5)));
    assert_eq!(knocks.iter().map(|(_, to)| to.port()).collect::<Vec<_>>(), [40_000]);
}

#[test]
fn who_is_reached_directly_as_yet_follows_as_soon_as_that_is_over() {
    let mut lan = pair();
    let mallory = lan.hosts[1].1.my_id();
    tell(&mut lan, &mallory, &[place("203.0.113.9:40000")]);
    assert_eq!(dialled(&done(&mut lan, Duration::from_millis(1))), []);
    let now = lan.now;
    let peer = lan.node(0).peers.get_mut(&mallory).expect("known");
    peer.punch.stop(now);
    peer.punch.relay_up(now, ServerId(0));
    tell(&mut lan, &mallory, &[place("203.0.113.9:40000")]);
    assert_ne!(dialled(&done(&mut lan, Duration::from_secs(1))), []);
}

#[test]
fn a_connection_of_nobodys_is_ended_and_the_port_is_closed_when_nobody_wants_it() {
    let (mut lan, mallory) = relayed();
    tell(&mut lan, &mallory, &[place("203.0.113.9:40000")]);
    let begun = done(&mut lan, Duration::from_secs(1));
    assert!(begun.iter().any(|(_, action)| *action == Action::Listen));
    let now = lan.now;
    lan.node(0).handle_done(now, Done::Accepted { socket: STREAM, from: "198.51.100.7:9".parse().expect("address") });
    let ended = done(&mut lan, Duration::from_secs(30));
    let has = |wanted: &Action| ended.iter().find(|(_, action)| action == wanted).map(|(at, _)| *at - now);
    assert!(has(&Action::Disconnect(STREAM)).is_some_and(|after| after <= Duration::from_secs(10)), "{ended:?}");
    assert!(has(&Action::StopListening).is_some(), "{ended:?}");
    assert_eq!(dialled(&done(&mut lan, Duration::from_secs(30))), []);
}

#[test]
fn garbage_by_a_connection_is_counted_and_changes_nothing() {
    let (mut lan, mallory) = relayed();
    tell(&mut lan, &mallory, &[place("203.0.113.9:40000")]);
    drop(done(&mut lan, Duration::from_secs(1)));
    let (now, from) = (lan.now, "198.51.100.7:9".parse().expect("address"));
    lan.node(0).handle_done(now, Done::Accepted { socket: STREAM, from });
    for first in 0..=u8::MAX {
        let mut payload = vec![first; 100];
        let datagram = Datagram { socket: STREAM, local: None, from, payload: &mut payload };
        lan.node(0).handle_datagram(now, datagram);
    }
    assert!(lan.node(0).peers.values().all(|peer| !peer.punch.uses(STREAM)));
    let never = SocketId(STREAM.0 + 1);
    let mut payload = vec![kind::PROBE; MIN_LEN];
    let dropped = lan.node(0).dropped("malformed");
    lan.node(0).handle_datagram(now, Datagram { socket: never, local: None, from, payload: &mut payload });
    assert_eq!(lan.node(0).dropped("malformed"), dropped + 1, "of a stream that nobody told of");
}

#[test]
fn places_that_cannot_be_read_are_counted() {
    let (mut lan, mallory) = relayed();
    let now = lan.now;
    lan.node(0).told_tcp(now, &mallory, true, &[17]);
    assert_eq!(lan.node(0).dropped("malformed"), 1);
    assert_eq!(dialled(&done(&mut lan, Duration::from_secs(5))), []);
}

#[test]
fn what_comes_through_an_overlay_is_no_way_to_a_peer_by_stream_or_by_udp() {
    let (mut lan, _) = relayed();
    let (now, from) = (lan.now, "10.77.0.9:4000".parse().expect("address"));
    lan.node(0).handle_done(now, Done::Accepted { socket: STREAM, from });
    let done = done(&mut lan, Duration::from_millis(1));
    assert!(done.iter().any(|(_, action)| *action == Action::Disconnect(STREAM)), "{done:?}");
    let mut payload = vec![kind::PROBE; MIN_LEN];
    let now = lan.now;
    lan.node(0).handle_datagram(now, Datagram { socket: SocketId(0), local: None, from, payload: &mut payload });
    assert_eq!(lan.node(0).dropped("through-overlay"), 1);
}
