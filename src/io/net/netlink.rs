//! The interface's addresses, MTU and state, and this machine's routes, by rtnetlink.
//!
//! The subnet's route comes with the address: the kernel adds it for the address' prefix.
//!
//! Programs see an Ethernet interface like others, but nobody asks there for anybody's address: it is NOARP from before it is
//! up, so that there is neither ARP nor neighbour discovery. Its hardware address follows from its link-local one.
//!
//! The interface is shielded from its peers: the kernel makes no link-local address of its own, asks for
//! no router, and believes neither router advertisements nor redirects, which any member could send.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use ipnet::{IpNet, Ipv4Net};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{AddressMessageBuilder, Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::{Addresses, NetError, Route};
use crate::io::interfaces;
use crate::io::tun::{Tun, ethernet};

/// How often, and after what pauses, a new address is looked at until it works: 2 s in all. It takes some
/// milliseconds at most.
const SETTLE_LOOKS: u32 = 1000;
const SETTLE_PAUSE: Duration = Duration::from_millis(2);

/// The machine's network settings. Cheap to make: open one where it is needed.
#[derive(Debug)]
pub struct Network {
    pub(super) handle: Handle,
}

impl Network {
    /// Opens a netlink socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`NetError::Access`].
    pub fn open() -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetError::Access)?;
        // Ends by itself when the handle is dropped.
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Gives the interface its MTU and addresses, that of the hardware included, and brings it up. Says whether it has
    /// IPv6: a machine on which IPv6 is switched off for good is no error.
    ///
    /// # Errors
    /// [`NetError::Link`], [`NetError::Address`].
    pub async fn configure(&self, tun: &Tun, mtu: u16, addresses: &Addresses) -> Result<bool, NetError> {
        shield(tun.name());
        let has_v6 = self.stop_kernel_addresses(tun).await;
        self.set_link(tun, link(tun).mtu(u32::from(mtu)).txqueuelen(QUEUE).arp(false)).await?;
        if let Some(v6) = addresses.v6.iter().find(|v6| v6.addr().is_unicast_link_local()) {
            self.set_link(tun, link(tun).address(ethernet::address(v6.addr()).to_vec())).await?;
        }
        self.set_link(tun, link(tun).up()).await?;
        self.learn_hardware_address(tun).await?;
        if let Some(v4) = addresses.v4 {
            self.add(tun, v4.into()).await?;
        }
        if !has_v6 {
            return Ok(false);
        }
        for v6 in &addresses.v6 {
            match self.add(tun, (*v6).into()).await {
                Err(NetError::Address { source, .. }) if is_v6_switched_off(&source) => return Ok(false),
                other => other?,
            }
        }
        self.step_back(tun.index()).await;
        for v6 in &addresses.v6 {
            self.settle(tun, v6.addr()).await;
        }
        Ok(true)
    }

    async fn set_link(&self, tun: &Tun, message: LinkMessageBuilder<LinkUnspec>) -> Result<(), NetError> {
        self.handle.link().set(message.build()).execute().await.map_err(|error| link_error(tun, error))
    }

    /// Has the TUN write to the hardware address that the interface has, whoever gave it that.
    async fn learn_hardware_address(&self, tun: &Tun) -> Result<(), NetError> {
        let request = self.handle.link().get().match_index(tun.index()).execute();
        let links: Vec<LinkMessage> = request.try_collect().await.map_err(|error| link_error(tun, error))?;
        links.iter().filter_map(hardware_address).for_each(|address| tun.set_hardware_address(address));
        Ok(())
    }

    /// Has the kernel make no super-packet of more than `bytes`. Best effort: longer ones travel in two trains.
    pub async fn limit_super_packets(&self, tun: &Tun, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let message = link(tun).append_extra_attribute(LinkAttribute::GsoMaxSize(bytes));
        if let Err(error) = self.set_link(tun, message).await {
            tracing::debug!(%error, "super-packets stay as long as they are");
        }
    }

    /// Waits until the kernel takes packets to `ip`, which it arranges some moments after it said yes.
    async fn settle(&self, tun: &Tun, ip: Ipv6Addr) {
        for _ in 0..SETTLE_LOOKS {
            let mut query = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, 128).build();
            // A link-local address means nothing without its interface.
            query.attributes.push(RouteAttribute::Oif(tun.index()));
            let mut answer = std::pin::pin!(self.handle.route().get(query).execute());
            if let Ok(Some(route)) = answer.try_next().await
                && route.header.kind == RouteType::Local
            {
                return;
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
        tracing::debug!(%ip, "the kernel does not say that it takes packets to the address; going on");
    }

    /// Puts the IPv4 address `new` in the place of `old`. The old goes first: as the elder of one subnet it
    /// would take the new one with it. `old` may be gone already.
    ///
    /// # Errors
    /// [`NetError::Address`].
    pub async fn replace_v4(&self, tun: &Tun, old: Option<Ipv4Net>, new: Option<Ipv4Net>) -> Result<(), NetError> {
        if old == new {
            return Ok(());
        }
        if let Some(old) = old {
            self.remove(tun, old.into()).await?;
        }
        match new {
            Some(new) => self.add(tun, new.into()).await,
            None => Ok(()),
        }
    }

    /// All routes of this machine that lead to unicast addresses, in all tables, sorted.
    ///
    /// # Errors
    /// [`NetError::List`].
    pub async fn routes(&self) -> Result<Vec<Route>, NetError> {
        let mut routes: Vec<Route> = self.route_messages().await?.iter().filter_map(route).collect();
        routes.sort_unstable();
        routes.dedup();
        Ok(routes)
    }

    /// The same as the kernel says it, with whatever else there is.
    pub(super) async fn route_messages(&self) -> Result<Vec<RouteMessage>, NetError> {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let mut messages = Vec::new();
        for all_of_family in [v4, v6] {
            let mut list = std::pin::pin!(self.handle.route().get(all_of_family).execute());
            while let Some(message) = list.try_next().await.map_err(|error| NetError::List(to_io(error)))? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    /// The router that leads from here to the internet by IPv4; `None` without one, or where the way there needs none
    /// (a modem, a tunnel). As the kernel would send, rules and all: so no other VPN's way is mistaken for one.
    ///
    /// # Errors
    /// [`NetError::List`].
    pub async fn gateway(&self) -> Result<Option<Ipv4Addr>, NetError> {
        let query = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ON_THE_INTERNET, 32).build();
        Ok(self.ask(query).await?.as_ref().and_then(next_hop))
    }

    /// The interface by which a socket that is bound to nothing sends to `ip`; `None`: it cannot.
    ///
    /// # Errors
    /// [`NetError::List`].
    pub async fn leads_by(&self, ip: IpAddr) -> Result<Option<u32>, NetError> {
        let query = match ip {
            IpAddr::V4(ip) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, 32).build(),
            IpAddr::V6(ip) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, 128).build(),
        };
        Ok(self.ask(query).await?.as_ref().and_then(device_of))
    }

    /// The route that the kernel would take; `None`: none.
    async fn ask(&self, query: RouteMessage) -> Result<Option<RouteMessage>, NetError> {
        let mut answer = std::pin::pin!(self.handle.route().get(query).execute());
        match answer.try_next().await.map_err(to_io) {
            Ok(route) => Ok(route),
            Err(error) if is_unreachable(&error) => Ok(None),
            Err(error) => Err(NetError::List(error)),
        }
    }

    /// Deletes what crashed runs left: TUN and TAP devices named `{prefix}N` that no process holds any more. Their
    /// addresses and routes go with them. The names of those deleted.
    ///
    /// # Errors
    /// [`NetError::List`], [`NetError::Link`].
    pub async fn remove_leftovers(&self) -> Result<Vec<String>, NetError> {
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(|error| NetError::List(to_io(error)))?;
        let mut removed = Vec::new();
        for (index, name) in links.iter().filter_map(leftover) {
            let gone = self.handle.link().del(index).execute().await;
            gone.map_err(|error| NetError::Link { name: name.clone(), source: to_io(error) })?;
            removed.push(name);
        }
        Ok(removed)
    }

    /// Keeps the kernel from making addresses of its own. False where there is no IPv6.
    async fn stop_kernel_addresses(&self, tun: &Tun) -> bool {
        let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = link(tun).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none]));
        match self.set_link(tun, message).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "no IPv6 on the interface");
                false
            }
        }
    }

    async fn add(&self, tun: &Tun, net: IpNet) -> Result<(), NetError> {
        let mut request = self.handle.address().add(tun.index(), net.addr(), net.prefix_len()).replace();
        if let IpNet::V4(v4) = net {
            tun.set_broadcast(v4.broadcast());
        }
        if net.addr().is_ipv6() {
            // Nobody else can have it; and while the kernel wonders, even if briefly, it takes no packet.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(|error| address_error(tun, net, error))
    }

    async fn remove(&self, tun: &Tun, net: IpNet) -> Result<(), NetError> {
        let (index, prefix) = (tun.index(), net.prefix_len());
        let message = match net.addr() {
            IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(ip, prefix).build(),
            IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(ip, prefix).build(),
        };
        match self.handle.address().del(message).execute().await.map_err(to_io) {
            Err(error) if error.kind() != io::ErrorKind::AddrNotAvailable => {
                Err(NetError::Address { name: tun.name().to_owned(), address: net, source: error })
            }
            _ => Ok(()),
        }
    }
}

