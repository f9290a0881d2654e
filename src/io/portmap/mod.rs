//! Port mappings on the router: what is asked of it, and what it says unasked. When it is asked, and what its answers
//! mean, others decide ([`crate::gather::lease`]).
//!
//! For each transport a task of its own talks to the router, so that one that is silent holds up nobody. For each question
//! it looks where the way to the internet leads now, and asks the router there
//!
//! 1. by the protocol by which it gave the mapping that it is to renew, or the other transport's, if it did; else
//! 2. by PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP-IGD, in this order, until one gives a mapping.
//!
//! Whatever a router says is bounded in size and time by the protocols' crates and by [`PATIENCE`]. A question runs in a
//! task of its own again: should a crate panic over an answer, that is an answer too.

mod announced;
mod control;
mod offers;
#[cfg(feature = "upnp")]
mod upnp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

pub use offers::{Offer, Offers, offers};

use super::entropy;
use super::net::Network;
use crate::sans::{Done, PortMapping, Transport};
use announced::Announced;
use control::Control;
#[cfg(feature = "upnp")]
use upnp::Upnp;

/// What is asked for, seconds. A crash leaves a mapping behind for so long; routers have their own ideas anyway.
const LEASE_SECONDS: u32 = 3_600;
/// A question is given up after this, whoever still talks.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before the end a question that is being asked gets this long, lest what it gets be left behind…
const LAST_ANSWER: Duration = Duration::from_millis(300);
/// …and then the router gets this long to take the mapping back.
const LAST_WORDS: Duration = Duration::from_millis(700);
/// Of a router's own words, so many characters are shown.
const QUOTED: usize = 120;

/// Talks to the router.
#[derive(Debug)]
pub struct PortMapper {
    udp: mpsc::UnboundedSender<Order>,
    tcp: mpsc::UnboundedSender<Order>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
enum Order {
    Map { attempt: u64, port: u16 },
    Unmap,
}

impl PortMapper {
    /// Talks to nobody before it is told to. Answers and news go to `tell`. Must be called inside a tokio runtime.
    pub fn start(tell: impl Fn(Done) + Clone + Send + 'static) -> Self {
        // One for the whole run: by it the router knows that it is we who renew and give back (RFC 6887 §11.2).
        let nonce = [(); 3].map(|()| u32::from_be_bytes(entropy::bytes()));
        let mut tasks = JoinSet::new();
        let mut start = |transport, held, others| {
            let (orders, received) = mpsc::unbounded_channel();
            let talk = Talk { transport, tell: tell.clone(), nonce, held, others, announced: None };
            tasks.spawn(talk.run(received));
            orders
        };
        let ((by_udp, for_tcp), (by_tcp, for_udp)) = (watch::channel(None), watch::channel(None));
        let (udp, tcp) = (start(Transport::Udp, by_udp, for_udp), start(Transport::Tcp, by_tcp, for_tcp));
        Self { udp, tcp, tasks }
    }

    /// [`crate::sans::Action::MapPort`].
    pub fn map(&self, transport: Transport, attempt: u64, port: u16) {
        self.order(transport, Order::Map { attempt, port });
    }

    /// [`crate::sans::Action::UnmapPort`].
    pub fn unmap(&self, transport: Transport) {
        self.order(transport, Order::Unmap);
    }

    fn order(&self, transport: Transport, order: Order) {
        let orders = match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
        };
        // The task ends only after this is dropped.
        let _ = orders.send(order);
    }

    /// Waits until what was ordered is done, but no longer than `patience`.
    pub async fn finish(self, patience: Duration) {
        let Self { udp, tcp, mut tasks } = self;
        drop((udp, tcp));
        if timeout(patience, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::debug!("the router did not take the port mappings back in time; they end by themselves");
        }
    }
}

/// The task.
struct Talk<T> {
    transport: Transport,
    tell: T,
    nonce: [u32; 3],
    /// What the router maps, and what it maps for the other transport.
    held: watch::Sender<Option<Held>>,
    others: watch::Receiver<Option<Held>>,
    /// What the router announces, where it was found last. One of both is enough to hear it.
    announced: Option<Announced>,
}

