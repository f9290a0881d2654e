//! Why a peer is reached as it is: the evidence, one cause, and what would help. The contract of `punchlan why --json`,
//! and a pure reading of facts: no time passes here and nothing is sent.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Node;
use super::carriers::{Carrier, Standing};
use super::peer::Peer;
use super::status::{self, Nat, PathKind, PeerState};
use crate::id::PeerId;
use crate::punch::{PathReport, Via};
use crate::sans::Instant;
use crate::symmetric::Outcome;
use crate::wire::session::Carried;

/// What came longer ago says nothing of now.
const LATELY: Duration = Duration::from_mins(1);

/// Everything, in the order in which it is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The contract's number.
    pub schema: u32,
    /// This machine's name.
    pub me: String,
    /// The peer, as `status` shows it.
    pub peer: status::Peer,
    /// What this machine is behind.
    pub here: Side,
    /// What the peer is behind, as it says.
    pub there: Side,
    /// The direct ways that were tried.
    pub tried: Vec<Tried>,
    /// The search over ports, if there was one.
    pub search: Option<Search>,
    /// Attempts to connect by TCP, if there were any.
    #[serde(default)]
    pub tcp: Option<Search>,
    /// Other members who may carry between us, as far as they were asked.
    #[serde(default)]
    pub carriers: Vec<MayCarry>,
    /// The one reason.
    pub cause: Cause,
}

/// A member who may carry for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MayCarry {
    /// Its name here.
    pub name: String,
    /// How it stands to that.
    pub state: CarrierState,
}

/// How a member stands to carrying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CarrierState {
    /// It does, if that is the quickest way.
    Carries,
    /// It was asked, and has not answered.
    Asked,
    /// It has no direct way to both, or the other does not want it.
    NoWay,
    /// `offer = false` in its net.toml.
    NotOffered,
    /// It carries for as many as may be.
    Full,
    /// We sent more than it carries.
    Throttled,
}

/// One end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// What is known of the NAT; nothing in it: nothing.
    pub nat: Nat,
    /// Each destination sees another port; `None`: not known.
    pub changes_port: Option<bool>,
    /// It has candidates of IPv4.
    pub ipv4: bool,
    /// It has candidates of IPv6.
    pub ipv6: bool,
    /// A router sends on what arrives for it.
    pub mapped: bool,
    /// UDP does not get out: it is heard of by TCP alone.
    #[serde(default)]
    pub udp_blocked: bool,
}

/// A way that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// How the address was found.
    pub kind: PathKind,
    /// The peer's address.
    pub address: SocketAddr,
    /// Probes sent there, but for those that only open our own router.
    pub sent: u32,
    /// The peer's probes came from there in the last minute.
    pub heard: bool,
    /// Ours are answered.
    pub answered: bool,
    /// Small packets pass, and full-size ones do not.
    pub narrow: bool,
}

/// A search over ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// Where it stands.
    pub state: SearchState,
    /// Seconds since it ended.
    pub ago_s: Option<u64>,
}

/// Where a search stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SearchState {
    /// It goes on, or waits for its turn.
    Running,
    /// It found the way that is used.
    Found,
    /// No port that was tried fitted.
    InVain,
    /// Both sides have too many ports.
    Hopeless,
    /// How ports are given could not be found out.
    Unknown,
    /// The peer was busy with another.
    Unanswered,
    /// Our port is the same for all; the peer searches.
    Theirs,
}

/// Why it is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It is reached directly.
    Direct,
    /// It is not there.
    Offline,
    /// It is there, and no handshake has come through yet.
    NoSession,
    /// No rendezvous answers, and nothing else leads there.
    NoRendezvous,
    /// The network that this machine is in lets no UDP pass.
    UdpBlockedHere,
    /// The same of the peer's.
    UdpBlockedThere,
    /// Direct ways are being tried.
    Trying,
    /// One has IPv4 alone and the other IPv6 alone.
    NoCommonFamily,
    /// Each friend sees another port of either, and there are too many to search.
    BothSymmetric,
    /// Each friend sees another port of this machine, and none that was tried fitted.
    SymmetricHere,
    /// The same of the peer.
    SymmetricThere,
    /// A direct way carries small packets alone.
    Narrow,
    /// The peer's packets come, ours do not arrive.
    BlockedThere,
    /// Nothing comes, though it should.
    Blocked,
    /// Nothing comes, and what one of the routers does is not known.
    Unknown,
}

