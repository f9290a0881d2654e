//! The sockets, of UDP: one for IPv4 with the id 0 and maybe one for IPv6 with the id 1, for as long as the daemon runs; and more
//! for IPv4 while the node wants them, each of which can do whatever the first can.
//! And the streams to rendezvous where UDP does not pass: what goes by one waits in its queue until it is written.
//!
//! Who sends or receives takes those that are open ([`Sockets::open`]) once for all that is at hand, and asks no lock for
//! each packet. What is closed meanwhile is gone when the last of these lets go of it.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::id::SocketId;
use crate::io::stream::Queue;
use crate::io::udp::{Fault, Socket, Way, fault};
use crate::offload::Offload;

/// The id of the first that was opened later.
const FIRST_MORE: SocketId = SocketId(2);
/// So many descriptors are left to all else where the system has no more: to the control socket, and to files of the state.
const SPARE: usize = 8;

/// All of them. Share it by `Arc`.
#[derive(Debug)]
pub(super) struct Sockets {
    set: Mutex<Set>,
    offload: Offload,
    /// Datagrams for which a stream had no room.
    full: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Set {
    open: Arc<Open>,
    /// The id that was given last: none is given again soon, for who has just been told of it may still look for it.
    last: SocketId,
    last_stream: SocketId,
}

/// Those that are open.
#[derive(Clone, Debug)]
pub(super) struct Open {
    udp: BTreeMap<SocketId, Arc<Socket>>,
    streams: BTreeMap<SocketId, Arc<Queue>>,
}

/// Whether nothing works without this one.
pub(super) fn is_needed(socket: SocketId) -> bool {
    socket < FIRST_MORE
}

impl Sockets {
    pub(super) fn new(v4: Socket, v6: Option<Socket>, offload: Offload) -> Self {
        let open = [Some(v4), v6].into_iter().zip(0..);
        let open = open.filter_map(|(socket, id)| Some((SocketId(id), fit(socket?, offload)))).collect();
        let open = Open { udp: open, streams: BTreeMap::new() };
        Self {
            set: Mutex::new(Set { open: Arc::new(open), last: SocketId(1), last_stream: SocketId::FIRST_STREAM }),
            offload,
            full: Arc::default(),
        }
    }

    /// Those that are open now.
    pub(super) fn open(&self) -> Arc<Open> {
        self.set().open.clone()
    }

    /// Opens so many more, or as many as the system has.
    pub(super) fn open_more(&self, count: usize) -> Vec<(SocketId, Arc<Socket>)> {
        self.add(count, || Socket::bind((Ipv4Addr::UNSPECIFIED, 0).into()))
    }

    fn add(&self, count: usize, mut bind: impl FnMut() -> io::Result<Socket>) -> Vec<(SocketId, Arc<Socket>)> {
        let mut bound = Vec::new();
        while bound.len() < count {
            match bind() {
                Ok(socket) => bound.push(fit(socket, self.offload)),
                Err(error) => {
                    tracing::debug!(%error, count, opened = bound.len(), "the system has no more sockets");
                    bound.truncate(bound.len().saturating_sub(SPARE));
                    break;
                }
            }
        }
        let mut set = self.set();
        let mut open = Open::clone(&set.open);
        let mut added = Vec::with_capacity(bound.len());
        for socket in bound {
            let Some(id) = open.free(set.last) else { break };
            set.last = id;
            open.udp.insert(id, socket.clone());
            added.push((id, socket));
        }
        set.open = Arc::new(open);
        added
    }

    /// Closes these, but for those that are needed; those that were open, to let go of.
    pub(super) fn close(&self, sockets: &[SocketId]) -> Vec<Arc<Socket>> {
        let mut set = self.set();
        let mut open = Open::clone(&set.open);
        let more = sockets.iter().filter(|socket| !is_needed(**socket));
        let closed = more.filter_map(|socket| open.udp.remove(socket)).collect();
        set.open = Arc::new(open);
        closed
    }

    /// A new stream, and what it is called; `None`: there are as many as can be.
    pub(super) fn open_stream(&self) -> Option<(SocketId, Arc<Queue>)> {
        let mut set = self.set();
        let mut open = Open::clone(&set.open);
        let ids = (1..=u16::MAX).map(|n| SocketId(set.last_stream.0.wrapping_add(n)));
        let id = ids.into_iter().find(|id| id.is_stream() && !open.streams.contains_key(id))?;
        let queue = Arc::new(Queue::new(self.full.clone()));
        open.streams.insert(id, queue.clone());
        (set.last_stream, set.open) = (id, Arc::new(open));
        Some((id, queue))
    }

    /// Nothing goes by this stream any more; whether it was open.
    pub(super) fn close_stream(&self, id: SocketId) -> bool {
        let mut set = self.set();
        let mut open = Open::clone(&set.open);
        let closed = open.streams.remove(&id).inspect(|queue| queue.close());
        set.open = Arc::new(open);
        closed.is_some()
    }

