//! Systems on which nothing is overheard: what programs here say to everybody reaches the peers when it is said on the
//! overlay's interface, and what peers say to everybody is given to that.

use std::io;

use crate::io::net::Network;
use crate::node::{LanConfig, Node};

/// No ears.
#[derive(Debug)]
pub(super) struct Ears;

/// Nothing.
#[derive(Debug)]
pub(super) enum Heard {}

impl Heard {
    /// Is never called.
    pub(super) fn show(self, _node: &mut Node, _ours: u32) {
        match self {}
    }
}

impl Ears {
    /// None are made.
    pub(super) const fn new() -> Self {
        Self
    }

    /// Nothing is listened to.
    ///
    /// # Errors
    /// None here.
    pub(super) async fn listen(&mut self, _net: &Network, _ours: u32, _lan: LanConfig) -> io::Result<()> {
        Ok(())
    }

    /// Waits for ever.
    pub(super) async fn next(&mut self) -> Heard {
        std::future::pending().await
    }

    /// None.
    pub(super) const fn take_lost(&self) -> u64 {
        0
    }
}
