//! The NAT model keeps the rules of RFC 4787 that every other test leans on.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use punchlan::nat::model::{Nat, NatConfig};
use punchlan::sans::{Instant, Seed};

const T0: Instant = Instant::from_nanos(1_000_000_000);
const EXTERNAL: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const LIFETIME: Duration = Duration::from_secs(120);

#[test]
fn an_endpoint_independent_mapping_is_reused_for_every_remote() {
    for config in [NatConfig::full_cone(), NatConfig::address_restricted(), NatConfig::port_restricted()] {
        let mut nat = nat(config);
        let first = nat.outbound(T0, inside(2, 5000), remote(1, 1)).unwrap();
        assert_eq!(first, SocketAddr::new(EXTERNAL, 5000), "the port is preserved");
        assert_eq!(nat.outbound(T0, inside(2, 5000), remote(2, 9)), Some(first));
    }
}

#[test]
fn a_dependent_mapping_is_reused_for_as_much_of_the_remote_as_it_depends_on() {
    let mut nat = nat(NatConfig::address_dependent());
    let first = nat.outbound(T0, inside(2, 5000), remote(1, 1)).unwrap();
    assert_eq!(nat.outbound(T0, inside(2, 5000), remote(1, 2)), Some(first));
    assert_ne!(nat.outbound(T0, inside(2, 5000), remote(2, 1)), Some(first));
}

#[test]
fn a_symmetric_nat_shows_every_remote_another_port() {
    let mut nat = nat(NatConfig::symmetric());
    let mut ports: Vec<u16> =
        (1..=100).map(|port| nat.outbound(T0, inside(2, 5000), remote(1, port)).unwrap().port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 100);
    assert!(ports.iter().all(|&port| port >= 1024));
}

#[test]
fn each_filter_admits_whom_its_kind_admits_and_nobody_else() {
    let same_address = remote(1, 99);
    let stranger = remote(9, 9);
    for (config, admits_same_address, admits_stranger) in [
        (NatConfig::full_cone(), true, true),
        (NatConfig::address_restricted(), true, false),
        (NatConfig::port_restricted(), false, false),
        (NatConfig::symmetric(), false, false),
        (NatConfig::symmetric_sequential(), false, false),
        (NatConfig::symmetric_block(), false, false),
        (NatConfig::address_dependent(), false, false),
        (NatConfig::linux_masquerade(), false, false),
    ] {
        let mut nat = nat(config);
        let external = nat.outbound(T0, inside(2, 5000), remote(1, 1)).unwrap();
        assert_eq!(nat.inbound(T0, external, remote(1, 1)), Some(inside(2, 5000)), "{config:?}");
        assert_eq!(nat.inbound(T0, external, same_address).is_some(), admits_same_address, "{config:?}");
        assert_eq!(nat.inbound(T0, external, stranger).is_some(), admits_stranger, "{config:?}");
        assert_eq!(nat.inbound(T0, SocketAddr::new(EXTERNAL, 1), remote(1, 1)), None, "no mapping: {config:?}");
    }
}

#[test]
fn two_inside_sockets_never_share_an_external_port_of_a_cone() {
    let mut nat = nat(NatConfig::full_cone());
    let a = nat.outbound(T0, inside(2, 5000), remote(1, 1)).unwrap();
    let b = nat.outbound(T0, inside(3, 5000), remote(1, 1)).unwrap();
    assert_ne!(a, b);
    assert_eq!(nat.inbound(T0, a, remote(1, 1)), Some(inside(2, 5000)));
    assert_eq!(nat.inbound(T0, b, remote(1, 1)), Some(inside(3, 5000)));
}

#[test]
fn sequential_ports_follow_each_other_whoever_opens_them() {
    let mut nat = nat(NatConfig::symmetric_sequential());
    let first = nat.outbound(T0, inside(2, 5000), remote(1, 1)).unwrap().port();
    let second = nat.outbound(T0, inside(2, 5000), remote(1, 2)).unwrap().port();
    let third = nat.outbound(T0, inside(3, 7000), remote(9, 9)).unwrap().port();
    assert_eq!(second, first.checked_add(1).unwrap_or(1024));
    assert_eq!(third, second.checked_add(1).unwrap_or(1024));
}

