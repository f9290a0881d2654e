//! UPnP Internet Gateway Device (`WANIPConnection`, `WANPPPConnection`), by the crate `igd-next`.
//!
//! The router is searched by multicast (SSDP), which anybody on the LAN may answer: only the router that leads to the
//! internet is believed. The crate lets a description lead to no other machine than the one that answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddAnyPortError, AddPortError, PortMappingProtocol, SearchError, SearchOptions};
use tokio::time::timeout;

use super::{Inside, LEASE_SECONDS, Place, Refusal, external, outside};
use crate::sans::{MappingProtocol, Transport};

/// A device may take 3 s to answer a search (the `MX` that the crate sends), and then has to describe itself.
const SEARCH: Duration = Duration::from_millis(4_500);
/// Where devices listen for searches (UPnP Device Architecture 1.1 §1.3).
const EVERYBODY: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const SSDP_PORT: u16 = 1900;
/// All questions to a router that was found. Some take seconds for each.
const PATIENCE: Duration = Duration::from_secs(12);
/// What the router's own list calls the mapping.
const DESCRIPTION: &str = "punchlan";
/// No end. Some routers know no other.
const PERMANENT: u32 = 0;

/// A mapping by UPnP.
#[derive(Clone, Debug)]
pub(super) struct Upnp {
    pub(super) inside: Inside,
    gateway: Gateway<Tokio>,
    external: SocketAddr,
    lease: u32,
}

impl Upnp {
    /// Searches the router and asks it.
    pub(super) async fn ask(inside: Inside) -> Result<Self, Refusal> {
        Self::map(find(inside.place).await?, inside, outside(inside.port).get()).await
    }

    /// Whether the router speaks UPnP and knows its address outside, as one that would map ports does.
    pub(super) async fn offers(place: Place) -> Result<Option<Ipv4Addr>, Refusal> {
        let gateway = find(place).await?;
        match timeout(PATIENCE, gateway.get_external_ip()).await {
            Ok(answer) => match answer.map_err(Refusal::said)? {
                IpAddr::V4(outside) => Ok(Some(outside)),
                IpAddr::V6(_) => Ok(None),
            },
            Err(_) => Err(too_late()),
        }
    }

    /// Asks the same router again; nothing, if it does not agree.
    pub(super) async fn ask_alike(&self, inside: Inside) -> Option<Self> {
        let wanted = if self.inside == inside { self.external.port() } else { outside(inside.port).get() };
        Self::map(self.gateway.clone(), inside, wanted).await.ok()
    }

    async fn map(gateway: Gateway<Tokio>, inside: Inside, wanted: u16) -> Result<Self, Refusal> {
        let asked = async {
            let ip = gateway.get_external_ip().await.map_err(Refusal::said)?;
            let (port, lease) = add(&gateway, inside, wanted).await?;
            Ok((external(ip, port), lease))
        };
        match timeout(PATIENCE, asked).await {
            Ok(mapped) => mapped.map(|(external, lease)| Self { inside, gateway, external, lease }),
            Err(_) => Err(too_late()),
        }
    }

    /// Protocol, address outside, time, epoch.
    pub(super) fn describe(&self) -> (MappingProtocol, SocketAddr, Option<Duration>, Option<u32>) {
        let lifetime = (self.lease != PERMANENT).then(|| Duration::from_secs(self.lease.into()));
        (MappingProtocol::Upnp, self.external, lifetime, None)
    }

    /// Gives it back.
    pub(super) async fn release(self) -> Result<(), String> {
        let removed = self.gateway.remove_port(protocol(self.inside.transport), self.external.port()).await;
        removed.map_err(|error| error.to_string())
    }
}

const fn protocol(transport: Transport) -> PortMappingProtocol {
    match transport {
        Transport::Udp => PortMappingProtocol::UDP,
        Transport::Tcp => PortMappingProtocol::TCP,
    }
}

fn too_late() -> Refusal {
    Refusal::Said(format!("no end after {} s", PATIENCE.as_secs()))
}

/// The router of this place.
async fn find(place: Place) -> Result<Gateway<Tokio>, Refusal> {
    let the_router = |found: &Gateway<Tokio>| found.addr.ip() == IpAddr::V4(place.gateway);
    let mut gateway = search(place, EVERYBODY).await?;
    if !the_router(&gateway) {
        // Another device was quicker (an access point that could be a router, say). The crate takes the first.
        gateway = search(place, place.gateway).await?;
    }
    if !the_router(&gateway) {
        return Err(Refusal::said(format!("only {} answers, which is another machine", gateway.addr.ip())));
    }
    Ok(gateway)
}

/// Searches among those that hear what is sent to `whom`.
async fn search(place: Place, whom: Ipv4Addr) -> Result<Gateway<Tokio>, Refusal> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::new(place.local.into(), 0);
    options.broadcast_address = SocketAddr::new(whom.into(), SSDP_PORT);
    options.timeout = Some(SEARCH);
    options.single_search_timeout = Some(SEARCH);
    search_gateway(options).await.map_err(|error| match error {
        SearchError::NoResponseWithinTimeout | SearchError::IoError(_) => Refusal::Absent,
        said => Refusal::said(said),
    })
}

/// Asks for `wanted`, or any other port if somebody has that; for an hour, or for ever if the router knows nothing
/// else. The port outside, and the time in seconds.
async fn add(gateway: &Gateway<Tokio>, inside: Inside, wanted: u16) -> Result<(u16, u32), Refusal> {
    let protocol = protocol(inside.transport);
    let local = SocketAddr::new(inside.place.local.into(), inside.port.get());
    for lease in [LEASE_SECONDS, PERMANENT] {
        match gateway.add_port(protocol, wanted, local, lease, DESCRIPTION).await {
            Ok(()) => return Ok((wanted, lease)),
            Err(AddPortError::OnlyPermanentLeasesSupported) if lease != PERMANENT => continue,
            Err(AddPortError::PortInUse | AddPortError::SamePortValuesRequired) => {}
            Err(error) => return Err(Refusal::said(error)),
        }
        match gateway.add_any_port(protocol, local, lease, DESCRIPTION).await {
            Ok(port) => return Ok((port, lease)),
            Err(AddAnyPortError::OnlyPermanentLeasesSupported) if lease != PERMANENT => {}
            Err(error) => return Err(Refusal::said(error)),
        }
    }
    Err(Refusal::Said("it takes neither leases nor permanent mappings".to_owned()))
}
