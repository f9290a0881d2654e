//! L3: TCP hole punching, for a pair of which UDP does not reach one side or either.
//!
//! A connection needs what a datagram needs: that both NATs let it in. So both sides listen on a port, ask a rendezvous how
//! that is seen outside, and tell each other; then one opens its NAT to the other, who connects, both from that very port.
//! Whichever connection stands first is a socket as any other, on which [`punch`](crate::punch) proves a path.
//!
//! ```text
//!   alice, leads                  relay                          bob, follows
//!   listens on P, is seen as P'                  listens on Q, is seen as Q'
//!   P, P' ────────────────────────────────────────▶◀────────────────── Q, Q'
//!                                                        ×── SYN (hop limit 2) to P, P'
//!         ◀───────────────────────────────────────────────────── primed
//!   SYN to Q, Q' ────────────────────────────────────────▶ simultaneous open
//! ```
//!
//! A SYN that comes to a NAT before that is open is refused by a router that takes it for its own, and costs the port its
//! mapping there, as with UDP (see [`punch`](crate::punch)): hence the hop limit. And a NAT that keeps track of connections, as
//! Linux does, lets out the answer to a SYN only with the number that its own side's last SYN began with. So who answers must be
//! the very socket that opened the NAT: it stays half open, its SYN and the other's cross (a simultaneous open, RFC 9293 §3.5),
//! and are one connection. Were both to send at once, each would come to a NAT whose own SYN is another. So one leads,
//! and the other's socket, which is let go all the way once it has opened its NAT, sends its SYN again after a second: that is
//! for who sits behind two NATs, of which a hop limit of 2 reaches only one. Where no NAT is in the way, or one that lets in
//! everybody, it is the listener who answers. Each word is said again: by who leads until the other is primed, by who follows to
//! the end.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::sans::{Instant, Wakeup};
use crate::wire::announcement::Candidate;

/// Addresses at which a side is tried.
pub const MOST_PLACES: usize = 8;
/// SYNs of one attempt that nobody answers: at once, after 1 s and after 3 s (RFC 6298 §5.7, and what systems do).
pub const SYNS: u32 = 3;
/// Both sides know each other's addresses within this, or it is over.
const MEETING: Duration = Duration::from_secs(6);
/// A NAT is open so long after the SYN left for it.
const PRIMING: Duration = Duration::from_millis(80);
/// Connections are waited for so long: that is all that [`SYNS`] take.
const DIALLING: Duration = Duration::from_secs(5);
/// A word is said again after this.
const AGAIN: Duration = Duration::from_millis(400);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Tell the other side [`TcpPunch::mine`], and whether our NAT is open to it.
    Say {
        /// That.
        primed: bool,
    },
    /// Begin to connect, no further than to open our NAT.
    Prime(SocketAddr),
    /// Let all those go all the way.
    LetGo,
    /// Connect.
    Dial(SocketAddr),
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Our own addresses are being found out, or the other's awaited.
    Meeting,
    /// Our NAT opens.
    Priming { until: Instant },
    /// Who follows waits for who leads, who connects.
    Dialling,
    /// Nothing more is done.
    Over,
}

/// The attempt of one pair.
#[derive(Debug)]
pub struct TcpPunch {
    leads: bool,
    stage: Stage,
    mine: Option<Vec<Candidate>>,
    theirs: Vec<SocketAddr>,
    they_are_primed: bool,
    /// It is over then.
    until: Instant,
    /// The next word.
    say: Option<Instant>,
    wants: VecDeque<Want>,
}

impl TcpPunch {
    /// Begins. One side alone `leads`.
    pub fn new(now: Instant, leads: bool) -> Self {
        Self {
            leads,
            stage: Stage::Meeting,
            mine: None,
            theirs: Vec::new(),
            they_are_primed: false,
            until: now + MEETING,
            say: None,
            wants: VecDeque::new(),
        }
    }

    /// Where we are reached by TCP, as far as that is known.
    pub fn gathered(&mut self, now: Instant, mine: &[Candidate]) {
        if self.mine.is_none() {
            self.mine = Some(mine.iter().copied().take(MOST_PLACES).collect());
            self.say = Some(now);
        }
        self.advance(now);
    }

