//! Flows over one line, in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SLOTS: Slot = 64;
const SUPER: usize = 64_000;

const fn flow(hash: u64, host: u64) -> Flow {
    Flow { hash, host, urgent: false }
}

/// Who sends packets of so many bytes, at this pace, while fewer than so many of them wait.
#[derive(Clone, Copy)]
struct Source {
    flow: Flow,
    bytes: usize,
    pause: Duration,
    most: usize,
    markable: bool,
}

/// What became of a source's packets.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    waits: usize,
    bytes: usize,
    marked: usize,
    lost: usize,
    longest: Duration,
}

/// A line that is slower than its sources.
struct Line {
    /// Nanoseconds for one byte: 1 is 8 Gbit/s.
    slowness: u64,
    fair: Fair,
    now: Instant,
    free: Vec<Slot>,
    /// Whose packet stands in a slot, its bytes, and since when.
    stands: BTreeMap<Slot, (usize, usize, Instant)>,
    sources: Vec<Source>,
    /// When each has its next packet.
    due: Vec<Instant>,
    sums: Vec<Sum>,
}

impl Line {
    fn new(sources: &[Source]) -> Self {
        Self {
            slowness: 1,
            fair: Fair::new(SLOTS),
            now: Instant::ZERO + MS * 1000,
            free: (0..SLOTS).collect(),
            stands: BTreeMap::new(),
            sources: sources.to_vec(),
            due: sources.iter().map(|source| Instant::ZERO + MS * 1000 + source.pause).collect(),
            sums: vec![Sum::default(); sources.len()],
        }
    }

    fn offer(&mut self, number: usize) {
        let Source { flow, bytes, pause, markable, .. } = self.sources[number];
        // It came while another was on the line.
        let since = if pause.is_zero() { self.now } else { self.due[number] };
        self.due[number] += pause;
        if self.free.is_empty() {
            let slot = self.fair.evict(|_| true).expect("all slots are taken");
            let (whose, ..) = self.stands.remove(&slot).expect("it stands");
            self.sums[whose].lost += 1;
            self.sums[whose].waits -= 1;
            self.free.push(slot);
        }
        let slot = self.free.pop().expect("one is free");
        self.stands.insert(slot, (number, bytes, since));
        self.sums[number].waits += 1;
        self.fair.push(self.now, slot, flow, bytes, markable);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            for number in 0..self.sources.len() {
                while self.sums[number].waits < self.sources[number].most && self.due[number] <= self.now {
                    self.offer(number);
                }
            }
            let Some((slot, fate)) = self.fair.pop(self.now) else { panic!("the sources never rest") };
            let (number, bytes, since) = self.stands.remove(&slot).expect("it stands");
            self.free.push(slot);
            let sum = &mut self.sums[number];
            sum.waits -= 1;
            sum.longest = sum.longest.max(self.now - since);
            if fate == Fate::Dropped {
                sum.lost += 1;
                continue;
            }
            sum.marked += usize::from(fate == Fate::Marked);
            sum.bytes += bytes;
            self.now += Duration::from_nanos(self.slowness * bytes as u64);
        }
        assert_eq!(self.fair.len(), self.stands.len());
    }
}

/// A hundred bytes every millisecond.
fn game(flow: Flow) -> Source {
    Source { bytes: 100, pause: MS, ..bulk(flow) }
}

fn bulk(flow: Flow) -> Source {
    Source { flow, bytes: SUPER, pause: Duration::ZERO, most: 8, markable: false }
}

#[test]
fn what_one_flow_sends_comes_in_its_order() {
    let mut fair = Fair::new(SLOTS);
    for slot in 0..SLOTS {
        fair.push(Instant::ZERO, slot, flow(slot.is_multiple_of(3).into(), 7), 1000, false);
    }
    let order: Vec<Slot> = std::iter::from_fn(|| fair.pop(Instant::ZERO)).map(|(slot, _)| slot).collect();
    for third in [true, false] {
        let of_one: Vec<Slot> = order.iter().copied().filter(|slot| slot.is_multiple_of(3) == third).collect();
        assert!(of_one.is_sorted() && !of_one.is_empty(), "{of_one:?}");
    }
    assert_eq!((order.len(), fair.is_empty()), (usize::from(SLOTS), true));
}

#[test]
fn hosts_have_equal_shares_however_many_flows_go_to_them() {
    let sources: Vec<Source> = (0..5).map(|n| bulk(flow(n, u64::from(n == 4)))).collect();
    let mut line = Line::new(&sources);
    line.run(MS * 200);
    let many: usize = line.sums[..4].iter().map(|sum| sum.bytes).sum();
    let one = line.sums[4].bytes;
    assert!(one.abs_diff(many) < one / 20, "{one} by one flow, {many} by four");
    let of_many = line.sums[..4].iter().map(|sum| sum.bytes);
    let (least, most) = (of_many.clone().min(), of_many.max());
    assert!(least.zip(most).is_some_and(|(least, most)| most - least <= 2 * SUPER), "{least:?} to {most:?}");
}

#[test]
fn small_packets_wait_for_no_more_than_what_is_on_the_line() {
    let mut sources: Vec<Source> = (0..6).map(|n| bulk(flow(n, n / 2))).collect();
    sources.push(game(flow(99, 0)));
    let mut line = Line::new(&sources);
    line.run(MS * 200);
    let game = line.sums[6];
    assert!(game.longest <= Duration::from_nanos(SUPER as u64) && game.bytes >= 198 * 100, "{game:?}");
    assert_eq!(game.lost, 0);
    assert!(line.sums[0].longest > MS, "while others wait: {:?}", line.sums[0]);
}

