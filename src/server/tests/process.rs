//! The process on loopback, with real sockets and a real clock.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::world::identity;
use crate::daemon::Failure;
use crate::id::{ServerId, SocketId};
use crate::io::clock;
use crate::rendezvous::{Client, Event};
use crate::sans::Seed;
use crate::server::{Config, Options, Ready, Web, run};

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn options(state: &tempfile::TempDir, listen: &str) -> Options {
    let listen = vec![listen.parse().expect("address")];
    Options { listen, state: state.path().to_owned(), web: Web::default(), config: Config::default() }
}

/// Runs a server beside `test`.
pub(super) async fn with_server<T>(options: Options, test: impl AsyncFnOnce(Ready) -> T) -> T {
    let local = LocalSet::new();
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel();
    let shutdown = async {
        let _ = stopped.await;
        "the test's end"
    };
    let server = run(options, shutdown, move |ready| {
        let _ = tell.send(ready.clone());
    });
    local
        .run_until(async {
            let test = async {
                let answer = test(told.await.expect("it is ready")).await;
                drop(stop);
                answer
            };
            let (ended, answer) = timeout(PATIENCE, async { tokio::join!(server, test) }).await.expect("in time");
            ended.expect("a clean end");
            answer
        })
        .await
}

async fn ask(from: SocketAddr, to: SocketAddr, question: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind(from).await.expect("a port");
    socket.connect(to).await.expect("connected: an answer from elsewhere is not received");
    socket.send(question).await.expect("sent");
    let mut answer = vec![0; 1500];
    let len = timeout(PATIENCE, socket.recv(&mut answer)).await.expect("answered").expect("received");
    answer.truncate(len);
    answer
}

fn stun() -> Vec<u8> {
    [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat()
}

#[tokio::test(flavor = "current_thread")]
async fn a_wildcard_answers_on_both_families_from_the_address_that_was_asked() {
    let state = tempfile::tempdir().expect("folder");
    with_server(options(&state, "[::]:0"), async |ready: Ready| {
        let port = ready.addresses[0].port();
        assert!(ready.addresses.iter().all(|addr| addr.port() == port), "{ready}");
        for last in [1, 2, 77] {
            let (from, to) = (Ipv4Addr::new(127, 0, 0, 9), Ipv4Addr::new(127, 0, 0, last));
            let answer = ask((from, 0).into(), (to, port).into(), &stun()).await;
            assert_eq!(answer[..4], [1, 1, 0, 12]);
        }
        if ready.addresses.len() > 1 {
            let answer = ask((Ipv6Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, port).into(), &stun()).await;
            assert_eq!(answer[..4], [1, 1, 0, 24]);
        }
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_key_is_made_once_and_stays() {
    let state = tempfile::tempdir().expect("folder");
    let first = with_server(options(&state, "127.0.0.1:0"), async |ready: Ready| ready.key).await;
    let again = with_server(options(&state, "127.0.0.1:0"), async |ready: Ready| ready).await;
    assert_eq!(again.key, first);
    assert!(again.to_string().ends_with(&format!("key {first}")), "{again}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_real_client_registers() {
    let state = tempfile::tempdir().expect("folder");
    with_server(options(&state, "127.0.0.1:0"), async |ready: Ready| {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let mut client = Client::new(ServerId(0), Some(ready.key), &Seed::from_u64(1));
        let (identity, mut number) = (identity(1, 1), clock::wall_ms());
        client.set_addresses(clock::now(), ready.addresses.clone());
        client.set_announcement(clock::now(), vec![1; 512]);
        let mut seen = Vec::new();
        while !seen.contains(&Event::Registered) {
            client.handle_timeout(clock::now(), || {
                number += 1;
                Some(number)
            });
            while let Some(event) = client.poll_event() {
                seen.push(event);
            }
            while let Some((_, to, bytes)) = client.poll_transmit() {
                socket.send_to(&bytes, to).await.expect("sent");
            }
            let mut bytes = [0; 1500];
            let (len, from) = socket.recv_from(&mut bytes).await.expect("received");
            assert!(client.handle_datagram(clock::now(), &identity, from, &bytes[..len]));
            while let Some(event) = client.poll_event() {
                seen.push(event);
            }
        }
        let addr = socket.local_addr().expect("bound");
        assert!(seen.contains(&Event::Observed { socket: SocketId(0), addr }));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_stands_in_the_way_is_named() {
    let state = tempfile::tempdir().expect("folder");
    with_server(options(&state, "127.0.0.1:0"), async |ready: Ready| {
        let never = || std::future::pending::<&'static str>();
        let locked = run(options(&state, "127.0.0.1:0"), never(), |_| {}).await.expect_err("locked");
        assert_eq!(locked.code(), 1);
        assert!(locked.to_string().contains("PUNCHLAN_STATE="), "{locked}");
        assert!(locked.to_string().contains("one serves any number of networks"), "{locked}");
        let other = tempfile::tempdir().expect("folder");
        let taken = run(options(&other, &ready.addresses[0].to_string()), never(), |_| {}).await.expect_err("taken");
        assert_eq!(taken.code(), 1);
        assert!(taken.to_string().contains("--listen"), "{taken}");
        assert!(matches!(taken, Failure::Failed(_)));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn an_address_that_is_listened_on_twice_is_named_and_what_is_suggested_is_another_port() {
    let state = tempfile::tempdir().expect("folder");
    let refused = async |listen: &[&str]| {
        let listen = listen.iter().map(|addr| addr.parse().expect("address")).collect();
        let options =
            Options { listen, state: state.path().to_owned(), web: Web::default(), config: Config::default() };
        run(options, std::future::pending::<&'static str>(), |_| {}).await.expect_err("refused")
    };
    for (listen, what) in [
        (["127.0.0.1:4000", "127.0.0.1:4000"], "127.0.0.1:4000 is listened on twice"),
        (["0.0.0.0:4000", "127.0.0.1:4000"], "127.0.0.1:4000 is part of 0.0.0.0:4000"),
        (["[::]:4000", "127.0.0.1:4000"], "127.0.0.1:4000 is part of [::]:4000"),
        (["127.0.0.1:4000", "[::]:4000"], "127.0.0.1:4000 is part of [::]:4000"),
        (["[::]:4000", "[::1]:4000"], "[::1]:4000 is part of [::]:4000"),
    ] {
        let said = refused(&listen).await;
        assert!(said.code() == 2 && said.to_string().starts_with(what), "{said}");
    }
    let holder = UdpSocket::bind("127.0.0.1:4000").await;
    let said = refused(&["127.0.0.1:4000"]).await.to_string();
    assert!(said.contains("--listen 127.0.0.1:4001"), "{said}");
    drop(holder);
}
