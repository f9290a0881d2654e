//! Who answers what is sent to everybody as a game sends it, and who answers when asked alone.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::unbound;
use crate::io::{clock, entropy};
use crate::sans::Instant;
use crate::wire::doctor::{Answer, GROUP, LONGEST, Nonce, PORT, Question};

/// Each is asked twice: a Wi-Fi loses some of what is for many.
const ROUNDS: u32 = 2;
/// Between the two.
const BETWEEN: Duration = Duration::from_millis(700);
/// From the last one on.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How a question is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// To 255.255.255.255.
    Limited,
    /// To the last address of the overlay's subnet.
    Subnet,
    /// To a group.
    Multicast,
    /// To the member alone.
    Unicast,
}

/// All ways.
pub const WAYS: [By; 4] = [By::Limited, By::Subnet, By::Multicast, By::Unicast];

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reply {
    /// How the question was sent.
    pub by: By,
    /// Who answered.
    pub from: IpAddr,
    /// After how long.
    pub after: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replies {
    /// The first of each member to each way.
    pub replies: Vec<Reply>,
    /// What could not be sent, and why.
    pub unsent: Vec<(By, String)>,
}

/// Asks everybody in all ways, and these members alone too. Takes two seconds.
///
/// # Errors
/// The system gives no socket.
pub async fn ask(broadcast: Ipv4Addr, members: &[IpAddr]) -> io::Result<Replies> {
    let everybody = |ip: Ipv4Addr| vec![SocketAddr::from((ip, PORT))];
    let alone =
        |v4: bool| members.iter().filter(|ip| ip.is_ipv4() == v4).map(|ip| (*ip, PORT).into()).collect::<Vec<_>>();
    let v6 = alone(false);
    let (a, b, c, d) = (unbound()?, unbound()?, unbound()?, unbound()?);
    let by_v6 = async {
        match &v6[..] {
            [] => Ok(Replies::default()),
            _ => Ok(one_way(&UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?, By::Unicast, &v6).await),
        }
    };
    let (limited, subnet, group, v4) =
        (everybody(Ipv4Addr::BROADCAST), everybody(broadcast), everybody(GROUP), alone(true));
    let (limited, subnet, group, v4, v6) = tokio::join!(
        one_way(&a, By::Limited, &limited),
        one_way(&b, By::Subnet, &subnet),
        one_way(&c, By::Multicast, &group),
        one_way(&d, By::Unicast, &v4),
        by_v6,
    );
    let mut all = Replies::default();
    let v6 = v6.unwrap_or_else(|error: io::Error| Replies {
        unsent: vec![(By::Unicast, error.to_string())],
        ..Replies::default()
    });
    for Replies { replies, unsent } in [limited, subnet, group, v4, v6] {
        all.replies.extend(replies);
        all.unsent.extend(unsent);
    }
    Ok(all)
}

/// Asks by one socket, so that it is known by the socket which question was answered.
async fn one_way(socket: &UdpSocket, by: By, to: &[SocketAddr]) -> Replies {
    let mut found = Replies::default();
    let mut sent: Vec<(Nonce, Instant)> = Vec::new();
    for round in 1..=ROUNDS {
        let nonce: Nonce = entropy::bytes();
        sent.push((nonce, clock::now()));
        for to in to {
            if let Err(error) = socket.send_to(&Question(nonce).encode(), to).await {
                let problem = (by, format!("{to}: {error}"));
                if !found.unsent.contains(&problem) {
                    found.unsent.push(problem);
                }
            }
        }
        let patience = if round < ROUNDS { BETWEEN } else { PATIENCE };
        let _ = timeout(patience, gather(socket, by, &sent, &mut found.replies)).await;
    }
    found
}

async fn gather(socket: &UdpSocket, by: By, sent: &[(Nonce, Instant)], replies: &mut Vec<Reply>) {
    let mut buffer = [0; LONGEST];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
            // An earlier datagram was refused somewhere; that is no answer.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(Answer { nonce, .. }) = Answer::decode(&buffer[..len]) else { continue };
        let asked = sent.iter().find(|(of, _)| *of == nonce).filter(|_| from.port() == PORT);
        let is_first = replies.iter().all(|reply| reply.from != from.ip());
        if let Some((_, at)) = asked.filter(|_| is_first) {
            replies.push(Reply { by, from: from.ip(), after: clock::now() - *at });
        }
    }
}
