//! `punchlan netcheck` behind real routers, before a real rendezvous with two addresses and two ports.
//!
//! ```text
//!   host ── router: what is to be told ── core ── rendezvous 198.51.100.10 and .11, ports 3478 and 3479
//! ```

use std::process::{Command, Output};
use std::time::Duration;

use punchlan::node::status::Status;
use serde_json::Value;

use crate::lab::mapper::{Mapper, Offer};
use crate::lab::programs::{Network, PUNCHLAN, Program};
use crate::lab::{Gateway, Host, Lab, SitePlan};
use crate::shared_turn;

const SQUARE: [&str; 4] = ["198.51.100.10:3478", "198.51.100.10:3479", "198.51.100.11:3478", "198.51.100.11:3479"];
const ENDPOINT: &str = "endpoint-independent";
const ADDRESS: &str = "address-dependent";
const PORT: &str = "address-and-port-dependent";

/// A rendezvous that listens there; it runs for as long as both are kept.
fn rendezvous(lab: &Lab, listen: &[&str]) -> (Network, Program) {
    let network = Network::without_rendezvous().unwrap();
    let program = network.serve_at(&lab.rendezvous, "rendezvous", listen).unwrap();
    (network, program)
}

fn command(host: &Host, args: &[&str]) -> Command {
    let mut command = host.netns.command(PUNCHLAN);
    command.arg("netcheck").args(args);
    command
}

fn run(host: &Host, args: &[&str]) -> Output {
    command(host, args).output().unwrap()
}

/// What it says for programs, and its exit code.
fn json(host: &Host, args: &[&str]) -> (Value, Option<i32>) {
    let output = run(host, &[&["--json"], args].concat());
    let json = serde_json::from_slice(&output.stdout);
    (json.unwrap_or_else(|error| panic!("{error}: {output:?}")), output.status.code())
}

/// Of an answer for programs: mapping, filtering, ports, hairpin.
fn nat(json: &Value) -> [&Value; 4] {
    ["mapping", "filtering", "allocation", "hairpin"].map(|field| &json["nat"][field])
}

#[test]
fn every_router_is_told_as_what_it_is() {
    let _turn = shared_turn();
    let some = |text: &str| Value::from(text);
    let none = || Value::Null;
    for (gateway, translates, expected) in [
        (Gateway::Public, false, [some("none"), some(ENDPOINT), none(), none()]),
        (Gateway::PublicFirewall, false, [some("none"), some(PORT), none(), none()]),
        (Gateway::FullCone, true, [some(ENDPOINT), some(ENDPOINT), some("preserved"), false.into()]),
        (Gateway::AddressRestricted, true, [some(ENDPOINT), some(ADDRESS), some("preserved"), false.into()]),
        (Gateway::PortRestricted, true, [some(ENDPOINT), some(PORT), some("preserved"), false.into()]),
        (Gateway::Symmetric, true, [some(PORT), some(PORT), some("random"), none()]),
        (Gateway::Masquerade, true, [some(ENDPOINT), some(PORT), some("preserved"), false.into()]),
        (Gateway::MasqueradeDroppingInput, true, [some(ENDPOINT), some(PORT), some("preserved"), false.into()]),
        (Gateway::MasqueradeRandom, true, [some(PORT), some(PORT), some("random"), none()]),
        (Gateway::SymmetricSequential, true, [some(PORT), some(PORT), some("sequential"), none()]),
        (Gateway::SymmetricBlock, true, [some(PORT), some(PORT), some("block"), none()]),
        (Gateway::AddressDependent, true, [some(ADDRESS), some(PORT), some("random"), none()]),
        (Gateway::CarrierCone, true, [some(ENDPOINT), some(PORT), some("preserved"), false.into()]),
        (Gateway::CarrierSymmetric, true, [some(PORT), some(PORT), some("random"), none()]),
    ] {
        let lab = Lab::new(&[gateway]).unwrap();
        let _rendezvous = rendezvous(&lab, &SQUARE);
        let (json, code) = json(lab.host(0), &["--rendezvous", SQUARE[0]]);
        assert_eq!(nat(&json), expected.each_ref(), "{gateway:?}: {json:#}");
        assert_eq!((code, &json["udp"], &json["nat"]["translates"]), (Some(0), &true.into(), &translates.into()));
        let public = lab.host(0).public_v4.unwrap().to_string();
        assert!(json["ipv4"].as_str().is_some_and(|seen| seen.starts_with(&public)), "{gateway:?}: {json:#}");
    }
}

#[test]
fn of_ports_that_follow_a_rule_the_rule_is_told() {
    let _turn = shared_turn();
    let told = |gateway| {
        let lab = Lab::new(&[gateway]).unwrap();
        let _rendezvous = rendezvous(&lab, &SQUARE);
        json(lab.host(0), &["--rendezvous", SQUARE[0]]).0["nat"].clone()
    };
    assert_eq!(told(Gateway::SymmetricSequential)["allocation_step"], 1);
    let nat = told(Gateway::SymmetricBlock);
    let [first, last] = [0, 1].map(|end| nat["allocation_block"][end].as_u64().unwrap());
    assert!(20_480 <= first && first < last && last < 21_504, "{nat:#}");
}

