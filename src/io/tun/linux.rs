//! The TUN device on Linux: made by the `tun` crate, read and written here, so that a loop can drain many
//! packets after one wake-up without the crate's extra copy.
#![allow(unsafe_code, reason = "a descriptor is taken over from the tun crate, which knows only raw ones")]

use std::io;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};

use nix::errno::Errno;
use tun::AbstractDevice as _;

use super::LAST_NUMBER;
use crate::io::watched::{self, Watched};

/// A TUN device. All methods take `&self`: share it by reference or `Arc`. Gone when dropped.
#[derive(Debug)]
pub struct Tun {
    fd: Watched,
    name: String,
    index: u32,
}

impl Tun {
    /// Makes the first free `{prefix}N`, down and without addresses; the MTU is set with the addresses
    /// ([`crate::io::net::Network::configure`]). Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's; `PermissionDenied` without CAP_NET_ADMIN.
    pub fn open(prefix: &str, _mtu: u16) -> io::Result<Self> {
        for number in 0..=LAST_NUMBER {
            let name = format!("{prefix}{number}");
            // Whatever bears the name already is somebody's: also a device that could be attached to.
            if nix::net::if_::if_nametoindex(name.as_str()).is_ok() {
                continue;
            }
            match create(&name) {
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

    /// Waits for a packet and puts it into `buf`; its length. What does not fit is cut off. May be dropped
    /// and called again at any time.
    ///
    /// # Errors
    /// The device is gone.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.fd.read(|fd| Ok(nix::unistd::read(fd, buf)?)).await
    }

    /// As [`Tun::recv`], but `None` if there is no packet now: for draining after a wake-up.
    ///
    /// # Errors
    /// The device is gone.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match nix::unistd::read(self.fd.fd(), buf) {
            Ok(len) => Ok(Some(len)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives a packet to the kernel. Never waits.
    ///
    /// # Errors
    /// The kernel refused the packet (`InvalidInput`: it is none; `EIO`: the interface is down), or the
    /// device is gone.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        nix::unistd::write(self.fd.fd(), packet)?;
        Ok(())
    }
}

/// Makes the device `name`.
fn create(name: &str) -> io::Result<Tun> {
    let mut config = tun::Configuration::default();
    // Addresses, MTU and state are set by netlink; the crate knows no IPv6.
    config.tun_name(name).platform_config(|platform| {
        platform.ensure_root_privileges(false);
    });
    let device = tun::create(&config)?;
    device.set_nonblock()?;
    let name = device.tun_name()?;
    let index = nix::net::if_::if_nametoindex(name.as_str())?;
    // SAFETY: `into_raw_fd` gives up the crate's ownership of an open descriptor, so ours is the only one.
    let fd = unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) };
    Ok(Tun { fd: watched::readable(fd)?, name, index })
}

/// Somebody took the name just now.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EBUSY | Errno::EEXIST))
}
