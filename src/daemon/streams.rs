//! Streams, where UDP does not pass, to rendezvous and peers: a task each connects, writes what is put into its queue, and
//! hands over what comes; who cannot take that so fast makes the other side wait.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::gate::Gate;
use super::packets;
use super::run::Effect;
use super::sockets::Sockets;
#[cfg(target_os = "linux")]
use super::threads::PacketPath;
#[cfg(not(target_os = "linux"))]
use super::turns::PacketPath;
use crate::addr::canonical;
use crate::id::{ServerId, SocketId};
use crate::io::clock;
use crate::io::stream::port::Port;
use crate::io::stream::{LITTLE_ROOM, NO_DESCRIPTORS, Queue, ROOM, Reader, connect, fit, write};
use crate::io::tun::Tun;
use crate::io::udp::Received;
use crate::io::web::{self, Web};
use crate::node::Node;
use crate::sans::{Carrier, Datagram, Done};
use crate::wire::stream::datagrams;

/// Reads that wait for the loop.
const WAITING: usize = 8;

/// A place that somebody takes is taken for so long at least.
const VISIT: Duration = Duration::from_secs(1);

/// All of them.
#[derive(Debug)]
pub(super) struct Streams {
    sockets: Arc<Sockets>,
    effects: mpsc::UnboundedSender<Effect>,
    comes: mpsc::Sender<Came>,
    came: mpsc::Receiver<Came>,
    /// Where peers are listened for, and the tasks that do so.
    port: Option<(Port, JoinSet<()>)>,
    /// What lets go those attempts that open our NAT.
    held: BTreeMap<u64, oneshot::Sender<()>>,
    gate: Gate,
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
        Self { sockets, effects, comes, came, port: None, held: BTreeMap::new(), gate: Gate::new() }
    }

    /// Connects to a rendezvous, beside the loop.
    pub(super) fn connect(&self, server: ServerId, attempt: u64, to: SocketAddr, carrier: Carrier) {
        let done = move |result| Some(Done::Connected { server, attempt, result });
        let stream = self.stream();
        tokio::spawn(async move { stream.run(to, wrap(connect(to).await, to, &carrier).await, done).await });
    }

    /// Listens for peers on one port, if it is not done; that port.
    ///
    /// # Errors
    /// A sentence for people.
    pub(super) fn listen(&mut self) -> Result<u16, String> {
        if let Some((port, _)) = &self.port {
            return Ok(port.number());
        }
        let (port, listeners) = Port::open().map_err(|error| format!("no port to listen on: {error}"))?;
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(accept_all(listener, self.stream(), self.gate.clone()));
        }
        let number = port.number();
        self.port = Some((port, tasks));
        Ok(number)
    }

    /// Connects from that port, beside the loop.
    pub(super) fn dial(&mut self, attempt: u64, to: SocketAddr, carrier: Carrier, ttl: Option<u8>) {
        let done = move |result| Some(Done::Dialled { attempt, result });
        let (stream, port) = (self.stream(), self.port.as_ref().map(|(port, _)| *port));
        let (let_go, held) = oneshot::channel();
        // Some have ended by themselves.
        self.held.retain(|_, held| !held.is_closed());
        if ttl.is_some() {
            self.held.insert(attempt, let_go);
        }
        tokio::spawn(async move {
            let tcp = match (port, ttl) {
                (None, _) => Err("nothing is listened on".to_owned()),
                (Some(port), None) => port.connect(to).await,
                (Some(port), Some(ttl)) => port.connect_late(to, ttl, held).await,
            };
            stream.run(to, wrap(tcp, to, &carrier).await, done).await;
        });
    }

    /// Lets an attempt go all the way.
    pub(super) fn let_go(&mut self, attempt: u64) {
        // It may have ended.
        self.held.remove(&attempt).map(|held| held.send(()));
    }

    /// Gives up an attempt that was not let go.
    pub(super) fn give_up(&mut self, attempt: u64) {
        self.held.remove(&attempt);
    }

    /// Listens no longer.
    pub(super) fn stop_listening(&mut self) {
        self.port = None;
        self.held.clear();
    }

    fn stream(&self) -> Stream {
        Stream { sockets: self.sockets.clone(), effects: self.effects.clone(), comes: self.comes.clone() }
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
    /// Shows them to the node, and gives the TUN, or programs that listen elsewhere, what comes of it.
    pub(super) fn give(mut self, node: &mut Node, path: &PacketPath, tun: &Tun, sockets: &Sockets) {
        let (now, from, table) = (clock::now(), self.from, node.table());
        let received = datagrams(&mut self.bytes).map(|payload| Received { from, local: None, ecn: 0, payload });
        let open = |datagram: Datagram<'_>, _| node.handle_datagram(now, datagram);
        let share = |packet: &mut [u8]| path.share(&table, packet);
        let congested = packets::receive(open, share, tun, sockets, self.socket, received);
        node.count_drops("congested", congested);
    }
}

