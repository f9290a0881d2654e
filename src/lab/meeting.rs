//! Two peers meet: how long until the first ping is answered, and until pings cross the core directly.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::programs::{Flaws, Network, PING_ON_WIRE, Peer, await_some};
use super::wire::{SETTLE, Wire};
use super::{Host, Lab};

/// What was measured, from the start of the second peer's process.
#[derive(Clone, Copy, Debug)]
pub struct Meeting {
    /// To the first answered ping.
    pub first_ping: Duration,
    /// To the first ping that crossed the core directly both ways, if one did.
    pub direct: Option<Duration>,
    /// Pings that were lost or doubled on the way from the relay to the direct path.
    pub flaws: Flaws,
}

/// How long a pair that may become direct is given.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a pair that may not is watched.
const WATCH: Duration = Duration::from_secs(3);
/// Pings that show which way traffic settled on.
const PINGS: u32 = 25;

/// Brings up a peer of the network on each host, the second when the first is registered, and watches them meet. Then
/// counts where their pings go, which must be the way that is expected and no other.
pub fn meet(lab: &Lab, network: &Network, first: &Host, second: &Host, direct_expected: bool) -> Result<Meeting> {
    let alice = network.join(first, "alice-at-home", 1)?;
    let wire = Wire::tap(lab)?;
    let start = Instant::now();
    let bob = network.up(second, "bob-on-the-road", 2)?;
    let mut pings = bob.start_pings(alice.address)?;
    let first_ping = pings.first_answer(PATIENCE)? - start;
    let patience = if direct_expected { PATIENCE } else { WATCH };
    let direct = await_some("a direct ping", patience, || Ok(between(&wire, first, second).both_ways_since()));
    let flaws = pings.end()?;
    let direct = direct.ok().map(|at| at - start);
    ensure!(direct.is_some() == direct_expected, "direct after {direct:?}, expected: {direct_expected}");
    settles(lab, &wire, &alice, &bob, direct_expected)?;
    Ok(Meeting { first_ping, direct, flaws })
}

/// Pings, and counts them on the wire: all direct, or all through the rendezvous. Where the lab loses packets
/// the count is of those that were answered.
pub fn settles(lab: &Lab, wire: &Wire, a: &Peer<'_>, b: &Peer<'_>, direct_expected: bool) -> Result<()> {
    wire.clear();
    let answered = b.ping(a.address.into(), PINGS)?;
    std::thread::sleep(SETTLE);
    let direct = between(wire, a.host, b.host);
    let direct = [direct.there.len(), direct.back.len()];
    let relayed = [a.host, b.host].map(|host| through_rendezvous(wire, host));
    let dropped = [a, b].map(|peer| peer.status().map(|status| status.counters.drop).unwrap_or_default());
    let counted =
        format!("{answered} of {PINGS} answered; direct {direct:?}, relayed {relayed:?}; dropped {dropped:?}");
    ensure!(answered == PINGS || (lab.loses() && answered > PINGS / 3), "{counted}");
    let answered = usize::try_from(answered)?;
    if direct_expected {
        ensure!(direct.iter().all(|&packets| packets >= answered) && relayed == [0, 0], "{counted}");
    } else {
        ensure!(relayed.iter().all(|&packets| packets >= 2 * answered) && direct == [0, 0], "{counted}");
    }
    Ok(())
}

/// Pings on the wire between two hosts.
pub fn between(wire: &Wire, a: &Host, b: &Host) -> super::wire::Count {
    wire.count(&a.public_addresses(), &b.public_addresses(), PING_ON_WIRE)
}

/// Pings on the wire between a host and the rendezvous, both ways.
pub fn through_rendezvous(wire: &Wire, host: &Host) -> usize {
    let rendezvous: [IpAddr; 4] = Lab::rendezvous_addresses();
    let count = wire.count(&host.public_addresses(), &rendezvous, PING_ON_WIRE);
    count.there.len() + count.back.len()
}
