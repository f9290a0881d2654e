//! What is said to everybody on the LANs of this machine, and what others say so: beacons, by multicast
//! ([`crate::wire::beacon`]).
//!
//! A beacon leaves once on every interface that is up, by IPv4 and by IPv6, with a hop limit of 1 and from a socket of its
//! own; never on an overlay, and not on interfaces that have one machine at their other end. Listening begins with the
//! first beacon that is said; when interfaces have come or gone by the next one, it begins anew. The sockets are bound to
//! the groups, so that nothing else reaches them (Windows binds to none: there anybody can write to the port).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use ipnet::IpNet;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::interfaces::is_ours;
use crate::wire::beacon::{GROUP_V4, GROUP_V6, MAX, PORT};

/// More interfaces than this has a machine that runs containers; those with IPv4 come first. Linux lets a socket be in 20
/// groups.
const MOST_INTERFACES: usize = 16;
/// After each beacon: what comes quicker waits in the socket, until the system drops it.
const PAUSE: Duration = Duration::from_millis(5);

/// Who said what.
pub type Heard = (IpAddr, Vec<u8>);

/// The machine's voice and ears on its LANs.
#[derive(Debug)]
pub struct Lan {
    heard: mpsc::Sender<Heard>,
    /// Where it listens, and the tasks that do.
    interfaces: BTreeMap<u32, Interface>,
    ears: JoinSet<()>,
}

/// An interface with a LAN behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Interface {
    v4: Option<Ipv4Addr>,
    v6: bool,
}

impl Lan {
    /// What is heard goes to `heard`, waiting for its room.
    pub fn new(heard: mpsc::Sender<Heard>) -> Self {
        Self { heard, interfaces: BTreeMap::new(), ears: JoinSet::new() }
    }

    /// Says it on every LAN, `overlays` excepted. Where that fails, it is said without it. Must be called inside a tokio
    /// runtime.
    pub fn say(&mut self, beacon: &[u8], overlays: &[IpNet]) {
        let interfaces = match lans(overlays) {
            Ok(interfaces) => interfaces,
            Err(error) => return tracing::debug!(%error, "interfaces cannot be listed, nothing is said on the LAN"),
        };
        if interfaces != self.interfaces || self.ears.is_empty() {
            self.interfaces = interfaces;
            self.listen();
        }
        for (index, interface) in &self.interfaces {
            let by_v4 = interface.v4.map(|local| say_v4(local, beacon));
            let by_v6 = interface.v6.then(|| say_v6(*index, beacon));
            for error in [by_v4, by_v6].into_iter().flatten().filter_map(Result::err) {
                tracing::debug!(%error, index, "not said on the LAN");
            }
        }
    }

    /// Listens no longer, until something is said again.
    pub fn leave(&mut self) {
        self.ears = JoinSet::new();
    }

    /// Listens where it speaks.
    fn listen(&mut self) {
        self.leave();
        let v4 = self.interfaces.iter().filter(|(_, interface)| interface.v4.is_some()).map(|(index, _)| *index);
        let v6 = self.interfaces.iter().filter(|(_, interface)| interface.v6).map(|(index, _)| *index);
        let ears = std::iter::once(ear_v4(v4)).chain(ears_v6(v6));
        for ear in ears {
            match ear {
                Ok(socket) => drop(self.ears.spawn(listen(socket, self.heard.clone()))),
                Err(error) => tracing::debug!(%error, "beacons are not heard everywhere"),
            }
        }
    }
}

/// Hands on what a socket hears.
async fn listen(socket: UdpSocket, heard: mpsc::Sender<Heard>) {
    // One byte more: what is longer than a beacon is none.
    let mut buffer = [0; MAX + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                if heard.send((from.ip(), buffer[..length].to_vec())).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, "a beacon was not heard"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The socket that hears by IPv4, on these interfaces.
fn ear_v4(interfaces: impl Iterator<Item = u32>) -> io::Result<UdpSocket> {
    let local = if cfg!(windows) { Ipv4Addr::UNSPECIFIED } else { GROUP_V4 };
    let socket = ear(Domain::IPV4, SocketAddr::from((local, PORT)))?;
    for index in interfaces {
        if let Err(error) = socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index)) {
            tracing::debug!(%error, index, "beacons are not heard there");
        }
    }
    UdpSocket::from_std(socket.into())
}

/// The sockets that hear by IPv6: one for each interface, for a group of one link is one of each.
fn ears_v6(interfaces: impl Iterator<Item = u32>) -> impl Iterator<Item = io::Result<UdpSocket>> {
    interfaces.map(|index| {
        let local = if cfg!(windows) { Ipv6Addr::UNSPECIFIED } else { GROUP_V6 };
        let socket = ear(Domain::IPV6, SocketAddrV6::new(local, PORT, 0, index).into())?;
        socket.join_multicast_v6(&GROUP_V6, index)?;
        UdpSocket::from_std(socket.into())
    })
}

/// A socket that shares its address with whoever else listens here.
pub(super) fn ear(family: Domain, local: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(family, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    // There the sharing of a group's port has another name.
    #[cfg(all(unix, not(target_os = "linux")))]
    socket.set_reuse_port(true)?;
    if family == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    Ok(socket)
}

fn say_v4(local: Ipv4Addr, beacon: &[u8]) -> io::Result<()> {
    let socket = mouth(Domain::IPV4, local.into())?;
    socket.set_multicast_if_v4(&local)?;
    socket.set_multicast_ttl_v4(1)?;
    socket.set_multicast_loop_v4(false)?;
    socket.send_to(beacon, &SocketAddr::from((GROUP_V4, PORT)).into()).map(drop)
}

fn say_v6(index: u32, beacon: &[u8]) -> io::Result<()> {
    let socket = mouth(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into())?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(1)?;
    socket.set_multicast_loop_v6(false)?;
    socket.send_to(beacon, &SocketAddr::from((GROUP_V6, PORT)).into()).map(drop)
}

fn mouth(family: Domain, local: IpAddr) -> io::Result<Socket> {
    let socket = Socket::new(family, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    Ok(socket)
}

/// The interfaces that have a LAN behind them, by their indices.
fn lans(overlays: &[IpNet]) -> io::Result<BTreeMap<u32, Interface>> {
    let mut lans: BTreeMap<u32, Interface> = BTreeMap::new();
    for found in if_addrs::get_if_addrs()? {
        let usable = found.is_oper_up() && !found.is_loopback() && !found.is_p2p() && !is_ours(&found.name);
        let Some(index) = found.index.filter(|_| usable) else { continue };
        if overlays.iter().any(|overlay| overlay.contains(&found.ip())) {
            continue;
        }
        let lan = lans.entry(index).or_default();
        match found.ip() {
            IpAddr::V4(addr) => lan.v4 = lan.v4.or(Some(addr)),
            IpAddr::V6(_) => lan.v6 = true,
        }
    }
    let mut list: Vec<_> = lans.into_iter().collect();
    list.sort_by_key(|(index, lan)| (lan.v4.is_none(), *index));
    if list.len() > MOST_INTERFACES {
        tracing::debug!(interfaces = list.len(), "beacons are said and heard on the first {MOST_INTERFACES} alone");
    }
    Ok(list.into_iter().take(MOST_INTERFACES).collect())
}
