//! One TCP port to listen on and to connect from, for TCP hole punching ([`crate::tcp`]): what others see of the port when
//! we connect from it is where they reach who listens on it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{CONNECT, fit, said_by, within};
use crate::tcp::SYNS;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;
/// Another try at a port that only one family has free.
const TRIES: usize = 16;
/// A connection that is refused at once is tried again after this: the other side's router may be about to open.
const AGAIN: Duration = Duration::from_millis(700);
/// Hop limit of connections.
const HOPS: u32 = 64;

/// The port. Whoever listens on it has the listeners.
#[derive(Clone, Copy, Debug)]
pub struct Port(u16);

impl Port {
    /// A free port of both families, or of the one that there is, and who listens there.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> io::Result<(Self, Vec<TcpListener>)> {
        let mut tries = 0;
        loop {
            let v4 = listen((Ipv4Addr::UNSPECIFIED, 0).into());
            let port = v4.as_ref().ok().map(TcpListener::local_addr).transpose()?.map_or(0, |addr| addr.port());
            let v6 = listen((Ipv6Addr::UNSPECIFIED, port).into());
            tries += 1;
            match (v4, v6) {
                (Ok(_), Err(error)) if error.kind() == io::ErrorKind::AddrInUse && tries < TRIES => {}
                (Ok(v4), v6) => return Ok((Self(port), [Ok(v4), v6].into_iter().flatten().collect())),
                (Err(_), Ok(v6)) => return Ok((Self(v6.local_addr()?.port()), vec![v6])),
                (Err(error), Err(_)) => return Err(error),
            }
        }
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Connects from there. The other side's router may not be open yet: who is refused tries again, but sends no more than
    /// [`SYNS`] in all, as who gets no answer does.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn connect(self, to: SocketAddr) -> Result<TcpStream, String> {
        within(CONNECT, self.try_often(to, SYNS)).await.inspect(fit).map_err(|error| said_by(to, &error))
    }

    /// Begins to connect from there, no further than `hops` until `let_go`: so that our NAT is open, and this very socket can
    /// answer who comes through it.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn connect_late(
        self,
        to: SocketAddr,
        hops: u8,
        let_go: oneshot::Receiver<()>,
    ) -> Result<TcpStream, String> {
        self.try_late(to, hops, let_go).await.inspect(fit).map_err(|error| said_by(to, &error))
    }

    async fn try_late(self, to: SocketAddr, hops: u8, mut let_go: oneshot::Receiver<()>) -> io::Result<TcpStream> {
        let socket = self.socket(to)?;
        let handle = SockRef::from(&socket).try_clone()?;
        set_hops(&handle, to, hops.into())?;
        ignore_who_dropped(&handle, to, hops + 1);
        let mut connecting = std::pin::pin!(socket.connect(to));
        let early = tokio::select! {
            // It leads there after all; or somebody did away with it, and it is let go all the same.
            ended = &mut connecting => Some(ended),
            told = &mut let_go => match told {
                Ok(()) => None,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            },
        };
        let connected = match early {
            Some(Err(_)) => {
                let_go.await.map_err(|_| io::ErrorKind::TimedOut)?;
                return within(CONNECT, self.try_often(to, SYNS - 1)).await;
            }
            Some(Ok(connected)) => connected,
            None => {
                set_hops(&handle, to, HOPS)?;
                match within(CONNECT, connecting).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        return within(CONNECT, self.try_often(to, SYNS - 2)).await;
                    }
                    connected => connected?,
                }
            }
        };
        set_hops(&handle, to, HOPS)?;
        Ok(connected)
    }

    /// Connects, and again when it is refused.
    async fn try_often(self, to: SocketAddr, times: u32) -> io::Result<TcpStream> {
        for _ in 1..times {
            match self.socket(to)?.connect(to).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => sleep(AGAIN).await,
                connected => return connected,
            }
        }
        self.socket(to)?.connect(to).await
    }

    fn socket(self, to: SocketAddr) -> io::Result<TcpSocket> {
        let socket = socket(to)?;
        socket.bind(any(to, self.0))?;
        Ok(socket)
    }
}

