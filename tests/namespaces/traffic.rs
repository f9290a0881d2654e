//! What people do over a network: pings by IPv4 and IPv6, streams, datagrams and files.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use punchlan::node::status::{PathKind, PeerState};
use ring::digest::{Context, SHA256};

use crate::lab::line::Line;
use crate::lab::netns::Namespace;
use crate::lab::programs::{Network, Peer, Program, await_true};
use crate::lab::wire::Wire;
use crate::lab::{Gateway, Lab, SitePlan, netns};
use crate::meeting::{between, settles, through_rendezvous};
use crate::{shared_turn, turn};

const PATIENCE: Duration = Duration::from_secs(10);

/// ```text
///   alice ── full cone ───────┐
///   bob ──── port-restricted ─ core ── rendezvous
///   carol ── symmetric ───────┘
/// ```
#[test]
fn three_peers_that_start_at_once_behind_different_nats_all_meet() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::FullCone, Gateway::PortRestricted, Gateway::Symmetric]).unwrap();
    let network = Network::start(&lab).unwrap();
    let names = ["alice", "bob", "carol"];
    let peers: Vec<_> =
        (0..3).map(|n| network.up(lab.host(n), names[n], u8::try_from(n + 1).unwrap()).unwrap()).collect();
    for (a, b, state) in [(0, 1, PeerState::Direct), (0, 2, PeerState::Direct), (1, 2, PeerState::Direct)] {
        peers[a].await_peer(names[b], state, PATIENCE).unwrap();
        peers[b].await_peer(names[a], state, PATIENCE).unwrap();
        let wire = Wire::tap(&lab).unwrap();
        settles(&lab, &wire, &peers[a], &peers[b], state == PeerState::Direct).unwrap();
    }
}

/// ```text
///   alice ─┐
///   bob ───┴─ symmetric ── core ── rendezvous
/// ```
#[test]
fn two_peers_behind_one_router_talk_on_their_lan() {
    let _turn = shared_turn();
    let lab = Lab::new(&[SitePlan::new(Gateway::Symmetric).hosts(2)]).unwrap();
    let network = Network::start(&lab).unwrap();
    let [alice, bob] = [0, 1].map(|n| {
        let host = &lab.sites[0].hosts[n];
        network.up(host, ["alice", "bob"][n], u8::try_from(n + 1).unwrap()).unwrap()
    });
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    let status = bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    assert_eq!(status.peers[0].path.as_ref().unwrap().kind, PathKind::Host);
    let wire = Wire::tap(&lab).unwrap();
    assert_eq!(bob.ping(alice.address.into(), 20).unwrap(), 20);
    assert_eq!(between(&wire, alice.host, bob.host).there.len(), 0, "nothing crosses the core");
    assert_eq!(through_rendezvous(&wire, bob.host), 0);
}

#[test]
fn pings_streams_datagrams_and_files_pass_over_a_direct_path() {
    let _turn = turn();
    let lab = Lab::new(&[Gateway::PortRestricted, Gateway::Masquerade]).unwrap();
    everything_passes(&lab, PeerState::Direct);
}

#[test]
fn pings_streams_datagrams_and_files_pass_over_the_relay() {
    let _turn = turn();
    let lab = Lab::new(&[Gateway::Symmetric, Gateway::MasqueradeRandom]).unwrap();
    everything_passes(&lab, PeerState::Relayed);
}

