//! What the tests of the command line stand on: a folder of their own, somebody without rights, and daemons
//! that are played.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread::JoinHandle;

use punchlan::control::{Incoming, Refusal, Request, Response, Server};
use punchlan::id::{NetworkId, PeerId};
use punchlan::io::store::RunDir;
use punchlan::node::status::{self, Status};
use tempfile::TempDir;
use tokio::sync::oneshot;

pub(crate) const PUNCHLAN: &str = env!("CARGO_BIN_EXE_punchlan");
/// Somebody without any right.
const NOBODY: u32 = 65534;

/// A folder of its own for each test, with state and run folders in it.
pub(crate) struct Here {
    folder: TempDir,
}

impl Here {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("punchlan-cli-").tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("mode");
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another program, with our folders.
    pub(crate) fn around(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env_remove("PUNCHLAN_LOG");
        command.env("PUNCHLAN_STATE", self.path("state")).env("PUNCHLAN_RUN", self.path("run"));
        command.env("PUNCHLAN_HOSTS", self.path("hosts"));
        command
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self.around(PUNCHLAN);
        command.args(words);
        command
    }

    pub(crate) fn succeeds(&self, words: &[&str]) -> String {
        let output = self.command(words).output().expect("runs");
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// What it says on stderr; stdout must be empty.
    pub(crate) fn fails(&self, words: &[&str], code: i32) -> String {
        let output = self.command(words).output().expect("runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{words:?}");
        assert!(said.starts_with("error: ") && !said.contains('\u{1b}'), "{words:?}: {said}");
        said
    }

    pub(crate) fn with_stdin(&self, words: &[&str], input: &str) -> Output {
        let mut assert = assert_cmd::Command::from_std(self.command(words));
        assert.write_stdin(input).output().expect("runs")
    }

    /// Run by a user without rights: root plays one, anybody else is one.
    pub(crate) fn as_nobody(&self, words: &[&str]) -> Output {
        let mut command = self.command(words);
        if nix::unistd::geteuid().is_root() {
            // The program's own folder may be closed to others; the system's folder for programs never is.
            let program = self.path("punchlan");
            fs::copy(PUNCHLAN, &program).expect("copied");
            command = self.around(program.to_str().expect("text"));
            command.args(words).uid(NOBODY).gid(NOBODY);
        }
        command.output().expect("runs")
    }

    pub(crate) fn give_away(&self, name: &str) {
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(self.path(name), Some(NOBODY), Some(NOBODY)).expect("given");
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).expect("written");
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).expect("mode");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("readable")
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).expect("there").permissions().mode() & 0o777
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).expect("readable");
        let mut names: Vec<String> = entries.map(|e| text(e.expect("entry").file_name().as_encoded_bytes())).collect();
        names.sort();
        names
    }

    /// A good net.toml and its key.
    pub(crate) fn good_net_toml(&self) -> (String, String) {
        self.succeeds(&["init", "good.toml", "--subnet", "10.77.0.0/24"]);
        let good = self.read("good.toml");
        let key = good.split('"').find(|part| part.starts_with("plk1-")).expect("a key").to_owned();
        (good, key)
    }

    /// A daemon played by this test until it is dropped.
    pub(crate) fn daemon(&self, id: u8, name: &str, answer: Answer) -> Daemon {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let run_dir = RunDir::create(&self.path("run"), &NetworkId([id; 32])).expect("run folder");
        let status = friday(name, id);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let server = Server::bind(&run_dir).expect("bound");
                ready.send(()).expect("waited for");
                tokio::select! {
                    () = serve(server, &status, answer) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().expect("bound");
        Daemon { stop: Some(stop), thread: Some(thread) }
    }
}

pub(crate) type Answer = fn(&Status, &Request) -> Option<Response>;

pub(crate) struct Daemon {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(mut server: Server, status: &Status, answer: Answer) {
    loop {
        let Incoming { request, reply } = server.next().await;
        if let Some(response) = answer(status, &request) {
            let _ = reply.send(response);
        }
    }
}

/// bob answers, carol is silent, dave is gone, and nobody ends anything.
pub(crate) fn answer(status: &Status, request: &Request) -> Option<Response> {
    Some(match request {
        Request::Status => Response::Status { status: Box::new(status.clone()) },
        Request::Ping { peer, .. } if peer == "carol" => return None,
        Request::Ping { .. } => {
            Response::Pong { path: status.peers[0].path.clone().expect("bob has one"), rtt_ms: 1.2 }
        }
        Request::Forget { name } if ["bob", "10.77.0.2"].contains(&name.as_str()) => {
            Response::refused(Refusal::Failed, format!("{name} is here, and stays"))
        }
        Request::Forget { name } if name != "dave" => {
            Response::refused(Refusal::NoSuchPeer, format!("nobody is called {name}"))
        }
        Request::Reload => Response::Reloaded { changes: vec!["rendezvous play.example.org:3478: added".into()] },
        Request::Why { .. } => why(&status.peers[0]),
        Request::Down | Request::Forget { .. } => Response::Done,
    })
}

/// Why bob is relayed.
fn why(bob: &status::Peer) -> Response {
    let nat = |mapping: &str| serde_json::json!({"mapping": mapping, "filtering": null, "hairpin": null, "allocation": null, "port_mapping": null});
    let side = |changes: bool| {
        let mapping = if changes { "address-and-port-dependent" } else { "endpoint-independent" };
        serde_json::json!({"nat": nat(mapping), "changes_port": changes, "ipv4": true, "ipv6": false, "mapped": false})
    };
    let why = serde_json::json!({
        "schema": status::SCHEMA, "me": "alice", "peer": bob, "here": side(false), "there": side(true), "tried": [], "search": null,
        "cause": "symmetric-there"
    });
    Response::Why { why: serde_json::from_value(why).expect("the contract") }
}

/// alice's view of a network with bob, carol and dave.
fn friday(name: &str, id: u8) -> Status {
    let remote: SocketAddr = "203.0.113.9:41641".parse().expect("address");
    let peer = |name: &str, number: u8, state: &str| {
        serde_json::json!({
            "name": name, "id": PeerId([number; 32]), "addresses": [format!("10.77.0.{number}")], "state": state,
            "path": {"kind": "reflexive", "transport": "udp", "family": "ipv4", "local": null, "remote": remote, "relay": null},
            "rtt_ms": 0.8, "jitter_ms": 0.1, "loss": 0.0, "tx_bytes": 0, "rx_bytes": 0,
            "handshake_age_s": 12.0, "direct_after_ms": 412, "cipher": "AES-256-GCM"
        })
    };
    let status = serde_json::json!({
        "schema": status::SCHEMA, "version": "0.1.0",
        "network": {"name": name, "id": NetworkId([id; 32]), "interface": null, "subnet": "10.77.0.0/24", "mtu": 1400},
        "me": {"name": "alice", "id": PeerId([1; 32]), "addresses": ["10.77.0.1"], "candidates": [],
               "nat": {"mapping": null, "filtering": null, "hairpin": null, "allocation": null, "port_mapping": null}},
        "rendezvous": [{"address": "198.51.100.1:3478", "transport": "udp", "state": "registered", "rtt_ms": 1.2}],
        "peers": [peer("bob", 2, "direct"), peer("carol", 3, "direct"), peer("dave", 4, "offline")], "warnings": [], "counters": {"drop": {}}
    });
    serde_json::from_value(status).expect("the contract of `status --json`")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
