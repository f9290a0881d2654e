//! A member answers who asks whether what is for many arrives ([`crate::wire::doctor`]).
//!
//! Its sockets are the system's, on the overlay's interface alone: a firewall here meets question and answer as it meets a
//! game's. Who is no member gets no answer, and nobody gets more of them than somebody who tries twice needs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::addr::OverlayNet;
use crate::io::clock;
use crate::sans::RateLimit;
use crate::wire::doctor::{Answer, GROUP, LONGEST, PORT, Question};

/// Answers a second, and at once: all that some members ask in one go, each in four ways and twice.
const RATE: u32 = 50;
const AT_ONCE: u32 = 200;
/// After an error.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers while it lives.
#[derive(Debug)]
pub struct Answers {
    _tasks: JoinSet<()>,
}

impl Answers {
    /// Begins to answer members of this overlay on its interface, as `name`. Where the system gives no socket, nothing is
    /// answered, which costs nobody anything but the answer. Must be called inside a tokio runtime.
    pub fn start((interface, index): (&str, u32), overlay: OverlayNet, name: &str) -> Self {
        let mut tasks = JoinSet::new();
        for socket in [v4(interface, index), v6(interface)] {
            match socket {
                Ok(socket) => drop(tasks.spawn(answer(socket, overlay, name.to_owned()))),
                Err(error) => tracing::debug!(%error, interface, "`punchlan games` of others gets no answer"),
            }
        }
        Self { _tasks: tasks }
    }
}

fn v4(interface: &str, index: u32) -> io::Result<UdpSocket> {
    let socket = on(Domain::IPV4, interface)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    if let Err(error) = socket.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(index)) {
        tracing::debug!(%error, interface, "`punchlan games` of others gets no answer to multicast");
    }
    UdpSocket::from_std(socket.into())
}

fn v6(interface: &str) -> io::Result<UdpSocket> {
    let socket = on(Domain::IPV6, interface)?;
    socket.set_only_v6(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
    UdpSocket::from_std(socket.into())
}

/// Elsewhere than on Linux the source tells alone.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables, reason = "there is no such option"))]
fn on(family: Domain, interface: &str) -> io::Result<Socket> {
    let socket = Socket::new(family, Type::DGRAM, Some(Protocol::UDP))?;
    #[cfg(target_os = "linux")]
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn answer(socket: UdpSocket, overlay: OverlayNet, name: String) {
    let mut limit = RateLimit::new(RATE, AT_ONCE);
    let mut buffer = [0; LONGEST];
    loop {
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // One that did not arrive, or the interface is down.
                tracing::debug!(%error, "asked by `punchlan games`");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(Question(nonce)) = Question::decode(&buffer[..len]) else { continue };
        if is_member(&overlay, from.ip()) && limit.allow(clock::now()) {
            let _ = socket.send_to(&Answer { nonce, name: name.clone() }.encode(), from).await;
        }
    }
}

fn is_member(overlay: &OverlayNet, from: IpAddr) -> bool {
    match from {
        IpAddr::V4(ip) => overlay.v4.contains(&ip),
        IpAddr::V6(ip) => overlay.v6.contains(&ip),
    }
}
