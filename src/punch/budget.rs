//! What a node may send to addresses that never answered.
//!
//! A member can name any address as its candidate, so the addresses that a search tries may belong to
//! somebody who never heard of us. Whatever members announce, however often a search starts again, such a
//! target receives at most [`PER_TARGET`] probes in any 60 seconds from this node, and all of them together
//! at most 500 a second. An address that echoed a fresh nonce has agreed to be probed: it is free. What a member
//! asks for itself counts too: an echo to an address that never answered may go to somebody who was named as its
//! sender.
//!
//! A search over ports sends more, and only to an address that a rendezvous observed for its member: 3,000 *shots* in any
//! ten minutes, whoever asks for them, and no more than 500 a second together with all else.
//!
//! No member can use up what the others need: each has a pace of its own, and a part of everything is left for
//! those who were met long before ([`Standing`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::slots::{Slots, number};
use crate::sans::{Instant, RateLimit};

/// Probes to one IP address in any 60 seconds, over all peers, candidates and ports.
pub const PER_TARGET: u32 = 60;
/// The part of [`PER_TARGET`] that a search leaves for answers to an address that a verified probe came from.
const RESERVED: u32 = 12;
/// Probes a second and at once: any second holds at most 500 together.
const NODE_RATE: u32 = 250;
const NODE_BURST: u32 = 250;
/// The part of these that is for everybody; the rest is for those who are known.
const STRANGERS_RATE: u32 = 150;
/// Probes a second and at once for one peer. A whole search at 16 addresses needs about 200; 32 peers that never stop
/// searching leave some of what is for those who are known.
const PEER_RATE: u32 = 3;
const PEER_BURST: u32 = 240;
/// The minute is counted in slots of this length.
const SLOT: Duration = Duration::from_secs(5);
/// Slots that any 60 seconds can touch.
const SLOTS: usize = 13;
/// Shots of searches over ports to one IP address, at once: one search and a half…
const SHOTS_BURST: u32 = 1_500;
/// …and how long each of them counts: any ten minutes hold 3,000.
const SHOT_COUNTS: Duration = Duration::from_millis(400);
/// Shots a second and at once, of all searches.
const SHOT_RATE: u32 = 450;
const SHOT_BURST: u32 = 10;
/// Shots and all else in any second…
const IN_SECOND: u32 = 500;
/// …and when shots wait: of what comes free all else has its part first.
const SHOTS_WAIT: u32 = 450;
/// A second is counted in slots of this length.
const TICK: Duration = Duration::from_millis(50);
/// Slots that any second can touch.
const TICKS: usize = 21;
/// How long an answer keeps its address free: addresses change hands.
const ANSWER_HOLDS: Duration = Duration::from_secs(600);
/// Targets remembered at once. When all are in use a new one is refused: the limit holds, the search waits.
const MAX_TARGETS: usize = 4096;
/// The part of these that is for everybody.
const STRANGERS_TARGETS: usize = 3072;

/// Whose searches come first when there is not enough for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// One of those who were met long before.
    Known,
    /// Anybody.
    Stranger,
}

/// A peer as it uses the budget.
#[derive(Debug)]
pub(super) struct Payer {
    pub(super) standing: Standing,
    pace: RateLimit,
}

impl Payer {
    pub(super) fn new(standing: Standing) -> Self {
        Self { standing, pace: RateLimit::new(PEER_RATE, PEER_BURST) }
    }
}

/// Why a probe is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// To see whether somebody is there.
    Search,
    /// A verified probe came from there a moment ago.
    Answer,
    /// The echo of such a probe.
    Echo,
}

/// Whether a probe may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may, and is counted.
    Granted,
    /// The node as a whole is at its limit: again in some milliseconds.
    NodeFull,
    /// This target is at its limit: skip it.
    TargetFull,
}

/// The limits on probing, shared by all peers of a node.
#[derive(Debug)]
pub struct Budget {
    node: RateLimit,
    strangers: RateLimit,
    shots: RateLimit,
    second: Slots<TICKS>,
    targets: BTreeMap<IpAddr, Target>,
    swept: u64,
    refused: u64,
}

