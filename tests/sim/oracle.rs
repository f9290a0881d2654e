//! Which pairs must become direct, said without a look at any code of ours: only from what the NATs do.

use std::fmt;

use crate::nat::{Allocation, Behaviour, NatConfig};

/// The places to be: the five classical ones, then those that are told apart by what a search for their ports meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Public,
    FullCone,
    AddressRestricted,
    PortRestricted,
    Symmetric,
    Sequential,
    Block,
    AddressDependent,
}

impl Place {
    /// The five whose table is the contract.
    pub const ALL: [Self; 5] =
        [Self::Public, Self::FullCone, Self::AddressRestricted, Self::PortRestricted, Self::Symmetric];

    /// The five and the others.
    pub const EVERY: [Self; 8] = [
        Self::Public,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::Sequential,
        Self::Block,
        Self::AddressDependent,
    ];

    /// The gateway's NAT; none for a public host.
    pub fn nat(self) -> Option<NatConfig> {
        match self {
            Self::Public => None,
            Self::FullCone => Some(NatConfig::full_cone()),
            Self::AddressRestricted => Some(NatConfig::address_restricted()),
            Self::PortRestricted => Some(NatConfig::port_restricted()),
            Self::Symmetric => Some(NatConfig::symmetric()),
            Self::Sequential => Some(NatConfig::symmetric_sequential()),
            Self::Block => Some(NatConfig::symmetric_block()),
            Self::AddressDependent => Some(NatConfig::address_dependent()),
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
            Self::Sequential => "symmetric, sequential",
            Self::Block => "symmetric, of a block",
            Self::AddressDependent => "address-dependent",
        })
    }
}

/// Whether two hosts behind these NATs can reach each other directly by plain punching, without a search for ports. A
/// side whose port changes cannot be named to the other beforehand; that is harmless unless the other admits only ports
/// that it has been told.
pub fn direct_is_possible(a: Option<NatConfig>, b: Option<NatConfig>) -> bool {
    let unnameable = |n: Option<NatConfig>| n.is_some_and(changes);
    let strict = |n: Option<NatConfig>| n.is_some_and(|n| n.filtering == Behaviour::AddressAndPortDependent);
    !(unnameable(a) && strict(b) || unnameable(b) && strict(a))
}

/// Whether a search for ports leads two hosts behind these NATs to each other, whatever they filter. If the port of one
/// side alone changes, that side opens many and the other tries until it meets one of them. If both change, both
/// ports of a pair must be met at once, which can be only where both are of few. Where none changes there is nothing to
/// search for.
pub fn direct_by_search_is_possible(a: Option<NatConfig>, b: Option<NatConfig>) -> bool {
    let few = |n: NatConfig| matches!(n.allocation, Allocation::Sequential | Allocation::Block { .. });
    match (a.filter(|n| changes(*n)), b.filter(|n| changes(*n))) {
        (Some(a), Some(b)) => few(a) && few(b),
        (a, b) => a.is_some() || b.is_some(),
    }
}

/// Whether the port differs from remote to remote, and is not simply the inner one.
fn changes(nat: NatConfig) -> bool {
    nat.mapping != Behaviour::EndpointIndependent && nat.allocation != Allocation::Preserving
}
