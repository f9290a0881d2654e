//! One peer's registration with one rendezvous.
//!
//! ```text
//!             set_addresses             Cookie                  Registered
//!  resolving ──────────────▶ greeting ──────────▶ registering ─────────────▶ registered
//!                              ▲  ▲                   │ refused                  │ refreshes unanswered,
//!                              │  └─── paused ◀───────┘                          │ Unknown, reregister()
//!                              └─────────────────────────────────────────────────┘
//! ```
//!
//! An attempt ([`attempt`]) and a registration that stands ([`link`]) live side by side: after a restart of
//! the server or a change of our address the old keys stay in use until the new ones are confirmed, and what the
//! relay sent under them is taken after that too.

mod attempt;
mod event;
mod inbound;
mod link;
mod members;
mod outbound;
mod relayed;
mod streams;
mod wishes;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use self::attempt::{Attempt, SentHello};
pub use self::event::Event;
use self::link::{Link, Place};
use self::members::Members;
pub use self::streams::StreamWay;
use self::streams::Streams;
use self::wishes::Wishes;
use super::Repeat;
use crate::addr::canonical;
use crate::crypto::Identity;
use crate::id::{Origin, PeerId, ServerId, ServerKey, SocketId};
use crate::sans::{Instant, Rng, Seed, Wakeup};
use crate::wire::kind;
use crate::wire::rendezvous::Message;

/// Pauses after a refresh and its repetitions. After the second the server is greeted beside it, after the last
/// the registration counts as lost.
const REFRESH_PAUSES: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(2)];
/// Refreshes while the list of members is not known to be complete.
const SYNC_PAUSE: Duration = Duration::from_secs(1);
/// It is asked out of turn this often at most.
const CHECK_PAUSE: Duration = Duration::from_secs(2);
/// A hint that the server forgot us is believed this often.
const HINT_PAUSE: Duration = Duration::from_secs(2);
/// Names are looked up again after this, doubling to [`RESOLVE_LONGEST`].
const RESOLVE_FIRST: Duration = Duration::from_secs(1);
const RESOLVE_LONGEST: Duration = Duration::from_secs(30);
/// Acknowledgements in one frame.
const MAX_ACKS: usize = 128;
/// A limit that the server reported is shown at least this long.
const NOTICE_TIME: Duration = Duration::from_secs(20);
/// How long a leave is repeated.
const LEAVE_TIME: Duration = Duration::from_millis(1500);

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The server's name has no address yet.
    Resolving,
    /// Hello and Register go out.
    Registering,
    /// It stands.
    Registered,
    /// No answer.
    Unreachable,
    /// The server said no, or is not the one that was pinned.
    Refused,
}

/// What keeps a client from its registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Unreachable,
    Refused,
}

/// The registration's heartbeat.
#[derive(Debug)]
struct Refresh {
    due: Instant,
    /// Sent since the last answer.
    unanswered: usize,
    /// Grows with each; the latest and when it was sent.
    token: u64,
    sent_at: Instant,
}

/// See the module's documentation.
pub struct Client {
    id: ServerId,
    pin: Option<ServerKey>,
    /// The servers that others of this node's clients are with.
    taken: Vec<ServerKey>,
    boot: u64,
    rng: Rng,
    now: Instant,
    addresses: Vec<SocketAddr>,
    resolve_at: Option<Instant>,
    resolve_pause: Duration,
    attempt: Attempt,
    /// An attempt is wanted, whatever else stands.
    begin_at: Option<Instant>,
    refusals: u32,
    hellos: VecDeque<SentHello>,
    link: Option<Link>,
    /// The registration that `link` replaced: relay frames under its keys may still be under way.
    former: Option<Link>,
    streams: Streams,
    refresh: Refresh,
    hint_at: Option<Instant>,
    members: Members,
    wishes: Wishes,
    acks: Vec<u32>,
    /// Tokens of the server's questions whether we live.
    alive: Vec<u64>,
    leaving: Option<Leaving>,
    observed: [Option<SocketAddr>; 2],
    rtt: Option<Duration>,
    trouble: Trouble,
    problem: Option<String>,
    notice_at: Option<Instant>,
    queue: VecDeque<(SocketId, SocketAddr, Vec<u8>)>,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct Leaving {
    id: u32,
    repeat: Repeat,
    until: Instant,
}

impl Client {
    /// A client without addresses; its first event asks for them. `seed` determines the boot id too: a fresh one for
    /// every run of the program.
    pub fn new(id: ServerId, pin: Option<ServerKey>, seed: &Seed) -> Self {
        let mut rng = seed.rng();
        Self {
            id,
            pin,
            taken: Vec::new(),
            boot: rng.u64(),
            rng,
            now: Instant::ZERO,
            addresses: Vec::new(),
            resolve_at: None,
            resolve_pause: RESOLVE_FIRST,
            attempt: Attempt::Idle,
            begin_at: None,
            refusals: 0,
            hellos: VecDeque::new(),
            link: None,
            former: None,
            streams: Streams::new(true, Vec::new()),
            refresh: Refresh { due: Instant::ZERO, unanswered: 0, token: 0, sent_at: Instant::ZERO },
            hint_at: None,
            members: Members::default(),
            wishes: Wishes::new(),
            acks: Vec::new(),
            alive: Vec::new(),
            leaving: None,
            observed: [None; 2],
            rtt: None,
            trouble: Trouble::None,
            problem: None,
            notice_at: None,
            queue: VecDeque::new(),
            events: VecDeque::from([Event::ResolveAgain]),
        }
    }

