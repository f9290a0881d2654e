//! L6: effects only, no protocol decisions. Everything that touches the operating system is here: its
//! clock, entropy, UDP sockets, the overlay's interface, addresses and routes, name resolution, files, signals.
//!
//! The rest of the program asks for an effect as data ([`crate::sans::Action`]) or is handed what came in
//! as plain values; so what is below this layer can be driven by a test with a clock of its own.
//!
//! | what | where |
//! |---|---|
//! | time that counts suspend, wall time, alarms | [`clock`] |
//! | fresh randomness | [`entropy`] |
//! | datagrams, batched, with their local address | [`udp`] |
//! | datagrams on TCP, where UDP does not pass | [`stream`] |
//! | the same as a web server has it: TLS, WebSocket | [`web`] |
//! | inner packets | [`tun`] |
//! | the interface's addresses; routes; whether the overlay's subnet is free here | [`net`] |
//! | this machine's addresses | [`interfaces`] |
//! | what comes for the overlay from elsewhere is kept out | `guard` |
//! | what is said to everybody on its LANs | [`lan`] |
//! | what programs say to everybody there, and hear | `multicast` |
//! | how many descriptors we may have | [`limits`] |
//! | memory that goes back to the system | [`memory`] |
//! | waiting for many in a thread of its own | `ready` |
//! | what the NAT does | [`netcheck`] |
//! | what games meet on this LAN | [`doctor`] |
//! | names | [`resolve`] |
//! | questions for the members' names | [`dns`] |
//! | the system's own ways to names | `hosts`, `resolved` |
//! | port mappings on the router | [`portmap`] |
//! | the state and run folders | [`store`] |
//! | what is missing before the interface can be made | [`permission`] |
//! | when to stop | [`signal`] |
//!
//! `unsafe` stands in five files alone, each block with its reason: `udp/options.rs` (a socket option that
//! no crate offers), `udp/train.rs` (a system call that nix makes with allocations), `tun/linux.rs` (taking a descriptor
//! over from the `tun` crate), `multicast/tap.rs` (the address of an interface) and `watched.rs` (handing a descriptor to the event loop).

pub mod clock;
pub mod dns;
pub mod doctor;
pub mod entropy;
#[cfg(target_os = "linux")]
pub mod guard;
#[cfg(target_os = "linux")]
pub mod hosts;
pub mod interfaces;
pub mod lan;
pub mod limits;
pub mod memory;
#[cfg(target_os = "linux")]
pub mod multicast;
pub mod net;
pub mod netcheck;
pub mod permission;
mod port_holder;
pub mod portmap;
#[cfg(target_os = "linux")]
pub mod ready;
pub mod resolve;
#[cfg(target_os = "linux")]
pub mod resolved;
pub mod signal;
pub mod store;
pub mod stream;
pub mod tun;
pub mod udp;
#[cfg(target_os = "linux")]
mod watched;
pub mod web;
