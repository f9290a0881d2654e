//! What others change of our interface while we run, and what follows.
//!
//! - It was taken down and up again, or given an address: the kernel has made its own route for multicast again, and the
//!   interface has to step back again ([`super::multicast`]).
//! - It has another hardware address: packets are written to that one from now on. Some systems give one to every new
//!   interface, and may do so in the moment after we gave it ours; what is written to an address that it does not have is
//!   nobody's.

use std::io;
use std::sync::Weak;

use futures_util::StreamExt as _;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{MulticastGroup, new_multicast_connection};

use super::multicast;
use super::netlink::{Network, hardware_address};
use crate::io::tun::Tun;

/// Follows changes of the interface until it is gone. Must be called inside a tokio runtime.
///
/// # Errors
/// The system does not tell.
pub async fn keep(tun: Weak<Tun>) -> io::Result<()> {
    let (connection, handle, mut messages) =
        new_multicast_connection(&[MulticastGroup::Link, MulticastGroup::Ipv6Route])?;
    tokio::spawn(connection);
    let network = Network { handle };
    while let Some((message, _)) = messages.next().await {
        let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
        let Some(tun) = tun.upgrade() else { break };
        match message {
            RouteNetlinkMessage::NewRoute(route) if multicast::is_kernels(&route, tun.index()) => {
                network.step_back(tun.index()).await;
            }
            RouteNetlinkMessage::NewLink(link) if link.header.index == tun.index() => {
                hardware_address(&link).into_iter().for_each(|address| tun.set_hardware_address(address));
            }
            _ => {}
        }
    }
    Ok(())
}
