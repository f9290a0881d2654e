//! Routers that keep their word, and others, in simulated time.

use super::*;
use crate::sans::MappingProtocol;

const HOUR: Duration = Duration::from_hours(1);

/// Asks routers for a lease in simulated time.
struct World {
    lease: Lease,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::ZERO + HOUR;
        Self { lease: Lease::new(Transport::Udp, now, true), now }
    }

    /// Waits for the next question: how long that took, and its number.
    fn ask(&mut self) -> (Duration, u64) {
        let start = self.now;
        self.now = self.lease.poll_timeout().expect("it is asked again").at.max(self.now);
        self.lease.handle_timeout(self.now);
        match self.lease.poll_step() {
            Some(Step::Ask(attempt)) => (self.now - start, attempt),
            other => panic!("{other:?} is no question"),
        }
    }

    fn answer(&mut self, attempt: u64, answer: Result<PortMapping, String>) {
        let overlays = ["10.77.0.0/24".parse().expect("a prefix")];
        self.lease.handle_answer(self.now, attempt, answer, &overlays);
    }

    /// The next question is answered so; how long it took until it was asked.
    fn next(&mut self, answer: Result<PortMapping, String>) -> Duration {
        let (waited, attempt) = self.ask();
        self.answer(attempt, answer);
        waited
    }
}

fn mapping(external: &str) -> PortMapping {
    PortMapping {
        protocol: MappingProtocol::Pcp,
        gateway: "192.168.1.1".parse().expect("an address"),
        external: external.parse().expect("an address"),
        lifetime: Some(HOUR),
        epoch: None,
    }
}

fn silent() -> Result<PortMapping, String> {
    Err("the router is silent".to_owned())
}

#[test]
fn it_is_renewed_at_half_of_its_time() {
    let mut world = World::new();
    assert_eq!(world.lease.report(), None);
    assert_eq!(world.next(Ok(mapping("11.0.0.2:4000"))), Duration::ZERO);
    assert_eq!(world.lease.external(), Some("11.0.0.2:4000".parse().expect("an address")));
    assert_eq!(world.lease.report().as_deref(), Some("11.0.0.2:4000 by PCP of the router 192.168.1.1"));
    for (lifetime, pause) in [(Some(600), 300), (Some(3600), 1800), (Some(1), 5), (Some(86_400), 1800), (None, 1800)] {
        let lifetime = lifetime.map(Duration::from_secs);
        world.next(Ok(PortMapping { lifetime, ..mapping("11.0.0.2:4000") }));
        let (waited, attempt) = world.ask();
        assert_eq!(waited, Duration::from_secs(pause), "{lifetime:?}");
        assert!(world.lease.external().is_some(), "held while it is renewed");
        world.answer(attempt, Ok(mapping("11.0.0.2:4000")));
    }
}

#[test]
fn a_lease_that_is_lost_is_noticed_and_won_back() {
    let mut world = World::new();
    world.next(Ok(mapping("11.0.0.2:4000")));
    world.next(silent());
    assert_eq!(world.lease.external(), None);
    assert_eq!(world.lease.report().as_deref(), Some("none: the router is silent"));
    assert_eq!(world.next(Ok(mapping("11.0.0.3:5000"))), Duration::from_secs(5));
    assert_eq!(world.lease.external(), Some("11.0.0.3:5000".parse().expect("an address")));
    world.next(silent());
    assert_eq!(world.next(silent()), Duration::from_secs(5), "success began the pauses anew");
}

#[test]
fn a_router_without_an_offer_is_asked_ever_more_seldom() {
    let mut world = World::new();
    let pauses: Vec<u64> = (0..10).map(|_| world.next(silent()).as_secs()).collect();
    assert_eq!(pauses, [0, 5, 10, 20, 40, 80, 160, 320, 600, 600]);
    for _ in 0..100 {
        assert_eq!(world.next(silent()), RETRY_SELDOM);
    }
}

