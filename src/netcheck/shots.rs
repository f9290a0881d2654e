//! Questions that leave at their times, and what was heard of them. All that a check learns it learns from this list.

use std::net::SocketAddr;
use std::time::Duration;

use crate::id::SocketId;
use crate::sans::{Instant, Rng, Transmit};
use crate::wire::stun::{Answer, BindingRequest, Change, Proof, refused};

/// When a question leaves, and leaves again while nothing was heard of it: milliseconds.
const TRIES: [u64; 5] = [0, 250, 500, 1000, 1500];
/// How long an answer is waited for after the last try.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Who sends later than this was not awake.
const LATE: Duration = Duration::from_secs(1);

/// What a question is to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Whether a server answers, and what it can do.
    Meet,
    /// Which port a new socket gets outside.
    Row,
    /// Whether another destination sees the same address.
    Map,
    /// Whether an answer from elsewhere comes through.
    Filter,
    /// Whether the server answers while those from elsewhere do not come. Each leaves.
    Control,
    /// Whether our own address outside leads back to us.
    Hairpin,
    /// A mapping that is then left alone.
    Silent,
    /// Whether it is still there.
    Knock,
}

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Shot {
    pub(super) purpose: Purpose,
    pub(super) socket: SocketId,
    pub(super) to: SocketAddr,
    pub(super) request: BindingRequest,
    /// When it leaves, or left.
    pub(super) at: Instant,
    /// When it was to leave.
    planned: Instant,
    fate: Fate,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Waiting,
    /// An earlier try was heard.
    Needless,
    Sent,
    /// Nothing was heard of it in time; what comes late still counts.
    Silent,
    Heard(Heard),
    /// The server will not answer it.
    Refused,
}

/// What was heard of a question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// On this socket.
    pub(super) on: SocketId,
    /// From there.
    pub(super) from: SocketAddr,
    /// After so long.
    pub(super) after: Duration,
    /// The server's answer; none: the question itself came.
    pub(super) answer: Option<Answer>,
}

impl Shot {
    pub(super) const fn heard(&self) -> Option<&Heard> {
        match &self.fate {
            Fate::Heard(heard) => Some(heard),
            Fate::Waiting | Fate::Needless | Fate::Sent | Fate::Silent | Fate::Refused => None,
        }
    }

    /// What the server said.
    pub(super) fn answer(&self) -> Option<&Answer> {
        self.heard()?.answer.as_ref()
    }

    /// Whether it left so late that this machine must have slept.
    pub(super) fn was_late(&self) -> bool {
        self.was_sent() && self.at > self.planned + LATE
    }

    pub(super) const fn was_refused(&self) -> bool {
        matches!(self.fate, Fate::Refused)
    }

    /// Whether anything came, if only a refusal.
    pub(super) const fn is_settled(&self) -> bool {
        matches!(self.fate, Fate::Heard(_) | Fate::Refused)
    }

    pub(super) const fn was_sent(&self) -> bool {
        matches!(self.fate, Fate::Sent | Fate::Silent | Fate::Heard(_) | Fate::Refused)
    }

    /// Whether both ask the same.
    fn repeats(&self, other: &Self) -> bool {
        let what = |shot: &Self| (shot.purpose, shot.socket, shot.to, shot.request.change, shot.request.response_port);
        what(self) == what(other) && self.purpose != Purpose::Control
    }
}

/// Questions that belong together.
#[derive(Debug, Default)]
pub(super) struct Volley(pub(super) Vec<Shot>);

impl Volley {
    /// Asks from `at` on, several times if need be.
    pub(super) fn ask(&mut self, rng: &mut Rng, at: Instant, question: Question) {
        for pause in TRIES {
            self.once(rng, at + Duration::from_millis(pause), question);
        }
    }

    /// Asks at `at`, if nothing was heard before.
    pub(super) fn once(&mut self, rng: &mut Rng, at: Instant, question: Question) {
        let Question { purpose, socket, to, change, there } = question;
        let request = BindingRequest {
            transaction: rng.array(),
            change,
            response_port: there.map(|(port, _)| port),
            proof: there.map(|(_, proof)| proof),
            not_understood: None,
        };
        self.0.push(Shot { purpose, socket, to, request, at, planned: at, fate: Fate::Waiting });
    }