#[test]
fn sequential_ports_begin_again_after_the_last() {
    let mut nat = nat(NatConfig::symmetric_sequential());
    let mut now = T0;
    let mut port = || {
        // Everything before is forgotten.
        now += LIFETIME;
        nat.outbound(now, inside(2, 5000), remote(1, 1)).unwrap().port()
    };
    assert!((0..70_000).any(|_| port() == u16::MAX));
    assert_eq!([port(), port()], [1024, 1025]);
}

#[test]
fn a_block_gives_each_of_its_ports_once_and_then_no_more() {
    let mut nat = nat(NatConfig::symmetric_block());
    let given: Vec<u16> =
        (1..=1024).map(|port| nat.outbound(T0, inside(2, 5000), remote(1, port)).unwrap().port()).collect();
    let in_order: BTreeSet<u16> = given.iter().copied().collect();
    assert!(in_order.iter().copied().eq(20_480..21_504));
    assert!(!given.is_sorted(), "they cannot be guessed in order");
    assert_eq!(nat.outbound(T0, inside(2, 5000), remote(1, 1025)), None, "the customer has no more");
    assert!(nat.outbound(T0 + LIFETIME, inside(2, 5000), remote(1, 1025)).is_some(), "in time it has again");
}

/// As many as a search through ports makes.
#[test]
fn a_thousand_mappings_are_kept_apart_and_end_one_by_one() {
    let kinds = [
        NatConfig::port_restricted(),
        NatConfig::symmetric(),
        NatConfig::symmetric_sequential(),
        NatConfig::symmetric_block(),
        NatConfig::address_dependent(),
        NatConfig::linux_masquerade(),
    ];
    for config in kinds {
        let mut nat = nat(config);
        let at = |n: u16| T0 + Duration::from_millis(n.into());
        let flows = |n: u16| (inside(2, 5000 + n % 256), remote(1, 1 + n));
        let external: Vec<_> = (0..1000).map(|n| nat.outbound(at(n), flows(n).0, flows(n).1).unwrap()).collect();
        let reached = |nat: &mut Nat, now, n: u16| nat.inbound(now, external[usize::from(n)], flows(n).1);
        for n in 0..1000 {
            assert_eq!(reached(&mut nat, at(1000), n), Some(flows(n).0), "{n}: {config:?}");
        }
        // None of them was written through since it was answered.
        let lifetime = config.lifetime.min(config.lifetime_unanswered);
        for n in 0..1000 {
            let end = at(n) + lifetime;
            assert!(reached(&mut nat, end - Duration::from_nanos(1), n).is_some(), "{n}: {config:?}");
            assert_eq!(reached(&mut nat, end, n), None, "{n}: {config:?}");
        }
    }
}

#[test]
fn a_mapping_lives_for_its_lifetime_after_the_last_outbound_packet() {
    let mut nat = nat(NatConfig::symmetric());
    let first = nat.outbound(T0, inside(2, 5000), remote(1, 1)).unwrap();
    let later = T0 + LIFETIME - Duration::from_secs(1);
    assert_eq!(nat.outbound(later, inside(2, 5000), remote(1, 1)), Some(first), "refreshed");
    let end = later + LIFETIME;
    assert!(nat.inbound(end - Duration::from_nanos(1), first, remote(1, 1)).is_some());
    assert_eq!(nat.inbound(end, first, remote(1, 1)), None);
    assert_ne!(nat.outbound(end, inside(2, 5000), remote(1, 1)), Some(first));
}

#[test]
fn a_permission_ends_although_its_mapping_lives_on() {
    let mut nat = nat(NatConfig::port_restricted());
    let external = nat.outbound(T0, inside(2, 5000), remote(1, 1)).unwrap();
    nat.outbound(T0 + LIFETIME / 2, inside(2, 5000), remote(2, 2));
    assert_eq!(nat.inbound(T0 + LIFETIME, external, remote(1, 1)), None);
    assert_eq!(nat.inbound(T0 + LIFETIME, external, remote(2, 2)), Some(inside(2, 5000)));
}

