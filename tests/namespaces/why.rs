//! `punchlan why`, asked of daemons: the cause is the one that was made.

use std::time::Duration;

use anyhow::{Context as _, Result};
use punchlan::node::why::{Cause, Why};

use crate::lab::programs::{Network, Peer, await_some};
use crate::lab::{Gateway, Lab, SitePlan, netns};
use crate::shared_turn;

const PATIENCE: Duration = Duration::from_secs(25);

fn why(peer: &Peer<'_>, other: &str) -> Result<Why> {
    let output = netns::run(&mut peer.command(&["why", other, "--json"]))?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What alice says of bob, at last, where the core drops what matches these rules.
fn ask(a: SitePlan, b: SitePlan, blocked: &[&str], expected: Cause) -> Result<String> {
    let lab = Lab::new(&[a, b])?;
    lab.block(blocked)?;
    let network = Network::start(&lab)?;
    let alice = network.join(lab.host(0), "alice", 1)?;
    let _bob = network.join(lab.host(1), "bob", 2)?;
    let mut last = None;
    let asked = await_some("the cause", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(200));
        last = why(&alice, "bob").ok();
        Ok(last.clone().filter(|why| why.cause == expected))
    });
    asked.with_context(|| format!("{expected:?}, but said was {last:?}"))?;
    let said = netns::run(&mut alice.command(&["why", "bob"]))?;
    Ok(String::from_utf8(said.stdout)?)
}

#[test]
fn why_a_pair_is_relayed_is_said_with_what_helps() {
    let _turn = shared_turn();
    let plan = SitePlan::new;
    let said = ask(plan(Gateway::Symmetric), plan(Gateway::MasqueradeRandom), &[], Cause::BothSymmetric).unwrap();
    assert!(said.contains("switch on UPnP"), "{said}");
    println!("{said}");
    let said = ask(plan(Gateway::SymmetricSequential), plan(Gateway::Masquerade), &[], Cause::Direct).unwrap();
    assert!(said.contains("found the way that is used"), "{said}");
    println!("{said}");
    let between = [r#"iifname { "site0", "site1" } oifname { "site0", "site1" }"#];
    let said = ask(plan(Gateway::PortRestricted), plan(Gateway::Public), &between, Cause::Blocked).unwrap();
    assert!(said.contains("firewall"), "{said}");
    println!("{said}");
    let said = ask(plan(Gateway::Ipv6Firewall), plan(Gateway::PortRestricted), &[], Cause::NoCommonFamily).unwrap();
    println!("{said}");
}
