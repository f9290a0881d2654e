//! What a host runs, seen by the world: the loop contract and nothing else.

use std::any::Any;
use std::net::IpAddr;

use punchlan::id::SocketId;
use punchlan::sans::{Datagram, Instant, Transmit, Wakeup};

/// A machine under the loop contract. The world mutates once, then drains, then sleeps.
pub trait Machine: Any {
    /// A datagram came in.
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>);
    /// Time has passed.
    fn handle_timeout(&mut self, now: Instant);
    /// The next datagram to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;
    /// When to call `handle_timeout`.
    fn poll_timeout(&self) -> Option<Wakeup>;
    /// Somebody in the house said this to all.
    fn handle_said(&mut self, _now: Instant, _from: IpAddr, _bytes: &[u8]) {}
    /// What it says to everybody in its house.
    fn poll_said(&mut self) -> Option<Vec<u8>> {
        None
    }
    /// The IPv4 sockets that it has open now beside those that its host bound for it, each with its port.
    fn opened(&self) -> &[(SocketId, u16)] {
        &[]
    }
}
