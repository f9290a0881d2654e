//! Streams between hosts: reliable, in order, as quick as the lines; where a line is dead they wait for it. To whoever
//! accepts them (a rendezvous) a NAT lets out every stream. Between peers a NAT does with SYNs what it does with datagrams,
//! and two that cross are one stream. A gateway may let nothing but streams out
//! ([`Gateway::udp_blocked`](super::topology::Gateway)).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use punchlan::id::{ServerId, SocketId};
use punchlan::sans::{Datagram, Done, Instant, Transmit};

use super::world::{HostId, LAN_DELAY, World};

/// Who cannot be reached is given up after this.
const CONNECT: Duration = Duration::from_secs(4);
/// What finds a dead line is tried again after this.
const AGAIN: Duration = Duration::from_millis(200);
/// What is not let go all the way is given up after this.
const HELD: Duration = Duration::from_secs(10);
/// When SYNs leave that nobody answers.
const SYNS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// A wish to connect, as the node said it.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    pub to: SocketAddr,
    /// From this port; none: from any.
    pub from: Option<u16>,
    /// No further than so many hops.
    pub ttl: Option<u8>,
    pub asked: Asked,
}

/// By which action, to be answered so.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    Rendezvous { server: ServerId, attempt: u64 },
    Port { attempt: u64 },
}

/// One end.
#[derive(Clone, Copy, Debug)]
struct End {
    host: usize,
    socket: SocketId,
    /// Its address as the other end sees it.
    address: SocketAddr,
}

#[derive(Debug)]
struct Stream {
    /// Who connected, and who accepted.
    ends: [End; 2],
    /// When the last of what goes to each end arrives there.
    last: [Instant; 2],
    /// Each end may have ended it.
    open: [bool; 2],
    /// Somebody in between forgot it: nothing arrives, and nobody is told.
    forgotten: bool,
}

/// A connection that is being tried.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    host: usize,
    dial: Dial,
    /// From there, and as it leaves the house.
    own: SocketAddr,
    source: SocketAddr,
    /// It goes no further than to the NAT.
    held: bool,
}

#[derive(Debug)]
enum Event {
    /// A SYN leaves, and arrives.
    Leaves {
        attempt: u64,
    },
    Knocks {
        attempt: u64,
    },
    /// It became this.
    Dialled {
        attempt: u64,
        result: Result<SocketId, String>,
    },
    Arrives {
        stream: usize,
        to: usize,
        payload: Vec<u8>,
    },
    Ends {
        stream: usize,
        to: usize,
    },
}

/// All of a world.
#[derive(Debug, Default)]
pub struct Streams {
    all: Vec<Stream>,
    attempts: BTreeMap<u64, Attempt>,
    events: BTreeMap<(Instant, u64), Event>,
    order: u64,
    /// Which attempt sent the last SYN from here to there: no other is let out by a NAT that keeps track of connections.
    opened: BTreeMap<(SocketAddr, SocketAddr), u64>,
}

impl Streams {
    pub(super) fn next(&self) -> Option<Instant> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    fn enqueue(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }

    fn id(number: usize) -> SocketId {
        SocketId(SocketId::FIRST_STREAM.0 + u16::try_from(number).expect("few streams"))
    }

    /// The stream that a host calls so, and which end the host is.
    fn find(&self, host: usize, socket: SocketId) -> Option<(usize, usize)> {
        let is_end = |stream: &Stream| stream.ends.iter().position(|end| (end.host, end.socket) == (host, socket));
        self.all.iter().enumerate().find_map(|(n, stream)| Some((n, is_end(stream)?)))
    }

    /// A stream between these two, who see each other so.
    fn connect(&mut self, now: Instant, near: (usize, SocketAddr), far: (usize, SocketAddr)) -> SocketId {
        let socket = Self::id(self.all.len());
        let ends = [near, far].map(|(host, address)| End { host, socket, address });
        self.all.push(Stream { ends, last: [now; 2], open: [true; 2], forgotten: false });
        socket
    }

