//! Who is shown under which name.

use super::*;

#[test]
fn a_second_bob_is_bob_2() {
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(2, "bob"), Setup::new(3, "bob")]);
    lan.run(Duration::from_secs(5));
    let now = lan.now;
    let names: Vec<String> = lan.node(0).status(now).peers.into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["bob", "bob-2"]);
}

#[test]
fn a_namesake_is_numbered_and_explained_until_one_of_the_two_is_called_otherwise() {
    let mut lan = Lan::new(&[Setup::new(1, "vm"), Setup::new(2, "vm")]);
    lan.run(Duration::from_secs(15));
    for i in 0..2 {
        assert_eq!(lan.names(i), ["vm-2"]);
        assert_eq!(lan.warnings(i), ["name-taken"]);
        let said = lan.warning(i, "name-taken");
        assert!(said.contains("called vm too and is shown here as vm-2") && said.contains("`name`"), "{said}");
    }
    lan.rename(0, "bob");
    lan.run(Duration::from_secs(2));
    assert_eq!((lan.names(0), lan.names(1)), (vec!["vm".to_owned()], vec!["bob".to_owned()]));
    assert_eq!((lan.warnings(0), lan.warnings(1)), (Vec::new(), Vec::new()));
    lan.rename(1, "bob");
    lan.run(Duration::from_secs(2));
    for i in 0..2 {
        assert_eq!((lan.names(i), lan.warnings(i).len()), (vec!["bob-2".to_owned()], 1));
    }
}

#[test]
fn a_name_that_was_ours_in_an_earlier_run_is_free() {
    let mut lan = Lan::new(&[Setup::new(1, "vm"), Setup::new(2, "vm")]);
    lan.run(Duration::from_secs(15));
    let now = lan.now;
    lan.node(0).save_cache(now);
    let saved = std::iter::from_fn(|| lan.node(0).poll_action()).find_map(|action| match action {
        Action::SaveCache(bytes) => Some(bytes),
        _ => None,
    });
    let saved = saved.expect("it is saved");
    for (name, theirs) in [("bob", "vm"), ("vm", "vm-2")] {
        let again = Setup::new(1, name).restarted(now, saved.clone());
        assert_eq!(again.status(now).peers[0].name, theirs);
    }
}

#[test]
fn no_two_are_shown_under_one_name_be_they_here_or_gone() {
    // The new one has the lower id: in the first seconds it takes the name.
    let id = |device| identity(1, device).device.id();
    let old = (3..=250).find(|device| id(*device) > id(2)).expect("a higher id");
    let mut lan = Lan::new(&[Setup::new(1, "alice"), Setup::new(old, "bob"), Setup::new(2, "bob")]);
    let new = lan.hosts.pop().expect("the new one");
    lan.run(Duration::from_secs(2));
    let now = lan.now;
    lan.node(1).handle_command(now, Command::Leave);
    lan.settle();
    lan.hosts.push(new);
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.names(0), ["bob", "bob-2"]);
    let (now, gone) = (lan.now, lan.hosts[1].1.my_id());
    let shown = lan.node(0).peers[&gone].name.clone();
    assert_eq!(lan.node(0).find_peer(now, &shown), Some(gone));
    lan.node(0).handle_command(now, Command::Forget(gone));
    lan.settle();
    assert_eq!(lan.names(0), ["bob"]);
}

#[test]
fn an_invented_device_does_not_take_a_bound_name() {
    let mut lan = pair();
    let (now, alice, bob) = (lan.now, lan.hosts[0].1.my_id(), lan.hosts[1].1.my_id());
    let lower = (3..=250).find(|d| identity(1, *d).device.id() < bob).expect("a lower id");
    let invented = claim(lower, 7, "bob", V4Claim::None);
    lan.node(1).send_control(now, &alice, &Control::Announcement(&invented));
    lan.settle();
    let names: Vec<String> = lan.node(0).status(now).peers.into_iter().map(|p| p.name).collect();
    assert_eq!(lan.node(0).find_peer(now, "bob"), Some(bob), "{names:?}");
}
