//! Datagrams that can leave together: one way, of one length but for the last.

use std::io::IoSlice;

use super::{Fault, Socket, Way, fault};

/// Most datagrams of one train…
const DATAGRAMS: usize = 64;
/// …and most bytes: what UDP takes at once.
const BYTES: usize = 65_000;

/// Collects datagrams of one socket, and sends them as trains. What is not flushed is not sent.
#[derive(Debug)]
pub struct Run<'a> {
    socket: &'a Socket,
    way: Option<Way>,
    size: usize,
    count: usize,
    bytes: usize,
    pieces: [IoSlice<'a>; DATAGRAMS],
}

impl<'a> Run<'a> {
    /// Nothing yet.
    pub fn new(socket: &'a Socket) -> Self {
        Self { socket, way: None, size: 0, count: 0, bytes: 0, pieces: [IoSlice::new(&[]); DATAGRAMS] }
    }

    /// Adds a datagram; what it cannot go with is sent before it.
    pub fn push(&mut self, way: Way, datagram: &'a [u8]) {
        let len = datagram.len();
        let room = self.count < DATAGRAMS && self.bytes + len <= BYTES;
        if self.way != Some(way) || len > self.size || !room {
            self.flush();
            (self.way, self.size) = (Some(way), len);
        }
        self.pieces[self.count] = IoSlice::new(datagram);
        self.count += 1;
        self.bytes += len;
        if len < self.size {
            self.flush();
        }
    }

    /// Sends what was collected.
    pub fn flush(&mut self) {
        if let Some(way) = self.way.take() {
            let sent = self.socket.send_train(way, self.size, &self.pieces[..self.count]);
            if let Err(error) = sent
                && fault(&error) != Fault::Full
            {
                tracing::trace!(%error, to = %way.to, "not sent");
            }
        }
        (self.count, self.bytes) = (0, 0);
    }
}
