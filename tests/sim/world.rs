//! The world: moves datagrams from host to host in virtual time, wakes machines when they asked for it, and
//! fails the test on what no run may show (an error in the log, a timer that never rests).

use std::any::Any;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use punchlan::id::SocketId;
use punchlan::sans::{Instant, Rng, Seed, Wakeup};
use tracing::Level;
use tracing::subscriber::DefaultGuard;

use super::errors;
use super::host::Host;
use super::journey::Stage;
use super::machine::Machine;
use super::recorder::{Crossing, Recorder};
use super::streams::Streams;
use super::topology::{Flight, Gateway, Line};
use crate::nat::NatConfig;

/// Time to cross a house's own network.
pub(super) const LAN_DELAY: Duration = Duration::from_micros(200);
/// What a datagram starts with unless its sender says otherwise.
pub(super) const TTL: u8 = 64;
/// Wake-ups of one machine at one moment after which its timer counts as never resting.
const RESTLESS: u32 = 1_000;
/// Where runs begin: not at zero, as no clock does.
const START: Instant = Instant::from_nanos(1_000_000_000_000);

/// A host of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// A gateway of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayId(pub usize);

/// See the module.
pub struct World {
    pub(super) now: Instant,
    pub rng: Rng,
    order: u64,
    queue: BTreeMap<(Instant, u64), (Stage, Flight)>,
    pub(super) streams: Streams,
    pub(super) hosts: Vec<Host>,
    pub(super) gateways: Vec<Gateway>,
    pub recorder: Recorder,
    /// Data datagrams that went straight from host to host.
    pub(super) straight: BTreeMap<(HostId, HostId), u64>,
    /// The core carries only what comes from this house or goes there.
    pub only: Option<GatewayId>,
    /// Datagrams with an inner packet that a line has lost.
    pub line_lost: usize,
    /// Everything that was delivered, for those who listen on the wire: receiver and datagram.
    pub tap: Option<Vec<(HostId, Vec<u8>)>>,
    /// Where a failing run leaves its diagram, below cargo's folder for tests; none: on stderr.
    pub diagram: Option<&'static str>,
    /// Errors that a test provokes on purpose are allowed.
    pub errors_allowed: bool,
    _ear: DefaultGuard,
}

