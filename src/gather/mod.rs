//! L3: candidates. Where others may try to reach us, and which of their candidates we try.
//!
//! [`Gather`] knows our sockets, our interfaces, what each rendezvous observed and what the router mapped. From them
//! come, in this order:
//!
//! 1. the *mapped* address, which everybody can reach, also from behind a symmetric NAT;
//! 2. *reflexive* addresses, as a rendezvous saw us;
//! 3. *host* addresses: every interface address with its socket's port;
//! 4. *predicted* ones: the public address with the local port, for routers that keep ports and for port
//!    forwards that somebody made by hand.
//!
//! [`Gather::admit`] is the gate for the candidates of a peer: see there. [`lease`] says when the router is asked for a
//! mapping, and whether it is believed.

mod admit;
pub mod lease;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::addr::{canonical, is_usable_candidate};
use crate::id::{ServerId, SocketId};
use crate::wire::announcement::{Candidate, CandidateKind, MAX_CANDIDATES};

/// Most reflexive addresses announced: one a family from two rendezvous, and one to spare.
const MAX_REFLEXIVE: usize = 5;
/// Most host addresses announced: machines with many IPv6 addresses have no more ways in than others.
const MAX_HOST: usize = 9;
/// Observations remembered: more than anybody has rendezvous, times two families.
const MAX_OBSERVED: usize = 32;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// [`Gather::candidates`] is another list now: announce it.
    Changed,
}

/// Our own candidates.
#[derive(Debug)]
pub struct Gather {
    sockets: Vec<(SocketId, SocketAddr)>,
    overlays: Vec<IpNet>,
    interfaces: Vec<IpNet>,
    observed: Vec<Observed>,
    mapped: Option<SocketAddr>,
    candidates: Vec<Candidate>,
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Observed {
    server: ServerId,
    socket: SocketId,
    addr: SocketAddr,
}

impl Gather {
    /// `sockets` with the addresses they are bound to; `overlays`: the prefixes of all overlays of this machine.
    pub fn new(sockets: &[(SocketId, SocketAddr)], overlays: &[IpNet]) -> Self {
        Self {
            sockets: sockets.to_vec(),
            overlays: overlays.to_vec(),
            interfaces: Vec::new(),
            observed: Vec::new(),
            mapped: None,
            candidates: Vec::new(),
            changed: false,
        }
    }

    /// The addresses of our interfaces with their prefixes.
    pub fn set_interfaces(&mut self, interfaces: &[IpNet]) {
        self.interfaces = interfaces.to_vec();
        self.renew();
    }

    /// The sockets were bound anew.
    pub fn set_sockets(&mut self, sockets: &[(SocketId, SocketAddr)]) {
        self.sockets = sockets.to_vec();
        self.observed.retain(|seen| sockets.iter().any(|(id, _)| *id == seen.socket));
        self.renew();
    }

    /// The prefixes of the overlays of this machine changed.
    pub fn set_overlays(&mut self, overlays: &[IpNet]) {
        self.overlays = overlays.to_vec();
        self.renew();
    }

    /// Where the router sends on to us what arrives.
    pub fn set_mapped(&mut self, mapped: Option<SocketAddr>) {
        self.mapped = mapped.map(canonical);
        self.renew();
    }

    /// As it was last told.
    pub const fn mapped(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// The prefixes of all overlays of this machine.
    pub fn overlays(&self) -> &[IpNet] {
        &self.overlays
    }

    /// Whether `server` saw `socket` at another public address than `addr`'s until now: perhaps the router is another.
    pub fn has_moved(&self, server: ServerId, socket: SocketId, addr: SocketAddr) -> bool {
        let same = |seen: &&Observed| (seen.server, seen.socket) == (server, socket);
        self.observed.iter().find(same).is_some_and(|seen| seen.addr.ip() != canonical(addr).ip())
    }

    /// `server` saw `socket` as `addr`. Holds until it sees something else.
    pub fn observed(&mut self, server: ServerId, socket: SocketId, addr: SocketAddr) {
        let seen = Observed { server, socket, addr: canonical(addr) };
        self.observed.retain(|old| (old.server, old.socket) != (server, socket));
        if self.observed.len() < MAX_OBSERVED {
            self.observed.push(seen);
            self.observed.sort_by_key(|seen| (seen.server, seen.socket));
        }
        self.renew();
    }

    /// `server` is asked no longer: what it saw is hearsay from now on.
    pub fn forget(&mut self, server: ServerId) {
        self.observed.retain(|seen| seen.server != server);
        self.renew();
    }

    /// Where others may try to reach us, the most promising first; at most 16.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Our addresses as rendezvous see them.
    pub fn reflexive(&self) -> impl Iterator<Item = SocketAddr> {
        self.observed.iter().map(|seen| seen.addr)
    }

    /// Our IPv4 addresses on the LANs, those left out that a machine gives itself (RFC 3927): no router leads on from them.
    pub fn v4_hosts(&self) -> Vec<IpAddr> {
        let leads_on = |ip: IpAddr| matches!(ip, IpAddr::V4(v4) if !v4.is_link_local());
        let usable = |addr: &SocketAddr| leads_on(addr.ip()) && is_usable_candidate(*addr, &self.overlays);
        self.hosts().map(|host| host.addr).filter(usable).map(|addr| addr.ip()).collect()
    }

    /// What happened; call until `None` after every call that changed something.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        std::mem::take(&mut self.changed).then_some(Event::Changed)
    }