/// Old kernels, other systems, and drivers that do it wrong: each beside one that has everything, and both alike.
#[test]
fn whoever_takes_over_less_of_the_kernels_work_gets_and_sends_the_same() {
    let _turn = turn();
    let lab = Lab::new(&[Gateway::Public, Gateway::Public]).unwrap();
    let mut network = Network::start(&lab).unwrap();
    for offloads in [["off", "all"], ["tcp", "all"], ["off", "tcp"], ["off", "off"]] {
        let [alice, bob] = [("alice", 0), ("bob", 1)].map(|(name, n)| {
            network.offload = offloads[n];
            network.up(lab.host(n), name, u8::try_from(n + 1).unwrap()).unwrap()
        });
        alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
        bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
        let v6 = [&alice, &bob].map(|peer| peer.address_v6().unwrap());
        for (to, from, there, here) in [
            (&alice, &bob, alice.address.into(), bob.address.into()),
            (&bob, &alice, bob.address.into(), alice.address.into()),
            (&alice, &bob, v6[0], v6[1]),
            (&bob, &alice, v6[1], v6[0]),
        ] {
            datagrams_of_every_size(to, there, from, here).unwrap();
            assert_eq!(send_file(to, from, SocketAddr::new(there, 7000)).unwrap(), file_digest(), "{offloads:?}");
        }
    }
}

/// By TCP, of which the line loses, doubles and delays segments one by one. `FILE_MB=500` for longer.
#[test]
fn files_pass_whole_over_lines_that_lose_double_and_reorder() {
    let _turn = turn();
    let [direct, relayed] = [[Gateway::PortRestricted; 2], [Gateway::Symmetric; 2]];
    for (gateways, state) in [(direct, PeerState::Direct), (relayed, PeerState::Relayed)] {
        let mut lab = Lab::new(&gateways).unwrap();
        let network = Network::start(&lab).unwrap();
        for lost in [10, 50] {
            let line = Line { lost, doubled: 10, late: 20, late_by: Duration::from_millis(3), ..Line::default() };
            lab.worsen(line, true).unwrap();
            let alice = network.up(lab.host(0), "alice", 1).unwrap();
            let bob = network.up(lab.host(1), "bob", 2).unwrap();
            alice.await_peer("bob", state, PATIENCE).unwrap();
            for to in [alice.address.into(), alice.address_v6().unwrap()] {
                let (address, start) = (SocketAddr::new(to, 7000), Instant::now());
                assert_eq!(send_file(&alice, &bob, address).unwrap(), file_digest(), "to {address}");
                println!("{state:?}, {lost} of 1000 lost: to {address} in {:.1?}", start.elapsed());
            }
        }
    }
}