fn set_hops(of: &socket2::Socket, family: SocketAddr, hops: u32) -> io::Result<()> {
    match family {
        SocketAddr::V4(_) => of.set_ttl_v4(hops),
        SocketAddr::V6(_) => of.set_unicast_hops_v6(hops),
    }
}

/// A router that drops what we sent because it was to go no further says so, and the system would end the attempt. Linux lets
/// pass by what a router says of packets that were to go less than so many hops further (as RFC 5082 has it); elsewhere the
/// attempt ends, and is made anew when it is let go.
#[cfg(target_os = "linux")]
fn ignore_who_dropped(socket: &socket2::Socket, family: SocketAddr, hops: u8) {
    use nix::sys::socket::setsockopt;
    use options::{MinHopCount, MinTtl};
    let ignored = match family {
        SocketAddr::V4(_) => setsockopt(socket, MinTtl, &hops.into()),
        SocketAddr::V6(_) => setsockopt(socket, MinHopCount, &hops.into()),
    };
    if let Err(error) = ignored {
        tracing::debug!(%error, "a router may end an attempt that opens the NAT");
    }
}

/// Socket options that nix has no names for.
#[cfg(target_os = "linux")]
mod options {
    use nix::libc::{self, IP_MINTTL, IPPROTO_IP, IPPROTO_IPV6, IPV6_MINHOPCOUNT};
    use nix::{setsockopt_impl, sockopt_impl};

    sockopt_impl!(MinTtl, SetOnly, IPPROTO_IP, IP_MINTTL, i32);
    sockopt_impl!(MinHopCount, SetOnly, IPPROTO_IPV6, IPV6_MINHOPCOUNT, i32);
}

#[cfg(not(target_os = "linux"))]
fn ignore_who_dropped(_: &socket2::Socket, _: SocketAddr, _: u8) {}

/// A socket that shares its port, for several are to have it: on Windows any process of this machine may take part then, as on
/// Linux those of the same user; whoever connects has to prove who it is in any case.
fn socket(family: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if family.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    #[cfg(unix)]
    socket.set_reuseport(true)?;
    if family.is_ipv6() {
        SockRef::from(&socket).set_only_v6(true)?;
    }
    Ok(socket)
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(addr)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Any address of that family.
fn any(family: SocketAddr, port: u16) -> SocketAddr {
    match family {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn listener(listeners: &[TcpListener], ip: IpAddr) -> Option<&TcpListener> {
        listeners.iter().find(|l| l.local_addr().is_ok_and(|addr| addr.is_ipv4() == ip.is_ipv4()))
    }

    #[tokio::test]
    async fn it_is_listened_on_and_connected_from_at_once_in_both_families() {
        let ((here, near), (there, far)) = (Port::open().expect("free"), Port::open().expect("free"));
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let (Some(_), Some(far)) = (listener(&near, ip), listener(&far, ip)) else { continue };
            let to = SocketAddr::new(ip, there.number());
            let (connected, accepted) = tokio::join!(here.connect(to), far.accept());
            assert_eq!(connected.expect("connected").local_addr().expect("bound").port(), here.number());
            assert_eq!(accepted.expect("accepted").1.port(), here.number());
        }
    }

    /// Two connections become one, where the SYNs cross; else one side accepts.
    #[tokio::test]
    async fn two_that_connect_to_each_other_at_once_are_connected() {
        let ((here, near), (there, far)) = (Port::open().expect("free"), Port::open().expect("free"));
        let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
        let [to_there, to_here] = [there, here].map(|port| SocketAddr::new(ip, port.number()));
        let either =
            |mine: Result<TcpStream, String>, theirs: Option<TcpStream>| mine.ok().or(theirs).expect("one of both");
        let accept = |listeners: Vec<TcpListener>| async move {
            let accepted = within(Duration::from_secs(1), listener(&listeners, ip).expect("IPv4").accept()).await;
            accepted.ok().map(|(tcp, _)| tcp)
        };
        let (a, b, c, d) = tokio::join!(here.connect(to_there), there.connect(to_here), accept(near), accept(far));
        let (here, there) = (either(a, c), either(b, d));
        assert_eq!(here.peer_addr().ok(), there.local_addr().ok());
        assert_eq!(there.peer_addr().ok(), here.local_addr().ok());
    }
}