    fn renew(&mut self) {
        let candidates = self.collect();
        if candidates != self.candidates {
            self.candidates = candidates;
            self.changed = true;
        }
    }

    fn collect(&self) -> Vec<Candidate> {
        let hosts: Vec<Candidate> = self.hosts().collect();
        let is_host = |candidate: &Candidate| hosts.iter().any(|host| host.addr == candidate.addr);
        let mapped = self.mapped.map(|addr| Candidate { kind: CandidateKind::Mapped, addr });
        let mut list = Vec::with_capacity(MAX_CANDIDATES);
        self.add(&mut list, 1, mapped.into_iter().filter(|mapped| !is_host(mapped)));
        self.add(&mut list, MAX_REFLEXIVE, self.reflexives().filter(|reflexive| !is_host(reflexive)));
        self.add(&mut list, MAX_HOST, hosts.iter().copied());
        self.add(&mut list, MAX_CANDIDATES, self.predicted());
        list
    }

    /// Adds up to `most` usable candidates that are not in the list yet.
    fn add(&self, list: &mut Vec<Candidate>, most: usize, more: impl Iterator<Item = Candidate>) {
        let end = MAX_CANDIDATES.min(list.len() + most);
        for candidate in more {
            let known = list.iter().any(|other| other.addr == candidate.addr);
            if list.len() < end && !known && is_usable_candidate(candidate.addr, &self.overlays) {
                list.push(candidate);
            }
        }
    }

    fn reflexives(&self) -> impl Iterator<Item = Candidate> {
        self.reflexive().map(|addr| Candidate { kind: CandidateKind::Reflexive, addr })
    }

    fn hosts(&self) -> impl Iterator<Item = Candidate> {
        let addrs = self.sockets.iter().flat_map(|(_, bound)| {
            let ips = self.interfaces.iter().map(IpNet::addr).filter(|ip| serves(*bound, *ip));
            ips.map(|ip| SocketAddr::new(ip, bound.port()))
        });
        addrs.map(|addr| Candidate { kind: CandidateKind::Host, addr })
    }

    fn predicted(&self) -> impl Iterator<Item = Candidate> {
        let addrs = self.observed.iter().filter_map(|seen| {
            let (_, bound) = self.sockets.iter().find(|(id, _)| *id == seen.socket)?;
            Some(SocketAddr::new(seen.addr.ip(), bound.port()))
        });
        addrs.map(|addr| Candidate { kind: CandidateKind::Predicted, addr })
    }
}

/// Whether a socket bound to `bound` receives what is sent to `ip`.
fn serves(bound: SocketAddr, ip: IpAddr) -> bool {
    bound.is_ipv4() == ip.is_ipv4() && (bound.ip().is_unspecified() || bound.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: SocketId = SocketId(0);
    const V6: SocketId = SocketId(1);

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("prefix")).collect()
    }

    fn gather() -> Gather {
        Gather::new(&[(V4, addr("0.0.0.0:4000")), (V6, addr("[::]:6000"))], &nets(&["10.77.0.0/24"]))
    }

    fn listed(gather: &Gather) -> Vec<(CandidateKind, String)> {
        gather.candidates().iter().map(|c| (c.kind, c.addr.to_string())).collect()
    }

