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

mod infer;
mod lifetime;
mod report;
mod shots;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use report::{Asked, Finding, Ipv6, Lifetime, Report};

use crate::addr::{canonical, is_private, is_usable_candidate};
use crate::id::SocketId;
use crate::nat::{Allocation, Behaviour, Bounds};
use crate::sans::{Datagram, Instant, Rng, Seed, Transmit, Wakeup};
use crate::wire::stun::{Answer, Change};
use shots::{Heard, Purpose, Question, Shot, Volley};

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
/// Of those that must come so many may be missing.
const CONTROLS_MISSED: usize = 2;

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

/// The server that is asked most.
#[derive(Clone, Copy, Debug)]
struct Server {
    addr: SocketAddr,
    /// See [`sees_the_world`]; the others tell nothing of the NAT.
    sees_the_world: bool,
    /// Its other port, at the same address.
    other_port: Option<SocketAddr>,
    /// Its other address and port.
    other: Option<SocketAddr>,
    /// It proves who was where.
    proves: bool,
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

/// What a check has learned.
#[derive(Debug)]
struct Evidence {
    plan: Plan,
    /// The server that is asked most, once it is known.
    server: Option<Server>,
    /// All questions of the stages that are over, and what was heard of them.
    log: Vec<Shot>,
}

impl Evidence {
    fn has(&self, socket: SocketId) -> bool {
        if socket == V6_SOCKET { self.plan.ipv6 } else { usize::from(socket.0) < self.plan.sockets.len() }
    }

    /// The address of a socket as the best server saw it.
    fn outside(&self, socket: SocketId) -> Option<SocketAddr> {
        let to = self.server?.addr;
        let purposes = [Purpose::Meet, Purpose::Row];
        let mut shots = self.log.iter().filter(|shot| shot.socket == socket && shot.to == to);
        shots.find_map(|shot| shot.answer().filter(|_| purposes.contains(&shot.purpose))).map(|answer| answer.mapped)
    }

    /// The same, if it may be written to. A server could name anybody, and itself: it must be public, not ours, and where
    /// every server saw the first socket.
    fn way_back(&self, socket: SocketId) -> Option<SocketAddr> {
        let server = self.server?.addr;
        let there = self.outside(socket).filter(|there| is_usable_candidate(*there, &[]))?;
        let ip = Some(there.ip()).filter(|ip| sees_the_world(*ip) && !self.is_own(*ip) && *ip != server.ip())?;
        let met = self.log.iter().filter(|shot| shot.purpose == Purpose::Meet && shot.socket == MAPPED);
        let mut seen = met.filter_map(Shot::answer).map(|answer| answer.mapped.ip()).filter(|ip| sees_the_world(*ip));
        seen.all(|seen| seen == ip).then_some(there)
    }

    fn translates(&self) -> Option<bool> {
        self.outside(MAPPED).map(|outside| !self.is_own(outside.ip()))
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.plan.own.contains(&ip)
    }

    fn conclude(&self) -> Report {
        let servers: Vec<Asked> = self.plan.servers.iter().map(|server| self.asked(*server)).collect();
        let mut report = Report::nothing(servers, self.without_ipv4());
        if self.plan.servers.is_empty() {
            return Report::nothing(Vec::new(), "no server was named that could be asked");
        }
        report.udp = self.udp();
        report.ipv6 = self.ipv6();
        let (Some(outside), Some(translates)) = (self.outside(MAPPED), self.translates()) else { return report };
        if !sees_the_world(outside.ip()) {
            let why = if translates {
                "the server sees us at a private address: it is on this side of the router to the internet"
            } else {
                "the server is in this machine's own network, and sees nothing of the way to others"
            };
            let Report { servers, udp, ipv6, .. } = report;
            return Report { ipv4: Finding::Known(outside), udp, ipv6, ..Report::nothing(servers, why) };
        }
        report.ipv4 = Finding::Known(outside);
        report.translates = Finding::Known(translates);
        report.filtering = self.filtering();
        report.lifetime = self.lifetime();
        if translates {
            report.mapping = self.mapping();
            report.allocation = self.allocation();
            report.hairpin = self.hairpin(&report.mapping);
        } else {
            const NOTHING: &str = "nothing is translated";
            report.mapping = Finding::unknown(NOTHING);
            report.allocation = Finding::unknown(NOTHING);
            report.hairpin = Finding::unknown(NOTHING);
        }
        report
    }