    /// Whether these two are connected by these addresses.
    fn are_connected(&self, near: SocketAddr, far: SocketAddr) -> bool {
        let between = |stream: &Stream| {
            let [a, b] = stream.ends.map(|end| end.address);
            [(a, b), (b, a)].contains(&(near, far))
        };
        self.all.iter().any(|stream| stream.open == [true; 2] && between(stream))
    }
}

impl World {
    /// Streams that are open on both ends.
    pub fn streams_open(&self) -> usize {
        self.streams.all.iter().filter(|stream| stream.open == [true; 2]).count()
    }

    /// Those of them that are between these two.
    pub fn streams_between(&self, a: HostId, b: HostId) -> usize {
        let open = self.streams.all.iter().filter(|stream| stream.open == [true; 2]);
        let hosts = open.map(|stream| stream.ends.map(|end| end.host));
        hosts.filter(|hosts| [[a.0, b.0], [b.0, a.0]].contains(hosts)).count()
    }

    /// Streams that there have been.
    pub fn streams_ever(&self) -> usize {
        self.streams.all.len()
    }

    /// A process is gone, and its streams with it.
    pub fn end_streams(&mut self, host: HostId) {
        let of_host: Vec<(usize, usize)> = self
            .streams
            .all
            .iter()
            .enumerate()
            .filter_map(|(n, stream)| Some((n, stream.ends.iter().position(|end| end.host == host.0)?)))
            .collect();
        of_host.into_iter().for_each(|(stream, end)| self.end_stream(stream, end));
    }

    /// Whoever is in between forgets all streams that are there now; neither end knows.
    pub fn forget_streams(&mut self) {
        self.streams.all.iter_mut().for_each(|stream| stream.forgotten = true);
    }

    /// Takes what a machine wants of streams.
    pub(super) fn drain_streams(&mut self, index: usize) {
        while let Some(dial) = self.machine_mut(index).poll_dial() {
            self.dial(index, dial);
        }
        let is_it = |other: &Attempt, number| matches!(other.dial.asked, Asked::Port { attempt } if other.host == index && attempt == number);
        while let Some(attempt) = self.machine_mut(index).poll_let_go() {
            self.streams
                .attempts
                .values_mut()
                .filter(|other| is_it(other, attempt))
                .for_each(|other| other.held = false);
        }
        while let Some(attempt) = self.machine_mut(index).poll_given_up() {
            self.streams.attempts.retain(|_, other| !(is_it(other, attempt) && other.held));
        }
        while let Some(socket) = self.machine_mut(index).poll_hang_up() {
            if let Some((stream, end)) = self.streams.find(index, socket) {
                self.end_stream(stream, end);
            }
        }
    }

    pub(super) fn send_by_stream(&mut self, index: usize, transmit: Transmit) {
        let Some((stream, from)) = self.streams.find(index, transmit.socket) else { return };
        if self.streams.all[stream].open[from] {
            let (to, payload) = (1 - from, transmit.payload);
            self.on_its_way(stream, from, Event::Arrives { stream, to, payload });
        }
    }

    fn end_stream(&mut self, stream: usize, from: usize) {
        if std::mem::take(&mut self.streams.all[stream].open[from]) {
            self.on_its_way(stream, from, Event::Ends { stream, to: 1 - from });
        }
    }

    fn on_its_way(&mut self, stream: usize, from: usize, event: Event) {
        if self.streams.all[stream].forgotten {
            return;
        }
        let ends = self.streams.all[stream].ends;
        let delay = self.delay(ends[from].host, ends[1 - from].address.ip()).unwrap_or(AGAIN);
        let last = &mut self.streams.all[stream].last[1 - from];
        *last = (*last).max(self.now + delay);
        let at = *last;
        self.streams.enqueue(at, event);
    }

