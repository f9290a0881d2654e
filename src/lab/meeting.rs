//! Two peers meet: how long until the first ping is answered, and until pings cross the core directly.
//!
//! What is direct is counted on the wire; by which means they became so, the two are asked.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::oracle::{self, Way};
use super::programs::{Flaws, Network, PING_ON_WIRE, Peer, await_some};
use super::wire::{Count, SETTLE, Wire};
use super::{Host, Lab, SitePlan, interrupt};
use crate::node::status::PathKind;
use crate::node::why::{Cause, SearchState, Why};

/// How long a pair that may become direct is given; and anybody to answer the first ping.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a pair that may not is watched.
const WATCH: Duration = Duration::from_secs(3);
/// A mapping that lives no longer than this is watched through its end…
const SHORT: Duration = Duration::from_mins(1);
/// …and so long past it.
const MARGIN: Duration = Duration::from_secs(5);
/// What is being tried has come to its end by then, and to the next one's beginning.
const CONCLUDES: Duration = Duration::from_secs(20);
/// Pings that show which way traffic settled on.
const PINGS: u32 = 25;

/// What was measured, from the start of the second peer's process.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// To the first answered ping.
    pub first_ping: Duration,
    /// To the first ping that crossed the core directly both ways, if one did.
    pub direct: Option<Duration>,
    /// Pings that were lost or doubled on the way from the relay to the direct path.
    pub flaws: Flaws,
    /// Where pings went in the end.
    pub settled: Settled,
    /// What `punchlan why` says in the end, on the first host and on the second.
    pub why: [Why; 2],
}

/// Pings in the end, and where they went.
#[derive(Clone, Debug)]
pub struct Settled {
    answered: usize,
    /// Straight from one host to the other, there and back.
    direct: [usize; 2],
    /// Between each host and the rendezvous.
    relayed: [usize; 2],
    /// What the peers dropped, for who wonders.
    dropped: String,
}

/// How long two are watched.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// They are given so long to become direct.
    direct: Duration,
    /// And then are silent for so long, before it is looked where their pings go.
    silence: Duration,
}

impl Watch {
    /// Until they are direct, if that is expected; and where a mapping is short, until it would have ended.
    pub fn of(a: SitePlan, b: SitePlan) -> Self {
        let may_be_direct = oracle::ways(a, b).iter().any(|way| way.is_direct());
        let short = [a, b].into_iter().filter_map(|site| site.mappings).filter(|lifetime| *lifetime <= SHORT);
        let silence = short.max().map_or(Duration::ZERO, |lifetime| lifetime + MARGIN);
        Self { direct: if may_be_direct { PATIENCE } else { WATCH }, silence }
    }
}

/// Brings up a peer of the network on each host, the second when the first is registered, and watches them meet. Then
/// counts where their pings go.
pub fn meet(lab: &Lab, network: &Network, first: &Host, second: &Host, watch: Watch) -> Result<Meeting> {
    let alice = network.join(first, "alice-at-home", 1)?;
    let wire = Wire::tap(lab)?;
    let start = Instant::now();
    let bob = network.up(second, "bob-on-the-road", 2)?;
    let mut pings = bob.start_pings(alice.address)?;
    let first_ping = pings.first_answer(PATIENCE)? - start;
    let direct = await_some("a direct ping", watch.direct, || Ok(between(&wire, first, second).both_ways_since()));
    interrupt::check()?;
    let flaws = pings.end()?;
    let direct = direct.ok().map(|at| at - start);
    interrupt::pause(watch.silence)?;
    let settled = Settled::count(&wire, &alice, &bob)?;
    let why = [conclude(&alice, &bob)?, conclude(&bob, &alice)?];
    Ok(Meeting { first_ping, direct, flaws, settled, why })
}

/// What `punchlan why` says, once nothing is being tried any more.
fn conclude(peer: &Peer<'_>, of: &Peer<'_>) -> Result<Why> {
    let concluded = || Ok(Some(peer.why(&of.name)?).filter(|why| why.cause != Cause::Trying));
    await_some("an end of what is being tried", CONCLUDES, concluded)
}

