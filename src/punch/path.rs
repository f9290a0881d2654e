//! One way to a peer: what was sent on it, what came back, what is due next.
//!
//! A direct path climbs: *unknown* → *answering* (a small echo returned our fresh nonce) → *usable* (a full-size one
//! did as well). A path that answers but never passes full size is *narrow*: known, not used. A usable path that
//! falls silent is *in doubt*; two seconds later it is unknown again. A relay is usable from the start: the
//! channel is open on both ends.

mod due;

use std::net::IpAddr;
use std::time::Duration;

use super::ladder::{FULL, LATER, Ladder, ONCE, Rungs};
use super::window::{PathStats, Window};
use super::{PathKind, PathReport, Via};
use crate::sans::Instant;

/// Doubt of this age counts: data goes by a relay as well, other paths are preferred. Most doubts end sooner.
const DOUBT_COUNTS: Duration = Duration::from_millis(500);
/// A measuring probe is missed after so long, or after three round trips.
const MISSED: Duration = Duration::from_millis(500);
/// A direct path without an echo for so long sends data by a relay as well until one comes.
const UNSURE: Duration = Duration::from_secs(6);
/// A verified request, or data, restarts the search on its path after this gap, which doubles each time in vain…
const EAGER_GAP: Duration = Duration::from_secs(1);
/// …so often at most.
const EAGER_DOUBLINGS: u32 = 5;
/// A verified probe from an address so lately makes ours an answer.
const HEARD_LATELY: Duration = Duration::from_secs(4);
/// Requests that follow each other this closely say that the peer is in doubt: perhaps our echoes, and our data,
/// do not arrive. Then we ask as well, once in this time.
const HURRIED: Duration = Duration::from_secs(1);

/// What a path is to its peer at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Data goes here.
    Used,
    /// It could.
    Other,
    /// It seems better than where data goes.
    Rival,
    /// A relay while data goes directly.
    Standby,
}

/// A request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Low TTL: opens our NAT.
    Prime,
    /// Smallest.
    Small,
    /// As long as the largest data.
    Full,
}

/// One way to a peer.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) via: Via,
    pub(super) kind: PathKind,
    /// The peer announced it; otherwise it is peer-reflexive.
    pub(super) announced: bool,
    /// Our address on it.
    pub(super) local: Option<IpAddr>,
    pub(super) window: Window,
    /// Full-size probes were answered; always so on a relay.
    usable: bool,
    narrow: bool,
    prime: bool,
    small: Ladder,
    full: Ladder,
    /// The last echo.
    proven: Option<Instant>,
    /// The last full-size echo.
    proven_full: Option<Instant>,
    /// The last request sent, and how many there were.
    asked: Option<Instant>,
    requests: u32,
    /// The first request that should have been echoed since the last echo.
    waiting: Option<Instant>,
    /// Since when it is in doubt.
    doubt: Option<Instant>,
    /// That it counts was said.
    doubt_told: bool,
    /// The first data sent since something authenticated was received.
    unanswered: Option<Instant>,
    /// The last data, either way.
    data: Option<Instant>,
    /// The last data received.
    received: Option<Instant>,
    /// The last verified request.
    pub(super) heard: Option<Instant>,
    eager: Option<Instant>,
    /// Restarts in vain.
    vain: u32,
    kept: Option<Instant>,
    held: Instant,
    /// How long a measuring probe may take.
    patience: Duration,
}

impl Path {
    /// A direct path of which nothing is known.
    pub(super) fn new(via: Via, kind: PathKind, announced: bool) -> Self {
        Self {
            via,
            kind,
            announced,
            local: None,
            window: Window::default(),
            usable: false,
            narrow: false,
            prime: false,
            small: Ladder::STOPPED,
            full: Ladder::STOPPED,
            proven: None,
            proven_full: None,
            asked: None,
            requests: 0,
            waiting: None,
            doubt: None,
            doubt_told: false,
            unanswered: None,
            data: None,
            received: None,
            heard: None,
            eager: None,
            vain: 0,
            kept: None,
            held: Instant::ZERO,
            patience: MISSED,
        }
    }

    /// A channel of a relay, open on both ends.
    pub(super) fn relay(relay: impl Into<Via>) -> Self {
        Self { usable: true, ..Self::new(relay.into(), PathKind::Relay, true) }
    }

    // ---- what it is ----

    /// Whether data may go here.
    pub(super) const fn is_usable(&self) -> bool {
        self.usable
    }

    /// Whether an echo came and the path has not died since.
    pub(super) const fn is_proven(&self) -> bool {
        self.proven.is_some()
    }

    /// Whether a prime is still to be sent.
    pub(super) const fn is_priming(&self) -> bool {
        self.prime
    }

