//! What `punchlan netcheck` says of every NAT that there is here, by a rendezvous with two addresses and two ports; and
//! what can be said with less.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use punchlan::nat::{Allocation as Told, Bounds, Traits};
use punchlan::netcheck::Report;

use crate::nat::{Allocation, Behaviour, NatConfig};
use crate::sim::checker::{self, Checker};
use crate::sim::scene::{House, Scene, interfaces, ip};
use crate::sim::server::Server;
use crate::sim::topology::Line;
use crate::sim::world::{HostId, World};

const PATIENCE: Duration = Duration::from_secs(30);
const INSIDE: &str = "192.168.1.2";
const OUTSIDE: &str = "203.0.113.1";

/// A rendezvous, and a host behind this NAT.
struct Stage {
    world: World,
    host: HostId,
    own: IpAddr,
    servers: Vec<SocketAddr>,
}

impl Stage {
    /// Before each rendezvous, an internet; each is bound to these addresses.
    fn new(nat: Option<NatConfig>, rendezvous: &[&[&str]]) -> Self {
        let mut world = World::new(3);
        let mut servers = Vec::new();
        for (number, sockets) in (0..).zip(rendezvous) {
            let sockets: Vec<SocketAddr> = sockets.iter().map(|text| text.parse().expect("an address")).collect();
            let mut addresses: Vec<IpAddr> = sockets.iter().map(SocketAddr::ip).collect();
            addresses.dedup();
            let office = world.gateway("office", None, false);
            let mut server = Server::new(number);
            server.sockets.clone_from(&sockets);
            server.start(world.now());
            let host = world.host("rendezvous", office, &addresses, server);
            world.bind_all(host, &sockets);
            servers.push(sockets[0]);
        }
        let house = world.gateway("house", nat.map(|nat| (nat, ip(OUTSIDE))), false);
        let own = ip(if nat.is_some_and(|nat| nat.translates) { INSIDE } else { OUTSIDE });
        let host = world.host("host", house, &[own], Checker::default());
        world.bind_all(host, &checker::sockets());
        Self { world, host, own, servers }
    }

    /// With a rendezvous that can tell everything.
    fn full(nat: Option<NatConfig>) -> Self {
        Self::new(nat, &[&SQUARE])
    }

    fn begin(&mut self, lifetime: bool) {
        let (own, servers) = (self.own, self.servers.clone());
        self.world.with(self.host, |checker: &mut Checker, now| checker.start(now, own, &servers, lifetime));
    }

    fn end(&mut self, patience: Duration) -> Report {
        let host = self.host;
        let done = |world: &World| world.machine::<Checker>(host).report().is_some();
        self.world.run_until(patience, done).expect("it comes to an end");
        self.world.machine::<Checker>(host).report().cloned().expect("it just did")
    }

    fn report(&mut self) -> Report {
        self.begin(false);
        let report = self.end(PATIENCE);
        let sent = self.world.machine::<Checker>(self.host).sent;
        assert!(sent <= 75, "{sent} datagrams");
        report
    }
}

const SQUARE: [&str; 4] = ["198.51.100.1:3478", "198.51.100.1:3479", "198.51.100.2:3478", "198.51.100.2:3479"];

const BEHAVIOURS: [Behaviour; 3] =
    [Behaviour::EndpointIndependent, Behaviour::AddressDependent, Behaviour::AddressAndPortDependent];

fn exact(report: &Report) -> (Option<Behaviour>, Option<Behaviour>) {
    let exact = |bounds: &Bounds| bounds.exact();
    (report.mapping.known().and_then(exact), report.filtering.known().and_then(exact))
}

fn kinds() -> impl Iterator<Item = NatConfig> {
    let allocations = [Allocation::Preserving, Allocation::Sequential, Allocation::Random];
    BEHAVIOURS.into_iter().flat_map(move |mapping| {
        BEHAVIOURS.into_iter().flat_map(move |filtering| {
            allocations.into_iter().flat_map(move |allocation| {
                [false, true].map(|hairpin| NatConfig {
                    mapping,
                    filtering,
                    allocation,
                    hairpin,
                    ..NatConfig::port_restricted()
                })
            })
        })
    })
}

/// Mapping and filtering as they can be seen from where anybody stands; the mapping.
fn assert_mapping(nat: NatConfig, report: &Report) -> Behaviour {
    // A port that is preserved towards every destination cannot be told from one mapping for all, nor need it be.
    let mapping = if nat.allocation == Allocation::Preserving { Behaviour::EndpointIndependent } else { nat.mapping };
    assert_eq!(exact(report), (Some(mapping), Some(nat.filtering)), "{nat:?}: {report:?}");
    mapping
}