    /// Whether anything came at all, if only a refusal.
    fn udp(&self) -> Finding<bool> {
        let mut met = self.log.iter().filter(|shot| shot.purpose == Purpose::Meet).peekable();
        if met.peek().is_some() {
            return Finding::Known(met.any(Shot::is_settled));
        }
        let missing = match (self.has(MAPPED), self.has(V6_SOCKET)) {
            (false, false) => "neither IPv4 nor IPv6",
            (false, true) => "no IPv4",
            (true, _) => "no IPv6",
        };
        Finding::unknown(format!("no server could be asked: this machine has {missing}"))
    }

    /// Why nothing is known of IPv4.
    fn without_ipv4(&self) -> &'static str {
        if !self.plan.servers.iter().any(SocketAddr::is_ipv4) {
            "no server with an IPv4 address was asked"
        } else if !self.has(MAPPED) {
            "this machine has no IPv4"
        } else if self.log.iter().any(|shot| shot.socket == MAPPED && shot.was_refused()) {
            "no server answered over IPv4, but by a refusal"
        } else {
            "no server answered over IPv4"
        }
    }

    fn asked(&self, server: SocketAddr) -> Asked {
        let mut met = self.log.iter().filter(|shot| shot.purpose == Purpose::Meet && shot.to == server);
        Asked { server, rtt: met.find_map(|shot| shot.heard()).map(|heard| heard.after) }
    }

    fn ipv6(&self) -> Finding<Ipv6> {
        if !self.plan.servers.iter().any(SocketAddr::is_ipv6) {
            return Finding::unknown("no server with an IPv6 address was asked");
        }
        if !self.plan.ipv6 {
            return Finding::unknown("this machine has no IPv6");
        }
        let met = self.log.iter().filter(|shot| shot.socket == V6_SOCKET);
        let seen = met.filter_map(Shot::answer).map(|answer| answer.mapped.ip());
        match seen.max_by_key(|ip| sees_the_world(*ip)) {
            Some(ip) if !sees_the_world(ip) => Finding::unknown("the server is in this machine's own network"),
            Some(ip) if self.is_own(ip) => Finding::Known(Ipv6::Public(ip)),
            Some(ip) => Finding::Known(Ipv6::Translated(ip)),
            None => Finding::Known(Ipv6::Silent),
        }
    }

    fn mapping(&self) -> Finding<Bounds> {
        // Later it may have had time to become another.
        let early = |shot: &&Shot| shot.socket == MAPPED && [Purpose::Meet, Purpose::Map].contains(&shot.purpose);
        let shots = self.log.iter().filter(early);
        let seen = shots.filter_map(|shot| Some((shot.to, shot.answer()?.mapped)));
        let seen: Vec<_> = seen.filter(|(_, mapped)| sees_the_world(mapped.ip())).collect();
        match infer::mapping(&seen) {
            Some(bounds) => Finding::Known(bounds),
            None => Finding::unknown(self.without_another()),
        }
    }

