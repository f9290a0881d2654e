//! Several datagrams to one address by one system call: UDP generic segmentation offload (`UDP_SEGMENT`, Linux 4.18).
//! The kernel, or the network card, cuts them; on the way through the kernel they are one.
#![allow(unsafe_code, reason = "sendmsg as nix wraps it allocates for every control message")]

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// Room for two control messages, the length of a datagram and the source address, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

// SAFETY: it computes a number.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(SIZE) + libc::CMSG_SPACE(INFO_V6) } as usize;
/// Bytes of a length, and of the source address of each family.
const SIZE: libc::c_uint = 2;
const INFO_V4: libc::c_uint = 12;
const INFO_V6: libc::c_uint = 20;
const _: () = assert!(size_of::<libc::in_pktinfo>() == INFO_V4 as usize);
const _: () = assert!(size_of::<libc::in6_pktinfo>() == INFO_V6 as usize);

/// Sends the bytes of `pieces`, one behind the other, from `src` to `to`, as datagrams of `size` bytes and a last one that
/// may be shorter. Never waits.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    to: SocketAddr,
    src: Option<IpAddr>,
    size: u16,
    pieces: &[io::IoSlice<'_>],
) -> io::Result<()> {
    let address = socket2::SockAddr::from(to);
    let mut control = Control([0; CONTROL]);
    // SAFETY: all fields of the C struct may be zero.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = address.as_ptr().cast_mut().cast();
    message.msg_namelen = address.len();
    // An `IoSlice` is an `iovec` (std promises that), and the kernel only reads what it names.
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len();
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL;
    // SAFETY: the control buffer is aligned and has room for a `u16` and the longer of the two addresses, each behind
    // its header; what is written fits the length that its header names.
    message.msg_controllen = unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        head(first, libc::SOL_UDP, libc::UDP_SEGMENT, SIZE);
        libc::CMSG_DATA(first).cast::<u16>().write_unaligned(size);
        let second = first.cast::<u8>().add(libc::CMSG_SPACE(SIZE) as usize).cast::<libc::cmsghdr>();
        let more = match src {
            None => 0,
            Some(IpAddr::V4(ip)) => {
                let mut info: libc::in_pktinfo = zeroed();
                info.ipi_spec_dst.s_addr = u32::from_ne_bytes(ip.octets());
                head(second, libc::IPPROTO_IP, libc::IP_PKTINFO, INFO_V4);
                libc::CMSG_DATA(second).cast::<libc::in_pktinfo>().write_unaligned(info);
                libc::CMSG_SPACE(INFO_V4)
            }
            Some(IpAddr::V6(ip)) => {
                let mut info: libc::in6_pktinfo = zeroed();
                info.ipi6_addr.s6_addr = ip.octets();
                head(second, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, INFO_V6);
                libc::CMSG_DATA(second).cast::<libc::in6_pktinfo>().write_unaligned(info);
                libc::CMSG_SPACE(INFO_V6)
            }
        };
        (libc::CMSG_SPACE(SIZE) + more) as usize
    };
    // SAFETY: every pointer in `message` is to something that lives until the call returns.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    Errno::result(sent).map(drop).map_err(io::Error::from)
}

/// Writes the header of a control message.
///
/// # Safety
/// `at` is aligned and has room for a header.
unsafe fn head(at: *mut libc::cmsghdr, level: libc::c_int, kind: libc::c_int, len: libc::c_uint) {
    // SAFETY: as the caller promises; `CMSG_LEN` computes a number.
    unsafe {
        (*at).cmsg_level = level;
        (*at).cmsg_type = kind;
        (*at).cmsg_len = libc::CMSG_LEN(len) as usize;
    }
}
