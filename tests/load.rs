//! A rendezvous under load: many registered peers on one process, over loopback, that refresh, join and leave, with
//! relayed traffic beside it. `scripts/load [PEERS] [NETWORKS]` for a real one; a small one is a test.
//!
//! The peers are the real client machines, thousands of them on each of some sockets ([`crowd`]); the rendezvous is
//! the real program, whose memory and time the system tells.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a load is measured in real time, and told")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "load/crowd.rs"]
mod crowd;
#[path = "load/host.rs"]
mod host;
#[path = "load/relay.rs"]
mod relay;

use std::time::{Duration, Instant};

use crowd::Crowd;
use host::Host;
use relay::Relay;

/// How long everything is watched once all are registered; many refresh once in 15 s each.
const WATCH: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(15)];
/// Everybody must be registered after this.
const PATIENCE: Duration = Duration::from_mins(8);
/// The promise: resident bytes for each registered peer, of 100,000; few peers share the process' own memory.
const BYTES_PER_PEER: u64 = 2_048;
/// From this number on the promise counts.
const MANY: usize = 50_000;
/// Of a hundred peers one leaves and another joins in so many seconds.
const CHURN: Duration = Duration::from_secs(10);
/// Packets a second through the relay beside it.
const RELAYED: u32 = 2_000;

#[test]
fn a_rendezvous_carries_its_peers() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |n| n.parse().expect("a number"));
    let (peers, networks) = (number("LOAD_PEERS", 2_000), number("LOAD_NETWORKS", 200));
    let host = Host::start(peers);
    let empty = host.resident_kb();
    let mut crowd = Crowd::new(host.address, peers, networks);
    println!("{peers} peers in {networks} networks; the empty rendezvous has {empty} kB");

    let start = Instant::now();
    let mut told = start;
    while crowd.registered() < peers {
        crowd.run(Duration::from_millis(50));
        if told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            println!("{:>4} s: {} registered", start.elapsed().as_secs(), crowd.registered());
        }
        assert!(start.elapsed() < PATIENCE, "{} of {peers}; {:?}", crowd.registered(), crowd.problems());
    }
    let joined = start.elapsed();
    // Until everybody has heard of everybody.
    while crowd.unsettled() > 0 {
        crowd.run(Duration::from_millis(200));
        if told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            println!("{:>4} s: {} have not heard of all", start.elapsed().as_secs(), crowd.unsettled());
        }
        assert!(start.elapsed() < PATIENCE, "{} have not heard of all", crowd.unsettled());
    }
    let settled = start.elapsed();
    let per_peer = (host.resident_kb() - empty) * 1024 / peers as u64;

    let mut relay = Relay::new(host.address);
    let steady = watch(&host, &mut crowd, None, None);
    let churned = watch(&host, &mut crowd, Some(&mut relay), Some(CHURN));
    let lost = crowd.lost();
    crowd.settle(Duration::from_secs(3));
    let resident = host.resident_kb();

    println!(
        "registered after           {:.1} s ({:.0} a second)",
        joined.as_secs_f64(),
        peers as f64 / joined.as_secs_f64()
    );
    println!("all lists complete after   {:.1} s", settled.as_secs_f64());
    println!("resident                   {resident} kB, {per_peer} bytes a peer");
    println!("steady refresh             {steady}");
    println!("with joins and leaves      {churned}");
    println!("relayed beside it          {} sent, {} arrived, {} wrong", relay.sent, relay.arrived, relay.wrong);
    println!("registrations lost         {lost}");
    println!("refusals                   {:?}", crowd.problems());
    println!("the rendezvous counted     {}", host.counters());
    assert_eq!(lost, 0, "who stays stays registered");
    assert_eq!(crowd.registered(), peers);
    assert!(relay.wrong == 0 && relay.arrived * 100 >= relay.sent * 99, "{} of {}", relay.arrived, relay.sent);
    if peers >= MANY {
        assert!(per_peer <= BYTES_PER_PEER, "{per_peer} bytes a peer");
    }
    host.end();
}

/// Watches for a while; with churn one in a hundred peers goes in each `churn`, and another comes.
fn watch(host: &Host, crowd: &mut Crowd, mut relay: Option<&mut Relay>, churn: Option<Duration>) -> String {
    let (start, time, frames) = (Instant::now(), host.cpu(), crowd.datagrams);
    let mut gone = 0;
    let end = WATCH[usize::from(crowd.len() >= MANY)];
    while start.elapsed() < end {
        if let Some(relay) = &mut relay {
            relay.run(start.elapsed(), RELAYED);
        }
        if let Some(churn) = churn {
            let due = crowd.len() as f64 / 100.0 * start.elapsed().as_secs_f64() / churn.as_secs_f64();
            while f64::from(gone) < due {
                crowd.replace_one();
                gone += 1;
            }
        }
        crowd.run(Duration::from_millis(1));
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = (host.cpu() - time).as_secs_f64() / seconds * 100.0;
    let frames = (crowd.datagrams - frames) as f64 / seconds;
    format!("{cpu:.1} % of a core, {frames:.0} datagrams a second from and to peers, {gone} replaced")
}