/// What the cause is read from.
#[derive(Clone, Copy, Debug)]
struct Facts<'a> {
    state: PeerState,
    is_registered: bool,
    here: &'a Side,
    there: &'a Side,
    tried: &'a [Tried],
    is_trying: bool,
}

impl Facts<'_> {
    fn cause(&self) -> Cause {
        match self.state {
            PeerState::Direct => return Cause::Direct,
            PeerState::Offline if !self.is_registered => return Cause::NoRendezvous,
            PeerState::Offline => return Cause::Offline,
            PeerState::Connecting if !self.is_registered => return Cause::NoRendezvous,
            PeerState::Connecting => return Cause::NoSession,
            PeerState::Relayed => {}
        }
        let (here, there) = (self.here, self.there);
        match (here.cannot_be_named(), there.cannot_be_named()) {
            _ if self.tried.iter().any(|tried| tried.narrow) => Cause::Narrow,
            _ if here.udp_blocked => Cause::UdpBlockedHere,
            _ if there.udp_blocked => Cause::UdpBlockedThere,
            _ if self.is_trying => Cause::Trying,
            _ if here.has_none() || there.has_none() => Cause::Unknown,
            _ if !(here.ipv4 && there.ipv4 || here.ipv6 && there.ipv6) => Cause::NoCommonFamily,
            (Some(true), Some(true)) => Cause::BothSymmetric,
            (Some(true), _) => Cause::SymmetricHere,
            (_, Some(true)) => Cause::SymmetricThere,
            _ if self.tried.iter().any(|tried| tried.heard && !tried.answered) => Cause::BlockedThere,
            (Some(false), Some(false)) => Cause::Blocked,
            _ => Cause::Unknown,
        }
    }
}

impl Side {
    /// Whether nobody can be told where to reach it.
    fn cannot_be_named(&self) -> Option<bool> {
        if self.mapped { Some(false) } else { self.changes_port }
    }

    /// Whether no address of it is known.
    const fn has_none(&self) -> bool {
        !self.ipv4 && !self.ipv6
    }
}

impl Node {
    /// Why a peer is reached as it is; `None`: nobody knows it.
    pub fn why(&self, now: Instant, id: &PeerId) -> Option<Why> {
        let peer = self.peers.get(id)?;
        let report = self.status(now).peers.into_iter().find(|report| report.id == *id)?;
        let own = self.gather.candidates();
        let here = Side {
            nat: Nat { port_mapping: self.lease.report(), ..self.nat.report() },
            changes_port: self.nat.found().changes_port().or_else(|| self.ports.changes()),
            ipv4: own.iter().any(|candidate| candidate.addr.is_ipv4()),
            ipv6: own.iter().any(|candidate| candidate.addr.is_ipv6()),
            mapped: self.gather.mapped().is_some(),
            udp_blocked: self.is_udp_blocked(),
        };
        let there = there(peer);
        let tried: Vec<Tried> = peer.punch.paths(now).filter_map(|path| tried(&path)).collect();
        let facts = Facts {
            state: report.state,
            // Of whom the LAN tells, no rendezvous has to.
            is_registered: self.is_registered() || peer.hearsay.is_some(),
            here: &here,
            there: &there,
            tried: &tried,
            is_trying: self.ports.is_at(id) || peer.punch.is_young(now),
        };
        let cause = facts.cause();
        let search = self.search_report(now, id, peer, &report);
        Some(Why {
            schema: status::SCHEMA,
            me: self.naming.my_name.clone(),
            peer: report,
            here,
            there,
            tried,
            search,
            tcp: self.tcp_report(now, id, peer),
            carriers: self.may_carry(peer),
            cause,
        })
    }

