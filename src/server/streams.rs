//! Members whose networks let no UDP pass come by streams: each connection is a socket of the core's.
//!
//! Nobody holds up anybody: a connection reads and writes in tasks of its own, what waits for a slow reader is bounded
//! and what is beyond is dropped, and one that is silent, says what is not ours, or does not register in time is ended.
//! Connections are limited by source prefix and in all, those that are open and those that come within a second: who opens
//! and closes them without end leaves room for others. A stranger's takes a few kilobytes.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::process::Process;
use crate::addr::canonical;
use crate::id::SocketId;
use crate::io::clock;
use crate::io::stream::{LITTLE_ROOM, NO_DESCRIPTORS, Queue, ROOM, Reader, fit, write};
use crate::io::udp::Received;
use crate::io::web::{Certificate, accept, accept_tls, tunnel};
use crate::rendezvous::EXPIRY;
use crate::rendezvous::server::{GRACE, Rate, RateTable};
use crate::sans::{Instant, RateLimit, Seed};
use crate::wire::stream::datagrams;

/// The first datagram comes within this.
const FIRST: Duration = Duration::from_secs(10);
/// Whoever has not registered after so long does not mean to.
const REGISTERS: Duration = Duration::from_secs(30);
/// A server that stops says so within this.
const GOODBYE: Duration = Duration::from_millis(200);
/// Connections a second, at most: fewer than there are names for in the time for which an old one's may be remembered.
const ACCEPTED: u64 = 2_000;
/// From one prefix; at once as many as after a restart of the server.
const PER_PREFIX: Rate = Rate::new(10, 128);
/// By TLS, of which each costs a signature: from one prefix…
const TLS_PER_PREFIX: Rate = Rate::new(2, 64);
/// …and in all.
const TLS: Rate = Rate::new(200, 1_000);
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
    rate: RateLimit,
    of_prefix: RateTable,
    tls: RateLimit,
    tls_of_prefix: RateTable,
    refused: u64,
    ended: u64,
}

impl Streams {
    pub(super) fn new(limits: Limits, seed: &Seed) -> Self {
        let (second, mut rng) = (u32::try_from(ACCEPTED).expect("a few thousand"), seed.rng());
        let set = Set {
            open: HashMap::new(),
            prefixes: HashMap::new(),
            free: (SocketId::FIRST_STREAM.0..=u16::MAX).map(SocketId).collect(),
            rate: RateLimit::new(second, second),
            of_prefix: RateTable::new(PER_PREFIX, &mut rng),
            tls: TLS.limit(),
            tls_of_prefix: RateTable::new(TLS_PER_PREFIX, &mut rng),
            refused: 0,
            ended: 0,
        };
        Self { limits, set: RefCell::new(set), full: Arc::default() }
    }

    /// Puts a datagram into a stream's queue, if it is open.
    pub(super) fn send(&self, stream: SocketId, datagram: &[u8]) {
        if let Some(queue) = self.set.borrow().open.get(&stream) {
            queue.push(datagram);
        }
    }

    /// What waits is still written, and then each is ended; for as long as that may take.
    pub(super) async fn close(&self) {
        self.set.borrow().open.values().for_each(|queue| queue.close());
        let all_ended = async {
            while !self.set.borrow().open.is_empty() {
                sleep(GOODBYE / 20).await;
            }
        };
        // Who takes nothing is not waited for.
        let _ = timeout(GOODBYE, all_ended).await;
    }

    /// What there is and what happened, by a word.
    pub(super) fn counters(&self) -> [(&'static str, u64); 4] {
        let (set, full) = (self.set.borrow(), self.full.load(Ordering::Relaxed));
        let open = u64::try_from(set.open.len()).unwrap_or(u64::MAX);
        [("streams", open), ("streams-refused", set.refused), ("streams-ended", set.ended), ("stream-dropped", full)]
    }

    fn open(self: &Rc<Self>, now: Instant, prefix: Option<IpNet>, is_tls: bool) -> Option<Opened> {
        let set = &mut *self.set.borrow_mut();
        let has_room = u32::try_from(set.open.len()).is_ok_and(|open| open < self.limits.all.min(MOST));
        let id = match has_room && set.has_room_for(prefix, self.limits) && set.allows(now, prefix, is_tls) {
            true => set.free.pop_front(),
            false => None,
        };
        let Some(id) = id else {
            set.refused += 1;
            return None;
        };
        prefix.into_iter().for_each(|prefix| *set.prefixes.entry(prefix).or_default() += 1);
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
    /// `None`: not known yet.
    prefix: Option<IpNet>,
    queue: Arc<Queue>,
}

impl Set {
    fn has_room_for(&self, prefix: Option<IpNet>, limits: Limits) -> bool {
        let held = prefix.and_then(|prefix| self.prefixes.get(&prefix)).copied().unwrap_or(0);
        held < limits.per_prefix
    }

    /// Whether one more is within the rates: what is beyond that of its prefix takes nothing of what is everybody's.
    fn allows(&mut self, now: Instant, prefix: Option<IpNet>, is_tls: bool) -> bool {
        prefix.is_none_or(|prefix| self.allows_prefix(now, &prefix, is_tls))
            && (!is_tls || self.tls.allow(now))
            && self.rate.allow(now)
    }

    fn allows_prefix(&mut self, now: Instant, prefix: &IpNet, is_tls: bool) -> bool {
        let table = if is_tls { &mut self.tls_of_prefix } else { &mut self.of_prefix };
        table.allow(now, prefix)
    }
}

impl Opened {
    /// It is known now where it comes from; whether there is room for one more from there.
    fn count_for(&mut self, now: Instant, prefix: IpNet) -> bool {
        let set = &mut *self.streams.set.borrow_mut();
        if !set.has_room_for(Some(prefix), self.streams.limits) || !set.allows_prefix(now, &prefix, false) {
            set.refused += 1;
            return false;
        }
        *set.prefixes.entry(prefix).or_default() += 1;
        self.prefix = Some(prefix);
        true
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let set = &mut *self.streams.set.borrow_mut();
        set.open.remove(&self.id);
        set.free.push_back(self.id);
        set.ended += 1;
        let Some(prefix) = self.prefix else { return };
        match set.prefixes.get_mut(&prefix) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(set.prefixes.remove(&prefix)),
        }
    }
}

/// What is spoken where connections are accepted.
#[derive(Debug)]
pub(super) enum Spoken {
    /// Datagrams with their lengths.
    Datagrams,
    /// A WebSocket by TLS.
    Tls(RefCell<Certificate>),
    /// A WebSocket as a reverse proxy passes it on, which says for whom.
    Proxied,
}

impl Process {
    /// Accepts connections for ever.
    pub(super) async fn accept(self: Rc<Self>, listener: TcpListener, spoken: Rc<Spoken>) -> io::Error {
        loop {
            match listener.accept().await {
                Ok((tcp, remote)) => self.welcome(tcp, canonical(remote), &spoken),
                Err(error) => {
                    tracing::debug!(%error, "a connection is not accepted");
                    sleep(NO_DESCRIPTORS).await;
                }
            }
        }
    }

