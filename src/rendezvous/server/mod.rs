//! All registrations with one rendezvous.
//!
//! ```text
//! Hello ──▶ Cookie (no state)
//! Register ─ cookie? ─ limits? ─ signatures? ─┬─ the seat is free ─────────────▶ seated
//!                                             ├─ the same run of the device ───▶ renewed in its seat
//!                                             ├─ another run, same address ────▶ replaces it
//!                                             └─ another run, elsewhere ───────▶ contest: does the old one live?
//! seated + announcement ──▶ listed: it is told of all members, all members of it, now
//! ```
//!
//! [`register`] lets peers in, [`contest`] decides between two of the same device, [`list`] keeps the networks' lists,
//! [`items`] takes what peers say, [`news`] tells them. Everything is soft: it ends when it is not refreshed.

mod contest;
mod items;
pub mod limits;
mod list;
mod network;
mod news;
mod register;
mod registration;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

pub use self::limits::{Limits, Rate, RateTable};
use self::network::Network;
use self::registration::Registrations;
pub use self::registration::{Route, Slot};
use super::EXPIRY;
use crate::crypto::CookieJar;
use crate::crypto::dh::Secret;
use crate::crypto::relay::RelayKey;
use crate::id::{NetworkId, Origin, PeerId, ServerKey, SocketId};
use crate::sans::{Instant, RateLimit, Rng, Seed, Transmit, Wakeup};
use crate::wire::rendezvous::{Direction, Message, Reason, Refused, Unknown};
use crate::wire::{VERSION, rendezvous as wire};

/// Who registered by a stream that ended is expected back so soon: nobody else hears of it if it is.
pub const GRACE: Duration = Duration::from_secs(10);

/// What a server tells its owner, which keeps the relay's channels.
#[derive(Debug)]
pub enum Event {
    /// A registration stands.
    Attached {
        /// Its place.
        slot: Slot,
        /// Where it is.
        origin: Origin,
        /// Its keys for relay frames.
        keys: RelayKeys,
        /// Its network.
        network: NetworkId,
        /// Where its address comes from.
        prefix: IpNet,
    },
    /// It has new keys and perhaps a new address.
    Renewed {
        /// Its place.
        slot: Slot,
        /// Where it is now.
        origin: Origin,
        /// Its keys for relay frames.
        keys: RelayKeys,
        /// Where its address comes from.
        prefix: IpNet,
    },
    /// It ended. Its place may be used again right after this.
    Detached {
        /// Its place.
        slot: Slot,
        /// Who it was.
        peer: PeerId,
    },
    /// It wishes for a channel to another member; answer with [`Server::channel_answer`].
    Open {
        /// Who asks.
        slot: Slot,
        /// The other.
        other: Slot,
        /// The asker's number for the channel.
        number: u32,
        /// Of the wish.
        id: u32,
    },
    /// It wishes for it no longer; answer likewise.
    Close {
        /// Who asks.
        slot: Slot,
        /// The other.
        other: Slot,
        /// Of the wish.
        id: u32,
    },
}

/// A registration's keys for relay frames.
#[derive(Clone, Debug)]
pub struct RelayKeys {
    /// Of frames from the peer.
    pub from_peer: RelayKey,
    /// Of frames to the peer.
    pub to_peer: RelayKey,
}

/// How many times something happened, by a word that never changes its meaning.
pub type Counters = BTreeMap<&'static str, u64>;

