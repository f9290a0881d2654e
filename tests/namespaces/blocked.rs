//! Networks that let no UDP through: everything goes by TCP, to the peer itself where the routers let that be, else to the
//! rendezvous; and by UDP again once that passes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use punchlan::node::status::{PeerState, RendezvousState, Status};

use crate::lab::programs::{Network, Peer};
use crate::lab::{Gateway, Lab, RENDEZVOUS, SitePlan, netns};
use crate::traffic::{file_digest, send_file};
use crate::{shared_turn, turn};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn registered_by(transport: &str) -> impl Fn(&Status) -> bool {
    move |status| status.rendezvous.iter().any(|r| r.state == RendezvousState::Registered && r.transport == transport)
}

/// Pings are answered and a file arrives whole, all of it this way.
pub(crate) fn all_passes(alice: &Peer<'_>, bob: &Peer<'_>, state: PeerState, transport: &str) {
    alice.await_peer("bob", state, PATIENCE).unwrap();
    bob.await_peer("alice", state, PATIENCE).unwrap();
    let status = alice.await_status("its registration", PATIENCE, registered_by(transport)).unwrap();
    let path = status.peers[0].path.as_ref().unwrap();
    assert_eq!((path.transport.as_str(), path.relay.is_none()), (transport, state == PeerState::Direct), "{path:?}");
    assert_eq!(alice.ping(bob.address.into(), 10).unwrap(), 10);
    for (to, from) in [(alice, bob), (bob, alice)] {
        let start = std::time::Instant::now();
        assert_eq!(send_file(to, from, SocketAddr::new(to.address.into(), 7000)).unwrap(), file_digest());
        println!("{} to {}: 10 MB in {:.1?}", from.name, to.name, start.elapsed());
    }
}

/// The certificate of a web server where the rendezvous is, and its key: in files that are made when first asked for.
pub(crate) fn certificate(network: &Network) -> [PathBuf; 2] {
    let files = ["cert.pem", "key.pem"].map(|name| network.folder().join(name));
    if !files[0].exists() {
        let made = rcgen::generate_simple_self_signed([RENDEZVOUS.to_string()]).unwrap();
        std::fs::write(&files[0], made.cert.pem()).unwrap();
        std::fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
    }
    files
}

#[test]
fn pairs_of_which_one_or_both_have_no_udp_are_connected() {
    let _turn = shared_turn();
    for (other, state) in [
        (Gateway::Public, PeerState::Direct),
        (Gateway::UdpBlocked, PeerState::Direct),
        (Gateway::Masquerade, PeerState::Direct),
        (Gateway::AddressRestricted, PeerState::Direct),
        (Gateway::CarrierCone, PeerState::Direct),
        (Gateway::Upnp, PeerState::Direct),
        (Gateway::Pcp, PeerState::Direct),
        (Gateway::Symmetric, PeerState::Relayed),
    ] {
        println!("{}:", other.name());
        let lab = Lab::new(&[Gateway::UdpBlocked, other]).unwrap();
        let network = Network::start(&lab).unwrap();
        let alice = network.up(lab.host(0), "alice", 1).unwrap();
        let bob = network.up(lab.host(1), "bob", 2).unwrap();
        all_passes(&alice, &bob, state, "tcp");
        let why = netns::run(&mut alice.command(&["why", "bob"])).unwrap();
        let said = String::from_utf8_lossy(&why.stdout).into_owned();
        match state {
            PeerState::Direct => assert!(said.contains("directly by TCP"), "{said}"),
            _ => assert!(said.contains("lets no UDP out"), "{said}"),
        }
    }
}

#[test]
fn where_only_tcp_to_port_443_passes_a_rendezvous_there_is_reached() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::Tcp443Only, Gateway::Symmetric]).unwrap();
    let mut network = Network::without_rendezvous().unwrap();
    let _rendezvous = network.serve(&lab.rendezvous, "rendezvous", "0.0.0.0:443").unwrap();
    network.servers = vec![format!("{RENDEZVOUS}:443")];
    let alice = network.up(lab.host(0), "alice", 1).unwrap();
    let bob = network.up(lab.host(1), "bob", 2).unwrap();
    all_passes(&alice, &bob, PeerState::Relayed, "tcp");
}

#[test]
fn a_pair_moves_to_udp_when_that_passes_again_and_outlives_the_rendezvous() {
    let _turn = turn();
    let lab = Lab::new(&[SitePlan::new(Gateway::UdpBlocked), SitePlan::new(Gateway::PortRestricted)]).unwrap();
    let mut network = Network::start(&lab).unwrap();
    let alice = network.up(lab.host(0), "alice", 1).unwrap();
    let bob = network.up(lab.host(1), "bob", 2).unwrap();
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();

    network.rendezvous.take().unwrap().end(Signal::SIGKILL).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    network.start_rendezvous(&lab.rendezvous).unwrap();
    alice.await_status("its registration", PATIENCE, registered_by("tcp")).unwrap();
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    let mut pings = alice.start_pings(bob.address).unwrap();
    pings.first_answer(PATIENCE).unwrap();

    lab.sites[0].router.nft("delete table inet blocked").unwrap();
    alice.await_status("UDP", Duration::from_secs(45), registered_by("udp")).unwrap();
    let by_udp = |status: &Status| {
        status.peers[0].path.as_ref().is_some_and(|path| path.transport == "udp" && path.relay.is_none())
    };
    alice.await_status("bob by UDP", PATIENCE, by_udp).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let flaws = pings.end().unwrap();
    println!("moving to UDP cost {flaws:?}");
    // Of one ping every 50 ms.
    assert!(flaws.lost <= 20, "{flaws:?}");
}

#[test]
fn where_only_the_web_passes_a_rendezvous_is_reached_as_a_web_server() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::Tcp443Only, Gateway::Tcp443Only]).unwrap();
    let mut network = Network::without_rendezvous().unwrap();
    let [certificate, key] = certificate(&network);
    let rendezvous_toml = format!("listen = [\"0.0.0.0:3478\"]\n[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let _rendezvous = network.serve_as(&lab.rendezvous, "rendezvous", &rendezvous_toml).unwrap();
    network.trust = Some(certificate);
    network.servers = vec![format!("{RENDEZVOUS}:3478"), format!("wss://{RENDEZVOUS}/punchlan")];
    let alice = network.up(lab.host(0), "alice", 1).unwrap();
    let bob = network.up(lab.host(1), "bob", 2).unwrap();
    all_passes(&alice, &bob, PeerState::Relayed, "tls");
    assert_eq!(alice.status().unwrap().rendezvous.len(), 1, "two ways to one");
}
