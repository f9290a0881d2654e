//! How a client gets a registration, or gets it again: Hello to every address in turn, Register with the first
//! that answers. An attempt runs beside a registration that stands; nothing is given up before the new one is there.

use std::net::SocketAddr;
use std::time::Duration;

use super::Client;
use super::link::{Link, Place};
use crate::crypto::Identity;
use crate::crypto::dh::Secret;
use crate::crypto::registration::{self, Keys};
use crate::id::ServerKey;
use crate::sans::Instant;
use crate::wire::VERSION;
use crate::wire::rendezvous::{Claim, Cookie, Hello, Reason, Refused};

use super::Event;

/// Pauses after the rounds of Hellos: quick while a restart is likely, then slowly.
const HELLO_PAUSES: [Duration; 12] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(1500),
    Duration::from_secs(2),
    Duration::from_secs(2),
    Duration::from_secs(2),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(27),
];
/// From this round on the server counts as unreachable, and its name is looked up again.
const UNREACHABLE_ROUND: usize = 4;
/// Pauses after each Register; the server may need 500 ms to find out whether an older registration lives.
const REGISTER_PAUSES: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(400),
    Duration::from_millis(600),
    Duration::from_secs(1),
    Duration::from_secs(1),
];
/// Hellos whose answer is still understood.
const REMEMBERED_HELLOS: usize = 16;
/// No fresh number yet: the shell is just reserving some.
const NUMBER_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause after a refusal.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where an attempt stands.
#[derive(Debug)]
pub(super) enum Attempt {
    /// None runs.
    Idle,
    /// Hellos go out.
    Greeting { number: u64, round: usize, due: Instant },
    /// A server answered.
    Registering(Box<Registering>),
    /// Refused; again later.
    Paused { until: Instant },
}

#[derive(Debug)]
pub(super) struct Registering {
    pub(super) link: Link,
    register: Vec<u8>,
    nonce: [u8; 16],
    number: u64,
    /// The Cookie that this is based on came in this round of Hellos.
    round: usize,
    sent: usize,
    due: Instant,
}

/// A Hello that may still be answered.
#[derive(Debug)]
pub(super) struct SentHello {
    nonce: [u8; 16],
    to: Place,
    at: Instant,
    /// Its answer came: a second one is a replay, unless our Register is answered so.
    answered: bool,
}

impl Attempt {
    /// When something is to be done.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Idle => None,
            Self::Greeting { due, .. } | Self::Paused { until: due } => Some(*due),
            Self::Registering(registering) => Some(registering.due),
        }
    }

    /// The registration that is being made.
    pub(super) fn link(&mut self) -> Option<&mut Link> {
        match self {
            Self::Registering(registering) => Some(&mut registering.link),
            _ => None,
        }
    }
}

impl Client {
    /// Starts what is wanted and does what is due.
    pub(super) fn advance_attempt(&mut self, now: Instant, number: &mut dyn FnMut() -> Option<u64>) {
        let wanted = self.begin_at.take_if(|at| *at <= now).is_some();
        let needed = self.link.is_none() && matches!(self.attempt, Attempt::Idle);
        if needed || (wanted && !matches!(self.attempt, Attempt::Registering(_))) {
            self.begin(now, number);
        }
        if self.attempt.due().is_none_or(|due| due > now) {
            return;
        }
        match &mut self.attempt {
            Attempt::Idle => {}
            Attempt::Paused { .. } => self.begin(now, number),
            Attempt::Greeting { .. } => self.greet(now),
            Attempt::Registering(_) => self.repeat_register(now),
        }
        if matches!(self.attempt, Attempt::Greeting { due, .. } if due <= now) {
            self.greet(now);
        }
    }

    fn begin(&mut self, now: Instant, number: &mut dyn FnMut() -> Option<u64>) {
        if self.addresses.is_empty() || self.leaving.is_some() {
            return;
        }
        self.attempt = match number() {
            Some(number) => Attempt::Greeting { number, round: 0, due: now },
            None => Attempt::Paused { until: now + NUMBER_PAUSE },
        };
    }

