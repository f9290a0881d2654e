//! From what was seen to what it means. Pure: no time, no sockets.

use std::net::SocketAddr;

use super::SOCKETS;
use crate::nat::{Allocation, Behaviour, Bounds};

/// Blocks of ports that providers give to a customer are no wider (RFC 6431, RFC 7753: usually 512 to 4,096). Of eight
/// random ports all are so close together once in fifty million times.
const BLOCK: u16 = 4_096;
/// Whoever counts up takes no larger steps.
const LARGEST_STEP: i32 = 64;
/// So many sockets must have been seen to tell how ports are allocated.
const ENOUGH: usize = 5;

/// What the mapping depends on, from which address of one socket each destination saw; `None`: nothing to compare.
pub(super) fn mapping(seen: &[(SocketAddr, SocketAddr)]) -> Option<Bounds> {
    let pairs = || seen.iter().enumerate().flat_map(|(i, a)| seen[..i].iter().map(move |b| (a, b)));
    let same_ip = |(a, b): &(&(SocketAddr, SocketAddr), &(SocketAddr, SocketAddr))| a.0.ip() == b.0.ip();
    // Whether all saw the same; `None`: no such pair.
    let equal = |of_one_address: bool| {
        let which = || pairs().filter(move |pair| same_ip(pair) == of_one_address && pair.0.0 != pair.1.0);
        which().next().map(|_| which().all(|(a, b)| a.1 == b.1))
    };
    let mut bounds = match equal(false) {
        Some(true) => Bounds::exactly(Behaviour::EndpointIndependent),
        Some(false) => Bounds { least: Behaviour::AddressDependent, ..Bounds::ANY },
        None => Bounds::ANY,
    };
    match equal(true) {
        Some(true) => bounds.most = bounds.most.min(Behaviour::AddressDependent),
        Some(false) => bounds = Bounds::exactly(Behaviour::AddressAndPortDependent),
        None => {}
    }
    (bounds != Bounds::ANY).then_some(bounds)
}

/// What the filtering depends on, from which answers from elsewhere came through; `None` each: it was not asked for, or
/// what its absence means cannot be told.
pub(super) fn filtering(from_other_address: Option<bool>, from_other_port: Option<bool>) -> Option<Bounds> {
    match (from_other_address, from_other_port) {
        (Some(true), _) => Some(Bounds::exactly(Behaviour::EndpointIndependent)),
        (Some(false), Some(true)) => Some(Bounds::exactly(Behaviour::AddressDependent)),
        (None, Some(true)) => Some(Bounds { most: Behaviour::AddressDependent, ..Bounds::ANY }),
        (_, Some(false)) => Some(Bounds::exactly(Behaviour::AddressAndPortDependent)),
        (Some(false), None) => Some(Bounds { least: Behaviour::AddressDependent, ..Bounds::ANY }),
        (None, None) => None,
    }
}

