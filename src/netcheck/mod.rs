//! L3: what the NAT in front of this machine does. A check asks STUN servers from sockets of its own and ends in a
//! [`Report`]; it needs a few seconds and some sixty datagrams of 116 bytes: 155 at most, where 16 servers answer late and
//! nothing else does, and with the lifetime as many again.
//!
//! It goes in this order, because each question must come from a socket that has not spoiled it:
//!
//! 1. **Meet**: the first socket asks every server, the IPv6 socket those with IPv6. Who answers nobody has no UDP. The
//!    server that can do most is asked all that follows: one with two addresses, or two ports (RFC 5780; a rendezvous
//!    that listens on both), or any. One that sees a private address of ours is on this side of the router: it tells
//!    nothing, and where there are only such this is the end.
//! 2. **Row**: the other sockets ask that server, one after the other. Which ports they get outside is the *allocation*.
//! 3. **Map** (RFC 5780 §4.3): the first socket asks the server's other port and other address. If they see another
//!    address of ours, the *mapping* depends on the destination.
//! 4. **Filter** (§4.4), meanwhile: the second socket, which has spoken to that server at one address alone, has it
//!    answer from the others. What comes through tells the *filtering*. That nothing comes means something only if
//!    those others answer when they are asked themselves, and if the server answered everything else at that time.
//! 5. **Hairpin**, meanwhile: the third and the fourth socket write to each other's address outside, both, so that
//!    each opens the way for the other.
//! 6. **Lifetime**, if it is wanted, for it takes minutes: see [`lifetime`].
//!
//! What cannot be found out is unknown, with the reason, and no guess.

mod evidence;
mod infer;
mod lifetime;
mod report;
mod server;
mod shots;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use report::{Asked, Finding, Ipv6, Lifetime, Report};

use crate::addr::canonical;
use crate::id::SocketId;
use crate::sans::{Datagram, Instant, Rng, Seed, Transmit, Wakeup};
use crate::wire::stun::Change;
use evidence::Evidence;
use server::{Server, sees_the_world};
use shots::{Purpose, Question, Shot, Volley};

/// IPv4 sockets that a check needs.
pub const SOCKETS: usize = 8;
/// And so many more, if the lifetime is wanted.
pub const SILENT_SOCKETS: usize = lifetime::SILENCES.len();
/// The IPv6 socket.
pub const V6_SOCKET: SocketId = SocketId(u16::MAX);
/// More servers are not asked.
pub const MAX_SERVERS: usize = 16;

/// Once some servers have answered, the others get so long, from the start.
const MEET: Duration = Duration::from_millis(1_200);
/// Between the first words of two sockets: so that they reach the NAT in this order.
const ROW_PAUSE: Duration = Duration::from_millis(30);
/// So often answers from elsewhere are asked for, each time beside one that must come…
const FILTER_TRIES: usize = 5;
/// …with this pause.
const FILTER_PAUSE: Duration = Duration::from_millis(300);

const MAPPED: SocketId = SocketId(0);
const FILTERED: SocketId = SocketId(1);
const HAIRPIN: [SocketId; 2] = [SocketId(2), SocketId(3)];

/// What a check runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// STUN servers, of either family; no matter which are rendezvous.
    pub servers: Vec<SocketAddr>,
    /// This machine's addresses.
    pub own: Vec<IpAddr>,
    /// What the IPv4 sockets are bound to, by their ids: [`SOCKETS`] of them, and [`SILENT_SOCKETS`] more if the
    /// lifetime is wanted.
    pub sockets: Vec<SocketAddr>,
    /// Whether there is [`V6_SOCKET`].
    pub ipv6: bool,
    /// Whether to find out how long a mapping lives.
    pub lifetime: bool,
}

/// Where a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Meet,
    Row,
    Ask,
    Lifetime(lifetime::Stage),
    Done,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Check {
    evidence: Evidence,
    rng: Rng,
    stage: Stage,
    volley: Volley,
    transmits: VecDeque<Transmit>,
    report: Option<Report>,
}

impl Check {
    /// A check that begins at `now`. Drain it once before the first input.
    pub fn new(mut plan: Plan, seed: &Seed, now: Instant) -> Self {
        plan.servers.iter_mut().for_each(|server| *server = canonical(*server));
        plan.servers.truncate(MAX_SERVERS);
        let mut check = Self {
            evidence: Evidence { plan, server: None, log: Vec::new() },
            rng: seed.rng(),
            stage: Stage::Meet,
            volley: Volley::default(),
            transmits: VecDeque::new(),
            report: None,
        };
        for server in check.evidence.plan.servers.clone() {
            let socket = if server.is_ipv4() { MAPPED } else { V6_SOCKET };
            if check.evidence.has(socket) {
                check.volley.ask(&mut check.rng, now, Question::plain(Purpose::Meet, socket, server));
            }
        }
        check.go_on(now);
        check
    }