/// All that can be seen of a NAT.
fn assert_found(nat: NatConfig, report: &Report) {
    let mapping = assert_mapping(nat, report);
    let allocation = report.allocation.known().expect("all sockets are answered").to_string();
    let expected = match nat.allocation {
        Allocation::Preserving => "preserved",
        Allocation::Sequential => "sequential, step 1",
        Allocation::Random => "random",
        Allocation::Block { .. } => "within a block",
    };
    assert_eq!(allocation, expected, "{nat:?}");
    // With a mapping for each destination two sockets do not know which address the other shows them; only a NAT that
    // lets anything in leads such a packet back.
    let knows = mapping == Behaviour::EndpointIndependent;
    let hairpin = match (nat.hairpin, knows, nat.filtering) {
        (hairpin, true, _) => Some(hairpin),
        (true, false, Behaviour::EndpointIndependent) => Some(true),
        (_, false, _) => None,
    };
    assert_eq!(report.hairpin.known().copied(), hairpin, "{nat:?}: {:?}", report.hairpin);
    assert_eq!((report.udp.known(), report.translates.known()), (Some(&true), Some(&true)));
    assert_eq!(report.ipv4.known().map(|addr| addr.ip()), Some(ip(OUTSIDE)));
}

#[test]
fn every_nat_is_told_as_what_it_is() {
    let mut count = 0;
    for nat in kinds() {
        assert_found(nat, &Stage::full(Some(nat)).report());
        count += 1;
    }
    assert_eq!(count, 54);
}

#[test]
fn a_providers_block_of_ports_is_told_by_its_ends() {
    let allocation = Allocation::Block { first: 20_480, size: 1_024 };
    let report = Stage::full(Some(NatConfig { allocation, ..NatConfig::symmetric() })).report();
    let found = report.allocation.known().copied();
    let Some(Told::Block { first, last }) = found else { panic!("{found:?}") };
    assert!(first >= 20_480 && last < 20_480 + 1_024, "{first} to {last}");
}

#[test]
fn bad_lines_change_nothing_of_it() {
    for nat in kinds().filter(|nat| !nat.hairpin) {
        let mut stage = Stage::full(Some(nat));
        stage.world.all_lines(Line::FAR);
        assert_found(nat, &stage.report());
    }
}

#[test]
fn a_linux_router_is_told_although_it_remembers_what_came_unasked() {
    let report = Stage::full(Some(NatConfig::linux_masquerade())).report();
    assert_eq!(exact(&report), (Some(Behaviour::EndpointIndependent), Some(Behaviour::AddressAndPortDependent)));
    assert_eq!(report.allocation.known().map(ToString::to_string).as_deref(), Some("preserved"));
    assert_eq!(report.hairpin.known(), Some(&false));
}

#[test]
fn where_nothing_is_translated_only_the_firewall_is_told() {
    for (nat, filtering) in [
        (None, Behaviour::EndpointIndependent),
        (Some(NatConfig::stateful_firewall()), Behaviour::AddressAndPortDependent),
    ] {
        let report = Stage::full(nat).report();
        assert_eq!(exact(&report), (None, Some(filtering)));
        assert_eq!(report.translates.known(), Some(&false));
        assert_eq!(report.mapping.why(), Some("nothing is translated"));
    }
}

#[test]
fn who_is_answered_by_nobody_has_no_udp_and_is_told_nothing_else() {
    let mut stage = Stage::full(Some(NatConfig::port_restricted()));
    stage.world.all_lines(Line { dead: true, ..Line::CLEAN });
    let report = stage.report();
    assert_eq!(report.udp.known(), Some(&false));
    assert_eq!(exact(&report), (None, None));
    assert!(report.servers.iter().all(|asked| asked.rtt.is_none()));
    assert_eq!(report.mapping.why(), Some("no server answered over IPv4"));
}

#[test]
fn a_second_port_alone_tells_as_much_as_it_can() {
    let ports = ["198.51.100.1:3478", "198.51.100.1:3479"];
    let report = |nat| Stage::new(Some(nat), &[&ports]).report();
    let cone = report(NatConfig::full_cone());
    let weak = Bounds { least: Behaviour::EndpointIndependent, most: Behaviour::AddressDependent };
    assert_eq!((cone.mapping.known(), cone.filtering.known()), (Some(&weak), Some(&weak)));
    let strict = Some(Behaviour::AddressAndPortDependent);
    assert_eq!(exact(&report(NatConfig::symmetric())), (strict, strict));
}

#[test]
fn two_servers_with_one_address_each_tell_the_mapping_and_say_what_is_missing_for_the_filtering() {
    let two: [&[&str]; 2] = [&["198.51.100.1:3478"], &["198.51.100.9:3478"]];
    let report = Stage::new(Some(NatConfig::port_restricted()), &two).report();
    assert_eq!(exact(&report), (Some(Behaviour::EndpointIndependent), None));
    let why = report.filtering.why().expect("it cannot be told");
    assert!(why.contains("listens on two addresses or ports"), "{why}");
    let report = Stage::new(Some(NatConfig::symmetric()), &two).report();
    let strict = Bounds { least: Behaviour::AddressDependent, most: Behaviour::AddressAndPortDependent };
    assert_eq!(report.mapping.known(), Some(&strict));
}

