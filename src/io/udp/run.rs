//! Datagrams that can leave together: from one address to one destination, of one length but for the last.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

use super::{Fault, Socket, fault};

/// Most datagrams of one train…
const DATAGRAMS: usize = 64;
/// …and most bytes: what UDP takes at once.
const BYTES: usize = 65_000;

/// Collects datagrams of one socket, and sends them as trains. What is not flushed is not sent.
#[derive(Debug)]
pub struct Run<'a> {
    socket: &'a Socket,
    to: Option<(SocketAddr, Option<IpAddr>)>,
    size: usize,
    count: usize,
    bytes: usize,
    pieces: [IoSlice<'a>; DATAGRAMS],
}

impl<'a> Run<'a> {
    /// Nothing yet.
    pub fn new(socket: &'a Socket) -> Self {
        Self { socket, to: None, size: 0, count: 0, bytes: 0, pieces: [IoSlice::new(&[]); DATAGRAMS] }
    }

    /// Adds a datagram; what it cannot go with is sent before it.
    pub fn push(&mut self, to: SocketAddr, src: Option<IpAddr>, datagram: &'a [u8]) {
        let len = datagram.len();
        let room = self.count < DATAGRAMS && self.bytes + len <= BYTES;
        if self.to != Some((to, src)) || len > self.size || !room {
            self.flush();
            (self.to, self.size) = (Some((to, src)), len);
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
        if let Some((to, src)) = self.to.take() {
            let sent = self.socket.send_train(to, src, self.size, &self.pieces[..self.count]);
            if let Err(error) = sent
                && fault(&error) != Fault::Full
            {
                tracing::trace!(%error, %to, "not sent");
            }
        }
        (self.count, self.bytes) = (0, 0);
    }
}