    fn may_carry(&self, peer: &Peer) -> Vec<MayCarry> {
        let state = |known: &Carrier| match (known.standing, known.said) {
            (Standing::Open { .. }, _) => CarrierState::Carries,
            (Standing::Asked(..), _) | (Standing::Resting(_), None) => CarrierState::Asked,
            (Standing::Resting(_), Some(Carried::NotOffered)) => CarrierState::NotOffered,
            (Standing::Resting(_), Some(Carried::Full)) => CarrierState::Full,
            (Standing::Resting(_), Some(Carried::Throttled)) => CarrierState::Throttled,
            (Standing::Resting(_), Some(_)) => CarrierState::NoWay,
        };
        let known = peer.carriers.iter().filter_map(|(carrier, known)| {
            Some(MayCarry { name: self.peers.get(carrier)?.name.clone(), state: state(known) })
        });
        known.collect()
    }

    fn tcp_report(&self, now: Instant, id: &PeerId, peer: &Peer) -> Option<Search> {
        let is_used = peer.punch.choice().is_some_and(|choice| choice.via.is_stream());
        match peer.tried_tcp.in_vain() {
            _ if is_used => Some(Search { state: SearchState::Found, ago_s: None }),
            _ if self.tcp.is_at(id) => Some(Search { state: SearchState::Running, ago_s: None }),
            Some(at) => Some(Search { state: SearchState::InVain, ago_s: Some((now - at).as_secs()) }),
            None => None,
        }
    }

    fn search_report(&self, now: Instant, id: &PeerId, peer: &Peer, report: &status::Peer) -> Option<Search> {
        let searched = &peer.searched_ports;
        let ended = |state, at: Instant| Some(Search { state, ago_s: Some((now - at).as_secs()) });
        match searched.last() {
            _ if self.ports.is_at(id) => Some(Search { state: SearchState::Running, ago_s: None }),
            _ if report.state == PeerState::Direct => {
                searched.worked.then_some(Search { state: SearchState::Found, ago_s: None })
            }
            Some((at, Outcome::InVain)) => ended(SearchState::InVain, at),
            Some((at, Outcome::Hopeless)) => ended(SearchState::Hopeless, at),
            Some((at, Outcome::Unknown)) => ended(SearchState::Unknown, at),
            Some((at, Outcome::Unanswered)) => ended(SearchState::Unanswered, at),
            Some((at, Outcome::Needless)) if searched.theirs_change() == Some(true) => ended(SearchState::Theirs, at),
            Some((_, Outcome::Needless)) | None => None,
        }
    }
}

fn there(peer: &Peer) -> Side {
    let candidates = &peer.signed.candidates;
    let traits = peer.nat.unwrap_or_default();
    Side {
        nat: traits.into(),
        changes_port: traits.changes_port().or_else(|| peer.searched_ports.theirs_change()),
        ipv4: candidates.iter().any(|candidate| candidate.addr.is_ipv4()),
        ipv6: candidates.iter().any(|candidate| candidate.addr.is_ipv6()),
        mapped: candidates.iter().any(|candidate| PathKind::from(candidate.kind) == PathKind::Mapped),
        udp_blocked: peer.is_udp_blocked(),
    }
}

