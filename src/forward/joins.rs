//! Which multicast groups the programs of this machine have joined, on which interfaces, and where a packet for many is to
//! be delivered for each of them to hear it once.
//!
//! A program that names no interface has its group joined on the one that unnamed ones are sent by, mostly a real LAN's; and
//! a socket hears what arrives on the interface it has joined on, in the strictest case there alone. A listener on ours hears
//! what is given to ours, and so does mostly one on another interface beside it: it would hear twice. Only if there are more
//! of them than on ours is somebody there who would hear nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::wire::groups::{Groups, is_for_all};

/// An interface of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interface {
    /// The overlay's, of this network.
    Ours,
    /// Another, by its index.
    Other(u32),
}

/// A group is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// The group.
    pub group: IpAddr,
    /// On this interface.
    pub interface: Interface,
    /// So many times.
    pub users: u32,
}

/// Where a packet for many is delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// It is given to the overlay's interface.
    pub ours: bool,
    /// It is looped to those who listen on these others.
    pub others: Vec<u32>,
}

/// To the overlay's interface alone.
const OURS: &Delivery = &Delivery { ours: true, others: Vec::new() };

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    /// By group; `None`: not known.
    deliveries: Option<BTreeMap<IpAddr, Delivery>>,
}

impl Joins {
    /// This system does not say what is joined.
    pub const UNKNOWN: Self = Self { deliveries: None };

    /// All that is joined, in any order.
    pub fn new(joins: impl IntoIterator<Item = Join>) -> Self {
        let mut by_group: BTreeMap<IpAddr, BTreeMap<Interface, u32>> = BTreeMap::new();
        for Join { group, interface, users } in joins {
            *by_group.entry(group).or_default().entry(interface).or_default() += users;
        }
        Self { deliveries: Some(by_group.into_iter().map(|(group, users)| (group, deliver(&users))).collect()) }
    }

    /// What peers are told of it.
    pub fn groups(&self) -> Groups {
        self.deliveries.as_ref().map_or(Groups::Everything, |known| Groups::these(known.keys().copied()))
    }

    /// Where what is sent to `destination`, broadcast or multicast, is delivered; `None`: nobody listens.
    pub fn delivery(&self, destination: IpAddr) -> Option<&Delivery> {
        match &self.deliveries {
            Some(known) if !is_for_all(destination) => known.get(&destination),
            _ => Some(OURS),
        }
    }
}

fn deliver(users: &BTreeMap<Interface, u32>) -> Delivery {
    let ours = users.get(&Interface::Ours);
    let others = users.iter().filter_map(|(interface, users)| match interface {
        Interface::Other(index) if *users > ours.copied().unwrap_or(0) => Some(*index),
        _ => None,
    });
    Delivery { ours: ours.is_some(), others: others.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn join(group: &str, interface: Interface, users: u32) -> Join {
        Join { group: ip(group), interface, users }
    }

    #[test]
    fn a_packet_is_delivered_where_somebody_listens_and_nobody_hears_it_twice() {
        use Interface::{Other, Ours};
        let joins = Joins::new([
            join("239.0.0.1", Ours, 1),
            join("239.0.0.2", Ours, 1),
            join("239.0.0.2", Other(2), 1),
            join("239.0.0.3", Ours, 1),
            join("239.0.0.3", Other(2), 2),
            join("239.0.0.3", Other(3), 1),
            join("ff15::1", Other(2), 1),
            join("ff15::1", Other(3), 1),
        ]);
        let delivery = |ours: bool, others: &[u32]| Some(Delivery { ours, others: others.to_vec() });
        for (group, expected) in [
            ("239.0.0.1", delivery(true, &[])),
            ("239.0.0.2", delivery(true, &[])),
            ("239.0.0.3", delivery(true, &[2])),
            ("ff15::1", delivery(false, &[2, 3])),
            ("239.0.0.4", None),
            ("224.0.0.1", delivery(true, &[])),
            ("ff02::1", delivery(true, &[])),
            ("255.255.255.255", delivery(true, &[])),
            ("10.77.0.255", delivery(true, &[])),
        ] {
            assert_eq!(joins.delivery(ip(group)).cloned(), expected, "{group}");
            assert_eq!(Joins::UNKNOWN.delivery(ip(group)), Some(OURS), "{group}");
        }
        assert_eq!(joins.groups(), Groups::these(["239.0.0.1", "239.0.0.2", "239.0.0.3", "ff15::1"].map(ip)));
        assert_eq!(Joins::UNKNOWN.groups(), Groups::Everything);
        assert_eq!(Joins::new([]).groups(), Groups::these([]));
    }
}
