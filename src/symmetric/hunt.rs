//! The side whose port differs, or may: it finds out how, says so, and opens ports, step by step.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Shot, Word, aim};
use crate::id::SocketId;
use crate::nat::{Allocation, NextPorts};
use crate::sans::{Instant, Rng, Seed, Wakeup};
use crate::wire::stun::{Answer, BindingRequest};

/// Sockets from which the rendezvous is asked.
const ASKED: usize = 8;
/// Sockets where ports are given from a block, which the peer is told.
const OPEN_IN_BLOCK: usize = 64;
/// Sockets where any port may be given: with 1,000 looks of the peer 98 of 100 searches hit one of them.
pub const MOST_OPEN: usize = 256;
/// Pairs of shots that must be expected to meet for both sides to try.
const MEETINGS: f64 = 0.5;

/// When the rendezvous is asked again, and for how long it is waited for.
const ASK_AGAIN: [Duration; 3] = [Duration::from_millis(200), Duration::from_millis(500), Duration::from_millis(900)];
/// When words are said again, until they are answered, and for how long that is waited for…
const SAY_AGAIN: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(600),
    Duration::from_millis(1_200),
    Duration::from_millis(2_500),
];
/// …and for how much longer where the peer looks at 1,000 ports.
const LOOKS: Duration = Duration::from_millis(3_500);
/// The system answers in a moment.
const OPENING: Duration = Duration::from_secs(1);
/// After the last shot, something comes within this time or not at all.
const HOPE: Duration = Duration::from_secs(1);

/// What it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// So many more sockets: [`Hunt::opened`] answers.
    Sockets(usize),
    /// This question sent to the rendezvous: [`Hunt::answered`].
    Ask {
        /// From this socket.
        socket: SocketId,
        /// There.
        to: SocketAddr,
        /// A STUN request.
        question: Vec<u8>,
    },
    /// This told to the peer, through the session.
    Say(Word),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Our port is the same for all: the peer's may differ, and then it is for the peer to open some.
    Needless,
    /// How ports are given could not be found out, or there were no sockets.
    Unknown,
    /// The peer did not say how its NAT gives ports.
    Unanswered,
    /// Both are symmetric, and there are too many ports.
    Hopeless,
    /// All was tried.
    InVain,
}

/// What shots are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Volley {
    /// To open our NAT.
    Primes,
    /// To reach the peer, where it has looked.
    Full,
    /// To meet the peer's.
    Crossing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening { since: Instant },
    Asking { since: Instant, tries: usize },
    Telling { since: Instant, said: usize },
    OpeningMore { since: Instant, volley: Volley },
    Shooting { volley: Volley },
    LookedFor { since: Instant, said: usize },
    Hoping { until: Instant },
    Over(Outcome),
}

/// A socket of its own.
#[derive(Debug)]
struct Open {
    id: SocketId,
    own: u16,
    transaction: [u8; 12],
    outside: Option<u16>,
}

/// A search for a way to one peer.
#[derive(Debug)]
pub struct Hunt {
    rng: Rng,
    target: SocketAddr,
    server: SocketAddr,
    mine: Option<NextPorts>,
    theirs: Option<NextPorts>,
    /// It searches for us as well.
    both: bool,
    sockets: Vec<Open>,
    /// The first so many of them have asked.
    asked: usize,
    stage: Stage,
    shots: VecDeque<Shot>,
    has_shot: bool,
    wants: VecDeque<Want>,
}

impl Hunt {
    /// For a peer that a rendezvous sees at `target`; `server`: one to ask how we are seen; `known`: how our NAT gives ports,
    /// if that need not be found out.
    pub fn new(now: Instant, seed: &Seed, target: SocketAddr, server: SocketAddr, known: Option<NextPorts>) -> Self {
        let mut hunt = Self {
            rng: seed.rng(),
            target,
            server,
            mine: None,
            theirs: None,
            both: false,
            sockets: Vec::new(),
            asked: 0,
            stage: Stage::Opening { since: now },
            shots: VecDeque::new(),
            has_shot: false,
            wants: VecDeque::new(),
        };
        match known {
            Some(known) => hunt.tell(now, known),
            None => hunt.wants.push_back(Want::Sockets(ASKED)),
        }
        hunt
    }

    // ---- what happens ----

    /// Sockets were opened, each with its own port; fewer, if the system has no more.
    pub fn opened(&mut self, now: Instant, sockets: &[(SocketId, u16)]) {
        let new =
            sockets.iter().map(|(id, own)| Open { id: *id, own: *own, transaction: self.rng.array(), outside: None });
        self.sockets.extend(new);
        match self.stage {
            Stage::Opening { .. } => {
                self.asked = self.sockets.len();
                self.stage = Stage::Asking { since: now, tries: 0 };
                self.ask();
            }
            Stage::OpeningMore { volley, .. } => self.shoot(volley),
            _ => {}
        }
    }

