//! Streams to rendezvous, where UDP does not pass: a task each connects, writes what is put into its queue, and hands over
//! what comes; who cannot take that so fast makes the rendezvous wait.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::packets;
use super::run::Effect;
use super::sockets::Sockets;
use crate::id::{ServerId, SocketId};
use crate::io::clock;
use crate::io::stream::{Queue, ROOM, Reader, connect, write};
use crate::io::tun::Tun;
use crate::io::udp::Received;
use crate::io::web::{self, Web};
use crate::node::Node;
use crate::sans::{Carrier, Datagram, Done};
use crate::wire::stream::datagrams;

/// Reads that wait for the loop.
const WAITING: usize = 8;

/// All of them.
#[derive(Debug)]
pub(super) struct Streams {
    sockets: Arc<Sockets>,
    effects: mpsc::UnboundedSender<Effect>,
    comes: mpsc::Sender<Came>,
    came: mpsc::Receiver<Came>,
}

/// Datagrams that came by a stream, each with its length.
#[derive(Debug)]
pub(super) struct Came {
    socket: SocketId,
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl Streams {
    pub(super) fn new(sockets: Arc<Sockets>, effects: mpsc::UnboundedSender<Effect>) -> Self {
        let (comes, came) = mpsc::channel(WAITING);
        Self { sockets, effects, comes, came }
    }

    /// Connects, beside the loop.
    pub(super) fn connect(&self, server: ServerId, attempt: u64, to: SocketAddr, carrier: Carrier) {
        let (sockets, effects, comes) = (self.sockets.clone(), self.effects.clone(), self.comes.clone());
        tokio::spawn(async move {
            // The loop may have ended.
            let tell = |done| drop(effects.send(Effect::Done(done)));
            let opened = dial(to, &carrier).await.and_then(|dialled| {
                let (socket, queue) = sockets.open_stream().ok_or("as many streams as can be are open")?;
                Ok((dialled, socket, queue))
            });
            match opened {
                Ok((dialled, socket, queue)) => {
                    tell(Done::Connected { server, attempt, result: Ok(socket) });
                    dialled.carry(socket, to, &queue, &comes).await;
                    if sockets.close_stream(socket) {
                        tell(Done::Disconnected { server, socket });
                    }
                }
                Err(reason) => tell(Done::Connected { server, attempt, result: Err(reason) }),
            }
        });
    }

    /// Ends one, once what waits for it is written.
    pub(super) fn disconnect(&self, socket: SocketId) {
        self.sockets.close_stream(socket);
    }

    /// Waits for datagrams. May be dropped and called again at any time.
    pub(super) async fn next(&mut self) -> Came {
        self.came.recv().await.expect("this holds a sender")
    }
}

impl Came {
    /// Shows them to the node, and gives the TUN what comes of it.
    pub(super) fn give(mut self, node: &mut Node, tun: &Tun, sockets: &Sockets) {
        let (now, from) = (clock::now(), self.from);
        let received = datagrams(&mut self.bytes).map(|payload| Received { from, local: None, ecn: 0, payload });
        let open = |datagram: Datagram<'_>, _| node.handle_datagram(now, datagram);
        let congested = packets::receive(open, tun, sockets, self.socket, received);
        node.count_drops("congested", congested);
    }
}

/// What carries a stream.
enum Dialled {
    Tcp(TcpStream),
    Web(Box<Web>),
}

async fn dial(to: SocketAddr, carrier: &Carrier) -> Result<Dialled, String> {
    match carrier {
        Carrier::Tcp => connect(to).await.map(Dialled::Tcp),
        Carrier::WebSocket { host, path } => web::connect(to, host, path).await.map(|web| Dialled::Web(Box::new(web))),
    }
}

impl Dialled {
    /// Carries datagrams until the stream ends.
    async fn carry(self, socket: SocketId, from: SocketAddr, queue: &Queue, comes: &mpsc::Sender<Came>) {
        match self {
            Self::Tcp(tcp) => carry(tcp, socket, from, queue, comes).await,
            Self::Web(web) => {
                let (near, tunnel) = web::tunnel(*web);
                let (_, ended) = tokio::join!(carry(near, socket, from, queue, comes), tunnel);
                tracing::debug!(%from, ?ended, "a WebSocket ended");
            }
        }
    }
}

async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    socket: SocketId,
    from: SocketAddr,
    queue: &Queue,
    comes: &mpsc::Sender<Came>,
) {
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = Reader::new(reader, ROOM);
    let hear = async {
        loop {
            let bytes = reader.next().await?;
            if comes.send(Came { socket, from, bytes }).await.is_err() {
                return Ok(());
            }
        }
    };
    let ended: std::io::Result<()> = tokio::select! {
        ended = hear => ended,
        ended = write(writer, queue) => ended,
    };
    tracing::debug!(%from, ?ended, "a stream ended");
}
