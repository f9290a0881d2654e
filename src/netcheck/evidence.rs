//! What a check has asked and heard, and what follows from it. Where nothing does, the reason is said.

use std::net::{IpAddr, SocketAddr};

use super::server::{Server, sees_the_world};
use super::shots::{Heard, Purpose, Shot};
use super::{Asked, FILTERED, Finding, HAIRPIN, Ipv6, MAPPED, Plan, Report, SOCKETS, V6_SOCKET, infer};
use crate::addr::is_usable_candidate;
use crate::id::SocketId;
use crate::nat::{Allocation, Behaviour, Bounds};
use crate::wire::stun::Change;

/// Of the answers that must come beside those from elsewhere so many may be missing.
const CONTROLS_MISSED: usize = 2;

/// What a check has learned.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) plan: Plan,
    /// The server that is asked most, once it is known.
    pub(super) server: Option<Server>,
    /// All questions of the stages that are over, and what was heard of them.
    pub(super) log: Vec<Shot>,
}

impl Evidence {
    pub(super) fn has(&self, socket: SocketId) -> bool {
        if socket == V6_SOCKET { self.plan.ipv6 } else { usize::from(socket.0) < self.plan.sockets.len() }
    }

    /// The address of a socket as the best server saw it.
    pub(super) fn outside(&self, socket: SocketId) -> Option<SocketAddr> {
        let to = self.server?.addr;
        let purposes = [Purpose::Meet, Purpose::Row];
        let mut shots = self.log.iter().filter(|shot| shot.socket == socket && shot.to == to);
        shots.find_map(|shot| shot.answer().filter(|_| purposes.contains(&shot.purpose))).map(|answer| answer.mapped)
    }

    /// The same, if it may be written to. A server could name anybody, and itself: it must be public, not ours, and where
    /// every server saw the first socket.
    pub(super) fn way_back(&self, socket: SocketId) -> Option<SocketAddr> {
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

    pub(super) fn conclude(&self) -> Report {
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
