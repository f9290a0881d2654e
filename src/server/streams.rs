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
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::process::Process;
use crate::addr::canonical;
use crate::id::SocketId;
use crate::io::clock;
use crate::io::stream::{LITTLE_ROOM, Queue, ROOM, Reader, fit, write};
use crate::io::udp::Received;
use crate::io::web::{Certificate, accept, accept_tls, tunnel};
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

    fn open(self: &Rc<Self>, now: Instant, prefix: Option<IpNet>) -> Option<Opened> {
        let set = &mut *self.set.borrow_mut();
        let has_room = u32::try_from(set.open.len()).is_ok_and(|open| open < self.limits.all.min(MOST));
        let id = match has_room && set.has_room_for(prefix, self.limits) && set.rate.allow(now) {
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
}

impl Opened {
    /// It is known now where it comes from; whether there is room for one more from there.
    fn count_for(&mut self, prefix: IpNet) -> bool {
        let set = &mut *self.streams.set.borrow_mut();
        if !set.has_room_for(Some(prefix), self.streams.limits) {
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
        let Some(opened) = self.streams.open(clock::now(), prefix) else { return };
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
            if !opened.count_for(self.prefix(remote.ip())) {
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
