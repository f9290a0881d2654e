//! The way of packets through the loop: from the TUN to the sockets in batches, and back.

use std::io::IoSlice;
use std::net::SocketAddr;

use crate::id::SocketId;
use crate::io::tun::Tun;
use crate::io::udp::{Batch, Fault, Run, Socket, fault};
use crate::node::{HEADROOM, Inbound, MTU, Node, Outbound, TAILROOM, Train};
use crate::offload::{Cut, Join, Layout, Vnet, finish};
use crate::sans::{Datagram, Instant};

/// Packets that are read from the TUN before the sockets get their turn.
const BATCH: usize = 64;
/// Bytes of one packet in a batch, with what is put around it.
const SLOT: usize = HEADROOM + MTU as usize + TAILROOM;
/// Bytes of the largest super-packet.
const SUPER: usize = 1 << 16;

/// Our sockets, by family.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) v4: Socket,
    pub(super) v6: Option<Socket>,
}

impl Sockets {
    /// The socket of that name.
    pub(super) fn get(&self, socket: SocketId) -> Option<&Socket> {
        if socket == SocketId(0) { Some(&self.v4) } else { self.v6.as_ref() }
    }

    fn send_train(&self, socket: SocketId, to: SocketAddr, size: usize, pieces: &[IoSlice<'_>]) {
        let Some(Err(error)) = self.get(socket).map(|socket| socket.send_train(to, None, size, pieces)) else { return };
        if fault(&error) == Fault::Broken {
            tracing::debug!(%error, %to, "not sent");
        }
    }
}

/// Buffers of the way out. Claimed by the system only as far as traffic ever filled them.
#[derive(Debug)]
pub(super) struct Outward {
    /// Packets as they are read, each with room around it; sealed in place.
    read: Box<[u8]>,
    /// The sealed segments of a super-packet.
    train: Box<[u8]>,
}

impl Outward {
    pub(super) fn new() -> Self {
        let room = |bytes: usize| vec![0; bytes].into_boxed_slice();
        Self { read: room(BATCH * SLOT + HEADROOM + SUPER + TAILROOM), train: room(SUPER) }
    }

    /// Where the first packet of a batch is read to, and at which offset.
    pub(super) fn first(&mut self) -> (&mut [u8], usize) {
        (&mut self.read[..HEADROOM + SUPER], HEADROOM)
    }

    /// The first packet of a batch has been read; the others are read now, and all are sent.
    pub(super) fn send(&mut self, now: Instant, node: &mut Node, tun: &Tun, sockets: &Sockets, first: (Vnet, usize)) {
        let (mut rest, mut runs, mut next) = (&mut self.read[..], Runs::new(sockets), Some(first));
        let mut left = BATCH;
        while let Some((vnet, len)) = next {
            if vnet.gso_type == 0 {
                let (slot, behind) = rest.split_at_mut(HEADROOM + len + TAILROOM);
                rest = behind;
                vnet.finish(&mut slot[HEADROOM..HEADROOM + len]);
                if let Outbound::Send { socket, to, range } = node.handle_packet(now, slot) {
                    runs.push(socket, to, &slot[range]);
                }
            } else {
                // What came before it goes before it.
                runs.flush();
                send_super(now, node, sockets, &vnet, &rest[HEADROOM..HEADROOM + len], &mut self.train);
            }
            left -= 1;
            // What is read must be handled: the rest of a longer burst stays in the TUN.
            let room = HEADROOM + SUPER;
            let more = left > 0 && rest.len() >= room + TAILROOM;
            next = if more { tun.try_recv(&mut rest[..room], HEADROOM).ok().flatten() } else { None };
        }
        runs.flush();
    }
}

/// What leaves by each socket.
struct Runs<'a> {
    v4: Run<'a>,
    v6: Option<Run<'a>>,
}

impl<'a> Runs<'a> {
    fn new(sockets: &'a Sockets) -> Self {
        Self { v4: Run::new(&sockets.v4), v6: sockets.v6.as_ref().map(Run::new) }
    }

    fn push(&mut self, socket: SocketId, to: SocketAddr, datagram: &'a [u8]) {
        let run = if socket == SocketId(0) { Some(&mut self.v4) } else { self.v6.as_mut() };
        run.into_iter().for_each(|run| run.push(to, None, datagram));
    }

    fn flush(&mut self) {
        self.v4.flush();
        self.v6.iter_mut().for_each(Run::flush);
    }
}

/// Cuts, seals and sends a super-packet.
fn send_super(now: Instant, node: &mut Node, sockets: &Sockets, vnet: &Vnet, packet: &[u8], train: &mut [u8]) {
    let cut = match Cut::new(vnet, packet) {
        Ok(cut) => cut,
        Err(error) => return tracing::debug!(%error, ?vnet, "the kernel handed over something odd"),
    };
    let mut next = 0;
    while next < cut.count() {
        if let Some(Train { socket, to, range, size }) = node.handle_super(now, &cut, &mut next, train) {
            sockets.send_train(socket, to, size, &[IoSlice::new(&train[range])]);
        }
    }
}

/// Hands the datagrams of a batch to the node, and the packets that come of them to the TUN: segments that belong
/// together as one.
pub(super) fn receive(now: Instant, node: &mut Node, tun: &Tun, socket: SocketId, batch: &mut Batch) {
    let mut join: Option<Join<'_>> = None;
    for datagram in batch.datagrams() {
        let (from, local, payload) = (datagram.from, datagram.local, datagram.payload);
        match node.handle_datagram(now, Datagram { socket, local, from, payload: &mut *payload }) {
            Inbound::Deliver(range) => {
                let packet = &payload[range];
                if join.as_mut().is_some_and(|join| join.push_alone(packet)) {
                    continue;
                }
                give_joined(tun, &mut join);
                join = if tun.takes(Vnet::UDP) { Join::begin_alone(packet) } else { None };
                if join.is_none() {
                    refused(tun.send(packet));
                }
            }
            Inbound::Segment { range, segment, place } if tun.takes(segment.gso_type) => {
                let packet = &payload[range];
                if !join.as_mut().is_some_and(|join| join.push(place, segment, packet)) {
                    give_joined(tun, &mut join);
                    join = Join::begin(place, segment, packet);
                }
            }
            Inbound::Segment { range, .. } => {
                give_joined(tun, &mut join);
                let packet = &mut payload[range];
                if let Some(layout) = Layout::of(packet) {
                    finish(packet, &layout);
                }
                refused(tun.send(packet));
            }
            Inbound::Taken | Inbound::Dropped => {}
        }
    }
    give_joined(tun, &mut join);
}

fn give_joined(tun: &Tun, join: &mut Option<Join<'_>>) {
    if let Some(mut join) = join.take() {
        let (vnet, head, parts) = join.finish();
        refused(tun.send_joined(&vnet, head, parts));
    }
}

fn refused(given: std::io::Result<()>) {
    if let Err(error) = given {
        tracing::trace!(%error, "the interface refused a packet");
    }
}