    #[test]
    fn reflexive_host_and_predicted_addresses_come_in_this_order() {
        let mut gather = gather();
        gather.set_interfaces(&nets(&[
            "192.168.1.5/24",
            "2001:db8::5/64",
            "fe80::5/64",
            "10.77.0.1/24",
            "127.0.0.1/8",
        ]));
        gather.observed(ServerId(0), V4, addr("203.0.113.9:41641"));
        let expected = [
            (CandidateKind::Reflexive, "203.0.113.9:41641"),
            (CandidateKind::Host, "192.168.1.5:4000"),
            (CandidateKind::Host, "[2001:db8::5]:6000"),
            (CandidateKind::Predicted, "203.0.113.9:4000"),
        ];
        assert_eq!(listed(&gather), expected.map(|(kind, text)| (kind, text.to_owned())));
    }

    #[test]
    fn what_the_router_mapped_comes_first_and_goes_with_the_mapping() {
        let mut gather = gather();
        gather.set_interfaces(&nets(&["192.168.1.5/24"]));
        gather.observed(ServerId(0), V4, addr("203.0.113.9:41641"));
        gather.set_mapped(Some(addr("203.0.113.9:4000")));
        let expected = [
            (CandidateKind::Mapped, "203.0.113.9:4000"),
            (CandidateKind::Reflexive, "203.0.113.9:41641"),
            (CandidateKind::Host, "192.168.1.5:4000"),
        ];
        assert_eq!(listed(&gather), expected.map(|(kind, text)| (kind, text.to_owned())), "it is no guess any more");
        gather.set_mapped(Some(addr("203.0.113.9:41641")));
        assert_eq!(listed(&gather)[0], (CandidateKind::Mapped, "203.0.113.9:41641".to_owned()), "listed once");
        gather.set_mapped(Some(addr("192.168.1.5:4000")));
        assert!(listed(&gather).iter().all(|(kind, _)| *kind != CandidateKind::Mapped), "nothing is translated");
        while gather.poll_event().is_some() {}
        gather.set_mapped(None);
        assert_eq!(listed(&gather).len(), 3);
        assert!(gather.has_moved(ServerId(0), V4, addr("203.0.113.10:41641")));
        assert!(!gather.has_moved(ServerId(0), V4, addr("203.0.113.9:5")));
        assert!(!gather.has_moved(ServerId(1), V4, addr("203.0.113.10:5")));
    }

    #[test]
    fn a_public_host_has_one_candidate() {
        let mut gather = gather();
        gather.set_interfaces(&nets(&["198.51.100.7/24"]));
        gather.observed(ServerId(0), V4, addr("[::ffff:198.51.100.7]:4000"));
        assert_eq!(listed(&gather), [(CandidateKind::Host, "198.51.100.7:4000".to_owned())]);
    }

    #[test]
    fn only_a_change_is_told() {
        let mut gather = gather();
        assert_eq!(gather.poll_event(), None);
        gather.observed(ServerId(0), V4, addr("203.0.113.9:41641"));
        assert_eq!(gather.poll_event(), Some(Event::Changed));
        assert_eq!(gather.poll_event(), None);
        gather.observed(ServerId(0), V4, addr("203.0.113.9:41641"));
        gather.observed(ServerId(1), V4, addr("203.0.113.9:41641"));
        assert_eq!(gather.poll_event(), None);
        gather.observed(ServerId(1), V4, addr("203.0.113.9:41642"));
        assert_eq!(gather.poll_event(), Some(Event::Changed));
    }

    #[test]
    fn a_machine_with_many_addresses_announces_sixteen_and_no_kind_starves() {
        let mut gather = gather();
        let many: Vec<IpNet> = (0..50).map(|i| format!("2001:db8::{i:x}/64").parse().expect("prefix")).collect();
        gather.set_interfaces(&many);
        for server in 0..100 {
            gather.observed(ServerId(server), V4, SocketAddr::new(addr("203.0.113.9:1").ip(), 1000 + server));
        }
        let count = |kind| gather.candidates().iter().filter(|c| c.kind == kind).count();
        assert_eq!(gather.candidates().len(), 15);
        assert_eq!(
            (count(CandidateKind::Reflexive), count(CandidateKind::Host), count(CandidateKind::Predicted)),
            (5, 9, 1)
        );
    }

    #[test]
    fn a_socket_bound_to_one_address_is_reached_there_only() {
        let mut gather = Gather::new(&[(V4, addr("192.168.1.5:4000"))], &[]);
        gather.set_interfaces(&nets(&["192.168.1.5/24", "192.168.2.5/24", "2001:db8::5/64"]));
        assert_eq!(listed(&gather), [(CandidateKind::Host, "192.168.1.5:4000".to_owned())]);
    }
}