    /// What leaves now.
    pub(super) fn due(&mut self, now: Instant, out: &mut impl Extend<Transmit>) {
        for i in 0..self.0.len() {
            let shot = &mut self.0[i];
            if matches!(shot.fate, Fate::Sent) && shot.at + PATIENCE <= now {
                shot.fate = Fate::Silent;
            }
            let shot = &self.0[i];
            if !matches!(shot.fate, Fate::Waiting) || shot.at > now {
                continue;
            }
            let needless = self.0.iter().any(|other| other.is_settled() && other.repeats(shot));
            let shot = &mut self.0[i];
            shot.fate = if needless { Fate::Needless } else { Fate::Sent };
            if !needless {
                shot.at = now;
                let (socket, to, payload) = (shot.socket, shot.to, shot.request.encode());
                out.extend([Transmit { socket, src: None, to, ttl: None, tos: 0, payload }]);
            }
        }
    }

    /// Whether a datagram is the answer to one of these, or its refusal, or one of these itself.
    pub(super) fn hear(&mut self, now: Instant, on: SocketId, from: SocketAddr, payload: &[u8]) -> bool {
        if let Ok(transaction) = refused(payload) {
            return self.refuse(transaction);
        }
        let (transaction, answer) = match (Answer::parse(payload), BindingRequest::parse(payload)) {
            (Ok(answer), _) => (answer.transaction, Some(answer)),
            (_, Ok(request)) => (request.transaction, None),
            _ => return false,
        };
        let Some(shot) = self.open(transaction) else { return false };
        let is_expected = match &answer {
            Some(answer) => shot.purpose != Purpose::Hairpin && answer.mapped.is_ipv4() == shot.to.is_ipv4(),
            None => shot.purpose == Purpose::Hairpin,
        };
        if !is_expected {
            return false;
        }
        shot.fate = Fate::Heard(Heard { on, from, after: now - shot.at, answer });
        true
    }

    fn refuse(&mut self, transaction: [u8; 12]) -> bool {
        let Some(shot) = self.open(transaction) else { return false };
        shot.fate = Fate::Refused;
        true
    }

    /// That of which something may still be heard.
    fn open(&mut self, transaction: [u8; 12]) -> Option<&mut Shot> {
        let open = |shot: &&mut Shot| shot.request.transaction == transaction && shot.was_sent() && !shot.is_settled();
        self.0.iter_mut().find(open)
    }

    /// Whether something was heard of all.
    pub(super) fn all_heard(&self) -> bool {
        let one_was = |shot: &Shot| self.0.iter().any(|other| other.is_settled() && other.repeats(shot));
        self.0.iter().all(|shot| shot.is_settled() || one_was(shot))
    }

    /// When waiting has no sense any more.
    pub(super) fn end(&self) -> Option<Instant> {
        self.0.iter().map(|shot| shot.at + PATIENCE).max()
    }

    /// When the next leaves, or the patience with one ends.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = self.0.iter().filter_map(|shot| match shot.fate {
            Fate::Waiting => Some(shot.at),
            Fate::Sent => Some(shot.at + PATIENCE),
            Fate::Needless | Fate::Silent | Fate::Heard(_) | Fate::Refused => None,
        });
        next.min()
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) purpose: Purpose,
    pub(super) socket: SocketId,
    pub(super) to: SocketAddr,
    /// From where the answer is to come.
    pub(super) change: Change,
    /// The answer is to go to this port of ours; the proof that we were there.
    pub(super) there: Option<(u16, Proof)>,
}

