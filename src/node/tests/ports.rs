//! What a member can have others send by telling of ports.

use super::*;
use crate::id::ServerId;
use crate::nat::NextPorts;
use crate::wire::probe::MIN_LEN;

/// Where a rendezvous sees mallory.
const SEEN: ([u8; 4], u16) = ([203, 0, 113, 9], 41_641);

/// Alice, who reaches mallory by a relay alone, and mallory's id.
pub(super) fn relayed(seen: Option<SocketAddr>) -> (Lan, PeerId) {
    let mut lan = pair();
    let (now, mallory) = (lan.now, lan.hosts[1].1.my_id());
    let peer = lan.node(0).peers.get_mut(&mallory).expect("known");
    peer.punch.stop(now);
    peer.punch.relay_up(now, ServerId(0));
    peer.listed.insert(ServerId(0), seen);
    (lan, mallory)
}

/// Where alice sends probes in so much time, with nobody to answer.
fn probed(lan: &mut Lan, time: Duration) -> Vec<(Instant, SocketAddr)> {
    let end = lan.now + time;
    let mut sent = Vec::new();
    loop {
        let (now, node) = (lan.now, &mut lan.hosts[0].1);
        while node.poll_action().is_some() {}
        let probes = std::iter::from_fn(|| node.poll_transmit()).filter(|t| t.payload.len() == MIN_LEN);
        sent.extend(probes.map(|t| (now, t.to)));
        match node.poll_timeout().filter(|wakeup| wakeup.at <= end) {
            Some(wakeup) => lan.now = now.max(wakeup.at),
            None => break,
        }
        node.handle_timeout(lan.now);
    }
    lan.now = end;
    sent
}

fn introduce(lan: &mut Lan, id: &PeerId) {
    let now = lan.now;
    lan.node(0).introduced(now, id);
}

fn tell(lan: &mut Lan, mallory: &PeerId, ports: NextPorts) {
    let now = lan.now;
    lan.node(0).told_to_look(now, mallory, ports, 256);
}

#[test]
fn ports_are_looked_for_once_an_introduction_and_only_where_a_rendezvous_sees_the_peer() {
    let (mut lan, mallory) = relayed(Some(SEEN.into()));
    tell(&mut lan, &mallory, NextPorts::ANY);
    assert_eq!(probed(&mut lan, Duration::from_secs(5)).len(), 0, "nobody introduced her");
    for introduction in 1..=4 {
        introduce(&mut lan, &mallory);
        for _ in 0..20 {
            tell(&mut lan, &mallory, NextPorts::ANY);
        }
        let sent = probed(&mut lan, Duration::from_secs(5));
        assert!(sent.iter().all(|(_, to)| to.ip() == IpAddr::from(SEEN.0) && to.port() >= 1_024));
        // What one address may get is over during the second, and the little that comes back is not spent on a third.
        let most = [1_000, 515, 0, 0][introduction - 1];
        assert!(sent.len() <= most && sent.len() + 20 >= most, "{introduction}: {}", sent.len());
        for (first, _) in &sent {
            let second = sent.iter().filter(|(at, _)| *at >= *first && *at - *first < Duration::from_secs(1)).count();
            assert!(second <= 500, "{second} in a second");
        }
    }
}

#[test]
fn who_is_seen_by_no_rendezvous_or_is_reached_directly_is_not_looked_for() {
    for seen in [None, Some("[2001:db8::9]:41641".parse().expect("address"))] {
        let (mut lan, mallory) = relayed(seen);
        introduce(&mut lan, &mallory);
        tell(&mut lan, &mallory, NextPorts::ANY);
        assert_eq!(probed(&mut lan, Duration::from_secs(5)).len(), 0);
    }
    let mut lan = pair();
    let bob = lan.hosts[1].1.my_id();
    lan.node(0).peers.get_mut(&bob).expect("known").listed.insert(ServerId(0), Some(SEEN.into()));
    introduce(&mut lan, &bob);
    tell(&mut lan, &bob, NextPorts::ANY);
    assert!(probed(&mut lan, Duration::from_millis(100)).iter().all(|(_, to)| to.ip() != IpAddr::from(SEEN.0)));
}

