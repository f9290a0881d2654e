//! Streams to the server, for where UDP does not pass.
//!
//! ```text
//!            UDP silent for 2 s                connected                  Registered by it
//!  no stream ─────────────────▶ connecting ─────────────▶ open, greeted ──────────────────▶ in use
//!      ▲                            │ failed: the next way │ no answer, ended                │ UDP answers, and the
//!      └──────── pause ◀────────────┴──────────────────────┴──────────────── closed ◀────────┘ registration has moved
//! ```
//!
//! A stream may die without a word, as where a router in between forgot it: one by which a Hello is not answered is given
//! up, whatever stands by it.
//!
//! UDP is asked all the while, by every attempt and, while a stream is in use, with growing pauses; who answers first has
//! the registration. A stream that broke is connected again at once, unless it broke soon: what was registered by it stays,
//! as where a server's answers are lost, until it is registered anew or the server has been silent for too long.

use std::net::SocketAddr;
use std::time::Duration;

use super::attempt::Attempt;
use super::link::Place;
use super::{Client, Event};
use crate::id::SocketId;
use crate::sans::{Carrier, Instant, Wakeup};

/// UDP gets so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// When a stream opens UDP is asked once more, and has this start: perhaps it is the server that was away.
const HEAD_START: Duration = Duration::from_millis(250);
/// A stream gets so long to answer, when it opens and whenever it is asked.
const ANSWER: Duration = Duration::from_secs(3);
/// Pauses after every way was tried, or a stream broke soon.
const PAUSES: [Duration; 6] = seconds([1, 2, 4, 8, 16, 30]);
/// A stream that broke before was of little use.
const SOON: Duration = Duration::from_secs(10);
/// Pauses between questions by UDP while a stream is in use.
const ASK_UDP: [Duration; 5] = seconds([2, 4, 8, 16, 30]);
/// Where the registration stood by UDP for so long UDP is no passing thing, and asked for at once when it stops.
const STEADY: Duration = Duration::from_secs(60);
/// What was under way by a stream when its registration moved arrives within this.
const LINGER: Duration = Duration::from_secs(2);

const fn seconds<const N: usize>(of: [u64; N]) -> [Duration; N] {
    let mut all = [Duration::ZERO; N];
    let mut n = 0;
    while n < N {
        all[n] = Duration::from_secs(of[n]);
        n += 1;
    }
    all
}

/// How the server may be reached other than by UDP: at the same host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamWay {
    /// Its port there.
    pub port: u16,
    /// What carries the stream.
    pub carrier: Carrier,
}

impl StreamWay {
    /// As a web server.
    pub fn web(host: &str, port: u16, path: &str) -> Self {
        Self { port, carrier: Carrier::WebSocket { host: host.to_owned(), path: path.to_owned() } }
    }
}

#[derive(Debug)]
pub(super) struct Streams {
    ways: Vec<StreamWay>,
    /// Whether UDP is asked at all.
    pub(super) udp: bool,
    state: State,
    /// Of the ways, each to every address: which is tried next.
    next: usize,
    /// Rounds in a row, and streams, that came to nothing.
    failures: usize,
    attempts: u64,
    /// Since when UDP has been asked without an answer.
    silent: Option<Instant>,
    /// When UDP is asked beside a stream in use, and how often it was.
    ask_udp: (Instant, usize),
    /// Since when the registration has stood by UDP.
    by_udp: Option<Instant>,
    /// Used no longer, and ended then.
    retired: Option<(SocketId, Instant)>,
    /// Why there is none, for people.
    problem: Option<String>,
}

#[derive(Debug)]
enum State {
    None,
    Paused { until: Instant },
    Connecting { addr: SocketAddr, word: &'static str },
    Open(Open),
}

#[derive(Debug)]
struct Open {
    at: Place,
    word: &'static str,
    since: Instant,
    answered: bool,
    /// Since when it has been asked without an answer.
    asked: Option<Instant>,
}

impl Open {
    /// When it is given up, unless it answers.
    fn patience(&self) -> Option<Instant> {
        Some(if self.answered { self.asked? } else { self.since } + ANSWER)
    }
}

impl Streams {
    pub(super) const fn new(udp: bool, ways: Vec<StreamWay>) -> Self {
        Self {
            ways,
            udp,
            state: State::None,
            next: 0,
            failures: 0,
            attempts: 0,
            silent: None,
            ask_udp: (Instant::ZERO, 0),
            by_udp: None,
            retired: None,
            problem: None,
        }
    }

