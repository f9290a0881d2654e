//! **punchlan**: a virtual LAN for friends and their games.
//!
//! Every machine that holds the same network key appears on one overlay network: registered with a
//! rendezvous, reached through UDP holes punched in the NATs between them, relayed where no hole can be
//! had, end-to-end encrypted always.
//!
//! # The story of a packet
//!
//! A program writes to an overlay address; the kernel hands the packet to the overlay's interface ([`io`]). The
//! [`router`] says which peer owns the destination, the peer's [`session`] seals the packet, and the
//! peer's path-finder ([`punch`]) says where it goes: to the peer directly, or as a relay frame to a
//! rendezvous ([`relay`]). On the other side the session opens it, the router checks that its source
//! belongs to its sender, and the interface delivers it. The [`node`] is the only place where these meet.
//!
//! Under load the kernel hands over super-packets of up to 64 KB: [`offload`] cuts them, every segment is sealed by
//! itself, all leave by one system call, and on the other side they are one again before the kernel sees them. And what
//! is small or urgent does not wait behind what is much: packets leave in the order of a fair queue ([`fair`]).
//!
//! On Linux packets have threads of their own, one for each direction: they seal and open by a table that the node has
//! frozen ([`forward`]), and hand over what that says nothing of.
//!
//! # The layers
//!
//! Imports point down only; `tests/layers.rs` reads the source and fails on an arrow that points up, and
//! on a clock, socket, thread, `async` or `tokio` at L0–L5.
//!
//! ```text
//! L8 config/ cli/ log                     what people write and read
//! L7 server/ daemon/ control/ lab/        processes · an internet in namespaces to try them in
//! L6 io/                                  sockets, interface, clock, threads, unsafe: effects only
//! L5 node/                                the whole peer without I/O
//! L4 router/ forward/                     overlay address -> peer; source guard; bindings · packets by a frozen table
//! L3 punch/ symmetric/ tcp/ gather/ rendezvous/ relay/ netcheck/    seven machines that never import each other
//! L2 crypto/ session/ offload/ fair/      keys, Noise, seals, replay · one peer's keys over time · super-packets · turns
//! L1 wire/                                bytes <-> typed messages
//! L0 id addr nat sans                     names of things, the loop contract's types
//! ```
//!
//! # The loop contract
//!
//! Every machine below [`io`] is driven alike, and reads neither clock nor entropy itself: `now` and the
//! seed are arguments.
//!
//! 1. **Mutate once**: one `handle_*` call with one input, or `handle_timeout(now)`.
//! 2. **Drain**: call every `poll_*` until it returns `None`. A parent drains its children and translates.
//! 3. **Sleep** until the earlier of the next input and `poll_timeout()`, a [`sans::Wakeup`].
//!
//! Effects that are not datagrams are data ([`sans::Action`]); the shell answers each with a
//! [`sans::Done`]. On the packet path there are verdicts, not `Result`s: one bad packet never costs the
//! rest of its batch.

pub mod addr;
pub mod id;
pub mod nat;
pub mod sans;

pub mod wire;

pub mod crypto;
pub mod fair;
pub mod forward;
pub mod offload;
pub mod session;

pub mod gather;
pub mod netcheck;
pub mod punch;
pub mod relay;
pub mod rendezvous;
pub mod symmetric;
pub mod tcp;

pub mod router;

pub mod node;

pub mod io;

pub mod control;
pub mod daemon;
#[cfg(target_os = "linux")]
pub mod lab;
pub mod server;

pub mod cli;
pub mod config;
pub mod log;
