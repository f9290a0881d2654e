//! The laboratory itself: every gateway does what its name says, and nothing of a lab outlives it.
//!
//! ```text
//!   host ── gateway ── core ── four reflectors: {198.51.100.10, .11} × {two ports}
//! ```

use std::net::IpAddr;
use std::time::Duration;

use crate::lab::oracle::direct_is_possible;
use crate::lab::probe::{self, Reflectors};
use crate::lab::verify::verify;
use crate::lab::{Gateway, Lab, RENDEZVOUS, SitePlan, netns};
use crate::{pairs, shared_turn, turn};

#[test]
fn every_gateway_does_what_its_name_says() {
    let _turn = shared_turn();
    for gateway in Gateway::ALL {
        let verified = verify(gateway.into());
        println!("{:28} {:?}", verified.name, verified.found);
        assert_eq!(verified.wrong, None, "{}", verified.name);
    }
}

#[test]
fn plain_sockets_meet_wherever_the_table_says_direct() {
    let _turn = shared_turn();
    let linux = [Gateway::Masquerade, Gateway::MasqueradeDroppingInput];
    let linux_pairs = linux.into_iter().flat_map(|a| linux.into_iter().map(move |b| (a, b)));
    let carriers = [Gateway::CarrierCone, Gateway::CarrierSymmetric];
    let others = [Gateway::AddressRestricted, Gateway::Masquerade, Gateway::CarrierCone];
    let carrier_pairs = carriers.into_iter().flat_map(|a| others.into_iter().map(move |b| (a, b)));
    for (a, b) in pairs().chain(linux_pairs).chain(carrier_pairs) {
        let lab = Lab::new(&[a, b]).unwrap();
        let reflectors = Reflectors::start(&lab).unwrap();
        let met = probe::punch(&reflectors, lab.host(0), lab.host(1)).unwrap();
        assert_eq!(met, direct_is_possible(a, b), "{} × {}", a.name(), b.name());
    }
}

#[test]
fn behind_a_carrier_there_are_two_routers_each_with_a_hop_of_its_own() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::CarrierSymmetric, Gateway::Symmetric, Gateway::Masquerade]).unwrap();
    let ping = |site: usize, ttl: &str| {
        let mut ping = lab.host(site).netns.command("ping");
        netns::run(ping.args(["-n", "-c", "1", "-W", "1", "-t", ttl, &RENDEZVOUS.to_string()]))
    };
    for (site, enough, too_few) in [(0, "4", "3"), (1, "3", "2"), (2, "3", "2")] {
        assert!(ping(site, enough).is_ok() && ping(site, too_few).is_err(), "{:?}", lab.sites[site].gateway);
    }
    let addresses = lab.sites[0].router.command("ip").args(["-4", "-brief", "address", "show", "wan"]).output();
    let addresses = String::from_utf8(addresses.unwrap().stdout).unwrap();
    assert!(addresses.contains("100.64.0.2/29"), "{addresses}");
    lab.sites[0].forget().unwrap();
    assert!(ping(0, "4").is_ok(), "as before, by other mappings");
    lab.sites[0].redial(&lab.core).unwrap();
    assert!(ping(0, "4").is_ok(), "from the carrier's other address");
}

#[test]
fn a_delay_makes_the_way_long_and_a_loss_thins_it() {
    let _turn = turn();
    let mut lab = Lab::new(&[Gateway::Public, Gateway::FullCone]).unwrap();
    let round_trip = |lab: &Lab, to: IpAddr| {
        let mut ping = lab.host(1).netns.command("ping");
        let output = netns::run(ping.args(["-n", "-c", "3", "-i", "0.01", &to.to_string()])).unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("ttl=62") || said.contains("ttl=61"), "no hop more than without: {said}");
        said.rsplit(" = ").next().unwrap().split('/').next().unwrap().parse::<f64>().unwrap()
    };
    let (near, far) = (lab.host(0).v4.unwrap().into(), RENDEZVOUS.into());
    assert!(round_trip(&lab, near) < 20.0 && round_trip(&lab, far) < 20.0);
    lab.delay(Duration::from_millis(50), false).unwrap();
    assert!(round_trip(&lab, near) < 20.0 && round_trip(&lab, far) > 50.0);
    lab.delay(Duration::from_millis(50), true).unwrap();
    assert!(round_trip(&lab, near) > 100.0 && round_trip(&lab, far) > 100.0);

    lab.lose(999).unwrap();
    let mut ping = lab.host(1).netns.command("ping");
    assert!(netns::run(ping.args(["-c", "2", "-i", "0.01", "-W", "1", &RENDEZVOUS.to_string()])).is_err());
}

#[test]
fn a_lab_leaves_nothing_behind() {
    let _turn = turn();
    let mine = || {
        let prefix = format!("plt-{}-", std::process::id());
        let names =
            std::fs::read_dir("/run/netns").map(|names| names.flatten().collect::<Vec<_>>()).unwrap_or_default();
        names.iter().filter(|name| name.file_name().to_string_lossy().starts_with(&prefix)).count()
    };
    let sites = [SitePlan::new(Gateway::Symmetric).hosts(2), Gateway::Public.into(), Gateway::CarrierCone.into()];
    let lab = Lab::new(&sites).unwrap();
    assert_eq!(mine(), 10);
    drop(lab);
    assert_eq!(mine(), 0);
    let panicked = std::panic::catch_unwind(|| {
        let _lab = Lab::new(&[Gateway::FullCone]).unwrap();
        panic!("a failing test, on purpose");
    });
    assert!(panicked.is_err());
    assert_eq!(mine(), 0);
}
