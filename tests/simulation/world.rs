//! The world itself, proven with machines so simple that they cannot be what is wrong.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use punchlan::id::SocketId;
use punchlan::sans::{Datagram, Instant, Transmit, Wakeup};

use crate::nat::NatConfig;
use crate::sim::machine::Machine;
use crate::sim::oracle::{Place, direct_is_possible};
use crate::sim::topology::Line;
use crate::sim::world::{HostId, World};

/// Tells everybody the address it comes from.
#[derive(Default)]
struct Mirror(VecDeque<Transmit>);

impl Machine for Mirror {
    fn handle_datagram(&mut self, _: Instant, d: Datagram<'_>) {
        let payload = d.from.to_string().into_bytes();
        self.0.push_back(Transmit { socket: d.socket, src: d.local, to: d.from, ttl: None, tos: 0, payload });
    }
    fn handle_timeout(&mut self, _: Instant) {}
    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.0.pop_front()
    }
    fn poll_timeout(&self) -> Option<Wakeup> {
        None
    }
}

/// Asks the mirror, then says "hello" to its targets and to whoever says hello, every 100 ms.
struct Puncher {
    mirror: SocketAddr,
    reflexive: Option<SocketAddr>,
    targets: Vec<SocketAddr>,
    heard: Vec<SocketAddr>,
    ttl: Option<u8>,
    next: Instant,
    out: VecDeque<Transmit>,
}

impl Puncher {
    fn new(mirror: SocketAddr) -> Self {
        let (targets, heard, out) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { mirror, reflexive: None, targets, heard, ttl: None, next: Instant::ZERO, out }
    }

    fn say(&mut self, to: SocketAddr, text: &str) {
        let (socket, payload) = (SocketId(u16::from(to.is_ipv6())), text.as_bytes().to_vec());
        self.out.push_back(Transmit { socket, src: None, to, ttl: self.ttl, tos: 0, payload });
    }
}

