//! When this machine's network changes: an address or a route came or went. What came is not told; who
//! hears of a change looks anew.

use std::io;
use std::time::Duration;

/// Changes come in bursts; this long is waited for the rest of one.
const SETTLE: Duration = Duration::from_millis(200);

/// Tells of changes from the moment it was made.
#[derive(Debug)]
pub struct Changes(imp::Changes);

impl Changes {
    /// Starts to watch. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn watch() -> io::Result<Self> {
        imp::Changes::watch().map(Self)
    }

    /// Waits for the next burst of changes and until it is over. May be dropped and called again at any
    /// time. On an interface of ours nothing counts as a change.
    ///
    /// # Errors
    /// The system no longer tells.
    pub async fn next(&mut self) -> io::Result<()> {
        self.0.next().await
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io;

    use futures_util::StreamExt as _;
    use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
    use rtnetlink::packet_route::RouteNetlinkMessage;
    use rtnetlink::packet_route::route::RouteAttribute;
    use rtnetlink::sys::SocketAddr;
    use rtnetlink::{MulticastGroup, new_multicast_connection};

    use super::SETTLE;
    use crate::io::interfaces::is_ours;

    type Messages = dyn futures_util::Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Send + Unpin;

    pub(super) struct Changes {
        messages: Box<Messages>,
        /// Keeps the connection open.
        _handle: rtnetlink::Handle,
    }

    impl std::fmt::Debug for Changes {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Changes")
        }
    }

    impl Changes {
        pub(super) fn watch() -> io::Result<Self> {
            use MulticastGroup::{Ipv4Ifaddr, Ipv4Route, Ipv6Ifaddr, Ipv6Route};
            let (connection, handle, messages) =
                new_multicast_connection(&[Ipv4Ifaddr, Ipv6Ifaddr, Ipv4Route, Ipv6Route])?;
            tokio::spawn(connection);
            Ok(Self { messages: Box::new(messages), _handle: handle })
        }

        pub(super) async fn next(&mut self) -> io::Result<()> {
            loop {
                match self.messages.next().await {
                    Some((message, _)) if is_change(&message) => break,
                    Some(_) => {}
                    None => return Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
            while let Ok(Some(_)) = tokio::time::timeout(SETTLE, self.messages.next()).await {}
            Ok(())
        }
    }

    /// Whether a message is of another interface than ours.
    fn is_change(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
        let NetlinkPayload::InnerMessage(inner) = &message.payload else { return false };
        let index = match inner {
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                Some(address.header.index)
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                })
            }
            _ => return false,
        };
        index.and_then(super::super::netlink::device).is_none_or(|name| !is_ours(&name))
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;
    use std::time::Duration;

    use ipnet::IpNet;

    use crate::io::interfaces;

    /// These systems are asked again and again.
    const PAUSE: Duration = Duration::from_secs(3);

    #[derive(Debug)]
    pub(super) struct Changes {
        seen: Vec<IpNet>,
    }

    impl Changes {
        pub(super) fn watch() -> io::Result<Self> {
            Ok(Self { seen: interfaces::list(&[])? })
        }

        pub(super) async fn next(&mut self) -> io::Result<()> {
            loop {
                tokio::time::sleep(PAUSE).await;
                let now = interfaces::list(&[])?;
                if now != self.seen {
                    self.seen = now;
                    tokio::time::sleep(super::SETTLE).await;
                    return Ok(());
                }
            }
        }
    }
}
