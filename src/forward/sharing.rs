//! What is for many: which of it goes and comes at all, and where it is delivered. Only packets for many pass here.
//!
//! | which way | what |
//! |---|---|
//! | both | broadcast and multicast each while it is switched on, and of one sender not more than its [`Gate`] lets through |
//! | in | only what somebody here listens to ([`Joins`]) |
//! | out | once, and not in circles ([`Repeats`]) |

use std::net::IpAddr;
use std::sync::Arc;

use super::{Gate, Joins, Repeats};
use crate::sans::Instant;

/// Which kinds there are in the overlay, as far as this machine is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanConfig {
    /// Limited and subnet broadcast.
    pub broadcast: bool,
    /// Multicast.
    pub multicast: bool,
}

impl Default for LanConfig {
    /// As on any LAN.
    fn default() -> Self {
        Self { broadcast: true, multicast: true }
    }
}

impl LanConfig {
    /// Whether there is what is sent to this address.
    pub const fn has(self, destination: IpAddr) -> bool {
        if destination.is_multicast() { self.multicast } else { self.broadcast }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Sharing {
    /// What there is.
    pub lan: LanConfig,
    /// What our programs have joined.
    pub joins: Arc<Joins>,
    /// What our programs may send.
    pub gate: Arc<Gate>,
    /// What was sent and came lately.
    pub repeats: Arc<Repeats>,
}

impl Sharing {
    /// Whether a packet of ours may go to many.
    ///
    /// # Errors
    /// A word of `counters.drop`.
    pub(super) fn lets_out(&self, now: Instant, destination: IpAddr) -> Result<(), &'static str> {
        match () {
            () if !self.lan.has(destination) => Err("lan-off"),
            () if !self.gate.allow(now) => Err("fan-out-rate"),
            () => Ok(()),
        }
    }

    /// Whether a packet for many may come in from who sends through this gate.
    ///
    /// # Errors
    /// A word of `counters.drop`.
    pub(super) fn lets_in(
        &self,
        now: Instant,
        gate: &Gate,
        destination: IpAddr,
        packet: &[u8],
    ) -> Result<(), &'static str> {
        match () {
            () if !self.lan.has(destination) => Err("lan-off"),
            () if !gate.allow(now) => Err("fan-in-rate"),
            () if self.joins.delivery(destination).is_none() => Err("not-joined"),
            () => {
                self.repeats.came(now, packet);
                Ok(())
            }
        }
    }
}
