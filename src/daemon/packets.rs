//! What leaves by the sockets together, and the way of packets from them to the TUN.

use std::cell::OnceCell;

use super::sockets::{Open, Sockets};
use crate::id::SocketId;
use crate::io::tun::Tun;
use crate::io::udp::{Received, Run, Way};
use crate::node::Inbound;
use crate::offload::{Join, Layout, Vnet, decapsulate, finish};
use crate::sans::Datagram;

/// Datagrams of so many sockets are collected side by side: more carry something at the same time only while a way is
/// looked for.
const ABREAST: usize = 4;

/// What leaves by each socket, in its order. What is not flushed is not sent.
pub(super) struct Runs<'a> {
    open: &'a Open,
    runs: [Option<(SocketId, Run<'a>)>; ABREAST],
    /// The place that another socket takes next.
    next: usize,
}

impl<'a> Runs<'a> {
    pub(super) fn new(open: &'a Open) -> Self {
        Self { open, runs: std::array::from_fn(|_| None), next: 0 }
    }

    /// Adds a datagram; `false`: there is no such socket.
    pub(super) fn push(&mut self, socket: SocketId, way: Way, datagram: &'a [u8]) -> bool {
        let run = self.runs.iter_mut().flatten().find_map(|(id, run)| (*id == socket).then_some(run));
        if let Some(run) = run {
            run.push(way, datagram);
            return true;
        }
        let Some(by) = self.open.get(socket) else { return self.open.push(socket, datagram) };
        let place = &mut self.runs[self.next];
        self.next = (self.next + 1) % ABREAST;
        place.iter_mut().for_each(|(_, run)| run.flush());
        place.insert((socket, Run::new(by))).1.push(way, datagram);
        true
    }

    pub(super) fn flush(&mut self) {
        self.runs.iter_mut().flatten().for_each(|(_, run)| run.flush());
    }
}

/// Has the datagrams of a batch opened, each with its ECN bits, and gives the packets that come of them to the TUN, segments
/// that belong together as one, and what is for many to `share`. What two others send each other goes on by the sockets. A datagram that was
/// marked on its way marks its packet; how many were lost because theirs cannot be marked.
pub(super) fn receive<'a>(
    mut open: impl FnMut(Datagram<'_>, u8) -> Inbound,
    share: impl Fn(&mut [u8]),
    tun: &Tun,
    sockets: &Sockets,
    socket: SocketId,
    batch: impl Iterator<Item = Received<'a>>,
) -> u64 {
    // Few batches have anything that is to be passed on.
    let (mut congested, by) = (0, OnceCell::new());
    let mut passed_on: Option<Runs<'_>> = None;
    let mut join: Option<Join<'a>> = None;
    for Received { from, local, ecn, payload } in batch {
        let inbound = open(Datagram { socket, local, from, payload: &mut *payload }, ecn);
        if let Some(range) = inbound.packet()
            && !decapsulate(ecn, &mut payload[range])
        {
            congested += 1;
            continue;
        }
        match inbound {
            Inbound::Shared(range) => share(&mut payload[range]),
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
            Inbound::Forward { socket, to } => {
                // Who is marked on the way here is marked on the way there too.
                let way = Way { to, src: None, tos: ecn };
                if !passed_on
                    .get_or_insert_with(|| Runs::new(by.get_or_init(|| sockets.open())))
                    .push(socket, way, payload)
                {
                    tracing::trace!(%to, "what was to be passed on has no socket");
                }
            }
            Inbound::Taken | Inbound::Dropped => {}
        }
    }
    give_joined(tun, &mut join);
    passed_on.into_iter().for_each(|mut runs| runs.flush());
    congested
}

/// Gives the packet of one datagram to the TUN, or to `share`, if there is one. `false`: it was lost, as above.
#[cfg(target_os = "linux")]
pub(super) fn give(share: impl Fn(&mut [u8]), tun: &Tun, ecn: u8, inbound: &Inbound, payload: &mut [u8]) -> bool {
    let Some(range) = inbound.packet() else { return true };
    let packet = &mut payload[range];
    if !decapsulate(ecn, packet) {
        return false;
    }
    if let Inbound::Shared(_) = inbound {
        share(packet);
        return true;
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

pub(super) fn refused(given: std::io::Result<()>) {
    if let Err(error) = given {
        tracing::trace!(%error, "the interface refused a packet");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::sockets::Sockets;
    use super::*;
    use crate::io::udp::{Batch, Socket};
    use crate::offload::Offload;

    fn local() -> Socket {
        Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback binds")
    }

    /// What comes: from which port, and its first byte.
    async fn collect(friend: &Socket, count: usize) -> Vec<(u16, u8)> {
        let (mut batch, mut all) = (Batch::new(), Vec::new());
        while all.len() < count {
            friend.recv(&mut batch).await.expect("received");
            all.extend(batch.datagrams().map(|datagram| (datagram.from.port(), datagram.payload[0])));
        }
        all
    }

    #[tokio::test]
    async fn what_leaves_by_several_sockets_in_turns_leaves_each_in_order() {
        let (friends, sockets) = ([local(), local()], Sockets::new(local(), None, Offload::All));
        let more = sockets.open_more(ABREAST + 2);
        let open = sockets.open();
        let ids: Vec<SocketId> = open.iter().map(|(id, _)| id).collect();
        // Two friends by each of more sockets than are collected side by side, and long and short ones.
        let datagrams: Vec<(u8, SocketId, &Socket, Vec<u8>)> = (0..=251)
            .map(|n| {
                let (id, friend) = (ids[usize::from(n) % ids.len()], &friends[usize::from(n / 7) % 2]);
                (n, id, friend, vec![n; [900, 1200][usize::from(n / 40) % 2]])
            })
            .collect();
        let mut runs = Runs::new(&open);
        for (_, id, friend, payload) in &datagrams {
            let way = Way { to: friend.local_addr(), src: Some(Ipv4Addr::LOCALHOST.into()), tos: 0 };
            assert!(runs.push(*id, way, payload));
        }
        runs.flush();

        assert_eq!((ids.len(), more.len()), (ABREAST + 3, ABREAST + 2));
        for friend in &friends {
            let to = |other: &Socket| other.local_addr() == friend.local_addr();
            let came = collect(friend, datagrams.iter().filter(|(_, _, other, _)| to(other)).count()).await;
            for (id, socket) in open.iter() {
                let of = |port| came.iter().filter(move |(from, _)| *from == port).map(|(_, n)| *n);
                let sent = datagrams.iter().filter(|(_, by, other, _)| *by == id && to(other)).map(|(n, ..)| *n);
                assert_eq!(Vec::from_iter(of(socket.local_addr().port())), Vec::from_iter(sent), "{id:?}");
            }
        }
    }

    #[test]
    fn what_was_to_leave_by_a_socket_that_is_closed_is_told_of_and_holds_up_nobody() {
        let (friend, sockets) = (local(), Sockets::new(local(), None, Offload::All));
        let closed = sockets.open_more(1)[0].0;
        sockets.close(&[closed]);
        let open = sockets.open();
        let mut runs = Runs::new(&open);
        let way = Way { to: friend.local_addr(), src: None, tos: 0 };
        let known = [closed, SocketId(0), SocketId(1), SocketId(0)].map(|id| runs.push(id, way, b"hello"));
        runs.flush();
        assert_eq!(known, [false, true, false, true]);
        let mut batch = Batch::new();
        let mut came = 0;
        while came < 2 {
            came += friend.try_recv(&mut batch).expect("received");
        }
    }
}
