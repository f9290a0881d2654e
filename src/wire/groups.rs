//! Which multicast groups a machine wants, as it tells its peers.
//!
//! ```text
//! groups  0 these: how many of IPv4 u8, how many of IPv6 u8, then the addresses, each once, in ascending order
//!         1 everything
//! ```
//!
//! "Everything" says who cannot know what its programs have joined, or whose programs have joined more than one message
//! carries. What is for everybody anyway is on no list: who has joined nothing gets it too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Malformed, Reader, Writer};

/// Bytes of the addresses on the longest list: with all that goes around it, the message passes on the narrowest path.
pub const MAX_ADDRESSES: usize = 1_020;
/// Bytes of the longest list.
pub const MAX: usize = 3 + MAX_ADDRESSES;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Groups {
    /// Whatever is sent.
    #[default]
    Everything,
    /// These, in ascending order.
    These(Box<[IpAddr]>),
}

impl Groups {
    /// These, and what is for everybody.
    pub fn these(groups: impl IntoIterator<Item = IpAddr>) -> Self {
        let is_listed = |group: &IpAddr| !is_for_all(*group) && !is_of_one_address(*group);
        let mut groups: Vec<IpAddr> = groups.into_iter().filter(is_listed).collect();
        groups.sort_unstable();
        groups.dedup();
        match groups.iter().map(len).sum::<usize>() {
            0..=MAX_ADDRESSES => Self::These(groups.into()),
            _ => Self::Everything,
        }
    }

    /// Whether what is sent to this address, broadcast or multicast, is wanted.
    pub fn want(&self, destination: IpAddr) -> bool {
        match self {
            Self::Everything => true,
            Self::These(groups) => is_for_all(destination) || groups.binary_search(&destination).is_ok(),
        }
    }

    /// Their bytes.
    ///
    /// # Panics
    /// If the list was not made by this type.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        let Self::These(groups) = self else { return w.u8(1).finish() };
        let count = |count: usize| u8::try_from(count).expect("a list is short");
        let of_v4 = groups.partition_point(IpAddr::is_ipv4);
        w.u8(0).u8(count(of_v4)).u8(count(groups.len() - of_v4));
        for group in groups {
            match group {
                IpAddr::V4(v4) => w.bytes(&v4.octets()),
                IpAddr::V6(v6) => w.bytes(&v6.octets()),
            };
        }
        w.finish()
    }

    /// Reads them.
    ///
    /// # Errors
    /// It is no list, or one that nobody makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            0 => {}
            1 => return Ok(Self::Everything),
            other => return Err(Malformed::UnknownKind(other)),
        }
        let (of_v4, of_v6) = (r.u8()?, r.u8()?);
        let mut groups = Vec::with_capacity(usize::from(of_v4) + usize::from(of_v6));
        for _ in 0..of_v4 {
            groups.push(IpAddr::V4(Ipv4Addr::from(r.u32()?)));
        }
        for _ in 0..of_v6 {
            groups.push(IpAddr::V6(Ipv6Addr::from(r.array::<16>()?)));
        }
        match Self::these(groups.iter().copied()) {
            Self::These(listed) if *listed == *groups => Ok(Self::These(listed)),
            _ => Err(Malformed::Bad("groups")),
        }
    }
}

/// Whether what is sent there, broadcast or multicast, is for everybody: broadcast, and the groups of all hosts (RFC 1112
/// §4, RFC 4291 §2.7.1).
pub fn is_for_all(destination: IpAddr) -> bool {
    const ALL_V6: [Ipv6Addr; 2] =
        [Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)];
    match destination {
        IpAddr::V4(v4) => !v4.is_multicast() || v4 == Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(v6) => !v6.is_multicast() || ALL_V6.contains(&v6),
    }
}

/// Whether it is the group of those who have an address that ends so (RFC 4291 §2.7.1): every system joins one for each
/// address of its own, and no program does.
fn is_of_one_address(group: IpAddr) -> bool {
    matches!(group, IpAddr::V6(v6) if matches!(v6.segments(), [0xff02, 0, 0, 0, 0, 1, 0xff00..=0xffff, _]))
}

const fn len(group: &IpAddr) -> usize {
    match group {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 16,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn groups_hold_in_both_directions() {
        let some = Groups::these(["ff02::fb", "239.1.2.3", "224.0.0.251", "239.1.2.3"].map(ip));
        let v6 = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb];
        let vectors = [
            (Groups::Everything, vec![1]),
            (Groups::These(Box::new([])), vec![0, 0, 0]),
            (some, [&[0, 2, 1, 224, 0, 0, 251, 239, 1, 2, 3][..], &v6].concat()),
        ];
        for (groups, bytes) in vectors {
            assert_eq!(groups.encode(), bytes);
            assert_eq!(Groups::decode(&bytes), Ok(groups.clone()));
            assert_eq!(Groups::decode(&[&bytes[..], &[7]].concat()), Ok(groups), "trailing bytes are ignored");
            assert!(Groups::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        for odd in [&[0, 2, 0, 239, 1, 2, 3, 224, 0, 0, 251][..], &[0, 1, 0, 10, 0, 0, 1], &[0, 1, 0, 224, 0, 0, 1]] {
            assert_eq!(Groups::decode(odd), Err(Malformed::Bad("groups")), "{odd:?}");
        }
        assert_eq!(Groups::decode(&[2]), Err(Malformed::UnknownKind(2)));
    }

    #[test]
    fn what_is_joined_is_wanted_and_what_is_for_everybody_always() {
        let groups = Groups::these(["239.1.2.3", "ff02::fb", "ff02::1:ff00:7", "10.0.0.1"].map(ip));
        for wanted in ["239.1.2.3", "ff02::fb", "224.0.0.1", "ff02::1", "ff01::1", "255.255.255.255", "10.77.0.255"] {
            assert!(groups.want(ip(wanted)), "{wanted}");
        }
        for unwanted in ["239.1.2.4", "ff02::c", "ff05::fb", "ff02::1:ff00:7"] {
            assert!(!groups.want(ip(unwanted)) && Groups::Everything.want(ip(unwanted)), "{unwanted}");
        }
    }

    #[test]
    fn more_than_a_message_carries_is_everything() {
        let v4 = |n: u32| (0..n).map(|n| IpAddr::V4(Ipv4Addr::from(0xef00_0000 + n)));
        let v6 = |n: u16| (0..n).map(|n| IpAddr::V6(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, n)));
        assert!(matches!(Groups::these(v4(255)), Groups::These(list) if list.len() == 255));
        assert!(matches!(Groups::these(v6(63)), Groups::These(list) if list.len() == 63));
        assert_eq!(Groups::these(v4(255)).encode().len(), MAX);
        for many in [Groups::these(v4(256)), Groups::these(v6(64)), Groups::these(v4(200).chain(v6(20)))] {
            assert_eq!(many, Groups::Everything);
        }
        let crowded = [&[0, 255, 1][..], &Groups::these(v4(255)).encode()[3..], &[0xff; 16]].concat();
        assert_eq!(Groups::decode(&crowded), Err(Malformed::Bad("groups")));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(groups) = Groups::decode(&bytes) {
                prop_assert!(bytes.starts_with(&groups.encode()));
            }
        }
    }
}