    /// The one that is open.
    pub(super) const fn open(&self) -> Option<Place> {
        match &self.state {
            State::Open(open) => Some(open.at),
            _ => None,
        }
    }

    /// The place at the other end of a stream that is open, if it is still one of ours.
    pub(super) fn place(&self, socket: SocketId) -> Option<Place> {
        self.open().filter(|at| at.socket == socket)
    }

    /// Why there is none, for people.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// UDP was asked.
    pub(super) fn asked_udp(&mut self, now: Instant) {
        self.silent.get_or_insert(now);
    }

    /// A stream was asked.
    pub(super) fn asked_stream(&mut self, now: Instant, at: Place) {
        if let State::Open(open) = &mut self.state
            && open.at == at
        {
            open.asked.get_or_insert(now);
        }
    }

    /// Somebody answered.
    pub(super) fn answered(&mut self, at: Place) {
        match &mut self.state {
            State::Open(open) if open.at == at => {
                (open.answered, open.asked, self.problem) = (true, None, None);
            }
            _ if !at.socket.is_stream() => self.silent = None,
            _ => {}
        }
    }

    /// Whether UDP has been silent for so long that it is held for blocked.
    fn is_udp_silent(&self, now: Instant) -> bool {
        self.silent.is_some_and(|since| now - since >= PATIENCE)
    }

    fn pause(&mut self, now: Instant) {
        let pause = PAUSES[self.failures.min(PAUSES.len() - 1)];
        self.failures += 1;
        self.state = State::Paused { until: now + pause };
    }
}

impl Client {
    /// The server is asked by UDP, if that is wished for, and in these ways where UDP does not pass.
    #[must_use]
    pub fn with_streams(mut self, udp: bool, ways: Vec<StreamWay>) -> Self {
        self.streams = Streams::new(udp, ways);
        self
    }

    /// The answer to [`Event::Connect`]. A stream that nobody wants any more is ended.
    pub fn connected(&mut self, now: Instant, attempt: u64, result: Result<SocketId, String>) {
        self.now = now;
        let (addr, word) = match self.streams.state {
            State::Connecting { addr, word } if attempt == self.streams.attempts => (addr, word),
            _ => return result.into_iter().for_each(|socket| self.events.push_back(Event::Disconnect(socket))),
        };
        match result {
            Ok(socket) if self.wants_stream() => {
                let at = Place { socket, addr };
                self.streams.state = State::Open(Open { at, word, since: now, answered: false, asked: None });
                self.greet_soon(now);
            }
            Ok(socket) => {
                self.streams.state = State::None;
                self.events.push_back(Event::Disconnect(socket));
            }
            Err(reason) => {
                self.streams.problem = Some(format!("by {word}: {reason}"));
                self.next_way(now);
            }
        }
    }

    /// A stream ended, other than by [`Event::Disconnect`].
    pub fn disconnected(&mut self, now: Instant, socket: SocketId) {
        self.now = now;
        self.streams.retired.take_if(|(retired, _)| *retired == socket);
        let State::Open(open) = &self.streams.state else { return };
        if open.at.socket == socket {
            let why = if open.answered { "the connection ended" } else { "the connection is ended without an answer" };
            self.is_gone(now, socket, why);
        }
    }

    /// The stream that was open is no more.
    fn is_gone(&mut self, now: Instant, socket: SocketId, why: &str) {
        let State::Open(open) = &self.streams.state else { return };
        let (word, lasted) = (open.word, open.answered && now - open.since >= SOON);
        if lasted {
            (self.streams.failures, self.streams.state) = (0, State::None);
        } else {
            self.streams.problem = Some(format!("by {word}: {why}"));
            self.next_way(now);
        }
        if self.link.as_ref().is_some_and(|link| link.at.socket == socket) {
            // What goes there is lost from now on.
            self.refresh.due = now;
        }
        match &self.attempt {
            Attempt::Registering(registering) if registering.link.at.socket == socket => self.attempt = Attempt::Idle,
            _ => {}
        }
        if matches!(self.attempt, Attempt::Idle) && self.leaving.is_none() {
            self.begin_at = Some(now);
        }
    }

