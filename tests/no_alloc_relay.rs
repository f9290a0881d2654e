//! A relayed frame costs the rendezvous no heap allocation, nor the member who carries it: counted.

#[path = "common/counting.rs"]
mod counting;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use punchlan::crypto::relay::RelayKey;
use punchlan::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites};
use punchlan::forward::{Inbound, Table};
use punchlan::id::{Epoch, NetworkId, NetworkKey, PeerId, ServerId, SocketId};
use punchlan::rendezvous::Client;
use punchlan::router::{Owned, Router};
use punchlan::sans::{Datagram, Instant, Seed};
use punchlan::server::{Config, Core, Verdict};
use punchlan::wire::relay::Header;

use counting::allocations;

struct Peer {
    client: Client,
    identity: Identity,
    addr: SocketAddr,
}

fn server() -> SocketAddr {
    "198.51.100.1:3478".parse().expect("address")
}

fn peer(device: u8) -> Peer {
    let mut client = Client::new(ServerId(0), None, &Seed::from_u64(device.into()));
    client.set_addresses(Instant::ZERO, vec![server()]);
    client.set_announcement(Instant::ZERO, vec![device; 512]);
    let identity = Identity {
        network: NetworkSecrets::derive(&NetworkKey::new([1; 32]), Epoch::default()),
        device: DeviceSecrets::from_seed(&[device; 32]),
        suites: Suites::native(),
        features: 0,
    };
    Peer { client, identity, addr: SocketAddr::new([192, 0, 2, device].into(), 9) }
}

/// Carries datagrams between peers and server until nobody has anything to say.
fn talk(now: Instant, core: &mut Core, peers: &mut [Peer]) {
    for peer in peers.iter_mut() {
        peer.client.handle_timeout(now, || Some(now.as_nanos()));
    }
    loop {
        let mut silent = true;
        for peer in peers.iter_mut() {
            while let Some((_, _, mut payload)) = peer.client.poll_transmit() {
                silent = false;
                core.handle_datagram(now, datagram(peer.addr, &mut payload));
            }
        }
        while let Some(sent) = core.poll_transmit() {
            silent = false;
            let peer = peers.iter_mut().find(|peer| peer.addr == sent.to).expect("one of them");
            peer.client.handle_datagram(now, &peer.identity, server(), &sent.payload);
        }
        if silent {
            return;
        }
    }
}

fn datagram(from: SocketAddr, payload: &mut [u8]) -> Datagram<'_> {
    Datagram { socket: SocketId(0), local: Some(server().ip()), from, payload }
}

fn ids(peers: &[Peer; 2]) -> [PeerId; 2] {
    [peers[0].identity.device.id(), peers[1].identity.device.id()]
}

#[test]
fn a_relayed_frame_costs_no_allocation() {
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut core = Core::new(Config::default(), [7; 32], &Seed::from_u64(9), now);
    let mut peers = [peer(1), peer(2)];
    talk(now, &mut core, &mut peers);
    let ids = ids(&peers);
    peers[0].client.open_channel(now, ids[1]);
    peers[1].client.open_channel(now, ids[0]);
    talk(now, &mut core, &mut peers);

    let payload = [0xE0; 1400];
    let header = peers[0].client.relay_header(&ids[1], &payload).expect("the channel is open");
    let frame = [&header[..], &payload].concat();
    let mut buffer = frame.clone();
    let before = allocations();
    for _ in 0..10_000 {
        now += Duration::from_micros(100);
        buffer.copy_from_slice(&frame);
        let verdict = core.handle_datagram(now, datagram(peers[0].addr, &mut buffer));
        assert!(matches!(verdict, Verdict::Forward { .. }));
        let (from, range) = peers[1].client.relay_open(&mut buffer, server()).expect("genuine");
        assert!(from == ids[0] && buffer[range] == payload);
    }
    assert_eq!(allocations() - before, 0);
}

#[test]
fn a_carried_frame_costs_no_allocation() {
    let secrets = NetworkSecrets::derive(&NetworkKey::new([1; 32]), Epoch::default());
    let me = Owned { v4: None, ula: std::net::Ipv6Addr::LOCALHOST, link_local: std::net::Ipv6Addr::LOCALHOST };
    let table = Table::new(Arc::new(Router::new(secrets.overlay(None), me)));
    let key = |n| RelayKey::new(zeroize::Zeroizing::new([n; 16]));
    let addr = |n| SocketAddr::new([192, 0, 2, n].into(), 9);
    for n in [1, 2] {
        let (slot, prefix) = (u32::from(n), addr(n).ip().into());
        table.carriage().set_way(slot, Some((SocketId(0), addr(n))));
        table.carriage().change(|t| t.attach(slot, addr(n).into(), key(n), key(n + 10), NetworkId([0; 32]), prefix));
    }
    table.carriage().change(|t| (t.open(1, 2, 5), t.open(2, 1, 7))).1.expect("open").expect("on both ends");

    let mut now = Instant::from_nanos(1_000_000_000);
    let payload = [0xE0; 1400];
    let frame = [&Header { channel: 5, tag: key(1).tag(5, &payload) }.encode()[..], &payload].concat();
    let mut buffer = frame.clone();
    let before = allocations();
    for _ in 0..10_000 {
        now += Duration::from_micros(100);
        buffer.copy_from_slice(&frame);
        let opened = table.openings().open(now, &mut datagram(addr(1), &mut buffer));
        assert_eq!(opened, Some(Inbound::Forward { socket: SocketId(0), to: addr(2) }));
    }
    assert_eq!(allocations() - before, 0);
    assert_eq!(Header::parse(&buffer).expect("a frame").0.channel, 7);
}
