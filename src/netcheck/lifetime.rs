//! How long a mapping lives in silence, found out by asking nothing of it.
//!
//! Each silence is tried by a socket of its own, all at once: it speaks with the rendezvous twice, a few seconds apart
//! (routers keep what looks like a conversation longer), and from then on says nothing. When its time has come another
//! socket shows the rendezvous the proof that the silent one was given, and has it answer there. What arrives, arrives
//! by a mapping that nothing has refreshed; and the first that does not arrive ends it all.
//!
//! Beside each such wish goes a plain question: if that is not answered either, nothing is concluded.

use std::time::Duration;

use super::evidence::Evidence;
use super::shots::{PATIENCE, Purpose, Question, Shot, Volley};
use super::{Check, Finding, Lifetime, MAPPED, ROW_PAUSE, SOCKETS};
use crate::id::SocketId;
use crate::sans::Instant;
use crate::wire::stun::Proof;

/// How long the sockets are silent, seconds: a second less than what routers are usually set to. The first shows that
/// answers to silent sockets arrive at all.
pub(super) const SILENCES: [u64; 11] = [1, 14, 19, 29, 44, 59, 89, 119, 179, 239, 299];
/// Between the two words of a socket that will be silent.
const CONVERSATION: Duration = Duration::from_secs(3);
/// How often, and with which pause, it is tried to reach it then.
const KNOCKS: u32 = 4;
const KNOCK_PAUSE: Duration = Duration::from_millis(500);
/// Of the plain questions beside it so many must be answered.
const CONTROLS: usize = 2;

/// Where the measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The sockets speak first.
    First,
    /// And again.
    Second,
    /// They are silent.
    Silence,
}

/// A socket that is silent.
#[derive(Clone, Copy, Debug)]
struct Silent {
    socket: SocketId,
    silence: u64,
    /// Its port outside.
    port: u16,
    proof: Proof,
    /// When it last spoke.
    spoke: Instant,
}

impl Stage {
    pub(super) fn progress(self) -> String {
        match self {
            Self::First | Self::Second => "opening mappings to watch".to_owned(),
            Self::Silence => format!("waiting in silence, up to {} s", SILENCES[SILENCES.len() - 1]),
        }
    }

    /// Whether a silence was found that is too long.
    pub(super) fn is_over(self, now: Instant, volley: &Volley) -> bool {
        let mut ports: Vec<u16> = volley.0.iter().filter_map(|shot| shot.request.response_port).collect();
        ports.dedup();
        let ended = |port: &u16| volley.0.iter().all(|shot| !is_knock(shot, *port) || shot.at + PATIENCE <= now);
        self == Self::Silence && ports.iter().any(|port| ended(port) && arrived(&volley.0, None, *port) == Some(false))
    }
}

fn is_knock(shot: &Shot, port: u16) -> bool {
    shot.purpose == Purpose::Knock && shot.request.response_port == Some(port)
}

/// Whether what was to go to `port` arrived, on `socket` if that is known; `None`: it cannot be told.
fn arrived(shots: &[Shot], socket: Option<SocketId>, port: u16) -> Option<bool> {
    let knocks = || shots.iter().filter(|shot| is_knock(shot, port) && shot.was_sent());
    if knocks().filter_map(Shot::heard).any(|heard| socket.is_none_or(|socket| heard.on == socket)) {
        return Some(true);
    }
    if knocks().any(Shot::was_refused) || knocks().next().is_some_and(Shot::was_late) {
        return None;
    }
    let (first, last) = (knocks().map(|shot| shot.at).min()?, knocks().map(|shot| shot.at).max()?);
    let beside = |shot: &&Shot| shot.purpose == Purpose::Control && (first..=last).contains(&shot.at);
    let served = shots.iter().filter(beside).filter(|shot| shot.heard().is_some()).count();
    (served >= CONTROLS).then_some(false)
}

