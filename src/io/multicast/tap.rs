//! What this machine's programs send to everybody on a LAN, overheard where it leaves: no route, rule or firewall is
//! touched, the LAN gets what it always got, and nothing is left behind, however we end (packet(7)).
//!
//! A socket hears nothing before it knows what it is to hear ([`filter`]), and on that interface alone. Packets begin at
//! their IP header, whatever kind of link it is. Checksums of UDP are mostly not there yet.
#![allow(unsafe_code, reason = "no crate makes the address of a link")]

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, SockAddr, SockAddrStorage, SockRef, Socket, Type};

use super::filter::{self, Wanted};
use crate::io::watched::{self, Watched};
use crate::wire::ip::{self, Addresses};

/// Room for some dozens of packets: a game's discovery needs a few, and a storm is to be lost here.
const BUFFER: usize = 64 << 10;

/// An ear on one interface.
#[derive(Debug)]
pub struct Tap {
    interface: u32,
    fd: Watched,
}

/// What was overheard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overheard {
    /// The packet's length; longer than the room for it: it was cut.
    pub len: usize,
    /// So many were lost since the socket was opened, for want of somebody who reads.
    pub lost: u32,
}

impl Tap {
    /// Overhears what leaves by the interface of this index. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW, or where such sockets are forbidden; there is no such interface.
    pub fn listen(interface: u32, wanted: Wanted<'_>) -> io::Result<Self> {
        // Of no protocol yet: it hears nothing.
        let may_not = |error| io::Error::new(io::ErrorKind::PermissionDenied, error);
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None).map_err(may_not)?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(BUFFER)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        socket.attach_filter(&filter::to_everybody(wanted))?;
        // Of all protocols: of one alone, what leaves is not heard.
        socket.bind(&link(interface, libc::ETH_P_ALL, [0; 6])?)?;
        Ok(Self { interface, fd: watched::readable(OwnedFd::from(socket))? })
    }

    /// Sends a packet of IPv4 for many to whoever is on that link. This tap does not hear it, nor does any program here.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let Ok(Addresses { destination: IpAddr::V4(to), .. }) = ip::addresses(packet) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let [_, b, c, d] = to.octets();
        // RFC 1112 §6.4.
        let to = if to.is_multicast() { [0x01, 0x00, 0x5e, b & 0x7f, c, d] } else { [0xff; 6] };
        SockRef::from(self.fd.get()).send_to(packet, &link(self.interface, libc::ETH_P_IP, to)?).map(drop)
    }

    /// Waits for a packet, and puts it into `room`. May be dropped and called again at any time.
    ///
    /// # Errors
    /// `NetworkDown` once when the interface goes down: what is sent when it is up again is heard again.
    pub async fn recv(&self, room: &mut [u8]) -> io::Result<Overheard> {
        self.fd.read(|fd| read(fd, room)).await
    }
}

fn read(fd: &OwnedFd, room: &mut [u8]) -> io::Result<Overheard> {
    let mut control = nix::cmsg_space!(u32);
    let mut pieces = [IoSliceMut::new(room)];
    let message = recvmsg::<LinkAddr>(fd.as_raw_fd(), &mut pieces, Some(&mut control), MsgFlags::MSG_TRUNC)?;
    let lost = message.cmsgs()?.find_map(|said| match said {
        ControlMessageOwned::RxqOvfl(lost) => Some(lost),
        _ => None,
    });
    Ok(Overheard { len: message.bytes, lost: lost.unwrap_or(0) })
}

/// An address on the link behind an interface, and what is sent there.
fn link(interface: u32, protocol: libc::c_int, to: [u8; 6]) -> io::Result<SockAddr> {
    let number = |value: libc::c_int| u16::try_from(value).map_err(io::Error::other);
    let (family, protocol) = (number(libc::AF_PACKET)?, number(protocol)?.to_be());
    let index = interface.try_into().map_err(io::Error::other)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the structures that a `sockaddr_storage` has room for, and of plain numbers, for
    // which zeroes will do.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    (link.sll_family, link.sll_protocol, link.sll_ifindex) = (family, protocol, index);
    (link.sll_halen, link.sll_addr) = (6, [to[0], to[1], to[2], to[3], to[4], to[5], 0, 0]);
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the storage holds an address of the family that it names, of this length.
    Ok(unsafe { SockAddr::new(storage, len) })
}