    /// How long it takes to somebody, if anybody has that address.
    fn delay(&self, from: usize, to: IpAddr) -> Option<Duration> {
        let here = self.gateway_of(HostId(from)).0;
        let lives = |g: usize| self.gateways[g].is_external(to) || self.host_in(g, to).is_some();
        let there = Some(here).filter(|g| lives(*g)).or_else(|| (0..self.gateways.len()).find(|g| lives(*g)))?;
        let line =
            if here == there { Duration::ZERO } else { self.gateways[here].up.delay + self.gateways[there].down.delay };
        Some(line + LAN_DELAY * 2)
    }

    fn is_cut(&self, hosts: [usize; 2]) -> bool {
        hosts.iter().map(|host| &self.gateways[self.gateway_of(HostId(*host)).0]).any(|g| g.up.dead || g.down.dead)
    }

    /// Does the next thing that streams have due.
    pub(super) fn advance_streams(&mut self) {
        let Some(((at, _), event)) = self.streams.events.pop_first() else { return };
        self.now = self.now.max(at);
        let now = self.now;
        match event {
            Event::Leaves { attempt } => self.knock(attempt),
            Event::Knocks { attempt } => self.is_knocked(attempt),
            Event::Dialled { attempt, result } => self.dialled(attempt, result),
            Event::Arrives { stream, to, .. } | Event::Ends { stream, to }
                if self.is_cut(self.streams.all[stream].ends.map(|end| end.host)) =>
            {
                // All that follows waits behind it.
                let behind = |other: &Event| matches!(other, Event::Arrives { stream: s, to: t, .. } | Event::Ends { stream: s, to: t } if (*s, *t) == (stream, to));
                let keys: Vec<_> = self.streams.events.iter().filter(|(_, e)| behind(e)).map(|(key, _)| *key).collect();
                let again = self.now + AGAIN;
                self.streams.enqueue(again, event);
                for key in keys {
                    let event = self.streams.events.remove(&key).expect("it was just seen");
                    self.streams.enqueue(again.max(key.0), event);
                }
                let last = &mut self.streams.all[stream].last[to];
                *last = again.max(*last);
            }
            Event::Arrives { stream, to, mut payload } => {
                let Stream { ends, open, .. } = &self.streams.all[stream];
                let (end, from) = (ends[to], ends[1 - to].address);
                if open[to] {
                    let datagram = Datagram { socket: end.socket, local: None, from, payload: &mut payload };
                    self.machine_mut(end.host).handle_datagram(now, datagram);
                    self.drain(end.host);
                }
            }
            Event::Ends { stream, to } => {
                let end = self.streams.all[stream].ends[to];
                if std::mem::take(&mut self.streams.all[stream].open[to]) {
                    self.machine_mut(end.host).stream_ended(now, end.socket);
                    self.drain(end.host);
                }
            }
        }
    }
}

// ---- how they begin ------------------------------------------------------------------------------------

impl World {
    /// A host tries to connect.
    fn dial(&mut self, host: usize, dial: Dial) {
        let own = self.addresses(HostId(host)).iter().find(|ip| ip.is_ipv4() == dial.to.is_ipv4()).copied();
        self.streams.order += 1;
        let attempt = self.streams.order;
        let port = dial.from.unwrap_or(20_000 + u16::try_from(attempt % 10_000).expect("below 10,000"));
        let own = SocketAddr::new(own.unwrap_or(dial.to.ip()), port);
        let (begun, held) = (self.now, dial.ttl.is_some());
        self.streams.attempts.insert(attempt, Attempt { host, dial, own, source: own, held });
        SYNS.iter().for_each(|after| self.streams.enqueue(begun + *after, Event::Leaves { attempt }));
        let given_up = begun + if held { HELD } else { CONNECT };
        self.streams.enqueue(given_up, Event::Dialled { attempt, result: Err("does not answer".to_owned()) });
    }

