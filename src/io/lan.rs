//! What is said to everybody on the LANs of this machine, and what others say so: beacons, by multicast
//! ([`crate::wire::beacon`]).
//!
//! A beacon leaves once on every interface that is up, by IPv4 and by IPv6, with a hop limit of 1 and from a socket of its
//! own; never on an overlay, and not on interfaces that have one machine at their other end. Listening begins with the
//! first beacon that is said, and each looks for interfaces that are new.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::interfaces::is_ours;
use crate::wire::beacon::{GROUP_V4, GROUP_V6, MAX, PORT};

/// More interfaces than this has a machine that runs containers, and its LANs are the first.
const MOST_INTERFACES: usize = 16;

/// The machine's voice and ears on its LANs.
#[derive(Debug)]
pub struct Lan {
    heard: mpsc::Sender<Vec<u8>>,
    ears: [Option<Arc<UdpSocket>>; 2],
}

/// An interface with a LAN behind it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Interface {
    v4: Option<Ipv4Addr>,
    v6: bool,
}

impl Lan {
    /// What is heard goes to `heard`, waiting for its room.
    pub const fn new(heard: mpsc::Sender<Vec<u8>>) -> Self {
        Self { heard, ears: [None, None] }
    }

    /// Says it on every LAN, `overlays` excepted. Where that fails, it is said without it. Must be called inside a tokio
    /// runtime.
    pub fn say(&mut self, beacon: &[u8], overlays: &[IpNet]) {
        let interfaces = match lans(overlays) {
            Ok(interfaces) => interfaces,
            Err(error) => return tracing::debug!(%error, "interfaces cannot be listed, nothing is said on the LAN"),
        };
        self.listen(&interfaces);
        for (index, interface) in interfaces {
            let by_v4 = interface.v4.map(|local| say_v4(local, beacon));
            let by_v6 = interface.v6.then(|| say_v6(index, beacon));
            for error in [by_v4, by_v6].into_iter().flatten().filter_map(Result::err) {
                tracing::debug!(%error, index, "not said on the LAN");
            }
        }
    }

    /// Listens on all of them.
    fn listen(&mut self, interfaces: &BTreeMap<u32, Interface>) {
        for (ear, family) in self.ears.iter_mut().zip([Domain::IPV4, Domain::IPV6]) {
            if ear.is_none() {
                match ear_of(family) {
                    Ok(socket) => *ear = Some(listen(Arc::new(socket), self.heard.clone())),
                    Err(error) => tracing::debug!(%error, ?family, "beacons are not heard"),
                }
            }
        }
        let [v4, v6] = &self.ears;
        for (index, interface) in interfaces {
            let joined_v4 = v4.as_ref().filter(|_| interface.v4.is_some()).map(|socket| {
                let interface = InterfaceIndexOrAddress::Index(*index);
                socket2::SockRef::from(&**socket).join_multicast_v4_n(&GROUP_V4, &interface)
            });
            let joined_v6 = v6
                .as_ref()
                .filter(|_| interface.v6)
                .map(|socket| socket2::SockRef::from(&**socket).join_multicast_v6(&GROUP_V6, *index));
            for error in [joined_v4, joined_v6].into_iter().flatten().filter_map(Result::err) {
                // It was joined before.
                if error.kind() != io::ErrorKind::AddrInUse {
                    tracing::debug!(%error, index, "beacons are not heard there");
                }
            }
        }
    }
}

/// Hands on what a socket hears, for as long as somebody wants it. While nobody takes it, the system drops what comes.
fn listen(socket: Arc<UdpSocket>, heard: mpsc::Sender<Vec<u8>>) -> Arc<UdpSocket> {
    let ear = socket.clone();
    tokio::spawn(async move {
        // One byte more: what is longer than a beacon is none.
        let mut buffer = [0; MAX + 1];
        loop {
            let received = tokio::select! {
                received = socket.recv(&mut buffer) => received,
                () = heard.closed() => return,
            };
            match received {
                Ok(length) if heard.send(buffer[..length].to_vec()).await.is_err() => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "a beacon was not heard"),
            }
        }
    });
    ear
}

/// A socket that takes beacons of one family; shared with whoever else listens here.
fn ear_of(family: Domain) -> io::Result<UdpSocket> {
    let socket = Socket::new(family, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    // There the sharing of a group's port has another name.
    #[cfg(all(unix, not(target_os = "linux")))]
    socket.set_reuse_port(true)?;
    if family == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Bound to the group, a socket takes nothing else; a link's group is one of each link, and Windows binds to no group.
    let local: IpAddr = match family {
        Domain::IPV6 => Ipv6Addr::UNSPECIFIED.into(),
        _ if cfg!(windows) => Ipv4Addr::UNSPECIFIED.into(),
        _ => GROUP_V4.into(),
    };
    socket.bind(&SocketAddr::new(local, PORT).into())?;
    UdpSocket::from_std(socket.into())
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
    Ok(lans.into_iter().take(MOST_INTERFACES).collect())
}
