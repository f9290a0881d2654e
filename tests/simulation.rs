//! Peers, rendezvous, relays, NATs and bad lines in virtual time. `tests/sim` is the world, the modules here
//! are what must hold in it.

mod sim;

#[path = "simulation/attacks.rs"]
mod attacks;
#[path = "simulation/carriers.rs"]
mod carriers;
#[path = "simulation/chaos.rs"]
mod chaos;
#[path = "simulation/events.rs"]
mod events;
#[path = "simulation/fan_out.rs"]
mod fan_out;
#[path = "simulation/lab.rs"]
mod lab;
#[path = "simulation/lan.rs"]
mod lan;
#[path = "simulation/lines.rs"]
mod lines;
#[path = "simulation/members.rs"]
mod members;
#[path = "simulation/netcheck.rs"]
mod netcheck;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/paths.rs"]
mod paths;
#[path = "simulation/reload.rs"]
mod reload;
#[path = "simulation/strangers.rs"]
mod strangers;
#[path = "simulation/streams.rs"]
mod streams;
#[path = "simulation/symmetric.rs"]
mod symmetric;
#[path = "simulation/table.rs"]
mod table;
#[path = "simulation/why.rs"]
mod why;
#[path = "simulation/world.rs"]
mod world;

use punchlan::nat::model as nat;
