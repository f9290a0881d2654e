//! What a datagram takes along by control message: its TOS, its source address, and where it is cut. Several datagrams to
//! one address leave by one system call: UDP generic segmentation offload (`UDP_SEGMENT`, Linux 4.18). The kernel, or
//! the network card, cuts them; on the way through the kernel they are one.
#![allow(unsafe_code, reason = "sendmsg as nix wraps it allocates for every control message")]

use std::ffi::{c_int, c_uint};
use std::io;
use std::mem::zeroed;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::errno::Errno;
use nix::libc;

use super::Way;

/// Control messages, one behind the other.
struct Control {
    room: Room,
    len: usize,
}

/// Room for one of each kind, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Room([u8; ROOM]);

const _: () = assert!(align_of::<libc::cmsghdr>() <= align_of::<Room>());
const ROOM: usize = space::<u16>() + space::<c_int>() + space::<libc::in6_pktinfo>();

/// Bytes of a `T`, and of the control message that carries it.
#[allow(clippy::cast_possible_truncation, reason = "a few bytes")]
const fn len<T>() -> c_uint {
    size_of::<T>() as c_uint
}

const fn space<T>() -> usize {
    // SAFETY: it computes a number.
    unsafe { libc::CMSG_SPACE(len::<T>()) as usize }
}

impl Control {
    const fn new() -> Self {
        Self { room: Room([0; ROOM]), len: 0 }
    }

    fn push<T: Copy>(&mut self, level: c_int, kind: c_int, value: T) {
        let place = &mut self.room.0[self.len..self.len + space::<T>()];
        let header = place.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the place is aligned for a header, because the room is and `space` keeps it so; it is zeroed, as all
        // fields of a header may be, and has room for the header and, behind it, for the value.
        unsafe {
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = libc::CMSG_LEN(len::<T>()) as usize;
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        }
        self.len += space::<T>();
    }

    fn push_src(&mut self, src: IpAddr) {
        match src {
            IpAddr::V4(ip) => {
                let address = |s_addr| libc::in_addr { s_addr };
                let ipi_spec_dst = address(u32::from_ne_bytes(ip.octets()));
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: address(0) };
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            IpAddr::V6(ip) => {
                let ipi6_addr = libc::in6_addr { s6_addr: ip.octets() };
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 });
            }
        }
    }
}

/// Sends the bytes of `pieces`, one behind the other, on their way: as datagrams of `size` bytes and a last one that may
/// be shorter, or as one datagram. Never waits.
pub(super) fn send(socket: &impl AsFd, way: Way, size: Option<u16>, pieces: &[io::IoSlice<'_>]) -> io::Result<()> {
    let Way { to, src, tos } = way;
    let address = socket2::SockAddr::from(to);
    let mut control = Control::new();
    if let Some(size) = size {
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, size);
    }
    match (tos, to.is_ipv4()) {
        (0, _) => {}
        (tos, true) => control.push(libc::IPPROTO_IP, libc::IP_TOS, c_int::from(tos)),
        (tos, false) => control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, c_int::from(tos)),
    }
    if let Some(src) = src {
        control.push_src(src);
    }
    // SAFETY: all fields of the C struct may be zero.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = address.as_ptr().cast_mut().cast();
    message.msg_namelen = address.len();
    // An `IoSlice` is an `iovec` (std promises that), and the kernel only reads what it names.
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len();
    message.msg_control = control.room.0.as_mut_ptr().cast();
    message.msg_controllen = control.len;
    // SAFETY: every pointer in `message` is to something that lives until the call returns.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    Errno::result(sent).map(drop).map_err(io::Error::from)
}
