//! One peer as the node sees it: its keys, its paths, what waits for them, and what was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::carriers::Carrier;
use super::groups::Talk;
use super::matchmaking::Hearsay;
use super::peers::Note;
use super::ports::Searched;
use super::tcp::TriedTcp;
use super::waiting::Waiting;
use crate::crypto::ReplayWindow;
use crate::crypto::Signed;
use crate::crypto::probe::ProbeKeys;
use crate::forward::{Gate, Traffic};
use crate::id::{PeerId, ServerId};
use crate::nat::Traits;
use crate::punch::{Punch, Via};
use crate::sans::{Instant, RateLimit, Wakeup};
use crate::session::Session;
use crate::wire::announcement::CandidateKind;

/// Probes of a pair may overtake each other by this many numbers (milliseconds, mostly).
pub(super) const PROBE_WINDOW: usize = 8_192;

/// A peer that is silent for this long, and that no server lists, is gone. Three measuring probes of an idle
/// path fit in.
pub(super) const SILENCE: Duration = Duration::from_secs(45);
/// After its goodbye, what a peer sent before may still arrive for this long: it does not bring the peer back.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// Packets come by another way if none came by the one known for so long. Else both bring some, and either will do.
const MOVED: Duration = Duration::from_millis(50);

/// See [`Peer::dispensable`]; the greatest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dispensable {
    Unlisted,
    Gone,
    Rumour,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its newest announcement.
    pub(super) signed: Signed,
    /// Its name here: its own, or with a number behind it if that is taken.
    pub(super) name: String,
    /// Our keys with it.
    pub(super) session: Session,
    /// Our paths to it.
    pub(super) punch: Punch,
    /// Keys of its probes.
    pub(super) probe_keys: ProbeKeys,
    /// Its probes' counters.
    pub(super) probe_window: ReplayWindow<PROBE_WINDOW>,
    /// Packets for it that wait for a session: `[HEADROOM][packet][TAILROOM]`.
    pub(super) waiting: Waiting<Vec<u8>>,
    /// Pings that wait for a session.
    pub(super) waiting_pings: Waiting<u64>,
    /// Pings that wait for their pong: id and when it was sent.
    pub(super) pings: BTreeMap<u64, Instant>,
    /// The servers that list it, and what each saw as its address.
    pub(super) listed: BTreeMap<ServerId, Option<SocketAddr>>,
    /// What it is known by while no server lists it and there is no session.
    pub(super) hearsay: Option<Hearsay>,
    /// The servers whose channel to it is open.
    pub(super) relays: BTreeSet<ServerId>,
    /// When it was first heard of in this run; not by the cache.
    pub(super) heard: Option<Instant>,
    /// From then to the first direct path.
    pub(super) direct_after: Option<Duration>,
    /// When something authenticated last came from it.
    pub(super) received: Option<Instant>,
    /// Since when it is gone.
    pub(super) offline: Option<Instant>,
    /// When it was last searched for while it is gone; such a search ends after a while.
    pub(super) searched: Option<Instant>,
    /// Whether it ever had a session with us: only such peers are remembered between runs.
    pub(super) met: bool,
    /// One of those who were met first: nobody takes its place.
    pub(super) senior: bool,
    /// When it was put on the list of peers.
    pub(super) added: Instant,
    /// When it was last seen, milliseconds of wall time; what an earlier run stored, until it is seen in this one.
    pub(super) seen_ms: u64,
    /// The sequence number of ours that it was last told in the session.
    pub(super) told: u64,
    /// Its announcements that are taken in.
    pub(super) changes: RateLimit,
    /// Initiations through its relay channels that are read.
    pub(super) initiations: RateLimit,
    /// Its words in the session that are listened to.
    pub(super) controls: RateLimit,
    /// Strangers that it tells us of.
    pub(super) tellings: RateLimit,
    /// Its packets, as those who seal and open them count.
    pub(super) traffic: Arc<Traffic>,
    /// When the last packet went and came of those that were taken over.
    pub(super) taken_over: (Instant, Instant),
    /// When to take over again, while there is traffic.
    pub(super) watch: Option<Instant>,
    /// What it sends to many comes through this.
    pub(super) gate: Arc<Gate>,
    /// Which groups it wants, and when it is told which are wanted here.
    pub(super) groups: Talk,
    /// The way by which its packets come.
    pub(super) arrives: Option<Via>,
    /// What it says of its NAT.
    pub(super) nat: Option<Traits>,
    /// Who may carry between us.
    pub(super) carriers: BTreeMap<PeerId, Carrier>,
    /// Its wishes that we carry for it which are listened to.
    pub(super) carries: RateLimit,
    /// What searches over ports have to do with it.
    pub(super) searched_ports: Searched,
    /// What attempts to connect to it by TCP came to.
    pub(super) tried_tcp: TriedTcp,
    /// What the list of peers notes of it.
    pub(super) note: Note,
}