    /// Its SYN leaves the house, if it goes so far.
    fn knock(&mut self, number: u64) {
        let Some(Attempt { host, dial, own, held, .. }) = self.streams.attempts.get(&number).copied() else { return };
        let gateway = self.gateway_of(HostId(host)).0;
        let (now, is_near) = (self.now, self.host_in(gateway, dial.to.ip()).is_some());
        let source = match self.gateways[gateway].translator_of_streams(dial.to.ip()) {
            Some(nat) if !is_near => nat.outbound(now, own, dial.to),
            _ => Some(own),
        };
        let Some(source) = source else { return };
        self.streams.attempts.entry(number).and_modify(|attempt| attempt.source = source);
        self.streams.opened.insert((own, dial.to), number);
        if let Some(delay) = self.delay(host, dial.to.ip()).filter(|_| is_near || !held) {
            self.streams.enqueue(now + delay, Event::Knocks { attempt: number });
        }
    }

    /// Its SYN arrives.
    fn is_knocked(&mut self, number: u64) {
        let Some(Attempt { host, dial, source, .. }) = self.streams.attempts.get(&number).copied() else { return };
        let to = dial.to;
        let Some((there, inside)) = self.let_in(host, to, source).filter(|(there, _)| !self.is_cut([host, *there]))
        else {
            return;
        };
        let now = self.now;
        let other = self.streams.attempts.iter().find(|(_, other)| {
            other.host == there && other.dial.from == Some(inside.port()) && other.dial.to == source
        });
        let other = other.map(|(other, _)| *other);
        let opener = self.streams.opened.get(&(inside, source)).copied();
        let is_held = other.and_then(|other| self.streams.attempts.get(&other)).is_some_and(|other| other.held);
        if is_held || self.gateway_of(HostId(there)) != self.gateway_of(HostId(host)) && opener != other {
            // The answer is not let out, or not far enough.
            return;
        }
        let listens = self.machine_mut(there).listens() == Some(inside.port());
        let serves = self.machine_mut(there).accepts_streams() && self.is_bound(there, to);
        let back = now + self.delay(host, to.ip()).unwrap_or(AGAIN);
        if self.streams.are_connected(source, to) {
            return;
        }
        let result = match other {
            Some(other) => {
                let socket = self.streams.connect(now, (host, source), (there, to));
                self.streams.enqueue(now, Event::Dialled { attempt: other, result: Ok(socket) });
                Ok(socket)
            }
            None if listens || serves => {
                let socket = self.streams.connect(now, (host, source), (there, to));
                if listens {
                    self.machine_mut(there).accepted(now, socket, source);
                    self.drain(there);
                }
                Ok(socket)
            }
            None => Err("refuses the connection".to_owned()),
        };
        self.streams.enqueue(back, Event::Dialled { attempt: number, result });
    }

    /// To which host it comes, and to which of its addresses.
    fn let_in(&mut self, from: usize, to: SocketAddr, source: SocketAddr) -> Option<(usize, SocketAddr)> {
        let here = self.gateway_of(HostId(from)).0;
        if let Some(neighbour) = self.host_in(here, to.ip()) {
            return Some((neighbour, to)).filter(|(there, _)| *there != from && !self.gateways[here].isolates);
        }
        let now = self.now;
        let there = (0..self.gateways.len()).find(|g| {
            self.gateways[*g].is_external(to.ip())
                || self.gateways[*g].is_routed(to.ip()) && self.host_in(*g, to.ip()).is_some()
        })?;
        let inside = match self.gateways[there].translator_of_streams(to.ip()) {
            Some(nat) => nat.inbound(now, to, source)?,
            None => to,
        };
        Some((self.host_in(there, inside.ip())?, inside))
    }

    fn dialled(&mut self, number: u64, result: Result<SocketId, String>) {
        let Some(Attempt { host, dial, .. }) = self.streams.attempts.remove(&number) else { return };
        self.note(HostId(host), format!("connects to {}: {result:?}", dial.to));
        let done = match dial.asked {
            Asked::Rendezvous { server, attempt } => Done::Connected { server, attempt, result },
            Asked::Port { attempt } => Done::Dialled { attempt, result },
        };
        let now = self.now;
        self.machine_mut(host).dialled(now, done);
        self.drain(host);
    }
}
