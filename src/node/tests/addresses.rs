//! Who holds which overlay address.

use super::*;

#[test]
fn of_two_with_one_configured_address_exactly_one_keeps_it() {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let [mut a, mut b] = [Setup::new(1, "alice"), Setup::new(2, "bob")];
    a.address = AddressChoice::Configured(wanted);
    b.address = AddressChoice::Configured(wanted);
    let mut lan = Lan::new(&[a, b]);
    lan.run(Duration::from_secs(8));
    let holders: Vec<_> = (0..2).filter(|i| lan.hosts[*i].1.me().v4 == Some(wanted)).collect();
    assert_eq!(holders.len(), 1);
    let (now, loser) = (lan.now, 1 - holders[0]);
    let warnings = lan.node(loser).status(now).warnings;
    assert!(warnings.iter().any(|w| w.code == "address-taken"), "{warnings:?}");
    // The loser is still reached by IPv6, both ways.
    let packet = udp(&lan.hosts[loser].1.me().ula.to_string(), &lan.hosts[holders[0]].1.me().ula.to_string());
    lan.send(loser, &packet);
    assert_eq!(lan.hosts[holders[0]].2, [packet]);
}

#[test]
fn an_auto_claimant_moves_away_from_a_configured_one() {
    let auto = identity(1, 1).network.auto_v4("10.77.0.0/24".parse().expect("prefix"), &identity(1, 1).device.id(), 0);
    let mut b = Setup::new(2, "bob");
    b.address = AddressChoice::Configured(auto);
    let mut lan = Lan::new(&[Setup::new(1, "alice"), b]);
    lan.run(Duration::from_secs(8));
    assert_eq!(lan.hosts[1].1.me().v4, Some(auto));
    assert_ne!(lan.hosts[0].1.me().v4, Some(auto));
    let packet = udp(&lan.v4(0), &lan.v4(1));
    lan.send(0, &packet);
    assert_eq!(lan.hosts[1].2, [packet]);
}

#[test]
fn a_member_of_another_subnet_is_warned_of_until_it_is_gone() {
    let mut b = Setup::new(2, "bob");
    b.address = AddressChoice::Configured(Ipv4Addr::new(10, 65, 148, 212));
    let mut lan = Lan::new(&[Setup::new(1, "alice"), b]);
    lan.run(Duration::from_secs(5));
    assert_eq!(lan.warnings(0), ["other-subnet"]);
    let said = lan.warning(0, "other-subnet");
    let text = "bob's address 10.65.148.212 is outside of our subnet 10.77.0.0/24";
    assert!(said.starts_with(text) && said.contains("`subnet` under [network]"), "{said}");
    let now = lan.now;
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    assert_eq!(lan.warnings(0), [""; 0]);
}

#[test]
fn a_settled_configured_address_is_not_lost_to_one_members_word() {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let mut a = Setup::new(1, "alice");
    a.address = AddressChoice::Configured(wanted);
    let mut lan = Lan::new(&[a, Setup::new(2, "mallory")]);
    lan.run(Duration::from_secs(15));
    let invented = claim(99, 7, "nobody", V4Claim::Auto(wanted));
    let (now, alice) = (lan.now, lan.hosts[0].1.my_id());
    let message = Control::AddressTaken { what: crate::wire::session::Taken::V4, holder: &invented };
    lan.node(1).send_control(now, &alice, &message);
    lan.settle();
    assert_eq!(lan.hosts[0].1.me().v4, Some(wanted));
}

/// alice, whose configured address all know, restarts; and what mallory, who claims it in vain, says of it at once.
fn restarted_among_members_who_know_her() -> (Lan, Ipv4Addr) {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let alice = || Setup { address: AddressChoice::Configured(wanted), ..Setup::new(1, "alice") };
    let mut lan = Lan::new(&[alice(), Setup::new(2, "bob"), Setup::new(3, "mallory")]);
    lan.run(Duration::from_secs(600));
    let (cache, now) = (lan.cache(0), lan.now);
    lan.node(0).handle_command(now, Command::Leave);
    lan.settle();
    lan.run(Duration::from_secs(5));
    lan.hosts[0].1 = alice().restarted(lan.now, cache);
    lan.run(Duration::from_secs(3));
    (lan, wanted)
}