#[derive(Debug, Default)]
struct Target {
    answered: Option<Instant>,
    sent: Slots<SLOTS>,
    shots: Option<RateLimit>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    /// Nothing sent yet.
    pub fn new() -> Self {
        Self {
            node: RateLimit::new(NODE_RATE, NODE_BURST),
            strangers: RateLimit::new(STRANGERS_RATE, STRANGERS_RATE),
            shots: RateLimit::new(SHOT_RATE, SHOT_BURST),
            second: Slots::default(),
            targets: BTreeMap::new(),
            swept: 0,
            refused: 0,
        }
    }

    /// Probes that were not sent because a limit was reached.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Asks to send one probe to `ip`.
    pub(super) fn take(&mut self, now: Instant, ip: IpAddr, urgency: Urgency, payer: &mut Payer) -> Verdict {
        let verdict = self.decide(now, ip, urgency, payer);
        self.refused += u64::from(verdict != Verdict::Granted);
        verdict
    }

    /// Asks to send one shot of a search over ports to `ip`, an address that a rendezvous observed for its member.
    pub fn take_shot(&mut self, now: Instant, ip: IpAddr) -> Verdict {
        let limit = || RateLimit::slow(SHOT_COUNTS, SHOTS_BURST);
        let Some(target) = self.target(now, ip, Standing::Known) else { return Verdict::TargetFull };
        if !target.shots.get_or_insert_with(limit).would_allow(now) {
            return Verdict::TargetFull;
        }
        if self.second.count(tick(now)) >= SHOTS_WAIT || !self.shots.allow(now) {
            return Verdict::NodeFull;
        }
        self.second.add(tick(now));
        self.targets.get_mut(&ip).and_then(|target| target.shots.as_mut()).map(|shots| shots.allow(now));
        Verdict::Granted
    }

    /// How many shots may go to `ip` now.
    pub fn shots_left(&self, now: Instant, ip: IpAddr) -> u32 {
        let shots = self.targets.get(&ip).and_then(|target| target.shots);
        shots.map_or(SHOTS_BURST, |shots| shots.left(now))
    }

    /// `ip` echoed a fresh nonce of ours.
    pub(super) fn answered(&mut self, now: Instant, ip: IpAddr) {
        if let Some(target) = self.target(now, ip, Standing::Known) {
            target.answered = Some(now);
        }
    }

    fn decide(&mut self, now: Instant, ip: IpAddr, urgency: Urgency, payer: &mut Payer) -> Verdict {
        let limit = match urgency {
            Urgency::Search => PER_TARGET - RESERVED,
            Urgency::Answer | Urgency::Echo => PER_TARGET,
        };
        let Some(target) = self.target(now, ip, payer.standing) else { return Verdict::TargetFull };
        if target.is_free(now) {
            return Verdict::Granted;
        }
        if target.count(now) >= limit || !payer.pace.would_allow(now) {
            return Verdict::TargetFull;
        }
        let is_stranger = payer.standing == Standing::Stranger;
        let is_full = self.second.count(tick(now)) >= IN_SECOND || is_stranger && !self.strangers.would_allow(now);
        if is_full || !self.node.allow(now) {
            return Verdict::NodeFull;
        }
        self.second.add(tick(now));
        payer.pace.allow(now);
        if is_stranger {
            self.strangers.allow(now);
        }
        if let Some(target) = self.targets.get_mut(&ip) {
            target.add(now);
        }
        Verdict::Granted
    }

    /// The entry of `ip`, made if there is room.
    fn target(&mut self, now: Instant, ip: IpAddr, standing: Standing) -> Option<&mut Target> {
        let most = match standing {
            Standing::Known => MAX_TARGETS,
            Standing::Stranger => STRANGERS_TARGETS,
        };
        if !self.targets.contains_key(&ip) {
            self.make_room(now, most);
            if self.targets.len() >= most {
                return None;
            }
        }
        Some(self.targets.entry(ip).or_default())
    }

    /// Forgets targets about which there is nothing to remember; at most once a slot, for it looks at all.
    fn make_room(&mut self, now: Instant, most: usize) {
        if self.targets.len() >= most && self.swept != slot(now) {
            self.swept = slot(now);
            self.targets.retain(|_, target| !target.is_forgettable(now));
        }
    }
}

