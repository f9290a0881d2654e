//! A check of the NAT on real sockets: those of its own that [`Check`] wants, and a clock.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::clock::{self, Alarm};
use super::udp::{Fault, fault};
use super::{entropy, interfaces};
use crate::id::SocketId;
use crate::netcheck::{Check, Plan, Report, SILENT_SOCKETS, SOCKETS, V6_SOCKET};
use crate::sans::{Datagram, Transmit};

/// Longer answers are cut, and then not understood.
const LONGEST: usize = 1_500;

/// Asks these servers what the NAT in front of this machine does; with `lifetime`, for minutes. Says to `tell` what it
/// does. Must be called inside a tokio runtime.
///
/// # Errors
/// The system gives neither sockets nor a timer.
pub async fn run(servers: Vec<SocketAddr>, lifetime: bool, mut tell: impl FnMut(&str)) -> io::Result<Report> {
    let mut alarm = Alarm::new()?;
    let sockets = Sockets::bind(if lifetime { SOCKETS + SILENT_SOCKETS } else { SOCKETS }).await?;
    let plan = Plan {
        servers,
        own: interfaces::list(&[])?.iter().map(ipnet::IpNet::addr).collect(),
        sockets: sockets.v4.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?,
        ipv6: sockets.v6.is_some(),
        lifetime,
    };
    let mut check = Check::new(plan, &entropy::seed(), clock::now());
    let (mut buffer, mut told) = ([0; LONGEST], String::new());
    loop {
        while let Some(transmit) = check.poll_transmit() {
            sockets.send(&transmit).await;
        }
        if let Some(report) = check.poll_report() {
            return Ok(report);
        }
        let progress = check.progress();
        if progress != told {
            tell(&progress);
            told = progress;
        }
        let wakeup = check.poll_timeout().map(|wakeup| wakeup.at);
        tokio::select! {
            received = sockets.receive(&mut buffer) => {
                let (socket, from, len) = received?;
                let datagram = Datagram { socket, local: None, from, payload: &mut buffer[..len] };
                check.handle_datagram(clock::now(), datagram);
            }
            alarmed = alarm.until(wakeup) => {
                alarmed?;
                check.handle_timeout(clock::now());
            }
        }
    }
}

/// Sockets with any port.
struct Sockets {
    v4: Vec<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Sockets {
    /// So many for IPv4 and one for IPv6; of a family that this machine has not, none.
    async fn bind(count: usize) -> io::Result<Self> {
        let v6 = any_port(Ipv6Addr::UNSPECIFIED.into()).await;
        let mut v4 = Vec::with_capacity(count);
        for _ in 0..count {
            match any_port(Ipv4Addr::UNSPECIFIED.into()).await {
                Ok(socket) => v4.push(socket),
                Err(error) if v6.is_ok() && v4.is_empty() => {
                    tracing::debug!(%error, "no IPv4");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { v4, v6: v6.ok() })
    }

    fn all(&self) -> impl Iterator<Item = (SocketId, &UdpSocket)> {
        (0..).map(SocketId).zip(&self.v4).chain(self.v6.as_ref().map(|socket| (V6_SOCKET, socket)))
    }

    /// That a datagram cannot be sent is found out by its answer not coming.
    async fn send(&self, Transmit { socket, to, payload, .. }: &Transmit) {
        let Some((_, by)) = self.all().find(|(id, _)| id == socket) else { return };
        if let Err(error) = by.send_to(payload, to).await {
            tracing::debug!(%error, %to, "not sent");
        }
    }

    /// The next datagram of any.
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(SocketId, SocketAddr, usize)> {
        poll_fn(|context| {
            for (id, socket) in self.all() {
                loop {
                    let mut into = ReadBuf::new(buffer);
                    match socket.poll_recv_from(context, &mut into) {
                        Poll::Ready(Ok(from)) => return Poll::Ready(Ok((id, from, into.filled().len()))),
                        // What ICMP says of an earlier one.
                        Poll::Ready(Err(error)) if fault(&error) != Fault::Broken => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => break,
                    }
                }
            }
            Poll::Pending
        })
        .await
    }
}

async fn any_port(ip: IpAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind((ip, 0)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_servers_it_is_over_at_once_and_says_so() {
        let mut said = Vec::new();
        let report = run(Vec::new(), false, |text| said.push(text.to_owned())).await.expect("sockets");
        assert_eq!(report.udp.why(), Some("no server was named that could be asked"));
        assert_eq!(said, Vec::<String>::new());
    }
}
