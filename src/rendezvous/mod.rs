//! L3: how peers find each other. A rendezvous keeps, per network, a list of who is there and where; both ends of
//! it are machines here: [`Client`], one registration with one server, and [`Server`], all registrations.
//!
//! 1. **Hello, Cookie.** The server proves the peer's address and keeps nothing. The Cookie tells the
//!    observed address.
//! 2. **Register.** Signed by network and device over the cookie, the server's key and a fresh key. From here on
//!    everything is sealed under keys that only this registration has.
//! 3. **Announce.** With its first announcement a peer is on the list: it is told of all members, and all
//!    members of it, in the same tick. That is an introduction: both sides start now.
//! 4. **News.** What a peer is to know is a set of *dirty* entries, one per member, each repeated until
//!    acknowledged. Nothing is kept once all is said.
//! 5. **Refresh.** Every 15 s: keeps the NAT's mapping, measures the round trip, and compares a digest of the list, so
//!    that a difference is found whatever was lost.
//!
//! A frame that the server cannot place is answered with a hint (`Unknown`), so peers notice a restarted server at the
//! next packet and say Hello while what they have stays in use.

pub mod client;
mod frame;
pub mod server;

pub use client::{Client, Event, State};
pub use server::Server;

use std::time::Duration;

use crate::sans::Instant;

/// How often a peer refreshes; also keeps its NAT's mapping alive.
pub const REFRESH: Duration = Duration::from_secs(15);
/// A registration ends when nothing authenticated came for this long.
pub const EXPIRY: Duration = Duration::from_secs(60);
/// Members that one list can hold, whatever a server says.
pub const MAX_MEMBERS: usize = 4096;

/// When something that was not acknowledged is sent again: 200 ms, doubling to 2 s.
#[derive(Clone, Copy, Debug)]
struct Repeat {
    due: Instant,
    pause: Duration,
}

impl Repeat {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(2);

    /// Due at `at`.
    const fn new(at: Instant) -> Self {
        Self { due: at, pause: Self::FIRST }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// Whether it was sent at least once.
    fn is_under_way(&self) -> bool {
        self.pause > Self::FIRST
    }

    /// It was sent: next time later.
    fn sent(&mut self, now: Instant) {
        self.due = now + self.pause;
        self.pause = (self.pause * 2).min(Self::LONGEST);
    }
}
