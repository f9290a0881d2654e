//! Everything that the fuzzers (`scripts/fuzz`) have found so far goes through their bodies again.
//!
//! A corpus is in `tests/fuzz/corpus/TARGET`, one input a file; what once failed stands there as `was-…`.

#[path = "fuzz/targets/client.rs"]
mod client;
#[path = "fuzz/targets/discovery.rs"]
mod discovery;
#[path = "fuzz/targets/live.rs"]
mod live;
#[path = "fuzz/targets/names.rs"]
mod names;
#[path = "fuzz/targets/offload.rs"]
mod offload;
mod sim;
#[path = "fuzz/targets/stream.rs"]
mod stream;
#[path = "fuzz/targets/text.rs"]
mod text;
#[path = "fuzz/targets/wire.rs"]
mod wire;

use std::path::Path;

use punchlan::nat::model as nat;

/// Runs every input of a corpus, which must not be smaller than `least`.
fn replay(target: &str, least: usize, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("a corpus").map(|file| file.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= least, "{}: {} inputs", folder.display(), files.len());
    for file in files {
        let input = std::fs::read(&file).expect("readable");
        // A failure names the input.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&input)));
        assert!(outcome.is_ok(), "{}", file.display());
    }
}

#[test]
fn of_the_wire() {
    replay("wire", 300, wire::run);
}

#[test]
fn of_games_and_machines() {
    replay("discovery", 60, discovery::run);
}

#[test]
fn of_texts() {
    replay("text", 300, text::run);
}

#[test]
fn of_names() {
    replay("names", 40, names::run);
}

#[test]
fn of_super_packets() {
    replay("offload", 100, offload::run);
}

#[test]
fn of_streams() {
    replay("stream", 40, stream::run);
}

#[test]
fn of_a_client_whose_streams_come_and_go() {
    replay("client", 20, client::run);
}

#[test]
fn of_a_live_node() {
    replay("node", 40, |input| live::run(live::Victim::Node, input));
}

#[test]
fn of_a_live_rendezvous() {
    replay("rendezvous", 40, |input| live::run(live::Victim::Rendezvous, input));
}
