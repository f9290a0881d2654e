//! Programs that look for each other as games do: one asks everybody, and whoever hears it answers with a name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Namespace;

/// Asked so often, as games do.
const EVERY: Duration = Duration::from_millis(200);
/// Who has not answered by then does not.
const QUIET: Duration = Duration::from_millis(700);
/// How long a socket waits before its thread looks whether it is over.
const TICK: Duration = Duration::from_millis(20);

/// From whom, and what.
type Heard = Vec<(SocketAddr, Vec<u8>)>;

/// A program that answers, bound to a port and nothing else. Dropped, it ends.
#[derive(Debug)]
pub struct Answering {
    heard: Arc<Mutex<Heard>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    /// Starts it, in this group if `group` is one: joined on whichever interface the kernel takes, and, as programs in
    /// Java are, deaf to groups that it has not joined itself.
    pub fn start(netns: &Namespace, name: &str, group: SocketAddr) -> Result<Self> {
        let socket = netns.enter(|| listening(group))??;
        let (heard, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (ours, until, name) = (heard.clone(), over.clone(), name.to_owned());
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 2_000];
            while !until.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut bytes) else { continue };
                ours.lock().unwrap_or_else(PoisonError::into_inner).push((from, bytes[..len].to_vec()));
                let _ = socket.send_to(name.as_bytes(), from);
            }
        });
        Ok(Self { heard, over, thread: Some(thread) })
    }

    /// How often it heard this.
    pub fn heard(&self, text: &str) -> usize {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|(_, bytes)| bytes == text.as_bytes()).count()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listening(group: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    match group.ip() {
        IpAddr::V4(ip) => {
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, group.port())).into())?;
            socket.set_multicast_all_v4(false)?;
            if ip.is_multicast() {
                socket.join_multicast_v4(&ip, &Ipv4Addr::UNSPECIFIED)?;
            }
        }
        IpAddr::V6(ip) => {
            socket.set_only_v6(true)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, group.port())).into())?;
            socket.set_multicast_all_v6(false)?;
            socket.join_multicast_v6(&ip, 0)?;
        }
    }
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket.into())
}

/// A program that asks, by one socket.
#[derive(Debug)]
pub struct Asking(UdpSocket);

impl Asking {
    /// Bound to nothing, if this is no address.
    pub fn bound_to(netns: &Namespace, address: IpAddr) -> Result<Self> {
        let socket = netns.enter(|| UdpSocket::bind((address, 0)))??;
        socket.set_broadcast(true)?;
        socket.set_read_timeout(Some(TICK))?;
        Ok(Self(socket))
    }

    /// Bound to nothing, for who is asked at `to`.
    pub fn unbound(netns: &Namespace, to: SocketAddr) -> Result<Self> {
        let nothing = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Self::bound_to(netns, nothing)
    }

    /// Asks once.
    pub fn ask(&self, to: SocketAddr, text: &str) -> Result<()> {
        self.0.send_to(text.as_bytes(), to)?;
        Ok(())
    }

    /// Who answers from now until all is quiet, from where, each answer.
    pub fn answers(&self) -> Vec<(String, IpAddr)> {
        let mut answers = Vec::new();
        let mut last = Instant::now();
        while last.elapsed() < QUIET {
            if let Some(answer) = self.answer() {
                answers.push(answer);
                last = Instant::now();
            }
        }
        answers.sort();
        answers
    }

    fn answer(&self) -> Option<(String, IpAddr)> {
        let mut bytes = [0; 100];
        let (len, from) = self.0.recv_from(&mut bytes).ok()?;
        Some((String::from_utf8_lossy(&bytes[..len]).into_owned(), from.ip()))
    }

    /// Asks again and again until all these have answered; from where, each. Then nobody is waited for any more.
    pub fn ask_until(&self, to: SocketAddr, names: &[&str], patience: Duration) -> Result<BTreeMap<String, IpAddr>> {
        let (start, mut answers) = (Instant::now(), BTreeMap::new());
        let wanted: BTreeSet<&str> = names.iter().copied().collect();
        for n in 0.. {
            self.ask(to, &format!("who is there? {n}"))?;
            let asked = Instant::now();
            while asked.elapsed() < EVERY {
                answers.extend(self.answer());
            }
            if wanted.iter().all(|name| answers.contains_key(*name)) {
                break;
            }
            if start.elapsed() > patience {
                bail!("asked at {to}: {wanted:?} are to answer, and {answers:?} did");
            }
        }
        self.answers();
        Ok(answers)
    }
}
