//! Whether a gateway does what its name says: looked at from outside, before anybody draws conclusions from it.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::probe::{Findings, Reflectors};
use super::programs::{PORT, WEB_PORT};
use super::{Gateway, Host, Lab, RENDEZVOUS, SitePlan};
use crate::io::portmap;
use crate::sans::MappingProtocol;

/// What has not passed by then does not.
const PASSES: Duration = Duration::from_millis(500);
/// So much before and after its end a mapping is looked at: the kernel counts in seconds.
const MARGIN: Duration = Duration::from_secs(4);

/// What was found of a gateway.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Its name.
    pub name: String,
    /// What it does; `null`: it could not be looked at, or lets no UDP through, by which it is measured.
    pub found: Option<Findings>,
    /// What is not as its name says; `null`: nothing.
    pub wrong: Option<String>,
}

/// Builds a lab with this one site and looks.
pub fn verify(site: SitePlan) -> Verified {
    let (found, wrong) = match look(site) {
        Ok(seen) => seen,
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    Verified { name: site.to_string(), found, wrong }
}

fn look(site: SitePlan) -> Result<(Option<Findings>, Option<String>)> {
    let lab = Lab::new(&[site])?;
    if Gateway::BLOCKED.contains(&site.gateway()) {
        return Ok((None, wrongly_open(&lab, site.gateway())?));
    }
    let reflectors = if site.has_ipv4() { Reflectors::start(&lab) } else { Reflectors::start_v6(&lab) }?;
    let (host, gateway, expected) = (lab.host(0), site.gateway(), site.gateway().findings());
    let found = reflectors.measure(host)?;
    if found != expected {
        return Ok((Some(found), Some(format!("expected was: {expected}"))));
    }
    let wrong = match wrong_lifetime(gateway, &reflectors, host)? {
        None => wrong_offer(gateway, host)?,
        wrong => wrong,
    };
    Ok((Some(found), wrong))
}

/// Of a router that lets no UDP through: what passes, and should not, or the other way round.
fn wrongly_open(lab: &Lab, gateway: Gateway) -> Result<Option<String>> {
    let [any, web] = [PORT, WEB_PORT].map(|port| SocketAddr::from((RENDEZVOUS, port)));
    let bind = || Ok((UdpSocket::bind(any)?, TcpListener::bind(any)?, TcpListener::bind(web)?));
    let (udp, _any, _web) = lab.rendezvous.enter(bind)?.map_err(|error: io::Error| error)?;
    udp.set_read_timeout(Some(PASSES))?;
    let connects = |to| lab.host(0).netns.enter(move || TcpStream::connect_timeout(&to, PASSES).is_ok());
    lab.host(0).netns.enter(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"does it pass?", any))??;
    let passes = [udp.recv(&mut [0; 16]).is_ok(), connects(any)?, connects(web)?];
    let expected = [false, gateway == Gateway::UdpBlocked, true];
    Ok((passes != expected)
        .then(|| format!("of UDP, TCP and TCP to port {WEB_PORT} there pass: {passes:?}; expected was {expected:?}")))
}

/// A mapping that must end soon does so, and not much sooner.
fn wrong_lifetime(gateway: Gateway, reflectors: &Reflectors, host: &Host) -> Result<Option<String>> {
    let Some(lifetime) = gateway.lifetime() else { return Ok(None) };
    let after = |silence| reflectors.outlives(host, silence);
    Ok(if !after(lifetime.saturating_sub(MARGIN))? {
        Some(format!("a mapping lives for less than {lifetime:?}"))
    } else if after(lifetime + MARGIN)? {
        Some(format!("a mapping lives for more than {lifetime:?}"))
    } else {
        None
    })
}

/// A router that maps ports says so when it is asked, by the protocols that it must speak.
fn wrong_offer(gateway: Gateway, host: &Host) -> Result<Option<String>> {
    use super::mapper::Offer;
    let expected: &[MappingProtocol] = match gateway.offer() {
        None => return Ok(None),
        Some(Offer::Upnp) => &[MappingProtocol::Upnp],
        Some(Offer::Control) => &[MappingProtocol::Pcp, MappingProtocol::NatPmp],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no event loop")?;
    let offers = host.netns.enter(|| runtime.block_on(portmap::offers()))?.map_err(anyhow::Error::msg)?;
    let agreed: Vec<MappingProtocol> = offers.agreed().collect();
    Ok((agreed != expected).then(|| format!("it maps ports by {agreed:?}, expected was {expected:?}")))
}