#[test]
fn what_cannot_be_is_given_back_and_the_user_told() {
    for (address, word) in [
        ("192.168.4.5:4000", "double NAT"),
        ("10.1.2.3:4000", "double NAT"),
        ("100.64.3.4:4000", "double NAT"),
        ("169.254.3.4:4000", "double NAT"),
        ("10.77.0.5:4000", "double NAT"),
        ("127.0.0.1:4000", "cannot be"),
        ("0.0.0.0:4000", "cannot be"),
        ("224.0.0.1:4000", "cannot be"),
        ("255.255.255.255:4000", "cannot be"),
        ("11.0.0.2:0", "cannot be"),
        ("[2001:db8::1]:4000", "cannot be"),
        ("[::ffff:127.0.0.1]:4000", "cannot be"),
        ("[::ffff:10.0.0.1]:4000", "double NAT"),
    ] {
        let mut world = World::new();
        world.next(Ok(mapping(address)));
        assert_eq!(world.lease.external(), None, "{address}");
        assert_eq!(world.lease.poll_step(), Some(Step::Release), "{address}");
        let report = world.lease.report().expect("an answer");
        assert!(report.starts_with("none: ") && report.contains(word), "{address}: {report}");
        assert_eq!(world.next(silent()), Duration::from_secs(5), "a liar is a failure");
    }
    let mut world = World::new();
    world.next(Ok(PortMapping { lifetime: Some(Duration::ZERO), ..mapping("11.0.0.2:4000") }));
    assert_eq!(world.lease.external(), None);
}

#[test]
fn a_hint_is_followed_at_once_but_a_flood_of_them_is_not() {
    let mut world = World::new();
    world.next(Ok(mapping("11.0.0.2:4000")));
    world.now += Duration::from_mins(1);
    world.lease.look(world.now);
    assert_eq!(world.next(Ok(mapping("11.0.0.2:4000"))), Duration::ZERO);
    for _ in 0..10 {
        (0..1_000).for_each(|_| world.lease.look(world.now));
        assert_eq!(world.next(Ok(mapping("11.0.0.2:4000"))), LOOK_PAUSE);
    }
    // One that comes while an answer is awaited is followed after it.
    let (_, attempt) = world.ask();
    world.now += Duration::from_secs(1);
    world.lease.look(world.now);
    world.answer(attempt, Ok(mapping("11.0.0.2:4000")));
    assert_eq!(world.next(Ok(mapping("11.0.0.2:4000"))), LOOK_PAUSE - Duration::from_secs(1));
    // Nor is a router that fails asked later for it.
    world.next(silent());
    world.lease.look(world.now);
    assert_eq!(world.next(silent()), LOOK_PAUSE);
    assert_eq!(world.next(silent()), Duration::from_secs(10));
}

#[test]
fn an_answer_that_comes_late_or_never_changes_nothing() {
    let mut world = World::new();
    let (_, first) = world.ask();
    let (waited, second) = world.ask();
    assert_eq!(waited, PATIENCE);
    world.answer(first, Ok(mapping("11.0.0.2:4000")));
    assert_eq!(world.lease.external(), None);
    world.answer(second, Ok(mapping("11.0.0.3:4000")));
    world.answer(second, Ok(mapping("11.0.0.4:4000")));
    assert_eq!(world.lease.external(), Some("11.0.0.3:4000".parse().expect("an address")));
}

#[test]
fn a_router_that_was_restarted_is_recognised_by_its_epoch() {
    let told = |epoch| Ok(PortMapping { epoch: Some(epoch), ..mapping("11.0.0.2:4000") });
    let mut world = World::new();
    world.next(told(1_000));
    world.next(told(1_000 + 1_800));
    world.next(told(1_000 + 3_600 - 100));
    assert!(!world.lease.poll_restarted(), "clocks run apart a little");
    world.next(told(17));
    assert!(world.lease.poll_restarted() && !world.lease.poll_restarted());
    assert!(world.lease.external().is_some(), "the question that told it has made it anew");
    // It was restarted, and has run for longer than before.
    world.next(told(500));
    assert!(world.lease.poll_restarted());
    world.next(told(500 + 4_000));
    assert!(world.lease.poll_restarted());
    world.next(told(u32::MAX));
    world.next(told(0));
}

#[test]
fn whoever_does_not_want_one_asks_nobody() {
    let mut lease = Lease::new(Transport::Udp, Instant::ZERO, false);
    lease.look(Instant::ZERO);
    assert_eq!(lease.poll_timeout(), None);
    assert_eq!(lease.report().as_deref(), Some("off: `port_mapping = false` in net.toml"));
    lease.release();
    assert_eq!(lease.poll_step(), None);

    let mut world = World::new();
    world.next(Ok(mapping("11.0.0.2:4000")));
    world.lease.set_wanted(world.now, false);
    assert_eq!((world.lease.poll_step(), world.lease.external()), (Some(Step::Release), None));
    assert_eq!(world.lease.poll_timeout(), None);
    world.lease.set_wanted(world.now, true);
    assert_eq!(world.next(Ok(mapping("11.0.0.2:4000"))), Duration::ZERO);
    world.lease.release();
    assert_eq!((world.lease.poll_step(), world.lease.poll_timeout()), (Some(Step::Release), None));
}
