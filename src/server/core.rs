//! The rendezvous without I/O: registrations, relay and STUN behind one socket per address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use zeroize::Zeroizing;

use super::StreamLimits;
use super::stun::{Silence, Stun};
use crate::crypto::dh::Secret;
use crate::id::{ServerKey, SocketId};
use crate::relay::{self, Refusal, Table};
use crate::rendezvous::Server;
use crate::rendezvous::server::{Counters, Event, Limits, Rate, Route, Slot};
use crate::sans::{Datagram, Instant, Seed, Transmit, Wakeup};
use crate::wire::rendezvous::Reason;
use crate::wire::{Class, classify};

/// What a rendezvous allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Of registrations.
    pub registrations: Limits,
    /// Of relayed traffic.
    pub relay: relay::Limits,
    /// Connections, for the process around it.
    pub streams: StreamLimits,
    /// STUN answers in all.
    pub stun: Rate,
    /// STUN answers to one source prefix.
    pub stun_per_prefix: Rate,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registrations: Limits::default(),
            relay: relay::Limits::default(),
            streams: StreamLimits::default(),
            stun: Rate::new(5_000, 5_000),
            stun_per_prefix: Rate::new(20, 100),
        }
    }
}

/// What became of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send this part of it, rewritten in place, to somebody else.
    Forward {
        /// From this socket.
        socket: SocketId,
        /// From this local address.
        src: Option<IpAddr>,
        /// To there.
        to: SocketAddr,
        /// The bytes of the payload.
        range: Range<usize>,
    },
    /// It was for the server itself.
    Taken,
    /// It was not understood or not allowed, and counted.
    Dropped,
}

/// See the module's documentation.
pub struct Core {
    server: Server,
    relay: Table,
    stun: Stun,
    stun_answers: u64,
    stun_refused: u64,
    unclassified: u64,
    started: Instant,
    transmits: std::collections::VecDeque<Transmit>,
}

impl Core {
    /// A rendezvous with this X25519 secret.
    pub fn new(config: Config, secret: [u8; 32], seed: &Seed, now: Instant) -> Self {
        let mut rng = seed.rng();
        let secret = Secret::new(Zeroizing::new(secret));
        Self {
            stun: Stun::new(&config, &mut rng),
            server: Server::new(config.registrations, secret, &rng.seed()),
            relay: Table::new(config.relay),
            stun_answers: 0,
            stun_refused: 0,
            unclassified: 0,
            started: now,
            transmits: std::collections::VecDeque::new(),
        }
    }

    /// The key that clients may pin.
    pub fn key(&self) -> ServerKey {
        self.server.key()
    }

    /// What its sockets are bound to, by their ids: how many ports and addresses there are to answer STUN from.
    pub fn set_sockets(&mut self, sockets: &[SocketAddr]) {
        self.stun.set_sockets(sockets);
    }