/// How ports are allocated, from {place, ours, outside} of sockets: the place is that among all in the order in which
/// they sent first, for some may be missing.
///
/// # Errors
/// Why it cannot be told.
pub(super) fn allocation(ports: &[(i32, u16, u16)]) -> Result<Allocation, String> {
    if ports.len() < ENOUGH {
        return Err(format!("only {} of {SOCKETS} sockets were answered", ports.len()));
    }
    // Somebody else in the house may hold one of the ports, or open a connection between two of ours.
    let tolerated = ports.len() / 4;
    if ports.iter().filter(|(_, own, outside)| own != outside).count() <= tolerated {
        return Ok(Allocation::Preserved);
    }
    if ports.iter().all(|(_, _, outside)| *outside == ports[0].2) {
        return Err("all sockets were seen at one port".to_owned());
    }
    // Who is missing took a port, or was lost before the router.
    let steps = ports.windows(2).map(|pair| (i32::from(pair[1].2) - i32::from(pair[0].2), pair[1].0 - pair[0].0));
    let steps: Vec<i32> = steps.map(|(up, places)| if up % places == 0 { up / places } else { up }).collect();
    let count = |step: i32| steps.iter().filter(|other| **other == step).count();
    let step = steps.iter().copied().max_by_key(|step| (count(*step), std::cmp::Reverse(step.abs()))).unwrap_or(0);
    if step != 0 && step.abs() <= LARGEST_STEP && count(step) + tolerated >= steps.len() {
        return Ok(Allocation::Sequential { step });
    }
    let outside = || ports.iter().map(|(_, _, outside)| *outside);
    let (first, last) = (outside().min().unwrap_or(0), outside().max().unwrap_or(u16::MAX));
    Ok(if last - first < BLOCK { Allocation::Block { first, last } } else { Allocation::Random })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Behaviour::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

    /// Which of these {destination, outside} were seen: `"address:port=port"`.
    fn mapping_of(seen: &[(&str, u16)]) -> Option<Bounds> {
        let outside = |port| SocketAddr::from(([203, 0, 113, 9], port));
        let seen: Vec<_> = seen.iter().map(|(to, port)| (to.parse().expect("address"), outside(*port))).collect();
        mapping(&seen)
    }

    const A: &str = "198.51.100.1:3478";
    const A2: &str = "198.51.100.1:3479";
    const B: &str = "198.51.100.2:3478";

    #[test]
    fn a_mapping_is_known_as_far_as_destinations_differ() {
        assert_eq!(mapping_of(&[(A, 7)]), None);
        assert_eq!(mapping_of(&[(A, 7), (A, 7)]), None, "the same one asked twice says nothing");
        assert_eq!(mapping_of(&[(A, 7), (A2, 7), (B, 7)]), Some(Bounds::exactly(EndpointIndependent)));
        assert_eq!(mapping_of(&[(A, 7), (B, 7)]), Some(Bounds::exactly(EndpointIndependent)));
        assert_eq!(mapping_of(&[(A, 7), (A2, 7), (B, 8)]), Some(Bounds::exactly(AddressDependent)));
        assert_eq!(mapping_of(&[(A, 7), (A2, 8), (B, 9)]), Some(Bounds::exactly(AddressAndPortDependent)));
        assert_eq!(mapping_of(&[(A, 7), (A2, 8)]), Some(Bounds::exactly(AddressAndPortDependent)));
        assert_eq!(mapping_of(&[(A, 7), (A2, 7)]), Some(Bounds { most: AddressDependent, ..Bounds::ANY }));
        assert_eq!(mapping_of(&[(A, 7), (B, 8)]), Some(Bounds { least: AddressDependent, ..Bounds::ANY }));
    }

    #[test]
    fn a_filter_is_known_as_far_as_answers_from_elsewhere_could_come() {
        assert_eq!(filtering(Some(true), None), Some(Bounds::exactly(EndpointIndependent)));
        assert_eq!(filtering(Some(false), Some(true)), Some(Bounds::exactly(AddressDependent)));
        assert_eq!(filtering(Some(false), Some(false)), Some(Bounds::exactly(AddressAndPortDependent)));
        assert_eq!(filtering(None, Some(false)), Some(Bounds::exactly(AddressAndPortDependent)));
        assert_eq!(filtering(None, Some(true)), Some(Bounds { most: AddressDependent, ..Bounds::ANY }));
        assert_eq!(filtering(None, None), None);
    }

    fn allocated(outside: [u16; 8]) -> Result<Allocation, String> {
        let own = [41_003, 58_120, 33_017, 49_999, 37_204, 52_811, 60_002, 44_444];
        let ports = (0..).zip(own).zip(outside).map(|((place, own), outside)| (place, own, outside));
        allocation(&ports.collect::<Vec<_>>())
    }

    #[test]
    fn ports_are_preserved_counted_up_in_a_block_or_random() {
        let own = [41_003, 58_120, 33_017, 49_999, 37_204, 52_811, 60_002, 44_444];
        assert_eq!(allocated(own), Ok(Allocation::Preserved));
        let one_taken = [41_003, 58_120, 1_024, 49_999, 37_204, 52_811, 60_002, 44_444];
        assert_eq!(allocated(one_taken), Ok(Allocation::Preserved));
        let up = [2_000, 2_001, 2_002, 2_003, 2_004, 2_005, 2_006, 2_007];
        assert_eq!(allocated(up), Ok(Allocation::Sequential { step: 1 }));
        let interrupted = [2_000, 2_002, 2_004, 2_010, 2_012, 2_014, 2_016, 2_018];
        assert_eq!(allocated(interrupted), Ok(Allocation::Sequential { step: 2 }));
        let over_the_end = [65_533, 65_534, 65_535, 1_024, 1_025, 1_026, 1_027, 1_028];
        assert_eq!(allocated(over_the_end), Ok(Allocation::Sequential { step: 1 }));
        let down = [2_007, 2_006, 2_005, 2_004, 2_003, 2_002, 2_001, 2_000];
        assert_eq!(allocated(down), Ok(Allocation::Sequential { step: -1 }));
        let block = [5_120, 6_001, 5_500, 5_121, 6_143, 5_900, 5_777, 5_333];
        assert_eq!(allocated(block), Ok(Allocation::Block { first: 5_120, last: 6_143 }));
        let random = [5_120, 46_001, 15_500, 25_121, 36_143, 55_900, 65_000, 1_333];
        assert_eq!(allocated(random), Ok(Allocation::Random));
        assert_eq!(allocation(&[(0, 1, 2); 4]), Err("only 4 of 8 sockets were answered".to_owned()));
    }

    #[test]
    fn one_port_for_all_is_neither_counting_nor_a_block() {
        assert_eq!(allocated([2_000; 8]), Err("all sockets were seen at one port".to_owned()));
    }

    #[test]
    fn sockets_that_are_missing_do_not_hide_the_counting() {
        let seen = |places: &[i32], outside: fn(i32) -> i32| {
            let outside = |place| u16::try_from(outside(place)).expect("a port");
            allocation(&places.iter().map(|place| (*place, 41_003, outside(*place))).collect::<Vec<_>>())
        };
        assert_eq!(seen(&[0, 2, 3, 5, 7], |place| 2_000 + 3 * place), Ok(Allocation::Sequential { step: 3 }));
        assert_eq!(seen(&[0, 2, 4, 5, 7], |place| 2_000 - place), Ok(Allocation::Sequential { step: -1 }));
    }
}
