//! The packet path's own threads: one for what leaves the TUN, one for what comes in by UDP. Each goes by the table that
//! the node decided on last ([`Table`]), and hands over what that says nothing of ([`super::handover`]).
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
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use super::Failure;
use super::ears::Ears;
use super::handover::{Arrived, Desk, Inbox, Input, handover};
use super::inward::{self, Inward};
use super::outward::{Outward, Seal};
use super::packets;
use super::sockets::Sockets;
use crate::forward::{Delivery, HEADROOM, TAILROOM, Table, Train, Unsealed};
use crate::id::SocketId;
use crate::io::clock;
use crate::io::multicast::Loopback;
use crate::io::ready::{Ready, Told};
use crate::io::tun::Tun;
use crate::io::udp::{Batch, Socket, Way};
use crate::node::{Inbound, Node, Outbound};
use crate::offload::{Cut, tos};
use crate::sans::{Datagram, Instant};

/// So many are shown to the node at once.
const AT_ONCE: usize = 64;

/// The threads, as the loop sees them.
#[derive(Debug)]
pub(super) struct PacketPath {
    shared: Arc<Shared>,
    inbox: Inbox,
    running: Vec<JoinHandle<()>>,
}

/// What all have in common.
#[derive(Debug)]
struct Shared {
    table: Mutex<Arc<Table>>,
    tun: Arc<Tun>,
    sockets: Arc<Sockets>,
    /// From the first packet on that somebody listens to on another interface.
    loopback: OnceLock<Option<Loopback>>,
    desk: Desk,
    /// What each thread waits for.
    from_tun: Ready,
    inward: Inward,
}

impl PacketPath {
    /// Starts them.
    ///
    /// # Errors
    /// The system has no thread or no descriptor left.
    pub(super) fn start(node: &mut Node, tun: Arc<Tun>, sockets: Arc<Sockets>) -> io::Result<Self> {
        let (desk, inbox) = handover();
        let interface = format!("interface {}", tun.name());
        let (from_tun, inward) = (Ready::new()?, Inward::new(sockets.clone())?);
        from_tun.add(&*tun, 0)?;
        let shared = Arc::new(Shared {
            table: Mutex::new(node.table()),
            tun,
            sockets,
            loopback: OnceLock::new(),
            desk,
            from_tun,
            inward,
        });
        let mut path = Self { shared, inbox, running: Vec::new() };
        path.spawn("outward", interface, send)?;
        path.spawn("inward", "the UDP sockets".to_owned(), receive)?;
        Ok(path)
    }

