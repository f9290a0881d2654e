//! Members in one house find each other without any rendezvous: each says on its LANs by multicast that it is here, sealed
//! for members ([`crate::wire::beacon`]), at its start, when something of it has changed, and from time to time. Whoever
//! is new asks for an answer; and who hears of a member that it did not know says so too. Both then search each other as
//! after an introduction.
//!
//! What is heard is hearsay: somebody on the LAN may repeat it. A beacon has a number of its own, so it counts once and
//! only while nothing newer of that member is known; but who has never heard of a member has no number to compare. So it
//! begins a search, within the budget that all searches have, and until the member itself answers nobody counts as here.

use std::net::IpAddr;
use std::time::Duration;

use super::Node;
use super::matchmaking::Source;
use super::membership::compose;
use crate::addr::site;
use crate::crypto::Signed;
use crate::crypto::announcement::{self, AnnouncementError};
use crate::rendezvous::server::{Rate, RateTable};
use crate::sans::{Action, Instant, RateLimit, Rng, Wakeup};
use crate::wire::beacon::Beacon;

/// Pauses after what is news: a Wi-Fi loses what is said to all.
const ROUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// From then on.
const EVERY: Duration = Duration::from_secs(30);
/// All who hear of a newcomer answer, but not at the same moment.
const ANSWER: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(300)];
/// Nobody says more than this.
const PAUSE: Duration = Duration::from_secs(1);
/// Beacons read, a second and at once: all that a crowded LAN party says when everybody starts. To open one and to verify
/// its signature costs a fraction of a millisecond.
const HEARD: (u32, u32) = (100, 200);
/// The same from one address: a few networks on one machine.
const HEARD_FROM_ONE: Rate = Rate::new(4, 20);
/// Addresses that are told apart.
const SOURCES: usize = 256;

/// When we say on the LANs that we are here.
#[derive(Debug)]
pub(super) struct Beacons {
    wanted: bool,
    due: Option<Instant>,
    /// Said so often since the last news.
    round: usize,
    last: Option<Instant>,
    heard: RateLimit,
    sources: RateTable,
}

impl Beacons {
    /// `wanted`: as net.toml says.
    pub(super) fn new(wanted: bool, rng: &mut Rng) -> Self {
        let sources = RateTable::with_cells(SOURCES, HEARD_FROM_ONE, rng);
        Self { wanted, due: None, round: 0, last: None, heard: RateLimit::new(HEARD.0, HEARD.1), sources }
    }

    /// Others should know something of us that was not said yet.
    pub(super) fn news(&mut self, now: Instant) {
        self.round = 0;
        self.say_by(now);
    }

    /// Somebody is there who may not know of us.
    fn answer(&mut self, now: Instant, rng: &mut Rng) {
        self.say_by(now + rng.between(ANSWER[0], ANSWER[1]));
    }

    fn say_by(&mut self, at: Instant) {
        let at = self.last.map_or(at, |last| at.max(last + PAUSE));
        self.due = self.wanted.then(|| self.due.map_or(at, |due| due.min(at)));
    }

    /// Whether it is to be said now, and then whether it asks for answers.
    fn take_due(&mut self, now: Instant, rng: &mut Rng) -> Option<bool> {
        self.due.filter(|due| *due <= now)?;
        let pause = ROUNDS.get(self.round).copied().unwrap_or(EVERY);
        let asks = self.round < ROUNDS.len();
        self.round = (self.round + 1).min(ROUNDS.len());
        (self.last, self.due) = (Some(now), Some(now + pause + rng.between(Duration::ZERO, pause / 10)));
        Some(asks)
    }

    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        self.due.map(|at| Wakeup::new(at, "beacon"))
    }
}

impl Node {
    pub(super) fn set_lan_discovery(&mut self, now: Instant, wanted: bool) {
        if std::mem::replace(&mut self.beacons.wanted, wanted) == wanted {
            return;
        }
        self.beacons.news(now);
        if !wanted {
            self.actions.push_back(Action::LeaveLan);
        }
    }

    /// Says what is to be said.
    pub(super) fn beacons_timeout(&mut self, now: Instant) {
        let Some(asks) = self.beacons.take_due(now, &mut self.shared.rng) else { return };
        // While numbers are being reserved, nothing is said; the announcement that waits for them is news.
        let Some(seq) = self.shared.numbers.take() else { return };
        let shared = &mut self.shared;
        let signed = compose(&shared.identity, &self.naming, seq, self.gather.candidates().to_vec());
        let sealed = announcement::seal(&shared.identity.network, &signed, &mut shared.rng);
        self.actions.push_back(Action::SayOnLan(Beacon { asks, sealed: &sealed }.encode()));
    }

    /// Somebody at `from`, on a LAN of ours, said that it is here.
    pub fn handle_beacon(&mut self, now: Instant, from: IpAddr, bytes: &[u8]) {
        if !self.beacons.wanted || self.leaving {
            return;
        }
        if !(self.beacons.sources.allow(now, &site(from)) && self.beacons.heard.allow(now)) {
            return self.drops.count("beacon-rate");
        }
        let Ok(beacon) = Beacon::decode(bytes) else { return self.drops.count("beacon") };
        match announcement::open(&self.shared.identity.network, beacon.sealed) {
            Ok(signed) => self.heard_on_lan(now, signed, beacon.asks),
            Err(AnnouncementError::Version(theirs)) => self.warn_of_version(now, None, theirs),
            // Another network's.
            Err(_) => self.drops.count("beacon"),
        }
        self.drain(now);
    }

    fn heard_on_lan(&mut self, now: Instant, signed: Signed, asks: bool) {
        // Our own, which somebody repeats, is nobody's news either.
        if !self.may_speak(&signed.peer) {
            return;
        }
        if self.peers.get(&signed.peer).is_some_and(|peer| signed.seq <= peer.newest()) {
            return self.drops.count("replayed");
        }
        let was_unknown = self.hear_of(now, signed, Source::Lan);
        if asks || was_unknown {
            self.beacons.answer(now, &mut self.shared.rng);
        }
    }
}
