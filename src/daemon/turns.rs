//! The packet path in the loop itself, where it has no threads of its own: packets and datagrams in turns.

use std::io;
use std::sync::Arc;

use super::Failure;
use super::outward::Outward;
use super::packets::{self, Sockets};
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
    batches: [Batch; 2],
    outward: Outward,
    /// Others come first, once.
    yields: bool,
}

/// What comes of the packet path.
#[derive(Debug)]
pub(super) enum Input {
    /// Datagrams are in the batch of this socket.
    Datagrams(SocketId),
    /// A packet was read; none: those that wait go on.
    Packet(Option<(Vnet, usize)>),
}

impl PacketPath {
    /// Nothing is started.
    pub(super) fn start(_node: &mut Node, tun: Arc<Tun>, sockets: Arc<Sockets>) -> io::Result<Self> {
        Ok(Self { tun, sockets, batches: [Batch::new(), Batch::new()], outward: Outward::new()?, yields: false })
    }

    /// Nobody goes by the table but the node.
    pub(super) fn publish(&self, _node: &mut Node) {}

    /// Waits for packets and datagrams. May be dropped and called again at any time.
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
        let [batch4, batch6] = &mut self.batches;
        let received = |received: io::Result<usize>, socket| match received {
            Ok(_) => Ok(Input::Datagrams(SocketId(socket))),
            Err(error) => Err(Failure::Failed(format!("the UDP sockets: {error}"))),
        };
        tokio::select! {
            some = self.sockets.v4.recv(batch4) => received(some, 0),
            some = recv_optional(self.sockets.v6.as_ref(), batch6) => received(some, 1),
            read = self.tun.recv(room, HEADROOM, rest), if !more => match read {
                Ok(first) => Ok(Input::Packet(Some(first))),
                Err(error) => Err(Failure::Failed(format!("interface {}: {error}", self.tun.name()))),
            },
            () = std::future::ready(()), if more => Ok(Input::Packet(None)),
        }
    }

    /// Shows it to the node.
    pub(super) fn take(&mut self, node: &mut Node, input: Input) {
        match input {
            Input::Packet(first) => {
                self.yields = first.is_none();
                self.outward.send(node, &self.tun, &self.sockets, first);
            }
            Input::Datagrams(socket) => {
                let (now, batch) = (clock::now(), &mut self.batches[usize::from(socket.0)]);
                let open = |datagram: Datagram<'_>, _| node.handle_datagram(now, datagram);
                let congested = packets::receive(open, &self.tun, socket, batch);
                node.count_drops("congested", congested);
            }
        }
    }
}

/// Receives on a socket that a machine without IPv6 lacks.
async fn recv_optional(socket: Option<&Socket>, batch: &mut Batch) -> io::Result<usize> {
    match socket {
        Some(socket) => socket.recv(batch).await,
        None => std::future::pending().await,
    }
}
