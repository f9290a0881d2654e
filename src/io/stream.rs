//! Streams that carry datagrams ([`crate::wire::stream`]): for networks that let TCP pass and no UDP.
//!
//! Whoever sends puts datagrams into a [`Queue`], from any thread, and never waits: what finds no room is dropped and
//! counted, as at any router. What has gathered meanwhile is written at once ([`write()`]). Whoever receives gets what one
//! read brought ([`Reader`]), and makes the other side wait if it takes its time.

pub mod port;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::wire::stream;

/// Bytes that wait to be written, at most: more would only be late.
const QUEUE: usize = 256 << 10;
/// Bytes that the kernel holds besides, before it sends them.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;
/// Bytes that are read at once, from somebody who is known…
pub const ROOM: usize = 64 << 10;
/// …and from a stranger, who shall not have much of our memory.
pub const LITTLE_ROOM: usize = 4 << 10;
/// Whoever takes nothing for so long is gone.
const STALL: Duration = Duration::from_secs(15);
/// A connection is tried for so long.
const CONNECT: Duration = Duration::from_secs(4);
/// When there are no descriptors, some may be free after this.
pub const NO_DESCRIPTORS: Duration = Duration::from_millis(100);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// What waits to be written to a stream.
#[derive(Debug)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
    full: Arc<AtomicU64>,
    used: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    is_closed: bool,
}

impl Queue {
    /// An empty one. `full` counts what finds no room.
    pub fn new(full: Arc<AtomicU64>) -> Self {
        Self { waiting: Mutex::default(), news: Notify::new(), full, used: AtomicBool::new(false) }
    }

    /// Whether anything was ever added.
    pub fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Adds a datagram, if there is room.
    pub fn push(&self, datagram: &[u8]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = waiting.bytes.len() + stream::LEAD + datagram.len() <= QUEUE && !waiting.is_closed;
        if has_room && stream::push(&mut waiting.bytes, datagram) {
            drop(waiting);
            self.used.store(true, Ordering::Relaxed);
            self.news.notify_one();
        } else {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nothing is added any more; what waits is still written.
    pub fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.news.notify_one();
    }

    /// Waits for datagrams, and puts all that there are into `batch`, which is empty. `false`: it is closed.
    async fn take(&self, batch: &mut Vec<u8>) -> bool {
        loop {
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::swap(&mut waiting.bytes, batch);
                if !batch.is_empty() || waiting.is_closed {
                    return !batch.is_empty();
                }
            }
            self.news.notified().await;
        }
    }
}

/// Writes what is put into the queue, until that is closed and empty.
///
/// # Errors
/// The system's; `TimedOut`: the other side takes nothing.
pub async fn write(mut to: impl AsyncWrite + Unpin, queue: &Queue) -> io::Result<()> {
    let mut batch = Vec::new();
    while queue.take(&mut batch).await {
        write_all(&mut to, &batch).await?;
        batch.clear();
    }
    within(STALL, to.shutdown()).await
}

async fn write_all(to: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = within(STALL, to.write(bytes)).await?;
        bytes = bytes.get(written..).filter(|_| written > 0).ok_or(io::ErrorKind::WriteZero)?;
    }
    within(STALL, to.flush()).await
}