    /// Takes a datagram. A relay frame is rewritten in place and costs no allocation.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) -> Verdict {
        let Datagram { socket, local, from, payload } = datagram;
        let route = Route { socket, local, remote: from };
        let taken = match classify(payload) {
            Class::Relay => return self.forward(now, route, payload),
            Class::Rendezvous => {
                let taken = self.server.handle_datagram(now, route, payload);
                self.join(now);
                taken
            }
            // By a stream through a proxy it is not known how anybody is seen.
            Class::Stun if from.port() != 0 => self.answer_stun(now, route, payload),
            Class::Keepalive => true,
            _ => {
                self.unclassified += 1;
                false
            }
        };
        if taken { Verdict::Taken } else { Verdict::Dropped }
    }

    /// A stream ended.
    pub fn handle_disconnected(&mut self, now: Instant, stream: SocketId) {
        self.server.handle_disconnected(now, stream);
    }

    /// Whether anybody is registered by this stream.
    pub fn is_registered_by(&self, stream: SocketId) -> bool {
        self.server.is_registered_by(stream)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
        self.join(now);
    }

    /// The next datagram; call until `None` after every other call.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front().or_else(|| self.server.poll_transmit())
    }

    /// When [`Core::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        self.server.poll_timeout()
    }

    /// Tells everybody that the server stops.
    pub fn stop(&mut self) {
        self.server.say_stopping();
    }

    /// Registrations that stand.
    pub fn registrations(&self) -> usize {
        self.server.registrations()
    }

    /// How long it has run.
    pub fn uptime(&self, now: Instant) -> Duration {
        now - self.started
    }

    /// What there is, and what happened since the start.
    pub fn counters(&self) -> Counters {
        let relay = self.relay.counters();
        let mut all = self.server.counters().clone();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        all.extend([
            ("registrations", count(self.server.registrations())),
            ("networks", count(self.server.networks())),
            ("channels", count(self.relay.len())),
            ("relay-frames", relay.frames),
            ("relay-bytes", relay.bytes),
            ("relay-forged", relay.forged),
            ("relay-half-open", relay.half_open),
            ("relay-over-prefix", relay.over_prefix),
            ("relay-over-network", relay.over_network),
            ("relay-over-total", relay.over_total),
            ("stun", self.stun_answers),
            ("stun-rate", self.stun_refused),
            ("unclassified", self.unclassified),
        ]);
        all
    }

    fn forward(&mut self, now: Instant, route: Route, frame: &mut [u8]) -> Verdict {
        match self.relay.forward(now, route.origin(), frame) {
            relay::Verdict::Forward { to } => match self.server.route(Slot(to)) {
                Some(Route { socket, local, remote }) => {
                    Verdict::Forward { socket, src: local, to: remote, range: 0..frame.len() }
                }
                None => Verdict::Dropped,
            },
            relay::Verdict::Unknown => {
                self.server.say_unknown(now, route, frame);
                Verdict::Dropped
            }
            relay::Verdict::Throttled { tell } => {
                if let Some(slot) = tell {
                    self.server.tell_throttled(Slot(slot));
                }
                Verdict::Dropped
            }
            relay::Verdict::Dropped => Verdict::Dropped,
        }
    }

    fn answer_stun(&mut self, now: Instant, route: Route, question: &[u8]) -> bool {
        let prefix = self.server.limits().prefix(route.remote.ip());
        match self.stun.answer(now, route, &prefix, question) {
            Ok(answer) => {
                self.stun_answers += 1;
                self.transmits.push_back(answer);
                return true;
            }
            Err(Silence::Odd) => self.unclassified += 1,
            Err(Silence::Rate) => self.stun_refused += 1,
        }
        false
    }

    /// Keeps the relay's ends in step with the registrations.
    fn join(&mut self, now: Instant) {
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Attached { slot, origin, keys, network, prefix } => {
                    self.relay.attach(slot.0, origin, keys.from_peer, keys.to_peer, network, prefix);
                }
                Event::Renewed { slot, origin, keys, prefix } => {
                    self.relay.renew(slot.0, origin, keys.from_peer, keys.to_peer, prefix);
                }
                Event::Detached { slot, peer } => {
                    for other in self.relay.detach(slot.0) {
                        self.server.channel_changed(now, Slot(other), peer, 0);
                    }
                }
                Event::Open { slot, other, number, id } => self.open(now, slot, other, number, id),
                Event::Close { slot, other, id } => {
                    let change = self.relay.close(slot.0, other.0);
                    self.server.channel_answer(slot, id, Ok(()));
                    self.tell(now, change);
                }
            }
        }
        self.server.flush(now);
    }

    fn open(&mut self, now: Instant, slot: Slot, other: Slot, number: u32, id: u32) {
        match self.relay.open(slot.0, other.0, number) {
            Ok(change) => {
                self.server.channel_answer(slot, id, Ok(()));
                self.tell(now, change);
            }
            Err(Refusal::Full | Refusal::NumberTaken) => {
                self.server.channel_answer(slot, id, Err(Reason::ChannelsFull));
            }
            Err(Refusal::NoSuchEnd) => self.server.channel_answer(slot, id, Err(Reason::NoSuchMember)),
        }
    }

    /// Both ends hear how their channel stands.
    fn tell(&mut self, now: Instant, change: Option<relay::Change>) {
        let Some(relay::Change { asker, other }) = change else { return };
        let (Some(a), Some(b)) = (self.server.peer(Slot(asker.0)), self.server.peer(Slot(other.0))) else { return };
        self.server.channel_changed(now, Slot(asker.0), b, asker.1);
        self.server.channel_changed(now, Slot(other.0), a, other.1);
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("registrations", &self.registrations()).finish_non_exhaustive()
    }
}
