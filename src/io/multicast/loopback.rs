//! To the programs here that listen to a group on a LAN: as if it had come from there, and never to there.
//!
//! A program that joins a group without saying where, joins it on the interface by which the default route leads, and
//! hears it from there alone (those in Java ask for that, by `IP_MULTICAST_ALL`). So what comes from the overlay is sent
//! on that interface with a TTL of 0: the kernel gives it to who listens there, and to nobody beyond this machine.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::ip;

/// Where TTL and hop limit stand (RFC 791 §3.1, RFC 8200 §3).
const TTL: usize = 8;
const HOP_LIMIT: usize = 7;

/// The way to local listeners.
#[derive(Debug)]
pub struct Loopback {
    v4: Socket,
    /// `None`: this system has no IPv6.
    v6: Option<Socket>,
}

impl Loopback {
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let v4 = raw(Domain::IPV4)?;
        let v6 = raw(Domain::IPV6).and_then(|socket| socket.set_header_included_v6(true).map(|()| socket));
        let v6 = v6.inspect_err(|error| tracing::debug!(%error, "no groups of IPv6")).ok();
        Ok(Self { v4, v6 })
    }

    /// Gives a packet to who listens on `interface` to the group that it is for. Its TTL is 0 then.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn deliver(&self, packet: &mut [u8], interface: u32) -> io::Result<()> {
        match (group(packet), &self.v6) {
            (Some(IpAddr::V4(group)), _) => {
                packet[TTL] = 0;
                let index = interface.try_into().map_err(io::Error::other)?;
                let nowhere = libc::in_addr { s_addr: 0 };
                let by = libc::in_pktinfo { ipi_ifindex: index, ipi_spec_dst: nowhere, ipi_addr: nowhere };
                let (pieces, how) = ([IoSlice::new(packet)], [ControlMessage::Ipv4PacketInfo(&by)]);
                let to = SockaddrIn::from(SocketAddrV4::new(group, 0));
                sendmsg(self.v4.as_raw_fd(), &pieces, &how, MsgFlags::MSG_DONTWAIT, Some(&to))?;
                Ok(())
            }
            (Some(IpAddr::V6(group)), Some(v6)) => {
                packet[HOP_LIMIT] = 0;
                v6.set_multicast_if_v6(interface)?;
                v6.send_to(packet, &SocketAddrV6::new(group, 0, 0, interface).into()).map(drop)
            }
            (Some(IpAddr::V6(_)), None) => Err(io::ErrorKind::Unsupported.into()),
            (None, _) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// The group that a packet is for; `None`: it is for none.
fn group(packet: &[u8]) -> Option<IpAddr> {
    let group = ip::addresses(packet).ok()?.destination;
    group.is_multicast().then_some(group)
}

fn raw(domain: Domain) -> io::Result<Socket> {
    // It takes packets with their headers, and hears none.
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
