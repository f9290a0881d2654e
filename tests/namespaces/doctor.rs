//! `punchlan games`, asked of daemons that play on one overlay.
//!
//! ```text
//!   alice ── router ─┬── bob        alice and bob direct
//!                    └── carol      alice and carol relayed
//! ```

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use punchlan::node::status::PeerState;
use serde_json::Value;

use crate::lab::netns::Namespace;
use crate::lab::programs::{Network, Peer, await_some};
use crate::lab::{Gateway, Lab, SitePlan};
use crate::shared_turn;

const PATIENCE: Duration = Duration::from_secs(15);
/// Looked until it is as expected: everybody knows who wants which group only some moments after the start.
const LOOKS: Duration = Duration::from_secs(60);
const WAYS: [&str; 4] = ["limited", "subnet", "multicast", "unicast"];

fn lab() -> Lab {
    let sites = [Gateway::MasqueradeRandom, Gateway::Public, Gateway::Symmetric];
    Lab::new(&sites.map(SitePlan::new)).unwrap()
}

fn meet<'a>(lab: &'a Lab, network: &Network) -> [Peer<'a>; 3] {
    let names = ["alice", "bob", "carol"];
    let [alice, bob, carol] =
        [0, 1, 2].map(|n| network.up(lab.host(n), names[n], u8::try_from(n + 1).unwrap()).unwrap());
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    alice.await_peer("carol", PeerState::Relayed, PATIENCE).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    [alice, bob, carol]
}

fn games(peer: &Peer<'_>, seconds: &str) -> Result<Value> {
    let output = peer.command(&["games", "--json", "--seconds", seconds]).output()?;
    serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What it says at last; a busy machine loses a datagram now and then.
fn games_until(peer: &Peer<'_>, seconds: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let so = await_some("what is expected of `punchlan games`", LOOKS, || {
        last = games(peer, seconds)?;
        Ok(Some(last.clone()).filter(&is_so))
    });
    so.unwrap_or_else(|error| panic!("{error}; said was {last:#}"))
}

fn answers(said: &Value, member: &str, way: &str) -> bool {
    let mut members = said["members"].as_array().into_iter().flatten();
    members.any(|one| one["name"] == member && one["answered_ms"][way].is_number())
}

/// Says that a world is open, as Minecraft does, until it is dropped.
struct World {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    fn open(netns: &Namespace, port: u16) -> Self {
        let socket = netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap()).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let _ =
                    socket.send_to(format!("[MOTD]a §aworld[/MOTD][AD]{port}[/AD]").as_bytes(), ("224.0.2.60", 4_445));
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// With rules of [lan] at everybody, which let in answers alone: of those that are no port's of this question.
#[test]
fn every_member_direct_and_relayed_answers_what_is_sent_to_all_and_a_world_is_named_with_its_member() {
    let _turn = shared_turn();
    let lab = lab();
    let mut network = Network::start(&lab).unwrap();
    network.more = "[lan]\nallow = [\"minecraft\"]\n".to_owned();
    let [alice, bob, carol] = meet(&lab, &network);
    let _world = World::open(&bob.host.netns, 25_567);
    let heard = |said: &Value| {
        let mut announced = said["announced"].as_array().into_iter().flatten();
        announced.any(|one| one["member"] == "bob" && one["join"] == "10.77.0.2:25567" && one["name"] == "a world")
    };
    let all = |said: &Value| ["bob", "carol"].iter().all(|name| WAYS.iter().all(|way| answers(said, name, way)));
    let said = games_until(&alice, "3", |said| all(said) && heard(said));
    assert_eq!(said["findings"], Value::Array(Vec::new()), "{said:#}");
    assert_eq!((&said["interface"]["broadcast"], &said["interface"]["up"]), (&true.into(), &true.into()), "{said:#}");
    assert_eq!(said["lan"]["allow"][0], "25565/tcp", "{said:#}");
    games_until(&carol, "0", |said| WAYS.iter().all(|way| answers(said, "alice", way)));
    let text = alice.command(&["games", "--seconds", "2"]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    println!("{text}");
    assert!(text.contains("relayed through") && text.contains("a world"), "{text}");
}

#[test]
fn a_firewall_is_found_where_it_is_with_the_command_that_opens_it_and_seen_from_elsewhere() {
    let _turn = shared_turn();
    let lab = lab();
    let network = Network::start(&lab).unwrap();
    let [alice, bob, _carol] = meet(&lab, &network);
    let rules = "table inet house {\nchain in {\ntype filter hook input priority 0; policy drop;\n\
        ct state established,related accept\niifname { \"lo\", \"eth0\" } accept\n}\n}";
    bob.host.netns.nft(rules).unwrap();
    // From elsewhere: bob is silent, and where to look is said.
    let said = games_until(&alice, "0", |said| {
        WAYS.iter().all(|way| answers(said, "carol", way)) && !answers(said, "bob", "unicast")
    });
    let findings = said["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{said:#}");
    assert_eq!((&findings[0]["code"], &findings[0]["subject"]), (&"silent".into(), &"bob".into()), "{said:#}");
    assert!(findings[0]["help"].as_str().unwrap().starts_with("punchlan games on bob"), "{said:#}");
    // At bob: answers to what he asks one alone come in, those to what he asks all do not.
    let said = games_until(&bob, "0", |said| answers(said, "alice", "unicast"));
    assert!(!answers(&said, "alice", "limited") && !answers(&said, "alice", "subnet"), "{said:#}");
    let findings = said["findings"].as_array().unwrap();
    assert_eq!((findings.len(), &findings[0]["code"]), (1, &"firewall".into()), "{said:#}");
    let command = findings[0]["help"].as_str().unwrap();
    assert_eq!(command, "sudo nft insert rule inet house in iifname punch0 accept");
    // What it says helps.
    bob.host.netns.nft(&command.replace("sudo nft ", "")).unwrap();
    let all = |said: &Value| WAYS.iter().all(|way| answers(said, "alice", way));
    let said = games_until(&bob, "0", all);
    assert_eq!(said["findings"], Value::Array(Vec::new()), "{said:#}");
    games_until(&alice, "0", |said| WAYS.iter().all(|way| answers(said, "bob", way)));
}
