//! The process around [`Core`]: sockets, clock, key file, signals.
//!
//! Each socket has a task of its own that reads a batch and sends what comes of it, and so has each stream
//! ([`super::streams`]); one more sleeps until the core's next wake-up. All share the core on one thread, so nothing is locked.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};

use super::bind::{bind_all, bind_web};
use super::streams::{Spoken, Streams};
use super::{Config, Core, Verdict};
use crate::daemon::{Failure, Notice, notify};
use crate::id::{ServerKey, SocketId};
use crate::io::clock::{self, Alarm};
use crate::io::store::{StateDir, StoreError};
use crate::io::udp::{Batch, Fault, Received, Run, Socket, Way, fault};
use crate::io::{entropy, limits};
use crate::rendezvous::server::Limits;
use crate::sans::{Datagram, Instant, Transmit};

/// What a rendezvous runs on.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; empty: [`super::DEFAULT_LISTEN`]. `[::]` means IPv4 as well.
    pub listen: Vec<SocketAddr>,
    /// The parent of state folders.
    pub state: PathBuf,
    /// Where it is a web server as well.
    pub web: Web,
    /// What it allows.
    pub config: Config,
}

/// Where a rendezvous speaks as a web server does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Web {
    /// By TLS, with a certificate and its key.
    pub tls: Option<Tls>,
    /// To a reverse proxy, which speaks TLS itself.
    pub proxied: Vec<SocketAddr>,
}

/// By TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// There.
    pub listen: Vec<SocketAddr>,
    /// The file of the certificate and of those between it and its authority, in PEM.
    pub certificate: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
}

/// What stands once it runs: the text for stdout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The addresses bound, with their real ports.
    pub addresses: Vec<SocketAddr>,
    /// Those that take TCP too.
    pub tcp: Vec<SocketAddr>,
    /// Those of WebSockets by TLS.
    pub tls: Vec<SocketAddr>,
    /// Those of WebSockets behind a proxy.
    pub proxied: Vec<SocketAddr>,
    /// The key that clients may pin.
    pub key: ServerKey,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for addr in &self.addresses {
            let transports = if self.tcp.contains(addr) { "UDP and TCP" } else { "UDP" };
            writeln!(f, "listening on {addr} ({transports})")?;
        }
        for addr in &self.tls {
            writeln!(f, "listening on {addr} (WebSocket by TLS)")?;
        }
        for addr in &self.proxied {
            writeln!(f, "listening on {addr} (WebSocket, for a reverse proxy)")?;
        }
        write!(f, "key {}", self.key)
    }
}

/// Runs a rendezvous until `shutdown` ends, with a word for the log. Calls `ready` once it answers. Must be called
/// inside a tokio `current_thread` runtime.
///
/// # Errors
/// [`Failure`] carries the exit code and the sentence.
pub async fn run(
    options: Options,
    shutdown: impl Future<Output = &'static str>,
    ready: impl FnOnce(&Ready),
) -> Result<(), Failure> {
    let state = StateDir::open_rendezvous(&options.state).map_err(explain_state)?;
    let secret = state.device_seed(entropy::bytes).map_err(explain_state)?;
    limits::raise_descriptors(options.config.streams.all.saturating_add(limits::OF_A_PEER));
    let (sockets, listeners) = bind_all(&options.listen)?;
    let (prefixes, streams) =
        (options.config.registrations.clone(), Streams::new(options.config.streams, &entropy::seed()));
    let mut core = Core::new(options.config, *secret, &entropy::seed(), clock::now());
    let addresses: Vec<SocketAddr> = sockets.iter().map(Socket::local_addr).collect();
    core.set_sockets(&addresses);
    let web = bind_web(&options.web)?;
    let bound =
        |listeners: &mut dyn Iterator<Item = &TcpListener>| listeners.filter_map(|l| l.local_addr().ok()).collect();
    let of = |is_tls| {
        let wanted = web.iter().filter(move |(_, spoken)| matches!(**spoken, Spoken::Tls(_)) == is_tls);
        bound(&mut wanted.map(|(listener, _)| listener))
    };
    let (tcp, tls, proxied) = (bound(&mut listeners.iter()), of(true), of(false));
    let datagrams = Rc::new(Spoken::Datagrams);
    let listeners = listeners.into_iter().map(|listener| (listener, datagrams.clone())).chain(web).collect();
    let line = Ready { addresses, tcp, tls, proxied, key: core.key() };
    ready(&line);
    notify(Notice::Ready(&line.to_string().replace('\n', ", ")));
    let process = Rc::new(Process {
        core: RefCell::new(core),
        prefixes,
        sockets,
        streams: Rc::new(streams),
        armed: Cell::new(None),
        rearm: Notify::new(),
    });
    LocalSet::new().run_until(process.serve(listeners, shutdown)).await
}

