//! A member with a public address carries between two whom no router lets meet, where the rendezvous is far.
//!
//! ```text
//!   alice ── symmetric ─┐
//!   bob ──── symmetric ─┼─ core ── 50 ms ── rendezvous
//!   carol ── public ────┘
//! ```

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use punchlan::node::status::{PeerState, Status};

use crate::lab::programs::{Network, Peer};
use crate::lab::pulse::{Pulse, wall};
use crate::lab::wire::{SETTLE, Wire};
use crate::lab::{Gateway, Lab, RENDEZVOUS, netns};
use crate::meeting::{between, through_rendezvous};
use crate::seamless::{Flow, flow};
use crate::traffic::{file_digest, send_file};
use crate::{shared_turn, turn};

const PATIENCE: Duration = Duration::from_secs(20);
const FAR: Duration = Duration::from_millis(50);
/// The promise.
const SILENCE: Duration = Duration::from_secs(3);
const CALM: Duration = Duration::from_secs(8);
const PINGS: u32 = 25;

fn lab() -> Lab {
    let mut lab = Lab::new(&[Gateway::Symmetric, Gateway::Symmetric, Gateway::Public]).unwrap();
    lab.delay(FAR, false).unwrap();
    lab
}

fn join<'a>(network: &Network, lab: &'a Lab, name: &str, number: u8) -> Peer<'a> {
    network.join(lab.host(usize::from(number) - 1), name, number).unwrap()
}

/// Through whom this peer reaches the other.
fn relay(status: &Status, other: &str) -> Option<String> {
    status.peers.iter().find(|peer| peer.name == other)?.path.as_ref()?.relay.clone()
}

/// Waits until each of the two reaches the other through `by`.
fn go_through(alice: &Peer<'_>, bob: &Peer<'_>, by: &str, patience: Duration) -> Result<Status> {
    bob.await_status(&format!("the way by {by}"), patience, |status| relay(status, "alice").as_deref() == Some(by))?;
    alice.await_status(&format!("the way by {by}"), patience, |status| relay(status, "bob").as_deref() == Some(by))
}

/// What carol's net.toml says of relaying, from now on.
fn reload(carol: &Peer<'_>, relay: &str) -> Result<String> {
    let net_toml = carol.folder().join("net.toml");
    let text = std::fs::read_to_string(&net_toml)?;
    let own = text.split("[relay]").next().unwrap_or_default();
    std::fs::write(&net_toml, format!("{own}[relay]\n{relay}\n"))?;
    Ok(String::from_utf8(netns::run(&mut carol.command(&["reload"]))?.stdout)?)
}

#[test]
fn a_member_carries_where_the_rendezvous_is_far_and_either_may_go() {
    let _turn = shared_turn();
    let lab = lab();
    let mut network = Network::start(&lab).unwrap();
    let rendezvous = format!("{RENDEZVOUS}:3478");
    let [alice, bob, mut carol] =
        [("alice", 1), ("bob", 2), ("carol", 3)].map(|(name, n)| join(&network, &lab, name, n));
    bob.await_peer("alice", PeerState::Relayed, PATIENCE).unwrap();
    let status = go_through(&alice, &bob, "carol", PATIENCE).unwrap();
    let path = status.peers.iter().find(|peer| peer.name == "bob").and_then(|peer| peer.path.clone()).unwrap();
    assert_eq!(Some(path.remote.ip()), carol.host.public_v4.map(Into::into), "{path:?}");
    let quick = |status: &Status| status.peers.iter().any(|peer| peer.name == "bob" && peer.rtt_ms < Some(40.0));
    alice.await_status("a short round trip", PATIENCE, quick).unwrap();

    let wire = Wire::tap(&lab).unwrap();
    assert_eq!(bob.ping(alice.address.into(), PINGS).unwrap(), PINGS);
    std::thread::sleep(SETTLE);
    for end in [&alice, &bob] {
        let count = between(&wire, end.host, carol.host);
        assert!(count.there.len() >= PINGS as usize && count.back.len() >= PINGS as usize, "{}", end.name);
        assert_eq!(through_rendezvous(&wire, end.host), 0, "{}", end.name);
    }
    assert_eq!(between(&wire, alice.host, bob.host).there.len(), 0);
    drop(wire);

    let said = reload(&carol, "mbit = 1000").unwrap();
    assert!(said.contains("[relay] mbit: 1000 from now on"), "{said}");
    assert_eq!(send_file(&alice, &bob, (alice.address, 7000).into()).unwrap(), file_digest());
    let carries = carol.status().unwrap().me.carries;
    assert!(carries.pairs == 1 && carries.bytes > 10_000_000, "{carries:?}");
    assert_eq!(relay(&alice.status().unwrap(), "bob").as_deref(), Some("carol"), "all of it went by carol");

    let pulse = Pulse::start(&alice.host.netns, bob.address, &alice.folder().join("pulse")).unwrap();
    std::thread::sleep(CALM);
    let start = wall();
    carol.program.end(Signal::SIGKILL).unwrap();
    go_through(&alice, &bob, &rendezvous, PATIENCE).unwrap();
    std::thread::sleep(CALM);
    let gap = pulse.longest_gap(start);
    println!("carol killed: silent for {gap:?}");
    assert!(gap <= SILENCE, "{gap:?}");

    drop(carol);
    let carol = network.join(lab.host(2), "carol", 3).unwrap();
    go_through(&alice, &bob, "carol", PATIENCE * 3).unwrap();
    let start = wall();
    network.rendezvous.take().unwrap().end(Signal::SIGKILL).unwrap();
    std::thread::sleep(CALM * 5);
    let gap = pulse.longest_gap(start);
    println!("rendezvous killed: silent for {gap:?}");
    assert!(gap <= SILENCE, "{gap:?}");
    go_through(&alice, &bob, "carol", PATIENCE).unwrap();

    network.start_rendezvous(&lab.rendezvous).unwrap();
    let said = reload(&carol, "offer = false").unwrap();
    assert!(said.contains("[relay] offer: false from now on"), "{said}");
    go_through(&alice, &bob, &rendezvous, PATIENCE * 3).unwrap();
    let why = netns::run(&mut alice.command(&["why", "bob"])).unwrap();
    let why = String::from_utf8(why.stdout).unwrap();
    println!("{why}");
    assert!(why.contains("carol could relay, and is told not to"), "{why}");
}

#[test]
fn a_flow_that_goes_over_to_a_member_loses_nothing() {
    let _turn = turn();
    let lab = lab();
    let network = Network::start(&lab).unwrap();
    let [alice, bob] = [("alice", 1), ("bob", 2)].map(|(name, n)| join(&network, &lab, name, n));
    alice.await_peer("bob", PeerState::Relayed, PATIENCE).unwrap();
    bob.await_peer("alice", PeerState::Relayed, PATIENCE).unwrap();
    let (flow, _carol) = std::thread::scope(|scope| {
        let carol = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(2));
            network.join(lab.host(2), "carol", 3).unwrap()
        });
        (flow(&alice, &bob, 8_000).unwrap(), carol.join().unwrap())
    });
    for (peer, other) in [(&alice, "bob"), (&bob, "alice")] {
        assert_eq!(relay(&peer.status().unwrap(), other).as_deref(), Some("carol"));
    }
    assert_eq!(flow, Flow { lost: 0, doubled: 0 });
}
