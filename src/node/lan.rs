//! Members in one house find each other without any rendezvous: each says on its LANs by multicast that it is here, sealed
//! for members ([`crate::wire::beacon`]), at its start, when something of it has changed, and from time to time; who hears
//! of a member that it does not reach says so itself, and both search each other as after an introduction.
//!
//! What is heard is hearsay: somebody on the LAN may repeat what was said days ago. So it begins a search, within the
//! budget that all searches have, and until the member itself answers nobody counts as here.

use std::time::Duration;

use super::Node;
use super::matchmaking::Source;
use crate::crypto::announcement::{self, AnnouncementError};
use crate::sans::{Action, Instant, RateLimit, Rng, Wakeup};
use crate::wire::beacon;

/// Pauses after what is news: a Wi-Fi loses what is said to all.
const ROUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// From then on.
const EVERY: Duration = Duration::from_secs(30);
/// All who hear of a newcomer answer, but not at the same moment.
const ANSWER: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(300)];
/// Nobody says more than this.
const PAUSE: Duration = Duration::from_secs(1);
/// Beacons read, a second and at once: all that a crowded LAN party says when everybody starts. Opening one costs a few
/// microseconds.
const HEARD: (u32, u32) = (50, 200);

/// When we say on the LANs that we are here.
#[derive(Debug)]
pub(super) struct Beacons {
    wanted: bool,
    due: Option<Instant>,
    /// Said so often since the last news.
    round: usize,
    last: Option<Instant>,
    heard: RateLimit,
}

impl Beacons {
    /// `wanted`: as net.toml says.
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, due: None, round: 0, last: None, heard: RateLimit::new(HEARD.0, HEARD.1) }
    }

    fn set_wanted(&mut self, now: Instant, wanted: bool) {
        if std::mem::replace(&mut self.wanted, wanted) != wanted {
            self.due = None;
            self.news(now);
        }
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

    /// Whether it is to be said now.
    fn take_due(&mut self, now: Instant, rng: &mut Rng) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            let pause = ROUNDS.get(self.round).copied().unwrap_or(EVERY);
            self.round = (self.round + 1).min(ROUNDS.len());
            (self.last, self.due) = (Some(now), Some(now + pause + rng.between(Duration::ZERO, pause / 10)));
        }
        due
    }

    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        self.due.map(|at| Wakeup::new(at, "beacon"))
    }
}

impl Node {
    pub(super) fn set_lan_discovery(&mut self, now: Instant, wanted: bool) {
        self.beacons.set_wanted(now, wanted);
    }

    /// Says what is to be said.
    pub(super) fn beacons_timeout(&mut self, now: Instant) {
        let shared = &mut self.shared;
        if self.beacons.take_due(now, &mut shared.rng) && shared.announcement.seq > 0 {
            let sealed = announcement::seal(&shared.identity.network, &shared.announcement, &mut shared.rng);
            self.actions.push_back(Action::SayOnLan(beacon::encode(&sealed)));
        }
    }

    /// Somebody on a LAN of ours said that it is here.
    pub fn handle_beacon(&mut self, now: Instant, bytes: &[u8]) {
        if !self.beacons.wanted || self.leaving {
            return;
        }
        if !self.beacons.heard.allow(now) {
            return self.drops.count("beacon-rate");
        }
        let Ok(sealed) = beacon::decode(bytes) else { return self.drops.count("beacon") };
        match announcement::open(&self.shared.identity.network, sealed) {
            // One that we said ourselves, and that somebody repeats.
            Ok(signed) if signed.peer == self.my_id() => {}
            Ok(signed) => {
                let id = signed.peer;
                self.hear_of(now, signed, Source::Lan);
                if self.peers.get(&id).is_some_and(|peer| !peer.session.is_established(now)) {
                    self.beacons.answer(now, &mut self.shared.rng);
                }
            }
            Err(AnnouncementError::Version(theirs)) => self.warn_of_version(now, None, theirs),
            // Another network's.
            Err(_) => self.drops.count("beacon"),
        }
        self.drain(now);
    }
}
