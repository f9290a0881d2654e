//! Whether the overlay's subnet is free on this machine.
//!
//! Two prefixes that overlap are equal, or one is inside the other. The overlay's subnet may not equal a
//! route that is there, nor be inside one: the machines behind that route would vanish behind the overlay.
//! The other way round (a smaller route inside the overlay) only the overlay addresses behind that route
//! are lost, which is a warning. Default routes lead everywhere and clash with nothing; so do the two
//! halves that some VPNs put in their place.

use std::fmt;

use ipnet::{IpNet, Ipv4Net};

/// A prefix this short is a default route, or half of one.
const DEFAULT_PREFIX_LEN: u8 = 1;

/// A route of this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where it leads.
    pub net: IpNet,
    /// The interface it leads through, if it leads through one.
    pub device: Option<String>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            Some(device) => write!(f, "{} (interface {device})", self.net),
            None => write!(f, "{}", self.net),
        }
    }
}

/// How a route and the overlay's subnet overlap; from bad to worse.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clash {
    /// The subnet contains the route: overlay addresses behind it are not reached. A warning.
    Covers(Route),
    /// The subnet is inside the route. Refused.
    Inside(Route),
    /// The subnet is the route. Refused.
    Equal(Route),
}

impl Clash {
    /// The worst clash of `subnet` with any of `routes`.
    pub fn find(subnet: Ipv4Net, routes: &[Route]) -> Option<Self> {
        routes.iter().filter_map(|route| Self::between(subnet, route)).max()
    }

    fn between(subnet: Ipv4Net, route: &Route) -> Option<Self> {
        let IpNet::V4(net) = route.net else { return None };
        let (subnet, net) = (subnet.trunc(), net.trunc());
        if net.prefix_len() <= DEFAULT_PREFIX_LEN {
            None
        } else if net == subnet {
            Some(Self::Equal(route.clone()))
        } else if net.contains(&subnet) {
            Some(Self::Inside(route.clone()))
        } else if subnet.contains(&net) {
            Some(Self::Covers(route.clone()))
        } else {
            None
        }
    }

    /// Whether the overlay must not come up.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Covers(_))
    }

    /// The route.
    pub fn route(&self) -> &Route {
        match self {
            Self::Covers(route) | Self::Inside(route) | Self::Equal(route) => route,
        }
    }
}

/// What is wrong, as the end of a sentence that begins with the subnet: `10.77.0.0/24 …`.
impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(route) => write!(f, "is already in use here: route {route}"),
            Self::Inside(route) => write!(f, "is inside a network that is already in use here: route {route}"),
            Self::Covers(route) => {
                write!(
                    f,
                    "contains a network that is already in use here, whose addresses it cannot have: route {route}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(net: &str) -> Route {
        Route { net: net.parse().expect("prefix"), device: Some("eth0".into()) }
    }

    fn find(routes: &[&str]) -> Option<Clash> {
        let routes: Vec<Route> = routes.iter().map(|net| route(net)).collect();
        Clash::find("10.77.0.0/24".parse().expect("subnet"), &routes)
    }

    #[test]
    fn equal_and_covering_routes_are_refused_and_smaller_ones_warned_of() {
        assert_eq!(find(&["10.77.0.0/24"]), Some(Clash::Equal(route("10.77.0.0/24"))));
        assert_eq!(find(&["10.0.0.0/8"]), Some(Clash::Inside(route("10.0.0.0/8"))));
        assert_eq!(find(&["10.77.0.128/25"]), Some(Clash::Covers(route("10.77.0.128/25"))));
        assert!(find(&["10.77.0.0/24"]).is_some_and(|clash| clash.is_fatal()));
        assert!(find(&["10.64.0.0/10"]).is_some_and(|clash| clash.is_fatal()));
        assert!(find(&["10.77.0.9/32"]).is_some_and(|clash| !clash.is_fatal()));
    }

    #[test]
    fn the_worst_clash_is_the_one_told() {
        let clash = find(&["10.77.0.4/32", "10.77.0.0/24", "10.0.0.0/8"]);
        assert_eq!(clash, Some(Clash::Equal(route("10.77.0.0/24"))));
        let text = clash.map(|clash| clash.to_string());
        assert_eq!(text.as_deref(), Some("is already in use here: route 10.77.0.0/24 (interface eth0)"));
    }

    #[test]
    fn default_routes_neighbours_and_ipv6_clash_with_nothing() {
        assert_eq!(find(&["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.77.1.0/24", "::/0", "fd00::/8"]), None);
        assert_eq!(find(&[]), None);
    }
}