/// Switches IPv6 on for this interface (some images switch it off for all) and everything off by which a
/// member could steer this machine. Each is best effort: a container's settings may be read-only.
fn shield(name: &str) {
    const SETTINGS: [(&str, &str, &str); 6] = [
        ("ipv6", "disable_ipv6", "0"),
        ("ipv6", "accept_ra", "0"),
        ("ipv6", "router_solicitations", "0"),
        ("ipv6", "accept_redirects", "0"),
        ("ipv4", "accept_redirects", "0"),
        ("ipv4", "send_redirects", "0"),
    ];
    for (family, key, value) in SETTINGS {
        let path = format!("/proc/sys/net/{family}/conf/{name}/{key}");
        if let Err(error) = std::fs::write(&path, value) {
            tracing::debug!(%error, path, "setting left as it is");
        }
    }
}

/// Packets that wait in the interface for us: as many as in a TUN device. A queue of ours stands behind it.
const QUEUE: u32 = 500;

/// Where nobody has a route of their own to: the anycast address of port mappers, RFC 7723.
pub(super) const ON_THE_INTERNET: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 9);

/// The router that a route leads to, if one does.
fn next_hop(message: &RouteMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(*ip),
        _ => None,
    })
}

/// The index of the interface that a route leads to.
fn device_of(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// The kernel's answers when no route leads somewhere.
fn is_unreachable(error: &io::Error) -> bool {
    use nix::libc::{EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH};
    matches!(error.raw_os_error(), Some(ENETUNREACH | EHOSTUNREACH | EACCES | EINVAL))
}

/// The route in a message, if it leads to unicast addresses.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let kinds = [RouteType::Unicast, RouteType::BlackHole, RouteType::Unreachable, RouteType::Prohibit];
    if !kinds.contains(&message.header.kind) {
        return None;
    }
    let mut route = Route { net: IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0).ok()?, device: None };
    let mut to = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => to = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(index) => route.device = device(*index),
            RouteAttribute::MultiPath(hops) => {
                route.device = hops.first().and_then(|hop| device(hop.interface_index));
            }
            _ => {}
        }
    }
    // A default route names no destination.
    if let Some(to) = to {
        route.net = IpNet::new(to, message.header.destination_prefix_length).ok()?;
    }
    Some(route)
}

