//! Routers that map ports: who is behind one is reached directly, even from behind a symmetric NAT.
//!
//! ```text
//!   alice ── router: masquerade fully-random, miniupnpd ──┐
//!            192.168.0.1        11.0.0.2                 core ── rendezvous
//!   bob ──── router: symmetric ───────────────────────────┘
//! ```

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use punchlan::node::status::{PathKind, PeerState, Status};

use crate::lab::mapper::{Mapper, Odd, OddMapper, Offer};
use crate::lab::programs::{Network, Peer, await_true};
use crate::lab::wire::Wire;
use crate::lab::{Gateway, Lab, SitePlan, netns};
use crate::meeting::settles;
use crate::{shared_turn, turn};

const PATIENCE: Duration = Duration::from_secs(15);

fn lab() -> Lab {
    Lab::new(&[SitePlan::new(Gateway::MasqueradeRandom).looks_public(), Gateway::Symmetric.into()]).unwrap()
}

/// What a peer says of its port mapping.
fn report(status: &Status) -> &str {
    status.me.nat.port_mapping.as_deref().unwrap_or_default()
}

/// Waits until a peer announces a mapping outside at `address`, by `protocol`.
fn await_mapping(peer: &Peer<'_>, protocol: &str, address: &str, patience: Duration) {
    let mapped = |status: &Status| {
        let candidates = || status.me.candidates.iter().filter(|c| c.kind == PathKind::Mapped);
        candidates().any(|c| c.address.ip().to_string() == address)
            && report(status).starts_with(address)
            && report(status).contains(&format!(" by {protocol} of the router 192.168.0.1"))
    };
    let status = peer.await_status("a port mapping", patience, mapped);
    status.unwrap_or_else(|error| panic!("{error}: {}", report(&peer.status().unwrap())));
}

#[test]
fn who_has_a_mapped_port_is_reached_from_a_symmetric_nat_and_gives_it_back_at_the_end() {
    let _turn = turn();
    for (offer, protocol) in [(Offer::Control, "PCP"), (Offer::Upnp, "UPnP")] {
        let lab = lab();
        let mapper = Mapper::start(&lab.sites[0], offer).unwrap();
        let network = Network::start(&lab).unwrap();
        let mut alice = network.join(lab.host(0), "alice", 1).unwrap();
        await_mapping(&alice, protocol, "11.0.0.2", PATIENCE);
        assert_eq!(mapper.mapped().unwrap(), 1);

        let bob = network.join(lab.host(1), "bob", 2).unwrap();
        let status = bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
        let path = status.peers[0].path.as_ref().unwrap();
        assert_eq!((path.kind, path.remote.ip().to_string().as_str()), (PathKind::Mapped, "11.0.0.2"), "{offer:?}");
        alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
        settles(&lab, &Wire::tap(&lab).unwrap(), &alice, &bob, true).unwrap();
        let shown = netns::run(&mut alice.command(&["status"])).unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains(&format!(" by {protocol} of the router 192.168.0.1\n")), "{shown}");

        let (status, time) = alice.program.end(Signal::SIGTERM).unwrap();
        assert!(status.success() && time < Duration::from_secs(2), "{status} after {time:?}");
        assert_eq!(mapper.mapped().unwrap(), 0, "{offer:?}");
    }
}

/// Where UDP does not reach one side a port for TCP is mapped beside that for UDP, for as long as somebody is connected by it.
#[test]
fn who_has_a_mapped_port_for_tcp_is_reached_from_where_udp_is_blocked_and_gives_both_back() {
    let _turn = turn();
    for offer in [Offer::Control, Offer::Upnp] {
        let sites = [SitePlan::new(Gateway::MasqueradeRandom).looks_public(), Gateway::UdpBlocked.into()];
        let lab = Lab::new(&sites).unwrap();
        let mapper = Mapper::start(&lab.sites[0], offer).unwrap();
        let network = Network::start(&lab).unwrap();
        let mut alice = network.join(lab.host(0), "alice", 1).unwrap();
        let by_tcp = |alice: &Peer<'_>| {
            let bob = network.join(lab.host(1), "bob", 2).unwrap();
            bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
            let status = alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
            assert_eq!(status.peers[0].path.as_ref().unwrap().transport, "tcp", "{offer:?}");
            // Longer than the port stays that nobody is connected by.
            std::thread::sleep(Duration::from_secs(12));
            assert_eq!(mapper.mapped().unwrap(), 2, "{}", mapper.redirects().unwrap());
            assert_eq!(alice.ping(bob.address.into(), 10).unwrap(), 10, "{offer:?}");
            bob
        };
        let mut bob = by_tcp(&alice);
        bob.program.end(Signal::SIGTERM).unwrap();
        mapper.await_mapped(1, PATIENCE).unwrap();
        drop(bob);
        let _bob = by_tcp(&alice);
        netns::run(&mut alice.command(&["down"])).unwrap();
        assert_eq!(mapper.mapped().unwrap(), 0, "{offer:?}: {}", mapper.redirects().unwrap());
        await_true("the end", PATIENCE, || Ok(alice.program.has_ended())).unwrap();
    }
}

