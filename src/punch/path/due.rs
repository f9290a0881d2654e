//! What is due on a path: the next request, doubt and death, keepalives, tests of full size.

use std::time::Duration;

use super::super::ladder::{DOUBT, FULL, Ladder};
use super::{Ask, DOUBT_COUNTS, Path, Role, UNSURE};
use crate::sans::Instant;

/// Data sent and nothing authenticated received for so long puts a path in doubt.
const SILENCE: Duration = Duration::from_secs(1);
/// A path in doubt without an echo for so long is dead.
const DOUBT_HOLDS: Duration = Duration::from_secs(2);
/// Unless data still arrives on it (a full queue delays echoes); this long at most.
const DOUBT_HOLDS_WITH_DATA: Duration = Duration::from_secs(6);
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
/// A relay in doubt is asked so often: it may be back.
const RELAY_AGAIN: Duration = Duration::from_secs(1);
/// A probe that the node's budget refused waits so long.
const HOLD: Duration = Duration::from_millis(20);

impl Path {
    /// The request that is due.
    pub(in crate::punch) fn due(&self, now: Instant, role: Role) -> Option<Ask> {
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
    pub(in crate::punch) fn on_asked(&mut self, now: Instant, ask: Ask, nonce: u64, len: usize) {
        let expected = self.is_proven() || !self.via.is_direct();
        self.window.sent(now, nonce, len, expected && ask == Ask::Small);
        self.requests = self.requests.saturating_add(u32::from(ask != Ask::Prime));
        if expected && ask == Ask::Small {
            self.waiting.get_or_insert(now);
        }
        self.forgo(now, ask);
    }

    /// The due request is skipped.
    pub(in crate::punch) fn forgo(&mut self, now: Instant, ask: Ask) {
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
    pub(in crate::punch) fn hold(&mut self, now: Instant) {
        self.held = now + HOLD;
    }

    /// Time passes. Returns whether the path died.
    pub(in crate::punch) fn handle_timeout(&mut self, now: Instant, role: Role) -> bool {
        self.test_full_size(now, role);
        if self.doubt_due(role).is_some_and(|at| at <= now) {
            self.doubt(now, now);
        }
        let died = self.death_due().is_some_and(|at| at <= now);
        if died {
            self.die();
        }
        died
    }

    /// Asks whether it is still alive, unless it answered after `since`.
    pub(in crate::punch) fn doubt(&mut self, now: Instant, since: Instant) {
        if self.doubt.is_none() && self.proven.map_or(!self.via.is_direct(), |at| at < since) {
            (self.doubt, self.doubt_told) = (Some(now), false);
            self.small = Ladder::start(now, DOUBT);
        }
    }

    /// The peer's data comes by a relay. If nothing has come this way for a while, the peer has found that it leads
    /// nowhere; who had nothing unanswered itself would only begin to wonder when it answers.
    pub(in crate::punch) fn doubt_with_peer(&mut self, now: Instant) {
        let last = self.received.max(self.proven).max(self.heard);
        if self.is_proven() && last.is_none_or(|at| now - at >= SILENCE) {
            self.doubt(now, now);
        }
    }

    /// Whether its doubt begins to count; says so once.
    pub(in crate::punch) fn take_doubt(&mut self, now: Instant) -> bool {
        let news = !self.doubt_told && self.is_doubtful(now);
        self.doubt_told |= news;
        news
    }

    fn die(&mut self) {
        (self.usable, self.narrow) = (false, false);
        (self.proven, self.proven_full, self.waiting, self.doubt, self.unanswered) = (None, None, None, None, None);
        (self.small, self.full, self.eager) = (Ladder::STOPPED, Ladder::STOPPED, None);
        // Nothing is kept open that leads nowhere: a Linux gateway that gave us another port has to forget it first.
        (self.data, self.kept) = (None, None);
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
        if self.doubt.is_some() && !self.via.is_direct() && self.is_active(asked) {
            return Some(asked + RELAY_AGAIN);
        }
        let interval = match role {
            Role::Rival => MEASURE_ACTIVE,
            Role::Used if self.is_active(asked) => MEASURE_ACTIVE,
            Role::Used => MEASURE_IDLE,
            Role::Other => MEASURE_OTHER,
            Role::Standby => return None,
        };
        Some(align(asked, interval))
    }

    /// When silence becomes doubt. Of a relay only while data goes there: on others little is asked.
    fn doubt_due(&self, role: Role) -> Option<Instant> {
        let may_be_doubted = if self.via.is_direct() { self.is_proven() } else { role == Role::Used };
        if self.doubt.is_some() || !may_be_doubted {
            return None;
        }
        let silence = self.unanswered.map(|at| at + SILENCE);
        let missed = self.waiting.map(|at| at + self.patience);
        silence.into_iter().chain(missed).min()
    }

    /// When doubt becomes death. A relay never dies of it: who relays closes its channel, or who asked for it.
    fn death_due(&self) -> Option<Instant> {
        let doubt = self.doubt.filter(|_| self.via.is_direct())?;
        let last_data = self.received.map_or(Instant::ZERO, |at| at + SILENCE);
        Some((doubt + DOUBT_HOLDS).max(last_data).min(doubt + DOUBT_HOLDS_WITH_DATA))
    }

    fn is_active(&self, at: Instant) -> bool {
        self.data.is_some_and(|data| at - data <= ACTIVE)
    }

    /// Whether a keepalive is due; then it counts as sent.
    pub(in crate::punch) fn take_keepalive(&mut self, now: Instant, role: Role) -> bool {
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
    pub(in crate::punch) fn timers(&self, now: Instant, role: Role) -> impl Iterator<Item = (Instant, &'static str)> {
        let direct = self.via.is_direct();
        let ask = [self.prime.then_some(now), self.full.due(), self.small.due(), self.measure_due(role)];
        let ask = ask.into_iter().flatten().min().map(|at| at.max(self.held));
        let counts = self.doubt.map(|at| at + DOUBT_COUNTS).filter(|at| *at > now);
        let unsure = self.proven.map(|at| at + UNSURE).filter(|at| direct && role == Role::Used && *at > now);
        let full_failed = if self.narrow { None } else { self.full.spent(FULL_PATIENCE) };
        let keepalive = self.kept.filter(|_| direct).map(|at| align(at, KEEPALIVE));
        [
            (ask, "probe"),
            (self.doubt_due(role), "path silent"),
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