    /// The stream that is open or about to be ended: for who lets go of the client.
    pub fn streams(&self) -> impl Iterator<Item = SocketId> {
        let retired = self.streams.retired.map(|(socket, _)| socket);
        self.streams.open().map(|at| at.socket).into_iter().chain(retired)
    }

    /// How the server is reached by a stream: as it is now, or would be first; by IPv4 if it can be, for that is what NATs
    /// translate.
    pub fn stream_way(&self) -> Option<(SocketAddr, Carrier)> {
        let Streams { ways, next, .. } = &self.streams;
        let way = ways.get(next / self.addresses.len().max(1) % ways.len().max(1))?;
        let open = self.streams.open().map(|at| at.addr);
        let known = open.into_iter().chain(self.addresses.iter().copied());
        let addr = known.min_by_key(|addr| !addr.is_ipv4())?;
        Some((SocketAddr::new(addr.ip(), way.port), way.carrier.clone()))
    }

    /// What carries the registration, or the attempt at one: a word of `status`.
    pub fn transport(&self) -> &'static str {
        let by_udp = self.link.as_ref().is_some_and(|link| !link.at.socket.is_stream());
        match &self.streams.state {
            _ if by_udp => "udp",
            State::Open(Open { word, .. }) | State::Connecting { word, .. } => word,
            _ if self.streams.udp => "udp",
            _ => self.streams.ways.first().map_or("udp", |way| way.carrier.word()),
        }
    }

    /// Whether the registration stands by a stream because UDP does not pass.
    pub fn is_udp_blocked(&self) -> bool {
        let by_stream = self.link.as_ref().is_some_and(|link| link.at.socket.is_stream());
        by_stream && self.streams.udp && self.streams.is_udp_silent(self.now)
    }

    /// Connects, ends, and asks UDP, whatever is due.
    pub(super) fn advance_streams(&mut self, now: Instant) {
        if let Some((socket, _)) = self.streams.retired.take_if(|(_, at)| *at <= now) {
            self.events.push_back(Event::Disconnect(socket));
        }
        match &self.streams.state {
            State::Open(open) if open.patience().is_some_and(|until| until <= now) => {
                let socket = open.at.socket;
                self.events.push_back(Event::Disconnect(socket));
                self.is_gone(now, socket, "no answer");
            }
            _ => {}
        }
        if self.is_needless() {
            self.retire(now);
        }
        if self.connect_at().is_some_and(|at| at <= now) {
            self.connect();
        }
        if self.ask_udp_at().is_some_and(|at| at <= now) {
            let (_, asked) = self.streams.ask_udp;
            self.streams.ask_udp = (now + ASK_UDP[asked.min(ASK_UDP.len() - 1)], asked + 1);
            self.greet_by_udp(now, asked);
        }
    }

    /// When something of that is due.
    pub(super) fn streams_due(&self) -> Option<Wakeup> {
        let retired = self.streams.retired.map(|(_, at)| Wakeup::new(at, "end a stream"));
        let answer = match &self.streams.state {
            State::Open(open) => open.patience().map(|until| Wakeup::new(until, "a stream's answer")),
            _ => None,
        };
        let connect = self.connect_at().map(|at| Wakeup::new(at, "connect to a rendezvous"));
        let ask = self.ask_udp_at().map(|at| Wakeup::new(at, "ask by UDP"));
        [retired, answer, connect, ask].into_iter().flatten().min()
    }

    /// The registration stands by `at` from now on, and no longer by `former`.
    pub(super) fn moved(&mut self, now: Instant, former: Option<Place>, at: Place) {
        if at.socket.is_stream() {
            // Where it comes and goes each change would cost something.
            let steady = self.streams.by_udp.take().is_none_or(|since| now - since >= STEADY);
            let asked = if steady { 0 } else { self.streams.ask_udp.1 };
            self.streams.ask_udp = (now + ASK_UDP[asked.min(ASK_UDP.len() - 1)], asked);
            // It is asked no more by UDP, and what was seen by that may be so no longer.
            if self.observed.iter().any(Option::is_some) && former.is_none_or(|former| former.socket != at.socket) {
                self.observed = [None; 2];
                self.events.push_back(Event::Unobserved);
            }
        } else {
            self.streams.by_udp.get_or_insert(now);
            self.retire(now);
        }
    }

