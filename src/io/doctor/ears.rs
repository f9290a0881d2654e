//! Who says on the overlay and on the LANs of this machine that it is there: by itself, or asked as games ask.
//!
//! Games are asked by broadcast, from a socket that is bound to nothing and once more into the overlay alone; services by
//! their groups, on the interface that the system takes and on the overlay's. What comes is kept as it is understood
//! ([`crate::wire::discovery`]), each once, and no more of it than anybody reads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, InterfaceIndexOrAddress};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{LONGEST, unbound};
use crate::io::{entropy, lan};
use crate::wire::discovery::{self, Answer, Found, mdns, minecraft, ssdp};

/// What is kept at most.
const MOST: usize = 256;
/// Kinds of services whose members are asked for.
const KINDS: usize = 24;
/// Who wants to be asked again is, so often.
const AGAIN: u8 = 2;
/// Everybody is asked twice, for a Wi-Fi loses some of what is for many.
const ROUNDS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(800)];
/// After each datagram: what comes quicker waits in the socket, until the system drops it.
const PACE: Duration = Duration::from_millis(1);
/// Interfaces on which groups are listened to; Linux lets a socket be in 20 groups.
const INTERFACES: usize = 16;

/// Who said what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heard {
    /// From where.
    pub from: SocketAddr,
    /// What.
    pub found: Found,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ears {
    /// Each once.
    pub heard: Vec<Heard>,
    /// What could not be listened to or asked, and why.
    pub deaf: Vec<String>,
}

/// What a socket hears is meant as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ear {
    /// Answers to what was asked.
    Asking,
    Minecraft,
    Ssdp,
    Mdns,
}

/// Asks and listens for so long. `here`: this machine on the overlay, with the last address of its subnet.
pub async fn listen(lasting: Duration, here: Option<Ipv4Addr>, broadcast: Ipv4Addr) -> Ears {
    let mut ears = Ears::default();
    let (tell, mut told) = mpsc::channel(64);
    let mut tasks = JoinSet::new();
    let groups = [
        (Ear::Minecraft, minecraft::GROUP, minecraft::PORT),
        (Ear::Ssdp, ssdp::GROUP, ssdp::PORT),
        (Ear::Mdns, mdns::GROUP, mdns::PORT),
    ];
    for (ear, group, port) in groups {
        match group_socket(group, port) {
            Ok(socket) => drop(tasks.spawn(pass_on(Arc::new(socket), ear, tell.clone()))),
            Err(error) => ears.deaf.push(format!("{group}:{port}: {error}")),
        }
    }
    let mouths = match Mouths::open(here, broadcast) {
        Ok(mouths) => mouths,
        Err(error) => {
            ears.deaf.push(format!("nobody is asked: {error}"));
            return ears;
        }
    };
    for socket in mouths.all() {
        tasks.spawn(pass_on(socket.clone(), Ear::Asking, tell.clone()));
    }
    let mut notes = Notes::default();
    let end = tokio::time::sleep(lasting);
    let asked = mouths.ask_everybody();
    let (mut end, mut asked, mut is_asked) = (std::pin::pin!(end), std::pin::pin!(asked), false);
    loop {
        tokio::select! {
            () = &mut end => break,
            problems = &mut asked, if !is_asked => {
                is_asked = true;
                ears.deaf.extend(problems);
            }
            Some((ear, from, bytes)) = told.recv() => notes.take(&mouths, ear, from, &bytes).await,
        }
    }
    ears.heard = notes.heard.into_iter().collect();
    ears
}

async fn pass_on(socket: Arc<UdpSocket>, ear: Ear, tell: mpsc::Sender<(Ear, SocketAddr, Vec<u8>)>) {
    let mut buffer = [0; LONGEST];
    loop {
        if let Ok((len, from)) = socket.recv_from(&mut buffer).await
            && tell.send((ear, from, buffer[..len].to_vec())).await.is_err()
        {
            return;
        }
        tokio::time::sleep(PACE).await;
    }
}

/// A socket that is in a group on all interfaces, beside those of others here.
fn group_socket(group: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let local = if cfg!(windows) { Ipv4Addr::UNSPECIFIED } else { group };
    let socket = lan::ear(Domain::IPV4, SocketAddr::from((local, port)))?;
    let interfaces = if_addrs::get_if_addrs()?;
    let usable = interfaces.iter().filter(|found| found.is_oper_up() && !found.is_loopback() && found.ip().is_ipv4());
    let indices: BTreeSet<u32> = usable.filter_map(|found| found.index).collect();
    for index in indices.into_iter().take(INTERFACES) {
        if let Err(error) = socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index)) {
            tracing::debug!(%error, index, %group, "not heard there");
        }
    }
    UdpSocket::from_std(socket.into())
}

