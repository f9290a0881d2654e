//! Which pairs must become direct, said without a look at any code of ours: only from what the NATs do.

use std::fmt;

use crate::nat::{Allocation, Behaviour, NatConfig};

/// The five classical places to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Public,
    FullCone,
    AddressRestricted,
    PortRestricted,
    Symmetric,
}

impl Place {
    pub const ALL: [Self; 5] =
        [Self::Public, Self::FullCone, Self::AddressRestricted, Self::PortRestricted, Self::Symmetric];

    /// The gateway's NAT; none for a public host.
    pub fn nat(self) -> Option<NatConfig> {
        match self {
            Self::Public => None,
            Self::FullCone => Some(NatConfig::full_cone()),
            Self::AddressRestricted => Some(NatConfig::address_restricted()),
            Self::PortRestricted => Some(NatConfig::port_restricted()),
            Self::Symmetric => Some(NatConfig::symmetric()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
        })
    }
}

/// Whether two hosts behind these NATs can reach each other directly. A side whose port differs from remote to
/// remote (and is not simply its inner port) cannot be named to the other beforehand; that is harmless unless the other admits only ports that it
/// has been told.
pub fn direct_is_possible(a: Option<NatConfig>, b: Option<NatConfig>) -> bool {
    let changes = |n: NatConfig| n.mapping != Behaviour::EndpointIndependent && n.allocation != Allocation::Preserving;
    let unnameable = |n: Option<NatConfig>| n.is_some_and(changes);
    let strict = |n: Option<NatConfig>| n.is_some_and(|n| n.filtering == Behaviour::AddressAndPortDependent);
    !(unnameable(a) && strict(b) || unnameable(b) && strict(a))
}
