//! What a host runs, seen by the world: the loop contract and nothing else.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};

use punchlan::id::SocketId;
use punchlan::sans::{Datagram, Done, Instant, Transmit, Wakeup};

use super::streams::Dial;

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
    /// The next wish to connect by a stream.
    fn poll_dial(&mut self) -> Option<Dial> {
        None
    }
    /// The next attempt that it lets go all the way.
    fn poll_let_go(&mut self) -> Option<u64> {
        None
    }
    /// The next that it gives up.
    fn poll_given_up(&mut self) -> Option<u64> {
        None
    }
    /// What became of it.
    fn dialled(&mut self, _now: Instant, _done: Done) {}
    /// The next stream that it ends.
    fn poll_hang_up(&mut self) -> Option<SocketId> {
        None
    }
    /// A stream ended.
    fn stream_ended(&mut self, _now: Instant, _socket: SocketId) {}
    /// The port on which it listens for streams of peers.
    fn listens(&self) -> Option<u16> {
        None
    }
    /// Somebody has connected there.
    fn accepted(&mut self, _now: Instant, _socket: SocketId, _from: SocketAddr) {}
    /// Whether it can be connected to where it has a socket.
    fn accepts_streams(&self) -> bool {
        false
    }
}
