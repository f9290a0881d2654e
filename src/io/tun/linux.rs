//! The interface on Linux: a TAP device, made by the `tun` crate, read and written here, so that a loop can drain many
//! packets after one wake-up without the crate's extra copy. Before every packet there are two headers, which are read into
//! the free bytes before the packet's place, and written as a piece of their own:
//!
//! ```text
//!   [ vnet 10 | Ethernet 14 | IP packet ]
//! ```
//!
//! A TAP and no TUN, because a TUN is point-to-point and cannot broadcast, and programs that look for others on a LAN pass
//! such interfaces by.
#![allow(unsafe_code, reason = "a descriptor is taken over from the tun crate, which knows only raw ones")]

use std::io::{self, IoSlice, IoSliceMut};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use tun::AbstractDevice as _;

use super::ethernet::{self, Ethernet};
use super::{LAST_NUMBER, LEAD};
use crate::io::watched::{self, Watched};
use crate::offload::{Offload, Vnet};

/// The interface. All methods take `&self`: share it by reference or `Arc`. Gone when dropped.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    /// The event loop's, from the first [`Tun::recv`] on.
    watched: OnceLock<Watched>,
    name: String,
    index: u32,
    ethernet: Ethernet,
    /// A [`Vnet`] stands before every frame.
    vnet: bool,
    /// UDP super-packets pass.
    udp: bool,
}

/// What we take over from the kernel: checksums, cutting TCP, cutting UDP (Linux 6.2).
const CHECKSUM_TCP: u32 = nix::libc::TUN_F_CSUM | nix::libc::TUN_F_TSO4 | nix::libc::TUN_F_TSO6;
const UDP: u32 = nix::libc::TUN_F_USO4 | nix::libc::TUN_F_USO6;
/// From where a [`Vnet`]'s places count: the Ethernet header.
const LINK: u16 = 14;
const _: () = assert!(LINK as usize == Ethernet::LEN && LEAD == Vnet::LEN + Ethernet::LEN);
/// Most pieces of a packet that is written at once.
const PIECES: usize = 80;

nix::ioctl_write_int!(set_offload, b'T', 208);

