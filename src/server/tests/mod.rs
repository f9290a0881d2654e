//! The whole rendezvous: clients and [`Core`](super::Core) in virtual time.

mod flow;
mod process;
mod world;
