//! The packet path's own threads: one for what leaves the TUN, one for what comes in by UDP. Each goes by the table that
//! the node decided on last ([`Table`]), and hands over what that says nothing of: a bounded number of packets and
//! datagrams wait for the node, and what is more is dropped and counted, so that no flood of what only the node can
//! judge takes all memory.
//!
//! ```text
//!   TUN ──▶ outward: fair queue, seal ──▶ UDP
//!              │        ▲ table
//!              ▼        │
//!            the loop: node ──▶ UDP, TUN
//!              ▲        │
//!              │        ▼ table
//!   TUN ◀── inward: open, join ◀── UDP
//! ```

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{Notify, mpsc};

use super::outward::{Outward, Seal};
use super::packets::{self, Sockets};
use crate::forward::{HEADROOM, Inbound, TAILROOM, Table, Train};
use crate::id::SocketId;
use crate::io::clock;
use crate::io::ready::Ready;
use crate::io::tun::Tun;
use crate::io::udp::{Batch, Way};
use crate::node::{Node, Outbound};
use crate::offload::{Cut, tos};
use crate::sans::{Datagram, Instant};

/// So many wait for the node at most.
const WAITING: usize = 1_024;
/// So many are taken at once.
const AT_ONCE: usize = 64;

/// The threads, as the loop sees them.
#[derive(Debug)]
pub(super) struct PacketPath {
    shared: Arc<Shared>,
    /// What the node has to see to.
    odd: mpsc::Receiver<Input>,
    running: Vec<JoinHandle<()>>,
}

/// What comes of the packet path.
#[derive(Debug)]
pub(super) enum Input {
    /// From the TUN, with room around it.
    Packet(Vec<u8>),
    Datagram {
        socket: SocketId,
        local: Option<IpAddr>,
        from: SocketAddr,
        ecn: u8,
        payload: Vec<u8>,
    },
    /// Traffic began.
    Bell,
    /// A thread ended.
    Failed(io::Error),
}

/// What all have in common.
#[derive(Debug)]
struct Shared {
    table: Mutex<Arc<Table>>,
    tun: Arc<Tun>,
    sockets: Arc<Sockets>,
    tell: mpsc::Sender<Input>,
    bell: Notify,
    ready: Ready,
}

impl PacketPath {
    /// Starts them.
    ///
    /// # Errors
    /// The system has no thread or no descriptor left.
    pub(super) fn start(node: &mut Node, tun: Arc<Tun>, sockets: Arc<Sockets>) -> io::Result<Self> {
        let (tell, odd) = mpsc::channel(WAITING);
        let table = Mutex::new(node.table());
        let shared = Arc::new(Shared { table, tun, sockets, tell, bell: Notify::new(), ready: Ready::new()? });
        let mut path = Self { shared, odd, running: Vec::new() };
        path.spawn("outward", outward)?;
        path.spawn("inward", inward)?;
        Ok(path)
    }

    fn spawn(&mut self, name: &str, run: fn(&Shared) -> io::Result<()>) -> io::Result<()> {
        let shared = self.shared.clone();
        let run = move || {
            // Without this thread nothing is carried: the loop must hear of it, whatever ended it.
            let ended = catch_unwind(AssertUnwindSafe(|| run(&shared)));
            if let Err(error) = ended.unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))) {
                // Nobody listens at the end.
                let _ = shared.tell.blocking_send(Input::Failed(error));
            }
        };
        self.running.push(std::thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// The node may have changed its mind.
    pub(super) fn publish(&self, node: &mut Node) {
        if let Some(table) = node.poll_table(clock::now()) {
            *self.shared.table.lock().unwrap_or_else(PoisonError::into_inner) = table;
        }
    }

    /// Waits for something that the node has to see to. May be dropped and called again at any time.
    ///
    /// # Errors
    /// A thread ended, and why.
    pub(super) async fn next(&mut self) -> io::Result<Input> {
        tokio::select! {
            () = self.shared.bell.notified() => Ok(Input::Bell),
            odd = self.odd.recv() => match odd {
                Some(Input::Failed(error)) => Err(error),
                Some(input) => Ok(input),
                None => std::future::pending().await,
            },
        }
    }

    /// Shows it to the node, and what else waits.
    pub(super) fn take(&mut self, node: &mut Node, input: Input) {
        self.shared.take(node, input);
        for _ in 1..AT_ONCE {
            let Ok(input) = self.odd.try_recv() else { break };
            self.shared.take(node, input);
        }
    }
}

