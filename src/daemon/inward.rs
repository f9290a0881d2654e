//! Datagrams come in, by whichever socket: one batch of each that has something, and round again. The sockets may change
//! meanwhile.

use std::io;
use std::sync::Arc;

use super::handover::{Arrived, Desk};
use super::sockets::{Sockets, is_needed};
use crate::forward::{Inbound, Openings, Table};
use crate::id::SocketId;
use crate::io::ready::{Ready, Told};
use crate::io::udp::{Batch, Socket};
use crate::sans::{Datagram, Instant};

/// The way in.
#[derive(Debug)]
pub(super) struct Inward {
    sockets: Arc<Sockets>,
    ready: Ready,
}

impl Inward {
    /// # Errors
    /// No descriptor is free.
    pub(super) fn new(sockets: Arc<Sockets>) -> io::Result<Self> {
        let ready = Ready::new()?;
        sockets.open().iter().try_for_each(|(id, socket)| ready.add(socket, id.0))?;
        Ok(Self { sockets, ready })
    }

    /// Opens so many more sockets, or as many as the system has.
    pub(super) fn open_more(&self, count: usize) -> Vec<(SocketId, Arc<Socket>)> {
        let mut opened = self.sockets.open_more(count);
        opened.retain(|(id, socket)| match self.ready.add(&**socket, id.0) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, socket = id.0, "a new socket cannot be waited for");
                self.sockets.close(&[*id]);
                false
            }
        });
        opened
    }

    /// Closes these of them.
    pub(super) fn close(&self, sockets: &[SocketId]) {
        for socket in self.sockets.close(sockets) {
            if let Err(error) = self.ready.remove(&*socket) {
                tracing::debug!(%error, local = %socket.local_addr(), "a closed socket was not waited for");
            }
        }
    }

    /// Gives `take` what comes in, batch by batch, until it is told to end.
    ///
    /// # Errors
    /// A socket broke without which nothing works.
    pub(super) fn run(&self, mut take: impl FnMut(SocketId, &mut Batch)) -> io::Result<()> {
        let (mut batch, mut told) = (Batch::new(), Told::new());
        while !self.ready.is_stopped() {
            self.ready.wait(&mut told)?;
            // After the wait: else there would be one that it tells of, and this does not know. And let go of before the next.
            let open = self.sockets.open();
            for id in told.tokens().map(SocketId) {
                let Some(socket) = open.get(id) else { continue };
                match socket.try_recv(&mut batch) {
                    Ok(0) => {}
                    Ok(_) => take(id, &mut batch),
                    Err(error) if is_needed(id) => return Err(error),
                    Err(error) => {
                        tracing::debug!(%error, socket = id.0, "a socket broke, and is closed");
                        self.close(&[id]);
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends [`Inward::run`], for good.
    pub(super) fn stop(&self) {
        self.ready.stop();
    }
}

/// Opens a datagram by the table, or hands it over.
pub(super) fn open(
    now: Instant,
    table: &Table,
    openings: &mut Openings<'_>,
    desk: &Desk,
    mut datagram: Datagram<'_>,
    ecn: u8,
) -> Inbound {
    openings.open(now, &mut datagram).unwrap_or_else(|| {
        let Datagram { socket, local, from, payload } = datagram;
        desk.datagram(table.drops(), || Arrived { socket, local, from, ecn, payload: payload.to_vec() });
        Inbound::Taken
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::super::handover::{Inbox, Input, handover};
    use super::super::outward::tests::node;
    use super::*;
    use crate::io::clock;
    use crate::io::udp::Received;
    use crate::offload::Offload;
    use crate::wire::kind;

    fn local() -> Socket {
        Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback binds")
    }

    /// The thread, which goes by the table of a node that knows nobody, and what it hands over.
    struct Running {
        inward: Arc<Inward>,
        inbox: Inbox,
        desk: Arc<Desk>,
        thread: std::thread::JoinHandle<io::Result<()>>,
    }

    impl Running {
        fn start() -> Self {
            let inward =
                Arc::new(Inward::new(Arc::new(Sockets::new(local(), None, Offload::All))).expect("descriptors"));
            let ((desk, inbox), table) = (handover(), node().table());
            let (desk, running) = (Arc::new(desk), inward.clone());
            let to = desk.clone();
            let thread = std::thread::spawn(move || {
                running.run(|socket, batch| {
                    let mut openings = table.openings();
                    for Received { from, local, ecn, payload } in batch.datagrams() {
                        open(clock::now(), &table, &mut openings, &to, Datagram { socket, local, from, payload }, ecn);
                    }
                })
            });
            Self { inward, inbox, desk, thread }
        }

        /// The next that is for the node: by which socket it came, from which port, and its second byte.
        async fn next(&mut self) -> (SocketId, u16, u8) {
            let next = tokio::time::timeout(Duration::from_secs(10), self.inbox.next(&self.desk));
            match next.await.expect("in time") {
                Ok(Input::Datagram(arrived)) => (arrived.socket, arrived.from.port(), arrived.payload[1]),
                other => panic!("{other:?}"),
            }
        }

        fn end(self) {
            self.inward.stop();
            self.thread.join().expect("no panic").expect("no socket broke");
        }
    }

    /// What the node alone can read.
    fn probe(from: &Socket, to: &Socket, n: u8) {
        let to = (Ipv4Addr::LOCALHOST, to.local_addr().port()).into();
        from.send(to, None, None, &[kind::PROBE, n, 0, 0]).expect("sent");
    }

    #[tokio::test]
    async fn what_comes_in_by_a_socket_that_was_opened_later_reaches_the_node_as_all_else_does() {
        let (mut running, friend) = (Running::start(), local());
        let port = friend.local_addr().port();
        let more = running.inward.open_more(100);
        for (n, (id, socket)) in (0..).zip(&more) {
            probe(&friend, socket, n);
            assert_eq!(running.next().await, (*id, port, n));
        }
        probe(&friend, running.inward.sockets.open().get(SocketId(0)).expect("there"), 7);
        assert_eq!((more.len(), running.next().await), (100, (SocketId(0), port, 7)));
        running.end();
    }

    #[tokio::test]
    async fn a_socket_that_is_flooded_keeps_no_other_waiting_and_one_that_is_closed_is_heard_no_more() {
        let (mut running, friend) = (Running::start(), local());
        let [(flooded, by), (_, closed), (other, quiet)] = running.inward.open_more(3).try_into().expect("three");
        (0..200).for_each(|n| probe(&friend, &by, n));
        probe(&friend, &quiet, 1);
        let mut came = 0;
        while running.next().await.0 != other {
            came += 1;
        }
        running.inward.close(&[SocketId(3)]);
        // It is closed when nobody looks at it any more, and then its port is free.
        let addr = closed.local_addr();
        drop(closed);
        probe(&friend, &quiet, 2);
        while running.next().await.0 != other {
            came += 1;
        }
        assert!(came <= 200 && flooded == SocketId(2), "{came}");
        Socket::bind(addr).expect("its port is free");
        running.end();
    }

    #[tokio::test]
    async fn a_socket_that_broke_is_closed_and_the_others_are_heard() {
        let (mut running, friend) = (Running::start(), local());
        let [(broken, socket), (other, quiet)] = running.inward.open_more(2).try_into().expect("two");
        socket.break_down();
        probe(&friend, &socket, 1);
        probe(&friend, &quiet, 2);
        assert_eq!(running.next().await, (other, friend.local_addr().port(), 2));
        probe(&friend, &quiet, 3);
        assert_eq!(running.next().await, (other, friend.local_addr().port(), 3));
        assert!(running.inward.sockets.open().get(broken).is_none());
        running.end();
    }
}