/// What the task of a stream needs.
#[derive(Clone, Debug)]
struct Stream {
    sockets: Arc<Sockets>,
    effects: mpsc::UnboundedSender<Effect>,
    comes: mpsc::Sender<Came>,
}

impl Stream {
    /// Says by `done` what has become of a connection, and carries datagrams until it ends.
    async fn run(self, remote: SocketAddr, dialled: Result<Dialled, String>, done: impl Fn(Opened) -> Option<Done>) {
        // The loop may have ended.
        let tell = |done: Option<Done>| drop(done.map(|done| self.effects.send(Effect::Done(done))));
        let opened = dialled.and_then(|dialled| {
            let (socket, queue) = self.sockets.open_stream().ok_or("as many streams as can be are open")?;
            Ok((dialled, socket, queue))
        });
        match opened {
            Ok((dialled, socket, queue)) => {
                tell(done(Ok(socket)));
                dialled.carry(socket, remote, &queue, &self.comes).await;
                if self.sockets.close_stream(socket) {
                    tell(Some(Done::Disconnected(socket)));
                }
            }
            Err(reason) => tell(done(Err(reason))),
        }
    }
}

/// A new stream, or a sentence for people.
type Opened = Result<SocketId, String>;

/// Takes in whoever connects, as many as there is room for.
async fn accept_all(listener: TcpListener, stream: Stream, gate: Gate) {
    loop {
        match listener.accept().await {
            Ok((tcp, from)) => {
                let (from, stream) = (canonical(from), stream.clone());
                let Some(place) = gate.enter(clock::now(), from.ip()) else { continue };
                fit(&tcp);
                let done = move |result: Opened| Some(Done::Accepted { socket: result.ok()?, from });
                tokio::spawn(async move {
                    // Who comes and goes at once is here for a while all the same.
                    tokio::join!(stream.run(from, Ok(Dialled::Tcp(tcp)), done), sleep(VISIT));
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection is not accepted");
                sleep(NO_DESCRIPTORS).await;
            }
        }
    }
}

/// What carries a stream.
enum Dialled {
    Tcp(TcpStream),
    Web(Box<Web>),
}

/// Has a connection to a rendezvous carry datagrams as is wished.
async fn wrap(tcp: Result<TcpStream, String>, to: SocketAddr, carrier: &Carrier) -> Result<Dialled, String> {
    match carrier {
        Carrier::Tcp => tcp.map(Dialled::Tcp),
        Carrier::WebSocket { host, path } => {
            web::greet(tcp?, to, host, path).await.map(|web| Dialled::Web(Box::new(web)))
        }
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
    let mut reader = Reader::new(reader, LITTLE_ROOM);
    let hear = async {
        loop {
            // Who is written to has shown something: mostly who it is.
            reader.room = if queue.was_used() { ROOM } else { LITTLE_ROOM };
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
