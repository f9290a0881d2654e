//! Peers, rendezvous, relays, NATs and bad lines in virtual time. `tests/sim` is the world, the modules here
//! are what must hold in it.

#[path = "common/nat.rs"]
mod nat;
mod sim;

#[path = "simulation/world.rs"]
mod world;