    /// Datagrams since this was asked last for which a stream had no room.
    pub(super) fn take_full(&self) -> u64 {
        self.full.swap(0, Ordering::Relaxed)
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The socket of that id, if it is open.
    pub(super) fn get(&self, socket: SocketId) -> Option<&Socket> {
        self.udp.get(&socket).map(|socket| &**socket)
    }

    /// Puts a datagram into a stream's queue; `false`: it is not open.
    pub(super) fn push(&self, stream: SocketId, datagram: &[u8]) -> bool {
        let queue = self.streams.get(&stream);
        queue.inspect(|queue| queue.push(datagram)).is_some()
    }

    /// All, by their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketId, &Socket)> {
        self.udp.iter().map(|(id, socket)| (*id, &**socket))
    }

    /// All, those behind `last` first.
    #[cfg_attr(target_os = "linux", allow(dead_code, reason = "for the one loop of other systems"))]
    pub(super) fn after(&self, last: SocketId) -> impl Iterator<Item = (SocketId, &Socket)> {
        let behind = self.udp.range((Bound::Excluded(last), Bound::Unbounded));
        behind.chain(self.udp.range(..=last)).map(|(id, socket)| (*id, &**socket))
    }

    /// Sends a train; how many datagrams of it have no socket.
    pub(super) fn send_train(&self, socket: SocketId, way: Way, size: usize, pieces: &[IoSlice<'_>]) -> u64 {
        let datagrams = || pieces.iter().flat_map(|piece| piece.chunks(size.max(1)));
        match self.get(socket).map(|socket| socket.send_train(way, size, pieces)) {
            None if socket.is_stream() => {
                return datagrams().map(|datagram| u64::from(!self.push(socket, datagram))).sum();
            }
            None => return datagrams().count() as u64,
            Some(Err(error)) if fault(&error) == Fault::Broken => {
                tracing::debug!(%error, to = %way.to, "not sent");
            }
            Some(_) => {}
        }
        0
    }

    /// The id behind `last` that none has.
    fn free(&self, last: SocketId) -> Option<SocketId> {
        let ids = (1..=u16::MAX).map(|n| SocketId(last.0.wrapping_add(n)));
        ids.into_iter().find(|id| !is_needed(*id) && !id.is_stream() && !self.udp.contains_key(id))
    }
}

/// As all are to be.
fn fit(socket: Socket, offload: Offload) -> Arc<Socket> {
    if offload == Offload::Off {
        socket.forgo_offload();
    }
    Arc::new(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind() -> io::Result<Socket> {
        Socket::bind((Ipv4Addr::LOCALHOST, 0).into())
    }

    fn sockets() -> Sockets {
        Sockets::new(bind().expect("bound"), Some(bind().expect("bound")), Offload::All)
    }

    fn ids(open: &Open) -> Vec<u16> {
        open.iter().map(|(id, _)| id.0).collect()
    }

    #[test]
    fn each_has_an_id_and_a_port_of_its_own_and_none_comes_again_soon() {
        let sockets = sockets();
        let first = sockets.open_more(3);
        assert_eq!(first.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [2, 3, 4]);
        sockets.close(&[SocketId(3), SocketId(4)]);
        let second = sockets.open_more(2);
        assert_eq!(second.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [5, 6]);
        let open = sockets.open();
        assert_eq!(ids(&open), [0, 1, 2, 5, 6]);
        let mut ports = open.iter().map(|(_, socket)| socket.local_addr().port()).collect::<Vec<_>>();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 5);
        assert!(second.iter().all(|(id, socket)| open.get(*id).is_some_and(|open| std::ptr::eq(open, &**socket))));
    }

    #[test]
    fn the_ids_begin_anew_and_pass_over_those_that_are_in_use() {
        let sockets = sockets();
        sockets.open_more(2);
        sockets.set().last = SocketId(SocketId::FIRST_STREAM.0 - 2);
        let added = sockets.open_more(3);
        assert_eq!(added.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [SocketId::FIRST_STREAM.0 - 1, 4, 5]);
    }

    #[test]
    fn what_is_closed_is_gone_when_the_last_lets_go_of_it_and_the_first_two_stay() {
        let sockets = sockets();
        let (id, socket) = sockets.open_more(1).remove(0);
        let addr = socket.local_addr();
        drop(socket);
        let in_use = sockets.open();
        assert_eq!(sockets.close(&[SocketId(0), SocketId(1), id, SocketId(9)]).len(), 1);
        assert_eq!((ids(&sockets.open()), sockets.close(&[id]).len()), (vec![0, 1], 0));
        assert!(in_use.get(id).is_some() && Socket::bind(addr).is_err());
        drop(in_use);
        Socket::bind(addr).expect("its port is free");
    }

    #[test]
    fn where_the_system_has_fewer_there_are_fewer_and_some_descriptors_are_left() {
        let sockets = sockets();
        let mut left = 20;
        let bind = || {
            left -= 1;
            if left < 0 { Err(io::ErrorKind::Other.into()) } else { bind() }
        };
        assert_eq!(sockets.add(256, bind).len(), 20 - SPARE);
        assert_eq!(sockets.add(256, || Err(io::ErrorKind::Other.into())).len(), 0);
    }

    #[test]
    fn each_is_looked_at_first_in_turn() {
        let sockets = sockets();
        sockets.open_more(2);
        let open = sockets.open();
        let order = |last| open.after(SocketId(last)).map(|(id, _)| id.0).collect::<Vec<_>>();
        assert_eq!([order(0), order(3), order(9)], [[1, 2, 3, 0], [0, 1, 2, 3], [0, 1, 2, 3]]);
    }
}
