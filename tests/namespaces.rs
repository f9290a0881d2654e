//! Real kernels: namespaces with real NATs, real daemons with real TUN devices.
//!
//! Every test builds an internet of its own ([`lab`]) and takes its turn, for the times that it measures.

mod lab;

use std::sync::{Mutex, MutexGuard, PoisonError};

use lab::nat::Behaviour::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
use lab::probe::{self, Findings, Reflectors};
use lab::{Gateway, Lab, SitePlan};

#[test]
fn every_gateway_does_what_its_name_says() {
    let _turn = turn();
    for gateway in Gateway::ALL {
        let lab = Lab::new(&[gateway]).unwrap();
        let reflectors = match gateway {
            Gateway::Ipv6Firewall => Reflectors::start_v6(&lab),
            _ => Reflectors::start(&lab),
        };
        let found = reflectors.unwrap().measure(lab.host(0)).unwrap();
        println!("{:28} {found:?}", gateway.name());
        assert_eq!(found, expected(gateway), "{}", gateway.name());
    }
}

fn expected(gateway: Gateway) -> Findings {
    let (mapping, filtering) = match gateway {
        Gateway::Public => (None, EndpointIndependent),
        Gateway::PublicFirewall | Gateway::Ipv6Firewall => (None, AddressAndPortDependent),
        Gateway::FullCone => (Some(EndpointIndependent), EndpointIndependent),
        Gateway::AddressRestricted => (Some(EndpointIndependent), AddressDependent),
        Gateway::PortRestricted | Gateway::Masquerade | Gateway::MasqueradeDroppingInput => {
            (Some(EndpointIndependent), AddressAndPortDependent)
        }
        Gateway::Symmetric | Gateway::MasqueradeRandom => (Some(AddressAndPortDependent), AddressAndPortDependent),
    };
    Findings {
        mapping,
        filtering,
        preserves_port: !matches!(gateway, Gateway::Symmetric | Gateway::MasqueradeRandom),
        remembers_unsolicited: gateway == Gateway::Masquerade,
    }
}

#[test]
fn plain_sockets_meet_wherever_the_table_says_direct() {
    let _turn = turn();
    for (a, b) in pairs() {
        let lab = Lab::new(&[a, b]).unwrap();
        let reflectors = Reflectors::start(&lab).unwrap();
        let met = probe::punch(&reflectors, lab.host(0), lab.host(1)).unwrap();
        assert_eq!(met, direct_is_possible(a, b), "{} × {}", a.name(), b.name());
    }
}

/// The oracle: direct in all but port-restricted × symmetric and symmetric × symmetric.
fn direct_is_possible(a: Gateway, b: Gateway) -> bool {
    let strict = |gateway| matches!(gateway, Gateway::PortRestricted | Gateway::Symmetric);
    !(strict(a) && strict(b) && (a == Gateway::Symmetric || b == Gateway::Symmetric))
}

/// Every unordered pair of the five kinds.
fn pairs() -> impl Iterator<Item = (Gateway, Gateway)> {
    let kinds = || Gateway::TABLE.into_iter().enumerate();
    kinds().flat_map(move |(i, a)| kinds().skip(i).map(move |(_, b)| (a, b)))
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
    let lab = Lab::new(&[SitePlan::new(Gateway::Symmetric).hosts(2), Gateway::Public.into()]).unwrap();
    assert_eq!(mine(), 7);
    drop(lab);
    assert_eq!(mine(), 0);
    let panicked = std::panic::catch_unwind(|| {
        let _lab = Lab::new(&[Gateway::FullCone]).unwrap();
        panic!("a failing test, on purpose");
    });
    assert!(panicked.is_err());
    assert_eq!(mine(), 0);
}

/// One test at a time: two cores are few, and times are measured.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
