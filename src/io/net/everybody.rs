//! A way for what is for many where this machine has none: without a default route the system refuses to send to everybody,
//! and to join groups, for whoever names no interface. So long they lead to ours, and from there to the LANs too
//! ([`crate::io::multicast`]). These routes, like all of ours, vanish with the interface.

use std::io;
use std::net::Ipv4Addr;

use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};

use super::netlink::{ON_THE_INTERNET, to_io};
use super::{NetError, Network};

/// The limited broadcast, and all groups of IPv4.
const EVERYBODY: [(Ipv4Addr, u8); 2] = [(Ipv4Addr::BROADCAST, 32), (Ipv4Addr::new(224, 0, 0, 0), 4)];

impl Network {
    /// Whether a default route leads from this machine to somewhere.
    ///
    /// # Errors
    /// [`NetError::List`].
    pub async fn has_way_out(&self) -> Result<bool, NetError> {
        Ok(self.leads_by(ON_THE_INTERNET.into()).await?.is_some())
    }

    /// Has what is for many lead to the interface of this index, or no longer. Whoever has such a route already keeps it.
    ///
    /// # Errors
    /// The system refused it.
    pub async fn lead_everybody(&self, index: u32, here: bool) -> io::Result<()> {
        for (to, prefix_len) in EVERYBODY {
            let (route, routes) = (route(to, prefix_len, index), self.handle.route());
            let (changed, is_so) = match here {
                true => (routes.add(route).execute().await, nix::libc::EEXIST),
                false => (routes.del(route).execute().await, nix::libc::ESRCH),
            };
            match changed.map_err(to_io) {
                Err(error) if error.raw_os_error() != Some(is_so) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn route(to: Ipv4Addr, prefix_len: u8, index: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to, prefix_len)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build()
}
