//! What a router announces unasked: that it was started, that its address outside is another, that it goes.
//!
//! PCP and NAT-PMP routers tell it to 224.0.0.1, port 5350 (RFC 6886 §3.2.1, RFC 6887 §14.1), UPnP ones to 239.255.255.250,
//! port 1900 (UPnP Device Architecture 1.1 §1.2), where all devices of a LAN say every few minutes that they are there.
//! None of it is believed: it is a reason to ask.
//!
//! The sockets are bound to the groups, not to the machine's own addresses, so that they take nothing away from other
//! programs here. Windows binds to no group; there a mapping is looked after at half of its time, and whenever this
//! machine's own network changes.

use super::Place;

#[cfg(unix)]
pub(super) use unix::Announced;

#[cfg(not(unix))]
pub(super) use deaf::Announced;

#[cfg(unix)]
mod unix {
    use std::io;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::pin::Pin;
    use std::time::Duration;

    use socket2::{Domain, Protocol, Socket, Type};
    use tokio::net::UdpSocket;

    use super::{Boot, Place, boot};

    /// Where PCP and NAT-PMP routers announce.
    const CONTROL: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 1), 5350);
    /// Where UPnP devices announce.
    const SSDP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 255, 250), 1900);
    /// Announcements come in bursts, and anybody can send a flood of them: one in so much time is enough.
    const PAUSE: Duration = Duration::from_secs(1);
    /// Longer ones are cut.
    const LONGEST: usize = 1_500;

    /// What the router of a place announces.
    #[derive(Debug)]
    pub(in crate::io::portmap) struct Announced {
        place: Place,
        control: Option<UdpSocket>,
        ssdp: Option<UdpSocket>,
        /// The number of the router's last start; the first that is heard may be that of another start than ours.
        boot: Option<u32>,
        /// The pause after the last one that was told.
        pause: Option<Pin<Box<tokio::time::Sleep>>>,
    }

    impl Announced {
        /// Listens, as far as the system lets us. Must be called inside a tokio runtime.
        pub(in crate::io::portmap) fn listen(place: Place) -> Option<Self> {
            let heard = |group| match socket(group, place.local) {
                Ok(socket) => Some(socket),
                Err(error) => {
                    tracing::debug!(%error, ?group, "announcements of routers are not heard");
                    None
                }
            };
            Some(Self { place, control: heard(CONTROL), ssdp: heard(SSDP), boot: None, pause: None })
        }

        /// Where it listens.
        pub(in crate::io::portmap) const fn place(&self) -> Place {
            self.place
        }

        /// Waits for the next announcement that may concern a mapping. May be dropped and called again at any time.
        pub(in crate::io::portmap) async fn next(&mut self) {
            if let Some(pause) = &mut self.pause {
                pause.await;
                self.pause = None;
            }
            let (mut control, mut ssdp) = ([0; 1], [0; LONGEST]);
            loop {
                let from = tokio::select! {
                    (_, from) = receive(self.control.as_ref(), &mut control) => from,
                    (length, from) = receive(self.ssdp.as_ref(), &mut ssdp) => {
                        match boot(&ssdp[..length]) {
                            _ if from.ip() != IpAddr::V4(self.place.gateway) => continue,
                            Boot::Leaves => from,
                            Boot::Number(number) if self.boot.replace(number) != Some(number) => from,
                            Boot::Number(_) | Boot::Unknown => continue,
                        }
                    }
                };
                if from.ip() == IpAddr::V4(self.place.gateway) {
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                    return;
                }
            }
        }
    }

    async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> (usize, SocketAddr) {
        if let Some(socket) = socket {
            match socket.recv_from(buffer).await {
                Ok(received) => return received,
                Err(error) => tracing::debug!(%error, "announcements of routers are heard no longer"),
            }
        }
        std::future::pending().await
    }

    /// A socket for what is sent to a group on the interface with the address `local`.
    fn socket((group, port): (Ipv4Addr, u16), local: Ipv4Addr) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        // There the sharing of a group's port has another name.
        #[cfg(not(target_os = "linux"))]
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((group, port)).into())?;
        match socket.join_multicast_v4(&group, &local) {
            // Everybody is a member of the group of all hosts.
            Err(error) if group != CONTROL.0 => return Err(error),
            _ => {}
        }
        UdpSocket::from_std(socket.into())
    }
}

#[cfg(not(unix))]
mod deaf {
    use super::Place;

    /// There is none.
    #[derive(Debug)]
    pub(in crate::io::portmap) enum Announced {}

    impl Announced {
        pub(in crate::io::portmap) const fn listen(_: Place) -> Option<Self> {
            None
        }

        pub(in crate::io::portmap) const fn place(&self) -> Place {
            match *self {}
        }

        pub(in crate::io::portmap) async fn next(&mut self) {
            match *self {}
        }
    }
}

/// What a UPnP announcement says of its sender's life.
#[cfg_attr(not(unix), allow(dead_code, reason = "nothing is heard there"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boot {
    /// It goes: `NTS: ssdp:byebye`.
    Leaves,
    /// Which of its starts this is: `BOOTID.UPNP.ORG`.
    Number(u32),
    /// Nothing.
    Unknown,
}

/// Reads an announcement: lines of `NAME: value` behind `NOTIFY * HTTP/1.1`, in any case.
#[cfg_attr(not(unix), allow(dead_code, reason = "nothing is heard there"))]
fn boot(bytes: &[u8]) -> Boot {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    if !lines.next().is_some_and(|first| first.starts_with("NOTIFY ")) {
        return Boot::Unknown;
    }
    let mut number = Boot::Unknown;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("NTS") && value.eq_ignore_ascii_case("ssdp:byebye") {
            return Boot::Leaves;
        }
        if name.eq_ignore_ascii_case("BOOTID.UPNP.ORG") {
            number = value.parse().map_or(Boot::Unknown, Boot::Number);
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_and_ends_of_devices_are_read_and_all_else_is_nothing() {
        let alive = b"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNTS: ssdp:alive\r\nbootid.upnp.org:17\r\n\r\n";
        assert_eq!(boot(alive), Boot::Number(17));
        assert_eq!(boot(b"NOTIFY * HTTP/1.1\r\nBOOTID.UPNP.ORG: 1\r\nNTS:ssdp:byebye\r\n\r\n"), Boot::Leaves);
        for nothing in [
            &b"M-SEARCH * HTTP/1.1\r\nNTS: ssdp:byebye\r\n"[..],
            b"NOTIFY * HTTP/1.1\r\nBOOTID.UPNP.ORG: 99999999999\r\n",
            b"NOTIFY",
            b"",
            &[0xff; 1_500],
        ] {
            assert_eq!(boot(nothing), Boot::Unknown);
        }
    }
}