pub(super) struct Process {
    core: RefCell<Core>,
    /// What a source prefix is.
    prefixes: Limits,
    sockets: Vec<Socket>,
    pub(super) streams: Rc<Streams>,
    /// The wake-up that the alarm waits for.
    armed: Cell<Option<Instant>>,
    /// There is an earlier one.
    rearm: Notify,
}

impl Process {
    async fn serve(
        self: Rc<Self>,
        listeners: Vec<(TcpListener, Rc<Spoken>)>,
        shutdown: impl Future<Output = &'static str>,
    ) -> Result<(), Failure> {
        let mut alarm = Alarm::new().map_err(|error| Failure::Failed(format!("no timer: {error}")))?;
        let mut reports = reports()?;
        let mut tasks = JoinSet::new();
        for index in 0..self.sockets.len() {
            tasks.spawn_local(self.clone().receive(index));
        }
        for (listener, spoken) in listeners {
            tasks.spawn_local(self.clone().accept(listener, spoken));
        }
        let mut shutdown = std::pin::pin!(shutdown);
        let reason = loop {
            let at = self.core.borrow().poll_timeout().map(|wakeup| wakeup.at);
            self.armed.set(at);
            tokio::select! {
                reason = &mut shutdown => break reason,
                alarmed = alarm.until(at) => {
                    alarmed.map_err(|error| Failure::Failed(format!("timer: {error}")))?;
                    self.core.borrow_mut().handle_timeout(clock::now());
                    self.drain();
                }
                () = self.rearm.notified() => {}
                () = reports.next() => self.report(),
                Some(ended) = tasks.join_next() => {
                    let why = ended.map_or_else(|error| error.to_string(), |error| error.to_string());
                    return Err(Failure::Failed(format!("a socket broke: {why}")));
                }
            }
        };
        tracing::info!(reason, "stopping");
        notify(Notice::Stopping);
        drop(tasks);
        self.core.borrow_mut().stop();
        self.drain();
        self.streams.close().await;
        self.report();
        Ok(())
    }

    /// Reads one socket for ever; why it cannot any more.
    async fn receive(self: Rc<Self>, index: usize) -> io::Error {
        let id = SocketId(u16::try_from(index).expect("bind_all allows fewer"));
        let mut batch = Batch::new();
        loop {
            if let Err(error) = self.sockets[index].recv(&mut batch).await {
                return error;
            }
            self.take(clock::now(), id, batch.datagrams());
            self.drain();
        }
    }

