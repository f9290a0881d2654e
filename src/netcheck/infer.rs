//! From what was seen to what it means. Pure: no time, no sockets.

use std::net::SocketAddr;

use crate::nat::{Behaviour, Bounds};

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
}
