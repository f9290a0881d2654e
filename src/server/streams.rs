//! Members whose networks let no UDP pass come by streams: each connection is a socket of the core's.
//!
//! Nobody holds up anybody: a connection reads and writes in tasks of its own, what waits for a slow reader is bounded
//! and what is beyond is dropped, and one that is silent, says what is not ours, or does not register in time is ended.
//! Connections are limited by source prefix and in all; a stranger's takes a few kilobytes.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::time::{sleep, timeout};

use super::process::Process;
use crate::addr::canonical;
use crate::id::SocketId;
use crate::io::clock;
use crate::io::stream::{LITTLE_ROOM, Queue, ROOM, Reader, fit, write};
use crate::io::udp::Received;
use crate::rendezvous::{EXPIRY, server::GRACE};
use crate::sans::Instant;
use crate::wire::stream::datagrams;

/// The first datagram comes within this.
const FIRST: Duration = Duration::from_secs(10);
/// Whoever has not registered after so long does not mean to.
const REGISTERS: Duration = Duration::from_secs(30);
/// When there are no descriptors, some may be free after this.
const NO_DESCRIPTORS: Duration = Duration::from_millis(100);
/// Connections a second, at most: fewer than there are names for in the time for which an old one's may be remembered.
const ACCEPTED: u64 = 2_000;
const NAMES: u64 = (u16::MAX - SocketId::FIRST_STREAM.0) as u64;
/// The most that can be open at once.
pub const MOST: u32 = 10_000;
const _: () = assert!(ACCEPTED * GRACE.as_secs() + (MOST as u64) < NAMES);

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub all: u32,
    /// From one source prefix.
    pub per_prefix: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { all: 2_048, per_prefix: 64 }
    }
}

/// Those that are open.
#[derive(Debug)]
pub(super) struct Streams {
    limits: Limits,
    set: RefCell<Set>,
    /// Datagrams for which a slow reader's queue had no room.
    full: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Set {
    open: HashMap<SocketId, Arc<Queue>>,
    prefixes: HashMap<IpNet, u32>,
    /// What was free for the longest time comes first.
    free: VecDeque<SocketId>,
    rate: crate::sans::RateLimit,
    refused: u64,
    ended: u64,
}

impl Streams {
    pub(super) fn new(limits: Limits) -> Self {
        let (open, prefixes) = (HashMap::new(), HashMap::new());
        let free = (SocketId::FIRST_STREAM.0..=u16::MAX).map(SocketId).collect();
        let second = u32::try_from(ACCEPTED).expect("a few thousand");
        let rate = crate::sans::RateLimit::new(second, second);
        Self {
            limits,
            set: RefCell::new(Set { open, prefixes, free, rate, refused: 0, ended: 0 }),
            full: Arc::default(),
        }
    }

    /// Puts a datagram into a stream's queue, if it is open.
    pub(super) fn send(&self, stream: SocketId, datagram: &[u8]) {
        if let Some(queue) = self.set.borrow().open.get(&stream) {
            queue.push(datagram);
        }
    }

    /// What there is and what happened, by a word.
    pub(super) fn counters(&self) -> [(&'static str, u64); 4] {
        let (set, full) = (self.set.borrow(), self.full.load(Ordering::Relaxed));
        let open = u64::try_from(set.open.len()).unwrap_or(u64::MAX);
        [("streams", open), ("streams-refused", set.refused), ("streams-ended", set.ended), ("stream-dropped", full)]
    }

    fn open(self: &Rc<Self>, now: Instant, prefix: IpNet) -> Option<Opened> {
        let set = &mut *self.set.borrow_mut();
        let of_prefix = set.prefixes.get(&prefix).copied().unwrap_or(0);
        let has_room = u32::try_from(set.open.len()).is_ok_and(|open| open < self.limits.all.min(MOST));
        let id = match has_room && of_prefix < self.limits.per_prefix && set.rate.allow(now) {
            true => set.free.pop_front(),
            false => None,
        };
        let Some(id) = id else {
            set.refused += 1;
            return None;
        };
        set.prefixes.insert(prefix, of_prefix + 1);
        let queue = Arc::new(Queue::new(self.full.clone()));
        set.open.insert(id, queue.clone());
        Some(Opened { streams: self.clone(), id, prefix, queue })
    }
}

/// An open one; ended when this goes.
#[derive(Debug)]
struct Opened {
    streams: Rc<Streams>,
    id: SocketId,
    prefix: IpNet,
    queue: Arc<Queue>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let set = &mut *self.streams.set.borrow_mut();
        set.open.remove(&self.id);
        set.free.push_back(self.id);
        set.ended += 1;
        match set.prefixes.get_mut(&self.prefix) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(set.prefixes.remove(&self.prefix)),
        }
    }
}

impl Process {
    /// Accepts connections for ever.
    pub(super) async fn accept(self: Rc<Self>, listener: TcpListener) -> io::Error {
        loop {
            match listener.accept().await {
                Ok((tcp, remote)) => self.welcome(tcp, canonical(remote)),
                Err(error) => {
                    tracing::debug!(%error, "a connection is not accepted");
                    sleep(NO_DESCRIPTORS).await;
                }
            }
        }
    }

    fn welcome(self: &Rc<Self>, tcp: TcpStream, remote: SocketAddr) {
        let prefix = self.prefix(remote.ip());
        if let Some(opened) = self.streams.open(clock::now(), prefix) {
            tokio::task::spawn_local(self.clone().carry(tcp, remote, opened));
        }
    }

    /// One connection, from its beginning to its end.
    async fn carry(self: Rc<Self>, tcp: TcpStream, remote: SocketAddr, opened: Opened) {
        fit(&tcp);
        let (reader, writer) = tcp.into_split();
        let reader = Reader::new(reader, LITTLE_ROOM);
        let why = tokio::select! {
            error = self.hear(opened.id, remote, reader) => error.to_string(),
            written = write(writer, &opened.queue) => written.map_or_else(|error| error.to_string(), |()| "closed".into()),
        };
        tracing::debug!(%remote, why, "a stream ended");
        self.disconnected(opened.id);
    }

    /// Takes what comes by a connection, until it ends or is to be ended.
    async fn hear(&self, id: SocketId, remote: SocketAddr, mut reader: Reader<tcp::OwnedReadHalf>) -> io::Error {
        let accepted = clock::now();
        let mut patience = FIRST;
        loop {
            let mut bytes = match timeout(patience, reader.next()).await {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(error)) => return error,
                Err(_) => return io::ErrorKind::TimedOut.into(),
            };
            let received = |payload| Received { from: remote, local: None, ecn: 0, payload };
            self.take(clock::now(), id, datagrams(&mut bytes).map(received));
            self.drain();
            (patience, reader.room) = match self.is_registered_by(id) {
                true => (EXPIRY, ROOM),
                false => ((accepted + REGISTERS) - clock::now(), LITTLE_ROOM),
            };
        }
    }
}
