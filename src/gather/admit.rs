//! Which of a peer's candidates are tried.

use std::net::{IpAddr, SocketAddr};

use super::Gather;
use crate::addr::{canonical, is_private, is_usable_candidate};
use crate::wire::announcement::{Candidate, CandidateKind, MAX_CANDIDATES};

/// Kinds of addresses that a rendezvous may see too, and that stay what they are: their NATs, if any, do not close.
const STABLE: [CandidateKind; 2] = [CandidateKind::Host, CandidateKind::Mapped];

impl Gather {
    /// The candidates of a peer that are tried, the most promising first; at most 16.
    ///
    /// `announced` comes from the peer's signed announcement, `observed` from rendezvous that the peer is
    /// registered with, `registered` says whether any rendezvous answers us.
    ///
    /// - Never: addresses that [`is_usable_candidate`] refuses.
    /// - Always: what a rendezvous observed, and addresses that all the world can reach.
    /// - Private addresses: in the same place as ours probably (both sides have an equal reflexive address, or
    ///   one of our interfaces has the prefix), or when no rendezvous is there to tell. Elsewhere they are
    ///   machines of strangers.
    #[must_use]
    pub fn admit(&self, announced: &[Candidate], observed: &[SocketAddr], registered: bool) -> Vec<Candidate> {
        let one_site = !registered || self.shares_reflexive(announced, observed);
        let kind = |addr| announced.iter().find(|c| canonical(c.addr) == addr).map(|c| c.kind);
        let observed = observed.iter().map(|addr| canonical(*addr)).map(|addr| Candidate {
            kind: kind(addr).filter(|kind| STABLE.contains(kind)).unwrap_or(CandidateKind::Reflexive),
            addr,
        });
        let (guesses, known): (Vec<_>, Vec<_>) = announced
            .iter()
            .take(MAX_CANDIDATES)
            .map(|candidate| Candidate { addr: canonical(candidate.addr), ..*candidate })
            .filter(|candidate| one_site || !is_private(candidate.addr.ip()) || self.is_near(candidate.addr.ip()))
            .partition(|candidate| candidate.kind == CandidateKind::Predicted);
        let mut list: Vec<Candidate> = Vec::with_capacity(MAX_CANDIDATES);
        for candidate in observed.chain(known).chain(guesses) {
            let new = list.iter().all(|other| other.addr != candidate.addr);
            if new && list.len() < MAX_CANDIDATES && is_usable_candidate(candidate.addr, &self.overlays) {
                list.push(candidate);
            }
        }
        list
    }

    /// How many of `announced` nobody should ever have announced: [`is_usable_candidate`] refuses them.
    pub fn refused(&self, announced: &[Candidate]) -> u64 {
        announced.iter().filter(|candidate| !is_usable_candidate(candidate.addr, &self.overlays)).count() as u64
    }

    /// Whether the peer and we are seen with the same public address: behind one router.
    fn shares_reflexive(&self, announced: &[Candidate], observed: &[SocketAddr]) -> bool {
        let announced = announced.iter().filter(|c| c.kind == CandidateKind::Reflexive).map(|c| c.addr);
        let mut theirs = announced.chain(observed.iter().copied()).map(|addr| addr.ip().to_canonical());
        theirs.any(|ip| self.observed.iter().any(|ours| ours.addr.ip() == ip))
    }