    /// One round of Hellos: one to each family, the next address of each.
    fn greet(&mut self, now: Instant) {
        let Attempt::Greeting { round, .. } = self.attempt else { return };
        if round >= UNREACHABLE_ROUND {
            if self.link.is_some() {
                // The registration that stands will show by itself whether the server is there, or its name that
                // it moved.
                self.attempt = Attempt::Idle;
                self.ask_to_resolve(now);
                return;
            }
            self.unreachable(now);
        }
        self.greet_by_udp(now, round);
        if let Some(stream) = self.stream_to_greet(now) {
            self.hello(now, stream);
        }
        let pause = HELLO_PAUSES[round.min(HELLO_PAUSES.len() - 1)];
        let due = now + pause + self.rng.between(Duration::ZERO, pause / 10);
        if let Attempt::Greeting { round, due: next, .. } = &mut self.attempt {
            (*round, *next) = (*round + 1, due);
        }
    }

    /// One Hello by UDP to each family.
    pub(super) fn greet_by_udp(&mut self, now: Instant, round: usize) {
        let families: &[bool] = if self.streams.udp { &[false, true] } else { &[] };
        for &is_v4 in families {
            let family: Vec<SocketAddr> = self.addresses.iter().copied().filter(|a| a.is_ipv4() == is_v4).collect();
            if let Some(to) = family.get(round % family.len().max(1)) {
                self.hello(now, Place::udp(*to));
            }
        }
    }

    fn unreachable(&mut self, now: Instant) {
        let asked: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let by_stream = self.streams.problem().map(|problem| format!("; {problem}")).unwrap_or_default();
        self.trouble(super::Trouble::Unreachable, format!("no answer from {}{by_stream}", asked.join(" or ")));
        self.ask_to_resolve(now);
    }

    /// Asks `to` for a cookie, which also tells how it sees us.
    pub(super) fn hello(&mut self, now: Instant, to: Place) {
        let nonce = self.rng.array();
        match to.socket.is_stream() {
            true => self.streams.asked_stream(now, to),
            false => self.streams.asked_udp(now),
        }
        while self.hellos.len() >= REMEMBERED_HELLOS {
            self.hellos.pop_front();
        }
        self.hellos.push_back(SentHello { nonce, to, at: now, answered: false });
        let hello = Hello { version: VERSION, nonce, asked: Some(to.addr) };
        self.queue.push_back((to.socket, to.addr, hello.encode()));
    }

    pub(super) fn on_cookie(&mut self, now: Instant, identity: &Identity, from: Place, cookie: &Cookie) -> bool {
        let renewed = match &self.attempt {
            Attempt::Registering(r) => r.link.at == from && r.nonce == cookie.nonce && r.sent > 1,
            _ => false,
        };
        let asked = |hello: &&mut SentHello| hello.to == from && hello.nonce == cookie.nonce;
        let Some(hello) = self.hellos.iter_mut().find(asked).filter(|hello| renewed || !hello.answered) else {
            return false;
        };
        hello.answered = true;
        let round_trip = now - hello.at;
        if cookie.version != VERSION {
            self.refused(now, from, Reason::Version, 0, cookie.version);
            return true;
        }
        if self.pin.is_some_and(|pin| pin != cookie.server) {
            self.wrong_key(now, from, &cookie.server);
            return true;
        }
        if self.taken.contains(&cookie.server) {
            self.pause(now, LONGEST_PAUSE, "net.toml names this rendezvous twice; remove one of the two");
            return true;
        }
        self.observed(from.socket, cookie.observed);
        match &self.attempt {
            Attempt::Greeting { number, round, .. } => {
                let (number, round) = (*number, *round);
                self.measured(round_trip);
                self.register(now, identity, from, cookie, number, round);
            }
            // Our cookie was too old: the server answered the Register with a new one.
            Attempt::Registering(r) if renewed => {
                let (number, round) = (r.number, r.round);
                self.register(now, identity, from, cookie, number, round);
            }
            // UDP was asked beside a stream, and passes again.
            Attempt::Idle if !from.socket.is_stream() && self.is_by_stream() => self.begin_at = Some(now),
            _ => {}
        }
        true
    }

    fn register(&mut self, now: Instant, identity: &Identity, to: Place, cookie: &Cookie, number: u64, round: usize) {
        let ephemeral = Secret::generate(&mut self.rng);
        let claim = Claim {
            version: VERSION,
            nonce: cookie.nonce,
            cookie: cookie.cookie,
            asked: Some(to.addr),
            server: cookie.server,
            ephemeral: ephemeral.public(),
            network: identity.network.id(),
            peer: identity.device.id(),
            number,
            boot: self.boot,
            epoch: identity.network.epoch(),
            handle: self.rng.u32(),
        };
        let register = registration::sign(claim.encode(), |m| identity.network.sign(m), |m| identity.device.sign(m));
        let Some(keys) = Keys::derive(&ephemeral, &cookie.server.0, &register) else {
            return self.wrong_key(now, to, &cookie.server);
        };
        let link = Link::new(to, cookie.server, keys, claim.handle);
        self.wishes.registering(now);
        self.queue.push_back((to.socket, to.addr, register.clone()));
        let due = now + REGISTER_PAUSES[0];
        let nonce = cookie.nonce;
        self.attempt =
            Attempt::Registering(Box::new(Registering { link, register, nonce, number, round, sent: 1, due }));
    }