    /// Which server this is, as given to [`Client::new`].
    pub const fn id(&self) -> ServerId {
        self.id
    }

    /// The key of the server that it is registered with, or about to be.
    pub fn server_key(&self) -> Option<ServerKey> {
        let registering = match &self.attempt {
            Attempt::Registering(registering) => Some(&registering.link),
            _ => None,
        };
        registering.or(self.link.as_ref()).map(|link| link.server)
    }

    /// With these it does not register: others of this node's clients are with them, and each would replace the other.
    pub fn set_taken(&mut self, servers: Vec<ServerKey>) {
        self.taken = servers;
    }

    /// The server's addresses, of both families, in order of preference. A registration that stands stays.
    pub fn set_addresses(&mut self, now: Instant, addresses: Vec<SocketAddr>) {
        self.now = now;
        let addresses: Vec<SocketAddr> = addresses.into_iter().map(canonical).filter(|a| a.port() != 0).collect();
        if addresses.is_empty() {
            return self.unresolved(now, "the name has no address".to_owned());
        }
        (self.resolve_at, self.resolve_pause) = (None, RESOLVE_FIRST);
        if addresses == self.addresses {
            return;
        }
        self.addresses = addresses;
        let silent = self.link.is_none() || self.refresh.unanswered > 1;
        if silent && self.trouble != Trouble::Refused {
            self.begin_at = Some(now);
        }
    }

    /// The name has no address; asks again with growing pauses.
    pub fn unresolved(&mut self, now: Instant, reason: String) {
        self.now = now;
        self.resolve_at = Some(now + self.resolve_pause + self.rng.between(Duration::ZERO, self.resolve_pause / 10));
        self.resolve_pause = (self.resolve_pause * 2).min(RESOLVE_LONGEST);
        if self.link.is_none() && self.addresses.is_empty() {
            self.problem = Some(reason);
        }
    }

    /// What members are to know about this peer. The newest wins; at most one change a second goes out (burst 5).
    pub fn set_announcement(&mut self, now: Instant, sealed: Vec<u8>) {
        self.now = now;
        self.wishes.announce(now, sealed);
    }

    /// What the server said of `peer` was not listened to, and is wanted after all.
    pub fn list_again(&mut self, now: Instant, peer: &PeerId) {
        self.now = now;
        if self.members.doubt(peer) {
            self.refresh.due = now;
        }
    }

    /// Asks the server to tell both sides to start now.
    pub fn introduce(&mut self, now: Instant, peer: PeerId) {
        self.now = now;
        self.wishes.introduce(now, peer);
    }

    /// Wishes for a relay channel to `peer`; it opens when the other wishes too.
    pub fn open_channel(&mut self, now: Instant, peer: PeerId) {
        self.now = now;
        self.wishes.open(now, peer, &mut self.rng);
    }

    /// Wishes for it no longer.
    pub fn close_channel(&mut self, now: Instant, peer: PeerId) {
        self.now = now;
        if self.wishes.close(now, &peer) {
            self.events.push_back(Event::RelayClosed { peer });
        }
    }

    /// Registers again at once, beside what stands: a path died, our address may have changed.
    pub fn reregister(&mut self, now: Instant) {
        self.now = now;
        self.begin_at = Some(now);
    }

    /// Asks at once whether the server is still there, unless that was asked a moment ago: what goes through it
    /// is not answered.
    pub fn check(&mut self, now: Instant) {
        self.now = now;
        if self.refresh.unanswered == 0 && now - self.refresh.sent_at >= CHECK_PAUSE {
            self.refresh.due = now;
        }
    }

    /// Tells the server to forget this peer. [`Client::has_left`] says when that is done or given up.
    pub fn leave(&mut self, now: Instant) {
        self.now = now;
        let id = self.wishes.fresh_id();
        self.attempt = Attempt::Idle;
        self.begin_at = None;
        self.leaving = Some(Leaving { id, repeat: Repeat::new(now), until: now + LEAVE_TIME });
    }

    /// Whether nothing needs to be sent any more after [`Client::leave`].
    pub fn has_left(&self) -> bool {
        self.leaving.is_some() && self.link.is_none()
    }

    /// Takes a datagram; `true` if it is this server's word, or could be: what proves nothing and answers nothing is not.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        identity: &Identity,
        from: impl Into<Origin>,
        bytes: &[u8],
    ) -> bool {
        self.now = now;
        let from = self.place(from.into()).filter(|_| bytes.first() == Some(&kind::RENDEZVOUS));
        let taken = from.is_some_and(|from| self.on_message(now, identity, from, bytes));
        from.into_iter().filter(|_| taken).for_each(|from| self.streams.answered(from));
        taken
    }

