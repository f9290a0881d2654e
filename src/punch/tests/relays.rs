//! Relays that fall silent.

use super::*;

#[test]
fn a_relay_that_falls_silent_gives_way_to_another_and_its_rendezvous_is_asked_once() {
    let (mut punch, mut budget, mut now) = (punch(&[]), Budget::new(), start());
    let relays = [0, 1].map(ServerId);
    relays.iter().for_each(|server| punch.relay_up(now, *server));
    let (used, other) = (Via::Relay { server: relays[0] }, Via::Relay { server: relays[1] });
    assert_eq!(punch.choice().map(|choice| choice.via), Some(used));
    punch.data_sent(now, used);
    let mut asked = Vec::new();
    for _ in 0..300 {
        now += ms(10);
        for probe in drain(&mut punch, now, &mut budget).into_iter().filter(|probe| probe.via == other) {
            punch.handle_probe(now, other, None, &message(ProbeKind::Echo, probe.nonce, probe.len));
        }
        punch.handle_timeout(now);
        asked.extend(std::iter::from_fn(|| punch.poll_event()).filter(|e| matches!(e, Event::RelayDoubtful { .. })));
    }
    assert_eq!(asked, [Event::RelayDoubtful { relay: used }]);
    assert_eq!(punch.choice().map(|choice| choice.via), Some(other));
}

#[test]
fn when_a_direct_path_falls_silent_the_rendezvous_is_asked_once_before_the_path_is_dead() {
    let there = "203.0.113.9:5000";
    let (mut punch, mut budget, mut now) = moved(there);
    punch.data_sent(now, direct(V4, there));
    let (silent, mut asked, mut lost) = (now, Vec::new(), None);
    for _ in 0..400 {
        now += ms(10);
        drop(drain(&mut punch, now, &mut budget));
        punch.handle_timeout(now);
        for event in std::iter::from_fn(|| punch.poll_event()) {
            match event {
                Event::RelayDoubtful { relay } => asked.push((now - silent, relay)),
                Event::PathLost => lost = Some(now - silent),
                _ => {}
            }
        }
    }
    assert!(matches!(asked.as_slice(), [(after, Via::Relay { server: RELAY })] if *after <= ms(1_600)), "{asked:?}");
    assert!(lost.is_some_and(|after| after > ms(2_500)), "{lost:?}");
}

/// Three relays. The one in use falls silent, and the next best fell silent before, unnoticed, for nothing was wanted of it.
#[test]
fn a_relay_that_went_unnoticed_is_found_out_before_data_is_lost_on_it_for_long() {
    let (mut punch, mut budget, mut now) = (punch(&[]), Budget::new(), start());
    (0..3).for_each(|server| punch.relay_up(now, ServerId(server)));
    let mut alive: Vec<Via> = (0..3).map(|server| ServerId(server).into()).collect();
    let mut run = |punch: &mut Punch, alive: &[Via], done: &dyn Fn(&Punch) -> bool| {
        for step in 0..1_000 {
            if let Some(via) = punch.choice().map(|choice| choice.via) {
                punch.data_sent(now, via);
                if alive.contains(&via) {
                    punch.received(now, via);
                }
            }
            for probe in drain(punch, now, &mut budget) {
                if alive.contains(&probe.via) {
                    punch.handle_probe(now + ms(5), probe.via, None, &message(ProbeKind::Echo, probe.nonce, probe.len));
                }
            }
            now += ms(20);
            punch.handle_timeout(now);
            while punch.poll_event().is_some() {}
            if done(punch) {
                return ms(20) * step;
            }
        }
        panic!("never");
    };
    let used = |punch: &Punch| punch.choice().map(|choice| choice.via).expect("a relay");
    run(&mut punch, &alive, &|punch| punch.choice().is_some());
    let first = used(&punch);
    let last = *alive.iter().rfind(|relay| **relay != first).expect("another");
    alive = vec![first, last];
    for _ in 0..20 {
        run(&mut punch, &alive, &|_| true);
    }
    let took = run(&mut punch, &[last], &|punch| used(punch) == last);
    assert!(took <= ms(2_600), "{took:?}");
}

#[test]
fn the_only_relay_stays_in_use_and_is_asked_until_it_answers() {
    let (mut punch, mut budget, mut now) = (punch(&[]), Budget::new(), start());
    punch.relay_up(now, RELAY);
    let via = Via::Relay { server: RELAY };
    let mut last = Vec::new();
    for _ in 0..100 {
        punch.data_sent(now, via);
        now += ms(100);
        last = [last, drain(&mut punch, now, &mut budget)].concat();
        punch.handle_timeout(now);
        assert_eq!(punch.choice().map(|choice| choice.via), Some(via));
    }
    assert!(last.len() < 30, "{} probes in 10 s", last.len());
    let probe = last.pop().expect("asked");
    punch.handle_probe(now, via, None, &message(ProbeKind::Echo, probe.nonce, probe.len));
    assert_eq!(punch.paths(now).next().and_then(|path| path.proven), Some(Duration::ZERO));
}

#[test]
fn where_one_of_both_is_elsewhere_the_relay_in_use_is_asked_at_once_and_left_if_it_is_silent() {
    let (mut punch, mut budget) = (punch(&[]), Budget::new());
    let carrier = Via::Member { carrier: crate::id::PeerId([3; 32]) };
    punch.relay_up(start(), carrier);
    punch.relay_up(start(), RELAY);
    let mut now = start();
    let used = punch.choice().expect("a relay").via;
    drain(&mut punch, now, &mut budget);
    now += ms(50);
    punch.moved(now);
    let asked = drain(&mut punch, now, &mut budget);
    assert!(asked.iter().any(|probe| probe.via == used), "{asked:?}");
    // The other one answers.
    for _ in 0..100 {
        now += ms(10);
        punch.handle_timeout(now);
        for probe in drain(&mut punch, now, &mut budget).into_iter().filter(|probe| probe.via != used) {
            punch.handle_probe(now, probe.via, None, &message(ProbeKind::Echo, probe.nonce, probe.len));
        }
    }
    assert_ne!(punch.choice().expect("a relay").via, used);
}
