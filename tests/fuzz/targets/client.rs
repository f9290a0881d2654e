//! A peer's registration where UDP may pass or not, and streams may open, fail, fall silent and end, in any order and at
//! any time, while strangers send what they like. No stream is ended twice or forgotten, none is opened more often than the
//! pauses allow, and in the end the registration stands by what passes.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use arbitrary::Unstructured;
use punchlan::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites};
use punchlan::id::{Epoch, NetworkKey, Origin, PeerId, ServerId, SocketId};
use punchlan::rendezvous::client::{Client, Event, StreamWay};
use punchlan::sans::{Carrier, Datagram, Instant, Seed};
use punchlan::server::{Config, Core};

const SECOND: Duration = Duration::from_secs(1);
const DELAY: Duration = Duration::from_millis(10);
/// Operations of one input.
const MOST: usize = 300;
/// All must be well so long after the last of them.
const RECOVERY: Duration = Duration::from_secs(120);
/// Who is connected to in vain hears of it within this.
const PATIENCE: Duration = Duration::from_secs(4);
/// Ways, each to every address, which are two.
const WAYS: usize = 2;
/// Streams that are opened within a second: every way once, and what begins then.
const BURST: usize = 2 * WAYS + 2;

/// What becomes of a stream that is opened.
#[derive(Clone, Copy)]
enum Dial {
    Opens,
    Fails,
    Hangs,
}

/// A datagram under way.
enum Packet {
    ToServer(SocketId, SocketAddr, Vec<u8>),
    ToClient(Origin, Vec<u8>),
}

struct Line {
    now: Instant,
    client: Client,
    identity: Identity,
    core: Core,
    lives: u64,
    number: u64,
    packets: VecDeque<(Instant, Packet)>,
    /// Those that are being opened, and when that is done.
    dials: Vec<(u64, Instant, Dial)>,
    open: BTreeSet<SocketId>,
    next_socket: u16,
    connects: VecDeque<Instant>,
    captured: VecDeque<Vec<u8>>,
    udp_passes: bool,
    streams_pass: bool,
    dial: Dial,
}

fn server(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n], 3478))
}

/// Reads operations from `data` until it ends.
pub(crate) fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut line = Line::new();
    for _ in 0..MOST {
        if input.is_empty() || line.step(&mut input).is_err() {
            break;
        }
    }
    line.check();
}

impl Line {
    fn new() -> Self {
        let now = Instant::ZERO + SECOND * 1_000;
        let ways = vec![StreamWay { port: 3478, carrier: Carrier::Tcp }, StreamWay::web("play.example.org", 443, "/")];
        assert_eq!(ways.len(), WAYS);
        let mut client = Client::new(ServerId(0), None, &Seed::from_u64(1)).with_streams(true, ways);
        client.set_announcement(now, vec![1; 512]);
        let identity = Identity {
            network: NetworkSecrets::derive(&NetworkKey::new([1; 32]), Epoch::default()),
            device: DeviceSecrets::from_seed(&[1; 32]),
            suites: Suites::native(),
            features: 0,
        };
        let mut line = Self {
            now,
            client,
            identity,
            core: Core::new(Config::default(), [5; 32], &Seed::from_u64(1), now),
            lives: 1,
            number: 1,
            packets: VecDeque::new(),
            dials: Vec::new(),
            open: BTreeSet::new(),
            next_socket: SocketId::FIRST_STREAM.0,
            connects: VecDeque::new(),
            captured: VecDeque::new(),
            udp_passes: true,
            streams_pass: true,
            dial: Dial::Opens,
        };
        line.drain();
        line
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        let now = self.now;
        match input.int_in_range(0..=15_u8)? {
            0..=3 => self.run(Duration::from_millis(u64::from(input.arbitrary::<u16>()?) / 2)),
            4 => self.udp_passes = input.arbitrary()?,
            5 => self.streams_pass = input.arbitrary()?,
            6 => self.dial = *input.choose(&[Dial::Opens, Dial::Fails, Dial::Hangs])?,
            7 => {
                if let Some(socket) = self.open.pop_last() {
                    self.core.handle_disconnected(now, socket);
                    self.client.disconnected(now, socket);
                }
            }
            8 => self.client.disconnected(now, SocketId(input.arbitrary()?)),
            9 => {
                self.lives += 1;
                self.core = Core::new(Config::default(), [5; 32], &Seed::from_u64(self.lives), now);
            }
            10 => self.client.unresolved(now, "no name server answers".to_owned()),
            11 => self.client.set_addresses(now, (0..input.int_in_range(0..=2_u8)?).map(|n| server(n + 1)).collect()),
            12 => match input.int_in_range(0..=3_u8)? {
                0 => self.client.reregister(now),
                1 => self.client.check(now),
                2 => self.client.introduce(now, PeerId([input.arbitrary()?; 32])),
                _ => self.client.open_channel(now, PeerId([input.arbitrary()?; 32])),
            },
            _ => self.shoot(input)?,
        }
        self.drain();
        Ok(())
    }

