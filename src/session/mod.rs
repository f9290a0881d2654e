//! L2: the keys of one peer over time. Knows no address: what it wants to send goes out by
//! [`Session::poll_transmit`], and its parent chooses the way.
//!
//! # One session's life
//!
//! [`Session::connect`] begins an attempt: an initiation, sent again and again (`attempt.rs`). Either side may
//! begin. The peer answers by [`Session::handle_initiation`]; its keys stand in `next` and seal nothing until
//! a packet is opened under them (`keys.rs`). [`Session::handle_response`] makes the initiator's keys
//! `current` at once, and a `Control::Nothing` goes out under them, again and again until something comes
//! back: it is what lets the responder speak.
//!
//! **Crossing.** Both sides are told to start at the same moment, so two initiations usually cross. The lower
//! peer id's survives: that side does not answer while its own attempt is young, it sends its own again; the
//! other side answers and holds its own back. If the survivor's messages do not get through, it answers after
//! all; when both handshakes complete, both sides hold both keys, and any of them will do.
//!
//! **New keys** are made at 120 s by the initiator, at 150 s by the responder, or after 2^30 packets; old ones
//! open what is still on its way. All keys refuse at 180 s. The initiator counts from its initiation, the responder
//! from its response; so that the responder is in time, a response that comes long after its initiation is refused.
//!
//! **Death.** Who opened data and has sealed nothing for 2 s says `Nothing`. Who sealed data and has opened
//! nothing for 6 s begins a new attempt, beside the keys it has: the peer may have restarted.
//!
//! **Replay.** An initiation counts only if its number is above all that were taken. The same one again gets
//! the same response, while that still waits to be proven: copies come by several paths, and answers get lost.

mod attempt;
mod handshake;
mod indices;
mod keys;
mod numbers;
#[cfg(test)]
mod tests;
mod time;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

pub use self::handshake::{Initiation, Proof, Refusal, check_member, prove_source, read_initiation};
pub use self::indices::Indices;
pub use self::keys::{DATA_WINDOW, DataOpener, Opening, REKEY_INITIATOR, REKEY_PACKETS, REKEY_RESPONDER};
pub use self::numbers::Numbers;
pub use crate::crypto::seal::{OpenError, SealError, SealingKey};
pub use crate::wire::session::Channel;

use self::attempt::Attempt;
use self::handshake::{Answer, read_response};
use self::keys::{Agreement, Keys, Place, Slots};
use crate::crypto::cookie::Cookie;
use crate::crypto::seal::LIFETIME;
use crate::crypto::{Identity, Signed, Suite};
use crate::id::PeerId;
use crate::sans::{Instant, RateLimit, Rng};
use crate::wire::session::{CookieReply, HEADER, Header, OVERHEAD};

/// While its own attempt is younger, the lower peer id does not answer. Just below the fourth sending of the
/// other side (1.75 s), so that one is answered.
const CROSSING: Duration = Duration::from_millis(1_500);
/// Who answered waits this long before it goes on with an attempt of its own.
const ANSWERED: Duration = Duration::from_secs(1);
/// Who opened data and sealed nothing for so long says `Nothing`.
const SILENCE: Duration = Duration::from_secs(2);
/// Who sealed data and opened nothing for so long doubts the session: three `Nothing`s were lost.
const DEATH: Duration = Duration::from_secs(6);
/// When to try again if no number or index was to be had.
const RETRY: Duration = Duration::from_millis(20);
/// Handshakes that one peer may begin in a second, and at once.
const ANSWERS: (u32, u32) = (4, 8);

/// What a session needs of its node. All sessions of a node share one.
pub struct Env<'a> {
    /// Who we are.
    pub identity: &'a Identity,
    /// Our indices.
    pub indices: &'a mut Indices,
    /// Our numbers.
    pub numbers: &'a mut Numbers,
    /// Our randomness.
    pub rng: &'a mut Rng,
    /// What we say about ourselves, in every handshake.
    pub announcement: &'a Signed,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Our initiation was answered: packets can be sealed.
    Established {
        /// With what.
        suite: Suite,
    },
    /// The peer has proven the keys of its initiation: packets can be sealed.
    Confirmed {
        /// With what.
        suite: Suite,
    },
    /// The last keys expired: nothing can be sealed. An attempt goes on until [`Session::close`].
    Expired,
}