    fn welcome(self: &Rc<Self>, tcp: TcpStream, remote: SocketAddr, spoken: &Spoken) {
        // A proxy has many behind it, whom it names later.
        let prefix = (!matches!(spoken, Spoken::Proxied)).then(|| self.prefix(remote.ip()));
        let Some(opened) = self.streams.open(clock::now(), prefix, matches!(spoken, Spoken::Tls(_))) else { return };
        fit(&tcp);
        let process = self.clone();
        match spoken {
            Spoken::Datagrams => drop(spawn_local(async move { process.carry(tcp, remote, &opened).await })),
            Spoken::Proxied => drop(spawn_local(async move { process.carry_web(tcp, remote, opened).await })),
            Spoken::Tls(certificate) => {
                let acceptor = certificate.borrow_mut().acceptor();
                drop(spawn_local(async move {
                    match accept_tls(acceptor, tcp).await {
                        Ok(tls) => process.carry_web(tls, remote, opened).await,
                        Err(error) => tracing::debug!(%remote, %error, "no TLS"),
                    }
                }));
            }
        }
    }

    /// A WebSocket, from its greeting on.
    async fn carry_web<S>(self: Rc<Self>, stream: S, mut remote: SocketAddr, mut opened: Opened)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (web, forwarded) = match accept(stream).await {
            Ok(accepted) => accepted,
            Err(error) => return tracing::debug!(%remote, %error, "no WebSocket"),
        };
        if opened.prefix.is_none() {
            remote.set_ip(forwarded.unwrap_or(remote.ip()).to_canonical());
            if !opened.count_for(clock::now(), self.prefix(remote.ip())) {
                return;
            }
        }
        let (near, tunnel) = tunnel(web);
        let ((), ended) = tokio::join!(self.carry(near, remote, &opened), tunnel);
        tracing::debug!(%remote, ?ended, "a WebSocket ended");
    }

    /// One connection, from its beginning to its end.
    async fn carry(&self, stream: impl AsyncRead + AsyncWrite, remote: SocketAddr, opened: &Opened) {
        let (reader, writer) = split(stream);
        let reader = Reader::new(reader, LITTLE_ROOM);
        let why = tokio::select! {
            error = self.hear(opened.id, remote, reader) => error.to_string(),
            written = write(writer, &opened.queue) => written.map_or_else(|error| error.to_string(), |()| "closed".into()),
        };
        tracing::debug!(%remote, why, "a stream ended");
        self.disconnected(opened.id);
    }

    /// Takes what comes by a connection, until it ends or is to be ended.
    async fn hear(&self, id: SocketId, remote: SocketAddr, mut reader: Reader<impl AsyncRead + Unpin>) -> io::Error {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many connections are let in, each ended at once.
    fn let_in(streams: &Rc<Streams>, from: &str, is_tls: bool, of: u32) -> usize {
        let prefix = from.parse().expect("a prefix");
        (0..of).filter(|_| streams.open(Instant::ZERO, Some(prefix), is_tls).is_some()).count()
    }

    #[test]
    fn who_connects_without_end_leaves_room_for_others() {
        for (is_tls, burst) in [(false, PER_PREFIX.burst), (true, TLS_PER_PREFIX.burst)] {
            let streams = Rc::new(Streams::new(Limits::default(), &Seed::from_u64(1)));
            let burst = usize::try_from(burst).expect("few");
            assert_eq!(let_in(&streams, "192.0.2.1/32", is_tls, 5_000), burst);
            assert_eq!(let_in(&streams, "198.51.100.1/32", is_tls, 10), 10);
            let refused = u64::try_from(5_000 - burst).expect("few");
            assert!(streams.counters().contains(&("streams-refused", refused)));
        }
    }

    #[test]
    fn what_a_stream_s_queue_has_no_room_for_is_counted() {
        let streams = Rc::new(Streams::new(Limits::default(), &Seed::from_u64(1)));
        let opened = streams.open(Instant::ZERO, None, false).expect("room");
        (0..100).for_each(|_| streams.send(opened.id, &[1; 1_000]));
        assert!(streams.counters().contains(&("stream-dropped", 0)));
        (0..1_000).for_each(|_| streams.send(opened.id, &[1; 1_000]));
        assert!(streams.counters().iter().any(|(word, count)| *word == "stream-dropped" && *count > 700));
    }
}