impl Tun {
    /// Makes the first free `{prefix}N`, down and without addresses; the MTU and the hardware address are set with them
    /// ([`crate::io::net::Network::configure`]). The kernel leaves as much to us as it can, and `offload` allows.
    ///
    /// # Errors
    /// The system's; `PermissionDenied` without CAP_NET_ADMIN.
    pub fn open(prefix: &str, _mtu: u16, offload: Offload) -> io::Result<Self> {
        for number in 0..=LAST_NUMBER {
            let name = format!("{prefix}{number}");
            // Whatever bears the name already is somebody's: also a device that could be attached to.
            if nix::net::if_::if_nametoindex(name.as_str()).is_ok() {
                continue;
            }
            match create(&name, offload) {
                Err(error) if is_taken(&error) => {}
                other => return other,
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{prefix}0 to {prefix}{LAST_NUMBER} are all taken")))
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The interface has this hardware address now.
    pub(crate) fn set_hardware_address(&self, address: ethernet::Address) {
        self.ethernet.set_own(address);
    }

    /// Its subnet has this broadcast address now.
    pub(crate) fn set_broadcast(&self, broadcast: Ipv4Addr) {
        self.ethernet.set_broadcast(broadcast);
    }

    /// Waits for a packet and puts it into `buf` at `at`, which is at least [`LEAD`], and what does not fit there
    /// into `rest`: what is to be done with it, and its length. What does not fit there either is cut off. Frames with
    /// anything but IP inside are dropped. May be dropped and called again at any time. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// The device is gone.
    pub async fn recv(&self, buf: &mut [u8], at: usize, rest: &mut [u8]) -> io::Result<(Vnet, usize)> {
        let watched = match self.watched.get() {
            Some(watched) => watched,
            None => {
                let watched = watched::readable(self.fd.try_clone()?)?;
                self.watched.get_or_init(|| watched)
            }
        };
        watched.read(|fd| self.read(fd, buf, at, rest)).await
    }

    /// As [`Tun::recv`], but `None` if there is no packet now: for draining after a wake-up.
    ///
    /// # Errors
    /// The device is gone.
    pub fn try_recv(&self, buf: &mut [u8], at: usize, rest: &mut [u8]) -> io::Result<Option<(Vnet, usize)>> {
        match self.read(&self.fd, buf, at, rest) {
            Ok(read) => Ok(Some(read)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&self, fd: &OwnedFd, buf: &mut [u8], at: usize, rest: &mut [u8]) -> io::Result<(Vnet, usize)> {
        let frame = at - Ethernet::LEN;
        let start = if self.vnet { at - LEAD } else { frame };
        // No other frame may end it: the event loop believes that nothing waits any more when this says so.
        loop {
            let len = nix::sys::uio::readv(fd, &mut [IoSliceMut::new(&mut buf[start..]), IoSliceMut::new(rest)])?;
            let Some(len) = len.checked_sub(at - start).filter(|_| ethernet::is_ip(&buf[frame..at])) else {
                tracing::trace!(len, "a frame that is no IP packet");
                continue;
            };
            // Nothing stands there where the kernel does all of its work itself.
            let vnet = buf[start..frame].try_into().map_or(Vnet::PLAIN, |vnet| Vnet::decode(vnet, LINK));
            return Ok((vnet, len));
        }
    }

    /// Gives a packet to the kernel. Never waits.
    ///
    /// # Errors
    /// The kernel refused the packet (`InvalidInput`: it is none; `EIO`: the interface is down), or the
    /// device is gone.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.send_joined(&Vnet::PLAIN, packet, &[])
    }

    /// Whether packets with partial checksums, and super-packets of this type, can be given to the kernel.
    pub const fn takes(&self, gso_type: u8) -> bool {
        self.vnet && (self.udp || gso_type != Vnet::UDP)
    }

    /// Gives it a packet or super-packet in pieces: what is to be done with it, its headers, its payloads. Other than
    /// [`Vnet::PLAIN`] only where [`Tun::takes`] says so.
    ///
    /// # Errors
    /// As [`Tun::send`].
    pub fn send_joined(&self, vnet: &Vnet, head: &[u8], parts: &[&[u8]]) -> io::Result<()> {
        let mut lead = [0; LEAD];
        lead[..Vnet::LEN].copy_from_slice(&vnet.encode(LINK));
        lead[Vnet::LEN..].copy_from_slice(&self.ethernet.header(head).ok_or(io::ErrorKind::InvalidInput)?);
        let lead = if self.vnet { &lead[..] } else { &lead[Vnet::LEN..] };
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let all = [lead, head].into_iter().chain(parts.iter().copied());
        let count = pieces.iter_mut().zip(all).map(|(piece, bytes)| *piece = IoSlice::new(bytes)).count();
        nix::sys::uio::writev(&self.fd, &pieces[..count])?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes the device `name`.
fn create(name: &str, offload: Offload) -> io::Result<Tun> {
    let vnet = offload != Offload::Off;
    let mut config = tun::Configuration::default();
    // Addresses, MTU and state are set by netlink; the crate knows no IPv6.
    config.tun_name(name).layer(tun::Layer::L2).platform_config(|platform| {
        platform.ensure_root_privileges(false).vnet_hdr(vnet);
    });
    let device = tun::create(&config)?;
    device.set_nonblock()?;
    let name = device.tun_name()?;
    let index = nix::net::if_::if_nametoindex(name.as_str())?;
    // SAFETY: `into_raw_fd` gives up the crate's ownership of an open descriptor, so ours is the only one.
    let fd = unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) };
    let udp = vnet && take_over(&fd, offload);
    Ok(Tun { fd, watched: OnceLock::new(), name, index, ethernet: Ethernet::default(), vnet, udp })
}

/// Has the kernel leave as much work to us as it can leave; whether it knows UDP super-packets.
fn take_over(fd: &OwnedFd, offload: Offload) -> bool {
    use std::os::fd::AsRawFd as _;

    let all = [CHECKSUM_TCP | UDP, CHECKSUM_TCP];
    for flags in all.into_iter().skip(usize::from(offload == Offload::Tcp)) {
        // SAFETY: the descriptor is an open TAP device's, and the argument of this call is a number.
        if unsafe { set_offload(fd.as_raw_fd(), flags.into()) }.is_ok() {
            return flags & UDP != 0;
        }
    }
    tracing::debug!("the kernel leaves nothing to us: one packet at a time");
    false
}

/// Somebody took the name just now.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EBUSY | Errno::EEXIST))
}