/// A datagram that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Which stream it is of.
    pub channel: Channel,
    /// Where inner kind and body are in the datagram.
    pub body: Range<usize>,
}

/// One peer's keys over time.
pub struct Session {
    local: PeerId,
    peer: PeerId,
    x25519: [u8; 32],
    wanted: bool,
    attempt: Option<Attempt>,
    /// No attempt begins before.
    not_before: Instant,
    slots: Slots,
    /// The highest number of an initiation that was answered.
    newest: Option<u64>,
    answers: RateLimit,
    cookie: Option<(Cookie, Instant)>,
    /// The current keys are ours to prove: when to say `Nothing` next, and how often that was said.
    proving: Option<(Instant, usize)>,
    /// The first data sealed since anything was opened.
    unanswered: Option<Instant>,
    /// The first data opened since anything was sealed.
    unacknowledged: Option<Instant>,
    /// Indices to release.
    freed: Vec<u32>,
    transmits: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

impl Session {
    /// No keys yet, and none wanted.
    pub fn new(local: PeerId, peer: PeerId, x25519: [u8; 32]) -> Self {
        Self {
            local,
            peer,
            x25519,
            wanted: false,
            attempt: None,
            not_before: Instant::ZERO,
            slots: Slots::default(),
            newest: None,
            answers: RateLimit::new(ANSWERS.0, ANSWERS.1),
            cookie: None,
            proving: None,
            unanswered: None,
            unacknowledged: None,
            freed: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The highest number of an initiation that was answered.
    pub const fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// Initiations up to the number `newest` were seen in an earlier run.
    pub fn remember(&mut self, newest: u64) {
        self.newest = self.newest.max(Some(newest));
    }

    /// Wants a session from now on, until [`Session::close`].
    pub fn connect(&mut self, _now: Instant) {
        self.wanted = true;
    }

    /// There may be a new way: what waits for an answer is sent again at once, at the quick pace.
    pub fn restart(&mut self, now: Instant) {
        if let Some(attempt) = &mut self.attempt {
            attempt.restart(now);
        }
    }

    /// Takes an initiation of this session's peer; a response goes back the way it came.
    pub fn handle_initiation(
        &mut self,
        now: Instant,
        env: &mut Env<'_>,
        initiation: Initiation,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let from = initiation.announcement();
        if from.peer != self.peer || from.x25519 != self.x25519 {
            return Err(Refusal::Identity);
        }
        match self.newest.map_or(Ordering::Greater, |newest| initiation.number().cmp(&newest)) {
            Ordering::Less => return Err(Refusal::Replayed),
            Ordering::Equal => return Ok(self.slots.next.as_ref().and_then(|keys| keys.response.clone())),
            Ordering::Greater => {}
        }
        if self.insists(now) {
            return Ok(None);
        }
        self.answer(now, env, initiation).map(Some)
    }

    /// Whether our own initiation survives the one that came.
    fn insists(&mut self, now: Instant) -> bool {
        match &mut self.attempt {
            Some(attempt) if self.local < self.peer && now.since(attempt.since) < CROSSING => {
                attempt.hasten(now);
                true
            }
            _ => false,
        }
    }

    fn answer(&mut self, now: Instant, env: &mut Env<'_>, initiation: Initiation) -> Result<Vec<u8>, Refusal> {
        if !self.answers.allow(now) {
            return Err(Refusal::TooMany);
        }
        let suite = initiation.suite(env.identity)?;
        let (number, remote, features) = (initiation.number(), initiation.sender(), initiation.features());
        let local = env.indices.allocate(now, self.peer, env.rng).ok_or(Refusal::TooMany)?;
        let (response, split) = match initiation.respond(env.identity, env.announcement, local, suite) {
            Ok(made) => made,
            Err(refusal) => {
                env.indices.release(now, local);
                return Err(refusal);
            }
        };
        let mut keys = Keys::new(Agreement { local, remote, initiator: false, suite, features, born: now }, &split);
        keys.response = Some(response.clone());
        let unproven = self.slots.next.replace(keys).map(|keys| keys.agreed.local);
        self.free(unproven);
        self.newest = Some(number);
        self.not_before = now + ANSWERED;
        if let Some(attempt) = &mut self.attempt {
            attempt.hold_until(self.not_before);
        }
        debug!(peer = ?self.peer, "answered an initiation");
        Ok(response)
    }

    /// Takes the response to our initiation; the peer's announcement.
    pub fn handle_response(&mut self, now: Instant, env: &mut Env<'_>, bytes: &[u8]) -> Result<Signed, Refusal> {
        let frame = read_response(env.identity, bytes)?;
        let awaits = |a: &&mut Attempt| a.index == frame.receiver && !a.is_late(now);
        let attempt = self.attempt.as_mut().filter(awaits).ok_or(Refusal::Unexpected)?;
        let Answer { remote, suite, features, announcement, split } =
            attempt.pending.finish(env.identity, (&self.peer, &self.x25519), &frame)?;
        let (local, born) = (attempt.index, attempt.made);
        self.attempt = None;
        let keys = Keys::new(Agreement { local, remote, initiator: true, suite, features, born }, &split);
        let freed = self.slots.install(keys);
        self.free(freed);
        self.on_new_keys();
        self.events.push_back(Event::Established { suite });
        self.proving = Some((now, 0));
        self.prove(now, env.rng);
        debug!(peer = ?self.peer, %suite, "session established");
        Ok(announcement)
    }

    /// Takes a cookie reply; whether it answers our initiation.
    pub fn handle_cookie_reply(&mut self, now: Instant, bytes: &[u8]) -> bool {
        let Ok(reply) = CookieReply::decode(bytes) else { return false };
        let Some(attempt) = self.attempt.as_mut().filter(|a| a.index == reply.receiver) else { return false };
        let Some(cookie) = attempt.pending.open_cookie(&reply) else { return false };
        if self.cookie.is_none_or(|(known, _)| known != cookie) {
            attempt.hasten(now);
        }
        self.cookie = Some((cookie, now));
        true
    }

    /// Whether packets can be sealed.
    pub fn is_established(&self, now: Instant) -> bool {
        self.slots.current.as_ref().is_some_and(|keys| now < keys.expires_at())
    }

    /// Seals in place: `datagram` is 8 bytes of room, inner kind and body, 16 bytes of room.
    pub fn seal(&mut self, now: Instant, channel: Channel, datagram: &mut [u8]) -> Result<(), SealError> {
        let keys = self.slots.current.as_ref().ok_or(SealError::NotEstablished)?;
        keys.seal(now, channel, datagram)?;
        self.unacknowledged = None;
        if channel == Channel::Data {
            self.data_sealed(now);
        }
        Ok(())
    }

    /// Data was sealed at `at`: by whoever has [`Session::sealing_key`].
    pub fn data_sealed(&mut self, at: Instant) {
        self.unacknowledged = None;
        self.unanswered.get_or_insert(at);
    }

    /// Data was opened at `at`: by whoever has [`Session::data_openers`].
    pub fn data_opened(&mut self, at: Instant) {
        let has_opened = |slot: &Option<Keys>| slot.as_ref().is_some_and(|keys| keys.data_opener().has_opened());
        self.unanswered = None;
        if has_opened(&self.slots.next) {
            self.promote(at);
        } else if has_opened(&self.slots.current) {
            self.proving = None;
        }
        self.unacknowledged.get_or_insert(at);
    }

    /// The key that [`Session::seal`] uses on `channel`, for whoever seals past this.
    pub fn sealing_key(&self, channel: Channel) -> Option<Arc<SealingKey>> {
        self.slots.current.as_ref().map(|keys| keys.sealing(channel).clone())
    }

    /// The indices and the openers of the data channel, for whoever opens past this: those in use, those before them, and
    /// those that come. None as long as none are in use: what comes first decides more than who may open it.
    pub fn data_openers(&self) -> impl Iterator<Item = (u32, Arc<DataOpener>)> {
        let Slots { previous, current, next } = &self.slots;
        let all = [current, previous, next].into_iter().flatten().filter(|_| current.is_some());
        all.map(|keys| (keys.agreed.local, keys.data_opener().clone()))
    }

    /// Opens in place what was sealed for an index of ours. What fails leaves no trace but a changed buffer.
    pub fn open(&mut self, now: Instant, datagram: &mut [u8]) -> Result<Opened, OpenError> {
        let header = Header::decode(datagram).map_err(|_| OpenError::Malformed)?;
        let (place, body) = self.slots.open(now, &header, datagram)?;
        self.unanswered = None;
        match place {
            Place::Next => self.promote(now),
            Place::Current => self.proving = None,
            Place::Previous => {}
        }
        if header.channel == Channel::Data {
            self.unacknowledged.get_or_insert(now);
        }
        Ok(Opened { channel: header.channel, body })
    }

    /// The peer has proven the keys of its initiation.
    fn promote(&mut self, now: Instant) {
        let freed = self.slots.promote();
        self.free(freed);
        self.on_new_keys();
        let abandoned = self.attempt.take().map(|attempt| attempt.index);
        self.free(abandoned);
        self.proving = None;
        self.say_nothing(now);
        if let Some(suite) = self.suite() {
            self.events.push_back(Event::Confirmed { suite });
            debug!(peer = ?self.peer, %suite, "session confirmed");
        }
    }

    fn on_new_keys(&mut self) {
        self.wanted = true;
        self.unanswered = None;
        self.unacknowledged = None;
    }

    /// A handshake message or a `Nothing` to send. Call until `None` after every other call.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// Whether [`Session::poll_event`] has something to tell.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// What happened. Call until `None` after every other call.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Queues a `Control::Nothing`: one zero byte, sealed.
    fn say_nothing(&mut self, now: Instant) {
        let mut datagram = vec![0; OVERHEAD];
        debug_assert_eq!(datagram[HEADER], 0, "the inner kind of Control::Nothing");
        if self.seal(now, Channel::Control, &mut datagram).is_ok() {
            self.transmits.push_back(datagram);
        }
        self.unacknowledged = None;
    }

    /// Forgets all keys and wants none. Numbers stay known, so nothing old is taken later.
    pub fn close(&mut self, now: Instant, env: &mut Env<'_>) {
        let indices = self.slots.clear().chain(self.attempt.take().map(|attempt| attempt.index));
        for index in indices.chain(self.freed.drain(..)) {
            env.indices.release(now, index);
        }
        self.wanted = false;
        self.proving = None;
        self.unanswered = None;
        self.unacknowledged = None;
        self.transmits.clear();
        self.events.clear();
    }

    /// Age of the keys in use.
    pub fn handshake_age(&self, now: Instant) -> Option<Duration> {
        self.slots.current.as_ref().map(|keys| now.since(keys.agreed.born)).filter(|age| *age < LIFETIME)
    }

    /// The suite in use.
    pub fn suite(&self) -> Option<Suite> {
        self.slots.current.as_ref().map(|keys| keys.agreed.suite)
    }

    /// What the peer said it can do.
    pub fn peer_features(&self) -> Option<u32> {
        self.slots.current.as_ref().map(|keys| keys.agreed.features)
    }

    /// To be released at the next [`Session::handle_timeout`].
    fn free(&mut self, index: Option<u32>) {
        self.freed.extend(index);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("peer", &self.peer).field("slots", &self.slots).finish_non_exhaustive()
    }
}
