//! Members by TCP: the real process on loopback, and what strangers do to it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use super::process::{options, with_server};
use super::world::identity;
use crate::crypto::Identity;
use crate::id::{Origin, PeerId, ServerId, SocketId};
use crate::io::clock;
use crate::io::stream::{ROOM, Reader};
use crate::io::web;
use crate::rendezvous::client::StreamWay;
use crate::rendezvous::{Client, Event};
use crate::sans::{Carrier, Seed};
use crate::server::{Options, Ready, StreamLimits, Tls, Web, run};
use crate::wire::stream;
use tokio_rustls::rustls::RootCertStore;

const PATIENCE: Duration = Duration::from_secs(15);
const STREAM: SocketId = SocketId::FIRST_STREAM;

/// How a member reaches the server.
enum Way {
    Udp(UdpSocket),
    Stream(Reader<Box<dyn AsyncRead + Unpin>>, Box<dyn AsyncWrite + Unpin>),
}

impl Way {
    fn stream(stream: impl AsyncRead + AsyncWrite + 'static) -> Self {
        let (reader, writer) = split(Box::pin(stream));
        Self::Stream(Reader::new(Box::new(reader), ROOM), Box::new(writer))
    }
}

struct Member {
    client: Client,
    identity: Identity,
    number: u64,
    way: Way,
    server: SocketAddr,
    events: Vec<Event>,
    relayed: Vec<(PeerId, Vec<u8>)>,
}

impl Member {
    async fn new(ready: &Ready, device: u8, by_stream: bool) -> Self {
        let way = if by_stream {
            let tcp = TcpStream::connect(ready.addresses[0]).await.expect("connected");
            Way::stream(tcp)
        } else {
            Way::Udp(UdpSocket::bind("127.0.0.1:0").await.expect("a port"))
        };
        Self::by(ready, device, way)
    }

    fn by(ready: &Ready, device: u8, way: Way) -> Self {
        let (server, identity) = (ready.addresses[0], identity(1, device));
        let mut client = Client::new(ServerId(0), Some(ready.key), &Seed::from_u64(device.into()));
        if let Way::Stream(..) = way {
            client = client.with_streams(false, vec![StreamWay { port: server.port(), carrier: Carrier::Tcp }]);
        }
        client.set_addresses(clock::now(), vec![server]);
        client.set_announcement(clock::now(), vec![device; 512]);
        let (events, relayed) = (Vec::new(), Vec::new());
        Self { client, identity, number: clock::wall_ms(), way, server, events, relayed }
    }

    fn id(&self) -> PeerId {
        self.identity.device.id()
    }

    /// Does what is due, and waits a moment for what comes.
    async fn step(&mut self) {
        let number = &mut self.number;
        self.client.handle_timeout(clock::now(), || {
            *number += 1;
            Some(*number)
        });
        self.drain().await;
        let came = match &mut self.way {
            Way::Udp(socket) => {
                let mut bytes = vec![0; 2_000];
                let came = timeout(Duration::from_millis(20), socket.recv_from(&mut bytes)).await;
                came.ok()
                    .map(|received| (Origin::Udp(self.server), vec![bytes[..received.expect("received").0].to_vec()]))
            }
            Way::Stream(reader, _) => timeout(Duration::from_millis(20), reader.next()).await.ok().map(|read| {
                let mut bytes = read.expect("the server does not end it");
                (Origin::Stream(STREAM), stream::datagrams(&mut bytes).map(|datagram| datagram.to_vec()).collect())
            }),
        };
        for (origin, bytes) in
            came.into_iter().flat_map(|(origin, all)| all.into_iter().map(move |bytes| (origin, bytes)))
        {
            self.take(origin, bytes);
        }
        self.drain().await;
    }

    fn take(&mut self, origin: Origin, mut bytes: Vec<u8>) {
        if !self.client.handle_datagram(clock::now(), &self.identity, origin, &bytes)
            && let Some((from, range)) = self.client.relay_open(&mut bytes, origin)
        {
            self.relayed.push((from, bytes[range].to_vec()));
        }
    }

