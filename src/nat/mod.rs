//! L0: what NATs do, in the words of RFC 4787; and a NAT to try things with ([`model`]).

mod allocation;
pub mod model;

use std::fmt;

pub use allocation::{Allocation, NextPorts, PORTS};

/// What a NAT's mapping or filtering depends on (RFC 4787 §4.1, §5): the stricter, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// Nothing about the other end.
    EndpointIndependent,
    /// The other end's address.
    AddressDependent,
    /// The other end's address and port.
    AddressAndPortDependent,
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        })
    }
}

/// Between which two a behaviour is: one and the same, if the servers could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// It is at least so strict…
    pub least: Behaviour,
    /// …and at most so.
    pub most: Behaviour,
}

impl Bounds {
    /// Any: nothing is known.
    pub const ANY: Self = Self { least: Behaviour::EndpointIndependent, most: Behaviour::AddressAndPortDependent };

    /// This one.
    pub const fn exactly(behaviour: Behaviour) -> Self {
        Self { least: behaviour, most: behaviour }
    }

    /// The behaviour, if it is known which.
    pub fn exact(&self) -> Option<Behaviour> {
        (self.least == self.most).then_some(self.least)
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exact() {
            Some(behaviour) => behaviour.fmt(f),
            None => write!(f, "{} or {}", self.least, self.most),
        }
    }
}

/// What is known of a NAT, and certain; `None`: it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Whether it translates at all; what does not may still filter.
    pub translates: Option<bool>,
    /// When a mapping is reused.
    pub mapping: Option<Behaviour>,
    /// Who may send to it.
    pub filtering: Option<Behaviour>,
    /// Whether who is inside reaches others inside by their address outside.
    pub hairpin: Option<bool>,
    /// Which port a mapping gets.
    pub allocation: Option<Allocation>,
}

impl Traits {
    /// Whether each destination sees another port of one socket, as far as that follows.
    pub fn changes_port(&self) -> Option<bool> {
        let same = self.translates == Some(false)
            || self.mapping == Some(Behaviour::EndpointIndependent)
            || self.allocation == Some(Allocation::Preserved);
        if same { Some(false) } else { self.mapping.map(|_| true) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviours_are_said_in_words_that_programs_can_rely_on() {
        let strict = Behaviour::AddressAndPortDependent;
        assert_eq!(Bounds::exactly(strict).to_string(), "address-and-port-dependent");
        assert_eq!(Bounds { most: Behaviour::AddressDependent, ..Bounds::ANY }.exact(), None);
        assert_eq!(Bounds::ANY.to_string(), "endpoint-independent or address-and-port-dependent");
    }
}
