//! When to try: rounds that both sides start together.
//!
//! A round of one side: *prime* every candidate (a probe with low TTL opens our NAT and dies before the peer's),
//! say *primed* through the relay, *wait* for the other's primed, *probe*. Probing earlier would be worse than
//! useless where a Linux gateway masquerades: a probe that meets a closed NAT is recorded there as a flow of its own
//! that owns the port, and the peer's packets to us then leave from another port.
//!
//! A round starts with an introduction, with the other side's primed, when a path died, and again and again with
//! growing gaps while nothing direct works.

use std::time::Duration;

use super::ladder::{FIRST, LATER, Ladder, ONCE, Rungs, SAY};
use crate::sans::{Instant, Rng};

/// How long a round waits for the other's primed.
const WAIT: Duration = Duration::from_secs(1);
/// And when there is no relay to say it through (none at all, or its channel is still being opened): longer than
/// the two introductions, one of them sent twice, can be apart.
const WAIT_WITHOUT_RELAY: Duration = Duration::from_millis(300);
/// A round this young is not started over: what happens meanwhile belongs to it.
const ROUND: Duration = Duration::from_millis(1500);
/// The long ladder is climbed once in this time, however many rounds there are.
const FIRST_GAP: Duration = Duration::from_secs(10);
/// Gaps between rounds while nothing direct works, seconds; the last one repeats. A Linux gateway forgets a flow after
/// 30 s, also the stray one that took our port. But a flow that had to take another port passes it on to those that
/// begin while it is there, those to other peers too, and it is there for up to a minute more, until somebody clears it
/// away: so after a few tries all must be silent for longer than both…
const ROUND_GAPS: [u64; 5] = [5, 10, 35, 100, 300];
/// …and the pairs of one node out of step: their gaps are longer by up to this share, per cent.
const STRETCH: u32 = 25;
/// Both sides have probed for so long: where ordinary punching leads anywhere, something has come by now.
const STUCK: Duration = Duration::from_millis(350);
/// Answers to the other's primed in one round.
const MAX_ANSWERS: u32 = 3;
/// The peer's primed holds for so long: then NATs may have closed again.
const PRIMED_HOLDS: Duration = Duration::from_secs(5);

/// What the paths are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Prime every path that is not proven.
    Prime,
    /// Probe them.
    Probe(Rungs),
    /// Prime them, then probe them at once: the other side is ready.
    PrimeAndProbe(Rungs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No round yet.
    Idle,
    /// Primed; the other side perhaps not.
    Waiting { until: Instant },
    /// Both sides are probing, or have.
    Probing,
}

/// The rounds of one peer.
#[derive(Debug)]
pub(super) struct Search {
    /// Somebody wants a direct path.
    wanted: bool,
    phase: Phase,
    began: Option<Instant>,
    /// Rounds since the last introduction or success.
    rounds: usize,
    next_round: Option<Instant>,
    say: Ladder,
    answers: u32,
    peer_primed: Option<Instant>,
    long: Option<Instant>,
    /// When this round is stuck, unless something comes.
    stuck: Option<Instant>,
    /// How much longer than written the gaps are, per cent.
    stretch: u32,
}

/// How long the other side may need to open its NAT, if it says nothing.
const fn wait(relay: bool) -> Duration {
    if relay { WAIT } else { WAIT_WITHOUT_RELAY }
}