    fn spawn(&mut self, name: &str, subject: String, run: fn(&Shared) -> io::Result<()>) -> io::Result<()> {
        let shared = self.shared.clone();
        let run = move || shared.desk.watch(&subject, || run(&shared));
        self.running.push(std::thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// The node may have changed its mind.
    pub(super) fn publish(&self, node: &mut Node) {
        if let Some(table) = node.poll_table(clock::now()) {
            *self.shared.table.lock().unwrap_or_else(PoisonError::into_inner) = table;
        }
    }

    /// Opens so many more sockets, or as many as the system has: by which id, each.
    pub(super) fn open_sockets(&self, count: usize) -> Vec<(SocketId, Arc<Socket>)> {
        self.shared.inward.open_more(count)
    }

    /// Closes these of them.
    pub(super) fn close_sockets(&self, sockets: &[SocketId]) {
        self.shared.inward.close(sockets);
    }

    /// Gives a packet for many to the programs here that are to have it.
    pub(super) fn share(&self, table: &Table, packet: &mut [u8]) {
        self.shared.share(table, packet);
    }

    /// Waits for something that the node has to see to. May be dropped and called again at any time.
    ///
    /// # Errors
    /// A thread ended, and why.
    pub(super) async fn next(&mut self) -> Result<Input, Failure> {
        self.inbox.next(&self.shared.desk).await
    }

    /// Shows it to the node, and what else waits.
    pub(super) fn take(&mut self, node: &mut Node, ears: &mut Ears, input: Input) {
        self.shared.take(node, ears, input);
        for input in std::iter::from_fn(|| self.inbox.try_next()).take(AT_ONCE) {
            self.shared.take(node, ears, input);
        }
    }
}

impl Drop for PacketPath {
    /// Ends the threads, and waits until they have.
    fn drop(&mut self) {
        self.shared.from_tun.stop();
        self.shared.inward.stop();
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

    /// Opens a batch and gives the TUN what comes of it.
    fn receive(&self, socket: SocketId, batch: &mut Batch) {
        let (now, table) = (clock::now(), self.table());
        let mut openings = table.openings();
        let open = |datagram: Datagram<'_>, ecn| inward::open(now, &table, &mut openings, &self.desk, datagram, ecn);
        let share = |packet: &mut [u8]| self.share(&table, packet);
        let congested = packets::receive(open, share, &self.tun, &self.sockets, socket, batch.datagrams());
        drop(openings);
        table.drops().add("congested", congested);
        self.desk.ring(&table);
    }

    /// Gives a packet for many to the interface, and to programs that listen on others.
    fn share(&self, table: &Table, packet: &mut [u8]) {
        let Some(Delivery { ours, others }) = table.delivery(packet) else { return };
        if *ours {
            packets::refused(self.tun.send(packet));
        }
        for interface in others {
            // Without the right to there is none, and a warning says so.
            if let Some(loopback) = self.loopback.get_or_init(|| Loopback::open().ok()) {
                packets::refused(loopback.deliver(packet, *interface));
            }
        }
    }

    /// Shows the node one.
    fn take(&self, node: &mut Node, ears: &mut Ears, input: Input) {
        let now = clock::now();
        match input {
            Input::Packet(mut framed) => {
                let tos = tos(&framed[HEADROOM..]);
                if let Outbound::Send { socket, to, range } = node.handle_packet(now, &mut framed) {
                    let way = Way { to, src: None, tos };
                    let pieces = [IoSlice::new(&framed[range.clone()])];
                    let no_socket = self.sockets.open().send_train(socket, way, range.len(), &pieces);
                    node.count_drops("no-socket", no_socket);
                }
            }
            Input::Shared(framed) => {
                let packet = &framed[HEADROOM..framed.len() - TAILROOM];
                node.handle_shared(now, packet);
                ears.say(&node.me(), packet);
            }
            Input::Datagram(Arrived { socket, local, from, ecn, mut payload }) => {
                let inbound = node.handle_datagram(now, Datagram { socket, local, from, payload: &mut payload });
                if let Inbound::Forward { socket, to } = inbound {
                    let way = Way { to, src: None, tos: ecn };
                    let no_socket =
                        self.sockets.open().send_train(socket, way, payload.len(), &[IoSlice::new(&payload)]);
                    node.count_drops("no-socket", no_socket);
                }
                let table = node.table();
                if !packets::give(|packet| self.share(&table, packet), &self.tun, ecn, &inbound, &mut payload) {
                    node.count_drops("congested", 1);
                }
            }
            Input::Bell => node.handle_bell(now),
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
            Ok(train) => train.into(),
            Err(Unsealed::Node) => {
                self.shared.desk.packet(self.table.drops(), buf, Input::Packet);
                Outbound::Taken
            }
            Err(Unsealed::Shared) => {
                self.shared.desk.packet(self.table.drops(), buf, Input::Shared);
                Outbound::Taken
            }
            Err(Unsealed::Dropped) => Outbound::Dropped,
        }
    }

    fn seal_train(&mut self, now: Instant, cut: &Cut<'_>, next: &mut usize, arena: &mut [u8]) -> Option<Train> {
        if let Some(train) = self.table.seal_train(now, cut, next, arena) {
            return Some(train);
        }
        let table = self.table.clone();
        let framed = table.cut_alone(cut, next, arena)?;
        self.seal(now, framed).train()
    }

    fn count_drops(&mut self, reason: &'static str, count: u64) {
        self.table.drops().add(reason, count);
    }
}

/// From the TUN to the sockets.
fn send(shared: &Shared) -> io::Result<()> {
    let (mut outward, mut told) = (Outward::new()?, Told::new());
    while !shared.from_tun.is_stopped() {
        let first = if outward.has_more() {
            None
        } else {
            shared.from_tun.wait(&mut told)?;
            let (room, rest) = outward.room();
            let Some(first) = shared.tun.try_recv(room, HEADROOM, rest)? else { continue };
            Some(first)
        };
        let (mut sealer, open) = (Sealer { table: shared.table(), shared }, shared.sockets.open());
        outward.send(&mut sealer, &shared.tun, &open, first);
        shared.desk.ring(&sealer.table);
    }
    Ok(())
}

/// From the sockets to the TUN.
fn receive(shared: &Shared) -> io::Result<()> {
    shared.inward.run(|socket, batch| shared.receive(socket, batch))
}
