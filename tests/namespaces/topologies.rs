//! Networks as homes, guests and providers build them: who is direct there, and how.
//!
//! ```text
//!   alice ─┐                      alice ── router ─┐
//!   bob ───┴─ router ── core      bob ──── router ─┴─ carrier ── core ── rendezvous
//! ```

use std::time::Duration;

use punchlan::node::status::{PathKind, PeerState};

use crate::lab::meeting::{Watch, meet, through_rendezvous};
use crate::lab::oracle::Way;
use crate::lab::programs::{Network, Peer};
use crate::lab::wire::{SETTLE, Wire};
use crate::lab::{Gateway, Lab, SitePlan};
use crate::shared_turn;

const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody is there.
const NOWHERE: &str = "198.51.100.99:3478";

/// A network whose rendezvous does not answer.
fn unanswered() -> Network {
    let mut network = Network::without_rendezvous().unwrap();
    network.servers = vec![NOWHERE.to_owned()];
    network
}

/// Alice and bob, the hosts of the only site.
fn two<'a>(lab: &'a Lab, network: &Network) -> [Peer<'a>; 2] {
    [("alice", 0), ("bob", 1)].map(|(name, n)| network.up(&lab.sites[0].hosts[usize::from(n)], name, n + 1).unwrap())
}

/// Both say so; by which kind of path bob reaches alice.
fn meet_as(alice: &Peer<'_>, bob: &Peer<'_>, state: PeerState) -> Option<PathKind> {
    alice.await_peer("bob", state, PATIENCE).unwrap();
    let status = bob.await_peer("alice", state, PATIENCE).unwrap();
    Some(status.peers[0].path.as_ref()?.kind)
}

/// Pings are answered, and all of them go through the rendezvous, or none.
fn pings_pass(lab: &Lab, alice: &Peer<'_>, bob: &Peer<'_>, relayed: bool) {
    let wire = Wire::tap(lab).unwrap();
    assert_eq!(bob.ping(alice.address.into(), 20).unwrap(), 20);
    std::thread::sleep(SETTLE);
    let counted = through_rendezvous(&wire, bob.host);
    assert!(if relayed { counted >= 2 * 20 } else { counted == 0 }, "{counted} packets through the rendezvous");
}

/// Bob's way to alice, which must be `state` also when all that could be tried was tried.
fn stays(alice: &Peer<'_>, bob: &Peer<'_>, state: PeerState) -> Option<PathKind> {
    meet_as(alice, bob, state);
    if state == PeerState::Relayed {
        std::thread::sleep(PATIENCE);
    }
    meet_as(alice, bob, state)
}

#[test]
fn on_one_lan_members_meet_by_themselves_though_no_rendezvous_answers() {
    let _turn = shared_turn();
    let lab = Lab::new(&[SitePlan::new(Gateway::Masquerade).hosts(3)]).unwrap();
    lab.block(&["ip daddr 198.51.100.0/24"]).unwrap();
    let network = unanswered();
    let [alice, bob] = two(&lab, &network);
    assert_eq!(meet_as(&alice, &bob, PeerState::Direct), Some(PathKind::Host));
    assert_eq!(bob.ping(alice.address.into(), 20).unwrap(), 20);
    // Another network on the same LAN hears them and learns nothing.
    let others = unanswered();
    let carol = others.up(&lab.sites[0].hosts[2], "carol", 3).unwrap();
    carol
        .await_status("beacons that are not its network's", Duration::from_secs(45), |status| {
            status.counters.drop.get("beacon").is_some_and(|heard| *heard > 0)
        })
        .unwrap();
    assert!(carol.status().unwrap().peers.is_empty());
}

#[test]
fn by_ipv6_alone_members_on_one_lan_meet_by_themselves_too() {
    let _turn = shared_turn();
    let lab = Lab::new(&[SitePlan::new(Gateway::Ipv6Firewall).hosts(2)]).unwrap();
    let network = unanswered();
    let [alice, bob] = two(&lab, &network);
    assert_eq!(meet_as(&alice, &bob, PeerState::Direct), Some(PathKind::Host));
    assert_eq!(bob.ping(alice.address.into(), 20).unwrap(), 20);
}

/// Two laptops on a switch: no router, and addresses that they gave themselves (RFC 3927).
#[test]
fn on_a_cable_without_any_router_members_meet_by_themselves() {
    let _turn = shared_turn();
    let lab = Lab::new(&[SitePlan::new(Gateway::Masquerade).hosts(2)]).unwrap();
    for (host, last) in lab.sites[0].hosts.iter().zip([7, 8]) {
        host.netns.ip(&format!("addr flush dev eth0\naddr add 169.254.1.{last}/16 dev eth0")).unwrap();
    }
    lab.sites[0].router.ip("addr flush dev lan").unwrap();
    let network = unanswered();
    let [alice, bob] = two(&lab, &network);
    assert_eq!(meet_as(&alice, &bob, PeerState::Direct), Some(PathKind::Host));
    assert_eq!(bob.ping(alice.address.into(), 20).unwrap(), 20);
}

/// Two behind one router are direct where it turns them round, and relayed where not; whether both have the same
/// private address is known.
fn are_direct_where_turned_round(plan: SitePlan, have_the_same: bool) {
    for (plan, state) in [(plan.hairpin(), PeerState::Direct), (plan, PeerState::Relayed)] {
        let lab = Lab::new(&[plan]).unwrap();
        let [one, other] = [0, 1].map(|host: usize| lab.sites[0].hosts[host].v4);
        assert_eq!(one == other, have_the_same);
        let network = Network::start(&lab).unwrap();
        let [alice, bob] = two(&lab, &network);
        let kind = stays(&alice, &bob, state);
        assert!(kind != Some(PathKind::Host), "{kind:?}");
        pings_pass(&lab, &alice, &bob, state == PeerState::Relayed);
    }
}

#[test]
fn guests_of_a_wifi_are_direct_where_its_router_turns_them_round_and_relayed_where_not() {
    let _turn = shared_turn();
    are_direct_where_turned_round(SitePlan::new(Gateway::PortRestricted).hosts(2).guests(), false);
}

#[test]
fn two_homes_behind_one_carrier_are_direct_where_it_turns_them_round_and_relayed_where_not() {
    let _turn = shared_turn();
    are_direct_where_turned_round(SitePlan::new(Gateway::CarrierCone).hosts(2).homes(), true);
}

#[test]
fn two_homes_with_the_same_private_addresses_are_told_apart() {
    let _turn = shared_turn();
    let [a, b] =
        [Gateway::PortRestricted, Gateway::Masquerade].map(|gateway| SitePlan::new(gateway).lan([192, 168, 1]));
    let lab = Lab::new(&[a, b]).unwrap();
    assert_eq!(lab.host(0).v4, lab.host(1).v4);
    assert_eq!(way(&lab, a, b), Way::Direct);
}

#[test]
fn ipv6_alone_and_ipv4_alone_are_relayed() {
    let _turn = shared_turn();
    let [a, b] = [Gateway::Ipv6Firewall, Gateway::PortRestricted].map(SitePlan::new);
    assert_eq!(way(&Lab::new(&[a, b]).unwrap(), a, b), Way::Relayed);
}

fn way(lab: &Lab, a: SitePlan, b: SitePlan) -> Way {
    let network = Network::start(lab).unwrap();
    meet(lab, &network, lab.host(0), lab.host(1), Watch::of(a, b)).unwrap().way()
}
