//! UDP sockets. One socket of each family carries everything, and where there are more each of them can; IPv6 sockets
//! are IPv6 alone, so that an IPv4-mapped address can never come in.
//!
//! Receiving is batched ([`Batch`]): one system call takes up to 4 buffers, each of which may hold up to
//! 64 datagrams that the kernel has joined (GRO), and gives them one by one, in place. Sending is one call
//! per datagram, or per train of datagrams that are equally long ([`Socket::send_train`]), and never waits: what the kernel has no room for is dropped and counted, as any router
//! would. A hop limit and a TOS, where one is asked for, travel with their datagram and never touch the socket.
//!
//! The don't-fragment bit is off: until a path's MTU is known, a datagram that is too big must arrive in
//! pieces rather than not at all.

mod batch;
mod fault;
mod options;
mod run;
#[cfg(target_os = "linux")]
mod train;
mod ttl;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

#[cfg(not(target_os = "linux"))]
use quinn_udp::EcnCodepoint;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;

pub use batch::{Batch, Received};
pub use fault::{Fault, fault};
pub use run::Run;

/// What is asked of the kernel for each direction; it gives less where it must.
const BUFFER_BYTES: usize = 4 << 20;
/// How often a port that both families have free is looked for.
const PAIR_ATTEMPTS: usize = 32;

/// How a datagram leaves. Those that leave alike can leave together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// To there.
    pub to: SocketAddr,
    /// From this local address, or the one that the system picks.
    pub src: Option<IpAddr>,
    /// With this TOS or traffic class; on other systems than Linux with its ECN bits alone.
    pub tos: u8,
}

/// A bound UDP socket of one family. All methods take `&self`: share it by reference or `Arc`. The event loop watches it from
/// the first [`Socket::recv`] on, and not where a thread of its own asks ([`Socket::try_recv`]): it would be woken by each
/// datagram.
#[derive(Debug)]
pub struct Socket {
    io: std::net::UdpSocket,
    /// The event loop's, from the first [`Socket::recv`] on.
    watched: OnceLock<tokio::net::UdpSocket>,
    state: UdpSocketState,
    local: SocketAddr,
    dropped: AtomicU64,
    /// Trains pass: neither the system nor the network card has refused one yet.
    trains: AtomicBool,
    /// The error with which a network card would refuse the next train.
    #[cfg(test)]
    refuses: std::sync::atomic::AtomicI32,
    /// Nothing comes in any more.
    #[cfg(test)]
    breaks: AtomicBool,
}

impl Socket {
    /// Binds.
    ///
    /// # Errors
    /// The system's; where the port is taken, the text says by whom if that can be seen.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let domain = if addr.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        options::enlarge_buffers(&socket, BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into()).map_err(|error| explain_bind(error, addr))?;
        let io = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new((&io).into())?;
        options::allow_fragmentation(&io)?;
        options::forgo_timestamps(&io);
        let local = io.local_addr()?;
        let trains = AtomicBool::new(cfg!(target_os = "linux"));
        Ok(Self {
            io,
            watched: OnceLock::new(),
            state,
            local,
            dropped: AtomicU64::new(0),
            trains,
            #[cfg(test)]
            refuses: Default::default(),
            #[cfg(test)]
            breaks: AtomicBool::new(false),
        })
    }

    /// The address bound to; its port is the real one.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// From now on datagrams leave one by one, and the kernel joins none that come in.
    pub fn forgo_offload(&self) {
        self.trains.store(false, Ordering::Relaxed);
        options::forgo_joining(&self.io);
    }

    /// Datagrams that were not sent because the kernel had no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits for datagrams, puts as many as there are into `batch` and says how many. May be dropped and
    /// called again at any time: nothing is lost. By one task at a time. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Only such as mean that the socket is of no more use: what ICMP reports about earlier datagrams is
    /// passed over.
    pub async fn recv(&self, batch: &mut Batch) -> io::Result<usize> {
        poll_fn(|context| self.poll_recv(context, batch)).await
    }

    /// As [`Socket::recv`], for who waits for several sockets: only the task that asked last is woken.
    ///
    /// # Errors
    /// As [`Socket::recv`].
    pub fn poll_recv(&self, context: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        let watched = self.watched()?;
        loop {
            ready!(watched.poll_recv_ready(context))?;
            let received = watched.try_io(Interest::READABLE, || self.fill(batch, watched.into()));
            match received {
                Err(error) if fault(&error) != Fault::Broken => {}
                received => return Poll::Ready(received),
            }
        }
    }

    fn watched(&self) -> io::Result<&tokio::net::UdpSocket> {
        if let Some(watched) = self.watched.get() {
            return Ok(watched);
        }
        let watched = tokio::net::UdpSocket::from_std(self.io.try_clone()?)?;
        Ok(self.watched.get_or_init(|| watched))
    }

    /// As [`Socket::recv`], without waiting: none if there is nothing now. For threads of their own.
    ///
    /// # Errors
    /// As [`Socket::recv`].
    pub fn try_recv(&self, batch: &mut Batch) -> io::Result<usize> {
        match self.fill(batch, (&self.io).into()) {
            Err(error) if fault(&error) != Fault::Broken => Ok(0),
            other => other,
        }
    }

    fn fill(&self, batch: &mut Batch, socket: UdpSockRef<'_>) -> io::Result<usize> {
        #[cfg(test)]
        if self.breaks.load(Ordering::Relaxed) {
            return Err(io::Error::other("as the test wants it"));
        }
        batch.fill(&self.state, socket)
    }

    /// From now on it is of no use.
    #[cfg(test)]
    pub(crate) fn break_down(&self) {
        self.breaks.store(true, Ordering::Relaxed);
    }

    /// Sends `payload` to `to`: from the local address `src`, or the one the system picks; with the hop
    /// limit `ttl`, or the system's. Never waits.
    ///
    /// # Errors
    /// The system's: [`fault()`] says whether only this datagram is concerned. `WouldBlock` was counted in
    /// [`Socket::dropped`]. `Unsupported`: this system has no hop limit per datagram.
    pub fn send(&self, to: SocketAddr, src: Option<IpAddr>, ttl: Option<u8>, payload: &[u8]) -> io::Result<()> {
        self.send_by(Way { to, src, tos: 0 }, ttl, payload)
    }

    /// The same, with the TOS or traffic class too.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub fn send_by(&self, way: Way, ttl: Option<u8>, payload: &[u8]) -> io::Result<()> {
        // What can only be refused is refused here: once the kernel has, quinn-udp takes it for an old one.
        let (Way { to, src, tos }, v4) = (way, self.local.is_ipv4());
        if to.is_ipv4() != v4 || src.is_some_and(|src| src.is_ipv4() != v4) || to.port() == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Straight to the system call: tokio's own readiness starts empty, and would drop the first.
        let plain = |ecn| {
            let transmit = Transmit { destination: to, ecn, contents: payload, segment_size: None, src_ip: src };
            self.state.try_send((&self.io).into(), &transmit)
        };
        let sent = match ttl {
            Some(ttl) => ttl::send(&self.io, to, src, ttl, payload),
            None if tos == 0 => plain(None),
            #[cfg(target_os = "linux")]
            None => match train::send(&self.io, way, None, &[IoSlice::new(payload)]) {
                // A kernel that has no TOS for one datagram.
                Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => plain(None),
                other => other,
            },
            #[cfg(not(target_os = "linux"))]
            None => plain(EcnCodepoint::from_bits(tos)),
        };
        if sent.as_ref().is_err_and(|error| fault(error) == Fault::Full) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }
}