impl Search {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self::stretched(rng.u32() % (STRETCH + 1))
    }

    const fn stretched(stretch: u32) -> Self {
        Self {
            wanted: false,
            phase: Phase::Idle,
            began: None,
            rounds: 0,
            next_round: None,
            say: Ladder::STOPPED,
            answers: 0,
            peer_primed: None,
            long: None,
            stuck: None,
            stretch,
        }
    }

    /// Both sides are told to start now.
    pub(super) fn on_introduced(&mut self, now: Instant, relay: bool) -> Option<Step> {
        self.wanted = true;
        if self.is_young(now) {
            return None;
        }
        self.rounds = 0;
        Some(self.begin(now, relay))
    }

    /// The peer has a new candidate: what is to be done with it, and whether with all others too.
    pub(super) fn on_candidate(&mut self, now: Instant, relay: bool) -> Option<Step> {
        match self.phase {
            _ if !self.wanted => None,
            Phase::Waiting { until } => {
                // The peer has moved or begun anew, and its NAT is not open there yet: that it began with us is not true
                // of this one.
                self.phase = Phase::Waiting { until: until.max(now + wait(relay)) };
                Some(Step::Prime)
            }
            Phase::Probing if self.is_young(now) => Some(Step::Probe(LATER)),
            Phase::Probing | Phase::Idle => {
                self.rounds = 0;
                Some(self.begin(now, relay))
            }
        }
    }

    /// The other side says that its NATs are open.
    pub(super) fn on_primed(&mut self, now: Instant, relay: bool) -> Option<Step> {
        self.peer_primed = Some(now);
        match self.phase {
            Phase::Waiting { .. } => Some(Step::Probe(self.probe(now))),
            Phase::Probing if self.is_young(now) => {
                if self.answers < MAX_ANSWERS {
                    self.answers += 1;
                    self.say = Ladder::start(now, ONCE);
                }
                None
            }
            Phase::Probing | Phase::Idle => {
                self.wanted = true;
                Some(self.begin(now, relay))
            }
        }
    }

    /// A request arrived directly: the other side has primed, or has no NAT.
    pub(super) fn on_request(&mut self, now: Instant) -> Option<Step> {
        let waiting = matches!(self.phase, Phase::Waiting { .. });
        waiting.then(|| Step::Probe(self.probe(now)))
    }

    /// A channel opened: what could not be said can be said now.
    pub(super) fn on_relay(&mut self, now: Instant) {
        match self.phase {
            Phase::Waiting { until } => {
                self.phase = Phase::Waiting { until: until.max(self.began.unwrap_or(now) + WAIT) };
                self.say = Ladder::start(now, SAY);
            }
            Phase::Probing if self.is_young(now) => self.say = Ladder::start(now, ONCE),
            Phase::Probing | Phase::Idle => {}
        }
    }

    /// The direct path died.
    pub(super) fn on_lost(&mut self, now: Instant, relay: bool) -> Option<Step> {
        self.wanted = true;
        self.rounds = 0;
        if self.is_young(now) {
            self.next_round = self.began.map(|at| at + ROUND);
            return None;
        }
        Some(self.begin(now, relay))
    }

    /// The peer is gone: nothing more until somebody asks.
    pub(super) const fn stop(&mut self) {
        *self = Self { long: self.long, began: self.began, ..Self::stretched(self.stretch) };
    }

    /// Time passes; `direct`: a direct path works.
    pub(super) fn handle_timeout(&mut self, now: Instant, relay: bool, direct: bool) -> Option<Step> {
        if direct {
            (self.next_round, self.rounds) = (None, 0);
        } else if self.wanted && self.next_round.is_none() && self.began.is_some() {
            self.next_round = Some(now + Duration::from_secs(ROUND_GAPS[0]));
        }
        match self.phase {
            Phase::Waiting { until } if until <= now => Some(Step::Probe(self.probe(now))),
            Phase::Waiting { .. } => None,
            _ if self.next_round.is_some_and(|at| at <= now) => Some(self.begin(now, relay)),
            _ => None,
        }
    }

    /// Whether this round has just turned out to be stuck, if nothing came; says so once.
    pub(super) fn take_stuck(&mut self, now: Instant) -> bool {
        self.stuck.take_if(|at| *at <= now).is_some()
    }

    /// Whether primed is to be said now; then it counts as said.
    pub(super) fn take_primed(&mut self, now: Instant) -> bool {
        let due = self.say.due().is_some_and(|at| at <= now);
        if due {
            self.say.climb(now);
        }
        due
    }

    /// When something of the above is due.
    pub(super) fn timers(&self, relay: bool) -> impl Iterator<Item = (Instant, &'static str)> {
        let until = match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Probing | Phase::Idle => None,
        };
        let say = self.say.due().filter(|_| relay);
        // A round that waits ends before the next one begins.
        let next = self.next_round.filter(|_| until.is_none());
        [(until, "search"), (say, "say primed"), (next, "search again"), (self.stuck, "search stuck")]
            .into_iter()
            .filter_map(|(at, why)| at.map(|at| (at, why)))
    }

    /// Whether a round has just begun.
    pub(super) fn is_young(&self, now: Instant) -> bool {
        self.began.is_some_and(|at| now - at < ROUND)
    }

    fn begin(&mut self, now: Instant, relay: bool) -> Step {
        let gap = Duration::from_secs(ROUND_GAPS[self.rounds.min(ROUND_GAPS.len() - 1)]);
        self.rounds += 1;
        self.began = Some(now);
        self.next_round = Some(now + gap * (100 + self.stretch) / 100);
        self.answers = 0;
        self.say = Ladder::start(now, SAY);
        if self.peer_primed.is_some_and(|at| now - at < PRIMED_HOLDS) {
            return Step::PrimeAndProbe(self.probe(now));
        }
        self.phase = Phase::Waiting { until: now + wait(relay) };
        Step::Prime
    }

    /// The wait is over.
    fn probe(&mut self, now: Instant) -> Rungs {
        self.phase = Phase::Probing;
        self.stuck = Some(now + STUCK);
        // Woken late (suspend): this round comes before the next one.
        self.next_round = self.next_round.map(|at| at.max(now + ROUND));
        // What was never said is still said once; what the other side missed it asks for again.
        let unsaid = self.say.due().is_some_and(|at| at <= now);
        self.say = if unsaid { Ladder::start(now, ONCE) } else { Ladder::STOPPED };
        self.peer_primed = None;
        if self.long.is_none_or(|at| now - at >= FIRST_GAP) {
            self.long = Some(now);
            FIRST
        } else {
            LATER
        }
    }
}