    /// The stream that is open is used no longer.
    fn retire(&mut self, now: Instant) {
        if let Some(open) = self.streams.open() {
            (self.streams.failures, self.streams.state) = (0, State::None);
            let earlier = self.streams.retired.replace((open.socket, now + LINGER));
            self.events.extend(earlier.map(|(socket, _)| Event::Disconnect(socket)));
        }
    }

    /// Whether a stream answered that nothing goes by: UDP was silent for a moment only.
    fn is_needless(&self) -> bool {
        let by_udp = self.link.is_some() && !self.is_by_stream() && matches!(self.attempt, Attempt::Idle);
        let answered = matches!(&self.streams.state, State::Open(open) if open.answered);
        answered && by_udp && !self.wants_stream()
    }

    /// Whether a stream is to be there: nothing stands by UDP that is answered.
    fn wants_stream(&self) -> bool {
        let answered = |at: Place| self.refresh.unanswered == 0 && (!at.socket.is_stream() || self.is_open(at));
        self.leaving.is_none() && !self.link.as_ref().is_some_and(|link| answered(link.at))
    }

    fn is_open(&self, at: Place) -> bool {
        self.streams.open() == Some(at)
    }

    fn connect_at(&self) -> Option<Instant> {
        if self.addresses.is_empty() || self.streams.ways.is_empty() || !self.wants_stream() {
            return None;
        }
        let patience = if self.streams.udp { self.streams.silent? + PATIENCE } else { self.now };
        let patience = match self.attempt {
            Attempt::Paused { until } => patience.max(until),
            _ => patience,
        };
        match self.streams.state {
            State::None => Some(patience),
            State::Paused { until } => Some(patience.max(until)),
            State::Connecting { .. } | State::Open(_) => None,
        }
    }

    fn ask_udp_at(&self) -> Option<Instant> {
        let link = self.link.as_ref().filter(|link| link.at.socket.is_stream() && self.streams.udp)?;
        let quiet = matches!(self.attempt, Attempt::Idle) && self.begin_at.is_none() && self.leaving.is_none();
        (quiet && self.is_open(link.at)).then_some(self.streams.ask_udp.0)
    }

    fn connect(&mut self) {
        let streams = &mut self.streams;
        let count = self.addresses.len();
        let way = &streams.ways[streams.next / count % streams.ways.len()];
        let addr = SocketAddr::new(self.addresses[streams.next % count].ip(), way.port);
        streams.attempts += 1;
        streams.state = State::Connecting { addr, word: way.carrier.word() };
        let (attempt, carrier) = (streams.attempts, way.carrier.clone());
        self.events.push_back(Event::Connect { attempt, to: addr, carrier });
    }

    /// This way came to nothing.
    fn next_way(&mut self, now: Instant) {
        let all = self.streams.ways.len() * self.addresses.len().max(1);
        self.streams.next = (self.streams.next + 1) % all.max(1);
        match self.streams.next {
            0 => self.streams.pause(now),
            _ => self.streams.state = State::None,
        }
    }

    /// A stream is open: it is greeted as soon as UDP has had its start.
    fn greet_soon(&mut self, now: Instant) {
        match &mut self.attempt {
            Attempt::Greeting { round, due, .. } => {
                let round = *round;
                *due = now + if self.streams.udp { HEAD_START } else { Duration::ZERO };
                self.greet_by_udp(now, round);
            }
            Attempt::Idle => self.begin_at = Some(now),
            Attempt::Registering(_) | Attempt::Paused { .. } => {}
        }
    }

    /// Whether the stream that is open is greeted by attempts: it is not that by which all is well.
    pub(super) fn stream_to_greet(&self, now: Instant) -> Option<Place> {
        let State::Open(open) = &self.streams.state else { return None };
        let had_start = !self.streams.udp || now - open.since >= HEAD_START;
        (had_start && self.wants_stream()).then_some(open.at)
    }
}
