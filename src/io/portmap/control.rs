//! PCP (RFC 6887) and its forerunner NAT-PMP (RFC 6886), by the crate `crab_nat`.
//!
//! The crate's own `renew` asks for the time that was granted last, and panics if that was none; so what is renewed is
//! asked for as it was at first, with what was granted as a suggestion.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{InternetProtocol, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp};

use super::{Inside, LEASE_SECONDS, Place, Refusal, entropy, external, outside};
use crate::sans::{MappingProtocol, Transport};

/// A router that speaks the protocol answers within milliseconds; a datagram may be lost. 3.75 s in all…
const FIRST: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 3,
    max_retry_timeout: Some(Duration::from_secs(2)),
};
/// …and 1.75 s where a router was silent before, or is to renew what it gave.
const AGAIN: TimeoutConfig = TimeoutConfig { max_retries: 2, ..FIRST };
/// 0.7 s, for the end.
const LAST: TimeoutConfig =
    TimeoutConfig { initial_timeout: Duration::from_millis(100), max_retries: 2, max_retry_timeout: None };

/// Ports that belong to no service (RFC 6335 §6): to one drawn from them hardly anybody has anything mapped, as some have
/// to port 9, by which machines are woken.
const DYNAMIC: u16 = 49_152;

/// A mapping by one of the two.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) inside: Inside,
    mapping: crab_nat::PortMapping,
    external: SocketAddr,
}

impl Control {
    /// Asks by PCP; as in `before`, if that can be.
    pub(super) async fn by_pcp(inside: Inside, nonce: pcp::Nonce, before: Option<&Self>) -> Result<Self, Refusal> {
        let Inside { place, transport, port } = inside;
        let base = pcp::BaseMapRequest::new(place.gateway.into(), place.local.into(), protocol(transport), port);
        let address = before.map(|before| before.external.ip());
        let mapping = pcp::port_mapping(base, Some(nonce), address, options(inside, before)).await;
        let mapping = mapping.map_err(pcp_refusal)?;
        let ip = match mapping.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => external_ip,
            PortMappingType::NatPmp => return Err(Refusal::Absent),
        };
        Ok(Self::new(inside, mapping, ip))
    }

    /// Asks by NAT-PMP; as in `before`, if that can be.
    pub(super) async fn by_nat_pmp(inside: Inside, before: Option<&Self>) -> Result<Self, Refusal> {
        let Inside { place, transport, port } = inside;
        let gateway = place.gateway.into();
        let ip = natpmp::external_address(gateway, Some(AGAIN)).await.map_err(nat_pmp_refusal)?;
        let mapping = natpmp::port_mapping(gateway, protocol(transport), port, options(inside, before)).await;
        Ok(Self::new(inside, mapping.map_err(nat_pmp_refusal)?, ip.into()))
    }

    /// Whether the router speaks PCP, by giving back what it never gave: that succeeds, and with a nonce that nobody has
    /// it changes nothing (RFC 6887 §15).
    pub(super) async fn offers_pcp(place: Place) -> Result<Option<Ipv4Addr>, Refusal> {
        let nonce = [(); 3].map(|()| u32::from_be_bytes(entropy::bytes()));
        let internal_port =
            NonZeroU16::new(DYNAMIC | u16::from_be_bytes(entropy::bytes())).expect("no less than DYNAMIC");
        let nothing = pcp::DropMappingRange::Single { protocol: InternetProtocol::Udp, internal_port };
        let (gateway, client) = (place.gateway.into(), place.local.into());
        match pcp::try_drop_mapping(gateway, client, nonce, nothing, Some(AGAIN)).await {
            // That there is no such mapping some routers (miniupnpd) say in these words.
            Ok(()) | Err(pcp::Failure::NoResources(_)) => Ok(None),
            Err(error) => Err(pcp_refusal(error)),
        }
    }

    /// Whether the router speaks NAT-PMP, by asking for its address outside.
    pub(super) async fn offers_nat_pmp(place: Place) -> Result<Option<Ipv4Addr>, Refusal> {
        natpmp::external_address(place.gateway.into(), Some(AGAIN)).await.map(Some).map_err(nat_pmp_refusal)
    }

    fn new(inside: Inside, mapping: crab_nat::PortMapping, ip: IpAddr) -> Self {
        let external = external(ip, mapping.external_port().get());
        Self { inside, mapping, external }
    }

    /// Asks by the same protocol; nothing, if the router does not agree.
    pub(super) async fn ask_alike(&self, inside: Inside, nonce: pcp::Nonce) -> Option<Self> {
        match self.mapping.mapping_type() {
            PortMappingType::Pcp { .. } => Self::by_pcp(inside, nonce, Some(self)).await.ok(),
            PortMappingType::NatPmp => Self::by_nat_pmp(inside, Some(self)).await.ok(),
        }
    }

    /// Protocol, address outside, time, epoch.
    pub(super) fn describe(&self) -> (MappingProtocol, SocketAddr, Option<Duration>, Option<u32>) {
        let protocol = match self.mapping.mapping_type() {
            PortMappingType::Pcp { .. } => MappingProtocol::Pcp,
            PortMappingType::NatPmp => MappingProtocol::NatPmp,
        };
        let lifetime = Duration::from_secs(self.mapping.lifetime().into());
        (protocol, self.external, Some(lifetime), Some(self.mapping.gateway_epoch()))
    }

    /// Gives it back.
    pub(super) async fn release(mut self) -> Result<(), String> {
        self.mapping.timeout_config = LAST;
        self.mapping.try_drop().await.map_err(|(error, _)| error.to_string())
    }
}

fn protocol(transport: Transport) -> InternetProtocol {
    match transport {
        Transport::Udp => InternetProtocol::Udp,
        Transport::Tcp => InternetProtocol::Tcp,
    }
}

fn pcp_refusal(error: pcp::Failure) -> Refusal {
    match error {
        pcp::Failure::Socket(_) | pcp::Failure::Timeout | pcp::Failure::UnsupportedVersion(_) => Refusal::Absent,
        said => Refusal::said(said),
    }
}

fn nat_pmp_refusal(error: natpmp::Failure) -> Refusal {
    match error {
        natpmp::Failure::Socket(_) | natpmp::Failure::Timeout | natpmp::Failure::UnsupportedVersion(_) => {
            Refusal::Absent
        }
        said => Refusal::said(said),
    }
}

/// The port outside is the [same each time](outside), if that is free: then it stays what it is when the router forgets.
fn options(inside: Inside, before: Option<&Control>) -> PortMappingOptions {
    let same = before.filter(|before| before.inside == inside);
    PortMappingOptions {
        external_port: Some(same.map_or(outside(inside.port), |same| same.mapping.external_port())),
        lifetime_seconds: Some(LEASE_SECONDS),
        timeout_config: Some(if before.is_some() { AGAIN } else { FIRST }),
    }
}
