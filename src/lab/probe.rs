//! What a gateway does, measured from outside as RFC 5780 does: two addresses with two ports each answer on
//! the internet, from whichever of the four the question asks for.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Serialize, Serializer};

use super::{Host, Lab, RENDEZVOUS, RENDEZVOUS_2, RENDEZVOUS_2_V6, RENDEZVOUS_V6, interrupt};
use crate::nat::Behaviour;

/// How long no answer means no answer. Nothing is far away here.
const PATIENCE: Duration = Duration::from_millis(300);
const PORTS: [u16; 2] = [34_780, 34_781];
/// So many sockets show how ports are allocated: that many random ones are not within a block by chance.
const SOCKETS: usize = 8;
/// What carriers give to one customer is no wider.
const BLOCK: u16 = 1_024;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// When a mapping is reused; `None`: nothing is translated.
    #[serde(serialize_with = "none_or_word")]
    pub mapping: Option<Behaviour>,
    /// Who may answer.
    #[serde(serialize_with = "word")]
    pub filtering: Behaviour,
    /// Which ports the sockets of a host get outside.
    pub allocation: Allocated,
    /// Whether a packet that came unsolicited changes the port that its sender sees afterwards.
    pub remembers_unsolicited: bool,
}

/// How external ports look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allocated {
    /// As the internal ones.
    Preserved,
    /// Each after the one before.
    Sequential,
    /// Close to each other.
    Block,
    /// Anything else.
    Random,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mapping {
            Some(mapping) => write!(f, "mapping {mapping}, ")?,
            None => f.write_str("nothing translated, ")?,
        }
        let allocation = match self.allocation {
            Allocated::Preserved => "preserved",
            Allocated::Sequential => "sequential",
            Allocated::Block => "of a block",
            Allocated::Random => "random",
        };
        let early = if self.remembers_unsolicited { ", an early probe costs the port" } else { "" };
        write!(f, "filtering {}, ports {allocation}{early}", self.filtering)
    }
}

fn word<S: Serializer>(behaviour: &Behaviour, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(behaviour)
}

/// In the words of `punchlan status`.
fn none_or_word<S: Serializer>(behaviour: &Option<Behaviour>, serializer: S) -> Result<S::Ok, S::Error> {
    match behaviour {
        Some(behaviour) => word(behaviour, serializer),
        None => serializer.serialize_str("none"),
    }
}

/// Four sockets on the internet that tell what they see: {first, second address} × {first, second port}.
#[derive(Debug)]
pub struct Reflectors {
    addresses: [SocketAddr; 4],
    sockets: Arc<Vec<UdpSocket>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Reflectors {
    /// Starts them on the machine of the rendezvous, for IPv4.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_at(lab, [RENDEZVOUS.into(), RENDEZVOUS_2.into()])
    }

    /// Starts them for IPv6.
    pub fn start_v6(lab: &Lab) -> Result<Self> {
        Self::start_at(lab, [RENDEZVOUS_V6.into(), RENDEZVOUS_2_V6.into()])
    }

    fn start_at(lab: &Lab, [first, second]: [IpAddr; 2]) -> Result<Self> {
        let addresses = [(first, 0), (first, 1), (second, 0), (second, 1)].map(|(ip, port)| (ip, PORTS[port]).into());
        let sockets =
            lab.rendezvous.enter(|| addresses.iter().map(UdpSocket::bind).collect::<Result<Vec<_>, _>>())??;
        let sockets = Arc::new(sockets);
        let stop = Arc::new(AtomicBool::new(false));
        let reflect = |own: usize| {
            let (sockets, stop) = (sockets.clone(), stop.clone());
            lab.rendezvous.spawn(move || reflect(&sockets, own, &stop))
        };
        let threads = (0..4).map(reflect).collect::<Result<_>>()?;
        Ok(Self { addresses, sockets, stop, threads })
    }

    /// Measures the gateway before `host`.
    pub fn measure(&self, host: &Host) -> Result<Findings> {
        let [here, other_port, other_address, elsewhere] = [0, 1, 2, 3];
        let socket = self.socket(host)?;
        let local = SocketAddr::new(self.own_address(host)?, socket.local_addr()?.port());
        let seen = self.see(&socket, here)?;
        let mapping = if seen == local {
            None
        } else if self.see(&socket, other_port)? != seen {
            Some(Behaviour::AddressAndPortDependent)
        } else if self.see(&socket, other_address)? != seen {
            Some(Behaviour::AddressDependent)
        } else {
            Some(Behaviour::EndpointIndependent)
        };
        let filtering = if self.ask(&self.socket(host)?, here, elsewhere)?.is_some() {
            Behaviour::EndpointIndependent
        } else if self.ask(&self.socket(host)?, here, other_port)?.is_some() {
            Behaviour::AddressDependent
        } else {
            Behaviour::AddressAndPortDependent
        };
        let allocation = self.allocation(host)?;
        Ok(Findings { mapping, filtering, allocation, remembers_unsolicited: self.remembers_unsolicited(host)? })
    }