/// The sockets that ask.
struct Mouths {
    /// By which answers are known.
    token: [u8; 4],
    broadcast: Ipv4Addr,
    /// As games have it.
    unbound: Arc<UdpSocket>,
    /// Multicast of this one goes into the overlay.
    overlay: Option<Arc<UdpSocket>>,
}

impl Mouths {
    fn open(here: Option<Ipv4Addr>, broadcast: Ipv4Addr) -> io::Result<Self> {
        // Without an address there is nothing to be asked there.
        let into_overlay = |here: Ipv4Addr| {
            let socket = unbound()?;
            socket2::SockRef::from(&socket).set_multicast_if_v4(&here)?;
            io::Result::Ok(Arc::new(socket))
        };
        let overlay = here.and_then(|here| into_overlay(here).ok());
        Ok(Self { token: entropy::bytes(), broadcast, unbound: Arc::new(unbound()?), overlay })
    }

    fn all(&self) -> impl Iterator<Item = &Arc<UdpSocket>> {
        [&self.unbound].into_iter().chain(&self.overlay)
    }

    /// Asks all that there is to ask; what did not leave, and why.
    async fn ask_everybody(&self) -> BTreeSet<String> {
        let mut problems = BTreeSet::new();
        for pause in ROUNDS {
            tokio::time::sleep(pause).await;
            for question in discovery::questions(self.token) {
                for port in question.ports {
                    for ip in [Ipv4Addr::BROADCAST, self.broadcast] {
                        if let Err(error) = self.unbound.send_to(&question.bytes, (ip, port)).await {
                            problems.insert(format!("broadcast to {ip}: {error}"));
                        }
                    }
                }
            }
            self.say(ssdp::QUESTION, (ssdp::GROUP, ssdp::PORT)).await;
            if let Some(question) = mdns::question() {
                self.say(&question, (mdns::GROUP, mdns::PORT)).await;
            }
        }
        problems
    }

    /// To a group, on both sides.
    async fn say(&self, bytes: &[u8], to: (Ipv4Addr, u16)) {
        for socket in self.all() {
            if let Err(error) = socket.send_to(bytes, to).await {
                tracing::debug!(%error, ?to, "not asked");
            }
        }
    }
}

/// What was heard so far, and who was asked again.
#[derive(Default)]
struct Notes {
    heard: BTreeSet<Heard>,
    asked_again: BTreeMap<SocketAddr, u8>,
    kinds: BTreeSet<Vec<u8>>,
}

impl Notes {
    async fn take(&mut self, mouths: &Mouths, ear: Ear, from: SocketAddr, bytes: &[u8]) {
        let is_mdns = ear == Ear::Mdns || ear == Ear::Asking && from.port() == mdns::PORT;
        let found = match ear {
            _ if is_mdns => return self.take_services(mouths, from, bytes).await,
            Ear::Minecraft => minecraft::read(bytes),
            Ear::Ssdp => ssdp::read(bytes),
            Ear::Asking | Ear::Mdns => match discovery::answer(mouths.token, bytes) {
                Some(Answer::Found(found)) => Some(found),
                Some(Answer::AskAgain(question)) => return self.ask_again(mouths, from, &question).await,
                None => ssdp::read(bytes),
            },
        };
        found.into_iter().for_each(|found| self.note(from, found));
    }

    async fn take_services(&mut self, mouths: &Mouths, from: SocketAddr, bytes: &[u8]) {
        let Some(said) = mdns::read(bytes) else { return };
        for question in said.kinds.into_iter().filter_map(mdns::ask_for) {
            if self.kinds.len() < KINDS && self.kinds.insert(question.clone()) {
                mouths.say(&question, (mdns::GROUP, mdns::PORT)).await;
            }
        }
        said.found.into_iter().for_each(|found| self.note(from, found));
    }

    async fn ask_again(&mut self, mouths: &Mouths, from: SocketAddr, question: &[u8]) {
        if self.asked_again.len() >= MOST && !self.asked_again.contains_key(&from) {
            return;
        }
        let times = self.asked_again.entry(from).or_default();
        if *times < AGAIN {
            *times += 1;
            let _ = mouths.unbound.send_to(question, from).await;
        }
    }

    /// Keeps it, unless it is there already: of a machine that says the same on two ways the first is enough.
    fn note(&mut self, from: SocketAddr, found: Found) {
        let same = |heard: &Heard| heard.from.ip() == from.ip() && alike(&heard.found, &found);
        if self.heard.len() < MOST && !self.heard.iter().any(same) {
            self.heard.insert(Heard { from, found });
        }
    }
}

/// The same server, whatever its players do meanwhile.
fn alike(a: &Found, b: &Found) -> bool {
    (a.protocol, &a.name, &a.game, a.port) == (b.protocol, &b.name, &b.game, b.port)
}
