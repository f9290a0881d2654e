//! The process around [`Core`]: sockets, clock, key file, signals.
//!
//! Each socket has a task of its own that reads a batch and sends what comes of it; one more sleeps until the
//! core's next wake-up. All share the core on one thread, so nothing is locked.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};

use super::{Config, Core, Verdict};
use crate::daemon::{Failure, Notice, notify};
use crate::id::{ServerKey, SocketId};
use crate::io::clock::{self, Alarm};
use crate::io::entropy;
use crate::io::store::{StateDir, StoreError};
use crate::io::udp::{Batch, Fault, Received, Run, Socket, Way, bind_pair, fault};
use crate::sans::{Datagram, Instant, Transmit};

/// STUN's port, on every address of either family.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 3478);

/// What a rendezvous runs on.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; empty: [`DEFAULT_LISTEN`]. `[::]` means IPv4 as well.
    pub listen: Vec<SocketAddr>,
    /// The parent of state folders.
    pub state: PathBuf,
    /// What it allows.
    pub config: Config,
}

/// What stands once it runs: the text for stdout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The addresses bound, with their real ports.
    pub addresses: Vec<SocketAddr>,
    /// The key that clients may pin.
    pub key: ServerKey,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for addr in &self.addresses {
            writeln!(f, "listening on {addr} (UDP)")?;
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
    let sockets = bind_all(&options.listen)?;
    let mut core = Core::new(options.config, *secret, &entropy::seed(), clock::now());
    let addresses: Vec<SocketAddr> = sockets.iter().map(Socket::local_addr).collect();
    core.set_sockets(&addresses);
    let line = Ready { addresses, key: core.key() };
    ready(&line);
    notify(Notice::Ready(&line.to_string().replace('\n', ", ")));
    let process = Rc::new(Process { core: RefCell::new(core), sockets, armed: Cell::new(None), rearm: Notify::new() });
    LocalSet::new().run_until(process.serve(shutdown)).await
}

struct Process {
    core: RefCell<Core>,
    sockets: Vec<Socket>,
    /// The wake-up that the alarm waits for.
    armed: Cell<Option<Instant>>,
    /// There is an earlier one.
    rearm: Notify,
}

impl Process {
    async fn serve(self: Rc<Self>, shutdown: impl Future<Output = &'static str>) -> Result<(), Failure> {
        let mut alarm = Alarm::new().map_err(|error| Failure::Failed(format!("no timer: {error}")))?;
        let mut reports = reports()?;
        let mut tasks = JoinSet::new();
        for index in 0..self.sockets.len() {
            tasks.spawn_local(self.clone().receive(index));
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
                    return Err(Failure::Failed(format!("the UDP socket broke: {why}")));
                }
            }
        };
        tracing::info!(reason, "stopping");
        notify(Notice::Stopping);
        self.core.borrow_mut().stop();
        self.drain();
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
            self.take(clock::now(), id, &mut batch);
            self.drain();
        }
    }

    /// Hands datagrams to the core, and sends on what is to be relayed: what belongs together, together.
    fn take(&self, now: Instant, arrived: SocketId, batch: &mut Batch) {
        let mut run: Option<(SocketId, Run<'_>)> = None;
        for Received { from, local, ecn, payload } in batch.datagrams() {
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
            }
        }
        run.into_iter().for_each(|(_, mut run)| run.flush());
    }

    /// Sends what the core has to say, and sees to its next wake-up.
    fn drain(&self) {
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

    fn send(&self, socket: SocketId, src: Option<std::net::IpAddr>, to: SocketAddr, payload: &[u8]) {
        let Some(socket) = self.sockets.get(usize::from(socket.0)) else { return };
        match socket.send(to, src, None, payload) {
            Err(error) if fault(&error) != Fault::Full => tracing::debug!(%to, %error, "not sent"),
            _ => {}
        }
    }

    /// All counters in one line of the log.
    fn report(&self) {
        let core = self.core.borrow();
        let dropped: u64 = self.sockets.iter().map(Socket::dropped).sum();
        let mut text = format!("uptime={}s send-dropped={dropped}", core.uptime(clock::now()).as_secs());
        for (word, count) in core.counters() {
            text.push_str(&format!(" {word}={count}"));
        }
        tracing::info!("{text}");
    }
}

/// The sockets for the addresses that were asked for.
fn bind_all(listen: &[SocketAddr]) -> Result<Vec<Socket>, Failure> {
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
    let mut sockets = Vec::new();
    for addr in listen {
        if addr.ip() == Ipv6Addr::UNSPECIFIED {
            let (v4, v6) = bind_pair(addr.port()).map_err(|error| explain_bind(*addr, &error))?;
            sockets.push(v4);
            sockets.extend(v6);
        } else {
            sockets.push(Socket::bind(*addr).map_err(|error| explain_bind(*addr, &error))?);
        }
    }
    Ok(sockets)
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
