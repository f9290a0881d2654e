//! What `punchlan games` does and sees: with ordinary sockets, as a game has them, so that it meets what a game meets.
//!
//! | what | where |
//! |---|---|
//! | a member's answers, in its daemon | [`Answers`] |
//! | who answers, and to what | [`round_trip`] |
//! | who else says that it is there | [`ears`] |
//! | the interface, the ways, the firewall, who listens here | [`machine`] |
//!
//! Nothing is changed on this machine; the firewall is read alone.

mod answers;
pub mod ears;
pub mod machine;
pub mod round_trip;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

pub use answers::Answers;

/// The longest datagram that is read.
const LONGEST: usize = 1_500;

/// A socket that is bound to no address, as games have them, and may write to everybody.
fn unbound() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    UdpSocket::from_std(socket.into())
}