    /// A STUN answer came to a socket. `false`: nobody here asked.
    pub fn answered(&mut self, now: Instant, socket: SocketId, from: SocketAddr, datagram: &[u8]) -> bool {
        let Some(open) = self.sockets.iter_mut().find(|open| open.id == socket) else { return false };
        let Ok(answer) = Answer::parse(datagram) else { return false };
        if from != self.server || answer.transaction != open.transaction || !answer.mapped.is_ipv4() {
            return false;
        }
        open.outside.get_or_insert(answer.mapped.port());
        if let Stage::Asking { .. } = self.stage
            && self.sockets.iter().all(|open| open.outside.is_some())
        {
            self.conclude(now);
        }
        true
    }

    /// The peer says how its NAT gives ports, and whether it searches for us now.
    pub fn told(&mut self, now: Instant, theirs: NextPorts, searches: bool) {
        self.theirs = Some(theirs);
        self.both |= searches;
        self.decide(now);
    }

    /// The peer has looked for our ports, and found none.
    pub fn looked(&mut self) {
        if let Stage::LookedFor { .. } = self.stage {
            self.shoot(Volley::Full);
        }
    }

    /// Time passes.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.stage {
            Stage::Opening { since } if now >= since + OPENING => self.stage = Stage::Over(Outcome::Unknown),
            Stage::OpeningMore { since, volley } if now >= since + OPENING => self.shoot(volley),
            Stage::Asking { since, tries } if now >= since + ASK_AGAIN[tries] => {
                if tries + 1 < ASK_AGAIN.len() {
                    self.stage = Stage::Asking { since, tries: tries + 1 };
                    self.ask();
                } else {
                    self.conclude(now);
                }
            }
            Stage::Telling { since, said } if now >= since + SAY_AGAIN[said] => {
                if said + 1 < SAY_AGAIN.len() {
                    self.stage = Stage::Telling { since, said: said + 1 };
                    self.say_ports();
                } else {
                    self.stage = Stage::Over(Outcome::Unanswered);
                }
            }
            Stage::LookedFor { since, said } if now >= since + look_again(said) => {
                if said < SAY_AGAIN.len() {
                    self.stage = Stage::LookedFor { since, said: said + 1 };
                    self.say_look();
                } else {
                    self.shoot(Volley::Full);
                }
            }
            Stage::Hoping { until } if now >= until => self.stage = Stage::Over(Outcome::InVain),
            _ => {}
        }
    }

    // ---- what it wants ----

    /// What it needs; call until `None` after every other call.
    #[must_use]
    pub fn poll_want(&mut self) -> Option<Want> {
        self.wants.pop_front()
    }

    /// The shot that is next. Say that it left ([`Hunt::sent`]), or that no more may ([`Hunt::end`]).
    pub fn next(&self) -> Option<Shot> {
        match self.stage {
            Stage::Shooting { .. } => self.shots.front().copied(),
            _ => None,
        }
    }

    /// It left.
    pub fn sent(&mut self, now: Instant) {
        self.has_shot = true;
        self.shots.pop_front();
        if self.shots.is_empty() {
            self.all_sent(now);
        }
    }

    fn all_sent(&mut self, now: Instant) {
        let Stage::Shooting { volley } = self.stage else { return };
        match volley {
            Volley::Primes => {
                self.stage = Stage::LookedFor { since: now, said: 0 };
                self.say_look();
            }
            Volley::Full | Volley::Crossing => self.stage = Stage::Hoping { until: now + HOPE },
        }
    }

    /// No more may be sent there.
    pub fn end(&mut self, now: Instant) {
        self.shots.clear();
        match self.has_shot {
            true => self.all_sent(now),
            false => self.stage = Stage::Over(Outcome::Unknown),
        }
    }

    /// When to call [`Hunt::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        let at = match self.stage {
            Stage::Opening { since } | Stage::OpeningMore { since, .. } => since + OPENING,
            Stage::Asking { since, tries } => since + ASK_AGAIN[tries],
            Stage::Telling { since, said } => since + SAY_AGAIN[said],
            Stage::LookedFor { since, said } => since + look_again(said),
            Stage::Hoping { until } => until,
            Stage::Shooting { .. } | Stage::Over(_) => return None,
        };
        Some(Wakeup::new(at, "search over ports"))
    }

    // ---- what it can tell ----

    /// How it ended, if it has. (That a way was found others see first.)
    pub const fn outcome(&self) -> Option<Outcome> {
        match self.stage {
            Stage::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// How our NAT gives ports, once that is known.
    pub const fn mine(&self) -> Option<NextPorts> {
        self.mine
    }

    /// Whether that was found out by asking, and not known before.
    pub const fn has_asked(&self) -> bool {
        self.asked > 0
    }

    /// Where the peer is sought.
    pub const fn target(&self) -> SocketAddr {
        self.target
    }

    /// Whether any shot left.
    pub const fn has_shot(&self) -> bool {
        self.has_shot
    }

    /// Its sockets.
    pub fn sockets(&self) -> impl Iterator<Item = SocketId> {
        self.sockets.iter().map(|open| open.id)
    }

    // ---- inside ----

    /// Asks from every socket that was not answered, in the order in which they were opened.
    fn ask(&mut self) {
        for open in self.sockets.iter().filter(|open| open.outside.is_none()) {
            let question = BindingRequest { transaction: open.transaction, ..BindingRequest::default() }.encode();
            self.wants.push_back(Want::Ask { socket: open.id, to: self.server, question });
        }
        if self.sockets.is_empty() {
            self.stage = Stage::Over(Outcome::Unknown);
        }
    }

    /// From what the answers say.
    fn conclude(&mut self, now: Instant) {
        let seen = (0..).zip(&self.sockets).filter_map(|(n, open)| Some((n, open.own, open.outside?)));
        let seen: Vec<(i32, u16, u16)> = seen.collect();
        match (Allocation::infer(ASKED, &seen), seen.last()) {
            (Ok(allocation), Some((_, _, newest))) => self.tell(now, NextPorts::after(allocation, *newest)),
            (unknown, _) => {
                tracing::debug!(?unknown, "how ports are given");
                self.stage = Stage::Over(Outcome::Unknown);
            }
        }
    }

    /// It is known how our NAT gives ports.
    fn tell(&mut self, now: Instant, mine: NextPorts) {
        tracing::debug!(?mine, peer = %self.target, "a search over ports");
        self.mine = Some(mine);
        self.stage = Stage::Telling { since: now, said: 0 };
        self.say_ports();
        if mine == NextPorts::Same {
            // Should the word be lost, the peer asks.
            self.stage = Stage::Over(Outcome::Needless);
        }
        self.decide(now);
    }

    fn say_ports(&mut self) {
        self.wants.extend(self.mine.map(|mine| Want::Say(Word::Ports(mine))));
    }

    fn say_look(&mut self) {
        let open = u16::try_from(self.sockets.len()).unwrap_or(u16::MAX);
        self.wants.extend(self.mine.map(|mine| Want::Say(Word::LookForMe(mine, open))));
    }

    /// Both sides are known: what is to be done?
    fn decide(&mut self, now: Instant) {
        let (Stage::Telling { .. }, Some(mine), Some(theirs)) = (self.stage, self.mine, self.theirs) else { return };
        let (sockets, volley) = match (mine, theirs) {
            (NextPorts::Counted { .. }, NextPorts::Same) => (ASKED, Volley::Primes),
            (NextPorts::ANY, NextPorts::Same) => (MOST_OPEN, Volley::Primes),
            (NextPorts::Within { .. }, NextPorts::Same) => (OPEN_IN_BLOCK, Volley::Primes),
            _ if aim::meetings(mine, theirs) < MEETINGS => return self.stage = Stage::Over(Outcome::Hopeless),
            // It takes two. The peer is busy with another, and will begin it when its turn comes.
            _ if !self.both => return self.stage = Stage::Over(Outcome::Unanswered),
            // From none that has asked: what was counted for it is past.
            _ => (self.asked + aim::ROUNDS as usize, Volley::Crossing),
        };
        match sockets.saturating_sub(self.sockets.len()) {
            0 => self.shoot(volley),
            more => {
                self.stage = Stage::OpeningMore { since: now, volley };
                self.wants.push_back(Want::Sockets(more));
            }
        }
    }

    fn shoot(&mut self, volley: Volley) {
        let sockets = self.sockets.iter().map(|open| open.id);
        let shot = |socket, to| Shot { socket, to, primes: volley == Volley::Primes };
        self.shots = match (volley, self.theirs) {
            (Volley::Crossing, Some(theirs)) => {
                let fresh: Vec<SocketId> = sockets.skip(self.asked).collect();
                let aims = aim::shoot(theirs, &mut self.rng).into_iter();
                let from = fresh.iter().flat_map(|socket| [*socket; aim::ROUND as usize]);
                from.zip(aims).map(|(socket, port)| shot(socket, SocketAddr::new(self.target.ip(), port))).collect()
            }
            _ => sockets.map(|socket| shot(socket, self.target)).collect(),
        };
        self.stage = match self.shots.is_empty() {
            true => Stage::Over(Outcome::Unknown),
            false => Stage::Shooting { volley },
        };
    }
}

/// When the peer is told again that it is to look, and after that when it is not waited for any more.
fn look_again(said: usize) -> Duration {
    SAY_AGAIN.get(said).copied().unwrap_or(SAY_AGAIN[SAY_AGAIN.len() - 1] + LOOKS)
}