impl Meeting {
    /// How they reach each other in the end.
    pub fn way(&self) -> Way {
        let paths = || self.why.iter().filter_map(|why| why.peer.path.as_ref());
        let found = |why: &Why| why.search.as_ref().is_some_and(|search| search.state == SearchState::Found);
        match &self.settled {
            settled if settled.answered == 0 => Way::None,
            settled if !settled.is_direct() => Way::Relayed,
            _ if paths().any(|path| path.transport == "tcp") => Way::Tcp,
            _ if paths().any(|path| path.family == "ipv6") => Way::Ipv6,
            _ if self.is_mapped() => Way::Mapped,
            _ if self.why.iter().any(found) => Way::Search,
            _ => Way::Direct,
        }
    }

    /// Whether one is used that a router maps. Where each side shows what came to it, the first packet came by that.
    fn is_mapped(&self) -> bool {
        let is = |why: &Why, kind| why.peer.path.as_ref().is_some_and(|path| path.kind == kind);
        self.why.iter().any(|why| is(why, PathKind::Mapped))
            || self.why.iter().all(|why| is(why, PathKind::PeerReflexive)) && self.why.iter().any(|why| why.here.mapped)
    }
}

/// Pings, and counts them on the wire: all direct, or all through the rendezvous. Where the lab loses packets
/// the count is of those that were answered.
pub fn settles(lab: &Lab, wire: &Wire, a: &Peer<'_>, b: &Peer<'_>, direct_expected: bool) -> Result<()> {
    Settled::count(wire, a, b)?.ensure(direct_expected, lab.loses())
}

impl Settled {
    fn count(wire: &Wire, a: &Peer<'_>, b: &Peer<'_>) -> Result<Self> {
        wire.clear();
        let answered = usize::try_from(b.ping(a.address.into(), PINGS)?)?;
        std::thread::sleep(SETTLE);
        let direct = between(wire, a.host, b.host);
        let relayed = [a.host, b.host].map(|host| through_rendezvous(wire, host));
        let dropped = [a, b].map(|peer| peer.status().map(|status| status.counters.drop).unwrap_or_default());
        let direct = [direct.there.len(), direct.back.len()];
        Ok(Self { answered, direct, relayed, dropped: format!("{dropped:?}") })
    }

    /// Whether most went straight, both ways.
    fn is_direct(&self) -> bool {
        self.direct.iter().all(|packets| packets * 2 > self.answered)
    }

    /// Fails unless all were answered (or enough, where packets are lost), and all went this way and no other.
    pub fn ensure(&self, direct_expected: bool, loses: bool) -> Result<()> {
        let Self { answered, direct, relayed, dropped } = self;
        let counted =
            format!("{answered} of {PINGS} answered; direct {direct:?}, relayed {relayed:?}; dropped {dropped}");
        let pings = usize::try_from(PINGS)?;
        ensure!(*answered == pings || (loses && *answered > pings / 3), "{counted}");
        if direct_expected {
            ensure!(direct.iter().all(|packets| packets >= answered) && *relayed == [0, 0], "{counted}");
        } else {
            ensure!(relayed.iter().all(|&packets| packets >= 2 * answered) && *direct == [0, 0], "{counted}");
        }
        Ok(())
    }
}

/// Pings on the wire between two hosts.
pub fn between(wire: &Wire, a: &Host, b: &Host) -> Count {
    wire.count(&a.public_addresses(), &b.public_addresses(), PING_ON_WIRE)
}

/// Pings on the wire between a host and the rendezvous, both ways.
pub fn through_rendezvous(wire: &Wire, host: &Host) -> usize {
    let rendezvous: [IpAddr; 4] = Lab::rendezvous_addresses();
    let count = wire.count(&host.public_addresses(), &rendezvous, PING_ON_WIRE);
    count.there.len() + count.back.len()
}