    /// Whether a mapping is still there after so much silence.
    pub fn outlives(&self, host: &Host, silence: Duration) -> Result<bool> {
        let socket = self.socket(host)?;
        let seen = self.see(&socket, 0)?;
        interrupt::pause(silence)?;
        self.sockets[0].send_to(b"still there?", seen)?;
        Ok(socket.recv_from(&mut [0; 64]).is_ok())
    }

    fn allocation(&self, host: &Host) -> Result<Allocated> {
        let sockets: Vec<_> = (0..SOCKETS).map(|_| self.socket(host)).collect::<Result<_>>()?;
        let port_of =
            |socket: &UdpSocket| -> Result<_> { Ok((socket.local_addr()?.port(), self.see(socket, 0)?.port())) };
        let ports: Vec<_> = sockets.iter().map(port_of).collect::<Result<_>>()?;
        let outside = || ports.iter().map(|(_, outside)| *outside);
        let (lowest, highest) = (outside().min().context("no sockets")?, outside().max().context("no sockets")?);
        Ok(if ports.iter().all(|(inside, outside)| inside == outside) {
            Allocated::Preserved
        } else if ports.is_sorted_by(|a, b| a.1.checked_add(1) == Some(b.1)) {
            Allocated::Sequential
        } else if highest - lowest < BLOCK {
            Allocated::Block
        } else {
            Allocated::Random
        })
    }

    fn remembers_unsolicited(&self, host: &Host) -> Result<bool> {
        let (here, stranger) = (0, 3);
        let socket = self.socket(host)?;
        let seen = self.see(&socket, here)?;
        let heard = self.ask(&socket, here, stranger)?;
        Ok(heard.is_none() && seen.port() == socket.local_addr()?.port() && self.see(&socket, stranger)? != seen)
    }

    fn socket(&self, host: &Host) -> Result<UdpSocket> {
        let own = self.own_address(host)?;
        let socket = host.netns.enter(|| UdpSocket::bind((own, 0)))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    fn own_address(&self, host: &Host) -> Result<IpAddr> {
        let (v4, v6) = (host.v4.map(IpAddr::V4), host.v6.map(IpAddr::V6));
        if self.addresses[0].is_ipv4() { v4 } else { v6 }.context("the host lacks this address family")
    }

    /// How reflector `number` sees the socket.
    fn see(&self, socket: &UdpSocket, number: usize) -> Result<SocketAddr> {
        self.ask(socket, number, number)?.with_context(|| format!("{} does not answer", self.addresses[number]))
    }

    /// Asks one reflector to make another answer; `None` if that answer does not come through.
    fn ask(&self, socket: &UdpSocket, asked: usize, answering: usize) -> Result<Option<SocketAddr>> {
        socket.send_to(&[u8::try_from(answering)?], self.addresses[asked])?;
        let mut buffer = [0; 64];
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) if from == self.addresses[answering] => {
                Ok(Some(std::str::from_utf8(&buffer[..length])?.parse()?))
            }
            Ok((_, from)) => bail!("an answer from {from}, which was not asked"),
            Err(_) => Ok(None),
        }
    }
}

impl Drop for Reflectors {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Answers each question from the socket that it names with the address that it came from.
fn reflect(sockets: &[UdpSocket], own: usize, stop: &AtomicBool) {
    let mut question = [0; 1];
    let _ = sockets[own].set_read_timeout(Some(Duration::from_millis(50)));
    while !stop.load(Ordering::Relaxed) {
        let Ok((1, from)) = sockets[own].recv_from(&mut question) else { continue };
        if let Some(socket) = sockets.get(usize::from(question[0])) {
            let _ = socket.send_to(from.to_string().as_bytes(), from);
        }
    }
}

/// Three datagrams through the hole: the first from each side opens it, the last proves it. The public
/// addresses come from a reflector, as a rendezvous would tell them. `true` if both sides heard the other.
pub fn punch(reflectors: &Reflectors, a: &Host, b: &Host) -> Result<bool> {
    let (socket_a, socket_b) = (reflectors.socket(a)?, reflectors.socket(b)?);
    let (seen_a, seen_b) = (reflectors.see(&socket_a, 0)?, reflectors.see(&socket_b, 0)?);
    let heard = |socket: &UdpSocket| socket.recv_from(&mut [0; 16]).ok().map(|(_, from)| from);
    // With a TTL of 2 the first one dies in the core, so that no router remembers it as unsolicited.
    let prime = |socket: &UdpSocket, to: SocketAddr| -> Result<()> {
        socket.set_ttl(2)?;
        socket.send_to(b"prime", to)?;
        Ok(socket.set_ttl(64)?)
    };
    prime(&socket_a, seen_b)?;
    prime(&socket_b, seen_a)?;
    socket_a.send_to(b"one", seen_b)?;
    socket_b.send_to(b"two", seen_a)?;
    // Whoever hears answers to where it came from, which opens a port that only its sender could show.
    let mut proven = (false, false);
    if let Some(from) = heard(&socket_b) {
        socket_b.send_to(b"three", from)?;
        proven.0 = heard(&socket_a).is_some();
    }
    if let Some(from) = heard(&socket_a) {
        socket_a.send_to(b"four", from)?;
        proven.1 = heard(&socket_b).is_some();
    }
    Ok(proven.0 || proven.1)
}
