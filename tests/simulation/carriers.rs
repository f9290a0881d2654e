//! Members who carry for others: where no router lets two meet, a third to whom both have a direct way may be nearer than
//! the rendezvous, or all that is left.

use std::time::Duration;

use punchlan::node::status::PeerState;
use punchlan::node::why::{CarrierState, Cause, Why};
use punchlan::node::{Command, RelayConfig};

use crate::nat::NatConfig;
use crate::sim::peer::Peer;
use crate::sim::scene::{House, Scene};
use crate::sim::topology::Line;
use crate::sim::world::HostId;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const RENDEZVOUS: &str = "rdv1.example:3478";

/// Alice and bob, whose routers let nothing pass between them, carol, whom both reach, and a rendezvous so far away.
fn three(seed: u64, far: Duration) -> (Scene, [HostId; 3]) {
    let mut scene = Scene::new(seed);
    let symmetric = House::v4(Some(NatConfig::symmetric()));
    let houses = [("alice", symmetric), ("bob", symmetric), ("carol", House::v4(None))];
    let peers = houses.map(|(name, house)| scene.peer(name, house));
    let office = scene.world.gateway_of(scene.servers[0]);
    let office = scene.world.gate(office);
    (office.up.delay, office.down.delay) = (far, far);
    peers.iter().for_each(|peer| scene.up(*peer));
    let [alice, bob, carol] = peers;
    for end in [alice, bob] {
        scene.settle(end, carol, PeerState::Direct, SECOND * 5).expect("carol is reached directly");
    }
    scene.settle(alice, bob, PeerState::Relayed, SECOND * 5).expect("alice and bob are not");
    (scene, peers)
}

fn relay(scene: &Scene, a: HostId, b: HostId) -> Option<String> {
    scene.view(a, b)?.path?.relay
}

/// Waits until both ways between the first two go through `by`.
fn goes_through(scene: &mut Scene, [a, b, _]: [HostId; 3], by: &str, limit: Duration) -> Option<Duration> {
    let start = scene.now();
    while scene.now() - start < limit {
        if [(a, b), (b, a)].iter().all(|(x, y)| relay(scene, *x, *y).as_deref() == Some(by)) {
            return Some(scene.now() - start);
        }
        scene.run(MS * 20);
    }
    None
}

fn pairs(scene: &Scene, carrier: HostId) -> usize {
    scene.status(carrier).me.carries.pairs
}

fn reconfigure(scene: &mut Scene, peer: HostId, relay: RelayConfig) {
    scene.world.with(peer, |p: &mut Peer, now| {
        p.profile.relay = relay;
        let wanted = p.changeable();
        p.command(now, Command::Reconfigure(wanted));
    });
}

#[test]
fn a_member_who_is_nearer_than_the_rendezvous_carries_and_nothing_is_lost_on_the_way_there() {
    let (mut scene, all @ [alice, bob, carol]) = three(1, MS * 60);
    assert_eq!(relay(&scene, alice, bob).as_deref(), Some(RENDEZVOUS));
    scene.flows(alice, bob, MS * 5);
    let far = scene.view(alice, bob).and_then(|bob| bob.rtt_ms);
    goes_through(&mut scene, all, "carol", SECOND * 15).expect("carried");
    scene.run(SECOND * 20);
    let near = scene.view(alice, bob).and_then(|bob| bob.rtt_ms).expect("measured");
    assert!(near < 60.0 && far.is_none_or(|far| far > 200.0), "{near} ms in place of {far:?}");
    let path = scene.view(alice, bob).and_then(|bob| bob.path).expect("one");
    assert_eq!(path.remote.ip(), scene.world.addresses(carol)[0], "the way goes to her");
    assert_eq!((pairs(&scene, carol), scene.state(alice, bob)), (1, Some(PeerState::Relayed)));
    scene.hush();
    let lost = [(alice, bob), (bob, alice)].map(|(x, y)| scene.lost(0, x, y));
    assert!(lost[0].0 > 4_000 && (lost[0].1, lost[1].1) == (0, 0), "{lost:?}");
    assert_eq!((scene.world.straight(alice, carol), scene.world.straight(alice, bob)), (0, 0), "in frames alone");
    let idle = scene.status(carol).me.carries.bytes;
    scene.run(SECOND * 600);
    assert_eq!((pairs(&scene, carol), relay(&scene, bob, alice).as_deref()), (1, Some("carol")));
    let idle = scene.status(carol).me.carries.bytes - idle;
    assert!(idle < 60_000, "{idle} bytes in ten minutes of quiet");
}

#[test]
fn a_rendezvous_that_is_nearer_is_not_left_for_a_member() {
    let (mut scene, [alice, bob, carol]) = three(2, MS);
    let house = scene.world.gateway_of(carol);
    let house = scene.world.gate(house);
    (house.up.delay, house.down.delay) = (MS * 60, MS * 60);
    scene.flows(alice, bob, MS * 50);
    scene.run(SECOND * 60);
    assert_eq!((relay(&scene, alice, bob).as_deref(), pairs(&scene, carol)), (Some(RENDEZVOUS), 1));
}

