//! One way to a peer: what was sent on it, what came back, what is due next.
//!
//! A direct path climbs: *unknown* → *answering* (a small echo returned our fresh nonce) → *usable* (a full-size one
//! did as well). A path that answers but never passes full size is *narrow*: known, not used. A usable path that
//! falls silent is *in doubt*; two seconds later it is unknown again. A relay is usable from the start: the
//! channel is open on both ends.

use std::net::IpAddr;
use std::time::Duration;

use super::ladder::{DOUBT, FULL, LATER, Ladder, ONCE, Rungs};
use super::window::{PathStats, Window};
use super::{PathKind, PathReport, Via};
use crate::id::ServerId;
use crate::sans::Instant;

/// Data sent and nothing authenticated received for so long puts a path in doubt.
const SILENCE: Duration = Duration::from_secs(1);
/// A path in doubt without an echo for so long is dead.
const DOUBT_HOLDS: Duration = Duration::from_secs(2);
/// Unless data still arrives on it (a full queue delays echoes); this long at most.
const DOUBT_HOLDS_WITH_DATA: Duration = Duration::from_secs(6);
/// Doubt of this age counts: data goes by a relay as well, other paths are preferred. Most doubts end sooner.
const DOUBT_COUNTS: Duration = Duration::from_millis(500);
/// A measuring probe is missed after so long, or after three round trips.
const MISSED: Duration = Duration::from_millis(500);
/// A direct path without an echo for so long sends data by a relay as well until one comes.
const UNSURE: Duration = Duration::from_secs(6);
/// Measuring probes: on the path in use while data flows. All measuring falls on a grid of this step, so that
/// the probes of all peers leave, and their timers wake, together.
const MEASURE_ACTIVE: Duration = Duration::from_secs(5);
/// On the path in use without data: half of the shortest mapping lifetime of common NATs (30 s).
const MEASURE_IDLE: Duration = Duration::from_secs(15);
/// On alternatives: below the shortest mapping lifetime of common NATs.
const MEASURE_OTHER: Duration = Duration::from_secs(25);
/// Data flowed within this time: the path is active.
const ACTIVE: Duration = Duration::from_secs(30);
/// A path on which data flowed within this time is kept open in the NAT…
const KEPT: Duration = Duration::from_secs(60);
/// …by one byte every so often (grid step): half of the shortest mapping lifetime of common NATs.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Full size is tested again so often on the path in use and on narrow ones: routes change.
const FULL_AGAIN: Duration = Duration::from_secs(60);
/// The last full-size probe of a ladder is given this long.
const FULL_PATIENCE: Duration = Duration::from_secs(1);
/// A verified request, or data, restarts the search on its path after this gap, which doubles each time in vain…
const EAGER_GAP: Duration = Duration::from_secs(1);
/// …so often at most.
const EAGER_DOUBLINGS: u32 = 5;
/// A verified probe from an address so lately makes ours an answer.
const HEARD_LATELY: Duration = Duration::from_secs(4);
/// Requests that follow each other this closely say that the peer is in doubt: perhaps our echoes, and our data,
/// do not arrive. Then we ask as well, once in this time.
const HURRIED: Duration = Duration::from_secs(1);
/// A probe that the node's budget refused waits so long.
const HOLD: Duration = Duration::from_millis(20);

