//! What searches send: in turns, for what the budget has room for is shared by all.

use std::time::Duration;

use super::super::Node;
use super::{PortSearch, observed};
use crate::id::PeerId;
use crate::punch::{PRIME_TTL, ProbeOut, Verdict, Via};
use crate::sans::Instant;
use crate::symmetric::{Look, Shot, Want, Word};
use crate::wire::probe::{self, ProbeKind};
use crate::wire::session::Control;

/// A shot that the budget had no room for waits so long.
const HOLD: Duration = Duration::from_millis(20);

impl PortSearch {
    /// Whether anybody has a shot to send.
    pub(super) fn has_shot(&self) -> bool {
        let hunt = self.hunt.as_ref().is_some_and(|(_, hunt)| hunt.next().is_some());
        hunt || self.looks.values().any(|look| look.next().is_some())
    }

    /// Whose turn it is, and the shot: the one after who was served last.
    fn next_shot(&self) -> Option<(PeerId, Shot)> {
        let hunt = self.hunt.as_ref().and_then(|(id, hunt)| Some((*id, hunt.next()?)));
        let looks = self.looks.iter().filter_map(|(id, look)| Some((*id, look.next()?)));
        let all = || looks.clone().chain(hunt);
        let after = all().filter(|(id, _)| self.served.is_some_and(|served| *id > served)).min_by_key(|(id, _)| *id);
        after.or_else(|| all().min_by_key(|(id, _)| *id))
    }

    /// The shot left, or no more may.
    fn shot(&mut self, now: Instant, id: &PeerId, shot: Shot, left: bool) {
        self.served = Some(*id);
        if let Some(look) = self.looks.get_mut(id).filter(|look| look.next() == Some(shot)) {
            return if left { look.sent(now) } else { look.end(now) };
        }
        if let Some((_, hunt)) = &mut self.hunt {
            if left { hunt.sent(now) } else { hunt.end(now) }
        }
    }
}

impl Node {
    /// Lets all searches go on, and the next begin.
    pub(in super::super) fn search_ports(&mut self, now: Instant) {
        if let Some((id, hunt)) = &mut self.ports.hunt {
            hunt.handle_timeout(now);
            // It may have moved, or begun anew.
            let (id, seen) = (*id, self.peers.get(id).and_then(observed));
            if seen.is_none_or(|(_, seen)| seen != hunt.target()) {
                self.has_moved(now, &id);
            }
        }
        loop {
            self.say_and_ask(now);
            self.shoot_in_turns(now);
            // The last shot may have brought it on.
            self.say_and_ask(now);
            match &self.ports.hunt {
                Some((_, hunt)) if hunt.outcome().is_none() => break,
                Some(_) => self.end_hunt(now),
                None => match self.next_hunt(now) {
                    Some(next) => (self.ports.hunt, self.ports.began) = (Some(next), now),
                    None => break,
                },
            }
        }
        self.report_looks(now);
        self.release_sockets(now);
    }

    /// Does what the search that opens ports needs besides shots.
    fn say_and_ask(&mut self, now: Instant) {
        let Some((id, hunt)) = &self.ports.hunt else { return };
        let (id, has_asked) = (*id, hunt.has_asked());
        while let Some(want) = self.ports.hunt.as_mut().and_then(|(_, hunt)| hunt.poll_want()) {
            match want {
                Want::Sockets(count) => self.give_sockets(now, count),
                Want::Ask { socket, to, question } => self.transmit(socket, to, question, None),
                Want::Say(Word::Ports(next)) => {
                    if has_asked {
                        self.ports.known = Some((now, next));
                    }
                    self.send_control(now, &id, &Control::Ports { next, asks: true, searches: true });
                }
                Want::Say(Word::LookForMe(ports, open)) => {
                    self.send_control(now, &id, &Control::LookForMe { ports, open });
                }
            }
        }
    }

    fn shoot_in_turns(&mut self, now: Instant) {
        while self.ports.held <= now
            && let Some((id, shot)) = self.ports.next_shot()
        {
            // Nowhere but where a rendezvous sees it.
            let seen = self.peers.get(&id).and_then(observed);
            let is_there = seen.is_some_and(|(_, seen)| seen.ip() == shot.to.ip());
            let verdict = if is_there { self.budget.take_shot(now, shot.to.ip()) } else { Verdict::TargetFull };
            match verdict {
                Verdict::Granted => self.send_shot(&id, shot),
                Verdict::TargetFull => {}
                Verdict::NodeFull => {
                    self.ports.held = now + HOLD;
                    return;
                }
            }
            self.ports.shot(now, &id, shot, verdict == Verdict::Granted);
        }
    }

    fn send_shot(&mut self, id: &PeerId, Shot { socket, to, primes }: Shot) {
        let (via, nonce, len) = (Via::Direct { socket, remote: to }, self.shared.rng.u64(), probe::MIN_LEN);
        let ttl = primes.then_some(PRIME_TTL);
        self.send_probe(id, &ProbeOut { via, kind: ProbeKind::Request, nonce, len, ttl, observed: None });
    }

    /// Tells whom all was tried for in vain; forgets what is over.
    fn report_looks(&mut self, now: Instant) {
        self.ports.looks.retain(|_, look| !look.is_over(now));
        let report = |(id, look): (&PeerId, &mut Look)| look.take_word(now).then_some(*id);
        let looked: Vec<PeerId> = self.ports.looks.iter_mut().filter_map(report).collect();
        for id in looked {
            self.send_control(now, &id, &Control::Looked);
        }
    }
}