impl Check {
    pub(super) fn begin_lifetime(&mut self, now: Instant) -> super::Stage {
        let Some(server) = self.evidence.server.filter(|server| server.proves) else { return super::Stage::Done };
        for (place, socket) in (0..).zip(self.evidence.silent_sockets()) {
            let question = Question::plain(Purpose::Silent, socket, server.addr);
            self.volley.ask(&mut self.rng, now + ROW_PAUSE * place, question);
        }
        super::Stage::Lifetime(Stage::First)
    }

    pub(super) fn go_on_with_lifetime(&mut self, now: Instant, stage: Stage) -> super::Stage {
        let Some(server) = self.evidence.server else { return super::Stage::Done };
        match stage {
            Stage::First => {
                for Silent { socket, .. } in self.evidence.silent() {
                    let question = Question::plain(Purpose::Silent, socket, server.addr);
                    self.volley.once(&mut self.rng, now + CONVERSATION, question);
                }
                super::Stage::Lifetime(Stage::Second)
            }
            Stage::Second => {
                for Silent { silence, port, proof, spoke, .. } in self.evidence.silent() {
                    let knock =
                        Question { there: Some((port, proof)), ..Question::plain(Purpose::Knock, MAPPED, server.addr) };
                    let control = Question::plain(Purpose::Control, MAPPED, server.addr);
                    for n in 0..KNOCKS {
                        let at = spoke + Duration::from_secs(silence) + KNOCK_PAUSE * n;
                        self.volley.once(&mut self.rng, at, knock);
                        self.volley.once(&mut self.rng, at, control);
                    }
                }
                super::Stage::Lifetime(Stage::Silence)
            }
            Stage::Silence => super::Stage::Done,
        }
    }
}

impl Evidence {
    fn silent_sockets(&self) -> impl Iterator<Item = SocketId> + use<> {
        let ids = SOCKETS..self.plan.sockets.len().min(SOCKETS + SILENCES.len());
        ids.filter_map(|id| u16::try_from(id).ok()).map(SocketId)
    }

    /// Those that were answered, and that can be reached by a question of the first socket.
    fn silent(&self) -> Vec<Silent> {
        let reachable = self.outside(MAPPED).map(|outside| outside.ip());
        let silent = self.silent_sockets().zip(SILENCES).filter_map(|(socket, silence)| {
            let shots = || self.log.iter().filter(|shot| shot.socket == socket && shot.purpose == Purpose::Silent);
            let answer = shots().rev().find_map(Shot::answer)?;
            let spoke = shots().filter(|shot| shot.was_sent()).map(|shot| shot.at).max()?;
            let (port, proof) = (answer.mapped.port(), answer.proof?);
            Some(Silent { socket, silence, port, proof, spoke }).filter(|_| reachable == Some(answer.mapped.ip()))
        });
        silent.collect()
    }

    pub(super) fn lifetime(&self) -> Finding<Lifetime> {
        if !self.plan.lifetime {
            return Finding::unknown("it was not asked for, and takes minutes");
        }
        let Some(server) = self.server.filter(|server| server.proves) else {
            return Finding::unknown("only a rendezvous of this version can tell, and none answered");
        };
        let mut least = None;
        for Silent { socket, silence, port, .. } in self.silent() {
            match (arrived(&self.log, Some(socket), port), least) {
                (Some(true), _) => least = Some(Duration::from_secs(silence)),
                (Some(false), Some(least)) => {
                    return Finding::Known(Lifetime { least, most: Some(Duration::from_secs(silence)) });
                }
                (Some(false), None) => break,
                (None, _) => {}
            }
        }
        let mut knocks = self.log.iter().filter(|shot| shot.purpose == Purpose::Knock);
        match least {
            Some(least) => Finding::Known(Lifetime { least, most: None }),
            None if knocks.clone().any(Shot::was_refused) => {
                Finding::unknown(format!("{} refuses to answer to another port", server.addr))
            }
            None if knocks.any(Shot::was_late) => Finding::unknown("this machine slept meanwhile"),
            None => Finding::unknown(format!("what {} sends to a socket that is silent does not arrive", server.addr)),
        }
    }
}