impl Target {
    fn is_free(&self, now: Instant) -> bool {
        self.answered.is_some_and(|at| now - at < ANSWER_HOLDS)
    }

    /// Probes in the last 60 to 65 seconds.
    fn count(&mut self, now: Instant) -> u32 {
        self.sent.count(slot(now))
    }

    fn add(&mut self, now: Instant) {
        self.sent.add(slot(now));
    }

    fn is_forgettable(&mut self, now: Instant) -> bool {
        let has_shot = self.shots.is_some_and(|shots| !shots.is_rested(now));
        !self.is_free(now) && self.count(now) == 0 && !has_shot
    }
}

fn slot(now: Instant) -> u64 {
    number(now, SLOT)
}

fn tick(now: Instant) -> u64 {
    number(now, TICK)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const VICTIM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));

    /// Somebody who has asked for nothing yet, so that only what all share is in the way.
    fn anybody() -> Payer {
        Payer::new(Standing::Known)
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn no_minute_holds_more_than_sixty_probes_to_a_silent_address() {
        let mut budget = Budget::new();
        let granted: Vec<u64> = (0..300_000)
            .step_by(37)
            .filter(|ms| budget.take(at(*ms), VICTIM, Urgency::Answer, &mut anybody()) == Verdict::Granted)
            .collect();
        for first in &granted {
            let minute = granted.iter().filter(|ms| (*first..first + 60_000).contains(ms)).count();
            assert!(minute <= 60, "{minute} from {first} ms");
        }
        assert!(granted.len() > 4 * 55, "and it is used: {}", granted.len());
    }

    #[test]
    fn a_search_leaves_room_for_answers() {
        let mut budget = Budget::new();
        let searched = (0..100)
            .filter(|_| budget.take(at(0), VICTIM, Urgency::Search, &mut anybody()) == Verdict::Granted)
            .count();
        let answered = (0..100)
            .filter(|_| budget.take(at(0), VICTIM, Urgency::Answer, &mut anybody()) == Verdict::Granted)
            .count();
        assert_eq!((searched, answered), (48, 12));
    }

    #[test]
    fn an_address_that_answered_is_free_while_the_answer_holds() {
        let mut budget = Budget::new();
        budget.answered(at(0), VICTIM);
        assert!((0..1000).all(|_| budget.take(at(1), VICTIM, Urgency::Search, &mut anybody()) == Verdict::Granted));
        let late = at(601_000);
        let granted = (0..1000)
            .filter(|_| budget.take(late, VICTIM, Urgency::Search, &mut anybody()) == Verdict::Granted)
            .count();
        assert_eq!(granted, 48);
    }

    #[test]
    fn no_second_holds_more_than_five_hundred_probes_of_the_node() {
        let mut budget = Budget::new();
        let mut sent = Vec::new();
        for i in 0..30_000_u32 {
            let now = at(u64::from(i) / 10);
            if budget.take(now, IpAddr::V4(Ipv4Addr::from(i % 2000)), Urgency::Search, &mut anybody())
                == Verdict::Granted
            {
                sent.push(now);
            }
        }
        for first in &sent {
            let second = sent.iter().filter(|t| (*first..*first + Duration::from_secs(1)).contains(t)).count();
            assert!(second <= 500, "{second}");
        }
        assert!(sent.len() > 800);
    }

    #[test]
    fn memory_is_bounded_and_a_full_table_refuses_rather_than_forgets() {
        let mut budget = Budget::new();
        for i in 0..5_000_u32 {
            budget.take(at(5 * u64::from(i)), IpAddr::V4(Ipv4Addr::from(i)), Urgency::Search, &mut anybody());
        }
        assert!(budget.targets.len() <= MAX_TARGETS);
        assert_eq!(budget.take(at(25_001), VICTIM, Urgency::Search, &mut anybody()), Verdict::TargetFull);
        assert_eq!(
            budget.take(at(120_000), VICTIM, Urgency::Search, &mut anybody()),
            Verdict::Granted,
            "room after a minute"
        );
    }

    /// Probes that one payer gets at once, each to an address of its own.
    fn granted(budget: &mut Budget, first: u32, payer: &mut Payer) -> u32 {
        let mut ips = (first..first + 1_000).map(|n| IpAddr::V4(Ipv4Addr::from(n)));
        ips.by_ref()
            .take_while(|ip| budget.take(at(0), *ip, Urgency::Search, payer) == Verdict::Granted)
            .count()
            .try_into()
            .expect("few")
    }

    #[test]
    fn one_peer_cannot_use_up_what_others_need_and_strangers_not_what_the_known_need() {
        let mut budget = Budget::new();
        let mut greedy = Payer::new(Standing::Stranger);
        assert_eq!(granted(&mut budget, 0, &mut greedy), STRANGERS_RATE, "strangers have their part");
        assert_eq!(granted(&mut budget, 10_000, &mut Payer::new(Standing::Stranger)), 0);
        assert_eq!(granted(&mut budget, 20_000, &mut Payer::new(Standing::Known)), NODE_BURST - STRANGERS_RATE);
        let mut budget = Budget::new();
        let mut known = Payer::new(Standing::Known);
        assert_eq!(granted(&mut budget, 0, &mut known), PEER_BURST);
        assert_eq!(granted(&mut budget, 10_000, &mut Payer::new(Standing::Known)), NODE_BURST - PEER_BURST);
    }

    #[test]
    fn targets_that_strangers_name_leave_room_for_those_of_the_known() {
        let mut budget = Budget::new();
        for i in 0..4_000_u32 {
            budget.take(
                at(10 * u64::from(i)),
                IpAddr::V4(Ipv4Addr::from(i)),
                Urgency::Search,
                &mut Payer::new(Standing::Stranger),
            );
        }
        assert_eq!(budget.targets.len(), STRANGERS_TARGETS);
        assert_eq!(budget.take(at(40_000), VICTIM, Urgency::Search, &mut anybody()), Verdict::Granted);
    }

    #[test]
    fn echoes_to_an_address_that_never_answered_are_limited_too() {
        let mut budget = Budget::new();
        let sent =
            (0..100).filter(|_| budget.take(at(0), VICTIM, Urgency::Echo, &mut anybody()) == Verdict::Granted).count();
        assert_eq!(sent, 60);
    }

    fn shots(budget: &mut Budget, ip: IpAddr, times: impl Iterator<Item = u64>) -> Vec<u64> {
        times.filter(|ms| budget.take_shot(at(*ms), ip) == Verdict::Granted).collect()
    }

    #[test]
    fn a_target_gets_one_search_and_a_half_at_once_and_two_more_in_ten_minutes() {
        let mut budget = Budget::new();
        let granted = shots(&mut budget, VICTIM, (0..1_200_000).step_by(2));
        for first in granted.iter().step_by(50) {
            let lately = granted.iter().filter(|ms| (*first..first + 600_000).contains(ms)).count();
            assert!(lately <= 3_000, "{lately} from {first} ms");
        }
        let at_once = granted.iter().filter(|ms| **ms < 4_000).count();
        assert!((1_490..=1_515).contains(&at_once), "{at_once}");
        assert!((4_400..=4_510).contains(&granted.len()), "in twenty minutes: {}", granted.len());
    }

    #[test]
    fn shots_are_paced_and_with_all_else_stay_below_five_hundred_a_second() {
        let mut budget = Budget::new();
        let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
        let mut sent = Vec::new();
        for ms in 0..3_000 {
            let others = (0..2).filter(|n| {
                let ip = IpAddr::V4(Ipv4Addr::from(ms * 2 + n));
                budget.take(at(ms.into()), ip, Urgency::Search, &mut anybody()) == Verdict::Granted
            });
            sent.extend(vec![ms; others.count()]);
            sent.extend(shots(&mut budget, other, [ms.into()].into_iter()).iter().map(|_| ms));
        }
        for first in &sent {
            let second = sent.iter().filter(|ms| (*first..first + 1_000).contains(ms)).count();
            assert!(second <= 500, "{second}");
        }
        let mut budget = Budget::new();
        let alone = shots(&mut budget, other, 0..1_000).len();
        assert!((450..=460).contains(&alone), "{alone}");
    }
}