#[test]
fn an_address_of_an_earlier_run_is_not_lost_to_one_members_word_right_after_the_start() {
    let (mut lan, wanted) = restarted_among_members_who_know_her();
    let (now, alice, bob) = (lan.now, lan.hosts[0].1.my_id(), lan.hosts[1].1.my_id());
    let claim = claim(3, u64::MAX / 2, "mallory", V4Claim::Configured(wanted));
    for whom in [bob, alice] {
        lan.node(2).send_control(now, &whom, &Control::Announcement(&claim));
    }
    let taken = Control::AddressTaken { what: crate::wire::session::Taken::V4, holder: &claim };
    lan.node(2).send_control(now, &alice, &taken);
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.hosts[0].1.me().v4, Some(wanted));
    assert_eq!(lan.hosts[1].1.router.owner(wanted.into()), Some(alice));
    assert_eq!(lan.warnings(0), ["address-taken"]);
}

/// Two that each had the address when the other was not there, and meet.
fn two_that_kept_one_address(devices: [u8; 2], choice: AddressChoice, addr: Ipv4Addr) -> Lan {
    let setup = |device, name| Setup { address: choice, ..Setup::new(device, name) };
    let setups = [setup(devices[0], "alice"), setup(devices[1], "bob")];
    let mut lan = Lan::new(&setups);
    let mine = |id: PeerId| Stored { key: addr, claim: Claim { strength: Strength::Auto, peer: id }, seen_ms: WALL_MS };
    for (i, setup) in setups.iter().enumerate() {
        let other = setups[1 - i].signed();
        let known = cache::Known { seen_ms: WALL_MS, newest: 0, found_by_search: false, announcement: other };
        let id = lan.node(i).my_id();
        let cache = cache::Cache { addresses: vec![mine(id)], names: Vec::new(), peers: vec![known] };
        let cache = serde_json::to_vec(&cache).expect("plain data");
        lan.hosts[i].1 = setup.node_of((T0, WALL_MS), cache, 0, Vec::new());
    }
    lan.run(Duration::from_secs(3));
    lan
}

#[test]
fn two_that_keep_one_address_say_so_once_and_are_silent() {
    let addr = Ipv4Addr::new(10, 77, 0, 5);
    let mut lan = two_that_kept_one_address([1, 2], AddressChoice::Configured(addr), addr);
    for i in 0..2 {
        assert_eq!(lan.hosts[i].1.me().v4, Some(addr));
        let now = lan.now;
        let warnings = lan.node(i).status(now).warnings;
        let said: Vec<&status::Warning> = warnings.iter().filter(|w| w.code == "address-taken").collect();
        assert!(said.len() == 1 && said[0].text.contains("is also claimed by"), "{said:?}");
        assert!(!said[0].text.contains("punchlan forget"), "of oneself? {said:?}");
    }
    let before = lan.wire.len();
    lan.run(Duration::from_secs(60));
    assert!(lan.wire.len() - before < 100, "{} datagrams in a minute", lan.wire.len() - before);
}

#[test]
fn two_with_one_derived_address_of_earlier_runs_separate() {
    let subnet = "10.77.0.0/24".parse().expect("prefix");
    // Two devices whose first choice is one and the same.
    let first = |device: u8| identity(1, device).network.auto_v4(subnet, &identity(1, device).device.id(), 0);
    let pairs = (1..=250_u8).flat_map(|a| (1..a).map(move |b| (a, b)));
    let (a, b) = pairs.into_iter().find(|(a, b)| first(*a) == first(*b)).expect("250 devices, 254 addresses");
    let lan = two_that_kept_one_address([a, b], AddressChoice::Auto, first(a));
    assert_ne!(lan.hosts[0].1.me().v4, lan.hosts[1].1.me().v4);
}

#[test]
fn devices_that_nobody_ever_met_cause_no_warning_of_a_taken_address() {
    let (mut lan, wanted) = restarted_among_members_who_know_her();
    let alice = lan.hosts[0].1.my_id();
    for device in 100..120 {
        let claim = claim(device, 7, "nobody", V4Claim::Auto(wanted));
        let now = lan.now;
        let taken = Control::AddressTaken { what: crate::wire::session::Taken::V4, holder: &claim };
        lan.node(2).send_control(now, &alice, &taken);
        lan.run(Duration::from_millis(100));
    }
    assert_eq!(lan.hosts[0].1.me().v4, Some(wanted));
    assert_eq!(lan.warnings(0), [""; 0]);
}

