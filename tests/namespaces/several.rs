//! Three rendezvous in one net.toml are killed one by one, while a direct and a relayed pair talk and while peers join.
//!
//! ```text
//!   alice ── port-restricted ─┐         ┌── port-restricted ── bob      alice and bob direct,
//!                             core ─────┤                               each of them and carol relayed
//!   carol ── symmetric ───────┘         └── port-restricted ── erin     erin comes between two deaths
//! ```

use std::time::Duration;

use nix::sys::signal::Signal;
use punchlan::node::status::{PeerState, RendezvousState};

use crate::lab::programs::{Network, Program};
use crate::lab::pulse::{Pulse, wall};
use crate::lab::{Gateway, Lab, RENDEZVOUS};
use crate::turn;

const PATIENCE: Duration = Duration::from_secs(20);
/// The promise.
const SILENCE: Duration = Duration::from_secs(3);
const CALM: Duration = Duration::from_secs(8);

#[test]
fn three_rendezvous_killed_one_by_one_cost_a_moment_each_and_newcomers_meet_by_any() {
    let _turn = turn();
    let lab = Lab::new(&[Gateway::Symmetric, Gateway::FullCone, Gateway::Symmetric, Gateway::FullCone]).unwrap();
    let mut network = Network::without_rendezvous().unwrap();
    let ports = [3_478, 3_479, 3_480];
    network.servers = ports.map(|port| format!("{RENDEZVOUS}:{port}")).into();
    let serve = |port: u16| network.serve(&lab.rendezvous, &format!("server-{port}"), &format!("[::]:{port}")).unwrap();
    let mut servers: Vec<Program> = ports.into_iter().map(serve).collect();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    let bob = network.join(lab.host(1), "bob", 2).unwrap();
    let carol = network.join(lab.host(2), "carol", 3).unwrap();
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    alice.await_peer("carol", PeerState::Relayed, PATIENCE).unwrap();
    bob.await_peer("carol", PeerState::Direct, PATIENCE).unwrap();
    let pulse = |to, name: &str| Pulse::start(&alice.host.netns, to, &alice.folder().join(name)).unwrap();
    let (direct, relayed) = (pulse(bob.address, "to-bob"), pulse(carol.address, "to-carol"));
    std::thread::sleep(CALM);

    let mut erin = None;
    for left in [2, 1] {
        let start = wall();
        servers.remove(0).end(Signal::SIGKILL).unwrap();
        if left == 1 {
            // Two of three do not answer, and the newcomer does not mind.
            let peer = network.up(lab.host(3), "erin", 4).unwrap();
            peer.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
            peer.await_peer("carol", PeerState::Direct, PATIENCE).unwrap();
            erin = Some(peer);
        }
        std::thread::sleep(CALM);
        let gaps = [&direct, &relayed].map(|pulse| pulse.longest_gap(start));
        println!("{left} rendezvous left: silent for {gaps:?}");
        assert!(gaps.iter().all(|gap| *gap <= SILENCE), "{gaps:?}");
    }

    let start = wall();
    servers.remove(0).end(Signal::SIGKILL).unwrap();
    std::thread::sleep(CALM);
    assert!(direct.longest_gap(start) <= SILENCE, "what is direct needs none");
    alice
        .await_status("to miss all of them", PATIENCE, |status| {
            status.rendezvous.iter().all(|server| server.state == RendezvousState::Unreachable)
        })
        .unwrap();
    let _back = serve(ports[1]);
    alice.await_peer("carol", PeerState::Relayed, Duration::from_secs(40)).unwrap();
    let erin = erin.expect("she came");
    erin.await_peer("carol", PeerState::Direct, Duration::from_secs(40)).unwrap();
    assert_eq!(alice.ping(carol.address.into(), 20).unwrap(), 20);
}
