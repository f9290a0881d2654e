//! Nothing that is said, shown or logged contains a secret, however much is logged.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use punchlan::crypto::NetworkSecrets;
use punchlan::id::{Epoch, NetworkKey};
use punchlan::node::status::PeerState;

use crate::lab::programs::{Network, Peer};
use crate::lab::{Gateway, Lab};
use crate::shared_turn;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn at_trace_level_no_log_and_no_answer_contains_a_secret() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::FullCone, Gateway::Symmetric]).unwrap();
    let mut network = Network::without_rendezvous().unwrap();
    network.log = Some("trace".to_owned());
    network.start_rendezvous(&lab.rendezvous).unwrap();
    let mut alice = network.up(lab.host(0), "alice", 1).unwrap();
    let mut bob = network.up(lab.host(1), "bob", 2).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    assert_eq!(bob.ping(alice.address.into(), 5).unwrap(), 5);
    // What is dropped is said at trace level.
    assert_eq!(bob.ping("10.77.0.99".parse().unwrap(), 1).unwrap(), 0);

    let mut said = String::new();
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["ping", "alice", "-c", "2"],
        &["ping", "nobody"],
        &["reload"],
        &["forget", "alice"],
        &["forget", "nobody"],
    ] {
        let output = bob.command(arguments).env("PUNCHLAN_LOG", "trace").output().unwrap();
        said += &(String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr));
    }
    for peer in [&alice, &bob] {
        for of_process in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{}/{of_process}", peer.program.pid())).unwrap();
            said += &String::from_utf8_lossy(&bytes);
        }
    }
    let secrets: Vec<Vec<u8>> = [shared(&network)].into_iter().chain([&alice, &bob].map(device)).flatten().collect();
    // What is written for the next run is for root alone, but is no place for the key either.
    said += &String::from_utf8_lossy(&fs::read(file(&alice, "cache").unwrap_or_default()).unwrap_or_default());
    alice.program.end(Signal::SIGTERM).unwrap();
    bob.program.end(Signal::SIGTERM).unwrap();
    let logs = [alice.program.said(), bob.program.said(), network.rendezvous.as_ref().unwrap().said()];
    assert!(logs[1].contains("TRACE"), "it does log everything");
    said += &logs.concat();

    assert!(secrets.len() >= 4);
    for secret in &secrets {
        for text in spellings(secret) {
            assert!(!said.contains(&text), "{text}");
        }
    }
    assert!(!said.contains("plk1-"), "the key, as people write it");
    let body: String = network.key.chars().skip(5).filter(|c| *c != '-').collect();
    assert!(!said.replace('-', "").contains(&body[..20]));
}

/// The network's key, and what it is turned into.
fn shared(network: &Network) -> Vec<Vec<u8>> {
    let key: NetworkKey = network.key.parse().unwrap();
    let secrets = NetworkSecrets::derive(&key, Epoch::default());
    vec![key.expose().to_vec(), secrets.psk().to_vec()]
}

/// A device's seed: the file keeps 32 bytes of it behind a header of 16.
fn device(peer: &Peer<'_>) -> Vec<Vec<u8>> {
    let content = fs::read(file(peer, "key").unwrap()).unwrap();
    vec![content[16..48].to_vec()]
}

fn file(peer: &Peer<'_>, part: &str) -> Option<PathBuf> {
    let networks = fs::read_dir(peer.folder().join("state")).unwrap();
    let files = networks.flat_map(|network| fs::read_dir(network.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).find(|path| path.file_name().unwrap().to_string_lossy().contains(part))
}

/// Bytes as programs write them.
fn spellings(secret: &[u8]) -> Vec<String> {
    let part = &secret[..12];
    let join = |of: fn(&u8) -> String, between: &str| part.iter().map(of).collect::<Vec<_>>().join(between);
    vec![
        join(|byte| format!("{byte:02x}"), ""),
        join(|byte| format!("{byte:02X}"), ""),
        join(|byte| format!("{byte:02x}"), ":"),
        join(|byte| format!("{byte:02x}"), ", "),
        join(|byte| format!("{byte}"), ", "),
    ]
}