    fn on_message(&mut self, now: Instant, identity: &Identity, from: Place, bytes: &[u8]) -> bool {
        match Message::parse(bytes) {
            Ok(Message::Cookie(cookie)) => self.on_cookie(now, identity, from, &cookie),
            Ok(Message::Refused(refused)) => self.on_refused(now, from, &refused),
            Ok(Message::Unknown(unknown)) => self.on_unknown(now, from, &unknown),
            Ok(Message::Frame(header)) => self.on_frame(now, from, &header, bytes),
            Ok(Message::Hello(_) | Message::Register(_)) | Err(_) => false,
        }
    }

    /// Does what is due. `number` gives fresh registration numbers, `None` while the shell still reserves them.
    pub fn handle_timeout(&mut self, now: Instant, mut number: impl FnMut() -> Option<u64>) {
        self.now = now;
        if self.resolve_at.is_some_and(|at| at <= now) {
            self.resolve_at = None;
            self.events.push_back(Event::ResolveAgain);
        }
        if self.leaving.as_ref().is_some_and(|leaving| leaving.until <= now) {
            self.link = None;
        }
        self.check_refresh(now);
        self.advance_streams(now);
        self.advance_attempt(now, &mut number);
    }

    /// The next datagram; call until `None` after every other call. Draining events first lets what they cause
    /// travel in the same datagrams.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<(SocketId, SocketAddr, Vec<u8>)> {
        self.queue.pop_front().or_else(|| self.first_announcement()).or_else(|| self.frame_to_server())
    }

    /// The next event; call until `None` after every other call.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Client::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        let stays = self.leaving.is_none();
        let begin = stays && self.link.is_none() && !self.addresses.is_empty() && matches!(self.attempt, Attempt::Idle);
        let has_keys = stays && (self.link.is_some() || matches!(self.attempt, Attempt::Registering(_)));
        let wishes = has_keys.then(|| self.wishes.due(self.link.is_some())).flatten();
        let refresh = self.link.as_ref().filter(|_| stays).map(|_| self.refresh.due);
        let leaving = self.leaving.as_ref().filter(|_| self.link.is_some());
        [
            self.resolve_at.map(|at| Wakeup::new(at, "look a rendezvous up")),
            self.begin_at.or(begin.then_some(self.now)).map(|at| Wakeup::new(at, "greet a rendezvous")),
            self.attempt.due().map(|at| Wakeup::new(at, "register")),
            wishes.map(|at| Wakeup::new(at, "tell a rendezvous")),
            refresh.map(|at| Wakeup::new(at, "refresh a registration")),
            leaving.map(|leaving| Wakeup::new(leaving.repeat.due.min(leaving.until), "leave a rendezvous")),
            self.streams_due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Where the registration stands, for `status`.
    pub fn state(&self) -> State {
        match self.trouble {
            _ if self.link.is_some() => State::Registered,
            _ if self.addresses.is_empty() => State::Resolving,
            Trouble::None => State::Registering,
            Trouble::Unreachable => State::Unreachable,
            Trouble::Refused => State::Refused,
        }
    }

    /// What the server told beyond what this client keeps: [`super::MAX_MEMBERS`] members and as many channels.
    pub const fn overflowed(&self) -> u64 {
        self.members.refused + self.wishes.refused
    }

    /// The last round trip to the server.
    pub const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// The address that the registration is with.
    pub fn server_addr(&self) -> Option<SocketAddr> {
        self.link.as_ref().map(|link| link.at.addr)
    }

    /// The socket of ours that it is with.
    pub fn server_socket(&self) -> Option<SocketId> {
        self.link.as_ref().map(|link| link.at.socket)
    }

    /// The address by UDP that the registration is with, and one of the other family, if the server has one.
    pub fn udp_addrs(&self) -> [Option<SocketAddr>; 2] {
        let server = self.server_addr().filter(|_| !self.is_by_stream());
        [server, server.and_then(|s| self.addresses.iter().copied().find(|addr| addr.is_ipv4() != s.is_ipv4()))]
    }

    /// Whether the server lists `peer` now.
    pub fn lists(&self, peer: &PeerId) -> bool {
        self.link.is_some() && self.members.lists(peer)
    }

    /// What is wrong, for people.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn is_by_stream(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.at.socket.is_stream())
    }

    /// Which of the server's places that is.
    fn place(&self, from: Origin) -> Option<Place> {
        match from {
            Origin::Stream(socket) => self.streams.place(socket),
            Origin::Udp(addr) => {
                let is_server = |link: &Link| link.origin() == from;
                let known = self.addresses.contains(&addr) || self.link.as_ref().is_some_and(is_server);
                known.then_some(Place::udp(addr))
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).field("state", &self.state()).finish_non_exhaustive()
    }
}
