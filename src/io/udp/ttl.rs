//! A hop limit for one datagram, by control message: the socket's own is never touched, because the same
//! socket carries data.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// Sends one datagram with the hop limit `ttl`.
#[cfg(target_os = "linux")]
pub(super) fn send(
    socket: &std::net::UdpSocket,
    to: SocketAddr,
    src: Option<IpAddr>,
    ttl: u8,
    payload: &[u8],
) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    use nix::libc;
    use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

    let hops = libc::c_int::from(ttl);
    let limit = if to.is_ipv4() { ControlMessage::Ipv4Ttl(&hops) } else { ControlMessage::Ipv6HopLimit(&hops) };
    let (info_v4, info_v6);
    let mut control = vec![limit];
    match src {
        Some(IpAddr::V4(ip)) => {
            info_v4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            control.push(ControlMessage::Ipv4PacketInfo(&info_v4));
        }
        Some(IpAddr::V6(ip)) => {
            info_v6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            control.push(ControlMessage::Ipv6PacketInfo(&info_v6));
        }
        None => {}
    }
    let to = SockaddrStorage::from(to);
    sendmsg(socket.as_raw_fd(), &[io::IoSlice::new(payload)], &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
    Ok(())
}

/// No hop limit per datagram here: whoever wants one does without.
#[cfg(not(target_os = "linux"))]
pub(super) fn send(
    _socket: &std::net::UdpSocket,
    _to: SocketAddr,
    _src: Option<IpAddr>,
    _ttl: u8,
    _payload: &[u8],
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