/// What a path is to its peer at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Data goes here.
    Used,
    /// It could.
    Other,
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
    /// The last request sent.
    asked: Option<Instant>,
    /// The first request that should have been echoed since the last echo.
    waiting: Option<Instant>,
    /// Since when it is in doubt.
    doubt: Option<Instant>,
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
            waiting: None,
            doubt: None,
            unanswered: None,
            data: None,
            received: None,
            heard: None,
            eager: None,
            vain: 0,
            kept: None,
            held: Instant::ZERO,
        }
    }

    /// A channel of `server`, open on both ends.
    pub(super) fn relay(server: ServerId) -> Self {
        Self { usable: true, ..Self::new(Via::Relay { server }, PathKind::Relay, true) }
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

    /// Whether it was tried in vain, and nothing comes from there.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        let trying = self.prime || self.small.is_climbing() || self.full.is_climbing();
        let received_lately = self.received.is_some_and(|at| now - at <= HEARD_LATELY);
        !self.is_proven() && !trying && !self.was_heard(now) && !received_lately
    }

    /// Whether it is in doubt long enough for that to count.
    pub(super) fn is_doubtful(&self, now: Instant) -> bool {
        self.doubt.is_some_and(|since| now - since >= DOUBT_COUNTS)
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
    fn be_eager(&mut self, now: Instant) {
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
        (self.waiting, self.doubt, self.unanswered, self.eager) = (None, None, None, None);
        (self.prime, self.small, self.vain) = (false, Ladder::STOPPED, 0);
        if answered.full {
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
        self.received = Some(now);
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
        self.kept.get_or_insert(now);
    }

    fn touch(&mut self, now: Instant) {
        self.data = Some(now);
        self.kept.get_or_insert(now);
    }

    // ---- what is due ----

    /// The request that is due.
    pub(super) fn due(&self, now: Instant, role: Role) -> Option<Ask> {
        let past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.held > now {
            None
        } else if self.prime {
            Some(Ask::Prime)
        } else if past(self.full.due()) {
            Some(Ask::Full)
        } else if past(self.small.due()) || past(self.measure_due(role)) {
            Some(Ask::Small)
        } else {
            None
        }
    }

    /// The due request leaves.
    pub(super) fn on_asked(&mut self, now: Instant, ask: Ask, nonce: u64, len: usize) {
        let expected = self.is_proven() || !self.via.is_direct();
        self.window.sent(now, nonce, len, expected && ask == Ask::Small);
        if expected && ask == Ask::Small {
            self.waiting.get_or_insert(now);
        }
        self.forgo(now, ask);
    }

    /// The due request is skipped.
    pub(super) fn forgo(&mut self, now: Instant, ask: Ask) {
        match ask {
            Ask::Prime => self.prime = false,
            Ask::Full => self.full.climb(now),
            Ask::Small => {
                self.asked = Some(now);
                if self.small.due().is_some_and(|at| at <= now) {
                    self.small.climb(now);
                }
            }
        }
    }

    /// The due request waits a moment.
    pub(super) fn hold(&mut self, now: Instant) {
        self.held = now + HOLD;
    }

    /// Time passes. Returns whether the path died.
    pub(super) fn handle_timeout(&mut self, now: Instant, role: Role) -> bool {
        self.test_full_size(now, role);
        if !self.via.is_direct() || !self.is_proven() {
            return false;
        }
        if self.doubt.is_none() && self.doubt_due(now).is_some_and(|at| at <= now) {
            self.doubt(now);
        }
        let died = self.death_due().is_some_and(|at| at <= now);
        if died {
            self.die();
        }
        died
    }

    /// Asks whether it is still alive.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.is_proven() && self.doubt.is_none() {
            self.doubt = Some(now);
            self.small = Ladder::start(now, DOUBT);
        }
    }

    fn die(&mut self) {
        (self.usable, self.narrow) = (false, false);
        (self.proven, self.proven_full, self.waiting, self.doubt, self.unanswered) = (None, None, None, None, None);
        (self.small, self.full, self.eager) = (Ladder::STOPPED, Ladder::STOPPED, None);
        self.window.forgive();
    }

    /// Ends a test of full size that failed; begins the next one.
    fn test_full_size(&mut self, now: Instant, role: Role) {
        if self.full.spent(FULL_PATIENCE).is_some_and(|at| at <= now) {
            let failed = self.is_proven() && self.proven_full.is_none_or(|at| at < self.full.begun());
            if failed {
                (self.narrow, self.usable) = (true, false);
            }
            if !self.narrow {
                self.full = Ladder::STOPPED;
            }
        }
        if self.full_due(role).is_some_and(|at| at <= now) {
            self.full = Ladder::start(now, FULL);
        }
    }

    fn full_due(&self, role: Role) -> Option<Instant> {
        if !self.via.is_direct() || !self.is_proven() || self.full.is_climbing() || self.doubt.is_some() {
            None
        } else if self.narrow {
            Some(align(self.full.begun() + FULL_AGAIN, MEASURE_ACTIVE))
        } else if role == Role::Used && self.full.is_stopped() && self.is_active(self.asked.unwrap_or(Instant::ZERO)) {
            self.proven_full.map(|at| align(at + FULL_AGAIN, MEASURE_ACTIVE))
        } else {
            None
        }
    }

    /// The next measuring probe: the first grid point after the last request.
    fn measure_due(&self, role: Role) -> Option<Instant> {
        if self.small.is_climbing() || (self.via.is_direct() && !self.is_proven()) {
            return None;
        }
        let Some(asked) = self.asked else { return Some(Instant::ZERO) };
        let interval = match role {
            Role::Used if self.is_active(asked) => MEASURE_ACTIVE,
            Role::Used => MEASURE_IDLE,
            Role::Other => MEASURE_OTHER,
            Role::Standby => return None,
        };
        Some(align(asked, interval))
    }

    /// When silence becomes doubt.
    fn doubt_due(&self, now: Instant) -> Option<Instant> {
        let patience = self.window.rtt(now).map_or(MISSED, |rtt| MISSED.max(rtt * 3));
        let silence = self.unanswered.map(|at| at + SILENCE);
        let missed = self.waiting.map(|at| at + patience);
        silence.into_iter().chain(missed).min()
    }

    /// When doubt becomes death.
    fn death_due(&self) -> Option<Instant> {
        let doubt = self.doubt?;
        let last_data = self.received.map_or(Instant::ZERO, |at| at + SILENCE);
        Some((doubt + DOUBT_HOLDS).max(last_data).min(doubt + DOUBT_HOLDS_WITH_DATA))
    }

    fn is_active(&self, at: Instant) -> bool {
        self.data.is_some_and(|data| at - data <= ACTIVE)
    }

    /// Whether a keepalive is due; then it counts as sent.
    pub(super) fn take_keepalive(&mut self, now: Instant, role: Role) -> bool {
        if !self.via.is_direct() {
            return false;
        }
        if role != Role::Used && self.data.is_none_or(|at| now - at > KEPT) {
            self.kept = None;
            return false;
        }
        let kept = *self.kept.get_or_insert(now);
        let due = align(kept, KEEPALIVE) <= now;
        if due {
            self.kept = Some(now);
        }
        due
    }

    /// Every moment at which something of the above may happen.
    pub(super) fn timers(&self, now: Instant, role: Role) -> impl Iterator<Item = (Instant, &'static str)> {
        let direct = self.via.is_direct();
        let ask = [self.prime.then_some(now), self.full.due(), self.small.due(), self.measure_due(role)];
        let ask = ask.into_iter().flatten().min().map(|at| at.max(self.held));
        let doubt = if direct && self.is_proven() && self.doubt.is_none() { self.doubt_due(now) } else { None };
        let counts = self.doubt.map(|at| at + DOUBT_COUNTS).filter(|at| *at > now);
        let unsure = self.proven.map(|at| at + UNSURE).filter(|at| direct && role == Role::Used && *at > now);
        let full_failed = if self.narrow { None } else { self.full.spent(FULL_PATIENCE) };
        let keepalive = self.kept.filter(|_| direct).map(|at| align(at, KEEPALIVE));
        [
            (ask, "probe"),
            (doubt, "path silent"),
            (counts, "path in doubt"),
            (self.death_due(), "path dead"),
            (unsure, "path unsure"),
            (full_failed, "path narrow"),
            (self.full_due(role), "full size"),
            (keepalive, "keepalive"),
        ]
        .into_iter()
        .filter_map(|(at, why)| at.map(|at| (at, why)))
    }
}

/// The first multiple of `step` after `at`.
fn align(at: Instant, step: Duration) -> Instant {
    let step = u64::try_from(step.as_nanos()).expect("a step of seconds fits 64 bits").max(1);
    Instant::from_nanos((at.as_nanos() / step).saturating_add(1).saturating_mul(step))
}
