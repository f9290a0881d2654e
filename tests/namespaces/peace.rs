//! The overlay and the real network leave each other alone.
//!
//! ```text
//!   alice ───┐                          alice and bob are members; mallory is in alice's LAN, and holds no key
//!   mallory ─┴─ router ── core ── bob
//! ```

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use punchlan::node::status::PeerState;

use crate::lab::programs::{Network, Peer};
use crate::lab::{Gateway, Lab, SitePlan};
use crate::shared_turn;

const PATIENCE: Duration = Duration::from_secs(10);
/// Whoever hears nothing for so long hears nothing: all of it is on one machine.
const SILENCE: Duration = Duration::from_millis(700);
const PORT: u16 = 5_000;
const ALICE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const BOB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

fn lab() -> Lab {
    Lab::new(&[SitePlan::new(Gateway::Masquerade).hosts(2), SitePlan::new(Gateway::Public)]).unwrap()
}

/// Alice and bob, direct.
fn members<'a>(lab: &'a Lab, network: &Network) -> [Peer<'a>; 2] {
    let alice = network.up(&lab.sites[0].hosts[0], "alice", 1).unwrap();
    let bob = network.up(&lab.sites[1].hosts[0], "bob", 2).unwrap();
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    [alice, bob]
}

/// Gives mallory bob's address, and the way to alice's through the LAN.
fn disguise(lab: &Lab) {
    let [alice, mallory] = [0, 1].map(|host| &lab.sites[0].hosts[host]);
    let alice = alice.v4.unwrap();
    mallory.netns.ip(&format!("address add {BOB}/32 dev lo\nroute add {ALICE}/32 via {alice} src {BOB}")).unwrap();
}