impl<T: Fn(Done)> Talk<T> {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut question: Option<Question> = None;
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Map { attempt, port }) => question = Some(self.ask(attempt, port)),
                    Some(Order::Unmap) => self.unmap(question.take()).await,
                    None => return,
                },
                (attempt, answer) = answer_to(&mut question) => {
                    question = None;
                    let result = self.take_in(answer);
                    (self.tell)(Done::PortMapped { transport: self.transport, attempt, result });
                }
                () = next_announcement(&mut self.announced) => (self.tell)(Done::RouterChanged),
            }
        }
    }

    fn ask(&self, attempt: u64, port: u16) -> Question {
        let before = [self.held.borrow().clone(), self.others.borrow().clone()];
        let (transport, nonce) = (self.transport, self.nonce);
        let asked = async move {
            match timeout(PATIENCE, ask(before, transport, port, nonce)).await {
                Ok(answer) => answer,
                Err(_) => Answer { place: None, result: Err(format!("no end after {} s", PATIENCE.as_secs())) },
            }
        };
        Question { attempt, task: tokio::spawn(asked) }
    }

    /// Remembers what is to be renewed and given back.
    fn take_in(&mut self, answer: Answer) -> Result<PortMapping, String> {
        if let (Some(place), Transport::Udp) = (answer.place, self.transport) {
            let heard = self.announced.take().filter(|announced| announced.place() == place);
            self.announced = heard.or_else(|| Announced::listen(place));
        }
        self.held.send_replace(answer.result.as_ref().ok().cloned());
        answer.result.map(|held| held.mapping())
    }

    async fn unmap(&mut self, question: Option<Question>) {
        if let Some(mut question) = question
            && let Ok(Ok(answer)) = timeout(LAST_ANSWER, &mut question.task).await
        {
            let _ = self.take_in(answer);
        }
        let Some(held) = self.held.send_replace(None) else { return };
        match timeout(LAST_WORDS, held.release()).await {
            Ok(Ok(())) => tracing::debug!("the router took the port mapping back"),
            Ok(Err(error)) => tracing::debug!(error, "the router did not take the port mapping back"),
            Err(_) => tracing::debug!("the router is silent, and keeps the port mapping until it ends"),
        }
    }
}

/// One that is being asked. Dropped, it is asked no longer.
struct Question {
    attempt: u64,
    task: JoinHandle<Answer>,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer_to(question: &mut Option<Question>) -> (u64, Answer) {
    let Some(question) = question else { return std::future::pending().await };
    let answer = (&mut question.task).await;
    let broken = |_| Answer { place: None, result: Err("the router's answer could not be read".to_owned()) };
    (question.attempt, answer.unwrap_or_else(broken))
}

async fn next_announcement(announced: &mut Option<Announced>) {
    match announced {
        Some(announced) => announced.next().await,
        None => std::future::pending().await,
    }
}

/// Where this machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// The router.
    gateway: Ipv4Addr,
    /// This machine's address on the router's LAN.
    local: Ipv4Addr,
}

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inside {
    place: Place,
    transport: Transport,
    port: NonZeroU16,
}

/// What became of a question.
struct Answer {
    /// Where it was asked, if there was anybody to ask.
    place: Option<Place>,
    result: Result<Held, String>,
}

/// A mapping that is there.
#[derive(Clone, Debug)]
enum Held {
    Control(Control),
    #[cfg(feature = "upnp")]
    Upnp(Box<Upnp>),
}

impl Held {
    fn inside(&self) -> Inside {
        match self {
            Self::Control(control) => control.inside,
            #[cfg(feature = "upnp")]
            Self::Upnp(upnp) => upnp.inside,
        }
    }

    fn mapping(&self) -> PortMapping {
        let (protocol, external, lifetime, epoch) = match self {
            Self::Control(control) => control.describe(),
            #[cfg(feature = "upnp")]
            Self::Upnp(upnp) => upnp.describe(),
        };
        PortMapping { protocol, gateway: self.inside().place.gateway.into(), external, lifetime, epoch }
    }

    /// Asks for this as that was asked for, which may be the same; nothing, if the router does not agree or is not there.
    async fn ask_alike(&self, inside: Inside, nonce: [u32; 3]) -> Option<Self> {
        match self {
            Self::Control(control) => control.ask_alike(inside, nonce).await.map(Self::Control),
            #[cfg(feature = "upnp")]
            Self::Upnp(upnp) => upnp.ask_alike(inside).await.map(|upnp| Self::Upnp(Box::new(upnp))),
        }
    }

    async fn release(self) -> Result<(), String> {
        match self {
            Self::Control(control) => control.release().await,
            #[cfg(feature = "upnp")]
            Self::Upnp(upnp) => upnp.release().await,
        }
    }
}

/// Why a protocol gave no mapping.
enum Refusal {
    /// The router does not speak it.
    Absent,
    /// It does, and says so.
    Said(String),
}

impl Refusal {
    /// In the router's words, as far as they can be shown.
    fn said(error: impl ToString) -> Self {
        let text = error.to_string();
        let text = text.strip_prefix("Server responded with code: ").unwrap_or(&text);
        Self::Said(text.chars().filter(|c| !c.is_control()).take(QUOTED).collect())
    }
}