    /// A datagram came in on one of the sockets.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let Datagram { socket, from, payload, .. } = datagram;
        if self.volley.hear(now, socket, canonical(from), payload) {
            self.go_on(now);
        }
    }

    /// Time has passed; see [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.go_on(now);
    }

    /// The next datagram; call until `None` after every other call.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// When [`Self::handle_timeout`] is wanted; `None`: it is done.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        if self.stage == Stage::Done {
            return None;
        }
        let patience = match self.stage {
            Stage::Meet if self.met_enough() => self.meet_end(),
            _ => self.volley.end(),
        };
        self.volley.next().into_iter().chain(patience).min().map(|at| Wakeup::new(at, "netcheck"))
    }

    /// What was found, once, at the end.
    #[must_use]
    pub fn poll_report(&mut self) -> Option<Report> {
        self.report.take()
    }

    /// What it does at the moment, for people.
    pub fn progress(&self) -> String {
        match self.stage {
            Stage::Meet => match self.evidence.plan.servers.len() {
                1 => "asking 1 server".to_owned(),
                n => format!("asking {n} servers"),
            },
            Stage::Row => "comparing ports".to_owned(),
            Stage::Ask => "asking from several places".to_owned(),
            Stage::Lifetime(stage) => stage.progress(),
            Stage::Done => "done".to_owned(),
        }
    }

    /// Sends what is due, and goes on to the next stages while there is nothing to wait for.
    fn go_on(&mut self, now: Instant) {
        while self.stage != Stage::Done {
            self.volley.due(now, &mut self.transmits);
            if !self.is_over(now) {
                return;
            }
            self.evidence.log.append(&mut self.volley.0);
            self.stage = match self.stage {
                Stage::Meet => self.after_meeting(now),
                Stage::Row => self.after_row(now),
                Stage::Ask if self.evidence.plan.lifetime => self.begin_lifetime(now),
                Stage::Lifetime(stage) => self.go_on_with_lifetime(now, stage),
                Stage::Ask | Stage::Done => Stage::Done,
            };
        }
        self.report = Some(self.evidence.conclude());
    }

    fn is_over(&self, now: Instant) -> bool {
        if self.volley.all_heard() || self.volley.end().is_none_or(|end| now >= end) {
            return true;
        }
        match self.stage {
            Stage::Meet => self.met_enough() && self.meet_end().is_some_and(|end| now >= end),
            Stage::Lifetime(stage) => stage.is_over(now, &self.volley),
            Stage::Row | Stage::Ask | Stage::Done => false,
        }
    }

    /// Whether the servers that are silent need not be waited for much longer: one showed us the internet over IPv4, or
    /// of each family that was asked one answered.
    fn met_enough(&self) -> bool {
        let family = |ipv4: bool| self.volley.0.iter().filter(move |shot| shot.to.is_ipv4() == ipv4);
        let shown = |shot: &Shot| shot.answer().is_some_and(|answer| sees_the_world(answer.mapped.ip()));
        family(true).any(shown)
            || [true, false].into_iter().all(|ipv4| family(ipv4).next().is_none() || family(ipv4).any(Shot::is_settled))
    }

    fn meet_end(&self) -> Option<Instant> {
        self.volley.0.iter().map(|shot| shot.at).min().map(|start| start + MEET)
    }

    fn after_meeting(&mut self, now: Instant) -> Stage {
        let met = self.evidence.log.iter().filter(|shot| shot.to.is_ipv4());
        let servers = met.filter_map(|shot| Some(Server::new(shot.to, shot.answer()?)));
        self.evidence.server =
            servers.max_by_key(|s| (s.sees_the_world, s.other.is_some(), s.other_port.is_some(), s.proves));
        let Some(Server { addr, sees_the_world: true, .. }) = self.evidence.server else { return Stage::Done };
        for (place, socket) in (0..).zip((1..SOCKETS).filter_map(|i| u16::try_from(i).ok())) {
            if self.evidence.has(SocketId(socket)) {
                let question = Question::plain(Purpose::Row, SocketId(socket), addr);
                self.volley.ask(&mut self.rng, now + ROW_PAUSE * place, question);
            }
        }
        Stage::Row
    }

    fn after_row(&mut self, now: Instant) -> Stage {
        let Some(Server { addr, other_port, other, .. }) = self.evidence.server else { return Stage::Done };
        let at_its_port = other.map(|other| SocketAddr::new(other.ip(), addr.port()));
        for to in [other_port, at_its_port, other].into_iter().flatten() {
            self.volley.ask(&mut self.rng, now, Question::plain(Purpose::Map, MAPPED, to));
        }
        let changes = [(other_port, Change::PORT), (other, Change::BOTH)];
        let changes = changes.into_iter().filter(|(there, _)| there.is_some()).map(|(_, change)| change);
        for (at, change) in filter_times(now).flat_map(|at| changes.clone().map(move |change| (at, change))) {
            let question = Question { change, ..Question::plain(Purpose::Filter, FILTERED, addr) };
            self.volley.once(&mut self.rng, at, question);
        }
        for at in filter_times(now).filter(|_| other_port.is_some()) {
            self.volley.once(&mut self.rng, at, Question::plain(Purpose::Control, FILTERED, addr));
        }
        let [a, b] = HAIRPIN;
        if let (Some(to_a), Some(to_b)) = (self.evidence.way_back(a), self.evidence.way_back(b)) {
            self.volley.ask(&mut self.rng, now, Question::plain(Purpose::Hairpin, a, to_b));
            self.volley.ask(&mut self.rng, now, Question::plain(Purpose::Hairpin, b, to_a));
        }
        Stage::Ask
    }
}

fn filter_times(now: Instant) -> impl Iterator<Item = Instant> + Clone {
    (0..).take(FILTER_TRIES).map(move |n| now + FILTER_PAUSE * n)
}