#[test]
fn when_the_rendezvous_goes_the_pair_goes_on_through_a_member_and_comes_back_after_it_returned() {
    let (mut scene, all @ [alice, bob, _]) = three(3, MS);
    scene.flows(alice, bob, MS * 50);
    scene.run(SECOND * 20);
    let (mark, killed, server) = (scene.mark(), scene.now(), scene.servers[0]);
    scene.kill_server(server);
    goes_through(&mut scene, all, "carol", SECOND * 4).expect("carried");
    scene.run(SECOND * 100);
    let gap = scene.longest_gap(mark, alice, bob, killed);
    assert!(gap <= SECOND * 3, "{gap:?} of silence");
    assert_eq!(relay(&scene, alice, bob).as_deref(), Some("carol"));
    scene.start_server(server);
    goes_through(&mut scene, all, RENDEZVOUS, SECOND * 120).expect("the quicker way is taken again");
}

#[test]
fn two_whom_no_rendezvous_relays_talk_through_a_member() {
    let (mut scene, all @ [alice, bob, carol]) = three(4, MS);
    // Until what each knows is on its disk.
    scene.run(SECOND * 61);
    let server = scene.servers[0];
    scene.kill_server(server);
    // Bob's run ends with all that was open; what alice knows of him she has from before.
    scene.kill(bob);
    scene.run(SECOND * 60);
    scene.up(bob);
    scene.flows(alice, bob, MS * 100);
    goes_through(&mut scene, all, "carol", SECOND * 30).expect("carried");
    scene.talk(alice, bob, SECOND * 5).expect("they talk");
    assert_eq!(pairs(&scene, carol), 1);
}

#[test]
fn a_carrier_that_is_killed_costs_three_seconds_of_silence_at_most() {
    for (seed, far) in [(5, MS * 60), (6, MS * 60), (7, MS * 100)] {
        let (mut scene, all @ [alice, bob, carol]) = three(seed, far);
        goes_through(&mut scene, all, "carol", SECOND * 15).expect("carried");
        scene.flows(alice, bob, MS * 20);
        scene.run(SECOND * 5);
        let (mark, killed) = (scene.mark(), scene.now());
        scene.kill(carol);
        scene.run(SECOND * 20);
        let gap = scene.longest_gap(mark, alice, bob, killed);
        assert!(gap <= SECOND * 3, "{gap:?} of silence");
        assert_eq!(relay(&scene, alice, bob).as_deref(), Some(RENDEZVOUS));
        scene.up(carol);
        goes_through(&mut scene, all, "carol", SECOND * 90).expect("carried again");
    }
}

#[test]
fn a_carrier_that_leaves_or_loses_its_way_to_one_gives_way_at_once() {
    for leaves in [true, false] {
        let (mut scene, all @ [alice, bob, carol]) = three(8, MS * 60);
        goes_through(&mut scene, all, "carol", SECOND * 15).expect("carried");
        scene.flows(alice, bob, MS * 20);
        scene.run(SECOND * 5);
        let (mark, start) = (scene.mark(), scene.now());
        if leaves {
            scene.down(carol);
        } else {
            let house = scene.world.gateway_of(bob);
            let nat = scene.world.gate(house).nat.as_mut().expect("a router");
            nat.forget();
        }
        scene.run(SECOND * 10);
        let gap = scene.longest_gap(mark, alice, bob, start);
        assert!(gap <= if leaves { SECOND / 2 } else { SECOND * 3 }, "{gap:?} of silence, leaves: {leaves}");
    }
}

#[test]
fn who_offers_nothing_carries_nothing_from_the_moment_it_says_so() {
    let (mut scene, all @ [alice, bob, carol]) = three(9, MS * 60);
    goes_through(&mut scene, all, "carol", SECOND * 15).expect("carried");
    scene.flows(alice, bob, MS * 50);
    scene.run(SECOND * 5);
    let (mark, start) = (scene.mark(), scene.now());
    reconfigure(&mut scene, carol, RelayConfig { offer: false, ..RelayConfig::default() });
    goes_through(&mut scene, all, RENDEZVOUS, SECOND).expect("at once");
    let carried = scene.status(carol).me.carries.bytes;
    scene.run(SECOND * 60);
    let gap = scene.longest_gap(mark, alice, bob, start);
    assert!(gap <= SECOND / 2, "{gap:?} of silence");
    assert_eq!((pairs(&scene, carol), scene.status(carol).me.carries.bytes), (0, carried));
    assert_eq!(carrier(&scene, alice, bob), [("carol".to_owned(), CarrierState::NotOffered)]);
    reconfigure(&mut scene, carol, RelayConfig::default());
    goes_through(&mut scene, all, "carol", SECOND * 310).expect("carried again");
}