/// Whoever knows the port inside guesses that it is the one outside, and tries it before it is mapped: the router must
/// not take what is mapped afterwards for what it refused before.
#[test]
fn who_waits_already_reaches_a_port_that_is_mapped_only_then() {
    let _turn = turn();
    let lab = lab();
    let network = Network::start(&lab).unwrap();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    let bob = network.join(lab.host(1), "bob", 2).unwrap();
    bob.await_peer("alice", PeerState::Relayed, PATIENCE).unwrap();
    alice.await_status("that nothing is mapped", PATIENCE, |status| report(status).starts_with("none: ")).unwrap();
    let _mapper = Mapper::start(&lab.sites[0], Offer::Control).unwrap();
    bob.await_peer("alice", PeerState::Direct, Duration::from_secs(60)).unwrap();
}

#[test]
fn without_an_offer_the_same_two_are_relayed_and_the_status_says_why() {
    let _turn = shared_turn();
    let lab = lab();
    let network = Network::start(&lab).unwrap();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    let bob = network.join(lab.host(1), "bob", 2).unwrap();
    let expected = "none: the router 192.168.0.1 answers by none of PCP, NAT-PMP, UPnP";
    alice.await_status("its report", PATIENCE, |status| report(status) == expected).unwrap();
    bob.await_peer("alice", PeerState::Relayed, PATIENCE).unwrap();
    alice.await_peer("bob", PeerState::Relayed, PATIENCE).unwrap();
    settles(&lab, &Wire::tap(&lab).unwrap(), &alice, &bob, false).unwrap();
    assert!(alice.status().unwrap().warnings.is_empty(), "it is nothing that somebody must act on");
}

#[test]
fn a_router_that_was_restarted_maps_anew_within_seconds() {
    let _turn = shared_turn();
    for (offer, protocol) in [(Offer::Control, "PCP"), (Offer::Upnp, "UPnP")] {
        let lab = lab();
        let mut mapper = Mapper::start(&lab.sites[0], offer).unwrap();
        let network = Network::start(&lab).unwrap();
        let alice = network.join(lab.host(0), "alice", 1).unwrap();
        await_mapping(&alice, protocol, "11.0.0.2", PATIENCE);
        mapper.program.end(Signal::SIGKILL).unwrap();
        lab.sites[0].forget().unwrap();
        mapper.start_again().unwrap();
        let start = Instant::now();
        mapper.await_mapped(1, PATIENCE).unwrap();
        println!("{protocol}: mapped again {:.1} s after the router was back", start.elapsed().as_secs_f64());
        await_mapping(&alice, protocol, "11.0.0.2", PATIENCE);
        let bob = network.join(lab.host(1), "bob", 2).unwrap();
        bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    }
}

#[test]
fn a_router_with_another_address_is_asked_for_a_mapping_there() {
    let _turn = shared_turn();
    for (offer, protocol) in [(Offer::Control, "PCP"), (Offer::Upnp, "UPnP")] {
        let lab = lab();
        let mapper = Mapper::start(&lab.sites[0], offer).unwrap();
        let network = Network::start(&lab).unwrap();
        let alice = network.join(lab.host(0), "alice", 1).unwrap();
        await_mapping(&alice, protocol, "11.0.0.2", PATIENCE);
        lab.sites[0].redial(&lab.core).unwrap();
        await_mapping(&alice, protocol, "11.0.0.4", Duration::from_secs(30));

        // And so is one that sees this machine at another.
        lab.sites[0].rewire(0).unwrap();
        let maps_it = || Ok(mapper.redirects()?.contains("192.168.0.100"));
        await_true("a mapping to the new address", PATIENCE, maps_it).unwrap();
        await_mapping(&alice, protocol, "11.0.0.4", PATIENCE);
    }
}

#[test]
fn a_router_that_speaks_nat_pmp_alone_is_understood() {
    let _turn = shared_turn();
    let lab = lab();
    let _mapper = OddMapper::start(&lab.sites[0], Odd::NatPmp(Ipv4Addr::new(11, 0, 0, 2))).unwrap();
    let network = Network::start(&lab).unwrap();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    await_mapping(&alice, "NAT-PMP", "11.0.0.2", PATIENCE);
}