fn tried(path: &PathReport) -> Option<Tried> {
    let Via::Direct { remote, .. } = path.via else { return None };
    let (answered, heard) = (path.proven.is_some(), path.heard.is_some_and(|ago| ago <= LATELY));
    Some(Tried { kind: path.kind, address: remote, sent: path.asked, heard, answered, narrow: path.narrow })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{Allocation, Behaviour, Traits};

    fn side(changes_port: Option<bool>) -> Side {
        Side { changes_port, ipv4: true, ..Side::default() }
    }

    fn relayed(here: &Side, there: &Side) -> Cause {
        let state = PeerState::Relayed;
        Facts { state, is_registered: true, here, there, tried: &[], is_trying: false }.cause()
    }

    /// What each kind of NAT is known as, and whether it changes ports.
    fn kinds() -> [(Traits, bool); 8] {
        use Allocation::{Block, Preserved, Random, Sequential};
        use Behaviour::{AddressAndPortDependent as Strict, AddressDependent, EndpointIndependent as Open};
        let kind = |translates, mapping, filtering, allocation| Traits {
            translates: Some(translates),
            mapping: Some(mapping),
            filtering: Some(filtering),
            hairpin: None,
            allocation: Some(allocation),
        };
        [
            (kind(false, Open, Open, Preserved), false),
            (kind(false, Open, Strict, Preserved), false),
            (kind(true, Open, Strict, Preserved), false),
            (kind(true, Strict, Strict, Preserved), false),
            (kind(true, Strict, Strict, Random), true),
            (kind(true, Strict, Strict, Sequential { step: 1 }), true),
            (kind(true, Strict, Strict, Block { first: 1_024, last: 2_047 }), true),
            (kind(true, AddressDependent, Strict, Random), true),
        ]
    }

    #[test]
    fn of_each_pair_of_routers_that_is_relayed_the_one_that_changes_ports_is_named() {
        for (here, changes_here) in kinds() {
            for (there, changes_there) in kinds() {
                let expected = match (changes_here, changes_there) {
                    (true, true) => Cause::BothSymmetric,
                    (true, false) => Cause::SymmetricHere,
                    (false, true) => Cause::SymmetricThere,
                    (false, false) => Cause::Blocked,
                };
                assert_eq!(
                    relayed(&side(here.changes_port()), &side(there.changes_port())),
                    expected,
                    "{here:?} {there:?}"
                );
            }
        }
        assert_eq!(Traits::default().changes_port(), None);
        assert_eq!(relayed(&side(None), &side(Some(true))), Cause::SymmetricThere);
    }

    #[test]
    fn what_was_seen_comes_before_what_is_concluded() {
        let (cone, strict) = (side(Some(false)), side(Some(true)));
        let address = SocketAddr::from(([203, 0, 113, 9], 41_641));
        let tried =
            |heard, answered, narrow| Tried { kind: PathKind::Reflexive, address, sent: 9, heard, answered, narrow };
        let (narrow, one_way) = ([tried(true, true, true)], [tried(true, false, false)]);
        let facts =
            |state, tried| Facts { state, is_registered: true, here: &cone, there: &strict, tried, is_trying: false };
        assert_eq!(facts(PeerState::Relayed, &narrow).cause(), Cause::Narrow);
        assert_eq!(Facts { is_trying: true, ..facts(PeerState::Relayed, &[]) }.cause(), Cause::Trying);
        assert_eq!(Facts { there: &cone, ..facts(PeerState::Relayed, &one_way) }.cause(), Cause::BlockedThere);
        assert_eq!(facts(PeerState::Direct, &[]).cause(), Cause::Direct);
        assert_eq!(facts(PeerState::Offline, &[]).cause(), Cause::Offline);
        assert_eq!(facts(PeerState::Connecting, &[]).cause(), Cause::NoSession);
        for state in [PeerState::Offline, PeerState::Connecting] {
            assert_eq!(Facts { is_registered: false, ..facts(state, &[]) }.cause(), Cause::NoRendezvous);
        }
        let v6 = Side { ipv4: false, ipv6: true, ..side(None) };
        assert_eq!(relayed(&cone, &v6), Cause::NoCommonFamily);
        assert_eq!(relayed(&Side { ipv6: true, ..side(Some(false)) }, &v6), Cause::Unknown, "IPv6 on both sides");
        assert_eq!(relayed(&cone, &Side::default()), Cause::Unknown, "who said nothing of itself");
        let blocked = Side { udp_blocked: true, ..side(None) };
        assert_eq!(relayed(&blocked, &blocked), Cause::UdpBlockedHere);
        assert_eq!(relayed(&strict, &blocked), Cause::UdpBlockedThere, "whatever else is so");
        let mapped = Side { mapped: true, ..side(Some(true)) };
        assert_eq!(relayed(&mapped, &cone), Cause::Blocked, "a router that maps a port lets everybody in");
    }
}