/// See the module's documentation.
pub struct Server {
    limits: Limits,
    secret: Secret,
    cookies: CookieJar,
    rng: Rng,
    registrations: Registrations,
    by_handle: HashMap<(Origin, u32), Slot>,
    /// Those by streams.
    streams: BTreeSet<(SocketId, Slot)>,
    networks: BTreeMap<NetworkId, Network>,
    prefixes: BTreeMap<IpNet, usize>,
    /// When each registration ends unless it was heard since.
    expiries: BTreeSet<(Instant, Slot)>,
    /// When each registration that is to be told or asked something has its turn.
    agenda: BTreeSet<(Instant, Slot)>,
    /// Those who are to be told something now.
    touched: Vec<Slot>,
    /// Whose registration ended, and its number, oldest first.
    left: VecDeque<(Instant, NetworkId, PeerId, u64)>,
    hellos: RateLimit,
    hellos_of: RateTable,
    registers: RateLimit,
    registers_of: RateTable,
    /// Answers to what was not understood or not allowed.
    refusals: RateLimit,
    counters: Counters,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Server {
    /// A server without registrations.
    pub fn new(limits: Limits, secret: Secret, seed: &Seed) -> Self {
        let mut rng = seed.rng();
        Self {
            cookies: CookieJar::new(&mut rng),
            hellos: limits.hellos.limit(),
            hellos_of: RateTable::new(limits.hellos_per_prefix, &mut rng),
            registers: limits.registers.limit(),
            registers_of: RateTable::new(limits.registers_per_prefix, &mut rng),
            refusals: RateLimit::new(500, 500),
            limits,
            secret,
            rng,
            registrations: Registrations::default(),
            by_handle: HashMap::new(),
            streams: BTreeSet::new(),
            networks: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            expiries: BTreeSet::new(),
            agenda: BTreeSet::new(),
            touched: Vec::new(),
            left: VecDeque::new(),
            counters: Counters::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The key that clients may pin.
    pub fn key(&self) -> ServerKey {
        ServerKey(self.secret.public())
    }

    /// Takes a datagram of the rendezvous protocol; `false`: dropped, and counted.
    pub fn handle_datagram(&mut self, now: Instant, route: Route, datagram: &mut [u8]) -> bool {
        let taken = match Message::parse(datagram) {
            Ok(Message::Hello(hello)) => self.on_hello(now, route, &hello),
            Ok(Message::Register(register)) => self.on_register(now, route, &register, datagram),
            Ok(Message::Frame(header)) if header.direction == Direction::ToServer => {
                self.on_frame(now, route, &header, datagram)
            }
            Ok(_) | Err(_) => self.drop("malformed"),
        };
        self.tell_touched(now);
        taken
    }

    /// Sends what [`Server::channel_changed`] noted.
    pub fn flush(&mut self, now: Instant) {
        self.tell_touched(now);
    }

    /// Ends what expired, repeats what was not acknowledged.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, slot)) = self.expiries.first().copied().filter(|(at, _)| *at <= now) {
            self.on_expiry(now, slot);
        }
        while self.left.front().is_some_and(|(at, ..)| *at <= now) {
            self.forget_left();
        }
        while let Some(entry) = self.agenda.first().copied().filter(|(at, _)| *at <= now) {
            self.agenda.remove(&entry);
            if let Some(registration) = self.registrations.get_mut(entry.1) {
                registration.agenda = None;
            }
            self.advance_contest(now, entry.1);
            self.touched.push(entry.1);
            self.tell_touched(now);
        }
    }

    /// A stream ended: who registered by it has [`GRACE`] to register anew.
    pub fn handle_disconnected(&mut self, now: Instant, stream: SocketId) {
        let slots: Vec<Slot> = self.slots_of(stream).collect();
        for slot in slots {
            let Some(registration) = self.registrations.get_mut(slot) else { continue };
            registration.heard = registration.heard.min(now + GRACE - EXPIRY);
            let earlier = std::mem::replace(&mut registration.expires, registration.heard + EXPIRY);
            self.expiries.remove(&(earlier, slot));
            self.expiries.insert((registration.expires, slot));
        }
    }

    /// Whether anybody is registered by this stream.
    pub fn is_registered_by(&self, stream: SocketId) -> bool {
        self.slots_of(stream).next().is_some()
    }

    fn slots_of(&self, stream: SocketId) -> impl Iterator<Item = Slot> {
        self.streams.range((stream, Slot(0))..=(stream, Slot(u32::MAX))).map(|(_, slot)| *slot)
    }

    /// The next datagram; call until `None` after every other call.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event; call until `None` after every other call.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Server::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        let expiry = self.expiries.first().map(|(at, _)| Wakeup::new(*at, "a registration ends"));
        let turn = self.agenda.first().map(|(at, _)| Wakeup::new(*at, "tell a peer"));
        let left = self.left.front().map(|(at, ..)| Wakeup::new(*at, "forget who left"));
        [expiry, turn, left].into_iter().flatten().min()
    }

    /// Registrations that stand or are contested.
    pub fn registrations(&self) -> usize {
        self.registrations.len()
    }

    /// Networks with at least one registration.
    pub fn networks(&self) -> usize {
        self.networks.len()
    }

    /// What it allows.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What happened, by a word.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Where the peer in `slot` is.
    pub fn route(&self, slot: Slot) -> Option<Route> {
        self.registrations.get(slot).map(|registration| registration.route)
    }

    /// Who sits in `slot`.
    pub fn peer(&self, slot: Slot) -> Option<PeerId> {
        self.registrations.get(slot).map(|registration| registration.peer)
    }

    /// The sender of `question` is not known here: says so, never in more bytes than were asked.
    pub fn say_unknown(&mut self, now: Instant, route: Route, question: &[u8]) {
        let Some(unknown) = Unknown::to(question).filter(|_| self.refusals.allow(now)) else { return };
        self.count("unknown-sender");
        self.send(route, unknown.encode());
    }

    fn on_expiry(&mut self, now: Instant, slot: Slot) {
        self.expiries.pop_first();
        let Some(registration) = self.registrations.get_mut(slot) else { return };
        let end = registration.heard + EXPIRY;
        if end > now {
            registration.expires = end;
            self.expiries.insert((end, slot));
        } else {
            self.count("expired");
            self.remove(now, slot);
            self.tell_touched(now);
        }
    }

    fn refuse(&mut self, now: Instant, route: Route, nonce: [u8; 16], reason: Reason, retry_s: u16) -> bool {
        self.count(reason.word());
        if self.refusals.allow(now) {
            self.send(route, Refused { version: VERSION, reason, nonce, retry_s }.encode());
        }
        false
    }

    fn send(&mut self, route: Route, payload: Vec<u8>) {
        debug_assert!(payload.len() <= wire::MAX_DATAGRAM, "frames are filled up to the limit only");
        let Route { socket, local, remote } = route;
        self.transmits.push_back(Transmit { socket, src: local, to: remote, ttl: None, tos: 0, payload });
    }

    fn send_items(&mut self, slot: Slot, items: &[u8]) {
        let Some(registration) = self.registrations.get_mut(slot) else { return };
        let (route, frame) = (registration.route, registration.seal(items));
        self.send(route, frame);
    }

    fn count(&mut self, word: &'static str) {
        *self.counters.entry(word).or_default() += 1;
    }

    fn drop(&mut self, word: &'static str) -> bool {
        self.count(word);
        false
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("registrations", &self.registrations.len()).finish_non_exhaustive()
    }
}
