//! What a peer does while nobody plays: it wakes up seldom, and not more often for having more friends.

#[path = "bench/lan.rs"]
mod lan;

use std::time::Duration;

use lan::Lan;

const HOUR: u32 = 3_600;

/// Wake-ups and datagrams of an idle hub in an hour, a second.
fn idle(friends: usize) -> (f64, f64) {
    let mut lan = Lan::new(friends);
    lan.run(Duration::from_secs(120));
    (lan.wakeups, lan.sent) = (0, 0);
    lan.run(Duration::from_secs(HOUR.into()));
    let a_second = |n: u64| f64::from(u32::try_from(n).expect("few")) / f64::from(HOUR);
    (a_second(lan.wakeups), a_second(lan.sent))
}

#[test]
fn thirty_two_idle_sessions_cost_less_than_three_wake_ups_a_second() {
    let [few, many] = [1, 32].map(idle);

    assert!(few.0 < 1.0 && many.0 < 3.0, "{few:?} {many:?}");
    // A friend's path is measured every 15 s and its keys are made anew every two minutes.
    assert!(many.1 < 32.0 / 2.0, "{many:?}");
}