    /// Whether `ip` is in the prefix of one of our interfaces.
    pub fn is_near(&self, ip: IpAddr) -> bool {
        self.interfaces.iter().any(|net| net.prefix_len() > 0 && net.contains(&ip))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{ServerId, SocketId};

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    fn host(text: &str) -> Candidate {
        Candidate { kind: CandidateKind::Host, addr: addr(text) }
    }

    fn reflexive(text: &str) -> Candidate {
        Candidate { kind: CandidateKind::Reflexive, addr: addr(text) }
    }

    /// At 192.168.1.5 behind 203.0.113.9, with an overlay on 10.77.0.0/24.
    fn gather() -> Gather {
        let mut gather =
            Gather::new(&[(SocketId(0), addr("0.0.0.0:4000"))], &["10.77.0.0/24".parse().expect("prefix")]);
        gather.set_interfaces(&["192.168.1.5/24".parse().expect("prefix")]);
        gather.observed(ServerId(0), SocketId(0), addr("203.0.113.9:41641"));
        gather
    }

    fn admitted(announced: &[Candidate], observed: &[SocketAddr], registered: bool) -> Vec<SocketAddr> {
        gather().admit(announced, observed, registered).iter().map(|c| c.addr).collect()
    }

    #[test]
    fn private_addresses_elsewhere_are_left_alone() {
        let theirs = [reflexive("198.51.100.1:5"), host("172.16.3.4:5"), host("[fd00::4]:5"), host("100.64.1.1:5")];
        assert_eq!(admitted(&theirs, &[], true), [addr("198.51.100.1:5")]);
        let disguised =
            [reflexive("172.16.3.4:5"), Candidate { kind: CandidateKind::Mapped, addr: addr("10.0.0.1:5") }];
        assert_eq!(admitted(&disguised, &[], true), []);
    }

    #[test]
    fn private_addresses_behind_our_router_are_tried() {
        let theirs = [reflexive("203.0.113.9:5000"), host("172.16.3.4:5")];
        assert_eq!(admitted(&theirs, &[], true), [addr("203.0.113.9:5000"), addr("172.16.3.4:5")]);
        let observed = [addr("203.0.113.9:5001")];
        assert_eq!(admitted(&[host("172.16.3.4:5")], &observed, true), [observed[0], addr("172.16.3.4:5")]);
    }

    #[test]
    fn private_addresses_of_our_prefix_are_tried() {
        assert_eq!(admitted(&[host("192.168.1.77:5"), host("192.168.2.77:5")], &[], true), [addr("192.168.1.77:5")]);
    }

    #[test]
    fn without_a_rendezvous_every_usable_address_is_tried() {
        assert_eq!(admitted(&[host("172.16.3.4:5"), host("127.0.0.1:5")], &[], false), [addr("172.16.3.4:5")]);
    }

    #[test]
    fn what_a_rendezvous_observed_always_counts_and_comes_first() {
        let observed = [addr("10.9.9.9:5")];
        assert_eq!(admitted(&[reflexive("198.51.100.1:5")], &observed, true), [observed[0], addr("198.51.100.1:5")]);
        assert_eq!(admitted(&[], &[addr("127.0.0.1:53"), addr("10.77.0.3:5")], true), [], "but not everything");
    }

    #[test]
    fn a_public_host_keeps_its_kind_and_guesses_come_last() {
        let guess = Candidate { kind: CandidateKind::Predicted, addr: addr("198.51.100.1:9") };
        let list = gather().admit(&[guess, host("198.51.100.1:5")], &[addr("198.51.100.1:5")], true);
        assert_eq!(list, [host("198.51.100.1:5"), guess]);
        let mapped = Candidate { kind: CandidateKind::Mapped, addr: addr("198.51.100.1:5") };
        assert_eq!(gather().admit(&[mapped], &[addr("198.51.100.1:5")], true), [mapped]);
    }

    #[test]
    fn our_own_overlay_is_never_a_candidate() {
        assert_eq!(admitted(&[host("10.77.0.3:5"), host("[::ffff:10.77.0.3]:5")], &[], false), []);
    }

    proptest! {
        #[test]
        fn whatever_is_announced_at_most_sixteen_distinct_usable_addresses_are_tried(
            addrs in prop::collection::vec(any::<SocketAddr>(), 0..40),
            observed in prop::collection::vec(any::<SocketAddr>(), 0..40),
            registered: bool,
        ) {
            let announced: Vec<Candidate> = addrs.iter().map(|a| Candidate { kind: CandidateKind::Host, addr: *a }).collect();
            let list = gather().admit(&announced, &observed, registered);
            prop_assert!(list.len() <= 16);
            for (i, candidate) in list.iter().enumerate() {
                prop_assert!(is_usable_candidate(candidate.addr, &gather().overlays));
                prop_assert!(list[..i].iter().all(|other| other.addr != candidate.addr));
            }
        }
    }
}
