//! A host that looks what its NAT does.

use std::net::{IpAddr, SocketAddr};

use punchlan::netcheck::{Check, Plan, Report, SILENT_SOCKETS, SOCKETS};
use punchlan::sans::{Datagram, Instant, Seed, Transmit, Wakeup};

use super::machine::Machine;

/// The check; none before it begins.
#[derive(Default)]
pub struct Checker {
    check: Option<Check>,
    report: Option<Report>,
    /// Datagrams that it has sent.
    pub sent: usize,
}

/// What its sockets are bound to.
pub fn sockets() -> Vec<SocketAddr> {
    // Far enough apart to be nobody's count, and without an order.
    (0..SOCKETS + SILENT_SOCKETS).map(|i| port(u16::try_from(i).expect("few"))).collect()
}

fn port(i: u16) -> SocketAddr {
    SocketAddr::from(([0; 4], 33_000 + i.wrapping_mul(7_919) % 27_000))
}

impl Checker {
    /// Begins to ask these servers.
    pub fn start(&mut self, now: Instant, own: IpAddr, servers: &[SocketAddr], lifetime: bool) {
        let sockets = sockets();
        let plan = Plan { servers: servers.to_vec(), own: vec![own], sockets, ipv6: false, lifetime };
        self.check = Some(Check::new(plan, &Seed::from_u64(5), now));
        self.settle();
    }

    /// What it found, once it is done.
    pub fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    fn settle(&mut self) {
        let found = self.check.as_mut().and_then(Check::poll_report);
        self.report = found.or(self.report.take());
    }
}

impl Machine for Checker {
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let Some(check) = &mut self.check else { return };
        check.handle_datagram(now, datagram);
        self.settle();
    }

    fn handle_timeout(&mut self, now: Instant) {
        let Some(check) = &mut self.check else { return };
        check.handle_timeout(now);
        self.settle();
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.check.as_mut()?.poll_transmit();
        self.sent += usize::from(transmit.is_some());
        transmit
    }

    fn poll_timeout(&self) -> Option<Wakeup> {
        self.check.as_ref()?.poll_timeout()
    }
}
