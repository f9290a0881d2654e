//! A host that runs the real rendezvous.

use std::collections::VecDeque;
use std::net::SocketAddr;

use punchlan::id::SocketId;
use punchlan::sans::{Datagram, Instant, Seed, Transmit, Wakeup};
use punchlan::server::{Config, Core, Verdict};

use super::machine::Machine;

/// A rendezvous process; none while it is dead.
pub struct Server {
    core: Option<Core>,
    secret: [u8; 32],
    lives: u64,
    number: u64,
    /// What its sockets are bound to, where it has more than one a family.
    pub sockets: Vec<SocketAddr>,
    out: VecDeque<Transmit>,
}

impl Server {
    /// The `number`-th rendezvous of the world, not started.
    pub fn new(number: u64) -> Self {
        let secret = std::array::from_fn(|i| u8::try_from(i).expect("small") ^ number.to_be_bytes()[7]);
        Self { core: None, secret, lives: 0, number, sockets: Vec::new(), out: VecDeque::new() }
    }

    /// Starts it, with the same key as before and nothing else.
    pub fn start(&mut self, now: Instant) {
        self.lives += 1;
        let seed = Seed::from_u64(self.number << 32 | self.lives);
        let mut core = Core::new(Config::default(), self.secret, &seed, now);
        core.set_sockets(&self.sockets);
        self.core = Some(core);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.core = None;
        self.out.clear();
    }

    /// The real thing.
    pub fn core(&self) -> &Core {
        self.core.as_ref().expect("the rendezvous runs")
    }
}

impl Machine for Server {
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let Some(core) = &mut self.core else { return };
        let Datagram { socket, local, from, payload } = datagram;
        let verdict = core.handle_datagram(now, Datagram { socket, local, from, payload: &mut *payload });
        if let Verdict::Forward { socket, src, to, range } = verdict {
            self.out.push_back(Transmit { socket, src, to, ttl: None, tos: 0, payload: payload[range].to_vec() });
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(core) = &mut self.core {
            core.handle_timeout(now);
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front().or_else(|| self.core.as_mut()?.poll_transmit())
    }

    fn stream_ended(&mut self, now: Instant, socket: SocketId) {
        if let Some(core) = &mut self.core {
            core.handle_disconnected(now, socket);
        }
    }

    fn accepts_streams(&self) -> bool {
        self.core.is_some()
    }

    fn poll_timeout(&self) -> Option<Wakeup> {
        self.core.as_ref()?.poll_timeout()
    }
}