fn everything_passes(lab: &Lab, state: PeerState) {
    let network = Network::start(lab).unwrap();
    let alice = network.up(lab.host(0), "alice", 1).unwrap();
    let bob = network.up(lab.host(1), "bob", 2).unwrap();
    alice.await_peer("bob", state, PATIENCE).unwrap();
    bob.await_peer("alice", state, PATIENCE).unwrap();
    let (alice_v6, bob_v6) = (alice.address_v6().unwrap(), bob.address_v6().unwrap());
    for (from, to) in [(&alice, bob.address.into()), (&alice, bob_v6), (&bob, alice.address.into()), (&bob, alice_v6)] {
        assert_eq!(from.ping(to, 20).unwrap(), 20, "{} to {to}", from.name);
    }
    let tcp = iperf(&alice, &bob, &[]).unwrap();
    let udp = iperf(&alice, &bob, &["-u", "-b", "20M"]).unwrap();
    let lost = udp["end"]["sum"]["lost_percent"].as_f64().unwrap();
    let speed = tcp["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6;
    println!("{state:?}: TCP {speed:.0} Mbit/s; UDP at 20 Mbit/s: {lost:.2} % lost");
    // A machine that is busy elsewhere loses some between its own queues.
    assert!(speed > 20.0 && lost < 10.0);
    for (to, from) in [(alice.address.into(), bob.address.into()), (alice_v6, bob_v6)] {
        datagrams_of_every_size(&alice, to, &bob, from).unwrap();
        let address = SocketAddr::new(to, 7000);
        assert_eq!(send_file(&alice, &bob, address).unwrap(), file_digest(), "to {address}");
    }
}

/// iperf3 from `client` to `server` for two seconds.
fn iperf(server: &Peer<'_>, client: &Peer<'_>, args: &[&str]) -> Result<serde_json::Value> {
    let address = server.address.to_string();
    let mut listen = server.host.netns.command("iperf3");
    listen.args(["-s", "-1", "--forceflush", "-B", &address]);
    let listening = Program::start(listen, server.folder().join("iperf3"))?;
    await_true("iperf3 to listen", PATIENCE, || Ok(listening.said().contains("listening")))?;
    let mut send = client.host.netns.command("iperf3");
    let output = netns::run(send.args(["-c", &address, "-J", "-t", "2"]).args(args))?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Datagrams of every length that fits into a packet, and some that travel in pieces, one after the other.
fn datagrams_of_every_size(receiver: &Peer<'_>, to: IpAddr, sender: &Peer<'_>, from: IpAddr) -> Result<()> {
    let there = receiver.host.netns.enter(|| UdpSocket::bind((to, 0)))??;
    let here = sender.host.netns.enter(|| UdpSocket::bind((from, 0)))??;
    there.set_read_timeout(Some(PATIENCE))?;
    let mut arrived = vec![0; 1 << 16];
    for len in (0..=1_400).chain([1_401, 2_000, 2_745, 9_000, 20_000]) {
        let sent: Vec<u8> = (0..len).map(|i: usize| i.to_le_bytes()[0] ^ len.to_le_bytes()[0]).collect();
        here.send_to(&sent, there.local_addr()?)?;
        let (got, source) = there.recv_from(&mut arrived).with_context(|| format!("{len} bytes to {to}"))?;
        anyhow::ensure!(arrived[..got] == sent && source.ip() == from, "{len} bytes to {to}: {got} from {source}");
    }
    Ok(())
}

/// A file from `sender` to `receiver` by TCP; the digest of what arrived.
pub(crate) fn send_file(receiver: &Peer<'_>, sender: &Peer<'_>, address: SocketAddr) -> Result<Vec<u8>> {
    pass_file((&receiver.host.netns, address), (&sender.host.netns, address))
}

/// A file by TCP, from a machine that sends it to an address, to the machine where it arrives at another; its digest.
pub(crate) fn pass_file(
    (receiver, listen): (&Namespace, SocketAddr),
    (sender, to): (&Namespace, SocketAddr),
) -> Result<Vec<u8>> {
    let listener = receiver.enter(|| TcpListener::bind(listen))?.with_context(|| format!("{listen} is local"))?;
    std::thread::scope(|scope| {
        let arrived = scope.spawn(move || -> Result<Vec<u8>> {
            let (mut bytes, mut hash) = (vec![0; BLOCK], Context::new(&SHA256));
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            loop {
                match stream.read(&mut bytes)? {
                    0 => return Ok(hash.finish().as_ref().to_vec()),
                    len => hash.update(&bytes[..len]),
                }
            }
        });
        let mut stream = sender.enter(|| TcpStream::connect_timeout(&to, PATIENCE))??;
        each_block(|block| stream.write_all(block))?;
        drop(stream);
        arrived.join().expect("the receiver does not panic")
    })
}

const BLOCK: usize = 1_000_000;

/// The digest of the file.
pub(crate) fn file_digest() -> Vec<u8> {
    let mut hash = Context::new(&SHA256);
    each_block(|block| {
        hash.update(block);
        Ok(())
    })
    .expect("nothing fails");
    hash.finish().as_ref().to_vec()
}

/// The blocks of a file that does not compress and does not repeat: 10 MB, or `FILE_MB`.
fn each_block(mut take: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    let blocks: usize = std::env::var("FILE_MB").map_or(10, |text| text.parse().expect("a number of MB"));
    let (mut rng, mut block) = (punchlan::sans::Seed::from_u64(10).rng(), vec![0; BLOCK]);
    for _ in 0..blocks {
        rng.fill(&mut block);
        take(&block)?;
    }
    Ok(())
}
