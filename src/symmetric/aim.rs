//! Which ports are tried, in which order.

use crate::nat::{NextPorts, PORTS};
use crate::sans::Rng;

/// Ports that are looked at where any may be it.
pub(super) const LOOKS: usize = 1_000;
/// Steps within which those of a NAT that counts are looked for: others in the house open connections too.
const COUNTED_SPAN: u32 = 128;
/// Shots of each side where both are symmetric: rounds of so many sockets…
pub(super) const ROUNDS: u32 = 32;
/// …with so many shots each.
pub(super) const ROUND: u32 = 32;

/// The ports to look at for who has `open` of these.
pub(super) fn look(ports: NextPorts, open: usize, rng: &mut Rng) -> Vec<u16> {
    match ports {
        NextPorts::Same => Vec::new(),
        // They lie in a row, wherever it begins by now: of every so many one is enough to hit it.
        NextPorts::Counted { first, step } => {
            let stride = u32::try_from(open.max(1)).unwrap_or(COUNTED_SPAN).min(COUNTED_SPAN);
            let passes = (0..stride).rev().flat_map(|offset| (offset..COUNTED_SPAN).step_by(stride as usize));
            passes.map(|n| NextPorts::counted(first, step, n)).collect()
        }
        NextPorts::Within { first, last } => drawn(first, last, LOOKS, rng),
    }
}

/// The ports to shoot at, in rounds, where the shooter's ports differ from shot to shot as well. For who counts: those
/// that its own shots of the same round have.
pub(super) fn shoot(ports: NextPorts, rng: &mut Rng) -> Vec<u16> {
    let round = |n: u32, rng: &mut Rng| match ports {
        NextPorts::Same => Vec::new(),
        NextPorts::Counted { first, step } => {
            let mut places: Vec<u32> = (0..ROUND).collect();
            // If nobody else opens a connection, the n-th shots of both meet. If somebody does, only chance helps.
            if n > 0 {
                draw(&mut places, ROUND as usize, rng);
            }
            places.into_iter().map(|place| NextPorts::counted(first, step, n * ROUND + place)).collect()
        }
        NextPorts::Within { first, last } => drawn(first, last, ROUND as usize, rng),
    };
    (0..ROUNDS).flat_map(|n| round(n, rng)).collect()
}

/// How many pairs of shots will meet, on average.
pub(super) fn meetings(a: NextPorts, b: NextPorts) -> f64 {
    let shots = f64::from(ROUNDS * ROUND);
    match (width(a), width(b)) {
        (None, None) => f64::from(ROUNDS),
        (None, Some(width)) | (Some(width), None) => shots / width,
        (Some(a), Some(b)) => shots / a * (shots / b),
    }
}

/// Among how many ports chance decides; `None`: it does not.
fn width(ports: NextPorts) -> Option<f64> {
    match ports {
        NextPorts::Within { first, last } => Some(f64::from(last.saturating_sub(first)) + 1.0),
        NextPorts::Same | NextPorts::Counted { .. } => None,
    }
}

/// So many different ones, or all if there are fewer, in any order.
fn drawn(first: u16, last: u16, most: usize, rng: &mut Rng) -> Vec<u16> {
    let mut ports: Vec<u16> = (first.max(*PORTS.start())..=last).collect();
    draw(&mut ports, most, rng);
    ports.truncate(most);
    ports.shrink_to_fit();
    ports
}

/// Puts so many, drawn from all, in front.
fn draw<T>(list: &mut [T], most: usize, rng: &mut Rng) {
    for place in 0..most.min(list.len()) {
        let left = (list.len() - place) as u64;
        let chosen = usize::try_from(rng.u64() % left).expect("below the length");
        list.swap(place, place + chosen);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sans::Seed;

    fn rng() -> Rng {
        Seed::from_u64(1).rng()
    }

    #[test]
    fn a_row_of_ports_is_hit_by_the_first_shots_however_far_it_has_moved() {
        let ports = look(NextPorts::Counted { first: 2_000, step: 2 }, 8, &mut rng());
        for moved in 0..120 {
            let row: Vec<u16> = (moved..moved + 8).map(|n| 2_000 + 2 * n).collect();
            let hit = ports.iter().position(|port| row.contains(port)).expect("hit");
            assert!(hit <= 15, "moved by {moved}: shot {hit}");
        }
        let all: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!((all.len(), ports.len(), all.last()), (128, 128, Some(&2_254)), "each once");
    }

    #[test]
    fn any_port_is_looked_for_in_any_order_and_none_twice() {
        let ports = look(NextPorts::ANY, 256, &mut rng());
        assert_eq!((ports.len(), ports.iter().collect::<BTreeSet<_>>().len()), (LOOKS, LOOKS));
        assert!(ports.iter().all(|port| PORTS.contains(port)) && !ports.is_sorted());
        let few = look(NextPorts::Within { first: 3_000, last: 3_099 }, 64, &mut rng());
        assert_eq!(few.iter().copied().collect::<BTreeSet<_>>(), (3_000..3_100).collect());
        assert_eq!(look(NextPorts::Within { first: 1, last: 1_030 }, 64, &mut rng()).len(), 7, "none of the services'");
    }

    /// Where two NATs give ports as `a` and `b` say, how often a shot of one meets one of the other's: one has for its
    /// n-th shot the port that it counts, or draws, and comes in at the port it was aimed at.
    fn met(a: NextPorts, b: NextPorts, drift: [u32; 2], rng: &mut Rng) -> usize {
        let given = |ports: NextPorts, drift: u32, n: u32, rng: &mut Rng| match ports {
            NextPorts::Same => unreachable!("that is no symmetric NAT"),
            NextPorts::Counted { first, step } => NextPorts::counted(first, step, n + drift),
            NextPorts::Within { first, last } => {
                first + u16::try_from(rng.u32() % u32::from(last - first + 1)).expect("fits")
            }
        };
        let shots = |own, others, drift, rng: &mut Rng| -> BTreeSet<(u16, u16)> {
            let aims = shoot(others, rng);
            (0..).zip(aims).map(|(n, to)| (given(own, drift, n, rng), to)).collect()
        };
        let (of_a, of_b) = (shots(a, b, drift[0], rng), shots(b, a, drift[1], rng));
        of_a.iter().filter(|(from, to)| of_b.contains(&(*to, *from))).count()
    }

    #[test]
    fn two_symmetric_nats_meet_where_chance_has_little_to_decide() {
        let (counted, down) =
            (NextPorts::Counted { first: 60_000, step: 1 }, NextPorts::Counted { first: 9_000, step: -3 });
        let (small, large) =
            (NextPorts::Within { first: 2_048, last: 2_559 }, NextPorts::Within { first: 8_192, last: 9_215 });
        for (a, b) in [(counted, down), (counted, small), (small, down), (small, large)] {
            for drift in [[0, 0], [3, 0], [2, 5]] {
                let mut rng = rng();
                let won = (0..200).filter(|_| met(a, b, drift, &mut rng) > 0).count();
                assert!(won >= 160, "{a:?}, {b:?}, {drift:?}: {won} of 200");
                assert!(meetings(a, b) > 1.0, "{a:?}, {b:?}");
            }
        }
        let hopeless = [(NextPorts::ANY, counted), (NextPorts::ANY, small), (NextPorts::ANY, NextPorts::ANY)];
        assert!(hopeless.iter().all(|(a, b)| meetings(*a, *b) < 0.05 && meetings(*b, *a) < 0.05));
    }
}
