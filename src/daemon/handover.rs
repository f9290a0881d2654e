//! What the packet path's threads hand over to the loop. Packets and datagrams wait in queues of their own, of a bounded
//! length each: neither a program here that sends to where nothing goes, nor a flood from outside, keeps the other's away
//! from the node, and none takes all memory. What finds no room is dropped and counted.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::{Notify, mpsc};

use super::Failure;
use crate::forward::{Drops, Table};
use crate::id::SocketId;

/// So many packets wait at most, and so many datagrams.
const WAITING: usize = 1_024;
/// Threads that may end.
const THREADS: usize = 2;

/// Something for the loop.
#[derive(Debug)]
pub(super) enum Input {
    /// From the TUN, with room around it.
    Packet(Vec<u8>),
    /// From the TUN, for many, with room around it.
    Shared(Vec<u8>),
    Datagram(Arrived),
    /// Traffic began.
    Bell,
}

/// A datagram, as its socket told of it.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) socket: SocketId,
    pub(super) local: Option<IpAddr>,
    pub(super) from: SocketAddr,
    pub(super) ecn: u8,
    pub(super) payload: Vec<u8>,
}

/// The threads' end.
#[derive(Debug)]
pub(super) struct Desk {
    packets: mpsc::Sender<Input>,
    datagrams: mpsc::Sender<Arrived>,
    ended: mpsc::Sender<Failure>,
    bell: Notify,
}

/// The loop's end.
#[derive(Debug)]
pub(super) struct Inbox {
    packets: mpsc::Receiver<Input>,
    datagrams: mpsc::Receiver<Arrived>,
    ended: mpsc::Receiver<Failure>,
    /// Whose turn it is.
    packets_first: bool,
}

/// Both ends.
pub(super) fn handover() -> (Desk, Inbox) {
    let (packets, waiting_packets) = mpsc::channel(WAITING);
    let (datagrams, waiting_datagrams) = mpsc::channel(WAITING);
    let (ended, all_ended) = mpsc::channel(THREADS);
    let inbox =
        Inbox { packets: waiting_packets, datagrams: waiting_datagrams, ended: all_ended, packets_first: false };
    (Desk { packets, datagrams, ended, bell: Notify::new() }, inbox)
}

impl Desk {
    /// `input`: which of the two it is.
    pub(super) fn packet(&self, drops: &Drops, framed: &[u8], input: fn(Vec<u8>) -> Input) {
        // First the place, then the copy: a flood costs no more than it must.
        match self.packets.try_reserve() {
            Ok(place) => place.send(input(framed.to_vec())),
            Err(_) => drops.count("node-busy"),
        }
    }

    pub(super) fn datagram(&self, drops: &Drops, arrived: impl FnOnce() -> Arrived) {
        match self.datagrams.try_reserve() {
            Ok(place) => place.send(arrived()),
            Err(_) => drops.count("node-busy"),
        }
    }

    /// Has the node look at traffic that begins.
    pub(super) fn ring(&self, table: &Table) {
        if table.bell().is_rung() {
            self.bell.notify_one();
        }
    }

    /// Runs a thread's work. Without that thread nothing is carried: the loop hears of it, whatever ended it. `subject`:
    /// what it has to do with, for people.
    pub(super) fn watch(&self, subject: &str, run: impl FnOnce() -> std::io::Result<()>) {
        let why = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "a mistake in punchlan (the lines above say where); please report it".to_owned(),
        };
        // There is a place for each; and at the end nobody listens.
        let _ = self.ended.try_send(Failure::Failed(format!("{subject}: {why}")));
    }
}

impl Inbox {
    /// The next. May be dropped and called again at any time.
    ///
    /// # Errors
    /// A thread ended, and why.
    pub(super) async fn next(&mut self, desk: &Desk) -> Result<Input, Failure> {
        tokio::select! {
            () = desk.bell.notified() => Ok(Input::Bell),
            Some(failure) = self.ended.recv() => Err(failure),
            Some(arrived) = self.datagrams.recv() => Ok(Input::Datagram(arrived)),
            Some(packet) = self.packets.recv() => Ok(packet),
        }
    }

    /// What else waits, in turns.
    pub(super) fn try_next(&mut self) -> Option<Input> {
        self.packets_first = !self.packets_first;
        let packets = &mut self.packets;
        let mut packet = || packets.try_recv().ok();
        let first = if self.packets_first { packet() } else { None };
        first.or_else(|| self.datagrams.try_recv().ok().map(Input::Datagram)).or_else(packet)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn arrived(payload: &[u8]) -> Arrived {
        let from = "192.0.2.1:4000".parse().expect("an address");
        Arrived { socket: SocketId(0), local: None, from, ecn: 0, payload: payload.to_vec() }
    }

    #[tokio::test]
    async fn neither_packets_nor_datagrams_keep_the_other_out_and_what_is_too_much_is_counted() {
        let (desk, mut inbox) = handover();
        let drops = Drops::default();
        for n in 0..=WAITING {
            desk.packet(&drops, &n.to_le_bytes(), Input::Packet);
        }
        assert_eq!(drops.all(), [("node-busy", 1)]);
        desk.datagram(&drops, || arrived(b"hello"));
        assert_eq!(drops.all(), [("node-busy", 1)], "there is room for it");
        let in_turns = std::iter::from_fn(|| inbox.try_next()).take(3).collect::<Vec<_>>();
        assert!(in_turns.iter().any(|input| matches!(input, Input::Datagram(_))), "{in_turns:?}");
        while let Some(Input::Packet(_)) = inbox.try_next() {}

        (0..WAITING + 5).for_each(|_| desk.datagram(&drops, || arrived(b"junk")));
        assert_eq!(drops.all(), [("node-busy", 6)]);
        desk.packet(&drops, b"ping", Input::Packet);
        let in_turns = std::iter::from_fn(|| inbox.try_next()).take(3).collect::<Vec<_>>();
        assert!(in_turns.iter().any(|input| matches!(input, Input::Packet(_))), "{in_turns:?}");
        assert!(inbox.next(&desk).await.is_ok());
    }

    #[tokio::test]
    async fn the_loop_hears_of_a_thread_that_ended_whatever_ended_it() {
        for (run, said) in [
            (Box::new(|| Err(io::Error::other("it is gone"))) as Box<dyn FnOnce() -> io::Result<()>>, "it is gone"),
            (Box::new(|| panic!("on purpose")), "a mistake in punchlan"),
        ] {
            let (desk, mut inbox) = handover();
            // However much waits.
            (0..WAITING).for_each(|_| desk.packet(&Drops::default(), b"ping", Input::Packet));
            desk.watch("interface game0", run);
            desk.watch("a thread that was told to", || Ok(()));
            let failure = loop {
                if let Err(failure) = inbox.next(&desk).await {
                    break failure.to_string();
                }
            };
            assert!(failure.contains("interface game0") && failure.contains(said), "{failure}");
            assert!(inbox.ended.try_recv().is_err(), "the other one ended as it should");
        }
    }
}
