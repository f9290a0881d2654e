//! The side whose port is the same for all: it looks for the other's.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Shot, aim};
use crate::id::SocketId;
use crate::nat::NextPorts;
use crate::sans::{Instant, Rng, Wakeup};

/// That all was tried is said at the end, and again, for words get lost.
const SAID: [Duration; 3] = [Duration::ZERO, Duration::from_millis(150), Duration::from_millis(450)];
/// What comes from a port that was tried comes within this time, or not at all.
const REMEMBERED: Duration = Duration::from_secs(10);

/// A search for one of the ports that a peer has open to us.
#[derive(Debug)]
pub struct Look {
    socket: SocketId,
    ip: IpAddr,
    ports: Vec<u16>,
    sent: usize,
    ended: Option<Instant>,
    said: usize,
}

impl Look {
    /// From `socket`, at `ip`, where `open` ports of these let us in.
    pub fn new(socket: SocketId, ip: IpAddr, ports: NextPorts, open: usize, rng: &mut Rng) -> Self {
        let ports = aim::look(ports, open, rng);
        Self { socket, ip, ports, sent: 0, ended: None, said: 0 }
    }

    /// The shot that is next. Say that it left ([`Look::sent`]), or that no more may ([`Look::end`]).
    pub fn next(&self) -> Option<Shot> {
        let port = self.ports.get(self.sent)?;
        Some(Shot { socket: self.socket, to: SocketAddr::new(self.ip, *port), primes: false })
    }

    /// It left.
    pub fn sent(&mut self, now: Instant) {
        self.sent += 1;
        if self.sent == self.ports.len() {
            self.end(now);
        }
    }

    /// No more is sent.
    pub fn end(&mut self, now: Instant) {
        self.ports.truncate(self.sent);
        self.ended.get_or_insert(now);
    }

    /// It is not needed any more.
    pub fn stop(&mut self, now: Instant) {
        self.end(now);
        self.said = SAID.len();
    }

    /// Whether the peer is to be told now that all was tried; then it counts as told.
    pub fn take_word(&mut self, now: Instant) -> bool {
        let due = self.word_due().is_some_and(|at| at <= now);
        self.said += usize::from(due);
        due
    }

    /// Whether `addr` is one of those that were tried.
    pub fn has_tried(&self, addr: SocketAddr) -> bool {
        addr.ip() == self.ip && self.ports[..self.sent].contains(&addr.port())
    }

    /// Whether there is nothing left to do or to remember.
    pub fn is_over(&self, now: Instant) -> bool {
        self.ended.is_some_and(|at| now - at >= REMEMBERED)
    }

    /// When it has something to say, or is over.
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        let over = self.ended.map(|at| at + REMEMBERED);
        self.word_due().or(over).map(|at| Wakeup::new(at, "look for ports"))
    }

    fn word_due(&self) -> Option<Instant> {
        Some(self.ended? + *SAID.get(self.said)?)
    }
}
