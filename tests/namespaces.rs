//! Real kernels: namespaces with real NATs, real daemons with real TUN devices, real programs over them.
//!
//! Every test builds an internet of its own ([`lab`]) and takes its turn, because it measures times. Whether
//! two peers talk directly is counted on the wire between the routers. Root is needed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]
#![allow(clippy::disallowed_methods, reason = "real time is what is measured")]

#[path = "lab/equipment.rs"]
mod lab;

#[path = "namespaces/beyond.rs"]
mod beyond;
#[path = "namespaces/command.rs"]
mod command;
#[path = "namespaces/events.rs"]
mod events;
#[path = "namespaces/gateways.rs"]
mod gateways;
#[path = "namespaces/life.rs"]
mod life;
#[path = "namespaces/mapping.rs"]
mod mapping;
#[path = "namespaces/marks.rs"]
mod marks;
#[path = "namespaces/netcheck.rs"]
mod netcheck;
#[path = "namespaces/night.rs"]
mod night;
#[path = "namespaces/rogue.rs"]
mod rogue;
#[path = "namespaces/seamless.rs"]
mod seamless;
#[path = "namespaces/secrets.rs"]
mod secrets;
#[path = "namespaces/several.rs"]
mod several;
#[path = "namespaces/storm.rs"]
mod storm;
#[path = "namespaces/table.rs"]
mod table;
#[path = "namespaces/traffic.rs"]
mod traffic;

#[path = "namespaces/why.rs"]
mod why;

use std::sync::{Mutex, MutexGuard, PoisonError};

use lab::{Gateway, meeting};

/// Every unordered pair of the five kinds.
fn pairs() -> impl Iterator<Item = (Gateway, Gateway)> {
    let kinds = || Gateway::TABLE.into_iter().enumerate();
    kinds().flat_map(move |(i, a)| kinds().skip(i).map(move |(_, b)| (a, b)))
}

/// One test at a time: two cores are few, and times are measured.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
