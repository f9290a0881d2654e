//! The sockets that a host's process opens while it runs, as a system gives them: each on a port of its own, and not
//! without end.

use std::ops::RangeInclusive;

use punchlan::id::SocketId;

/// The ids below are of the sockets that a process starts with.
const FIRST_ID: u16 = 2;
/// Ports are counted up from here, from life to life: none comes again soon.
const PORTS: RangeInclusive<u16> = 50_000..=u16::MAX;

/// What is open now.
pub struct Sockets {
    open: Vec<(SocketId, u16)>,
    last_port: u16,
    /// How many the system lets be open at once.
    pub most: usize,
}

impl Default for Sockets {
    fn default() -> Self {
        Self { open: Vec::new(), last_port: *PORTS.end(), most: usize::MAX }
    }
}

impl Sockets {
    /// Those that are open, each with its port.
    pub fn all(&self) -> &[(SocketId, u16)] {
        &self.open
    }

    /// So many more, or as many as the system has.
    pub fn open(&mut self, count: usize) -> Vec<(SocketId, u16)> {
        (0..count).map_while(|_| self.open_one()).collect()
    }

    /// Has the lowest id that is free, which may have been another socket's before.
    fn open_one(&mut self) -> Option<(SocketId, u16)> {
        if self.open.len() >= self.most {
            return None;
        }
        let id = (FIRST_ID..).map(SocketId).find(|id| self.open.iter().all(|(other, _)| other != id))?;
        let counted_up = self.last_port.checked_add(1).unwrap_or(*PORTS.start())..=*PORTS.end();
        let port = counted_up.chain(PORTS).find(|port| self.open.iter().all(|(_, other)| other != port))?;
        self.last_port = port;
        self.open.push((id, port));
        Some((id, port))
    }

    /// Closes these, which must be open.
    pub fn close(&mut self, sockets: &[SocketId]) {
        for socket in sockets {
            let place = self.open.iter().position(|(id, _)| id == socket);
            self.open.swap_remove(place.expect("only what was opened is closed, and once"));
        }
    }

    /// The process is gone.
    pub fn close_all(&mut self) {
        self.open.clear();
    }
}

#[test]
fn sockets_are_opened_on_ports_of_their_own_as_many_as_the_system_has() {
    let mut sockets = Sockets { most: 256, ..Sockets::default() };
    let opened = sockets.open(200);
    assert!(opened.into_iter().eq((2..202).map(SocketId).zip(50_000..50_200)));
    assert_eq!(sockets.open(100).len(), 56, "fewer will do");
    assert_eq!(sockets.open(1), []);
    assert_eq!(sockets.all().len(), 256);
}

#[test]
fn what_was_closed_comes_again_on_another_port() {
    let mut sockets = Sockets::default();
    sockets.open(3);
    sockets.close(&[SocketId(2), SocketId(4)]);
    assert_eq!(sockets.all(), [(SocketId(3), 50_001)]);
    assert_eq!(sockets.open(3), [(SocketId(2), 50_003), (SocketId(4), 50_004), (SocketId(5), 50_005)]);
    sockets.close_all();
    assert_eq!(sockets.all(), []);
    assert_eq!(sockets.open(1), [(SocketId(2), 50_006)], "the next life counts on");
}

#[test]
fn ports_begin_again_after_the_last_and_leave_out_those_in_use() {
    let mut sockets = Sockets::default();
    sockets.open(2);
    sockets.close(&[SocketId(2)]);
    sockets.last_port = u16::MAX - 1;
    let ports: Vec<u16> = sockets.open(3).into_iter().map(|(_, port)| port).collect();
    assert_eq!(ports, [u16::MAX, 50_000, 50_002]);
}
