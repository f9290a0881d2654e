//! By which interface multicast of IPv6 leaves, if its sender names none.
//!
//! The kernel has one route for it for every interface that is up, all of one metric, and takes the one that came first.
//! After the LAN's cable was out for a moment that would be ours, and what programs send would no longer reach the LAN. So
//! ours has a metric of its own, behind all others. (Of IPv4 there is no such route: it goes where the default route goes.)

use std::net::Ipv6Addr;

use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType};

use super::Network;
use super::netlink::to_io;

/// Where the kernel has these routes: rtnetlink(7), `RT_TABLE_LOCAL`.
const LOCAL: u32 = 255;
const PREFIX_LEN: u8 = 8;
/// The kernel's metric for its routes of IPv6…
const KERNEL: u32 = 256;
/// …and ours.
const LAST: u32 = 4096;

impl Network {
    /// Puts the interface behind all others; to be done again whenever it has come up, or has got an address. Best effort.
    pub(super) async fn step_back(&self, index: u32) {
        if let Err(error) = self.handle.route().add(route(index, LAST)).replace().execute().await {
            return tracing::debug!(error = %to_io(error), "no route for multicast of IPv6");
        }
        if let Err(error) = self.handle.route().del(route(index, KERNEL)).execute().await {
            // It is gone already where this is not the first time.
            tracing::debug!(error = %to_io(error), "the kernel's own route for multicast of IPv6 is not taken away");
        }
    }
}

fn route(index: u32, metric: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), PREFIX_LEN)
        .output_interface(index)
        .table_id(LOCAL)
        .priority(metric)
        .protocol(RouteProtocol::Kernel)
        .kind(RouteType::Multicast)
        .build()
}

/// Whether a route is the kernel's own one for multicast by the interface `index`.
pub(super) fn is_kernels(route: &RouteMessage, index: u32) -> bool {
    route.header.kind == RouteType::Multicast
        && route.header.destination_prefix_length == PREFIX_LEN
        && route.attributes.contains(&RouteAttribute::Oif(index))
        && route.attributes.contains(&RouteAttribute::Priority(KERNEL))
}
