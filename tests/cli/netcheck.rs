//! `punchlan netcheck` where nobody is behind a NAT: what is typed, and who may.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::stage::{Here, text};

/// A rendezvous on loopback, with these ports open: 0 is any. Dropped, it is killed.
struct Rendezvous {
    child: Child,
    addresses: Vec<String>,
}

impl Rendezvous {
    fn start(here: &Here, sockets: usize) -> Self {
        let listen = (0..sockets).flat_map(|_| ["--listen", "127.0.0.1:0"]);
        let words: Vec<&str> = ["rendezvous"].into_iter().chain(listen).collect();
        let mut command: Command = here.command(&words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let addresses = lines.map(|line| line.expect("text")).take(sockets);
        let address = |line: String| line.split(' ').nth(2).expect("listening on ADDRESS").to_owned();
        let addresses = addresses.map(address).collect();
        Self { child, addresses }
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn somebody_without_rights_is_told_what_there_is() {
    let here = Here::new();
    let rendezvous = Rendezvous::start(&here, 2);
    let output = here.as_nobody(&["netcheck", "--json", "--rendezvous", &rendezvous.addresses[0]]);
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["udp"], true, "{json:#}");
    // There is no router on the way to oneself, and that says nothing of one on the way to others.
    let why = json["unknown"]["mapping"].as_str().unwrap_or_default();
    assert!(json["nat"]["mapping"].is_null() && why.contains("own network"), "{json:#}");
    assert_eq!(json["servers"][0]["name"], rendezvous.addresses[0]);
}

#[test]
fn the_rendezvous_of_the_file_is_asked_and_the_answer_is_a_table() {
    let here = Here::new();
    let rendezvous = Rendezvous::start(&here, 1);
    here.succeeds(&["init", "--rendezvous", &rendezvous.addresses[0]]);
    let said = here.succeeds(&["netcheck"]);
    assert!(said.starts_with("what ") && said.contains(&format!("server {}", rendezvous.addresses[0])), "{said}");
    assert!(said.contains("\nVerdict: what the router does cannot be told") && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn where_nobody_answers_it_fails_and_still_says_what_it_found() {
    let here = Here::new();
    let output = here.command(&["netcheck", "--stun", "127.0.0.1:9"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("no answer"), "{output:?}");
    assert!(text(&output.stderr).contains("error: no answer from 127.0.0.1:9: "), "{output:?}");
}

#[test]
fn without_anybody_to_ask_it_says_how_to_name_one() {
    let here = Here::new();
    let said = here.fails(&["netcheck"], 2);
    assert!(said.contains("there is no net.toml") && said.contains("punchlan netcheck --stun HOST:PORT"), "{said}");
    here.succeeds(&["init"]);
    let said = here.fails(&["netcheck"], 2);
    assert!(said.contains("net.toml names no rendezvous") && said.contains("--stun HOST:PORT"), "{said}");
    let said = here.fails(&["netcheck", "elsewhere.toml"], 2);
    assert!(said.contains("elsewhere.toml"), "{said}");
    for wrong in ["198.51.100.1:99999", "tcp://play.example.org", "0.0.0.0"] {
        let said = here.fails(&["netcheck", "--stun", wrong], 2);
        assert!(said.contains("--stun"), "{said}");
    }
    let said = here.fails(&["netcheck", "--stun", "nobody.invalid"], 1);
    assert!(
        said.contains("nobody.invalid does not resolve") && said.contains("help: check how it is spelled"),
        "{said}"
    );
}