#[test]
fn who_asks_for_low_delay_may_send_more_before_it_waits() {
    let sums = [false, true].map(|urgent| {
        let busy = Source { bytes: 1200, most: 30, ..bulk(Flow { hash: 50, host: 5, urgent }) };
        let others = (0..4).map(|n| Source { most: 4, ..bulk(flow(n, n)) });
        let mut line = Line::new(&others.chain([busy]).collect::<Vec<_>>());
        line.run(MS * 200);
        let least = line.sums[..4].iter().map(|sum| sum.bytes).min();
        assert!(least.is_some_and(|bytes| bytes > 20_000_000), "the others are not starved: {least:?}");
        line.sums[4]
    });
    // A fifth of the line, and four eighths of it.
    let [plain, urgent] = sums.map(|sum| sum.bytes / 2_000_000);
    assert!((19..=21).contains(&plain) && (48..=52).contains(&urgent), "{plain} and {urgent} %");
}

#[test]
fn where_all_is_full_the_longest_queue_loses_its_head() {
    let (hog, game) = (flow(1, 1), flow(2, 1));
    let mut fair = Fair::new(4);
    fair.push(Instant::ZERO, 3, game, 100, false);
    for slot in 0..3 {
        fair.push(Instant::ZERO, slot, hog, SUPER, false);
    }
    assert_eq!(fair.evict(|_| true), Some(0), "the oldest of the longest");
    // Also where it had a turn already, and is among the old.
    assert_eq!(fair.pop(Instant::ZERO), Some((3, Fate::Sent)));
    assert_eq!(fair.pop(Instant::ZERO), Some((1, Fate::Sent)));
    fair.push(Instant::ZERO, 3, game, 100, false);
    fair.push(Instant::ZERO, 0, game, 100, false);
    assert_eq!(fair.evict(|slot| slot != 2), Some(3), "the longest of those that may go");
    assert_eq!(fair.evict(|slot| slot == 1), None);
    let rest = [fair.evict(|_| true), fair.evict(|_| true), fair.evict(|_| true)];
    assert_eq!((rest, fair.len()), ([Some(2), Some(0), None], 0));
    assert_eq!(fair.pop(Instant::ZERO), None);
}

/// Two flows that react to nothing, whose packets stand for 16 ms at 2 Gbit/s, and a game.
fn two_that_stand(markable: bool, time: Duration) -> Vec<Sum> {
    let standing = |hash| Source { most: 31, markable, ..bulk(flow(hash, hash)) };
    let mut line = Line { slowness: 4, ..Line::new(&[standing(1), standing(2), game(flow(3, 3))]) };
    line.run(time);
    line.sums
}

#[test]
fn a_queue_that_stands_is_told_by_marks_where_they_are_understood_and_by_losses_elsewhere() {
    for markable in [true, false] {
        let told = |sum: &Sum| if markable { (sum.marked, sum.lost) } else { (sum.lost, sum.marked) };
        let burst = two_that_stand(markable, MS * 95);
        assert!(burst.iter().all(|sum| told(sum) == (0, 0)), "a burst is told nothing: {burst:?}");
        let [one, two, game] = two_that_stand(markable, MS * 1000)[..] else { panic!("three") };
        for sum in [one, two] {
            // The first after 100 ms; n of them take 100/√1 + 100/√2 + … + 100/√n ms more.
            let (times, otherwise) = told(&sum);
            assert!((20..=30).contains(&times) && otherwise == 0, "{sum:?}");
            assert!((MS * 12..MS * 20).contains(&sum.longest), "{sum:?}");
        }
        assert_eq!(told(&game), (0, 0), "who does not stand is told nothing");
        assert!(game.longest < MS, "{game:?}");
    }
}

#[test]
fn a_flow_is_its_addresses_protocol_and_ports_and_a_host_its_address() {
    use etherparse::PacketBuilder;

    let packet = |to: u8, tcp: bool, port: u16| {
        let builder = PacketBuilder::ipv4([10, 77, 0, 1], [10, 77, 0, to], 64);
        let mut bytes = Vec::new();
        let written = if tcp {
            builder.tcp(1, port, 0, 0).write(&mut bytes, &[])
        } else {
            builder.udp(1, port).write(&mut bytes, &[])
        };
        written.expect("a vector takes all");
        bytes
    };
    let of = |to, tcp, port| Flow::of(&packet(to, tcp, port));
    let one = of(2, false, 7);
    assert_eq!(one, of(2, false, 7));
    for other in [of(2, false, 8), of(2, true, 7)] {
        assert!(other.host == one.host && other.hash != one.hash, "{other:?}");
    }
    assert_ne!(of(3, false, 7).host, one.host);
    let urgent = [0x7c, 0x80, 0xb8, 0xc0].map(|tos| {
        let mut bytes = packet(2, false, 7);
        bytes[1] = tos;
        let flow = Flow::of(&bytes);
        assert_eq!((flow.hash, flow.host), (one.hash, one.host));
        flow.urgent
    });
    assert_eq!(urgent, [false, true, true, true]);
    assert_eq!(Flow::of(&[]), Flow::of(&[0xff; 40]), "no packets are one flow");
}