#[test]
fn hairpin_turns_a_packet_around_only_where_it_is_on() {
    let mut without = nat(NatConfig::full_cone());
    let target = without.outbound(T0, inside(3, 6000), remote(1, 1)).unwrap();
    assert_eq!(without.outbound(T0, inside(2, 5000), target), None);

    let mut with = nat(NatConfig { hairpin: true, ..NatConfig::full_cone() });
    let target = with.outbound(T0, inside(3, 6000), remote(1, 1)).unwrap();
    let source = with.outbound(T0, inside(2, 5000), target).unwrap();
    assert_eq!(source.ip(), EXTERNAL);
    assert_eq!(with.inbound(T0, target, source), Some(inside(3, 6000)));
}

#[test]
fn a_linux_router_preserves_the_port_for_every_remote() {
    let mut nat = nat(NatConfig::linux_masquerade());
    for port in 1..=50 {
        assert_eq!(nat.outbound(T0, inside(2, 5000), remote(1, port)).unwrap().port(), 5000);
    }
}

#[test]
fn a_probe_that_comes_first_costs_a_linux_router_the_preserved_port() {
    let mut nat = nat(NatConfig::linux_masquerade());
    nat.outbound(T0, inside(2, 5000), remote(1, 3478)).unwrap();
    assert_eq!(nat.inbound(T0, SocketAddr::new(EXTERNAL, 5000), remote(2, 7000)), None);
    let moved = nat.outbound(T0, inside(2, 5000), remote(2, 7000)).unwrap().port();
    assert_ne!(moved, 5000);
    assert_eq!(nat.outbound(T0, inside(2, 5000), remote(1, 3478)).unwrap().port(), 5000, "what stands, stays");
    assert_eq!(nat.outbound(T0, inside(2, 5000), remote(3, 7000)).unwrap().port(), moved, "what is new, follows");
}

#[test]
fn a_linux_router_returns_to_the_preserved_port_when_what_left_it_is_forgotten() {
    let mut nat = nat(NatConfig::linux_masquerade());
    nat.inbound(T0, SocketAddr::new(EXTERNAL, 5000), remote(2, 7000));
    nat.outbound(T0, inside(2, 5000), remote(2, 7000)).unwrap();
    let later = T0 + Duration::from_secs(29);
    let moved = nat.outbound(later, inside(2, 5000), remote(3, 7000)).unwrap().port();
    assert_ne!(moved, 5000);
    let later = later + Duration::from_secs(5);
    assert_eq!(nat.outbound(later, inside(2, 5000), remote(2, 7000)).unwrap().port(), moved, "one holds it for all");
    let later = later + Duration::from_secs(31);
    assert_eq!(nat.outbound(later, inside(2, 5000), remote(2, 7000)).unwrap().port(), 5000);
}

#[test]
fn a_linux_router_forgets_the_unsolicited_packet_in_time() {
    let mut nat = nat(NatConfig::linux_masquerade());
    nat.inbound(T0, SocketAddr::new(EXTERNAL, 5000), remote(2, 7000));
    let later = T0 + Duration::from_secs(30);
    assert_eq!(nat.outbound(later, inside(2, 5000), remote(2, 7000)).unwrap().port(), 5000);
}

#[test]
fn a_linux_router_ends_a_flow_that_was_never_answered_sooner() {
    let mut nat = nat(NatConfig::linux_masquerade());
    let lonely = nat.outbound(T0, inside(2, 5000), remote(1, 1)).unwrap();
    let answered = nat.outbound(T0, inside(2, 6000), remote(1, 1)).unwrap();
    assert!(nat.inbound(T0, answered, remote(1, 1)).is_some());
    nat.outbound(T0, inside(2, 6000), remote(1, 1));
    let later = T0 + Duration::from_secs(31);
    assert_eq!(nat.inbound(later, lonely, remote(1, 1)), None);
    assert!(nat.inbound(later, answered, remote(1, 1)).is_some());
}