    fn repeat_register(&mut self, now: Instant) {
        let Attempt::Registering(registering) = &mut self.attempt else { return };
        match REGISTER_PAUSES.get(registering.sent) {
            Some(pause) => {
                let Place { socket, addr } = registering.link.at;
                self.queue.push_back((socket, addr, registering.register.clone()));
                (registering.sent, registering.due) = (registering.sent + 1, now + *pause);
            }
            None => {
                let (number, round) = (registering.number, registering.round.max(1));
                self.attempt = Attempt::Greeting { number, round, due: now };
            }
        }
    }

    pub(super) fn on_refused(&mut self, now: Instant, from: Place, refused: &Refused) -> bool {
        let ours = match &self.attempt {
            Attempt::Registering(registering) => registering.link.at == from && registering.nonce == refused.nonce,
            Attempt::Greeting { .. } => self.hellos.iter().any(|h| h.to == from && h.nonce == refused.nonce),
            Attempt::Idle | Attempt::Paused { .. } => false,
        };
        if ours {
            self.refused(now, from, refused.reason, refused.retry_s, refused.version);
        }
        ours
    }

    fn refused(&mut self, now: Instant, from: Place, reason: Reason, retry_s: u16, version: u8) {
        if reason == Reason::Duplicate {
            self.events.push_back(Event::Duplicate);
        }
        let pause = Duration::from_secs(u64::from(retry_s).max(1));
        self.pause(now, pause, &format!("{} {}", from.addr, text(reason, version)));
    }

    fn wrong_key(&mut self, now: Instant, from: Place, found: &ServerKey) {
        let from = from.addr;
        let text = match self.pin {
            Some(pin) => format!(
                "{from} has the key {found}, but net.toml pins {pin}, so this machine does not register with it: either \
                 its key was made anew (ask its owner, then change what is behind '#' in net.toml) or somebody stands \
                 in between"
            ),
            None => format!("{from} has the key {found}, which no rendezvous of ours makes: ask its owner"),
        };
        self.pause(now, LONGEST_PAUSE, &text);
    }

    /// Ends the attempt; the next after `at_least`, longer each time.
    fn pause(&mut self, now: Instant, at_least: Duration, text: &str) {
        let growing = Duration::from_secs(1 << self.refusals.min(5));
        self.refusals += 1;
        let pause = growing.max(at_least).min(LONGEST_PAUSE);
        let until = now + pause + self.rng.between(Duration::ZERO, pause / 10);
        if self.link.is_some() {
            // What stands will show by itself whether it is still good.
            self.attempt = Attempt::Idle;
        } else {
            self.attempt = Attempt::Paused { until };
            self.trouble(super::Trouble::Refused, text.to_owned());
        }
    }
}

/// Why a server said no, for people.
pub(super) fn text(reason: Reason, version: u8) -> String {
    match reason {
        Reason::Version => {
            format!("speaks protocol version {version}, this program speaks {VERSION}: update the older one")
        }
        Reason::Busy => "has too many requests just now; trying again soon".into(),
        Reason::Full => "holds as many registrations as it may".into(),
        Reason::NetworkFull => "holds as many members of this network as it may".into(),
        Reason::PrefixFull => "holds as many registrations from this address range as it may".into(),
        Reason::NotAllowed => "does not serve this network: its owner must add the network's id to `allow`".into(),
        Reason::Forged => "found a signature of ours wrong".into(),
        Reason::Stale => "has seen a newer registration of this device; trying again with a higher number".into(),
        Reason::Duplicate => {
            "has this very device registered from elsewhere: the state folder was copied; delete the copy".into()
        }
        Reason::ChannelsFull => "has no relay channel left for us".into(),
        Reason::NoSuchMember => "knows no such member".into(),
        Reason::RelayLimit => "has reached its limit for relayed traffic; it is slowed down".into(),
        Reason::Stopping => "is stopping".into(),
    }
}
