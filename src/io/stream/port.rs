//! One TCP port to listen on and to connect from, for TCP hole punching ([`crate::tcp`]): what others see of the port when
//! we connect from it is where they reach who listens on it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;

use super::{CONNECT, fit, said_by, within};

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

    /// Connects from there; with `ttl` no further than so many hops, and once. The other side's router may not be open yet:
    /// who is refused tries again.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn connect(self, to: SocketAddr, ttl: Option<u8>) -> Result<TcpStream, String> {
        let connect = async {
            loop {
                match self.try_connect(to, ttl).await {
                    Err(error) if ttl.is_none() && error.kind() == io::ErrorKind::ConnectionRefused => {
                        sleep(AGAIN).await;
                    }
                    connected => return connected,
                }
            }
        };
        within(CONNECT, connect).await.inspect(fit).map_err(|error| said_by(to, &error))
    }

    async fn try_connect(self, to: SocketAddr, ttl: Option<u8>) -> io::Result<TcpStream> {
        let socket = socket(to)?;
        let set_hops = |of: SockRef<'_>, hops| match to {
            SocketAddr::V4(_) => of.set_ttl_v4(hops),
            SocketAddr::V6(_) => of.set_unicast_hops_v6(hops),
        };
        ttl.map_or(Ok(()), |ttl| set_hops(SockRef::from(&socket), ttl.into()))?;
        socket.bind(any(to, self.0))?;
        let connected = socket.connect(to).await?;
        // It leads there after all.
        ttl.map_or(Ok(()), |_| set_hops(SockRef::from(&connected), HOPS))?;
        Ok(connected)
    }
}

/// A socket that shares its port.
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
            let (connected, accepted) = tokio::join!(here.connect(to, None), far.accept());
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
        let (a, b, c, d) =
            tokio::join!(here.connect(to_there, None), there.connect(to_here, None), accept(near), accept(far));
        let (here, there) = (either(a, c), either(b, d));
        assert_eq!(here.peer_addr().ok(), there.local_addr().ok());
        assert_eq!(there.peer_addr().ok(), here.local_addr().ok());
    }
}
