//! L3: one peer's paths.
//!
//! [`Punch`] decides how packets reach one peer. It holds every way that is known ([`Via`]): the peer's
//! candidates from each of our sockets of their family, addresses that the peer's verified probes came from
//! (peer-reflexive), and the relays whose channel is open. It seals and verifies nothing: the node does,
//! and hands over only probes whose MAC held and whose counter was fresh.
//!
//! # From an introduction to a direct path
//!
//! ```text
//!   alice                    relay                     bob       trips
//!   prime (TTL 2) ──× dies beyond her NAT   × ── prime (TTL 2)     0
//!   primed ─────────────────────────────────────────▶ primed       1    NATs are open on both sides
//!   request ────────────────────────────────────────▶              2    arrives: bob answers, and asks there himself
//!            ◀──────────────────────────────── echo, full request  3    alice has proven small packets
//!   full echo ──────────────────────────────────────▶              4    bob uses the path; alice likewise
//! ```
//!
//! 1. **Rounds** (`search`): both sides prime, say so, and probe together.
//! 2. **Proof** (`path`, `window`): a path is proven only by the echo of our own fresh nonce, at the request's
//!    length, on the socket and from the address it was sent to, and is used for data only after a full-size
//!    echo. A request proves nothing to its receiver, but is a good reason to ask back at once: that is how a
//!    peer behind a symmetric NAT, whose port nobody could announce, becomes reachable.
//! 3. **Choice** (`rank`): a value with a derived order; smallest wins.
//! 4. **Life** (`path`): measuring on a common grid, keepalives, doubt, death, and the search anew.
//!
//! What leaves next is decided in `outbound`; what all searches of a node send to addresses that never answered is
//! limited by one [`Budget`]. Connections (`streams`) are ways like others.

mod budget;
mod ladder;
mod outbound;
mod path;
mod paths;
mod rank;
mod search;
mod slots;
mod streams;
mod via;
mod window;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use budget::Payer;
pub use budget::{Budget, PER_TARGET, Standing, Verdict};
pub use outbound::PRIME_TTL;
use path::Path;
use search::{Search, Step};
pub use via::{Choice, Event, Family, PathKind, PathReport, ProbeIn, ProbeOut, Via};
pub use window::PathStats;

use crate::id::SocketId;
use crate::sans::{Instant, RateLimit, Rng, Seed, Wakeup};
use crate::wire::announcement::{Candidate, MAX_CANDIDATES};
use crate::wire::probe::ProbeKind;

/// Relays and sockets considered per peer: more than anybody configures.
const MAX_RELAYS: usize = 16;
const MAX_SOCKETS: usize = 4;
/// Echoes that wait to be sent; more requests than this at once are not answered.
const MAX_ECHOES: usize = 32;
/// Echoes a second and at once for one peer: a search needs about 40, measuring one.
const ECHO_RATE: u32 = 100;
const ECHO_BURST: u32 = 100;
/// Events that wait to be read.
const MAX_EVENTS: usize = 64;

/// One peer's paths.
#[derive(Debug)]
pub struct Punch {
    rng: Rng,
    now: Instant,
    sockets: Vec<(SocketId, Family)>,
    candidates: Vec<Candidate>,
    /// Direct ones in the order of the candidates, then peer-reflexive ones and relays as they came.
    paths: Vec<Path>,
    search: Search,
    choice: Option<Choice>,
    chosen_at: Instant,
    /// A path that seems better than the one in use, and is measured as often to see whether it is.
    rival: Option<Via>,
    payer: Payer,
    echo_rate: RateLimit,
    /// Requests beyond that rate.
    unanswered: u64,
    /// Addresses that probes came from and that had to go, or found no room.
    crowded: u64,
    echoes: VecDeque<ProbeOut>,
    keepalives: VecDeque<Via>,
    events: VecDeque<Event>,
    /// Addresses that proved themselves since the budget was last at hand.
    answered: Vec<IpAddr>,
}

impl Punch {
    /// No way known yet.
    pub fn new(now: Instant, seed: &Seed) -> Self {
        let mut rng = seed.rng();
        let search = Search::new(&mut rng);
        Self {
            rng,
            now,
            sockets: Vec::new(),
            candidates: Vec::new(),
            paths: Vec::new(),
            search,
            choice: None,
            chosen_at: now,
            rival: None,
            payer: Payer::new(Standing::Stranger),
            echo_rate: RateLimit::new(ECHO_RATE, ECHO_BURST),
            unanswered: 0,
            crowded: 0,
            echoes: VecDeque::new(),
            keepalives: VecDeque::new(),
            events: VecDeque::new(),
            answered: Vec::new(),
        }
    }

    // ---- what it knows ----