impl Drop for PacketPath {
    /// Ends the threads, and waits until they have.
    fn drop(&mut self) {
        self.shared.ready.stop();
        self.odd.close();
        for thread in self.running.drain(..) {
            // What it had to say it has said.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn table(&self) -> Arc<Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands something over to the node.
    fn tell(&self, table: &Table, input: Input) {
        if self.tell.try_send(input).is_err() {
            table.drops().count("node-busy");
        }
    }

    /// Has the node look at traffic that begins.
    fn ring(&self, table: &Table) {
        if table.bell().is_rung() {
            self.bell.notify_one();
        }
    }

    /// Shows the node one.
    fn take(&self, node: &mut Node, input: Input) {
        let now = clock::now();
        match input {
            Input::Packet(mut framed) => {
                let tos = tos(&framed[HEADROOM..]);
                if let Outbound::Send { socket, to, range } = node.handle_packet(now, &mut framed) {
                    let way = Way { to, src: None, tos };
                    self.sockets.send_train(socket, way, range.len(), &[IoSlice::new(&framed[range])]);
                }
            }
            Input::Datagram { socket, local, from, ecn, mut payload } => {
                let inbound = node.handle_datagram(now, Datagram { socket, local, from, payload: &mut payload });
                if !packets::give(&self.tun, ecn, &inbound, &mut payload) {
                    node.count_drops("congested", 1);
                }
            }
            Input::Bell => node.handle_bell(now),
            Input::Failed(error) => tracing::debug!(%error, "the packet path ended"),
        }
    }
}

/// Seals by the table.
struct Sealer<'a> {
    table: Arc<Table>,
    shared: &'a Shared,
}

impl Seal for Sealer<'_> {
    fn seal(&mut self, now: Instant, buf: &mut [u8]) -> Outbound {
        match self.table.seal(now, buf) {
            Some(train) => train.into(),
            None => {
                self.shared.tell(&self.table, Input::Packet(buf.to_vec()));
                Outbound::Taken
            }
        }
    }

    fn seal_train(&mut self, now: Instant, cut: &Cut<'_>, next: &mut usize, arena: &mut [u8]) -> Option<Train> {
        if let Some(train) = self.table.seal_train(now, cut, next, arena) {
            return Some(train);
        }
        let len = cut.segment_len(*next);
        let buf = &mut arena[..HEADROOM + len + TAILROOM];
        cut.write_whole(*next, &mut buf[HEADROOM..HEADROOM + len]);
        *next += 1;
        match self.seal(now, buf) {
            Outbound::Send { socket, to, range } => Some(Train { socket, to, size: range.len(), range }),
            Outbound::Taken | Outbound::Dropped => None,
        }
    }

    fn count_drops(&mut self, reason: &'static str, count: u64) {
        self.table.drops().add(reason, count);
    }
}

/// From the TUN to the sockets.
fn outward(shared: &Shared) -> io::Result<()> {
    let mut outward = Outward::new()?;
    while !shared.ready.is_stopped() {
        let first = if outward.has_more() {
            None
        } else {
            shared.ready.wait([Some(shared.tun.as_fd())])?;
            let (room, rest) = outward.room();
            let Some(first) = shared.tun.try_recv(room, HEADROOM, rest)? else { continue };
            Some(first)
        };
        let mut sealer = Sealer { table: shared.table(), shared };
        outward.send(&mut sealer, &shared.tun, &shared.sockets, first);
        shared.ring(&sealer.table);
    }
    Ok(())
}

/// From the sockets to the TUN.
fn inward(shared: &Shared) -> io::Result<()> {
    let sockets = [(SocketId(0), Some(&shared.sockets.v4)), (SocketId(1), shared.sockets.v6.as_ref())];
    let mut batch = Batch::new();
    while !shared.ready.is_stopped() {
        let has_something = shared.ready.wait(sockets.map(|(_, socket)| socket.map(|socket| socket.as_fd())))?;
        for ((id, socket), _) in sockets.into_iter().zip(has_something).filter(|(_, has_something)| *has_something) {
            let Some(socket) = socket else { continue };
            if socket.try_recv(&mut batch)? == 0 {
                continue;
            }
            let (now, table) = (clock::now(), shared.table());
            let mut openings = table.openings();
            let open = |mut datagram: Datagram<'_>, ecn| {
                openings.open(now, &mut datagram).unwrap_or_else(|| {
                    let Datagram { socket, local, from, payload } = datagram;
                    shared.tell(&table, Input::Datagram { socket, local, from, ecn, payload: payload.to_vec() });
                    Inbound::Taken
                })
            };
            let congested = packets::receive(open, &shared.tun, id, &mut batch);
            drop(openings);
            table.drops().add("congested", congested);
            shared.ring(&table);
        }
    }
    Ok(())
}
