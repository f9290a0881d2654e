//! A small internet in virtual time: hosts behind gateways behind a core, lines that lose, delay, double and
//! reorder, and a clock that jumps to whatever comes next. Nothing here sleeps, and one seed gives one history.
//!
//! ```text
//!  host ──lan── gateway ──line── core ──line── gateway ──lan── host
//!                 │                                │
//!            NAT, firewall or plain router    one hop each: a datagram with
//!            (punchlan::nat::model)           TTL 2 opens its own NAT and dies in the core
//! ```
//!
//! [`world`] moves the datagrams from [`host`] to host, [`journey`] and [`topology`] are what they cross, [`machine`] is what hosts run: a real
//! peer ([`peer`], with the [`sockets`] that it opens as it runs, and its [`streams`]), a real rendezvous ([`server`]), a check of the NAT
//! ([`checker`]), or whatever a test writes. [`scene`] puts them together and asks the questions that tests ask. [`ledger`] knows every inner packet ([`packet`]) and who must get it; [`recorder`] draws a sequence diagram when a test fails; [`errors`] makes any logged
//! error such a failure; [`oracle`] says which pairs must become direct.

#![allow(dead_code, unreachable_pub, reason = "a laboratory has more tools than each experiment uses")]

pub mod checker;
pub mod errors;
mod host;
mod journey;
pub mod ledger;
pub mod machine;
pub mod oracle;
pub mod packet;
pub mod peer;
pub mod recorder;
pub mod scene;
pub mod server;
pub mod sockets;
pub mod streams;
pub mod topology;
pub mod world;
