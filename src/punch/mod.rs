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
//! What all searches of a node send to addresses that never answered is limited by one [`Budget`].

mod budget;
mod ladder;
mod path;
mod paths;
mod rank;
mod search;
mod slots;
mod via;
mod window;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use budget::{Budget, PER_TARGET, Standing, Verdict};
use budget::{Payer, Urgency};
use path::{Ask, Path};
use search::{Search, Step};
pub use via::{Choice, Event, Family, PathKind, PathReport, ProbeIn, ProbeOut, Via};
pub use window::PathStats;

use crate::id::SocketId;
use crate::sans::{Instant, RateLimit, Rng, Seed, Wakeup};
use crate::wire::announcement::{Candidate, MAX_CANDIDATES};
use crate::wire::probe::{self, ProbeKind};

/// Hop limit of a prime: past the home router, into the provider's network, not to the peer.
pub const PRIME_TTL: u8 = 2;
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
        }
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

    /// A connection with the peer stands, if it is the one who answers there.
    pub fn stream_up(&mut self, now: Instant, socket: SocketId, remote: SocketAddr) {
        let via = Via::Direct { socket, remote };
        if self.path(via).is_none() {
            self.add_peer_reflexive(now, via);
            self.path_mut(via).into_iter().for_each(|path| path.be_eager(now));
            self.refresh(now);
        }
    }

    /// A connection ended, whoever's it was.
    pub fn stream_down(&mut self, now: Instant, socket: SocketId) {
        let was_used = self.choice.is_some_and(|choice| choice.via.socket() == Some(socket));
        self.paths.retain(|path| path.via.socket() != Some(socket));
        if was_used && !self.has_direct() {
            self.lose_path(now);
        }
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

    /// The next probe to send; call until `None` after every call that changed something.
    #[must_use]
    pub fn poll_probe(&mut self, now: Instant, budget: &mut Budget) -> Option<ProbeOut> {
        for ip in self.answered.drain(..) {
            budget.answered(now, ip);
        }
        self.poll_echo(now, budget)
            .or_else(|| self.poll_request(now, budget, |ask| ask == Ask::Prime))
            .or_else(|| if self.is_priming() { None } else { self.poll_primed(now) })
            .or_else(|| self.poll_request(now, budget, |ask| ask != Ask::Prime))
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

    /// Whether a way begins at this socket.
    pub fn uses(&self, socket: SocketId) -> bool {
        self.paths.iter().any(|path| path.via.socket() == Some(socket))
    }

    /// Connections with the peer by which nothing goes, and by which nothing has come for so long.
    pub fn idle_streams(&self, now: Instant, idle: Duration) -> impl Iterator<Item = SocketId> {
        let used = self.choice.map(|choice| choice.via);
        let is_idle = move |path: &&Path| path.via.is_stream() && used != Some(path.via) && path.is_idle(now, idle);
        self.paths.iter().filter(is_idle).filter_map(|path| path.via.socket())
    }

    /// Whether so many packets may go to an address of the peer's that may never have heard of us; they are counted.
    pub fn may_send(&mut self, now: Instant, ip: IpAddr, packets: u32, budget: &mut Budget) -> bool {
        (0..packets).all(|_| budget.take(now, ip, Urgency::Search, &mut self.payer) == Verdict::Granted)
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

// ---- inside: what comes in ----

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
}

// ---- inside: what goes out ----

impl Punch {
    /// The next echo that is within the budget: who is named as a probe's sender need not be.
    fn poll_echo(&mut self, now: Instant, budget: &mut Budget) -> Option<ProbeOut> {
        while let Some(echo) = self.echoes.pop_front() {
            let stranger = echo.via.remote().filter(|_| echo.via.is_by_datagrams());
            let mut take = |ip| budget.take(now, ip, Urgency::Echo, &mut self.payer);
            if stranger.map_or(Verdict::Granted, |remote| take(remote.ip())) == Verdict::Granted {
                return Some(echo);
            }
        }
        None
    }

    /// The next due request that is `wanted` and within the budget.
    fn poll_request(&mut self, now: Instant, budget: &mut Budget, wanted: fn(Ask) -> bool) -> Option<ProbeOut> {
        for i in 0..self.paths.len() {
            let role = self.role(&self.paths[i]);
            while let Some(ask) = self.paths[i].due(now, role).filter(|ask| wanted(*ask)) {
                let path = &mut self.paths[i];
                match within(budget, now, path, &mut self.payer) {
                    Verdict::Granted => return Some(Self::ask(&mut self.rng, now, path, ask)),
                    Verdict::NodeFull => path.hold(now),
                    Verdict::TargetFull => path.forgo(now, ask),
                }
            }
        }
        None
    }

    fn ask(rng: &mut Rng, now: Instant, path: &mut Path, ask: Ask) -> ProbeOut {
        let nonce = rng.u64();
        let len = if ask == Ask::Full { probe::FULL_LEN } else { probe::MIN_LEN };
        let ttl = (ask == Ask::Prime).then_some(PRIME_TTL);
        path.on_asked(now, ask, nonce, len);
        ProbeOut { via: path.via, kind: ProbeKind::Request, nonce, len, ttl, observed: None }
    }

    /// Whether primes wait for room in the budget: then it is not true that all are sent.
    fn is_priming(&self) -> bool {
        self.paths.iter().any(Path::is_priming)
    }

    fn poll_primed(&mut self, now: Instant) -> Option<ProbeOut> {
        let via = self.best_relay(now)?;
        let kind = ProbeKind::Primed;
        self.search.take_primed(now).then(|| ProbeOut {
            via,
            kind,
            nonce: self.rng.u64(),
            len: probe::MIN_LEN,
            ttl: None,
            observed: None,
        })
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

/// Whether a request on `path` may leave; relays, connections and proven paths are free.
fn within(budget: &mut Budget, now: Instant, path: &Path, payer: &mut Payer) -> Verdict {
    let urgency = if path.was_heard(now) { Urgency::Answer } else { Urgency::Search };
    let stranger = path.via.remote().filter(|_| path.via.is_by_datagrams());
    stranger.map_or(Verdict::Granted, |remote| budget.take(now, remote.ip(), urgency, payer))
}
