//! A registration that stands, or is about to: its address and its keys.

use std::net::SocketAddr;

use crate::crypto::ReplayWindow;
use crate::crypto::registration::Keys;
use crate::id::{Origin, ServerKey, SocketId};
use crate::wire::rendezvous::{Direction, FrameHeader};

/// Late frames are still new if they are at most this much older than the newest.
const WINDOW: usize = 128;
/// An [`Unknown`](crate::wire::rendezvous::Unknown) names one of our last frames, or it is no hint.
const RECENT: u64 = 64;

/// One of the server's addresses, by UDP or at the other end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) socket: SocketId,
    pub(super) addr: SocketAddr,
}

impl Place {
    /// By UDP, on the socket of that family.
    pub(super) const fn udp(addr: SocketAddr) -> Self {
        Self { socket: SocketId(if addr.is_ipv4() { 0 } else { 1 }), addr }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    /// Where the server is that this registration is with.
    pub(super) at: Place,
    /// Its key.
    pub(super) server: ServerKey,
    pub(super) keys: Keys,
    pub(super) handle: u32,
    sent: u64,
    seen: ReplayWindow<WINDOW>,
}

impl Link {
    pub(super) fn new(at: Place, server: ServerKey, keys: Keys, handle: u32) -> Self {
        Self { at, server, keys, handle, sent: 0, seen: ReplayWindow::new() }
    }

    /// Where datagrams from there come from.
    pub(super) const fn origin(&self) -> Origin {
        Origin::of(self.at.socket, self.at.addr)
    }

    /// The next frame to the server.
    pub(super) fn seal(&mut self, items: &[u8]) -> Vec<u8> {
        let header = FrameHeader { direction: Direction::ToServer, handle: self.handle, counter: self.sent };
        self.sent += 1;
        self.keys.to_server.seal(&header, items)
    }

    /// The items of a frame from the server, if it is genuine and new.
    pub(super) fn open(&mut self, header: &FrameHeader, frame: &[u8]) -> Option<Vec<u8>> {
        if header.direction != Direction::ToPeer || header.handle != self.handle || !self.seen.check(header.counter) {
            return None;
        }
        let mut frame = frame.to_vec();
        let items = self.keys.to_peer.open(header, &mut frame)?.to_vec();
        self.seen.accept(header.counter).then_some(items)
    }

    /// Whether `header` is of a frame that we sent lately.
    pub(super) fn sent_lately(&self, header: &FrameHeader) -> bool {
        header.direction == Direction::ToServer
            && header.handle == self.handle
            && header.counter < self.sent
            && self.sent - header.counter <= RECENT
    }
}