    /// Something that was heard before, changed or not, from anywhere.
    fn shoot(&mut self, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        let origin = match input.int_in_range(0..=3_u8)? {
            0 => Origin::Udp(server(input.int_in_range(1..=3_u8)?)),
            1 => Origin::Stream(SocketId(input.arbitrary()?)),
            _ => self.open.last().map_or(Origin::Udp(server(1)), |socket| Origin::Stream(*socket)),
        };
        let mut bytes = match self.captured.is_empty() {
            true => Vec::new(),
            false => self.captured[input.choose_index(self.captured.len())?].clone(),
        };
        if input.arbitrary()? && !bytes.is_empty() {
            let at = input.choose_index(bytes.len())?;
            bytes[at] = input.arbitrary()?;
        }
        self.client.handle_datagram(self.now, &self.identity, origin, &bytes);
        Ok(())
    }

    fn run(&mut self, time: Duration) {
        let (end, mut turns) = (self.now + time, 0);
        while let Some(next) = self.next().filter(|next| *next <= end) {
            turns = if next > self.now { 0 } else { turns + 1 };
            assert!(turns < 20, "it turns without end");
            self.now = self.now.max(next);
            self.turn();
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let packet = self.packets.front().map(|(at, _)| *at);
        let dial = self.dials.iter().map(|(_, at, _)| *at).min();
        let machines = [self.client.poll_timeout(), self.core.poll_timeout()].into_iter().flatten().map(|due| due.at);
        packet.into_iter().chain(dial).chain(machines).min()
    }

    fn turn(&mut self) {
        let now = self.now;
        while let Some((_, packet)) = self.packets.pop_front_if(|(at, _)| *at <= now) {
            self.deliver(packet);
            self.drain();
        }
        while let Some(due) = self.dials.iter().position(|(_, at, _)| *at <= now) {
            let (attempt, _, dial) = self.dials.remove(due);
            self.dialled(attempt, dial);
            self.drain();
        }
        let number = &mut self.number;
        self.client.handle_timeout(now, || {
            *number += 1;
            Some(*number)
        });
        self.core.handle_timeout(now);
        self.drain();
    }

    fn dialled(&mut self, attempt: u64, dial: Dial) {
        let result = match dial {
            Dial::Opens => {
                let socket = SocketId(self.next_socket);
                self.next_socket += 1;
                self.open.insert(socket);
                Ok(socket)
            }
            Dial::Fails | Dial::Hangs => Err("it does not answer".to_owned()),
        };
        self.client.connected(self.now, attempt, result);
    }

    fn deliver(&mut self, packet: Packet) {
        let now = self.now;
        match packet {
            Packet::ToServer(socket, to, mut payload) => {
                let (local, from) = (Some(to.ip()), SocketAddr::from(([203, 0, 113, 1], 40_000)));
                let _ = self.core.handle_datagram(now, Datagram { socket, local, from, payload: &mut payload });
            }
            Packet::ToClient(origin, bytes) => {
                self.client.handle_datagram(now, &self.identity, origin, &bytes);
                self.captured.push_back(bytes);
                self.captured.truncate(64);
            }
        }
    }

    fn drain(&mut self) {
        let now = self.now;
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::ResolveAgain => self.client.set_addresses(now, vec![server(1), server(2)]),
                Event::Connect { attempt, .. } => self.connect(attempt),
                Event::Disconnect(socket) => {
                    assert!(self.open.remove(&socket), "{socket:?} was not open");
                    self.core.handle_disconnected(now, socket);
                }
                _ => {}
            }
        }
        while let Some((socket, to, bytes)) = self.client.poll_transmit() {
            if self.passes(socket) {
                self.packets.push_back((now + DELAY, Packet::ToServer(socket, to, bytes)));
            }
        }
        while let Some(sent) = self.core.poll_transmit() {
            if self.passes(sent.socket) {
                let asked = SocketAddr::new(sent.src.expect("it answers from the address asked"), server(1).port());
                let origin = Origin::of(sent.socket, asked);
                self.packets.push_back((now + DELAY, Packet::ToClient(origin, sent.payload)));
            }
        }
        let held: BTreeSet<SocketId> = self.client.streams().collect();
        assert_eq!(held, self.open, "every stream that is open is somebody's");
    }

    fn passes(&self, socket: SocketId) -> bool {
        if socket.is_stream() { self.streams_pass && self.open.contains(&socket) } else { self.udp_passes }
    }

    fn connect(&mut self, attempt: u64) {
        let (now, dial) = (self.now, self.dial);
        assert!(self.dials.is_empty(), "one at a time");
        let after = if matches!(dial, Dial::Hangs) { PATIENCE } else { DELAY };
        self.dials.push((attempt, now + after, dial));
        self.connects.push_back(now);
        while self.connects.front().is_some_and(|at| now - *at >= SECOND) {
            self.connects.pop_front();
        }
        assert!(self.connects.len() <= BURST, "{} streams within a second", self.connects.len());
    }

    /// What does not pass is done without, and what does is used.
    fn check(mut self) {
        (self.dial, self.streams_pass, self.udp_passes) = (Dial::Opens, true, false);
        self.run(RECOVERY);
        assert!(self.client.server_socket().is_some_and(SocketId::is_stream), "{:?}", self.client.problem());
        self.udp_passes = true;
        self.run(RECOVERY);
        assert!(self.client.server_socket().is_some_and(|socket| !socket.is_stream()), "{:?}", self.client.problem());
        assert!(self.open.is_empty() && self.dials.is_empty(), "UDP is enough");
        self.client.leave(self.now);
        self.run(SECOND * 2);
        assert!(self.client.has_left());
    }
}
