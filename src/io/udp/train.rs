//! Several datagrams to one address by one system call: UDP generic segmentation offload (`UDP_SEGMENT`, Linux 4.18).
//! The kernel, or the network card, cuts them; on the way through the kernel they are one.
#![allow(unsafe_code, reason = "sendmsg as nix wraps it allocates for every control message")]

use std::io;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// Room for one control message that carries a `u16`, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

// SAFETY: it computes a number.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(SIZE) } as usize;
/// Bytes of what it carries.
const SIZE: libc::c_uint = 2;

/// Sends the bytes of `pieces`, one behind the other, to `to`, as datagrams of `size` bytes and a last one that may be
/// shorter. Never waits.
pub(super) fn send(socket: BorrowedFd<'_>, to: SocketAddr, size: u16, pieces: &[io::IoSlice<'_>]) -> io::Result<()> {
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
    // SAFETY: the message's control buffer is `CONTROL` bytes long and aligned, enough for one header and a `u16`.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_UDP;
        (*header).cmsg_type = libc::UDP_SEGMENT;
        (*header).cmsg_len = libc::CMSG_LEN(SIZE) as usize;
        libc::CMSG_DATA(header).cast::<u16>().write_unaligned(size);
    }
    // SAFETY: every pointer in `message` is to something that lives until the call returns.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    Errno::result(sent).map(drop).map_err(io::Error::from)
}
