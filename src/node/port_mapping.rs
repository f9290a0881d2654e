//! The router's port mapping: asked for by [`Action::MapPort`], and a candidate like others while it lasts.
//!
//! IPv4 alone: behind an IPv6 firewall two peers open their ways to each other, and no port is translated.

use super::Node;
use crate::gather::lease::Step;
use crate::id::SocketId;
use crate::sans::{Action, Instant, PortMapping};

/// The socket whose port is mapped: IPv4's.
const MAPPED: SocketId = SocketId(0);

impl Node {
    /// What the router said.
    pub(super) fn port_mapped(&mut self, now: Instant, attempt: u64, result: Result<PortMapping, String>) {
        self.lease.handle_answer(now, attempt, result, self.gather.overlays());
        if self.lease.poll_restarted() {
            tracing::info!("the router was restarted");
            // It has forgotten our other ways too.
            self.reregister(now);
            self.nat.moved(now, &mut self.shared.rng);
        }
    }

    /// Performs what the lease wants; others hear of it when it comes and when it goes.
    pub(super) fn drain_lease(&mut self, now: Instant) {
        while let Some(step) = self.lease.poll_step() {
            match (step, self.mapped_port()) {
                (Step::Release, _) => self.actions.push_back(Action::UnmapPort),
                (Step::Ask(attempt), Some(port)) => self.actions.push_back(Action::MapPort { attempt, port }),
                (Step::Ask(attempt), None) => {
                    let why = "this machine has no IPv4 socket".to_owned();
                    self.lease.handle_answer(now, attempt, Err(why), self.gather.overlays());
                }
            }
        }
        if !self.leaving && self.gather.mapped() != self.lease.external() {
            self.gather.set_mapped(self.lease.external());
            self.candidates_may_have_changed(now);
        }
    }

    fn mapped_port(&self) -> Option<u16> {
        self.sockets.iter().find(|socket| socket.id == MAPPED).map(|socket| socket.addr.port())
    }
}