async fn ask(before: [Option<Held>; 2], transport: Transport, port: u16, nonce: [u32; 3]) -> Answer {
    let place = match find_place().await {
        Ok(place) => place,
        Err(why) => return Answer { place: None, result: Err(why) },
    };
    let Some(port) = NonZeroU16::new(port) else {
        return Answer { place: Some(place), result: Err("no port is bound".to_owned()) };
    };
    let inside = Inside { place, transport, port };
    let alike = match before.into_iter().flatten().find(|held| held.inside().place == place) {
        Some(held) => held.ask_alike(inside, nonce).await,
        None => None,
    };
    let result = match alike {
        Some(held) => Ok(held),
        None => acquire(inside, nonce).await,
    };
    Answer { place: Some(place), result }
}

/// The router that leads to the internet, and this machine's address before it.
async fn find_place() -> Result<Place, String> {
    let unknown = |error: &dyn std::fmt::Display| format!("this machine's router is not known: {error}");
    let net = Network::open().map_err(|error| unknown(&error))?;
    let gateway = net.gateway().await.map_err(|error| unknown(&error))?;
    let gateway = gateway.ok_or_else(|| "no router leads from this machine to the internet".to_owned())?;
    let local = local_address(gateway).await.map_err(|error| unknown(&error))?;
    Ok(Place { gateway, local })
}

/// The address that the system sends to `gateway` from. Nothing is sent.
async fn local_address(gateway: Ipv4Addr) -> std::io::Result<Ipv4Addr> {
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect((gateway, crab_nat::GATEWAY_PORT)).await?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(local) => Ok(local),
        IpAddr::V6(_) => Err(std::io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Asks by each protocol.
async fn acquire(inside: Inside, nonce: [u32; 3]) -> Result<Held, String> {
    let mut refusals = Vec::new();
    match Control::by_pcp(inside, nonce, None).await {
        Ok(control) => return Ok(Held::Control(control)),
        Err(refusal) => refusals.push(("PCP", refusal)),
    }
    match Control::by_nat_pmp(inside, None).await {
        Ok(control) => return Ok(Held::Control(control)),
        Err(refusal) => refusals.push(("NAT-PMP", refusal)),
    }
    #[cfg(feature = "upnp")]
    match Upnp::ask(inside).await {
        Ok(upnp) => return Ok(Held::Upnp(Box::new(upnp))),
        Err(refusal) => refusals.push(("UPnP", refusal)),
    }
    Err(summary(inside.place.gateway, &refusals))
}

/// One sentence of why nothing came of it.
fn summary(gateway: Ipv4Addr, refusals: &[(&str, Refusal)]) -> String {
    let said = refusals.iter().filter_map(|(protocol, refusal)| match refusal {
        Refusal::Absent => None,
        Refusal::Said(text) => Some(format!("{protocol}: {text}")),
    });
    let said: Vec<String> = said.collect();
    if said.is_empty() {
        let names: Vec<&str> = refusals.iter().map(|(name, _)| *name).collect();
        format!("the router {gateway} answers by none of {}", names.join(", "))
    } else {
        format!("the router {gateway} says no by {}", said.join("; by "))
    }
}

/// The port outside that is asked for: another than the one inside. That one peers guess, and try before it is mapped;
/// a Linux router then holds their packets for its own, and goes on to do so for as long as they come, whatever it maps
/// meanwhile.
fn outside(port: NonZeroU16) -> NonZeroU16 {
    const APART: u16 = 0x4000;
    let other = if port.get() < u16::MAX / 2 { port.get() + APART } else { port.get() - APART };
    NonZeroU16::new(other).expect("no less than 0x3fff")
}

/// An address and port outside.
fn external(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_nobody_guesses_is_asked_for_outside() {
        let other = |port| outside(NonZeroU16::new(port).expect("a port")).get();
        assert_eq!([1, 0x7ffe, 0x7fff, u16::MAX].map(other), [0x4001, 0xbffe, 0x3fff, 0xbfff]);
    }

    #[test]
    fn a_routers_words_are_quoted_briefly_and_harmlessly() {
        let long = Refusal::said(format!("Server responded with code: \u{1b}[2J{}", "x".repeat(1 << 20)));
        let gateway = Ipv4Addr::new(192, 168, 0, 1);
        let text = summary(gateway, &[("PCP", Refusal::Absent), ("UPnP", long)]);
        assert_eq!(text, format!("the router 192.168.0.1 says no by UPnP: [2J{}", "x".repeat(QUOTED - 3)));
        let text = summary(gateway, &[("PCP", Refusal::Absent), ("NAT-PMP", Refusal::Absent)]);
        assert_eq!(text, "the router 192.168.0.1 answers by none of PCP, NAT-PMP");
    }

    #[tokio::test]
    async fn whoever_has_nothing_to_give_back_is_done_at_once() {
        let mapper = PortMapper::start(|done| panic!("{done:?} was not asked for"));
        mapper.unmap(Transport::Udp);
        mapper.unmap(Transport::Tcp);
        let start = tokio::time::Instant::now();
        mapper.finish(PATIENCE).await;
        assert!(start.elapsed() < LAST_WORDS);
    }
}
