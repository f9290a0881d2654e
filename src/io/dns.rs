//! A name server's sockets: UDP and TCP on this machine's overlay addresses.
//!
//! **Only programs of this machine are answered.** A question from it comes from the very address that it goes to; a member
//! has addresses of its own, and the router lets it send from no others. So an answer leaves this machine in no case, even
//! if somebody on a real LAN should get a question with a false source past the kernel.
//!
//! The port is not 53: a name server that starts later and listens on all addresses (dnsmasq, unbound) would find it taken.
//! Whoever asks is told the port ([`Server::local`]).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Where name servers listen that are not the system's own; any other if it is taken.
const PORT: u16 = 1_053;
/// Ports that are tried before an address goes without a server.
const ATTEMPTS: usize = 8;
/// Connections that are served at once on an address; others wait.
const CONNECTIONS: usize = 16;
/// A connection that says nothing for so long is closed.
const SILENCE: Duration = Duration::from_secs(5);
/// After a failure of a socket, so that one that lasts costs nothing.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of the longest question that is read by UDP; what is cut off is none.
const LONGEST: usize = 4_096;

/// Says what the answer to a question is; `None`: nothing.
pub type Answers = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// A running server. Gone when dropped.
#[derive(Debug)]
pub struct Server {
    local: Vec<SocketAddr>,
    /// Ended with it.
    _tasks: JoinSet<()>,
}

impl Server {
    /// Answers on each of these addresses of this machine; where that cannot be, not there. Must be called inside a tokio
    /// runtime.
    pub async fn start(addresses: impl IntoIterator<Item = IpAddr>, answers: &Answers) -> Self {
        let (mut local, mut tasks) = (Vec::new(), JoinSet::new());
        for address in addresses {
            match bind(address).await {
                Ok((at, udp, tcp)) => {
                    local.push(at);
                    tasks.spawn(serve_udp(udp, at.ip(), answers.clone()));
                    tasks.spawn(serve_tcp(tcp, at.ip(), answers.clone()));
                }
                Err(error) => tracing::debug!(%error, %address, "no name server there"),
            }
        }
        Self { local, _tasks: tasks }
    }

    /// Where it answers.
    pub fn local(&self) -> &[SocketAddr] {
        &self.local
    }
}

/// A port of both kinds.
async fn bind(address: IpAddr) -> io::Result<(SocketAddr, UdpSocket, TcpListener)> {
    let mut failure = None;
    for port in [PORT].into_iter().chain([0; ATTEMPTS]) {
        let udp = match UdpSocket::bind((address, port)).await {
            Ok(udp) => udp,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        let at = udp.local_addr()?;
        match TcpListener::bind(at).await {
            Ok(tcp) => return Ok((at, udp, tcp)),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("every attempt that failed left one"))
}

async fn serve_udp(socket: UdpSocket, local: IpAddr, answers: Answers) {
    let mut buffer = [0; LONGEST];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) if from.ip() == local => {
                if let Some(answer) = answers(&buffer[..length]) {
                    // Who asked may have gone.
                    let _ = socket.send_to(&answer, from).await;
                }
            }
            Ok((_, from)) => tracing::debug!(%from, "only this machine's programs are told names"),
            Err(error) => {
                tracing::debug!(%error, "a question was not heard");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, local: IpAddr, answers: Answers) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Ended with this one.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) if from.ip() == local => {
                let answers = answers.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &answers).await {
                        tracing::trace!(%error, "who asked for names has gone");
                    }
                    drop(place);
                });
            }
            Ok((_, from)) => tracing::debug!(%from, "only this machine's programs are told names"),
            Err(error) => {
                tracing::debug!(%error, "a connection was not taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Questions and answers, each behind its length (RFC 1035 §4.2.2), until the other side ends it.
async fn converse(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    loop {
        let silent = |_| io::Error::from(io::ErrorKind::TimedOut);
        let question = tokio::time::timeout(SILENCE, read(&mut stream)).await.map_err(silent)??;
        let Some(answer) = answers(&question) else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        tokio::time::timeout(SILENCE, stream.write_all(&framed)).await.map_err(silent)??;
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut question = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut question).await?;
    Ok(question)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Answers with the question.
    fn echo() -> Answers {
        Arc::new(|question| (!question.is_empty()).then(|| question.to_vec()))
    }

    #[tokio::test]
    async fn it_answers_by_udp_and_by_tcp_on_one_port_of_each_address() {
        let addresses = [Ipv4Addr::new(127, 0, 53, 1), Ipv4Addr::new(127, 0, 53, 2)].map(IpAddr::V4);
        let server = Server::start(addresses, &echo()).await;
        assert_eq!(server.local().iter().map(SocketAddr::ip).collect::<Vec<_>>(), addresses);
        for at in server.local() {
            let socket = UdpSocket::bind((at.ip(), 0)).await.expect("bound");
            socket.send_to(b"who?", at).await.expect("sent");
            let mut buffer = [0; 16];
            assert_eq!(socket.recv(&mut buffer).await.expect("answered"), 4);
            let local = SocketAddr::new(at.ip(), 0);
            let stream = tokio::net::TcpSocket::new_v4().expect("a socket");
            stream.bind(local).expect("bound");
            let mut stream = stream.connect(*at).await.expect("connected");
            for question in [&b"\0\x03one"[..], b"\0\x03two"] {
                stream.write_all(question).await.expect("sent");
                let mut answer = [0; 5];
                stream.read_exact(&mut answer).await.expect("answered");
                assert_eq!(answer, question);
            }
            stream.write_all(&[0, 0]).await.expect("sent");
            assert_eq!(stream.read(&mut buffer).await.expect("closed"), 0, "what is no question ends it");
        }
    }

    #[tokio::test]
    async fn who_asks_from_another_address_is_not_answered() {
        let address = Ipv4Addr::new(127, 0, 53, 3);
        let server = Server::start([address.into()], &echo()).await;
        let at = server.local()[0];
        let mut stream = TcpStream::connect(at).await.expect("connected");
        assert_ne!(stream.local_addr().expect("bound").ip(), IpAddr::V4(address));
        let _ = stream.write_all(b"\0\x03one").await;
        assert!(matches!(stream.read(&mut [0; 9]).await, Ok(0) | Err(_)), "it is closed without a word");
        let [stranger, own] = [Ipv4Addr::LOCALHOST, address];
        let stranger = UdpSocket::bind((stranger, 0)).await.expect("bound");
        stranger.send_to(b"who?", at).await.expect("sent");
        // When this is answered, the other would have been.
        let own = UdpSocket::bind((own, 0)).await.expect("bound");
        own.send_to(b"who?", at).await.expect("sent");
        own.recv(&mut [0; 9]).await.expect("answered");
        let nothing = stranger.try_recv(&mut [0; 9]).expect_err("nothing came");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn where_the_port_is_taken_it_has_another_and_where_there_is_no_address_none() {
        let address = IpAddr::from([127, 0, 53, 4]);
        let _taken = std::net::TcpListener::bind((address, PORT)).expect("bound");
        let server = Server::start([address, IpAddr::from([192, 0, 2, 1])], &echo()).await;
        assert_eq!(server.local().len(), 1);
        assert_ne!(server.local()[0].port(), PORT);
    }
}