impl Peer {
    /// When it wants to be woken.
    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        let waiting = self.waiting.due().map(|at| Wakeup::new(at, "packets wait"));
        let watch = self.watch.map(|at| Wakeup::new(at, "traffic"));
        let groups = self.groups.due.map(|at| Wakeup::new(at, "groups"));
        [self.session.poll_timeout(), self.punch.poll_timeout(), waiting, watch, groups].into_iter().flatten().min()
    }

    /// Its id.
    pub(super) fn id(&self) -> PeerId {
        self.signed.peer
    }

    /// The highest number that was taken from it. Announcements, probes and initiations share one sequence, which
    /// outlives its runs.
    pub(super) fn newest(&self) -> u64 {
        let numbers = [Some(self.signed.seq), self.probe_window.newest(), self.session.newest()];
        numbers.into_iter().flatten().max().unwrap_or_default()
    }

    /// What an earlier run took from it is not taken again.
    pub(super) fn remember(&mut self, newest: u64) {
        self.probe_window = ReplayWindow::above(newest);
        self.session.remember(newest);
    }

    /// Something authenticated came from it.
    pub(super) fn heard_from(&mut self, now: Instant) {
        self.heard.get_or_insert(now);
        self.received = self.received.max(Some(now));
        self.offline = None;
        self.searched = None;
    }

    /// A packet came from it this way. If none has come by the one known for a while, this is it now; a direct one is so at
    /// once, for nobody goes back from it to a relay in a moment.
    pub(super) fn arrived(&mut self, now: Instant, via: Via) {
        let is_better = via.is_direct() && self.arrives.is_some_and(|known| !known.is_direct());
        if self.arrives.is_none() || is_better || now - self.traffic.received_at() >= MOVED {
            self.arrives = Some(via);
        }
    }

    /// How well it can be done without when there is no more room; `None`: not at all. Most of all a rumour, that
    /// nobody lists and that never proved that it exists; then who is gone; then who is listed nowhere. Of equals the
    /// one that came last: whoever crowds us out came after those who are crowded out.
    pub(super) fn dispensable(&self) -> Option<(Dispensable, Instant)> {
        let how = match () {
            () if self.senior => return None,
            () if !self.met && self.listed.is_empty() && self.received.is_none() => Dispensable::Rumour,
            () if self.offline.is_some() => Dispensable::Gone,
            () if self.listed.is_empty() => Dispensable::Unlisted,
            () => return None,
        };
        Some((how, self.added))
    }

    /// Whether no rendezvous that lists it sees an address of it by UDP, nor anybody else whom it asked.
    pub(super) fn is_udp_blocked(&self) -> bool {
        let is_seen = self.signed.candidates.iter().any(|candidate| candidate.kind == CandidateKind::Reflexive);
        !self.listed.is_empty() && self.listed.values().all(Option::is_none) && !is_seen
    }

    /// Whether it answered lately.
    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.offline.is_none() && self.received.is_some_and(|at| now - at < SILENCE)
    }
}
