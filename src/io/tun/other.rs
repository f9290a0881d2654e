//! The TUN device on macOS and Windows, as the `tun` crate makes it. macOS names it `utunN` whatever we
//! ask for; Windows makes it with `wintun.dll`, which must lie beside the program.

use std::io;

use tun::AbstractDevice as _;

use crate::offload::{Offload, Vnet};

#[cfg(windows)]
use super::LAST_NUMBER;

/// A TUN device. All methods take `&self`: share it by reference or `Arc`. Gone when dropped.
pub struct Tun {
    device: tun::AsyncDevice,
    name: String,
    index: u32,
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tun({})", self.name)
    }
}

impl Tun {
    /// Makes the first free `{prefix}N` with this MTU, without addresses. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// The system's; `PermissionDenied` without administrator's rights.
    pub fn open(prefix: &str, mtu: u16, _offload: Offload) -> io::Result<Self> {
        let device = create(prefix, mtu)?;
        let name = device.tun_name()?;
        let index = u32::try_from(device.tun_index()?).map_err(io::Error::other)?;
        Ok(Self { device, name, index })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Waits for a packet and puts it into `buf` at `at`; nothing is to be done with it, and its length. There are no
    /// super-packets here, so nothing is left for `rest`. May be dropped and called again at any time.
    ///
    /// # Errors
    /// The device is gone.
    pub async fn recv(&self, buf: &mut [u8], at: usize, _rest: &mut [u8]) -> io::Result<(Vnet, usize)> {
        Ok((Vnet::PLAIN, self.device.recv(&mut buf[at..]).await?))
    }

    /// As [`Tun::recv`], but `None` if there is no packet now: for draining after a wake-up. Windows has no
    /// such call: there it is always `None`, and [`Tun::recv`] brings the next.
    ///
    /// # Errors
    /// The device is gone.
    pub fn try_recv(&self, buf: &mut [u8], at: usize, _rest: &mut [u8]) -> io::Result<Option<(Vnet, usize)>> {
        #[cfg(unix)]
        {
            // The device is in non-blocking mode since it was made asynchronous.
            match tun::Device::recv(&self.device, &mut buf[at..]) {
                Ok(len) => Ok(Some((Vnet::PLAIN, len))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error),
            }
        }
        #[cfg(not(unix))]
        {
            let _ = (buf, at);
            Ok(None)
        }
    }

    /// Gives a packet to the kernel. Never waits.
    ///
    /// # Errors
    /// The packet was refused, or the device is gone.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        tun::Device::send(&self.device, packet).map(drop)
    }

    /// Not here: the shell finishes checksums and gives packets one by one.
    pub const fn takes(&self, _gso_type: u8) -> bool {
        false
    }

    /// See [`Tun::takes`].
    ///
    /// # Errors
    /// Always.
    pub fn send_joined(&self, _vnet: &Vnet, _head: &[u8], _parts: &[&[u8]]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// macOS gives the next `utunN` by itself.
#[cfg(not(windows))]
fn create(_prefix: &str, mtu: u16) -> io::Result<tun::AsyncDevice> {
    let mut config = tun::Configuration::default();
    config.mtu(mtu);
    // Addresses and routes are ours to set (`net_other.rs`).
    config.platform_config(|platform| {
        platform.enable_routing(false);
    });
    Ok(tun::create_as_async(&config)?)
}

/// Windows opens an adapter that is there already, so a free name must be found first.
#[cfg(windows)]
fn create(prefix: &str, mtu: u16) -> io::Result<tun::AsyncDevice> {
    let taken: Vec<String> = if_addrs::get_if_addrs()?.into_iter().map(|interface| interface.name).collect();
    let name = (0..=LAST_NUMBER).map(|number| format!("{prefix}{number}")).find(|name| !taken.contains(name));
    let name = name.ok_or_else(|| io::Error::other(format!("{prefix}0 to {prefix}{LAST_NUMBER} are all taken")))?;
    let mut config = tun::Configuration::default();
    config.tun_name(name).mtu(mtu);
    // By its full path: a wintun.dll in whatever folder the terminal stands in must not be loaded.
    let dll = std::env::current_exe()?.with_file_name("wintun.dll");
    if !dll.exists() {
        let text = format!("{} is missing; take it from https://www.wintun.net", dll.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    config.platform_config(|platform| platform.wintun_file(dll));
    Ok(tun::create_as_async(&config)?)
}
