//! Which protocols a router maps ports by, found out without a mapping being made.

use std::net::Ipv4Addr;

use super::control::Control;
use super::{Place, Refusal, find_place};
use crate::sans::MappingProtocol;

/// What the router in front of this machine offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offers {
    /// The router.
    pub gateway: Ipv4Addr,
    /// What it says by each protocol.
    pub protocols: Vec<(MappingProtocol, Offer)>,
}

/// What a router says by a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It would map ports.
    Yes {
        /// The address that it says it has outside, where the protocol tells without a mapping.
        outside: Option<Ipv4Addr>,
    },
    /// It speaks the protocol, and would not; in its words.
    No(String),
    /// It does not speak it.
    Absent,
}

impl Offers {
    /// The protocols by which it would map ports.
    pub fn agreed(&self) -> impl Iterator<Item = MappingProtocol> {
        self.protocols.iter().filter(|(_, offer)| matches!(offer, Offer::Yes { .. })).map(|(protocol, _)| *protocol)
    }

    /// The address that the router says it has outside, by whatever protocol says so.
    pub fn outside(&self) -> Option<Ipv4Addr> {
        self.protocols.iter().find_map(|(_, offer)| if let Offer::Yes { outside } = offer { *outside } else { None })
    }
}

/// Asks the router by all protocols at once; takes some seconds. Must be called inside a tokio runtime.
///
/// # Errors
/// A sentence: there is no router, or it is not known.
pub async fn offers() -> Result<Offers, String> {
    let place = find_place().await?;
    // Should a crate panic over an answer, that is an answer too.
    let pcp = tokio::spawn(Control::offers_pcp(place));
    let nat_pmp = tokio::spawn(Control::offers_nat_pmp(place));
    let upnp = tokio::spawn(offers_upnp(place));
    let mut protocols = Vec::new();
    for (protocol, task) in
        [(MappingProtocol::Pcp, pcp), (MappingProtocol::NatPmp, nat_pmp), (MappingProtocol::Upnp, upnp)]
    {
        let said = task.await.unwrap_or_else(|_| Err(Refusal::Said("its answer could not be read".to_owned())));
        protocols.push((protocol, said.into()));
    }
    Ok(Offers { gateway: place.gateway, protocols })
}

#[cfg(feature = "upnp")]
async fn offers_upnp(place: Place) -> Result<Option<Ipv4Addr>, Refusal> {
    super::Upnp::offers(place).await
}

#[cfg(not(feature = "upnp"))]
async fn offers_upnp(_place: Place) -> Result<Option<Ipv4Addr>, Refusal> {
    Err(Refusal::Absent)
}

impl From<Result<Option<Ipv4Addr>, Refusal>> for Offer {
    fn from(said: Result<Option<Ipv4Addr>, Refusal>) -> Self {
        match said {
            Ok(outside) => Self::Yes { outside },
            Err(Refusal::Absent) => Self::Absent,
            Err(Refusal::Said(words)) => Self::No(words),
        }
    }
}