#[test]
fn a_word_of_ports_opens_no_socket_without_a_rendezvous_to_ask_and_is_answered_seldom() {
    let (mut lan, mallory) = relayed(Some(SEEN.into()));
    introduce(&mut lan, &mallory);
    for _ in 0..100 {
        let now = lan.now;
        lan.node(0).told_ports(now, &mallory, (NextPorts::ANY, true), true);
        lan.node(0).handle_timeout(now);
    }
    let actions = std::iter::from_fn(|| lan.node(0).poll_action());
    assert_eq!(actions.filter(|action| matches!(action, Action::OpenSockets { .. })).count(), 0);
    lan.node(0).nat = nat_that_keeps_ports();
    let before = lan.node(0).transmits.len();
    for _ in 0..100 {
        let now = lan.now;
        lan.node(0).told_ports(now, &mallory, (NextPorts::ANY, true), true);
    }
    assert!(lan.node(0).transmits.len() - before <= 5, "no more than its rate");
}

fn nat_that_keeps_ports() -> super::super::nat::NatWatch {
    super::super::nat::NatWatch::that_found(crate::nat::Traits { translates: Some(false), ..Default::default() })
}

/// So many more members, reached by a relay alone and seen somewhere; none was met before.
fn strangers(lan: &mut Lan, count: u8) -> Vec<PeerId> {
    let now = lan.now;
    let mut ids = Vec::new();
    for n in 0..count {
        let signed = Setup::new(100 + n, "stranger").signed();
        let signed = announcement::verify_member(&signed, &lan.node(0).shared.identity.network).expect("a member");
        let id = signed.peer;
        lan.node(0).learn(now, signed);
        lan.node(0).ports.waiting.push_back(id);
        ids.push(id);
    }
    ids
}

#[test]
fn a_queue_full_of_strangers_keeps_nobody_out_who_was_met_before() {
    let (mut lan, mallory) = relayed(Some(SEEN.into()));
    introduce(&mut lan, &mallory);
    let now = lan.now;
    lan.node(0).peers.get_mut(&mallory).expect("known").senior = false;
    let ids = strangers(&mut lan, 64);
    lan.node(0).punching_is_stuck(now, &mallory);
    assert!(!lan.node(0).ports.waiting.contains(&mallory), "one more stranger");
    lan.node(0).peers.get_mut(&mallory).expect("known").senior = true;
    lan.node(0).punching_is_stuck(now, &mallory);
    let waiting = &lan.node(0).ports.waiting;
    assert!(waiting.contains(&mallory) && !waiting.contains(&ids[63]) && waiting.len() == 64);
}

#[test]
fn who_says_goodbye_is_looked_for_no_longer() {
    let (mut lan, mallory) = relayed(Some(SEEN.into()));
    introduce(&mut lan, &mallory);
    tell(&mut lan, &mallory, NextPorts::ANY);
    let before = probed(&mut lan, Duration::from_millis(200)).len();
    let now = lan.now;
    lan.node(0).peer_left(now, &mallory);
    let after = probed(&mut lan, Duration::from_secs(5)).len();
    assert!(before > 50 && after == 0, "{before}, then {after}");
}

#[test]
fn sockets_that_come_when_the_search_has_ended_are_closed_again() {
    let (mut lan, _) = relayed(Some(SEEN.into()));
    let (now, sockets) = (lan.now, vec![(SocketId(2), 50_000), (SocketId(3), 50_001)]);
    lan.node(0).handle_done(now, Done::SocketsOpened { attempt: 1, sockets });
    let mut closed = Vec::new();
    for _ in 0..20 {
        lan.now += Duration::from_secs(1);
        let now = lan.now;
        lan.node(0).handle_timeout(now);
        closed.extend(std::iter::from_fn(|| lan.node(0).poll_action()).filter_map(|action| match action {
            Action::CloseSockets(sockets) => Some(sockets),
            _ => None,
        }));
    }
    assert_eq!(closed, [vec![SocketId(2), SocketId(3)]]);
}