/// A change of our interface.
fn link(tun: &Tun) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(tun.index())
}

/// A link's hardware address, if it is an Ethernet's.
pub(super) fn hardware_address(link: &LinkMessage) -> Option<ethernet::Address> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(address) => address.as_slice().try_into().ok(),
        _ => None,
    })
}

/// The name of the interface `index`, if there is one.
pub(super) fn device(index: u32) -> Option<String> {
    nix::net::if_::if_indextoname(index).ok()?.into_string().ok()
}

/// Index and name, if the link is a TUN or TAP device (one kind to the kernel) of ours whose owner is gone: the kernel
/// shows no carrier.
fn leftover(link: &LinkMessage) -> Option<(u32, String)> {
    let (mut name, mut is_tun, mut is_held) = (None, false, true);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Carrier(carrier) => is_held = *carrier != 0,
            LinkAttribute::LinkInfo(infos) => is_tun = infos.contains(&LinkInfo::Kind(InfoKind::Tun)),
            _ => {}
        }
    }
    let name = name.filter(|name| interfaces::is_ours(name))?;
    (is_tun && !is_held).then_some((link.header.index, name))
}

/// The kernel's answers when IPv6 is disabled on an interface.
fn is_v6_switched_off(error: &io::Error) -> bool {
    use nix::libc::{EACCES, EAFNOSUPPORT, EOPNOTSUPP, EPERM};
    matches!(error.raw_os_error(), Some(EACCES | EPERM | EOPNOTSUPP | EAFNOSUPPORT))
}

fn link_error(tun: &Tun, error: rtnetlink::Error) -> NetError {
    NetError::Link { name: tun.name().to_owned(), source: to_io(error) }
}

fn address_error(tun: &Tun, address: IpNet, error: rtnetlink::Error) -> NetError {
    NetError::Address { name: tun.name().to_owned(), address, source: to_io(error) }
}

pub(super) fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
