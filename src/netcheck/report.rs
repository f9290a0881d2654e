//! What a check found.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::nat::{Allocation, Bounds, Traits};

/// Something that was to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding<T> {
    /// It was.
    Known(T),
    /// It could not be, and why.
    Unknown(String),
}

impl<T> Finding<T> {
    /// What is known.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Why it is not.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(why) => Some(why),
        }
    }

    pub(super) fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown(why.into())
    }
}

/// How long a mapping lives in silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// After so long it was still there…
    pub least: Duration,
    /// …and after so long not any more; `None`: nobody waited for so long.
    pub most: Option<Duration>,
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.least.as_secs();
        match self.most {
            Some(most) => write!(f, "{least} to {} s", most.as_secs()),
            None => write!(f, "{least} s or longer"),
        }
    }
}

/// What IPv6 is good for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// The machine has this address, and the world sees it.
    Public(IpAddr),
    /// The world sees another than the machine has.
    Translated(IpAddr),
    /// Servers were asked by it and none answered.
    Silent,
}

/// A server that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where.
    pub server: SocketAddr,
    /// How long its answer took, if it came.
    pub rtt: Option<Duration>,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The servers, in the order of the plan.
    pub servers: Vec<Asked>,
    /// Whether UDP passes: some server answered.
    pub udp: Finding<bool>,
    /// Our IPv4 address and port outside, as the best of the servers saw our first socket.
    pub ipv4: Finding<SocketAddr>,
    /// What IPv6 is good for.
    pub ipv6: Finding<Ipv6>,
    /// Whether IPv4 addresses are translated: there is a NAT.
    pub translates: Finding<bool>,
    /// When a mapping is reused; unknown where nothing is translated.
    pub mapping: Finding<Bounds>,
    /// Who may send to it.
    pub filtering: Finding<Bounds>,
    /// Which port it gets.
    pub allocation: Finding<Allocation>,
    /// Whether our own address outside leads back to us.
    pub hairpin: Finding<bool>,
    /// How long a mapping lives in silence.
    pub lifetime: Finding<Lifetime>,
}

impl Report {
    /// What of it is a property of the NAT, and certain.
    pub fn traits(&self) -> Traits {
        let exact = |found: &Finding<Bounds>| found.known().and_then(Bounds::exact);
        Traits {
            translates: self.translates.known().copied(),
            mapping: exact(&self.mapping),
            filtering: exact(&self.filtering),
            hairpin: self.hairpin.known().copied(),
            allocation: self.allocation.known().copied(),
        }
    }

    /// As it is where nothing could be found out.
    pub(super) fn nothing(servers: Vec<Asked>, why: &str) -> Self {
        Self {
            servers,
            udp: Finding::unknown(why),
            ipv4: Finding::unknown(why),
            ipv6: Finding::unknown(why),
            translates: Finding::unknown(why),
            mapping: Finding::unknown(why),
            filtering: Finding::unknown(why),
            allocation: Finding::unknown(why),
            hairpin: Finding::unknown(why),
            lifetime: Finding::unknown(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_said_with_what_is_known_of_it() {
        let lifetime = Lifetime { least: Duration::from_secs(30), most: Some(Duration::from_secs(45)) };
        assert_eq!(lifetime.to_string(), "30 to 45 s");
        assert_eq!(Lifetime { most: None, ..lifetime }.to_string(), "30 s or longer");
    }
}