#[test]
fn another_device_that_answers_first_is_not_taken_for_the_router() {
    let _turn = shared_turn();
    let homes = [SitePlan::new(Gateway::MasqueradeRandom).looks_public().hosts(2), Gateway::Symmetric.into()];
    let lab = Lab::new(&homes).unwrap();
    let other = Mapper::pretend(&lab.sites[0].hosts[1].netns, "eth0").unwrap();
    let router = Mapper::start(&lab.sites[0], Offer::Upnp).unwrap();
    let network = Network::start(&lab).unwrap();
    kill(router.program.pid(), Signal::SIGSTOP).unwrap();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    kill(router.program.pid(), Signal::SIGCONT).unwrap();
    await_mapping(&alice, "UPnP", "11.0.0.2", PATIENCE);
    assert_eq!((router.mapped().unwrap(), other.mapped().unwrap()), (1, 0));
}

#[test]
fn a_reload_gives_the_port_back_and_asks_for_it_again() {
    let _turn = shared_turn();
    let lab = lab();
    let mapper = Mapper::start(&lab.sites[0], Offer::Control).unwrap();
    let network = Network::start(&lab).unwrap();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    await_mapping(&alice, "PCP", "11.0.0.2", PATIENCE);
    let net_toml = alice.folder().join("net.toml");
    let text = std::fs::read_to_string(&net_toml).unwrap();
    std::fs::write(&net_toml, format!("{text}port_mapping = false\n")).unwrap();
    let output = netns::run(&mut alice.command(&["reload"])).unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("port_mapping: false from now on"), "{output:?}");
    mapper.await_mapped(0, PATIENCE).unwrap();
    let status = alice.status().unwrap();
    assert!(status.me.candidates.iter().all(|c| c.kind != PathKind::Mapped));
    assert_eq!(report(&status), "off: `port_mapping = false` in net.toml");
    std::fs::write(&net_toml, text).unwrap();
    netns::run(&mut alice.command(&["reload"])).unwrap();
    mapper.await_mapped(1, PATIENCE).unwrap();
}

#[test]
fn a_router_that_is_suddenly_silent_delays_no_exit() {
    let _turn = turn();
    for offer in [Offer::Control, Offer::Upnp] {
        let lab = lab();
        let mapper = Mapper::start(&lab.sites[0], offer).unwrap();
        let network = Network::start(&lab).unwrap();
        let mut alice = network.join(lab.host(0), "alice", 1).unwrap();
        mapper.await_mapped(1, PATIENCE).unwrap();
        kill(mapper.program.pid(), Signal::SIGSTOP).unwrap();
        let (status, time) = alice.program.end(Signal::SIGTERM).unwrap();
        kill(mapper.program.pid(), Signal::SIGCONT).unwrap();
        assert!(status.success(), "{status}");
        assert!(time < Duration::from_millis(1_600), "{offer:?}: {time:?}");
    }
}

#[test]
fn routers_that_lie_or_talk_rubbish_are_survived_and_the_user_told() {
    let _turn = turn();
    let odd = [
        (Odd::NatPmp(Ipv4Addr::new(100, 64, 3, 4)), "none: the router 192.168.0.1 is itself behind a NAT (double NAT)"),
        (
            Odd::NatPmp(Ipv4Addr::new(192, 168, 7, 2)),
            "none: the router 192.168.0.1 is itself behind a NAT (double NAT)",
        ),
        (
            Odd::NatPmp(Ipv4Addr::LOCALHOST),
            "none: the router 192.168.0.1 says by NAT-PMP that it is reached at 127.0.0.1",
        ),
        (
            Odd::NatPmp(Ipv4Addr::UNSPECIFIED),
            "none: the router 192.168.0.1 says by NAT-PMP that it is reached at 0.0.0.0",
        ),
        (Odd::Rubbish, "none: the router 192.168.0.1 says no by PCP: "),
        (Odd::Silent, "none: the router 192.168.0.1 answers by none of PCP, NAT-PMP, UPnP"),
    ];
    for (odd, expected) in odd {
        let lab = Lab::new(&[Gateway::Masquerade, Gateway::Masquerade]).unwrap();
        let _mapper = OddMapper::start(&lab.sites[0], odd).unwrap();
        let network = Network::start(&lab).unwrap();
        let mut alice = network.join(lab.host(0), "alice", 1).unwrap();
        let bob = network.join(lab.host(1), "bob", 2).unwrap();
        bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
        alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
        assert_eq!(bob.ping(alice.address.into(), 20).unwrap(), 20, "{odd:?}");
        let told = alice.await_status("its report", PATIENCE, |status| report(status).starts_with("none: ")).unwrap();
        assert!(report(&told).starts_with(expected), "{odd:?}: {}", report(&told));
        assert!(told.me.candidates.iter().all(|c| c.kind != PathKind::Mapped), "{odd:?}");
        let (status, time) = alice.program.end(Signal::SIGTERM).unwrap();
        assert!(status.success() && time < Duration::from_secs(2), "{status} after {time:?}");
    }
}
