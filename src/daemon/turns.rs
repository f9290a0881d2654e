//! The packet path in the loop itself, where it has no threads of its own: packets and datagrams in turns.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use super::Failure;
use super::deaf::Ears;
use super::outward::Outward;
use super::packets;
use super::sockets::{Sockets, is_needed};
use crate::forward::Table;
use crate::id::SocketId;
use crate::io::clock;
use crate::io::tun::Tun;
use crate::io::udp::{Batch, Socket};
use crate::node::{HEADROOM, Node};
use crate::offload::Vnet;
use crate::sans::Datagram;

/// The packet path, as the loop sees it.
#[derive(Debug)]
pub(super) struct PacketPath {
    tun: Arc<Tun>,
    sockets: Arc<Sockets>,
    batch: Batch,
    /// The socket that was heard last: the others come first.
    last: SocketId,
    outward: Outward,
    /// Others come first, once.
    yields: bool,
}

/// What comes of the packet path.
#[derive(Debug)]
pub(super) enum Input {
    /// Datagrams are in the batch, from this socket.
    Datagrams(SocketId),
    /// A packet was read; none: those that wait go on.
    Packet(Option<(Vnet, usize)>),
}

impl PacketPath {
    /// Nothing is started.
    pub(super) fn start(_node: &mut Node, tun: Arc<Tun>, sockets: Arc<Sockets>) -> io::Result<Self> {
        let (batch, outward) = (Batch::new(), Outward::new()?);
        Ok(Self { tun, sockets, batch, last: SocketId(0), outward, yields: false })
    }

    /// Nobody goes by the table but the node.
    pub(super) fn publish(&self, _node: &mut Node) {}

    /// Gives a packet for many to the programs here: by the interface, the only way on this system.
    pub(super) fn share(&self, _table: &Table, packet: &mut [u8]) {
        packets::refused(self.tun.send(packet));
    }

    /// Opens so many more sockets, or as many as the system has: by which id, each.
    pub(super) fn open_sockets(&self, count: usize) -> Vec<(SocketId, Arc<Socket>)> {
        self.sockets.open_more(count)
    }

    /// Closes these of them.
    pub(super) fn close_sockets(&self, sockets: &[SocketId]) {
        self.sockets.close(sockets);
    }

    /// Waits for packets and datagrams, by the sockets that are open now: to be called again after these have changed. May be dropped and called again at any time.
    ///
    /// # Errors
    /// A socket broke, or the device is gone.
    pub(super) async fn next(&mut self) -> Result<Input, Failure> {
        if std::mem::take(&mut self.yields) {
            // Else this would go on for ever without a look at who else has something.
            tokio::task::yield_now().await;
        }
        let more = self.outward.has_more();
        let (room, rest) = self.outward.room();
        tokio::select! {
            received = receive(&self.sockets, self.last, &mut self.batch) => match received {
                Ok(socket) => Ok(Input::Datagrams(socket)),
                Err(error) => Err(Failure::Failed(format!("the UDP sockets: {error}"))),
            },
            read = self.tun.recv(room, HEADROOM, rest), if !more => match read {
                Ok(first) => Ok(Input::Packet(Some(first))),
                Err(error) => Err(Failure::Failed(format!("interface {}: {error}", self.tun.name()))),
            },
            () = std::future::ready(()), if more => Ok(Input::Packet(None)),
        }
    }

    /// Shows it to the node.
    pub(super) fn take(&mut self, node: &mut Node, _ears: &mut Ears, input: Input) {
        match input {
            Input::Packet(first) => {
                self.yields = first.is_none();
                self.outward.send(node, &self.tun, &self.sockets.open(), first);
            }
            Input::Datagrams(socket) => {
                self.last = socket;
                let now = clock::now();
                let open = |datagram: Datagram<'_>, _| node.handle_datagram(now, datagram);
                let share = |packet: &mut [u8]| packets::refused(self.tun.send(packet));
                let congested = packets::receive(open, share, &self.tun, &self.sockets, socket, self.batch.datagrams());
                node.count_drops("congested", congested);
            }
        }
    }
}

/// Waits until one of the sockets has something, and puts that into `batch`: which. One that broke and is not needed is
/// closed.
async fn receive(sockets: &Sockets, last: SocketId, batch: &mut Batch) -> io::Result<SocketId> {
    loop {
        let open = sockets.open();
        let (socket, received) = poll_fn(|context| {
            for (id, socket) in open.after(last) {
                if let Poll::Ready(received) = socket.poll_recv(context, batch) {
                    return Poll::Ready((id, received));
                }
            }
            Poll::Pending
        })
        .await;
        match received {
            Ok(_) => return Ok(socket),
            Err(error) if is_needed(socket) => return Err(error),
            Err(error) => {
                tracing::debug!(%error, socket = socket.0, "a socket broke, and is closed");
                sockets.close(&[socket]);
            }
        }
    }
}
