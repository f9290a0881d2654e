//! Real kernels: namespaces with real NATs, real daemons with real interfaces, real programs over them.
//!
//! Every test builds an internet of its own ([`lab`]) and takes its turn, because times are measured. Whether
//! two peers talk directly is counted on the wire between the routers. Root is needed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]
#![allow(clippy::disallowed_methods, reason = "real time is what is measured")]

#[path = "lab/equipment.rs"]
mod lab;

#[path = "namespaces/beyond.rs"]
mod beyond;
#[path = "namespaces/blocked.rs"]
mod blocked;
#[path = "namespaces/carriers.rs"]
mod carriers;
#[path = "namespaces/command.rs"]
mod command;
#[path = "namespaces/doctor.rs"]
mod doctor;
#[path = "namespaces/events.rs"]
mod events;
#[path = "namespaces/everybody.rs"]
mod everybody;
#[path = "namespaces/games.rs"]
mod games;
#[path = "namespaces/gateways.rs"]
mod gateways;
#[path = "namespaces/interface.rs"]
mod interface;
#[path = "namespaces/life.rs"]
mod life;
#[path = "namespaces/mapping.rs"]
mod mapping;
#[path = "namespaces/marks.rs"]
mod marks;
#[path = "namespaces/names.rs"]
mod names;
#[path = "namespaces/netcheck.rs"]
mod netcheck;
#[path = "namespaces/night.rs"]
mod night;
#[path = "namespaces/peace.rs"]
mod peace;
#[path = "namespaces/proxied.rs"]
mod proxied;
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
#[path = "namespaces/topologies.rs"]
mod topologies;
#[path = "namespaces/traffic.rs"]
mod traffic;
#[path = "namespaces/why.rs"]
mod why;

use lab::{Gateway, meeting};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Every unordered pair of the five kinds.
fn pairs() -> impl Iterator<Item = (Gateway, Gateway)> {
    let kinds = || Gateway::TABLE.into_iter().enumerate();
    kinds().flat_map(move |(i, a)| kinds().skip(i).map(move |(_, b)| (a, b)))
}

/// Labs at once: two cores are few.
const PLACES: u32 = 2;
static FREE: Semaphore = Semaphore::const_new(PLACES as usize);

/// A test's turn, while it holds this.
type Turn = SemaphorePermit<'static>;

/// Nothing else runs: this test measures times or fills the line.
fn turn() -> Turn {
    places(PLACES)
}

/// Another of this kind may run beside it, for it mostly waits; not where times are measured.
fn shared_turn() -> Turn {
    places(if table::is_measured() { PLACES } else { 1 })
}

fn places(places: u32) -> Turn {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(FREE.acquire_many(places)).unwrap()
}
