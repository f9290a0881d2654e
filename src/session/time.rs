//! What time alone brings about: initiations, proofs, words into the silence, new keys, the end of old ones.

use tracing::debug;

use super::attempt::{Attempt, pause};
use super::handshake::Pending;
use super::{DEATH, Env, Event, RETRY, SILENCE, Session};
use crate::crypto::cookie;
use crate::sans::{Instant, Rng, Wakeup};

impl Session {
    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, env: &mut Env<'_>) {
        self.expire(now);
        self.prove(now, env.rng);
        if self.unacknowledged.is_some_and(|since| now.since(since) >= SILENCE) {
            self.say_nothing(now);
        }
        match &self.attempt {
            Some(attempt) if attempt.due <= now => self.go_on(now, env),
            None if self.begins_at().is_some_and(|at| at <= now) => self.begin(now, env),
            _ => {}
        }
        for index in self.freed.drain(..) {
            env.indices.release(now, index);
        }
    }

    /// When [`Session::handle_timeout`] is next due. Ask again after every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        let attempt = match &self.attempt {
            Some(attempt) => Some(Wakeup::new(attempt.due, "session: initiation")),
            None => self.begins_at().map(|at| Wakeup::new(at, "session: new attempt")),
        };
        let others = [
            (!self.freed.is_empty()).then_some(Wakeup::new(Instant::ZERO, "session: free indices")),
            self.slots.next_expiry().map(|at| Wakeup::new(at, "session: keys expire")),
            self.proving.map(|(at, _)| Wakeup::new(at, "session: prove keys")),
            self.unacknowledged.map(|since| Wakeup::new(since + SILENCE, "session: break silence")),
        ];
        others.into_iter().fold(attempt, Wakeup::earliest)
    }

    /// When a new attempt begins, if none runs.
    fn begins_at(&self) -> Option<Instant> {
        let at = match &self.slots.current {
            Some(keys) => self.unanswered.map_or(keys.rekey_at(), |since| keys.rekey_at().min(since + DEATH)),
            None if self.wanted => Instant::ZERO,
            None => return None,
        };
        Some(at.max(self.not_before))
    }

    fn begin(&mut self, now: Instant, env: &mut Env<'_>) {
        let Some((index, pending)) = self.fresh(now, env) else {
            self.not_before = now + RETRY;
            return;
        };
        debug!(peer = ?self.peer, rekey = self.slots.current.is_some(), "initiating");
        self.attempt = Some(Attempt::new(now, index, pending));
        self.send_initiation(now, env.rng);
    }

    fn go_on(&mut self, now: Instant, env: &mut Env<'_>) {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.is_stale(now)) {
            let Some((index, pending)) = self.fresh(now, env) else {
                self.attempt.iter_mut().for_each(|attempt| attempt.hold_until(now + RETRY));
                return;
            };
            let stale = self.attempt.as_mut().map(|attempt| attempt.renew(now, index, pending));
            self.free(stale);
        }
        self.send_initiation(now, env.rng);
    }

    /// A new message with an index of its own.
    fn fresh(&self, now: Instant, env: &mut Env<'_>) -> Option<(u32, Pending)> {
        let number = env.numbers.take()?;
        let index = env.indices.allocate(now, self.peer, env.rng)?;
        match Pending::start(env.identity, env.announcement, (&self.peer, &self.x25519), index, number, env.rng) {
            Ok(pending) => Some((index, pending)),
            Err(_) => {
                env.indices.release(now, index);
                None
            }
        }
    }

    fn send_initiation(&mut self, now: Instant, rng: &mut Rng) {
        let cookie = self.cookie.filter(|(_, since)| now.since(*since) < cookie::LIFETIME);
        if let Some(attempt) = &mut self.attempt {
            self.transmits.push_back(attempt.pending.message(cookie.as_ref().map(|(cookie, _)| cookie)));
            attempt.sent(now, rng);
        }
    }

    /// Says `Nothing` under new keys of ours, until something comes back under them.
    pub(super) fn prove(&mut self, now: Instant, rng: &mut Rng) {
        if let Some((at, step)) = self.proving
            && at <= now
        {
            self.say_nothing(now);
            self.proving = Some((now + pause(step, rng), step + 1));
        }
    }

    fn expire(&mut self, now: Instant) {
        let stood = self.slots.current.is_some();
        let gone = self.slots.expire(now);
        self.freed.extend(gone);
        if stood && self.slots.current.is_none() {
            self.proving = None;
            self.unanswered = None;
            self.unacknowledged = None;
            self.events.push_back(Event::Expired);
            debug!(peer = ?self.peer, "keys expired");
        }
    }
}
