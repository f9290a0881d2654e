//! The sockets, what leaves by them together, and the way of packets from them to the TUN.

use std::io::IoSlice;

use crate::id::SocketId;
use crate::io::tun::Tun;
use crate::io::udp::{Batch, Fault, Received, Run, Socket, Way, fault};
use crate::node::Inbound;
use crate::offload::{Join, Layout, Vnet, decapsulate, finish};
use crate::sans::Datagram;

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

    pub(super) fn send_train(&self, socket: SocketId, way: Way, size: usize, pieces: &[IoSlice<'_>]) {
        let Some(Err(error)) = self.get(socket).map(|socket| socket.send_train(way, size, pieces)) else { return };
        if fault(&error) == Fault::Broken {
            tracing::debug!(%error, to = %way.to, "not sent");
        }
    }
}

/// What leaves by each socket.
pub(super) struct Runs<'a> {
    v4: Run<'a>,
    v6: Option<Run<'a>>,
}

impl<'a> Runs<'a> {
    pub(super) fn new(sockets: &'a Sockets) -> Self {
        Self { v4: Run::new(&sockets.v4), v6: sockets.v6.as_ref().map(Run::new) }
    }

    pub(super) fn push(&mut self, socket: SocketId, way: Way, datagram: &'a [u8]) {
        let run = if socket == SocketId(0) { Some(&mut self.v4) } else { self.v6.as_mut() };
        run.into_iter().for_each(|run| run.push(way, datagram));
    }

    pub(super) fn flush(&mut self) {
        self.v4.flush();
        self.v6.iter_mut().for_each(Run::flush);
    }
}

/// Has the datagrams of a batch opened, each with its ECN bits, and gives the packets that come of them to the TUN:
/// segments that belong together as one. A datagram that was marked on its way marks its packet; how many were lost
/// because theirs cannot be marked.
pub(super) fn receive(
    mut open: impl FnMut(Datagram<'_>, u8) -> Inbound,
    tun: &Tun,
    socket: SocketId,
    batch: &mut Batch,
) -> u64 {
    let mut congested = 0;
    let mut join: Option<Join<'_>> = None;
    for Received { from, local, ecn, payload } in batch.datagrams() {
        let inbound = open(Datagram { socket, local, from, payload: &mut *payload }, ecn);
        if let Inbound::Deliver(range) | Inbound::Segment { range, .. } = &inbound
            && !decapsulate(ecn, &mut payload[range.clone()])
        {
            congested += 1;
            continue;
        }
        match inbound {
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
    congested
}

/// Gives the packet of one datagram to the TUN, if there is one. `false`: it was lost, as above.
#[cfg(target_os = "linux")]
pub(super) fn give(tun: &Tun, ecn: u8, inbound: &Inbound, payload: &mut [u8]) -> bool {
    let Some(range) = inbound.packet() else { return true };
    let packet = &mut payload[range];
    if !decapsulate(ecn, packet) {
        return false;
    }
    if let Inbound::Segment { .. } = inbound
        && let Some(layout) = Layout::of(packet)
    {
        finish(packet, &layout);
    }
    refused(tun.send(packet));
    true
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