#[test]
fn a_configured_address_is_taken_back_when_its_holder_takes_another() {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let setup = |device, name| Setup { address: AddressChoice::Configured(wanted), ..Setup::new(device, name) };
    let mut lan = Lan::new(&[setup(1, "alice"), setup(2, "bob")]);
    lan.run(Duration::from_secs(20));
    let loser = lan.hosts.iter().position(|host| host.1.me().v4.is_none()).expect("one has lost it");
    let (cache, now) = (lan.cache(1 - loser), lan.now);
    lan.node(1 - loser).handle_command(now, Command::Leave);
    lan.settle();
    // Its user does what the warning says.
    let device = u8::try_from(2 - loser).expect("small");
    let elsewhere = AddressChoice::Configured(Ipv4Addr::new(10, 77, 0, 9));
    let holder = Setup { address: elsewhere, ..Setup::new(device, "holder") };
    lan.hosts[1 - loser].1 = holder.restarted(now, cache);
    lan.run(Duration::from_secs(10));
    assert_eq!(lan.hosts[loser].1.me().v4, Some(wanted));
    assert_eq!(lan.warnings(loser), [""; 0]);
}

#[test]
fn a_configured_address_is_taken_back_when_its_holder_is_forgotten() {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let setup = |device, name| Setup { address: AddressChoice::Configured(wanted), ..Setup::new(device, name) };
    let mut lan = Lan::new(&[setup(1, "alice"), setup(2, "bob")]);
    lan.run(Duration::from_secs(20));
    let loser = lan.hosts.iter().position(|host| host.1.me().v4.is_none()).expect("one has lost it");
    let (now, holder) = (lan.now, lan.hosts[1 - loser].1.my_id());
    lan.node(1 - loser).handle_command(now, Command::Leave);
    lan.settle();
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.hosts[loser].1.me().v4, None, "its holder may come back");
    let now = lan.now;
    lan.node(loser).handle_command(now, Command::Forget(holder));
    assert_eq!(lan.hosts[loser].1.me().v4, Some(wanted));
    assert_eq!(lan.warnings(loser), [""; 0]);
}

#[test]
fn a_warning_of_a_taken_address_is_as_old_as_its_cause() {
    let wanted = Ipv4Addr::new(10, 77, 0, 5);
    let alice = Setup { address: AddressChoice::Configured(wanted), ..Setup::new(1, "alice") };
    let mut lan = Lan::new(&[alice, Setup::new(2, "bob")]);
    lan.run(Duration::from_secs(20));
    let (bob, alice) = (lan.hosts[1].1.my_id(), lan.hosts[0].1.my_id());
    let since = |lan: &mut Lan, n: u64| {
        let claim = claim(2, n, "bob", V4Claim::Configured(wanted));
        let now = lan.now;
        lan.node(1).send_control(now, &alice, &Control::Announcement(&claim));
        lan.run(Duration::from_secs(30));
        let now = lan.now;
        let warnings = lan.node(0).status(now).warnings;
        warnings.iter().find(|w| w.text.contains("also claimed by bob")).map(|w| w.since.clone()).expect("it stands")
    };
    let first = since(&mut lan, u64::MAX / 2);
    // Every rekey and every announcement binds again.
    assert_eq!(since(&mut lan, u64::MAX / 2 + 1), first);
    assert!(lan.node(0).is_here(&bob));
}

#[test]
fn claims_of_addresses_outside_the_subnet_bind_nothing_and_harm_nobody() {
    let outside = |device, name, addr| {
        let mut setup = Setup::new(device, name);
        setup.address = AddressChoice::Configured(addr);
        setup
    };
    let mallory = outside(2, "mallory", Ipv4Addr::new(192, 0, 2, 1));
    let mallet = outside(3, "mallet", Ipv4Addr::new(192, 0, 2, 2));
    let mut lan = Lan::new(&[Setup::new(1, "alice"), mallory, mallet, Setup::new(4, "bob")]);
    lan.run(Duration::from_secs(5));
    for name in ["mallory", "mallet", "bob"] {
        assert_eq!(lan.peer(0, name).state, status::PeerState::Direct, "{name}");
    }
    assert!(lan.peer(0, "mallory").addresses.iter().all(IpAddr::is_ipv6));
    assert_eq!(lan.warnings(0), ["other-subnet", "other-subnet"]);
    let packet = udp(&lan.v4(0), &lan.v4(3));
    lan.send(0, &packet);
    assert_eq!(lan.hosts[3].2.last(), Some(&packet));
}
