//! What goes out, and in which order: echoes, primes, the word that all primes are sent, requests.
//!
//! Whatever goes to an address that never answered is asked of the node's [`Budget`] first. A request that the node has
//! no room for waits; one that its target has no room for is passed over, as if it had been sent and lost.

use std::net::IpAddr;

use super::budget::{Budget, Payer, Urgency, Verdict};
use super::path::{Ask, Path};
use super::{ProbeOut, Punch};
use crate::sans::{Instant, Rng};
use crate::wire::probe::{self, ProbeKind};

/// Hop limit of a prime: past the home router, into the provider's network, not to the peer.
pub const PRIME_TTL: u8 = 2;

impl Punch {
    /// The next probe to send; call until `None` after every call that changed something.
    #[must_use]
    pub fn poll_probe(&mut self, now: Instant, budget: &mut Budget) -> Option<ProbeOut> {
        for ip in self.answered.drain(..) {
            budget.answered(now, ip);
        }
        self.poll_echo(now, budget)
            .or_else(|| self.poll_request(now, budget, |ask| ask == Ask::Prime))
            .or_else(|| if self.is_priming() { None } else { self.poll_primed(now) })
            .or_else(|| self.poll_request(now, budget, |ask| ask != Ask::Prime))
    }

    /// Whether so many packets may go to an address of the peer's that may never have heard of us; they are counted.
    pub fn may_send(&mut self, now: Instant, ip: IpAddr, packets: u32, budget: &mut Budget) -> bool {
        (0..packets).all(|_| budget.take(now, ip, Urgency::Search, &mut self.payer) == Verdict::Granted)
    }

    /// The next echo that is within the budget: who is named as a probe's sender need not be.
    fn poll_echo(&mut self, now: Instant, budget: &mut Budget) -> Option<ProbeOut> {
        while let Some(echo) = self.echoes.pop_front() {
            let stranger = echo.via.remote().filter(|_| echo.via.is_by_datagrams());
            let mut take = |ip| budget.take(now, ip, Urgency::Echo, &mut self.payer);
            if stranger.map_or(Verdict::Granted, |remote| take(remote.ip())) == Verdict::Granted {
                return Some(echo);
            }
        }
        None
    }

    /// The next due request that is `wanted` and within the budget.
    fn poll_request(&mut self, now: Instant, budget: &mut Budget, wanted: fn(Ask) -> bool) -> Option<ProbeOut> {
        for i in 0..self.paths.len() {
            let role = self.role(&self.paths[i]);
            while let Some(ask) = self.paths[i].due(now, role).filter(|ask| wanted(*ask)) {
                let path = &mut self.paths[i];
                match within(budget, now, path, &mut self.payer) {
                    Verdict::Granted => return Some(Self::ask(&mut self.rng, now, path, ask)),
                    Verdict::NodeFull => path.hold(now),
                    Verdict::TargetFull => path.forgo(now, ask),
                }
            }
        }
        None
    }

    fn ask(rng: &mut Rng, now: Instant, path: &mut Path, ask: Ask) -> ProbeOut {
        let nonce = rng.u64();
        let len = if ask == Ask::Full { probe::FULL_LEN } else { probe::MIN_LEN };
        let ttl = (ask == Ask::Prime).then_some(PRIME_TTL);
        path.on_asked(now, ask, nonce, len);
        ProbeOut { via: path.via, kind: ProbeKind::Request, nonce, len, ttl, observed: None }
    }

    /// Whether primes wait for room in the budget: then it is not true that all are sent.
    pub(super) fn is_priming(&self) -> bool {
        self.paths.iter().any(Path::is_priming)
    }

    fn poll_primed(&mut self, now: Instant) -> Option<ProbeOut> {
        let via = self.best_relay(now)?;
        let kind = ProbeKind::Primed;
        self.search.take_primed(now).then(|| ProbeOut {
            via,
            kind,
            nonce: self.rng.u64(),
            len: probe::MIN_LEN,
            ttl: None,
            observed: None,
        })
    }
}

/// Whether a request on `path` may leave; relays, connections and proven paths are free.
fn within(budget: &mut Budget, now: Instant, path: &Path, payer: &mut Payer) -> Verdict {
    let urgency = if path.was_heard(now) { Urgency::Answer } else { Urgency::Search };
    let stranger = path.via.remote().filter(|_| path.via.is_by_datagrams());
    stranger.map_or(Verdict::Granted, |remote| budget.take(now, remote.ip(), urgency, payer))
}
