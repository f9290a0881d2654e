//! Socket options beyond the portable ones.
#![allow(unsafe_code, reason = "IP_MTU_DISCOVER is offered by none of nix, socket2 and quinn-udp")]

use std::io;

/// Asks for `bytes` of buffer in each direction: beyond the system's limit where we are privileged, else
/// up to it. Less is no error.
pub(super) fn enlarge_buffers(socket: &socket2::Socket, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{setsockopt, sockopt};
        let received = setsockopt(socket, sockopt::RcvBufForce, &bytes);
        if received.and_then(|()| setsockopt(socket, sockopt::SndBufForce, &bytes)).is_ok() {
            return;
        }
    }
    let asked = socket.set_recv_buffer_size(bytes).and_then(|()| socket.set_send_buffer_size(bytes));
    if let Err(error) = asked {
        tracing::debug!(%error, "socket buffers stay as they are");
    }
    #[cfg(target_os = "linux")]
    if let Ok(got) = socket.recv_buffer_size()
        && let Some(advice) = advice(got, bytes)
    {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| tracing::info!("{advice}"));
    }
}

/// What an operator can do about a buffer of `got` bytes where `wanted` were asked for. Linux counts double (socket(7)).
#[cfg(target_os = "linux")]
fn advice(got: usize, wanted: usize) -> Option<String> {
    (got / 2 < wanted).then(|| {
        format!(
            "UDP buffers are {} kB, all that this system allows: bursts may be lost under load. For more: sysctl -w \
             net.core.rmem_max={wanted} net.core.wmem_max={wanted}",
            got / 2000
        )
    })
}

/// Clears the don't-fragment bit that quinn-udp sets.
#[cfg(target_os = "linux")]
pub(super) fn allow_fragmentation(socket: &std::net::UdpSocket) -> io::Result<()> {
    use nix::libc;
    use nix::sys::socket::{setsockopt, sockopt};

    set_int(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    if socket.local_addr()?.is_ipv6() {
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
        setsockopt(socket, sockopt::Ipv6DontFrag, &false)?;
    }
    Ok(())
}

/// Clears the don't-fragment bit that quinn-udp sets.
#[cfg(target_os = "macos")]
pub(super) fn allow_fragmentation(socket: &std::net::UdpSocket) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};

    if socket.local_addr()?.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6DontFrag, &false)?;
    } else {
        setsockopt(socket, sockopt::IpDontFrag, &false)?;
    }
    Ok(())
}

/// quinn-udp's setting stays: a datagram that is too big is refused by the system with an error.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub(super) fn allow_fragmentation(_socket: &std::net::UdpSocket) -> io::Result<()> {
    Ok(())
}

/// Has the kernel not tell when each datagram came, as quinn-udp asks it to: nobody wants to know, and of datagrams that
/// were joined what it tells behind that, the local address and the ECN bits, has no room beside it.
pub(super) fn forgo_timestamps(socket: &std::net::UdpSocket) {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::ReceiveTimestampns, &false) {
        tracing::debug!(%error, "timestamps stay");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// Has the kernel join no datagrams that come in.
pub(super) fn forgo_joining(socket: &std::net::UdpSocket) {
    #[cfg(target_os = "linux")]
    if let Err(error) = set_int(socket, nix::libc::SOL_UDP, nix::libc::UDP_GRO, 0) {
        tracing::debug!(%error, "datagrams are joined");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// Sets an option whose value is an `int`.
#[cfg(target_os = "linux")]
fn set_int(
    socket: &std::net::UdpSocket,
    level: nix::libc::c_int,
    option: nix::libc::c_int,
    value: nix::libc::c_int,
) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    let len = nix::libc::socklen_t::try_from(size_of_val(&value)).expect("an int's size fits");
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the pointer is to a live
    // `int` of exactly `len` bytes that the kernel only reads.
    let result = unsafe { nix::libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    nix::errno::Errno::result(result)?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_too_small_comes_with_what_to_type() {
        assert_eq!(advice(8 << 20, 4 << 20), None);
        let advice = advice(425_984, 4 << 20).expect("too small");
        assert!(advice.contains("212 kB") && advice.contains("sysctl -w net.core.rmem_max=4194304"), "{advice}");
    }
}