    /// Whether it was tried in vain, and nothing comes from there.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        let trying = self.prime || self.small.is_climbing() || self.full.is_climbing();
        let received_lately = self.received.is_some_and(|at| now - at <= HEARD_LATELY);
        !self.is_proven() && !trying && !self.was_heard(now) && !received_lately
    }

    /// Whether no data has come or gone for so long.
    pub(super) fn is_idle(&self, now: Instant, idle: Duration) -> bool {
        self.data.is_none_or(|at| now - at >= idle)
    }

    /// Whether it is in doubt long enough for that to count.
    pub(super) fn is_doubtful(&self, now: Instant) -> bool {
        self.doubtful_since(now).is_some()
    }

    /// Since when it is in doubt, if long enough for that to count.
    pub(super) fn doubtful_since(&self, now: Instant) -> Option<Instant> {
        self.doubt.filter(|since| now - *since >= DOUBT_COUNTS)
    }

    /// Whether data should go by a relay as well.
    pub(super) fn is_unsure(&self, now: Instant) -> bool {
        self.via.is_direct() && (self.is_doubtful(now) || self.proven.is_none_or(|at| now - at >= UNSURE))
    }

    /// Whether a verified probe came from there a moment ago.
    pub(super) fn was_heard(&self, now: Instant) -> bool {
        self.heard.is_some_and(|at| now - at <= HEARD_LATELY)
    }

    /// The last minute.
    pub(super) fn stats(&self, now: Instant) -> PathStats {
        self.window.stats(now, self.narrow)
    }

    /// For people and for tests.
    pub(super) fn report(&self, now: Instant) -> PathReport {
        PathReport {
            via: self.via,
            kind: self.kind,
            usable: self.usable,
            proven: self.proven.map(|at| now - at),
            narrow: self.narrow,
            asked: self.requests,
            heard: self.heard.map(|at| now - at),
            stats: self.stats(now),
        }
    }

    // ---- the search ----

    /// Has our NAT opened towards it, unless it is open.
    pub(super) const fn prime(&mut self) {
        if !self.is_proven() && self.full.is_stopped() {
            self.prime = true;
            self.small = Ladder::STOPPED;
        }
    }

    /// Starts trying, unless it is proven.
    pub(super) const fn search(&mut self, now: Instant, rungs: Rungs) {
        if !self.is_proven() {
            self.small = Ladder::start(now, rungs);
        }
    }

    /// Stops trying what lies more than `offset` ahead: something else works.
    pub(super) fn relax(&mut self, offset: Duration) {
        if !self.is_proven() && self.eager.is_none() {
            self.small.cut(offset);
        }
    }

    /// The peer's packets come this way, so ours may pass the other way: asks at once, in both sizes.
    pub(super) fn be_eager(&mut self, now: Instant) {
        let gap = EAGER_GAP * (1 << self.vain.min(EAGER_DOUBLINGS));
        if self.is_proven() || self.eager.is_some_and(|at| now - at < gap) {
            return;
        }
        self.vain += u32::from(self.eager.is_some());
        self.eager = Some(now);
        self.small = Ladder::start(now, LATER);
        self.full = Ladder::start(now, FULL);
    }

    // ---- what comes in ----

    /// A verified request came this way.
    pub(super) fn on_request(&mut self, now: Instant, local: Option<IpAddr>) {
        let hurried = self.heard.replace(now).is_some_and(|at| now - at < HURRIED);
        self.local = local.or(self.local);
        if !self.via.is_direct() {
            return;
        }
        self.be_eager(now);
        if hurried && self.is_proven() && !self.small.is_climbing() && self.asked.is_none_or(|at| now - at >= HURRIED) {
            self.small = Ladder::start(now, ONCE);
        }
    }

    /// An echo came this way. `false` if it proves nothing.
    pub(super) fn on_echo(&mut self, now: Instant, local: Option<IpAddr>, nonce: u64, len: usize) -> bool {
        let Some(answered) = self.window.echoed(now, nonce, len) else { return false };
        self.local = local.or(self.local);
        self.proven = Some(now);
        self.patience = self.window.rtt(now).map_or(MISSED, |rtt| MISSED.max(rtt * 3));
        (self.waiting, self.doubt, self.unanswered, self.eager) = (None, None, None, None);
        (self.prime, self.small, self.vain) = (false, Ladder::STOPPED, 0);
        // What goes by a stream is of any size.
        if answered.full || self.via.is_stream() {
            self.proven_full = Some(now);
            (self.usable, self.narrow) = (true, false);
            self.full = Ladder::STOPPED;
        } else if self.via.is_direct() && !self.usable && !self.narrow && self.full.is_stopped() {
            self.full = Ladder::start(now, FULL);
        }
        true
    }

    /// Authenticated traffic came this way.
    pub(super) fn on_received(&mut self, now: Instant) {
        self.received = self.received.max(Some(now));
        self.unanswered = None;
        self.touch(now);
        if self.via.is_direct() {
            self.be_eager(now);
        }
    }

    /// Data goes this way.
    pub(super) fn on_data_sent(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
        self.touch(now);
    }

    /// Data will go here: the NAT's mapping is to be kept.
    pub(super) fn on_chosen(&mut self, now: Instant) {
        if !self.via.is_direct() {
            // It is not blamed for what was not answered when it was used before.
            (self.unanswered, self.waiting) = (None, None);
        }
        self.kept.get_or_insert(now);
    }

    fn touch(&mut self, now: Instant) {
        self.data = Some(now);
        self.kept.get_or_insert(now);
    }
}
