//! The way of packets through the loop: from the TUN to the sockets in batches, and back.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::ops::Range;

use crate::id::SocketId;
use crate::io::tun::Tun;
use crate::io::udp::{Batch, Fault, Socket, fault};
use crate::node::{HEADROOM, Inbound, MTU, Node, Outbound, TAILROOM, Train};
use crate::offload::{Cut, Join, Layout, Vnet, finish};
use crate::sans::{Datagram, Instant};

/// Packets that are read from the TUN before the sockets get their turn.
const BATCH: usize = 64;
/// Bytes of one packet in a batch, with what is put around it.
const SLOT: usize = HEADROOM + MTU as usize + TAILROOM;
/// Bytes of the largest super-packet.
const SUPER: usize = 1 << 16;
/// Datagrams in one train, and their bytes: what UDP takes at once.
const TRAIN: usize = 64;
const TRAIN_BYTES: usize = 65_000;

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
        let Some(Err(error)) = self.get(socket).map(|socket| socket.send_train(to, size, pieces)) else { return };
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
        let (mut at, mut run, mut next) = (0, Run::EMPTY, Some(first));
        let mut left = BATCH;
        while let Some((vnet, len)) = next {
            let end = at + HEADROOM + len + TAILROOM;
            if vnet.gso_type == 0 {
                vnet.finish(&mut self.read[at + HEADROOM..at + HEADROOM + len]);
                if let Outbound::Send { socket, to, range } = node.handle_packet(now, &mut self.read[at..end]) {
                    run.push(sockets, &self.read, socket, to, at + range.start..at + range.end);
                }
                at = end;
            } else {
                run.flush(sockets, &self.read);
                let packet = &self.read[at + HEADROOM..at + HEADROOM + len];
                send_super(now, node, sockets, &vnet, packet, &mut self.train);
            }
            left -= 1;
            // What is read must be handled: the rest of a longer burst stays in the TUN.
            next = if left > 0 && at < BATCH * SLOT {
                let room = &mut self.read[at..at + HEADROOM + SUPER];
                tun.try_recv(room, HEADROOM).ok().flatten()
            } else {
                None
            };
        }
        run.flush(sockets, &self.read);
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

/// Sealed datagrams that can leave together: one destination, one length but for the last.
#[derive(Debug)]
struct Run {
    way: Option<(SocketId, SocketAddr)>,
    size: usize,
    count: usize,
    bytes: usize,
    pieces: [(usize, usize); TRAIN],
}

impl Run {
    const EMPTY: Self = Self { way: None, size: 0, count: 0, bytes: 0, pieces: [(0, 0); TRAIN] };

    /// Adds the datagram at `range` of `buffer`; what cannot go with it is sent before.
    fn push(&mut self, sockets: &Sockets, buffer: &[u8], socket: SocketId, to: SocketAddr, range: Range<usize>) {
        let len = range.len();
        let joins =
            self.way == Some((socket, to)) && len <= self.size && self.count < TRAIN && self.bytes + len <= TRAIN_BYTES;
        if !joins {
            self.flush(sockets, buffer);
            (self.way, self.size) = (Some((socket, to)), len);
        }
        self.pieces[self.count] = (range.start, range.end);
        self.count += 1;
        self.bytes += len;
        if len < self.size {
            self.flush(sockets, buffer);
        }
    }

    fn flush(&mut self, sockets: &Sockets, buffer: &[u8]) {
        if let Some((socket, to)) = self.way.take() {
            let mut pieces = [IoSlice::new(&[]); TRAIN];
            for (piece, (start, end)) in pieces.iter_mut().zip(&self.pieces[..self.count]) {
                *piece = IoSlice::new(&buffer[*start..*end]);
            }
            sockets.send_train(socket, to, self.size, &pieces[..self.count]);
        }
        (self.count, self.bytes, self.size) = (0, 0, 0);
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
                give_joined(tun, &mut join);
                refused(tun.send(&payload[range]));
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