#[test]
fn a_second_port_on_all_addresses_tells_a_strict_router_from_others() {
    let _turn = shared_turn();
    for (gateway, mapping, filtering) in
        [(Gateway::Masquerade, Value::Null, PORT), (Gateway::MasqueradeRandom, PORT.into(), PORT)]
    {
        let lab = Lab::new(&[gateway]).unwrap();
        let _rendezvous = rendezvous(&lab, &["3478", "3479"]);
        let (json, _) = json(lab.host(0), &["--rendezvous", "198.51.100.10"]);
        assert_eq!((&json["nat"]["mapping"], &json["nat"]["filtering"]), (&mapping, &filtering.into()), "{json:#}");
        let most = if mapping.is_null() { ADDRESS } else { PORT };
        assert_eq!(json["nat"]["mapping_between"][1], most, "{json:#}");
    }
}

#[test]
fn where_udp_is_blocked_it_says_so_and_fails() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::Masquerade]).unwrap();
    let _rendezvous = rendezvous(&lab, &SQUARE);
    lab.block(&["meta l4proto udp"]).unwrap();
    let (json, code) = json(lab.host(0), &["--rendezvous", SQUARE[0]]);
    assert_eq!((code, &json["udp"]), (Some(1), &false.into()), "{json:#}");
    assert_eq!(nat(&json), [&Value::Null; 4]);
    assert_eq!(json["unknown"]["mapping"], "no server answered over IPv4");
    let output = run(lab.host(0), &["--rendezvous", SQUARE[0]]);
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("in a network that blocks UDP, if this is one, all goes by TCP"), "{said}");
    // By TCP it is there.
    assert!(complained.contains("error: nobody answers by UDP, and 198.51.100.10:3478 takes TCP"), "{complained}");
    lab.block(&["meta l4proto { tcp, udp }"]).unwrap();
    let complained = run(lab.host(0), &["--rendezvous", SQUARE[0]]).stderr;
    let complained = String::from_utf8_lossy(&complained);
    assert!(complained.contains("error: no answer from 198.51.100.10:3478: "), "{complained}");
}

#[test]
fn people_get_a_table_that_ends_in_a_verdict_and_see_what_is_being_done() {
    let _turn = shared_turn();
    let lab = Lab::new(&[SitePlan::new(Gateway::PortRestricted).with_ipv6()]).unwrap();
    let _rendezvous = rendezvous(&lab, &[&SQUARE[..], &["[2001:db8:100::10]:3478"]].concat());
    let servers = ["--rendezvous", SQUARE[0], "--stun", "[2001:db8:100::10]"];
    let output = run(lab.host(0), &servers);
    let (said, progress) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{output:?}");
    for line in ["mapping ", "filtering ", "ports ", "hairpin ", "port mapping ", "UDP "] {
        assert!(said.lines().any(|shown| shown.starts_with(line)), "{line}: {said}");
    }
    assert!(said.contains("public, 2001:db8:1::10"), "{said}");
    let verdict = "Verdict: direct with everybody; with friends behind a strict (\"symmetric\") router after a search of seconds\n";
    assert!(said.ends_with(verdict), "{said}");
    assert!(progress.contains("asking 2 servers") && progress.contains("comparing ports"), "{progress}");
}

#[test]
fn what_the_router_offers_is_told_and_no_port_is_mapped_for_it() {
    let _turn = shared_turn();
    for (offer, expected) in [(Offer::Control, [true, true, false]), (Offer::Upnp, [false, false, true])] {
        let lab = Lab::new(&[SitePlan::new(Gateway::MasqueradeRandom).looks_public()]).unwrap();
        let mapper = Mapper::start(&lab.sites[0], offer).unwrap();
        let _rendezvous = rendezvous(&lab, &SQUARE);
        let (json, _) = json(lab.host(0), &["--rendezvous", SQUARE[0]]);
        let offers = ["PCP", "NAT-PMP", "UPnP"].map(|protocol| json["port_mapping"]["offers"][protocol] == true);
        assert_eq!((offers, &json["port_mapping"]["router"]), (expected, &"192.168.0.1".into()), "{json:#}");
        assert_eq!(json["verdict"], "direct with everybody: the router opens a port");
        assert_eq!(mapper.mapped().unwrap(), 0);
    }
}

#[test]
fn how_long_a_mapping_lives_in_silence_is_found_out() {
    let _turn = shared_turn();
    let lab = Lab::new(&[SitePlan::new(Gateway::Masquerade).mappings(Duration::from_secs(24))]).unwrap();
    let _rendezvous = rendezvous(&lab, &SQUARE);
    let (json, _) = json(lab.host(0), &["--rendezvous", SQUARE[0], "--lifetime"]);
    assert_eq!(json["nat"]["lifetime_s"], serde_json::json!([19, 29]), "{json:#}");
}

#[test]
fn a_peer_learns_it_by_itself_and_its_status_says_it() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::PortRestricted]).unwrap();
    let (network, _program) = rendezvous(&lab, &SQUARE);
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    let known = |status: &Status| status.me.nat.filtering.is_some();
    let nat = alice.await_status("what its NAT does", Duration::from_secs(60), known).unwrap().me.nat;
    let found = (nat.mapping.as_deref(), nat.filtering.as_deref(), nat.hairpin, nat.allocation.as_deref());
    assert_eq!(found, (Some(ENDPOINT), Some(PORT), Some(false), Some("preserved")));
    let shown = alice.command(&["status"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("\nNAT: mapping endpoint-independent, filtering address-and-port-dependent, "), "{shown}");
}