async fn within<T>(limit: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, what).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads datagrams.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    bytes: Vec<u8>,
    /// How much is read at once.
    pub room: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads `room` bytes at once.
    pub const fn new(from: R, room: usize) -> Self {
        Self { from, bytes: Vec::new(), room }
    }

    /// The next datagrams, each with its length: [`stream::datagrams`] takes them apart. May be dropped and called again
    /// at any time.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof`: the stream ended; `InvalidData`: what comes is not ours.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let whole =
                stream::whole(&self.bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if whole > 0 {
                let rest = self.bytes.split_off(whole);
                return Ok(std::mem::replace(&mut self.bytes, rest));
            }
            self.bytes.reserve(self.room);
            if self.from.read_buf(&mut self.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Connects.
///
/// # Errors
/// A sentence for people.
pub async fn connect(to: SocketAddr) -> Result<TcpStream, String> {
    let connected = within(CONNECT, TcpStream::connect(to)).await;
    connected.inspect(fit).map_err(|error| said_by(to, &error))
}

fn said_by(to: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => format!("{to} does not answer"),
        io::ErrorKind::ConnectionRefused => format!("{to} refuses the connection: nothing listens there"),
        _ => format!("{to}: {error}"),
    }
}

/// Listens, on the one family of that address.
///
/// # Errors
/// The system's.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let domain = if addr.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run that are still being ended do not keep us out. On Windows it would mean more.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Has small packets leave at once, and a connection that is gone found out.
pub fn fit(tcp: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    let fitted = tcp.set_nodelay(true).and_then(|()| SockRef::from(tcp).set_tcp_keepalive(&keepalive));
    // The kernel would take megabytes, which would then be late.
    #[cfg(target_os = "linux")]
    let fitted = fitted.and_then(|()| SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT));
    // Nor does it ask who is silent while something is on its way to them.
    #[cfg(target_os = "linux")]
    let fitted = fitted.and_then(|()| SockRef::from(tcp).set_tcp_user_timeout(Some(STALL)));
    if let Err(error) = fitted {
        tracing::debug!(%error, "a stream stays as the system makes it");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn queue() -> Queue {
        Queue::new(Arc::default())
    }

    #[tokio::test]
    async fn what_is_put_into_a_queue_comes_out_at_the_other_end_in_order_and_then_the_end() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).expect("bound");
        let to = listener.local_addr().expect("bound");
        let (near, far) = tokio::join!(connect(to), listener.accept());
        let (near, (far, _), queue) = (near.expect("connected"), far.expect("accepted"), queue());
        let sent: Vec<Vec<u8>> = (1..=200_u8).map(|n| vec![n; usize::from(n) * 5]).collect();
        sent.iter().for_each(|datagram| queue.push(datagram));
        queue.close();
        let mut reader = Reader::new(far, LITTLE_ROOM);
        let read = async {
            let mut came = Vec::new();
            loop {
                match reader.next().await {
                    Ok(mut bytes) => came.extend(stream::datagrams(&mut bytes).map(|datagram| datagram.to_vec())),
                    Err(error) => return (came, error.kind()),
                }
            }
        };
        let (written, (came, end)) = tokio::join!(write(near, &queue), read);
        written.expect("written");
        assert_eq!((came, end), (sent, io::ErrorKind::UnexpectedEof));
    }

    #[tokio::test]
    async fn a_reader_keeps_what_is_not_whole_and_stops_at_what_is_not_ours() {
        let mut reader = Reader::new(&b"\x00\x01a\x00\x02bcGET / HTTP/1.1"[..], 4);
        let mut all = Vec::new();
        let end = loop {
            match reader.next().await {
                Ok(bytes) => all.extend(bytes),
                Err(error) => break error.kind(),
            }
        };
        assert_eq!((&all[..3], end), (&b"\x00\x01a"[..], io::ErrorKind::InvalidData));
    }

    #[test]
    fn a_queue_that_nobody_empties_has_an_end_and_counts_what_is_lost() {
        let queue = queue();
        (0..1_000).for_each(|_| queue.push(&[7; 1_000]));
        let kept = queue.waiting.lock().expect("whole").bytes.len();
        assert!(kept <= QUEUE && kept > QUEUE - 1_002);
        let lost = queue.full.load(Ordering::Relaxed);
        assert_eq!(usize::try_from(lost).expect("few") * 1_002 + kept, 1_002_000);
        queue.close();
        queue.push(b"late");
        assert_eq!(queue.full.load(Ordering::Relaxed), lost + 1);
    }
}