    fn filtering(&self) -> Finding<Bounds> {
        let Some(server) = self.server else { return Finding::unknown(self.without_ipv4()) };
        if self.log.iter().any(|shot| shot.purpose == Purpose::Filter && shot.was_refused()) {
            return Finding::unknown(format!("{} refuses to answer from elsewhere", server.addr));
        }
        let beside = |shot: &&Shot| shot.purpose == Purpose::Control && shot.socket == FILTERED;
        let controls = || self.log.iter().filter(beside);
        let served = controls().filter(|shot| shot.heard().is_some()).count() + CONTROLS_MISSED >= controls().count();
        // Whether it came; nothing, if that it did not come says nothing.
        let came = |change, there: Option<SocketAddr>| {
            let there = there?;
            let of = |shot: &&Shot| shot.purpose == Purpose::Filter && shot.request.change == change;
            let heard = || self.log.iter().filter(of).filter_map(Shot::heard);
            let from_there = |heard: &Heard| match change {
                Change::BOTH => heard.from.ip() != server.addr.ip(),
                _ => heard.from != server.addr,
            };
            let came = heard().any(from_there);
            let served = served && heard().all(from_there);
            let answers = self.log.iter().any(|shot| shot.to == there && shot.answer().is_some());
            (came || served && answers).then_some(came)
        };
        let bounds = infer::filtering(came(Change::BOTH, server.other), came(Change::PORT, server.other_port));
        bounds.map_or_else(|| Finding::unknown(self.without_another()), Finding::Known)
    }

    /// Why a server's other places told nothing.
    fn without_another(&self) -> String {
        match self.server {
            Some(Server { addr, other_port: None, .. }) => {
                format!("{addr} answers from there alone: a rendezvous that listens on two addresses or ports can tell")
            }
            Some(Server { addr, other_port: Some(there), .. }) => {
                format!("{there}, the other place of {addr}, does not answer: is that port open there?")
            }
            None => self.without_ipv4().to_owned(),
        }
    }

    fn allocation(&self) -> Finding<Allocation> {
        let sockets = (0..).zip(&self.plan.sockets).take(SOCKETS);
        let seen = |(id, own): (u16, &SocketAddr)| {
            let outside = self.outside(SocketId(id))?;
            Some((i32::from(id), own.port(), outside.port()))
        };
        let ports: Vec<_> = sockets.filter_map(seen).collect();
        Allocation::infer(SOCKETS, &ports).map_or_else(Finding::Unknown, Finding::Known)
    }

    fn hairpin(&self, mapping: &Finding<Bounds>) -> Finding<bool> {
        let mut shots = self.log.iter().filter(|shot| shot.purpose == Purpose::Hairpin).peekable();
        if shots.peek().is_none() {
            return Finding::unknown("the server did not see two sockets at one address in the internet");
        }
        if shots.any(|shot| shot.heard().is_some_and(|heard| HAIRPIN.contains(&heard.on))) {
            return Finding::Known(true);
        }
        match mapping.known() {
            Some(Bounds { most: Behaviour::EndpointIndependent, .. }) => Finding::Known(false),
            Some(Bounds { least, .. }) if *least > Behaviour::EndpointIndependent => {
                Finding::unknown("two sockets cannot know each other's address where each destination sees another")
            }
            _ => Finding::unknown("nothing came back, which means something only where the mapping is known"),
        }
    }
}

impl Server {
    fn new(addr: SocketAddr, answer: &Answer) -> Self {
        // A server may name anybody as its other address: only who could be one is asked.
        let believable = |there: &SocketAddr| {
            let local = there.ip().is_loopback() && addr.ip().is_loopback();
            let as_near = !is_private(there.ip()) || is_private(addr.ip());
            local || as_near && is_usable_candidate(*there, &[])
        };
        let other = answer.other.map(canonical).filter(|other| other.is_ipv4() && other.ip() != addr.ip());
        let other = other.filter(|other| other.port() != addr.port()).filter(believable);
        let port = other.map(|other| other.port()).or(answer.other_port).filter(|port| *port != addr.port());
        let other_port = port.map(|port| SocketAddr::new(addr.ip(), port));
        let sees_the_world = sees_the_world(answer.mapped.ip());
        Self { addr, sees_the_world, other_port, other, proves: answer.proof.is_some() }
    }
}

/// Whether a server that sees us there is on the other side of all routers.
fn sees_the_world(mapped: IpAddr) -> bool {
    !is_private(mapped) && !mapped.is_loopback()
}

fn filter_times(now: Instant) -> impl Iterator<Item = Instant> + Clone {
    (0..).take(FILTER_TRIES).map(move |n| now + FILTER_PAUSE * n)
}