    async fn drain(&mut self) {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Connect { attempt, .. } => self.client.connected(clock::now(), attempt, Ok(STREAM)),
                Event::Member { peer, .. } => {
                    self.client.open_channel(clock::now(), peer);
                    self.events.push(event);
                }
                event => self.events.push(event),
            }
        }
        while let Some((_, to, bytes)) = self.client.poll_transmit() {
            self.send(to, &bytes).await.expect("sent");
        }
    }

    async fn send(&mut self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        match &mut self.way {
            Way::Udp(socket) => socket.send_to(bytes, to).await.map(drop),
            Way::Stream(_, writer) => {
                let mut framed = Vec::new();
                assert!(stream::push(&mut framed, bytes));
                writer.write_all(&framed).await
            }
        }
    }

    /// Sends to another member through the relay, if that is open.
    async fn relay(&mut self, to: &PeerId, payload: &[u8]) -> bool {
        let Some(header) = self.client.relay_header(to, payload) else { return false };
        self.send(self.server, &[&header[..], payload].concat()).await.is_ok()
    }
}

/// Both step until something is so.
async fn until(a: &mut Member, b: &mut Member, done: impl Fn(&Member, &Member) -> bool) {
    let wait = async {
        while !done(a, b) {
            a.step().await;
            b.step().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("in time");
}

fn sees(of: &Member, other: PeerId) -> Option<Option<SocketAddr>> {
    of.events.iter().rev().find_map(|event| match event {
        Event::Member { peer, observed, .. } if *peer == other => Some(*observed),
        _ => None,
    })
}

#[tokio::test(flavor = "current_thread")]
async fn members_by_tcp_and_by_udp_are_of_one_network_and_what_tcp_shows_is_no_address() {
    let state = tempfile::tempdir().expect("folder");
    with_server(options(&state, "127.0.0.1:0"), async |ready: Ready| {
        assert_eq!(ready.tcp, ready.addresses, "{ready}");
        let (mut alice, mut bob) = (Member::new(&ready, 1, true).await, Member::new(&ready, 2, false).await);
        let (a, b) = (alice.id(), bob.id());
        until(&mut alice, &mut bob, |alice, bob| {
            alice.client.relay_header(&b, b"x").is_some() && bob.client.relay_header(&a, b"x").is_some()
        })
        .await;
        let Way::Udp(socket) = &bob.way else { unreachable!("bob has UDP") };
        assert_eq!(sees(&alice, b), Some(Some(socket.local_addr().expect("bound"))));
        assert_eq!(sees(&bob, a), Some(None), "a stream's address is nobody's business");
        assert!(!alice.events.iter().any(|event| matches!(event, Event::Observed { .. })));
        assert_eq!((alice.client.transport(), alice.client.udp_addrs()), ("tcp", [None; 2]));
        for n in 0..50_u8 {
            assert!(alice.relay(&b, &[n; 1_200]).await && bob.relay(&a, &[n; 900]).await);
        }
        until(&mut alice, &mut bob, |alice, bob| alice.relayed.len() == 50 && bob.relayed.len() == 50).await;
        assert!(bob.relayed.iter().zip(0..).all(|((from, bytes), n)| *from == a && *bytes == [n; 1_200]), "in order");
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_member_that_takes_nothing_loses_what_is_beyond_its_queue_and_holds_up_nobody() {
    let state = tempfile::tempdir().expect("folder");
    let mut much: Options = options(&state, "127.0.0.1:0");
    // Nothing is lost for another reason.
    let bytes = 1_000_000_000;
    let relay = &mut much.config.relay;
    (relay.prefix_bytes, relay.network_bytes, relay.total_bytes) = (bytes, bytes, bytes);
    with_server(much, async |ready: Ready| {
        let (mut alice, mut bob) = (Member::new(&ready, 1, true).await, Member::new(&ready, 2, true).await);
        let (a, b) = (alice.id(), bob.id());
        until(&mut alice, &mut bob, |alice, bob| {
            alice.client.relay_header(&b, b"x").is_some() && bob.client.relay_header(&a, b"x").is_some()
        })
        .await;
        // Far more than the server's queue and what both kernels hold: bob reads nothing of it.
        let sent = 20_000_u32;
        for n in 0..sent {
            assert!(alice.relay(&b, &[[1; 1_196].as_slice(), &n.to_be_bytes()].concat()).await);
        }
        let mut carol = Member::new(&ready, 3, false).await;
        until(&mut carol, &mut alice, |carol, _| carol.events.contains(&Event::Registered)).await;
        // What it finds when it reads again is what there was room for.
        let last = [[2; 1_196].as_slice(), &sent.to_be_bytes()].concat();
        until(&mut alice, &mut bob, |_, bob| bob.relayed.len() > 100).await;
        while bob.relayed.last().is_none_or(|(_, bytes)| *bytes != last) {
            assert!(alice.relay(&b, &last).await);
            bob.step().await;
        }
        let came = bob.relayed.iter().filter(|(_, bytes)| *bytes != last).count();
        assert!((100..20_000).contains(&came), "{came}");
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_server_that_stops_says_so_to_members_by_tcp() {
    let state = tempfile::tempdir().expect("folder");
    let left = with_server(options(&state, "127.0.0.1:0"), async |ready: Ready| {
        let (mut alice, mut bob) = (Member::new(&ready, 1, true).await, Member::new(&ready, 2, true).await);
        until(&mut alice, &mut bob, |alice, bob| {
            alice.events.contains(&Event::Registered) && bob.events.contains(&Event::Registered)
        })
        .await;
        alice
    });
    let mut alice = left.await;
    let Way::Stream(reader, _) = &mut alice.way else { unreachable!("by TCP") };
    let mut all = Vec::new();
    while let Ok(mut bytes) = timeout(PATIENCE, reader.next()).await.expect("it is ended") {
        all.extend(stream::datagrams(&mut bytes).map(|datagram| datagram.to_vec()));
    }
    all.into_iter().for_each(|bytes| alice.take(Origin::Stream(STREAM), bytes));
    let mut told = std::iter::from_fn(|| alice.client.poll_event());
    assert!(told.any(|event| event == Event::Lost));
}

/// Whether the server ends the connection within this.
async fn is_ended(tcp: &mut TcpStream, within: Duration) -> bool {
    let mut bytes = [0; 4_096];
    let read = async {
        loop {
            match tcp.read(&mut bytes).await {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    };
    timeout(within, read).await.unwrap_or(false)
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_not_ours_ends_a_connection_at_once() {
    let state = tempfile::tempdir().expect("folder");
    with_server(options(&state, "127.0.0.1:0"), async |ready: Ready| {
        let first = [0x16, 0x03, 0x01, 0x02, 0x00];
        for garbage in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &first, &[0xff; 64], &[0, 0], b"SSH-2.0-x\r\n"] {
            let mut tcp = TcpStream::connect(ready.addresses[0]).await.expect("connected");
            tcp.write_all(garbage).await.expect("sent");
            assert!(is_ended(&mut tcp, Duration::from_secs(5)).await, "{garbage:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn who_says_nothing_whole_is_not_waited_for() {
    let state = tempfile::tempdir().expect("folder");
    with_server(options(&state, "127.0.0.1:0"), async |ready: Ready| {
        let mut slow = TcpStream::connect(ready.addresses[0]).await.expect("connected");
        let mut silent = TcpStream::connect(ready.addresses[0]).await.expect("connected");
        // A byte now and then of a datagram that never ends.
        slow.write_all(&[0x04]).await.expect("sent");
        sleep(Duration::from_secs(1)).await;
        slow.write_all(&[0x00, 0xe7]).await.expect("sent");
        assert!(is_ended(&mut slow, PATIENCE).await && is_ended(&mut silent, PATIENCE).await);
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn connections_beyond_those_of_a_prefix_are_ended_and_udp_is_answered_all_the_same() {
    let state = tempfile::tempdir().expect("folder");
    let mut few: Options = options(&state, "127.0.0.1:0");
    few.config.streams = StreamLimits { all: 10, per_prefix: 3 };
    with_server(few, async |ready: Ready| {
        let mut all = Vec::new();
        for _ in 0..5 {
            all.push(TcpStream::connect(ready.addresses[0]).await.expect("connected"));
        }
        let mut ended = 0;
        for tcp in &mut all {
            ended += usize::from(is_ended(tcp, Duration::from_millis(300)).await);
        }
        assert_eq!(ended, 2);
        drop(all);
        let (mut alice, mut bob) = (Member::new(&ready, 1, false).await, Member::new(&ready, 2, false).await);
        until(&mut alice, &mut bob, |alice, bob| {
            alice.events.contains(&Event::Registered) && bob.events.contains(&Event::Registered)
        })
        .await;
    })
    .await;
}

/// Options with a web server beside the rest, and the certificate that clients trust.
fn with_tls(state: &tempfile::TempDir) -> (Options, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["play.example.org".to_owned()]).expect("a certificate");
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| state.path().join(name));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let listen = vec!["127.0.0.1:0".parse().expect("address")];
    let mut options = options(state, "127.0.0.1:0");
    options.web = Web { tls: Some(Tls { listen: listen.clone(), certificate, key }), proxied: listen };
    (options, roots_of(&made))
}

fn roots_of<K: rcgen::SigningKey>(made: &rcgen::CertifiedKey<K>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("parsed");
    roots
}

#[tokio::test(flavor = "current_thread")]
async fn members_come_by_websocket_too_by_tls_and_as_a_proxy_passes_them_on() {
    let state = tempfile::tempdir().expect("folder");
    let (options, roots) = with_tls(&state);
    with_server(options, async |ready: Ready| {
        let greet = async |roots, to, host, path| {
            let tcp = TcpStream::connect(to).await.expect("connected");
            web::greet_trusting(roots, tcp, to, host, path).await
        };
        let (tls, proxied) = (ready.tls[0], ready.proxied[0]);
        let said = greet(roots.clone(), tls, "elsewhere.example", "/").await.map(drop);
        assert!(said.expect_err("another name").contains("its certificate is not for elsewhere.example"));
        let said = greet(roots.clone(), proxied, "play.example.org", "/").await.map(drop);
        assert!(said.expect_err("no TLS").contains("speaks no TLS"));
        let others = roots_of(&rcgen::generate_simple_self_signed(["play.example.org".to_owned()]).expect("made"));
        let said = greet(others, tls, "play.example.org", "/").await.map(drop);
        assert!(said.expect_err("no authority of ours").contains("no authority that this system trusts"));
        let by_tls = greet(roots, tls, "play.example.org", "/any/path").await.expect("trusted");
        let proxied = TcpStream::connect(proxied).await.expect("connected");
        let (proxied, _) = tokio_tungstenite::client_async("ws://play.example.org/", proxied).await.expect("greeted");
        let ((near_a, tunnel_a), (near_b, tunnel_b)) = (web::tunnel(by_tls), web::tunnel(proxied));
        tokio::task::spawn_local(tunnel_a);
        tokio::task::spawn_local(tunnel_b);
        let mut alice = Member::by(&ready, 1, Way::stream(near_a));
        let mut bob = Member::by(&ready, 2, Way::stream(near_b));
        let (a, b) = (alice.id(), bob.id());
        until(&mut alice, &mut bob, |alice, bob| {
            alice.client.relay_header(&b, b"x").is_some() && bob.client.relay_header(&a, b"x").is_some()
        })
        .await;
        for n in 0..50_u8 {
            assert!(alice.relay(&b, &[n; 1_400]).await && bob.relay(&a, &[n; 900]).await);
        }
        until(&mut alice, &mut bob, |alice, bob| alice.relayed.len() == 50 && bob.relayed.len() == 50).await;
        assert!(bob.relayed.iter().zip(0..).all(|((from, bytes), n)| *from == a && *bytes == [n; 1_400]), "in order");
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_no_browser_would_say_ends_a_connection() {
    let state = tempfile::tempdir().expect("folder");
    let (options, _) = with_tls(&state);
    with_server(options, async |ready: Ready| {
        let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 100_000], b"\r\n\r\n"].concat();
        for garbage in [b"\xe7\x01\x02\x03\r\n\r\n".as_slice(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &long] {
            for addr in ready.tls.iter().chain(&ready.proxied) {
                let mut tcp = TcpStream::connect(addr).await.expect("connected");
                // It may have been ended before all was sent.
                let _ = tcp.write_all(garbage).await;
                assert!(is_ended(&mut tcp, PATIENCE).await, "{addr}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_certificate_that_cannot_be_read_is_named() {
    let state = tempfile::tempdir().expect("folder");
    let (mut options, _) = with_tls(&state);
    options.web.tls.as_mut().expect("as above").certificate = state.path().join("missing.pem");
    let said = run(options, std::future::pending::<&'static str>(), |_| {}).await.expect_err("refused");
    assert!(said.code() == 2 && said.to_string().contains("missing.pem"), "{said}");
}
