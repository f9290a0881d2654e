//! What is missing before the overlay's interface can be made, said with the command that helps.

use std::io;

/// Why no interface can be made here. Exit code 3.
#[derive(Debug, thiserror::Error)]
pub enum PermissionError {
    /// Neither root nor the one capability that is needed.
    #[error("{}", NOT_ADMIN)]
    NotAdmin,
    /// Root, but inside a container (or under a service manager) that took the capability away.
    #[error(
        "root has no CAP_NET_ADMIN here, so no network interface can be made; \
         give it to the container (--cap-add NET_ADMIN --device /dev/net/tun) or the service (AmbientCapabilities=CAP_NET_ADMIN)"
    )]
    CapabilityTakenAway,
    /// The kernel's module for TUN and TAP is not loaded, or the container does not show its device.
    #[error(
        "there is no /dev/net/tun; type: sudo modprobe tun   (in a container: start it with --device /dev/net/tun)"
    )]
    NoTunDevice,
    /// The device is there, but may not be opened.
    #[error("/dev/net/tun may not be opened ({0}); type: sudo punchlan up net.toml")]
    TunNotOpenable(#[source] io::Error),
}

#[cfg(not(windows))]
const NOT_ADMIN: &str = "making a network interface is not permitted; type: sudo punchlan up net.toml   \
    (or once, on Linux: sudo setcap cap_net_admin,cap_net_raw+ep $(which punchlan))";
#[cfg(windows)]
const NOT_ADMIN: &str = "making a network interface is not permitted; start the terminal with \"Run as administrator\"";

/// Whether an interface can be made here.
///
/// # Errors
/// What is missing, with the command that helps.
#[cfg(target_os = "linux")]
pub fn check() -> Result<(), PermissionError> {
    // The device first: without root it may not even be opened, but that it is missing is the better news.
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let admin = linux::has_net_admin();
    match device {
        Err(error) if linux::is_absent(&error) => return Err(PermissionError::NoTunDevice),
        _ if !admin && nix::unistd::geteuid().is_root() => return Err(PermissionError::CapabilityTakenAway),
        _ if !admin => return Err(PermissionError::NotAdmin),
        Err(error) => return Err(PermissionError::TunNotOpenable(error)),
        Ok(_) => {}
    }
    Ok(())
}

/// Whether an interface can be made here.
///
/// # Errors
/// What is missing, with the command that helps.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn check() -> Result<(), PermissionError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(PermissionError::NotAdmin) }
}

/// Whether an interface can be made here: Windows tells only when it is tried (see [`of_open`]).
///
/// # Errors
/// None.
#[cfg(windows)]
pub fn check() -> Result<(), PermissionError> {
    Ok(())
}

/// Whether the error of making an interface means that it is not permitted.
pub fn of_open(error: &io::Error) -> Option<PermissionError> {
    (error.kind() == io::ErrorKind::PermissionDenied).then_some(PermissionError::NotAdmin)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use nix::libc;

    /// Bit of CAP_NET_ADMIN in a capability set (linux/capability.h).
    const CAP_NET_ADMIN: u32 = 12;

    /// The device node is missing, or nothing stands behind it.
    pub(super) fn is_absent(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::NotFound
            || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::ENOTDIR))
    }

    /// Whether this thread has CAP_NET_ADMIN; without `/proc`, whether it is root.
    pub(super) fn has_net_admin() -> bool {
        match std::fs::read_to_string("/proc/thread-self/status") {
            Ok(status) => net_admin_in(&status),
            Err(_) => nix::unistd::geteuid().is_root(),
        }
    }

    pub(super) fn net_admin_in(status: &str) -> bool {
        let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let bits = set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        bits.is_some_and(|bits| bits >> CAP_NET_ADMIN & 1 == 1)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_read_from_the_effective_set() {
        assert!(linux::net_admin_in("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000001000\n"));
        assert!(!linux::net_admin_in("CapPrm:\t0000000000001000\nCapEff:\t0000000000000000\n"));
        assert!(!linux::net_admin_in("CapEff:\tzz\n"));
        assert!(!linux::net_admin_in(""));
    }

    #[test]
    fn every_refusal_says_what_to_type() {
        assert!(PermissionError::NotAdmin.to_string().contains("sudo punchlan up net.toml"));
        assert!(
            PermissionError::NotAdmin
                .to_string()
                .contains("sudo setcap cap_net_admin,cap_net_raw+ep $(which punchlan)")
        );
        assert!(PermissionError::NoTunDevice.to_string().contains("modprobe tun"));
        assert!(PermissionError::CapabilityTakenAway.to_string().contains("--cap-add NET_ADMIN"));
        assert!(of_open(&io::Error::from_raw_os_error(nix::libc::EPERM)).is_some());
        assert!(of_open(&io::Error::from_raw_os_error(nix::libc::EBUSY)).is_none());
    }
}
