//! What an interface is, and what leads to it: for whoever looks for what stands in the way.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::RouteAttribute;

use super::netlink::{device, route, to_io};
use super::{NetError, Network};
use crate::io::doctor::machine::Interface;

impl Network {
    /// What the interface of this name is; `None`: there is none.
    ///
    /// # Errors
    /// [`NetError::List`].
    pub async fn facts(&self, name: &str) -> Result<Option<Interface>, NetError> {
        let links = self.handle.link().get().execute();
        let mut links = std::pin::pin!(links);
        while let Some(link) = links.try_next().await.map_err(|error| NetError::List(to_io(error)))? {
            if is_called(&link, name) {
                return Ok(Some(Interface { routes: self.leading_to(name).await?, ..facts(&link) }));
            }
        }
        Ok(None)
    }

    async fn leading_to(&self, name: &str) -> Result<Vec<(IpNet, u32)>, NetError> {
        let mut routes = Vec::new();
        for message in self.route_messages().await? {
            let Some(found) = route(&message).filter(|found| found.device.as_deref() == Some(name)) else { continue };
            let metric = message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Priority(metric) => Some(*metric),
                _ => None,
            });
            routes.push((found.net, metric.unwrap_or(0)));
        }
        routes.sort_unstable();
        routes.dedup();
        Ok(routes)
    }

    /// The name of the interface by which a socket that is bound to nothing sends to `ip`; `None`: it cannot.
    ///
    /// # Errors
    /// [`NetError::List`].
    pub async fn leads_by_name(&self, ip: IpAddr) -> Result<Option<String>, NetError> {
        Ok(self.leads_by(ip).await?.and_then(device))
    }
}

fn is_called(link: &LinkMessage, name: &str) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::IfName(text) if text == name))
}

fn facts(link: &LinkMessage) -> Interface {
    let has = |flag| link.header.flags.contains(flag);
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    Interface {
        up: has(LinkFlags::Up),
        broadcast: has(LinkFlags::Broadcast),
        multicast: has(LinkFlags::Multicast),
        point_to_point: has(LinkFlags::Pointopoint),
        mtu,
        routes: Vec::new(),
    }
}
