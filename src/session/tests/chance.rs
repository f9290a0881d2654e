//! Whatever happens, in whatever order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::*;
use super::pair::*;

/// What happens to a pair.
#[derive(Clone, Debug)]
enum Happening {
    Connect(usize),
    Restart(usize),
    NewProcess(usize),
    Close(usize),
    Data(usize),
    Replay(u16),
    Pass(u64),
    Suspend(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let end = || prop_oneof![Just(LOW), Just(HIGH)];
    prop_oneof![
        2 => end().prop_map(Happening::Connect),
        1 => end().prop_map(Happening::Restart),
        1 => end().prop_map(Happening::NewProcess),
        1 => end().prop_map(Happening::Close),
        8 => end().prop_map(Happening::Data),
        4 => any::<u16>().prop_map(Happening::Replay),
        8 => (0..3_000_u64).prop_map(Happening::Pass),
        2 => (0..200_u64).prop_map(Happening::Suspend),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_packet_is_opened_twice_and_the_session_heals(
        happenings in prop::collection::vec(happening(), 1..60),
        mut luck in any::<u64>(),
        loss in 0..60_u64,
    ) {
        let mut pair = Pair::new();
        pair.link = Box::new(move |_, _, _| {
            luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (dice, delay) = ((luck >> 33) % 100, ms((luck >> 45) % 300));
            match dice {
                d if d < loss => vec![],
                d if d > 90 => vec![delay, delay * 2],
                _ => vec![delay],
            }
        });
        let mut sealed = [BTreeSet::new(), BTreeSet::new()];
        for (n, happening) in happenings.into_iter().enumerate() {
            let now = pair.now;
            match happening {
                Happening::Connect(end) => pair.connect(end),
                Happening::Restart(end) => pair.ends[end].session.restart(now),
                Happening::NewProcess(end) => {
                    let opened = std::mem::take(&mut pair.ends[end].opened);
                    let ceiling = pair.ends[end].numbers.take().unwrap_or(1 << 30) + (1 << 20);
                    pair.restart(end);
                    pair.ends[end].numbers = Numbers::new(ceiling, 0);
                    pair.ends[end].opened = opened;
                }
                Happening::Close(end) => pair.ends[end].with_env(|session, env| session.close(now, env)),
                Happening::Data(end) => {
                    let body = [&[1][..], &n.to_be_bytes()].concat();
                    if pair.send_data(end, &body).is_ok() {
                        sealed[end].insert(body);
                    }
                }
                Happening::Replay(which) if !pair.sent.is_empty() => {
                    let (_, from, bytes) = pair.sent[usize::from(which) % pair.sent.len()].clone();
                    pair.inject(1 - from, &bytes);
                }
                Happening::Replay(_) => {}
                Happening::Pass(time) => pair.run(ms(time)),
                Happening::Suspend(time) => pair.now += s(time),
            }
        }
        pair.run(s(1));
        for end in [LOW, HIGH] {
            let opened: BTreeSet<_> = pair.ends[end].opened.iter().cloned().collect();
            prop_assert_eq!(opened.len(), pair.ends[end].opened.len(), "opened twice");
            prop_assert!(opened.is_subset(&sealed[1 - end]), "opened what was not sealed");
        }
        pair.link = Box::new(|_, _, _| vec![ms(50)]);
        pair.connect(LOW);
        pair.connect(HIGH);
        pair.run(s(8));
        // One side may hold keys that the other forgot; data tells.
        for end in [LOW, HIGH] {
            let _ = pair.send_data(end, b"\x01probe");
        }
        pair.run(s(8));
        prop_assert!(pair.both_established());
        assert_exchange(&mut pair);
    }
}