    /// Our sockets, each with the family it sends to.
    pub fn set_sockets(&mut self, now: Instant, sockets: &[(SocketId, Family)]) {
        self.sockets = sockets.iter().copied().take(MAX_SOCKETS).collect();
        let is_gone = |via: Via| {
            via.is_by_datagrams() && via.socket().is_some_and(|socket| !sockets.iter().any(|(id, _)| *id == socket))
        };
        self.paths.retain(|path| !is_gone(path.via));
        self.renew_paths(now);
    }

    /// Whether the peer's searches come first.
    pub const fn set_standing(&mut self, standing: Standing) {
        self.payer.standing = standing;
    }

    /// The peer's candidates, already admitted, the most promising first. Those that are new join the search
    /// that runs, or start one; those that are gone are dropped unless they work.
    pub fn set_candidates(&mut self, now: Instant, mut candidates: Vec<Candidate>) {
        candidates.truncate(MAX_CANDIDATES);
        if candidates != self.candidates {
            self.candidates = candidates;
            self.renew_paths(now);
            self.moved(now);
        }
    }

    /// One of both ends may be elsewhere: where data goes it is asked at once whether that still leads there, and not only
    /// when nothing has come for a while.
    pub fn moved(&mut self, now: Instant) {
        let used = self.choice.map(|choice| choice.via);
        used.and_then(|used| self.path_mut(used)).into_iter().for_each(|path| path.doubt(now, now));
        self.refresh(now);
    }

    /// A channel to the peer is open on both ends.
    pub fn relay_up(&mut self, now: Instant, relay: impl Into<Via>) {
        let relay = relay.into();
        if self.path(relay).is_none() && self.relays().count() < MAX_RELAYS {
            self.paths.push(Path::relay(relay));
            self.search.on_relay(now);
            self.refresh(now);
        }
    }

    /// The channel is closed.
    pub fn relay_down(&mut self, now: Instant, relay: impl Into<Via>) {
        let relay = relay.into();
        self.paths.retain(|path| path.via != relay);
        self.refresh(now);
    }

    // ---- what happens ----

    /// Both sides are told to start now. Repeated within 1.5 s it means nothing.
    pub fn introduce(&mut self, now: Instant) {
        let step = self.search.on_introduced(now, self.has_relay());
        self.perform(now, step);
        self.refresh(now);
    }

    /// The peer is gone: forgets what was proven and searches no more until it is introduced again, or its
    /// probes come.
    pub fn stop(&mut self, now: Instant) {
        self.search.stop();
        self.echoes.clear();
        self.paths.retain(|path| path.announced);
        for path in self.paths.iter_mut().filter(|path| path.via.is_direct()) {
            *path = Path::new(path.via, path.kind, true);
        }
        self.refresh(now);
    }

    /// A probe came in whose MAC held and whose counter was fresh. `local`: our address it came to.
    pub fn handle_probe(&mut self, now: Instant, via: Via, local: Option<IpAddr>, probe: &ProbeIn) {
        match probe.kind {
            ProbeKind::Request => self.on_request(now, via, local, probe),
            ProbeKind::Echo => self.on_echo(now, via, local, probe),
            ProbeKind::Primed => {
                let step = self.search.on_primed(now, self.has_relay());
                self.perform(now, step);
            }
        }
        self.refresh(now);
    }

    /// Data of the session goes this way.
    pub fn data_sent(&mut self, now: Instant, via: Via) {
        if let Some(path) = self.path_mut(via) {
            path.on_data_sent(now);
        }
    }

    /// That somebody is at this address was guessed.
    pub fn was_predicted(&mut self, now: Instant, remote: SocketAddr) {
        let there = |path: &&mut Path| !path.announced && path.via.remote() == Some(remote);
        self.paths.iter_mut().filter(there).for_each(|path| path.kind = PathKind::Predicted);
        self.refresh(now);
    }

    /// Authenticated traffic of the session came this way.
    pub fn received(&mut self, now: Instant, via: Via) {
        if let Some(path) = self.path_mut(via) {
            path.on_received(now);
        } else if via.is_direct() {
            // The peer's NAT gave it a new port, or it moved: ask whether we may follow.
            self.add_peer_reflexive(now, via);
            if let Some(path) = self.path_mut(via) {
                path.on_received(now);
            }
        }
        let used = self.choice.map(|choice| choice.via).filter(|used| used.is_direct() && !via.is_direct());
        if let Some(path) = used.and_then(|used| self.path_mut(used)) {
            path.doubt_with_peer(now);
        }
    }

