//! When the router is asked to map the port for TCP hole punching.

use super::ports::relayed;
use super::*;
use crate::wire::announcement::encode_candidates;

const SECOND: Duration = Duration::from_secs(1);

fn mapping(external: &str) -> Result<PortMapping, String> {
    Ok(PortMapping {
        protocol: MappingProtocol::Pcp,
        gateway: "192.168.1.1".parse().expect("address"),
        external: external.parse().expect("address"),
        lifetime: Some(Duration::from_hours(1)),
        epoch: None,
    })
}

/// What alice asks of the router for so long, with nobody to answer.
fn asks(lan: &mut Lan, time: Duration) -> Vec<Action> {
    let end = lan.now + time;
    let (now, node) = (&mut lan.now, &mut lan.hosts[0].1);
    let mut asked = Vec::new();
    loop {
        asked.extend(std::iter::from_fn(|| node.poll_action()));
        match node.poll_timeout().filter(|wakeup| wakeup.at <= end) {
            Some(wakeup) => *now = wakeup.at.max(*now),
            None => break,
        }
        node.handle_timeout(*now);
    }
    *now = end;
    asked.retain(|action| matches!(action, Action::MapPort { .. } | Action::UnmapPort(_)));
    asked
}

fn want_mappings(lan: &mut Lan, port_mapping: bool) {
    let now = lan.now;
    lan.node(0).handle_command(now, Command::Reconfigure(Changeable { port_mapping, ..changeable() }));
}

fn answer(lan: &mut Lan, transport: Transport, attempt: u64, result: Result<PortMapping, String>) {
    let now = lan.now;
    lan.node(0).handle_done(now, Done::PortMapped { transport, attempt, result });
}

/// Mallory begins to punch by TCP, and alice follows, on this port.
fn punch(lan: &mut Lan, mallory: &PeerId, port: u16) {
    let now = lan.now;
    lan.node(0).told_tcp(now, mallory, false, &encode_candidates(&[]));
    assert!(std::iter::from_fn(|| lan.node(0).poll_action()).any(|action| action == Action::Listen));
    lan.node(0).handle_done(now, Done::Listening(Ok(port)));
}

/// In how long an attempt has something to do.
fn pause(lan: &mut Lan) -> Duration {
    let now = lan.now;
    lan.node(0).tcp.poll_timeout().expect("an attempt is made").at - now
}

#[test]
fn a_port_for_tcp_is_mapped_where_one_for_udp_is_and_given_back_when_it_is_closed() {
    let (mut lan, mallory) = relayed(None);
    let asks_for = |transport, attempt, port| [Action::MapPort { transport, attempt, port }];
    want_mappings(&mut lan, true);
    assert_eq!(asks(&mut lan, SECOND), asks_for(Transport::Udp, 1, 4000));
    punch(&mut lan, &mallory, 5000);
    assert_eq!(asks(&mut lan, SECOND), [], "nobody knows whether this router maps ports");
    answer(&mut lan, Transport::Udp, 1, mapping("203.0.113.9:20384"));
    assert_eq!(asks(&mut lan, SECOND), asks_for(Transport::Tcp, 1, 5000));
    answer(&mut lan, Transport::Tcp, 1, mapping("203.0.113.9:21384"));
    // That is too late for this attempt, and not for another one at once.
    assert_eq!(asks(&mut lan, SECOND * 10), []);
    assert_eq!(lan.node(0).tcp.port(), Some(5000));
    assert_eq!(asks(&mut lan, SECOND * 10), [Action::UnmapPort(Transport::Tcp)]);
    assert_eq!(lan.node(0).tcp.port(), None);

    // The next waits for the answer, and has the port back with that for UDP when the user wants neither.
    punch(&mut lan, &mallory, 5001);
    assert_eq!(pause(&mut lan), SECOND * 3);
    assert_eq!(asks(&mut lan, SECOND), asks_for(Transport::Tcp, 2, 5001));
    answer(&mut lan, Transport::Tcp, 2, Err("the router says no".to_owned()));
    assert!(pause(&mut lan) < SECOND, "its places are told");
    want_mappings(&mut lan, false);
    assert_eq!(asks(&mut lan, SECOND), [Transport::Udp, Transport::Tcp].map(Action::UnmapPort));
    assert!(lan.node(0).tcp.port().is_some());
}

#[test]
fn who_leaves_gives_back_the_port_for_tcp_too() {
    let (mut lan, mallory) = relayed(None);
    want_mappings(&mut lan, true);
    asks(&mut lan, SECOND);
    answer(&mut lan, Transport::Udp, 1, mapping("203.0.113.9:20384"));
    punch(&mut lan, &mallory, 5000);
    asks(&mut lan, SECOND);
    let now = lan.now;
    lan.node(0).handle_command(now, Command::Leave);
    assert_eq!(asks(&mut lan, SECOND), [Transport::Udp, Transport::Tcp].map(Action::UnmapPort));
}
