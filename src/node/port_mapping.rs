//! The router's port mappings: asked for by [`Action::MapPort`], and candidates like others while they last.
//!
//! Datagrams have theirs all the time. Streams have one while there is a port for them, and only where the router has
//! shown that it maps ports: to ask one that does not takes seconds, for which an attempt would wait.
//!
//! IPv4 alone: behind an IPv6 firewall two peers open their ways to each other, and no port is translated.

use super::Node;
use crate::gather::lease::Step;
use crate::id::SocketId;
use crate::sans::{Action, Instant, PortMapping, Transport};

/// The socket whose port is mapped: IPv4's.
const MAPPED: SocketId = SocketId(0);

impl Node {
    /// What the router said.
    pub(super) fn port_mapped(
        &mut self,
        now: Instant,
        transport: Transport,
        attempt: u64,
        result: Result<PortMapping, String>,
    ) {
        match transport {
            Transport::Udp => self.lease.handle_answer(now, attempt, result, self.gather.overlays()),
            Transport::Tcp => {
                self.tcp_lease.handle_answer(now, attempt, result, self.gather.overlays());
                self.tcp_port_mapped(now);
                if self.tcp_lease.poll_restarted() {
                    self.lease.look(now);
                }
            }
        }
        if self.lease.poll_restarted() {
            tracing::info!("the router was restarted");
            // It has forgotten our other ways too.
            self.tcp_lease.look(now);
            self.reregister(now);
            self.nat.moved(now, &mut self.shared.rng);
        }
    }

    /// What the router gave may be gone.
    pub(super) fn look_at_leases(&mut self, now: Instant) {
        self.lease.look(now);
        self.tcp_lease.look(now);
    }

    /// Performs what the lease wants; others hear of it when it comes and when it goes.
    pub(super) fn drain_lease(&mut self, now: Instant) {
        let bound = self.sockets.iter().find(|socket| socket.id == MAPPED).map(|socket| socket.addr.port());
        self.ask_router(now, Transport::Udp, bound);
        if !self.leaving && self.gather.mapped() != self.lease.external() {
            self.gather.set_mapped(self.lease.external());
            self.candidates_may_have_changed(now);
        }
    }

    /// The same for streams.
    pub(super) fn drain_tcp_lease(&mut self, now: Instant) {
        let port = self.tcp.port();
        if port.is_none() || self.lease.external().is_some() {
            self.tcp_lease.set_wanted(now, port.is_some());
        }
        self.ask_router(now, Transport::Tcp, port);
    }

    fn ask_router(&mut self, now: Instant, transport: Transport, port: Option<u16>) {
        let lease = match transport {
            Transport::Udp => &mut self.lease,
            Transport::Tcp => &mut self.tcp_lease,
        };
        while let Some(step) = lease.poll_step() {
            match (step, port) {
                (Step::Release, _) => self.actions.push_back(Action::UnmapPort(transport)),
                (Step::Ask(attempt), Some(port)) => {
                    self.actions.push_back(Action::MapPort { transport, attempt, port });
                }
                (Step::Ask(attempt), None) => {
                    let why = "no IPv4 port is bound here".to_owned();
                    lease.handle_answer(now, attempt, Err(why), self.gather.overlays());
                }
            }
        }
    }
}