    /// Time passes.
    pub fn handle_timeout(&mut self, now: Instant) {
        let used = self.choice.map(|choice| choice.via);
        let mut died = false;
        for i in 0..self.paths.len() {
            let role = self.role(&self.paths[i]);
            let path = &mut self.paths[i];
            died |= path.handle_timeout(now, role) && used == Some(path.via);
            let doubted = path.take_doubt(now).then_some(path.via);
            if path.take_keepalive(now, role) {
                self.keepalives.push_back(path.via);
            }
            match doubted {
                Some(relay) if !relay.is_direct() => self.emit(Event::RelayDoubtful { relay }),
                // A router that has forgotten this way may have forgotten those to the relays too, which are needed now.
                Some(direct) if used == Some(direct) => {
                    let relays: Vec<Via> = self.relays().map(|path| path.via).collect();
                    relays.into_iter().for_each(|relay| self.emit(Event::RelayDoubtful { relay }));
                }
                Some(_) | None => {}
            }
        }
        self.doubt_all(now);
        let comes = |path: &Path| path.via.is_direct() && (path.is_proven() || path.was_heard(now));
        if self.search.take_stuck(now) && !self.paths.iter().any(comes) {
            self.emit(Event::Stuck);
        }
        if died && !self.has_direct() {
            self.lose_path(now);
        }
        let step = self.search.handle_timeout(now, self.has_relay(), self.has_direct());
        self.perform(now, step);
        self.refresh(now);
    }

    // ---- what it wants ----

    /// Where data goes; `None`: nowhere yet.
    pub const fn choice(&self) -> Option<&Choice> {
        self.choice.as_ref()
    }

    /// The next path to send one byte on (0x00) for the NAT's sake; call until `None` after `handle_timeout`.
    #[must_use]
    pub fn poll_keepalive(&mut self) -> Option<Via> {
        self.keepalives.pop_front()
    }

    /// What happened; call until `None` after every call that changed something.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`], then [`Self::poll_probe`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        let paths = self.paths.iter().flat_map(|path| path.timers(self.now, self.role(path)));
        let (at, why) = paths.chain(self.search.timers(self.has_relay() && !self.is_priming())).min()?;
        Some(Wakeup::new(at, why))
    }

    // ---- what it can tell ----

    /// Whether there is a relay beside this one.
    pub fn has_relay_beside(&self, relay: Via) -> bool {
        self.relays().any(|path| path.via != relay)
    }

    /// The sockets at which ways begin that lead somewhere, or may.
    pub fn sockets_in_use(&self, now: Instant) -> impl Iterator<Item = SocketId> {
        self.paths.iter().filter(move |path| !path.is_spent(now)).filter_map(|path| path.via.socket())
    }

    /// The path in use over the last 60 seconds.
    pub fn stats(&self, now: Instant) -> Option<PathStats> {
        self.path(self.choice?.via).map(|path| path.stats(now))
    }

    /// Whether ways are being tried now, for the first time or anew.
    pub fn is_young(&self, now: Instant) -> bool {
        self.search.is_young(now)
    }

    /// Requests that were not answered because too many came.
    pub const fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// Peer-reflexive addresses that made room for others, or found none.
    pub const fn crowded(&self) -> u64 {
        self.crowded
    }

    /// All paths, for people.
    pub fn paths(&self, now: Instant) -> impl Iterator<Item = PathReport> {
        self.paths.iter().map(move |path| path.report(now))
    }
}

// ---- inside ----

impl Punch {
    fn lose_path(&mut self, now: Instant) {
        self.emit(Event::PathLost);
        let step = self.search.on_lost(now, self.has_relay());
        self.perform(now, step);
    }

    fn on_request(&mut self, now: Instant, via: Via, local: Option<IpAddr>, probe: &ProbeIn) {
        if self.path(via).is_none() && via.is_direct() {
            self.add_peer_reflexive(now, via);
        }
        if let Some(path) = self.path_mut(via) {
            path.on_request(now, local);
        }
        if via.is_by_datagrams() {
            let step = self.search.on_request(now);
            self.perform(now, step);
        }
        if self.echoes.len() < MAX_ECHOES && self.echo_rate.allow(now) {
            let (kind, observed) = (ProbeKind::Echo, via.remote());
            self.echoes.push_back(ProbeOut { via, kind, nonce: probe.nonce, len: probe.len, ttl: None, observed });
        } else {
            self.unanswered += 1;
        }
    }

    fn on_echo(&mut self, now: Instant, via: Via, local: Option<IpAddr>, probe: &ProbeIn) {
        let Some(path) = self.path_mut(via) else { return };
        if !path.on_echo(now, local, probe.nonce, probe.len) {
            return;
        }
        // Whose address a connection comes from (a proxy, say) did not agree to datagrams.
        if let Some(remote) = via.remote().filter(|_| via.is_by_datagrams())
            && !self.answered.contains(&remote.ip())
        {
            self.answered.push(remote.ip());
        }
    }

    /// Has the paths do what the search decided.
    fn perform(&mut self, now: Instant, step: Option<Step>) {
        let direct = self.paths.iter_mut().filter(|path| path.via.is_by_datagrams());
        match step {
            None => {}
            Some(Step::Prime) => direct.for_each(Path::prime),
            Some(Step::Probe(rungs)) => direct.for_each(|path| path.search(now, rungs)),
            Some(Step::PrimeAndProbe(rungs)) => direct.for_each(|path| {
                path.prime();
                path.search(now, rungs);
            }),
        }
    }

    fn emit(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }
}