impl Socket {
    /// Sends the bytes of `pieces` on their way, as datagrams of `size` bytes, the last maybe shorter; at most 64 of
    /// them, and 65,000 bytes. No datagram lies in two pieces. By one system call where that can be done. Never waits.
    ///
    /// # Errors
    /// As [`Socket::send`]; of several errors one.
    pub fn send_train(&self, way: Way, size: usize, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let datagrams = || pieces.iter().flat_map(|piece| piece.chunks(size.max(1)));
        let one_by_one = || datagrams().map(|datagram| self.send_by(way, None, datagram)).fold(Ok(()), Result::and);
        #[cfg(target_os = "linux")]
        if datagrams().nth(1).is_some()
            && self.trains.load(Ordering::Relaxed)
            && way.to.is_ipv4() == self.local.is_ipv4()
        {
            let size = u16::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
            return match self.send_at_once(way, size, pieces) {
                // Some network cards cannot, and say so only when asked: from now on datagrams go one by one, also these.
                Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => {
                    self.trains.store(false, Ordering::Relaxed);
                    tracing::debug!(%error, to = %way.to, "no trains from now on");
                    one_by_one()
                }
                // Too long for this way, where one at a time is sent in pieces; or a kernel that knows no trains.
                Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => one_by_one(),
                Err(error) if fault(&error) == Fault::Full => {
                    self.dropped.fetch_add(datagrams().count() as u64, Ordering::Relaxed);
                    Err(error)
                }
                other => other,
            };
        }
        one_by_one()
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Socket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.io.as_fd()
    }
}

#[cfg(target_os = "linux")]
impl Socket {
    fn send_at_once(&self, way: Way, size: u16, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        #[cfg(test)]
        if let error @ 1.. = self.refuses.swap(0, Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(error));
        }
        train::send(&self.io, way, Some(size), pieces)
    }
}

/// Binds an IPv4 and an IPv6 socket on every address of this machine: with the same port, if `port` is 0
/// one that both have free. Where the machine has no IPv6, only the first.
///
/// # Errors
/// As [`Socket::bind`].
pub fn bind_pair(port: u16) -> io::Result<(Socket, Option<Socket>)> {
    for _ in 0..PAIR_ATTEMPTS {
        let v4 = Socket::bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        match Socket::bind((Ipv6Addr::UNSPECIFIED, v4.local_addr().port()).into()) {
            Ok(v6) => return Ok((v4, Some(v6))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "no IPv6 socket; going on with IPv4");
                return Ok((v4, None));
            }
        }
    }
    // Every free IPv4 port met was taken for IPv6: two ports serve as well.
    let v4 = Socket::bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
    Ok((v4, Socket::bind((Ipv6Addr::UNSPECIFIED, 0).into()).ok()))
}

/// Names the holder of a taken port.
fn explain_bind(error: io::Error, addr: SocketAddr) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::AddrInUse if addr.port() == 0 => "no UDP port is free".to_owned(),
        io::ErrorKind::AddrInUse => match super::port_holder::udp(addr.port()) {
            Some(holder) => format!("UDP port {} is taken by {holder}", addr.port()),
            None => format!("UDP port {} is taken by another program", addr.port()),
        },
        io::ErrorKind::AddrNotAvailable => format!("this machine has no address {}", addr.ip()),
        io::ErrorKind::PermissionDenied => format!("binding {addr} is not permitted"),
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests;
