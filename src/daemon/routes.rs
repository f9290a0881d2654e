//! The overlay's subnet held against this machine's routes: at the start, when it may refuse, and whenever a route comes
//! later, when it can only be told of.

use ipnet::Ipv4Net;

use super::run::Peer;
use super::{Failure, OTHER_SUBNET};
use crate::io::clock;
use crate::io::net::{Clash, Network};

/// Standing, while the subnet and a route overlap.
const WARNING: &str = "route-clash";

/// The overlay must not hide machines that are reached already. What it may only be warned of.
///
/// # Errors
/// It would, or the system does not say what routes it has.
pub(super) async fn at_start(net: &Network, subnet: Ipv4Net) -> Result<Option<Clash>, Failure> {
    match Clash::find(subnet, &net.routes().await?) {
        Some(clash) if clash.is_fatal() => Err(Failure::Failed(format!(
            "the overlay {subnet} {clash}. All members must use another subnet: {OTHER_SUBNET}"
        ))),
        clash => Ok(clash),
    }
}

impl<S> Peer<S> {
    /// Says how the subnet and a route overlap, or that none does any more.
    pub(super) fn tell_clash(&mut self, clash: Option<Clash>) {
        let Some(clash) = clash else { return self.node.clear_warning(WARNING, "") };
        let subnet = self.overlay.v4;
        let lost = match clash {
            Clash::Covers(_) => "members with addresses of that network",
            Clash::Inside(_) | Clash::Equal(_) => "machines of that network with addresses of the overlay",
        };
        let text = format!(
            "the overlay {subnet} {clash}: {lost} are not reached from here. Better another subnet: {OTHER_SUBNET}"
        );
        self.node.warn_of(clock::now(), WARNING, text);
    }

    /// A route came or went.
    pub(super) async fn look_at_routes(&mut self) {
        match self.net.routes().await {
            Ok(mut routes) => {
                routes.retain(|route| route.device.as_deref() != Some(self.tun.name()));
                self.tell_clash(Clash::find(self.overlay.v4, &routes));
            }
            Err(error) => tracing::debug!(%error, "the routes are not held against the subnet"),
        }
    }
}
