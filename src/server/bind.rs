//! Where a rendezvous listens.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use tokio::net::TcpListener;

use super::process::{Tls, Web};
use super::streams::Spoken;
use crate::daemon::Failure;
use crate::io::stream;
use crate::io::udp::{Socket, bind_pair};
use crate::io::web::Certificate;

/// STUN's port, on every address of either family.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 3478);

/// How often a port that both UDP and TCP have free is looked for.
const PAIR_ATTEMPTS: usize = 32;

/// The sockets for the addresses that were asked for.
pub(super) fn bind_all(listen: &[SocketAddr]) -> Result<(Vec<Socket>, Vec<TcpListener>), Failure> {
    const MOST: usize = 64;
    let listen = if listen.is_empty() { &[DEFAULT_LISTEN] } else { listen };
    if listen.len() > MOST {
        return Err(Failure::Config(format!("more than {MOST} addresses to listen on")));
    }
    for (i, addr) in listen.iter().enumerate() {
        let Some(other) = listen[..i].iter().find(|other| overlap(other, addr)) else { continue };
        let (part, whole) = if breadth(addr) > breadth(other) { (other, addr) } else { (addr, other) };
        let what = if part == whole { "is listened on twice".to_owned() } else { format!("is part of {whole}") };
        return Err(Failure::Config(format!(
            "{part} {what}: delete one of the two, behind --listen or in rendezvous.toml"
        )));
    }
    let (mut sockets, mut listeners) = (Vec::new(), Vec::new());
    for addr in listen {
        let (udp, tcp) = bind(*addr)?;
        sockets.extend(udp);
        listeners.extend(tcp);
    }
    Ok((sockets, listeners))
}

/// One address by UDP, and by TCP on the same port unless another program has that.
fn bind(addr: SocketAddr) -> Result<(Vec<Socket>, Vec<TcpListener>), Failure> {
    let mut tries = if addr.port() == 0 { PAIR_ATTEMPTS } else { 1 };
    loop {
        tries -= 1;
        let udp = bind_udp(addr).map_err(|error| explain_bind(addr, &error))?;
        let tcp: Result<Vec<TcpListener>, _> = udp
            .iter()
            .map(|socket| stream::listen(socket.local_addr()).map_err(|e| (socket.local_addr(), e)))
            .collect();
        match tcp {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(_) if tries > 0 => {}
            Err((at, error)) => {
                tracing::warn!("no TCP on {at}: {error}; members whose network lets no UDP pass cannot come this way");
                return Ok((udp, Vec::new()));
            }
        }
    }
}

/// Where WebSockets are spoken.
pub(super) fn bind_web(web: &Web) -> Result<Vec<(TcpListener, Rc<Spoken>)>, Failure> {
    let mut all = Vec::new();
    if let Some(Tls { listen, certificate, key }) = &web.tls {
        let certificate = Certificate::load(certificate, key).map_err(Failure::Config)?;
        let spoken = Rc::new(Spoken::Tls(RefCell::new(certificate)));
        all.extend(bind_tcp(listen)?.into_iter().map(|listener| (listener, spoken.clone())));
    }
    let spoken = Rc::new(Spoken::Proxied);
    all.extend(bind_tcp(&web.proxied)?.into_iter().map(|listener| (listener, spoken.clone())));
    Ok(all)
}

fn bind_tcp(listen: &[SocketAddr]) -> Result<Vec<TcpListener>, Failure> {
    let mut all = Vec::new();
    for addr in listen {
        let explain = |error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied => Failure::NotPermitted(format!(
                "TCP {addr}: {error}; ports below 1024 need root, or CAP_NET_BIND_SERVICE"
            )),
            _ => Failure::Failed(format!(
                "cannot listen on TCP {addr}: {error}; another program has it, or `listen` of this one"
            )),
        };
        if addr.ip() == Ipv6Addr::UNSPECIFIED {
            let v4 = stream::listen((Ipv4Addr::UNSPECIFIED, addr.port()).into()).map_err(explain)?;
            // Where the machine has no IPv6, only the first.
            all.extend(
                v4.local_addr().ok().and_then(|v4| stream::listen((Ipv6Addr::UNSPECIFIED, v4.port()).into()).ok()),
            );
            all.push(v4);
        } else {
            all.push(stream::listen(*addr).map_err(explain)?);
        }
    }
    Ok(all)
}

fn bind_udp(addr: SocketAddr) -> io::Result<Vec<Socket>> {
    if addr.ip() != Ipv6Addr::UNSPECIFIED {
        return Socket::bind(addr).map(|socket| vec![socket]);
    }
    bind_pair(addr.port()).map(|(v4, v6)| [Some(v4), v6].into_iter().flatten().collect())
}

/// How much an address stands for: itself, all of IPv4, or everything.
fn breadth(addr: &SocketAddr) -> u8 {
    u8::from(addr.ip().is_unspecified()) + u8::from(addr.ip() == Ipv6Addr::UNSPECIFIED)
}

/// Whether only one of two can be bound.
fn overlap(a: &SocketAddr, b: &SocketAddr) -> bool {
    let (narrow, wide) = (breadth(a).min(breadth(b)), breadth(a).max(breadth(b)));
    let contains = wide == 2 || wide > narrow && a.is_ipv4() == b.is_ipv4();
    a.port() != 0 && a.port() == b.port() && (a == b || contains)
}

fn explain_bind(addr: SocketAddr, error: &io::Error) -> Failure {
    let port = if addr.port() == 4000 { 4001 } else { 4000 };
    // Shells have a meaning of their own for brackets.
    let example = match addr.ip() == Ipv6Addr::UNSPECIFIED {
        true => port.to_string(),
        false => SocketAddr::new(addr.ip(), port).to_string(),
    };
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Failure::NotPermitted(format!("{error}; ports below 1024 need root, others do not: --listen {example}"))
        }
        io::ErrorKind::AddrInUse => Failure::Failed(format!(
            "{error}; if that is a rendezvous: one serves any number of networks; if not, another port: --listen {example}"
        )),
        _ => Failure::Failed(format!("cannot listen on {addr}: {error}")),
    }
}