impl Machine for Puncher {
    fn handle_datagram(&mut self, _: Instant, d: Datagram<'_>) {
        if d.from == self.mirror {
            self.reflexive = std::str::from_utf8(d.payload).ok().and_then(|text| text.parse().ok());
        } else {
            self.heard.push(d.from);
            if !self.targets.contains(&d.from) {
                self.targets.push(d.from);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.next = now + Duration::from_millis(100);
        if self.reflexive.is_none() {
            self.say(self.mirror, "who am I?");
        }
        for target in self.targets.clone() {
            self.say(target, "hello");
        }
    }
    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }
    fn poll_timeout(&self) -> Option<Wakeup> {
        Some(Wakeup::new(self.next, "tick"))
    }
}

pub(crate) const MIRROR: &str = "198.51.100.1:3478";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A mirror, and two punchers behind these NATs who have learnt their reflexive addresses.
fn two(a: Option<NatConfig>, b: Option<NatConfig>) -> (World, [HostId; 2]) {
    let (mut world, hosts) = two_of(a, b, || Puncher::new(MIRROR.parse().expect("an address")));
    world.run(Duration::from_secs(1));
    (world, hosts)
}

/// A mirror, and two machines behind these NATs.
pub(crate) fn two_of<M: Machine>(
    a: Option<NatConfig>,
    b: Option<NatConfig>,
    machine: impl Fn() -> M,
) -> (World, [HostId; 2]) {
    let mut world = World::new(1);
    let office = world.gateway("office", None, false);
    let mirror = world.host("mirror", office, &[ip("198.51.100.1")], Mirror::default());
    world.bind(mirror, Some(3478));
    let hosts = [("alice", a, 1), ("bob", b, 2)].map(|(name, nat, i)| {
        let outside = ip(&format!("203.0.113.{i}"));
        let gateway = world.gateway(&format!("{name}'s gateway"), nat.map(|n| (n, outside)), false);
        let own = if nat.is_some() { ip("192.168.1.2") } else { outside };
        let host = world.host(name, gateway, &[own], machine());
        world.bind(host, Some(4000));
        host
    });
    (world, hosts)
}

fn reflexive(world: &World, host: HostId) -> SocketAddr {
    world.machine::<Puncher>(host).reflexive.expect("the mirror answered")
}

#[test]
fn the_oracle_is_what_plain_hole_punching_achieves() {
    for (a, b) in Place::EVERY.into_iter().flat_map(|a| Place::EVERY.map(|b| (a, b))) {
        let (mut world, hosts) = two(a.nat(), b.nat());
        for (from, to) in [(0, 1), (1, 0)] {
            let target = reflexive(&world, hosts[to]);
            world.with(hosts[from], |p: &mut Puncher, _| p.targets.push(target));
        }
        world.run(Duration::from_secs(2));
        let met = hosts.map(|h| !world.machine::<Puncher>(h).heard.is_empty());
        assert_eq!(met, [direct_is_possible(a.nat(), b.nat()); 2], "{a} × {b}");
    }
}

#[test]
fn a_ttl_of_two_opens_the_own_gateway_and_never_reaches_the_other() {
    let nat = Some(NatConfig::linux_masquerade());
    let (mut world, [alice, bob]) = two(nat, nat);
    let (a, b) = (reflexive(&world, alice), reflexive(&world, bob));
    world.with(alice, |p: &mut Puncher, _| (p.ttl, p.targets) = (Some(2), vec![b]));
    world.run(Duration::from_secs(1));
    assert!(world.machine::<Puncher>(bob).heard.is_empty());

    world.with(bob, |p: &mut Puncher, _| p.targets = vec![a]);
    world.run(Duration::from_millis(300));
    assert_eq!(world.machine::<Puncher>(alice).heard.first(), Some(&b), "bob's port is still the one he was seen at");
}

#[test]
fn without_priming_a_linux_router_changes_the_port() {
    let nat = Some(NatConfig::linux_masquerade());
    let (mut world, [alice, bob]) = two(nat, nat);
    let (a, b) = (reflexive(&world, alice), reflexive(&world, bob));
    world.with(alice, |p: &mut Puncher, _| p.targets = vec![b]);
    world.run(Duration::from_secs(1));
    world.with(bob, |p: &mut Puncher, _| p.targets = vec![a]);
    world.run(Duration::from_secs(1));
    assert!(world.machine::<Puncher>(alice).heard.is_empty());
}

#[test]
fn one_seed_gives_one_history() {
    let history = |seed: u64| {
        let (mut world, [alice, bob]) = two(Some(NatConfig::full_cone()), Some(NatConfig::symmetric()));
        world.rng = punchlan::sans::Seed::from_u64(seed).rng();
        let jitter = Duration::from_millis(40);
        world.all_lines(Line { jitter, loss: 200, doubled: 100, ..Line::FAR });
        let target = reflexive(&world, alice);
        world.with(bob, |p: &mut Puncher, _| p.targets.push(target));
        world.run(Duration::from_secs(5));
        world.recorder.draw()
    };
    assert_eq!(history(3), history(3));
    assert_ne!(history(3), history(4));
    assert!(history(3).contains("lost: the line"));
}

#[test]
fn a_stopped_process_finds_its_datagrams_when_it_goes_on() {
    let (mut world, [alice, bob]) = two(None, None);
    let target = reflexive(&world, bob);
    world.with(alice, |p: &mut Puncher, _| p.targets.push(target));
    world.stop(bob);
    world.run(Duration::from_secs(2));
    assert!(world.machine::<Puncher>(bob).heard.is_empty());
    world.go_on(bob);
    assert_eq!(world.machine::<Puncher>(bob).heard.len(), 19, "the twentieth is in flight");
}

#[test]
#[should_panic(expected = "alice logged an error")]
fn an_error_in_the_log_fails_the_run() {
    let (mut world, [alice, _]) = two(None, None);
    world.with(alice, |_: &mut Puncher, _| tracing::error!("this must be seen"));
}

#[test]
#[should_panic(expected = "wakes again and again")]
fn a_timer_that_never_rests_fails_the_run() {
    struct Restless;
    impl Machine for Restless {
        fn handle_datagram(&mut self, _: Instant, _: Datagram<'_>) {}
        fn handle_timeout(&mut self, _: Instant) {}
        fn poll_transmit(&mut self) -> Option<Transmit> {
            None
        }
        fn poll_timeout(&self) -> Option<Wakeup> {
            Some(Wakeup::new(Instant::ZERO, "always"))
        }
    }
    let mut world = World::new(1);
    let gateway = world.gateway("gateway", None, false);
    world.host("restless", gateway, &[], Restless);
    world.run(Duration::from_secs(1));
}