impl Question {
    /// To be answered as it was asked.
    pub(super) const fn plain(purpose: Purpose, socket: SocketId, to: SocketAddr) -> Self {
        Self { purpose, socket, to, change: Change::NONE, there: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sans::Seed;

    const T0: Instant = Instant::from_nanos(1_000_000_000);
    const SOCKET: SocketId = SocketId(0);

    fn server() -> SocketAddr {
        "198.51.100.1:3478".parse().expect("address")
    }

    fn asked(purpose: Purpose) -> Volley {
        let mut volley = Volley::default();
        volley.ask(&mut Seed::from_u64(1).rng(), T0, Question::plain(purpose, SOCKET, server()));
        volley
    }

    fn sent(volley: &mut Volley, now: Instant) -> Vec<Transmit> {
        let mut out = Vec::new();
        volley.due(now, &mut out);
        out
    }

    fn answer(question: &Transmit) -> Vec<u8> {
        let request = BindingRequest::parse(&question.payload).expect("ours");
        Answer::new(request.transaction, "203.0.113.9:7".parse().expect("address")).encode(question.payload.len())
    }

    #[test]
    fn a_question_is_repeated_until_something_is_heard() {
        let mut volley = asked(Purpose::Meet);
        let first = sent(&mut volley, T0);
        assert_eq!((first.len(), sent(&mut volley, T0).len()), (1, 0));
        assert_eq!(volley.next(), Some(T0 + Duration::from_millis(250)));
        let now = T0 + Duration::from_millis(300);
        assert_eq!(sent(&mut volley, now).len(), 1);
        assert!(volley.hear(now, SOCKET, server(), &answer(&first[0])) && volley.all_heard());
        assert!(!volley.hear(now, SOCKET, server(), &answer(&first[0])), "once");
        assert_eq!(sent(&mut volley, T0 + Duration::from_secs(9)).len(), 0);
        assert_eq!(volley.0[0].heard().map(|heard| heard.after), Some(Duration::from_millis(300)));
    }

    #[test]
    fn what_nobody_asked_is_not_heard_and_only_a_hairpin_brings_a_question_back() {
        let mut volley = asked(Purpose::Map);
        let question = sent(&mut volley, T0).remove(0);
        assert!(!volley.hear(T0, SOCKET, server(), &question.payload));
        assert!(!volley.hear(T0, SOCKET, server(), b"rubbish"));
        let forged = Answer::new([0; 12], server()).encode(100);
        assert!(!volley.hear(T0, SOCKET, server(), &forged) && !volley.0[0].is_settled());

        let mut volley = asked(Purpose::Hairpin);
        let question = sent(&mut volley, T0).remove(0);
        assert!(!volley.hear(T0, SocketId(2), server(), &answer(&question)), "nobody is there who could answer");
        assert!(volley.hear(T0, SocketId(2), server(), &question.payload) && volley.0[0].is_settled());
    }

    #[test]
    fn a_refusal_is_no_silence_and_ends_the_asking() {
        let mut volley = asked(Purpose::Meet);
        let question = sent(&mut volley, T0).remove(0);
        let refusal = BindingRequest::parse(&question.payload).expect("ours").refuse(3);
        assert!(volley.hear(T0, SOCKET, server(), &refusal) && volley.all_heard() && volley.0[0].is_settled());
        assert!(volley.0[0].was_refused() && volley.0[0].heard().is_none());
        assert!(!volley.hear(T0, SOCKET, server(), &refusal), "once");
        assert_eq!(sent(&mut volley, T0 + Duration::from_secs(9)).len(), 0);
    }

    #[test]
    fn an_address_of_the_other_family_is_no_answer() {
        let mut volley = asked(Purpose::Meet);
        let question = sent(&mut volley, T0).remove(0);
        let transaction = BindingRequest::parse(&question.payload).expect("ours").transaction;
        let six = Answer::new(transaction, "[2001:db8::7]:9".parse().expect("address")).encode(0);
        assert!(!volley.hear(T0, SOCKET, server(), &six) && !volley.0[0].is_settled());
    }

    #[test]
    fn waiting_ends_a_while_after_the_last_try() {
        let mut volley = asked(Purpose::Meet);
        let end = volley.end().expect("something was asked");
        assert_eq!(end, T0 + Duration::from_millis(2_500));
        sent(&mut volley, end);
        assert_eq!(volley.next(), Some(end + PATIENCE), "late, they have as long as any");
        sent(&mut volley, end + PATIENCE);
        assert_eq!((volley.next(), volley.all_heard()), (None, false));
    }
}