#[test]
fn who_sends_more_than_is_carried_is_told_and_goes_by_the_rendezvous() {
    let (mut scene, all @ [alice, bob, carol]) = three(10, MS * 60);
    reconfigure(&mut scene, carol, RelayConfig { mbit: 1, ..RelayConfig::default() });
    goes_through(&mut scene, all, "carol", SECOND * 15).expect("carried");
    scene.flows(alice, bob, MS * 100);
    scene.run(SECOND * 10);
    assert_eq!(scene.machine(carol).node().dropped("carry-over-rate"), 0);
    scene.flows(alice, bob, MS);
    goes_through(&mut scene, all, RENDEZVOUS, SECOND * 5).expect("at once");
    let refused = scene.machine(carol).node().dropped("carry-over-rate");
    assert!((1..200).contains(&refused), "{refused}");
    scene.hush();
    scene.run(SECOND * 60);
    assert_eq!(relay(&scene, alice, bob).as_deref(), Some(RENDEZVOUS));
    assert_eq!(carrier(&scene, alice, bob), [("carol".to_owned(), CarrierState::Throttled)]);

    // Where there is no other way the little that is carried is better than nothing.
    let (mut scene, all @ [alice, bob, carol]) = three(11, MS * 60);
    goes_through(&mut scene, all, "carol", SECOND * 15).expect("carried");
    scene.kill_server(scene.servers[0]);
    scene.run(SECOND * 60);
    reconfigure(&mut scene, carol, RelayConfig { mbit: 1, ..RelayConfig::default() });
    scene.flows(alice, bob, MS);
    let mark = scene.mark();
    scene.run(SECOND * 6);
    let (sent, lost) = scene.lost(mark, alice, bob);
    assert!(lost > 0 && lost < sent * 3 / 4, "{lost} of {sent}");
    assert_eq!(relay(&scene, alice, bob).as_deref(), Some("carol"));
}

#[test]
fn a_pair_that_becomes_direct_leaves_its_carrier() {
    let (mut scene, all @ [alice, bob, carol]) = three(12, MS * 60);
    goes_through(&mut scene, all, "carol", SECOND * 15).expect("carried");
    let open = House::v4(Some(NatConfig::full_cone()));
    let house = scene.house(open);
    scene.readdress(alice, house, vec!["192.168.1.7/24".parse().expect("a prefix")]);
    scene.settle(alice, bob, PeerState::Direct, SECOND * 60).expect("direct");
    scene.run(SECOND * 10);
    assert_eq!((pairs(&scene, carol), carrier(&scene, alice, bob)), (0, vec![]));
}

#[test]
fn who_is_denied_is_neither_carried_for_nor_asked() {
    for denies in [0, 2] {
        let (mut scene, [alice, bob, carol]) = three(13, MS * 60);
        let (who, whom) = if denies == 0 { (alice, carol) } else { (carol, bob) };
        let denied = scene.id(whom);
        scene.world.with(who, |p: &mut Peer, now| {
            p.profile.deny = vec![denied];
            let wanted = p.changeable();
            p.command(now, Command::Reconfigure(wanted));
        });
        scene.run(SECOND * 90);
        assert_eq!((relay(&scene, alice, bob).as_deref(), pairs(&scene, carol)), (Some(RENDEZVOUS), 0));
        assert_eq!(scene.status(carol).me.carries.bytes, 0);
    }
}

#[test]
fn on_lines_that_lose_a_channel_stands_all_the_same() {
    let (mut scene, all @ [alice, bob, _]) = three(14, MS * 60);
    scene.world.all_lines(Line { loss: 50, jitter: MS * 5, ..Line::CLEAN });
    let office = scene.world.gateway_of(scene.servers[0]);
    let office = scene.world.gate(office);
    (office.up.delay, office.down.delay) = (MS * 60, MS * 60);
    goes_through(&mut scene, all, "carol", SECOND * 60).expect("carried");
    scene.flows(alice, bob, MS * 50);
    let start = scene.now();
    let mark = scene.mark();
    scene.run(SECOND * 150);
    let gap = scene.longest_gap(mark, alice, bob, start);
    assert!(gap <= SECOND * 2, "{gap:?} of silence");
}

fn why(scene: &Scene, a: HostId, b: HostId) -> Why {
    scene.machine(a).node().why(scene.now(), &scene.id(b)).expect("known")
}

fn carrier(scene: &Scene, a: HostId, b: HostId) -> Vec<(String, CarrierState)> {
    why(scene, a, b).carriers.into_iter().map(|carrier| (carrier.name, carrier.state)).collect()
}

#[test]
fn why_names_who_carries_and_who_does_not() {
    let (mut scene, all @ [alice, bob, _]) = three(15, MS * 60);
    goes_through(&mut scene, all, "carol", SECOND * 15).expect("carried");
    scene.run(SECOND * 10);
    assert_eq!(carrier(&scene, alice, bob), [("carol".to_owned(), CarrierState::Carries)]);
    assert_eq!(why(&scene, alice, bob).cause, Cause::BothSymmetric);
}