#[test]
fn a_firewall_changes_no_address_and_lets_only_answers_in() {
    let v6 = |last: u16, port| SocketAddr::new(format!("2001:db8::{last:x}").parse().unwrap(), port);
    let mut firewall = nat(NatConfig::stateful_firewall());
    assert_eq!(firewall.inbound(T0, v6(1, 5000), v6(9, 7000)), None);
    assert_eq!(firewall.outbound(T0, v6(1, 5000), v6(9, 7000)), Some(v6(1, 5000)));
    assert_eq!(firewall.outbound(T0, v6(2, 5000), v6(9, 7000)), Some(v6(2, 5000)), "two hosts, one port each");
    assert_eq!(firewall.inbound(T0, v6(1, 5000), v6(9, 7000)), Some(v6(1, 5000)));
    assert_eq!(firewall.inbound(T0, v6(1, 5000), v6(9, 7001)), None);
}

#[test]
fn a_restarted_router_and_a_new_line_lose_every_mapping() {
    let mut nat = nat(NatConfig::full_cone());
    let old = nat.outbound(T0, inside(2, 5000), remote(1, 1)).unwrap();
    nat.forget();
    assert_eq!(nat.inbound(T0, old, remote(1, 1)), None);

    nat.outbound(T0, inside(2, 5000), remote(1, 1)).unwrap();
    let moved: IpAddr = "203.0.113.77".parse().unwrap();
    nat.set_external(moved);
    assert_eq!(nat.inbound(T0, old, remote(1, 1)), None);
    assert_eq!(nat.outbound(T0, inside(2, 5000), remote(1, 1)), Some(SocketAddr::new(moved, 5000)));
    assert_eq!(nat.inbound(T0, old, remote(1, 1)), None, "the old address is somebody else's now");
}

#[test]
fn the_same_seed_gives_the_same_ports() {
    let ports = |seed| {
        let mut nat = Nat::new(NatConfig::symmetric(), EXTERNAL, &Seed::from_u64(seed));
        [1, 2, 3].map(|port| nat.outbound(T0, inside(2, 5000), remote(1, port)).unwrap().port())
    };
    assert_eq!(ports(7), ports(7));
    assert_ne!(ports(7), ports(8));
}

proptest! {
    /// Whatever was sent before, by whom and when: an answer from the remote that was just written to, to the
    /// address that it saw, reaches the socket that wrote, and only that one.
    #[test]
    fn an_answer_always_finds_the_socket_that_asked(
        kind in 0..8_usize,
        hosts in proptest::collection::vec((2..5_u8, 5000..5004_u16, 1..4_u8, 1..4_u16, 0..100_u64), 1..60),
    ) {
        let mut nat = nat([
            NatConfig::full_cone(),
            NatConfig::address_restricted(),
            NatConfig::port_restricted(),
            NatConfig::linux_masquerade(),
            NatConfig::symmetric(),
            NatConfig::symmetric_sequential(),
            NatConfig::symmetric_block(),
            NatConfig::address_dependent(),
        ][kind]);
        let mut now = T0;
        for (host, port, remote_host, remote_port, seconds) in hosts {
            now += Duration::from_secs(seconds);
            let (asking, asked) = (inside(host, port), remote(remote_host, remote_port));
            nat.inbound(now, SocketAddr::new(EXTERNAL, port), remote(remote_host, remote_port + 1));
            let external = nat.outbound(now, asking, asked).unwrap();
            prop_assert_eq!(external.ip(), EXTERNAL);
            prop_assert_eq!(nat.inbound(now, external, asked), Some(asking));
            prop_assert_eq!(nat.outbound(now, asking, asked), Some(external));
        }
    }
}

fn nat(config: NatConfig) -> Nat {
    Nat::new(config, EXTERNAL, &Seed::from_u64(1))
}

fn inside(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 168, 1, host], port))
}

fn remote(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, host], port))
}
