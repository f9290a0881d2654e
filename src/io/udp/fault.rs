//! What an error of a UDP socket means for the one who used it.

use std::io::{self, ErrorKind};

/// How far an error reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The kernel has no room just now: the datagram is gone, the next may pass.
    Full,
    /// This datagram, its destination or its source address: carry on with others. A path may be dead
    /// (unreachable), forbidden (a local firewall says EPERM) or too narrow ([`Fault::TooBig`] is apart).
    Destination,
    /// The datagram is too big for UDP or for the interface.
    TooBig,
    /// This system cannot do what was asked (a hop limit per datagram).
    Unsupported,
    /// The socket is of no more use.
    Broken,
}

/// How far `error` reaches.
pub fn fault(error: &io::Error) -> Fault {
    if quinn_udp::is_msg_size_err(error) {
        return Fault::TooBig;
    }
    if is_no_buffers(error) {
        return Fault::Full;
    }
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::OutOfMemory | ErrorKind::Interrupted | ErrorKind::TimedOut => Fault::Full,
        ErrorKind::PermissionDenied
        | ErrorKind::NetworkUnreachable
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::AddrNotAvailable
        | ErrorKind::InvalidInput => Fault::Destination,
        ErrorKind::Unsupported => Fault::Unsupported,
        _ if is_about_destination(error) => Fault::Destination,
        _ => Fault::Broken,
    }
}

/// `ENOBUFS` has no kind of its own.
fn is_no_buffers(error: &io::Error) -> bool {
    #[cfg(unix)]
    const NO_BUFFERS: i32 = nix::libc::ENOBUFS;
    #[cfg(not(unix))]
    const NO_BUFFERS: i32 = 10055; // WSAENOBUFS
    error.raw_os_error() == Some(NO_BUFFERS)
}

/// Errors without a kind of their own that ICMP or routing report.
fn is_about_destination(error: &io::Error) -> bool {
    #[cfg(unix)]
    const CODES: &[i32] = {
        use nix::libc::{EAFNOSUPPORT, EHOSTDOWN, EIO, ENODEV, ENOPROTOOPT, ENXIO, EPROTO};
        &[EAFNOSUPPORT, EHOSTDOWN, EIO, ENODEV, ENOPROTOOPT, ENXIO, EPROTO]
    };
    #[cfg(not(unix))]
    const CODES: &[i32] = &[10047, 10064, 10052]; // WSAEAFNOSUPPORT, WSAEHOSTDOWN, WSAENETRESET
    error.raw_os_error().is_some_and(|code| CODES.contains(&code))
}

#[cfg(all(test, unix))]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn only_errors_of_the_socket_itself_break_it() {
        let of = |code| fault(&io::Error::from_raw_os_error(code));
        assert_eq!(of(libc::EAGAIN), Fault::Full);
        assert_eq!(of(libc::ENOBUFS), Fault::Full);
        assert_eq!(of(libc::EMSGSIZE), Fault::TooBig);
        for code in [libc::EPERM, libc::EACCES, libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ECONNREFUSED] {
            assert_eq!(of(code), Fault::Destination, "{code}");
        }
        for code in [libc::EINVAL, libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT, libc::ENETDOWN] {
            assert_eq!(of(code), Fault::Destination, "{code}");
        }
        for code in [libc::EBADF, libc::ENOTSOCK] {
            assert_eq!(of(code), Fault::Broken, "{code}");
        }
        assert_eq!(fault(&io::ErrorKind::Unsupported.into()), Fault::Unsupported);
    }
}