    /// Hands datagrams to the core, and sends on what is to be relayed: what belongs together, together.
    pub(super) fn take<'a>(&self, now: Instant, arrived: SocketId, batch: impl Iterator<Item = Received<'a>>) {
        let mut run: Option<(SocketId, Run<'_>)> = None;
        for Received { from, local, ecn, payload } in batch {
            let datagram = Datagram { socket: arrived, local, from, payload: &mut *payload };
            let verdict = self.core.borrow_mut().handle_datagram(now, datagram);
            let Verdict::Forward { socket, src, to, range } = verdict else { continue };
            if run.as_ref().is_none_or(|(of, _)| *of != socket) {
                run.take().into_iter().for_each(|(_, mut run)| run.flush());
                run = self.sockets.get(usize::from(socket.0)).map(|by| (socket, Run::new(by)));
            }
            if let Some((_, run)) = &mut run {
                // Who is marked on the way here is marked on the way there too.
                run.push(Way { to, src, tos: ecn }, &payload[range]);
            } else {
                self.streams.send(socket, &payload[range]);
            }
        }
        run.into_iter().for_each(|(_, mut run)| run.flush());
    }

    /// Sends what the core has to say, and sees to its next wake-up.
    pub(super) fn drain(&self) {
        while let Some(Transmit { socket, src, to, payload, .. }) = self.poll_transmit() {
            self.send(socket, src, to, &payload);
        }
        let next = self.core.borrow().poll_timeout().map(|wakeup| wakeup.at);
        if next.is_some_and(|next| self.armed.get().is_none_or(|armed| next < armed)) {
            self.rearm.notify_one();
        }
    }

    fn poll_transmit(&self) -> Option<Transmit> {
        self.core.borrow_mut().poll_transmit()
    }

    fn send(&self, socket: SocketId, src: Option<IpAddr>, to: SocketAddr, payload: &[u8]) {
        let Some(socket) = self.sockets.get(usize::from(socket.0)) else { return self.streams.send(socket, payload) };
        match socket.send(to, src, None, payload) {
            Err(error) if fault(&error) != Fault::Full => tracing::debug!(%to, %error, "not sent"),
            _ => {}
        }
    }

    /// What a source address counts as.
    pub(super) fn prefix(&self, ip: IpAddr) -> IpNet {
        self.prefixes.prefix(ip)
    }

    pub(super) fn is_registered_by(&self, stream: SocketId) -> bool {
        self.core.borrow().is_registered_by(stream)
    }

    /// A stream ended.
    pub(super) fn disconnected(&self, stream: SocketId) {
        self.core.borrow_mut().handle_disconnected(clock::now(), stream);
        self.drain();
    }

    /// All counters in one line of the log.
    fn report(&self) {
        let core = self.core.borrow();
        let dropped: u64 = self.sockets.iter().map(Socket::dropped).sum();
        let mut text = format!("uptime={}s send-dropped={dropped}", core.uptime(clock::now()).as_secs());
        for (word, count) in core.counters().into_iter().chain(self.streams.counters()) {
            text.push_str(&format!(" {word}={count}"));
        }
        tracing::info!("{text}");
    }
}

fn explain_state(error: StoreError) -> Failure {
    match &error {
        StoreError::DamagedKey { path, why } => Failure::Config(format!(
            "the key {} is damaged ({why}); put back a copy of it, or delete it: the rendezvous then has a new key, \
             and peers that pin the old one (\"#plr1-…\" in net.toml) must change that",
            path.display()
        )),
        StoreError::Locked { path, pid } => {
            let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            let mut other = path.parent().unwrap_or(Path::new("/var/lib/punchlan")).as_os_str().to_owned();
            other.push("-2");
            Failure::Failed(format!(
                "a rendezvous runs on this machine already ({holder}), and one serves any number of networks; should \
                 you want a second one all the same, give it a state folder and a port of its own: \
                 PUNCHLAN_STATE={} punchlan rendezvous --listen 4000",
                Path::new(&other).display()
            ))
        }
        StoreError::Io { .. } => error.into(),
    }
}

/// Requests to log all counters: SIGUSR1.
struct Reports {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

#[cfg(unix)]
fn reports() -> Result<Reports, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let signal = signal(SignalKind::user_defined1())
        .map_err(|error| Failure::Failed(format!("cannot catch signals: {error}")))?;
    Ok(Reports { signal })
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "as on unix")]
fn reports() -> Result<Reports, Failure> {
    Ok(Reports {})
}

impl Reports {
    async fn next(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending().await
    }
}