/// Whether alice hears, at her overlay address, what mallory sends there as bob.
fn hears_mallory(lab: &Lab) -> bool {
    let [alice, mallory] = [0, 1].map(|host| &lab.sites[0].hosts[host].netns);
    let socket = alice.enter(|| UdpSocket::bind((ALICE, PORT)).unwrap()).unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let from_bob = mallory.enter(|| UdpSocket::bind((BOB, 0)).unwrap()).unwrap();
    from_bob.send_to(b"as if from bob", (ALICE, PORT)).unwrap();
    match socket.recv_from(&mut [0; 100]) {
        Ok((_, from)) => from.ip() == BOB,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

/// CVE-2019-14899: what comes as if from a member, by the real LAN.
#[test]
fn the_guard_keeps_out_what_comes_for_the_overlay_by_the_real_lan_and_is_gone_with_the_daemon() {
    let _turn = shared_turn();
    let lab = lab();
    let mut network = Network::start(&lab).unwrap();
    let machine = &lab.sites[0].hosts[0].netns;
    let rules =
        || String::from_utf8(machine.command("nft").args(["list", "ruleset"]).output().unwrap().stdout).unwrap();
    disguise(&lab);
    let loose = |value: &str| {
        ["all", "eth0"].iter().for_each(|name| {
            machine.sysctl(&format!("ipv4/conf/{name}/rp_filter"), value).unwrap();
        })
    };
    let before = rules();
    for guarded in [false, true] {
        network.more = format!("[lan]\nguard = {guarded}\n");
        let [mut alice, mut bob] = members(&lab, &network);
        for rp_filter in ["0", "2"] {
            loose(rp_filter);
            assert_eq!(hears_mallory(&lab), !guarded, "rp_filter {rp_filter}, guarded: {guarded}");
        }
        assert_eq!(bob.ping(ALICE.into(), 5).unwrap(), 5);
        assert_eq!(rules() != before, guarded, "{}", rules());
        alice.program.end(nix::sys::signal::Signal::SIGKILL).unwrap();
        bob.program.end(nix::sys::signal::Signal::SIGTERM).unwrap();
        for _ in 0..50 {
            if rules() == before {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(rules(), before, "nothing is left of it, however the daemon ended");
    }
}

/// Alice's machine forwards for others, as machines that share their network do.
#[test]
fn nothing_is_forwarded_between_the_overlay_and_the_real_lan() {
    let _turn = shared_turn();
    let lab = lab();
    let network = Network::start(&lab).unwrap();
    let [alice_host, mallory] = [0, 1].map(|host| &lab.sites[0].hosts[host]);
    alice_host.netns.forward().unwrap();
    let [alice, bob] = members(&lab, &network);
    // Out of the LAN into the overlay: by alice to bob, with mallory's own address.
    let on_lan = alice_host.v4.unwrap();
    mallory.netns.ip(&format!("route add {BOB}/32 via {on_lan}")).unwrap();
    let at_bob = bob.host.netns.enter(|| UdpSocket::bind((BOB, PORT)).unwrap()).unwrap();
    at_bob.set_read_timeout(Some(SILENCE)).unwrap();
    let from_lan = mallory.netns.enter(|| UdpSocket::bind((mallory.v4.unwrap(), PORT)).unwrap()).unwrap();
    from_lan.send_to(b"out of the LAN", (BOB, PORT)).unwrap();
    assert!(at_bob.recv_from(&mut [0; 100]).is_err());
    assert!(alice.status().unwrap().counters.drop.get("source-not-ours").is_some_and(|dropped| *dropped > 0));
    // Out of the overlay into the LAN: by alice to mallory, with bob's overlay address.
    let target = mallory.v4.unwrap();
    bob.host.netns.ip(&format!("route add {target}/32 via {ALICE} dev punch0 src {BOB}")).unwrap();
    from_lan.set_read_timeout(Some(SILENCE)).unwrap();
    at_bob.send_to(b"out of the overlay", (target, PORT)).unwrap();
    assert!(from_lan.recv_from(&mut [0; 100]).is_err());
}

#[test]
fn members_reach_the_ports_that_are_allowed_and_answers_and_no_others() {
    let _turn = shared_turn();
    let lab = lab();
    let mut network = Network::start(&lab).unwrap();
    network.more = format!("[lan]\nallow = [\"{PORT}/tcp\", \"{PORT}-{}/udp\"]\n", PORT + 1);
    let [alice, bob] = members(&lab, &network);
    let (here, there) = (&alice.host.netns, &bob.host.netns);
    let listen = |port| here.enter(move || TcpListener::bind((ALICE, port)).unwrap()).unwrap();
    let listeners = [listen(PORT), listen(PORT + 2)];
    let connect = |port| {
        let to = SocketAddr::from((ALICE, port));
        there.enter(move || TcpStream::connect_timeout(&to, SILENCE).is_ok()).unwrap()
    };
    assert!(connect(PORT) && !connect(PORT + 2));
    drop(listeners);

    let udp = |netns: &crate::lab::netns::Namespace, ip: Ipv4Addr, port| {
        let socket = netns.enter(move || UdpSocket::bind((ip, port)).unwrap()).unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        socket
    };
    let [allowed, other] = [PORT + 1, PORT + 3].map(|port| udp(here, ALICE, port));
    let bobs = udp(there, BOB, PORT + 3);
    let heard = |socket: &UdpSocket| socket.recv_from(&mut [0; 100]).is_ok();
    for (socket, let_in) in [(&allowed, true), (&other, false)] {
        bobs.send_to(b"first", socket.local_addr().unwrap()).unwrap();
        assert_eq!(heard(socket), let_in);
    }
    other.send_to(b"question", (BOB, PORT + 3)).unwrap();
    // The rules are bob's too, and the port is not among them.
    assert!(heard(&bobs), "bob sent from that port just now");
    bobs.send_to(b"answer", (ALICE, PORT + 3)).unwrap();
    assert!(heard(&other));
    assert_eq!(bob.ping(ALICE.into(), 3).unwrap(), 3);
    assert!(alice.status().unwrap().counters.drop.get("not-allowed").is_some_and(|dropped| *dropped >= 2));
}
