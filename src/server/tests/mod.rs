//! The whole rendezvous: clients and [`Core`](super::Core) in virtual time.

mod attacks;
mod chaos;
mod flow;
mod limits;
mod process;
mod streams;
mod stun;
mod world;