    /// The other side says where it is reached, already admitted, and whether its NAT is open.
    pub fn told(&mut self, now: Instant, theirs: &[SocketAddr], primed: bool) {
        if self.stage == Stage::Meeting {
            self.theirs = theirs.iter().copied().take(MOST_PLACES).collect();
        }
        self.they_are_primed |= primed;
        self.advance(now);
    }

    /// Time passes.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        if self.until <= now {
            (self.stage, self.say) = (Stage::Over, None);
            self.wants.clear();
        } else if self.say.is_some_and(|at| at <= now) {
            self.say(now);
        }
    }

    /// What is to be done next; call until `None` after every other call.
    #[must_use]
    pub fn poll_want(&mut self) -> Option<Want> {
        self.wants.pop_front()
    }

    /// When [`TcpPunch::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        let primed = match self.stage {
            Stage::Over => return None,
            Stage::Priming { until } => Some(until),
            Stage::Meeting | Stage::Dialling => None,
        };
        let at = [Some(self.until), primed, self.say].into_iter().flatten().min()?;
        Some(Wakeup::new(at, "TCP hole punching"))
    }

    /// Where we are reached, once that is known.
    pub fn mine(&self) -> &[Candidate] {
        self.mine.as_deref().unwrap_or_default()
    }

    /// Whether it waits for [`TcpPunch::gathered`].
    pub const fn is_gathering(&self) -> bool {
        self.mine.is_none()
    }

    /// Whether it came to its end without a connection that was proven: whoever has one lets go of this.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    fn advance(&mut self, now: Instant) {
        let has_met = self.mine.is_some() && !self.theirs.is_empty();
        match self.stage {
            Stage::Meeting if has_met && !self.leads => {
                self.wants.extend(self.theirs.iter().copied().map(Want::Prime));
                self.stage = Stage::Priming { until: now + PRIMING };
            }
            Stage::Meeting if has_met && self.they_are_primed => {
                self.wants.extend(self.theirs.iter().copied().map(Want::Dial));
                self.dial(now);
                // Who has opened its NAT to us has heard where we are.
                self.say = None;
            }
            Stage::Priming { until } if until <= now => {
                self.wants.push_back(Want::LetGo);
                self.dial(now);
                self.say(now);
            }
            _ => {}
        }
    }

    fn dial(&mut self, now: Instant) {
        (self.stage, self.until) = (Stage::Dialling, now + DIALLING);
    }

    fn say(&mut self, now: Instant) {
        let primed = self.stage == Stage::Dialling && !self.leads;
        self.wants.push_back(Want::Say { primed });
        self.say = Some(now + AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::announcement::CandidateKind;

    /// Two sides, and the words that are on their way between them for so long.
    struct Pair {
        now: Instant,
        delay: Duration,
        sides: [TcpPunch; 2],
        words: Vec<(Instant, usize, bool)>,
        /// Who primed and dialled what, and when.
        primed: [Vec<(Instant, SocketAddr)>; 2],
        dialled: [Vec<(Instant, SocketAddr)>; 2],
        let_go: [Option<Instant>; 2],
        said: [usize; 2],
        /// Of so many words one arrives.
        one_of: usize,
    }

    fn place(side: usize) -> Candidate {
        let addr = ["192.0.2.1:4000", "192.0.2.2:4000"][side].parse().expect("address");
        Candidate { kind: CandidateKind::Host, addr }
    }

    impl Pair {
        fn new(delay: Duration) -> Self {
            let now = Instant::from_nanos(1_000_000_000);
            let sides = [true, false].map(|leads| TcpPunch::new(now, leads));
            let (primed, dialled) = (Default::default(), Default::default());
            Self { now, delay, sides, words: Vec::new(), primed, dialled, let_go: [None; 2], said: [0; 2], one_of: 1 }
        }

        fn gather(&mut self, side: usize) {
            self.sides[side].gathered(self.now, &[place(side)]);
        }

        fn run(&mut self, limit: Duration) {
            let end = self.now + limit;
            loop {
                self.drain();
                let timers = self.sides.iter().filter_map(|side| Some(side.poll_timeout()?.at));
                let Some(next) = timers.chain(self.words.iter().map(|(at, ..)| *at)).min() else { break };
                if next > end {
                    break;
                }
                self.now = self.now.max(next);
                self.sides.iter_mut().for_each(|side| side.handle_timeout(self.now));
                let (come, wait) = std::mem::take(&mut self.words).into_iter().partition(|(at, ..)| *at <= self.now);
                self.words = wait;
                for (_, to, primed) in come {
                    self.sides[to].told(self.now, &[place(1 - to).addr], primed);
                }
            }
            self.now = self.now.max(end);
        }

        fn drain(&mut self) {
            for side in 0..2 {
                while let Some(want) = self.sides[side].poll_want() {
                    match want {
                        Want::Say { primed } => {
                            self.said[side] += 1;
                            if self.said[side].is_multiple_of(self.one_of) {
                                self.words.push((self.now + self.delay, 1 - side, primed));
                            }
                        }
                        Want::Prime(to) => self.primed[side].push((self.now, to)),
                        Want::LetGo => self.let_go[side] = Some(self.now),
                        Want::Dial(to) => self.dialled[side].push((self.now, to)),
                    }
                }
            }
        }
    }

    #[test]
    fn who_follows_opens_its_nat_and_who_leads_connects_once_that_is_open() {
        for first in [0, 1] {
            let mut pair = Pair::new(Duration::from_millis(30));
            pair.gather(first);
            pair.run(Duration::from_millis(500));
            pair.gather(1 - first);
            pair.run(Duration::from_secs(3));
            assert_eq!(
                (pair.primed[0].len(), pair.dialled[1].len()),
                (0, 0),
                "who leads opens nothing, who follows waits"
            );
            let [(primed, to_leader)] = pair.primed[1][..] else { panic!("{:?}", pair.primed) };
            let [(dialled, to_follower)] = pair.dialled[0][..] else { panic!("{:?}", pair.dialled) };
            assert_eq!((to_leader, to_follower), (place(0).addr, place(1).addr));
            let let_go = pair.let_go[1].expect("all the way");
            assert!(let_go >= primed + PRIMING && dialled > let_go, "{primed:?} {let_go:?} {dialled:?}");
            assert!(dialled - primed < Duration::from_millis(200), "{:?}", dialled - primed);
            let said = pair.said[0];
            pair.run(Duration::from_secs(3));
            assert_eq!(pair.said[0], said, "who leads has been heard");
        }
    }

    #[test]
    fn a_word_that_is_lost_is_said_again() {
        let mut pair = Pair::new(Duration::from_millis(30));
        pair.one_of = 3;
        pair.gather(0);
        pair.gather(1);
        pair.run(Duration::from_secs(6));
        assert_eq!((pair.dialled[0].len(), pair.primed[1].len()), (1, 1));
    }

    #[test]
    fn what_comes_to_nothing_ends_and_says_nothing_any_more() {
        let mut pair = Pair::new(Duration::from_millis(30));
        pair.gather(0);
        pair.run(Duration::from_secs(20));
        assert!(pair.sides.iter().all(TcpPunch::is_over));
        assert!((5..=16).contains(&pair.said[0]), "{}", pair.said[0]);
        assert_eq!((pair.said[1], pair.primed.iter().map(Vec::len).sum::<usize>()), (0, 0));
        let mut met = Pair::new(Duration::from_millis(30));
        met.gather(0);
        met.gather(1);
        met.run(Duration::from_secs(20));
        assert!(met.sides.iter().all(TcpPunch::is_over), "connections that did not come");
    }

    #[test]
    fn more_addresses_than_are_tried_are_not_tried() {
        let now = Instant::from_nanos(1);
        let many: Vec<SocketAddr> = (1..=100).map(|n| SocketAddr::from(([192, 0, 2, n], 4_000))).collect();
        for leads in [true, false] {
            let mut punch = TcpPunch::new(now, leads);
            punch.gathered(now, &[place(0)]);
            punch.told(now, &many, true);
            punch.handle_timeout(now + PRIMING);
            let wants = std::iter::from_fn(|| punch.poll_want());
            let tried = wants.filter(|want| matches!(want, Want::Prime(_) | Want::Dial(_))).count();
            assert_eq!(tried, MOST_PLACES);
        }
    }
}