#[test]
fn one_server_with_one_address_tells_the_ports_alone() {
    let report = Stage::new(Some(NatConfig::symmetric()), &[&["198.51.100.1:3478"]]).report();
    assert_eq!(exact(&report), (None, None));
    assert!(
        report.mapping.why().is_some_and(|why| why.starts_with("198.51.100.1:3478 answers from there alone")),
        "{report:?}"
    );
    assert_eq!(report.allocation.known().map(ToString::to_string).as_deref(), Some("random"));
}

#[test]
fn a_server_whose_other_places_are_closed_is_not_taken_for_a_strict_nat() {
    let mut stage = Stage::full(Some(NatConfig::full_cone()));
    // It believes that it has them; nothing reaches them and nothing comes from them.
    let office = HostId(0);
    stage.world.bind_all(office, &[SQUARE[0].parse().expect("an address")]);
    let report = stage.report();
    assert_eq!(exact(&report), (None, None), "{report:?}");
    assert!(report.filtering.why().is_some_and(|why| why.contains("does not answer")), "{report:?}");
}

#[test]
fn the_lifetime_of_a_mapping_is_between_two_silences() {
    for (lifetime, expected) in [(10, None), (30, Some((29, 44))), (120, Some((119, 179)))] {
        let random = NatConfig { allocation: Allocation::Random, ..NatConfig::full_cone() };
        for kind in [NatConfig::full_cone(), random, NatConfig::symmetric(), NatConfig::linux_masquerade()] {
            let lifetime = Duration::from_secs(lifetime);
            let mut stage = Stage::full(Some(NatConfig { lifetime, lifetime_unanswered: lifetime, ..kind }));
            stage.begin(true);
            let report = stage.end(Duration::from_mins(6));
            assert_mapping(kind, &report);
            let (least, most) = expected.unwrap_or((1, 14));
            let found = report.lifetime.known().unwrap_or_else(|| panic!("{kind:?}: {:?}", report.lifetime));
            assert_eq!(found.least, Duration::from_secs(least), "{kind:?}");
            assert_eq!(found.most, Some(Duration::from_secs(most)), "{kind:?}");
        }
    }
}

#[test]
fn a_mapping_that_outlives_all_silences_has_no_upper_bound_and_the_check_still_ends() {
    let mut stage = Stage::full(None);
    stage.begin(true);
    let report = stage.end(Duration::from_mins(6));
    let lifetime = report.lifetime.known().expect("it was measured");
    assert_eq!((lifetime.least, lifetime.most), (Duration::from_secs(299), None));
}

#[test]
fn a_peer_has_its_nat_looked_at_once_and_again_where_it_has_moved_to() {
    let house = House::v4(Some(NatConfig::port_restricted()));
    let mut scene = Scene::new(7);
    let alice = scene.peer("alice", house);
    let (mapping, filtering) = (Some(Behaviour::EndpointIndependent), Some(Behaviour::AddressAndPortDependent));
    let found = Traits { translates: Some(true), mapping, filtering, ..Traits::default() };
    scene.edit(alice, |peer| peer.nat = found);
    scene.up(alice);
    let mapping = |scene: &Scene| scene.status(alice).me.nat.mapping;
    assert_eq!(mapping(&scene), None, "what is not measured is null");
    scene.run(Duration::from_mins(1));
    assert_eq!(mapping(&scene).as_deref(), Some("endpoint-independent"));
    scene.run(Duration::from_hours(2));
    assert_eq!(scene.machine(alice).nat_checks.len(), 1, "what stays as it is is looked at once");

    let elsewhere = scene.house(house);
    scene.readdress(alice, elsewhere, interfaces(2, house, 9));
    scene.edit(alice, |peer| peer.nat = Traits { mapping: Some(Behaviour::AddressAndPortDependent), ..found });
    scene.run(Duration::from_mins(3));
    let checks = &scene.machine(alice).nat_checks;
    // The rendezvous saw it first, and the look at the interfaces came later.
    assert!((2..=3).contains(&checks.len()), "{checks:?}");
    // The one rendezvous, by both families, whichever it is that the peer has registered by.
    for servers in checks {
        let by_v4 = servers.iter().filter(|server| server.is_ipv4()).count();
        assert_eq!((servers.len(), by_v4), (2, 1), "{servers:?}");
        assert!(servers.iter().all(|server| server.port() == 3478), "{servers:?}");
    }
    assert_eq!(mapping(&scene).as_deref(), Some("address-and-port-dependent"));
}

#[test]
fn a_line_that_comes_and_goes_has_the_nat_looked_at_once_a_minute_at_most() {
    let house = House::v4(Some(NatConfig::port_restricted()));
    let mut scene = Scene::new(7);
    let alice = scene.peer("alice", house);
    scene.up(alice);
    for place in 10..70 {
        let gateway = scene.world.gateway_of(alice);
        scene.readdress(alice, gateway, interfaces(1, house, place));
        scene.run(Duration::from_secs(31));
    }
    let checks = scene.machine(alice).nat_checks.len();
    assert!((1..=31).contains(&checks), "{checks} looks in half an hour");
}
