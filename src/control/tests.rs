use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::id::NetworkId;
use crate::io::store::RunDir;
use crate::node::status::PathKind;

const PATIENCE: Duration = Duration::from_secs(5);

struct Place {
    _folder: tempfile::TempDir,
    run_dir: RunDir,
}

fn place() -> Place {
    let folder = tempfile::tempdir().expect("folder");
    let run_dir = RunDir::create(folder.path(), &NetworkId([1; 32])).expect("run folder");
    Place { _folder: folder, run_dir }
}

/// A daemon that pongs, forgets bob alone, and ends when it is told to.
async fn daemon(mut server: Server) {
    loop {
        let Incoming { request, reply } = server.next().await;
        let remote: SocketAddr = "203.0.113.9:41641".parse().expect("address");
        let path = Path {
            kind: PathKind::Reflexive,
            transport: "udp".into(),
            family: "ipv4".into(),
            local: None,
            remote,
            relay: None,
        };
        let is_down = request == Request::Down;
        let response = match request {
            Request::Ping { peer, .. } if peer == "silent" => continue,
            Request::Ping { .. } => Response::Pong { path, rtt_ms: 1.25 },
            Request::Forget { name } if name == "bob" => Response::Done,
            Request::Down => Response::Done,
            _ => Response::refused(Refusal::NoSuchPeer, "nobody"),
        };
        let _ = reply.send(response);
        if is_down {
            tokio::task::yield_now().await;
            return;
        }
    }
}

async fn ask(client: &mut Client, request: Request) -> Response {
    client.ask(&request, PATIENCE).await.expect("an answer")
}

#[tokio::test]
async fn questions_are_answered_one_after_the_other_until_the_daemon_leaves() {
    let place = place();
    let running = tokio::spawn(daemon(Server::bind(&place.run_dir).expect("bound")));
    let mut client = Client::connect(&place.run_dir).expect("connected");
    assert_eq!(client.server_pid(), i32::try_from(std::process::id()).ok());
    let pong = ask(&mut client, Request::Ping { peer: "bob".into(), id: 1 }).await;
    assert!(matches!(pong, Response::Pong { rtt_ms: 1.25, .. }), "{pong:?}");
    assert_eq!(ask(&mut client, Request::Forget { name: "bob".into() }).await, Response::Done);
    let refused = ask(&mut client, Request::Forget { name: "eve".into() }).await;
    assert_eq!(refused, Response::refused(Refusal::NoSuchPeer, "nobody"));
    let unanswered = ask(&mut client, Request::Ping { peer: "silent".into(), id: 2 }).await;
    assert!(matches!(unanswered, Response::Refused { code: Refusal::Failed, .. }), "{unanswered:?}");
    let _ = client.ask(&Request::Down, PATIENCE).await;
    running.await.expect("ended");
    assert!(!place.run_dir.path().exists(), "the run folder is left");
    assert!(matches!(Client::connect(&place.run_dir), Err(ClientError::NotRunning)));
}

#[tokio::test]
async fn a_socket_that_a_crash_left_is_taken_over_and_one_in_use_is_not() {
    let place = place();
    drop(std::os::unix::net::UnixListener::bind(place.run_dir.socket()).expect("bound"));
    assert!(matches!(Client::connect(&place.run_dir), Err(ClientError::NotRunning)));
    let _server = Server::bind(&place.run_dir).expect("taken over");
    let error = Server::bind(&place.run_dir).expect_err("in use").to_string();
    assert!(error.contains(&format!("process {}", std::process::id())) && error.contains("punchlan down"), "{error}");
}

#[tokio::test]
async fn garbage_and_silent_and_greedy_clients_harm_nobody() {
    let place = place();
    let server = Server::bind(&place.run_dir).expect("bound");
    let running = tokio::spawn(daemon(server));
    let raw = || {
        let stream = UnixStream::connect(place.run_dir.socket()).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream
    };

    // Answered: what is a line, but not a question.
    for garbage in ["\n", "{}\n", "null\n", "{\"request\":\"rm -rf\"}\n", "\u{0}\u{1}é\n", "[[[[[[\n"] {
        let (mut stream, mut said) = (raw(), vec![0; 4096]);
        stream.write_all(garbage.as_bytes()).expect("written");
        let n = tokio::task::spawn_blocking(move || stream.read(&mut said).map(|n| said[..n].to_vec())).await;
        let said = String::from_utf8(n.expect("joined").expect("an answer")).expect("text");
        assert!(said.contains("\"malformed\""), "{garbage:?}: {said}");
    }
    // Cut off: a line without end.
    let mut endless = raw();
    let cut_off = tokio::task::spawn_blocking(move || while endless.write_all(&[b'['; 1000]).is_ok() {});
    cut_off.await.expect("joined");
    // Silent ones, up to this user's share and beyond it.
    let silent: Vec<UnixStream> = (0..40).map(|_| raw()).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(Client::connect(&place.run_dir).expect("connected").ask(&Request::Down, PATIENCE).await.is_err());
    drop(silent);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut client = Client::connect(&place.run_dir).expect("connected");
    let _ = client.ask(&Request::Down, PATIENCE).await;
    running.await.expect("ended");
}

#[tokio::test]
async fn a_daemon_that_hangs_is_said_to_hang() {
    let place = place();
    let _server = Server::bind(&place.run_dir).expect("bound");
    let mut client = Client::connect(&place.run_dir).expect("connected");
    let error = client.ask(&Request::Status, Duration::from_millis(50)).await.expect_err("silence");
    assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
    assert!(error.to_string().contains("does not answer within 50ms"), "{error}");
}

#[test]
fn the_lines_on_the_wire_are_these() {
    let text = |request| serde_json::to_string(&request).expect("json");
    assert_eq!(text(Request::Status), r#"{"request":"status"}"#);
    assert_eq!(text(Request::Ping { peer: "bob".into(), id: 7 }), r#"{"request":"ping","peer":"bob","id":7}"#);
    let refused = serde_json::to_string(&Response::refused(Refusal::NoSuchPeer, "x")).expect("json");
    assert_eq!(refused, r#"{"response":"refused","code":"no-such-peer","text":"x"}"#);
}
