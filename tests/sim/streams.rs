//! Streams between hosts: reliable, in order, as quick as the lines; where a line is dead they wait for it. A NAT lets out
//! every stream; a gateway may let nothing else out ([`Gateway::udp_blocked`](super::topology::Gateway)).

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

/// A wish to connect, as the node said it.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    pub server: ServerId,
    pub attempt: u64,
    pub to: SocketAddr,
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
    server: ServerId,
    /// Who connected, and who accepted.
    ends: [End; 2],
    /// When the last of what goes to each end arrives there.
    last: [Instant; 2],
    /// Each end may have ended it.
    open: [bool; 2],
    /// Somebody in between forgot it: nothing arrives, and nobody is told.
    forgotten: bool,
}

#[derive(Debug)]
enum Event {
    Dialled { host: usize, dial: Dial },
    Arrives { stream: usize, to: usize, payload: Vec<u8> },
    Ends { stream: usize, to: usize },
}

/// All of a world.
#[derive(Debug, Default)]
pub struct Streams {
    all: Vec<Stream>,
    events: BTreeMap<(Instant, u64), Event>,
    order: u64,
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
}

impl World {
    /// Streams that are open on both ends.
    pub fn streams_open(&self) -> usize {
        self.streams.all.iter().filter(|stream| stream.open == [true; 2]).count()
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
            let delay = self.delay(index, dial.to.ip());
            self.streams
                .enqueue(self.now + delay.map_or(CONNECT, |delay| delay * 2), Event::Dialled { host: index, dial });
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
        let there =
            (0..self.gateways.len()).find(|g| self.gateways[*g].is_external(to) || self.host_in(*g, to).is_some())?;
        let here = self.gateway_of(HostId(from)).0;
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
            Event::Dialled { host, dial } => self.dialled(host, dial),
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
                let (server, end) = (self.streams.all[stream].server, self.streams.all[stream].ends[to]);
                if std::mem::take(&mut self.streams.all[stream].open[to]) {
                    self.machine_mut(end.host).stream_ended(now, server, end.socket);
                    self.drain(end.host);
                }
            }
        }
    }

    fn dialled(&mut self, host: usize, dial: Dial) {
        let result = self.accept(host, dial);
        self.note(HostId(host), format!("connects to {}: {result:?}", dial.to));
        let done = Done::Connected { server: dial.server, attempt: dial.attempt, result };
        let now = self.now;
        self.machine_mut(host).dialled(now, done);
        self.drain(host);
    }

    fn accept(&mut self, host: usize, dial: Dial) -> Result<SocketId, String> {
        let there = (0..self.gateways.len()).find_map(|gateway| self.host_in(gateway, dial.to.ip()));
        let there = there.filter(|there| !self.is_cut([host, *there])).ok_or("does not answer")?;
        if !self.machine_mut(there).accepts_streams() || !self.is_bound(there, dial.to) {
            return Err("refuses the connection".to_owned());
        }
        let (number, source) = (self.streams.all.len(), self.seen_as(host, dial.to.ip()));
        let port = 20_000 + u16::try_from(number).expect("few streams");
        let near = End { host, socket: Streams::id(number), address: SocketAddr::new(source, port) };
        let far = End { host: there, socket: Streams::id(number), address: dial.to };
        let (ends, last) = ([near, far], [self.now; 2]);
        self.streams.all.push(Stream { server: dial.server, ends, last, open: [true; 2], forgotten: false });
        Ok(near.socket)
    }

    /// The address that a stream of a host has outside.
    fn seen_as(&mut self, host: usize, to: IpAddr) -> IpAddr {
        let own = self.addresses(HostId(host)).iter().find(|ip| ip.is_ipv4() == to.is_ipv4()).copied().unwrap_or(to);
        let gateway = self.gateway_of(HostId(host)).0;
        match &self.gateways[gateway].nat {
            Some(nat) if own.is_ipv4() && nat.config().translates => nat.external(),
            _ => own,
        }
    }
}