impl World {
    /// An empty world; the seed decides all its chances.
    pub fn new(seed: u64) -> Self {
        Self {
            now: START,
            rng: Seed::from_u64(seed).rng(),
            order: 0,
            queue: BTreeMap::new(),
            streams: Streams::default(),
            hosts: Vec::new(),
            gateways: Vec::new(),
            recorder: Recorder::default(),
            straight: BTreeMap::new(),
            only: None,
            line_lost: 0,
            tap: None,
            diagram: None,
            errors_allowed: false,
            _ear: errors::listen(),
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A house with this NAT and outer IPv4 address, and an IPv6 firewall or none.
    pub fn gateway(&mut self, name: &str, nat: Option<(NatConfig, IpAddr)>, firewall: bool) -> GatewayId {
        let gateway = Gateway::new(name, nat, firewall, &mut self.rng);
        self.gateways.push(gateway);
        GatewayId(self.gateways.len() - 1)
    }

    /// A gateway, to change.
    pub fn gate(&mut self, id: GatewayId) -> &mut Gateway {
        &mut self.gateways[id.0]
    }

    /// Somebody in the core writes a datagram with any source it likes.
    pub fn inject(&mut self, somebody: HostId, source: SocketAddr, destination: SocketAddr, payload: Vec<u8>) {
        let (sent, written) = (self.now, (source, destination));
        let (ttl_written, ttl) = (None, TTL);
        let flight = Flight { host: somebody.0, sent, written, ttl_written, ttl, source, destination, payload };
        self.enqueue(self.now, Stage::Core, flight);
    }

    /// Sets both lines of every gateway.
    pub fn all_lines(&mut self, line: Line) {
        for gateway in &mut self.gateways {
            (gateway.up, gateway.down) = (line, line);
        }
    }

    /// A host in this house. It listens nowhere until [`Self::bind`].
    pub fn host(&mut self, name: &str, gateway: GatewayId, addresses: &[IpAddr], machine: impl Machine) -> HostId {
        self.recorder.host(name);
        self.hosts.push(Host {
            name: name.to_owned(),
            gateway: gateway.0,
            addresses: addresses.to_vec(),
            sockets: BTreeMap::new(),
            timer: machine.poll_timeout(),
            changes: 0,
            machine: Box::new(machine),
            stopped: None,
            woken: (START, 0),
        });
        HostId(self.hosts.len() - 1)
    }

    /// Which gateway a host is behind.
    pub fn gateway_of(&self, host: HostId) -> GatewayId {
        GatewayId(self.hosts[host.0].gateway)
    }

    /// A host's own addresses.
    pub fn addresses(&self, host: HostId) -> &[IpAddr] {
        &self.hosts[host.0].addresses
    }

    /// Moves a host to other addresses, perhaps behind another gateway. What is in flight to it is lost.
    pub fn move_host(&mut self, host: HostId, gateway: GatewayId, addresses: &[IpAddr]) {
        let moved = &mut self.hosts[host.0];
        moved.gateway = gateway.0;
        moved.addresses = addresses.to_vec();
        self.note(host, format!("moved to {addresses:?}"));
    }

    /// Binds the IPv4 socket (0) and the IPv6 socket (1) to `port`; none: the process is gone. What a machine opens
    /// itself ([`Machine::opened`]) is bound for as long as it says so.
    pub fn bind(&mut self, host: HostId, port: Option<u16>) {
        let wildcards = |port| [SocketAddr::from(([0; 4], port)), SocketAddr::from(([0; 16], port))];
        self.bind_all(host, &port.map(wildcards).into_iter().flatten().collect::<Vec<_>>());
    }

    /// Binds sockets to these addresses, with ids from 0 on.
    pub fn bind_all(&mut self, host: HostId, addresses: &[SocketAddr]) {
        self.hosts[host.0].sockets = (0..).map(SocketId).zip(addresses.iter().copied()).collect();
    }

    /// SIGSTOP: no timer fires, datagrams wait in the socket.
    pub fn stop(&mut self, host: HostId) {
        self.note(host, "stopped");
        self.hosts[host.0].stopped = Some(Vec::new());
    }

    /// SIGCONT.
    pub fn go_on(&mut self, host: HostId) {
        self.note(host, "goes on");
        for (socket, flight) in self.hosts[host.0].stopped.take().unwrap_or_default() {
            self.deliver(host.0, socket, flight);
        }
    }

    /// How many data datagrams went straight from one host to the other, counted on the wire.
    pub fn straight(&self, from: HostId, to: HostId) -> u64 {
        self.straight.get(&(from, to)).copied().unwrap_or_default()
    }

    /// A line of the diagram.
    pub fn note(&mut self, host: HostId, text: impl Into<String>) {
        self.recorder.note(self.now, host.0, text);
    }

    /// A host's machine as what it is.
    pub fn machine<M: Machine>(&self, host: HostId) -> &M {
        let machine: &dyn Any = self.hosts[host.0].machine.as_ref();
        machine.downcast_ref().expect("the host runs such a machine")
    }

    /// Changes a host's machine, then carries what it has to say.
    pub fn with<M: Machine, R>(&mut self, host: HostId, change: impl FnOnce(&mut M, Instant) -> R) -> R {
        let machine: &mut dyn Any = self.hosts[host.0].machine.as_mut();
        let result = change(machine.downcast_mut().expect("the host runs such a machine"), self.now);
        self.drain(host.0);
        result
    }

    /// Lets `duration` pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `done`, and says how long it took; `None` if `limit` passed first.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let (start, end) = (self.now, self.now + limit);
        while !done(self) {
            if !self.step(end) {
                self.now = end;
                return done(self).then_some(limit);
            }
        }
        Some(self.now - start)
    }

    /// The same where only what one of `hosts` does can make it so: it is asked no more often than that.
    pub fn run_until_they(
        &mut self,
        hosts: [HostId; 2],
        limit: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let mut seen = None;
        self.run_until(limit, |world| {
            let changes = Some(hosts.map(|host| world.hosts[host.0].changes));
            std::mem::replace(&mut seen, changes) != changes && done(world)
        })
    }

    /// Does the next thing that is due until `end`.
    fn step(&mut self, end: Instant) -> bool {
        let datagram = self.queue.keys().next().copied();
        let timer = self.next_timer();
        if let Some(at) = self.streams.next().filter(|at| *at <= end) {
            let earlier =
                datagram.map(|(at, _)| at).into_iter().chain(timer.map(|(at, ..)| at)).any(|other| other < at);
            if !earlier {
                self.advance_streams();
                return true;
            }
        }
        match (datagram, timer) {
            (Some(key), timer) if key.0 <= end && timer.is_none_or(|(at, ..)| key.0 <= at) => {
                self.now = self.now.max(key.0);
                let (stage, flight) = self.queue.remove(&key).expect("it was just seen");
                self.advance(stage, flight);
            }
            (_, Some((at, host, why))) if at <= end => {
                self.now = self.now.max(at);
                self.wake(host, why);
            }
            _ => return false,
        }
        true
    }

    fn next_timer(&self) -> Option<(Instant, usize, &'static str)> {
        let running = self.hosts.iter().enumerate().filter(|(_, h)| h.stopped.is_none());
        running.filter_map(|(i, h)| h.timer.map(|Wakeup { at, why }| (at, i, why))).min()
    }

    fn wake(&mut self, index: usize, why: &'static str) {
        let host = &mut self.hosts[index];
        host.woken = if host.woken.0 == self.now { (self.now, host.woken.1 + 1) } else { (self.now, 0) };
        assert!(host.woken.1 < RESTLESS, "{} wakes again and again at {:?}: {why}", host.name, self.now);
        host.machine.handle_timeout(self.now);
        self.drain(index);
    }

    pub(super) fn machine_mut(&mut self, index: usize) -> &mut dyn Machine {
        self.hosts[index].machine.as_mut()
    }

    pub(super) fn is_bound(&self, index: usize, to: SocketAddr) -> bool {
        self.hosts[index].socket_at(to).is_some()
    }

    /// Carries what a machine has to say; called whenever it may have changed.
    pub(super) fn drain(&mut self, index: usize) {
        self.listen(index);
        while let Some(transmit) = self.hosts[index].machine.poll_transmit() {
            match transmit.socket.is_stream() {
                true => self.send_by_stream(index, transmit),
                false => self.send(index, transmit),
            }
        }
        while let Some(payload) = self.hosts[index].machine.poll_said() {
            self.say(index, payload);
        }
        self.drain_streams(index);
        self.listen(index);
        let host = &mut self.hosts[index];
        host.timer = host.machine.poll_timeout();
        host.changes += 1;
    }

    /// Takes the log of what just ran.
    fn listen(&mut self, index: usize) {
        for (level, text) in errors::heard() {
            let fatal = level == Level::ERROR && !self.errors_allowed;
            assert!(!fatal, "{} logged an error: {text}", self.hosts[index].name);
            self.recorder.note(self.now, index, format!("{level} {text}"));
        }
    }

    pub(super) fn host_in(&self, gateway: usize, ip: IpAddr) -> Option<usize> {
        self.hosts.iter().position(|h| h.gateway == gateway && h.addresses.contains(&ip))
    }

    pub(super) fn enqueue(&mut self, at: Instant, stage: Stage, flight: Flight) {
        self.order += 1;
        self.queue.insert((at, self.order), (stage, flight));
    }

    pub(super) fn lose(&mut self, flight: &Flight, why: &str) {
        let aim = self.hosts.iter().position(|h| {
            h.addresses.contains(&flight.written.1.ip()) || self.gateways[h.gateway].is_external(flight.written.1.ip())
        });
        self.record(flight, aim, Some(why.to_owned()));
    }

    pub(super) fn record(&mut self, flight: &Flight, to: Option<usize>, lost: Option<String>) {
        let crossing = Crossing {
            from: flight.host,
            to,
            source: flight.written.0,
            destination: flight.written.1,
            payload: &flight.payload,
            ttl: flight.ttl_written,
            sent: flight.sent,
            lost,
        };
        self.recorder.crossing(self.now, crossing);
    }
}

/// A failing test leaves its diagram behind.
impl Drop for World {
    #[allow(clippy::print_stderr, reason = "the test harness shows it with the failure")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        match self.diagram {
            Some(name) => {
                let file = Path::new(option_env!("CARGO_TARGET_TMPDIR").unwrap_or(".")).join(name);
                let _ = std::fs::write(&file, self.recorder.draw());
                eprintln!("the diagram is in {}", file.display());
            }
            None => eprintln!("\n{}", self.recorder.draw()),
        }
    }
}
