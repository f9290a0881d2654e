//! Two registrations of one device at once: a copied state folder, or a restart that the old address did not
//! announce. The old address is asked whether it lives. If it answers, the newcomer is refused as a duplicate and both
//! are told; if it stays silent, the newcomer takes its seat.

use std::time::Duration;

use super::Server;
use super::registration::{Contest, Slot};
use crate::sans::Instant;
use crate::wire::Writer;
use crate::wire::rendezvous::Reason;
use crate::wire::rendezvous::items::ToPeer;

/// The older registration is asked this long after the newcomer came.
const QUESTIONS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(150), Duration::from_millis(300)];
/// It has lost its seat if it was silent for so long.
const SILENCE: Duration = Duration::from_millis(500);
/// Seconds after which a refused duplicate may try again.
const DUPLICATE_S: u16 = 10;

impl Server {
    /// A newcomer claims the seat of `holder`. A later newcomer takes an earlier one's place.
    pub(super) fn contest(&mut self, now: Instant, holder: Slot, newcomer: Slot, nonce: [u8; 16]) {
        self.end_contest(now, holder);
        self.count("contest");
        let token = self.rng.u64();
        if let Some(registration) = self.registrations.get_mut(holder) {
            registration.contest = Some(Box::new(Contest { newcomer, nonce, token, asked: 0, since: now }));
        }
        self.advance_contest(now, holder);
        self.touched.push(holder);
    }

    /// Asks again, or decides.
    pub(super) fn advance_contest(&mut self, now: Instant, holder: Slot) {
        let Some(registration) = self.registrations.get_mut(holder) else { return };
        let Some(contest) = &mut registration.contest else { return };
        if now - contest.since >= SILENCE {
            self.vacate(now, holder);
            return;
        }
        if QUESTIONS.get(contest.asked).is_some_and(|after| now - contest.since >= *after) {
            contest.asked += 1;
            let mut w = Writer::default();
            ToPeer::AreYouThere { token: contest.token }.write(&mut w);
            self.send_items(holder, w.as_slice());
        }
    }

    /// When a contested registration has its next turn.
    pub(super) fn contest_due(contest: &Contest) -> Instant {
        contest.since + QUESTIONS.get(contest.asked).copied().unwrap_or(SILENCE)
    }

    /// The older registration lives.
    pub(super) fn on_alive(&mut self, now: Instant, holder: Slot, token: u64) {
        let contested = self.registrations.get(holder).and_then(|registration| registration.contest.as_ref());
        if contested.is_some_and(|contest| contest.token == token) {
            self.end_contest(now, holder);
            if let Some(registration) = self.registrations.get_mut(holder) {
                registration.duplicate = Some((registration.fresh_id(), super::super::Repeat::new(now)));
            }
            self.touched.push(holder);
        }
    }

    /// The seat stays with its holder: a newcomer is refused and forgotten.
    pub(super) fn end_contest(&mut self, now: Instant, holder: Slot) {
        let Some(registration) = self.registrations.get_mut(holder) else { return };
        let Some(contest) = registration.contest.take() else { return };
        if let Some(route) = self.route(contest.newcomer) {
            self.remove(now, contest.newcomer);
            self.refuse(now, route, contest.nonce, Reason::Duplicate, DUPLICATE_S);
        }
    }
}
