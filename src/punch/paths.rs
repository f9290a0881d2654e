//! Which paths there are, and which of them data uses.

use std::net::SocketAddr;
use std::time::Duration;

use super::path::{Path, Role};
use super::{Choice, Event, Family, PathKind, Punch, Via, rank};
use crate::id::SocketId;
use crate::sans::Instant;
use crate::wire::announcement::Candidate;

/// Peer-reflexive addresses remembered per peer.
pub(super) const MAX_PEER_REFLEXIVE: usize = 16;
/// A direct path in use for so long is not left for one that is hardly known.
const SETTLED: Duration = Duration::from_secs(10);
/// When something direct works, searches on other paths end after this offset.
const ENOUGH: Duration = Duration::from_millis(400);

impl Punch {
    /// Makes the paths match sockets and candidates.
    pub(super) fn renew_paths(&mut self, now: Instant) {
        let mut old = std::mem::take(&mut self.paths);
        old.iter_mut().filter(|path| path.via.is_direct()).for_each(|path| path.announced = false);
        let mut new = false;
        for (candidate, via) in pairs(&self.candidates, &self.sockets) {
            if self.paths.iter().any(|path| path.via == via) {
                continue;
            }
            let kind = candidate.kind.into();
            let mut path = match old.iter().position(|path| path.via == via) {
                Some(i) => old.remove(i),
                None => {
                    new = true;
                    Path::new(via, kind, true)
                }
            };
            (path.kind, path.announced) = (kind, true);
            self.paths.push(path);
        }
        // What of a peer's streams is proven or may be has nothing to do with where it listens by UDP.
        self.paths.extend(old.into_iter().filter(|path| !path.via.is_by_datagrams() || path.is_proven()));
        if new {
            let step = self.search.on_candidate(now, self.has_relay());
            self.perform(now, step);
        }
        self.refresh(now);
    }

    /// A path to where the peer's probe came from, if there is room: the oldest unproven one makes it.
    pub(super) fn add_peer_reflexive(&mut self, now: Instant, via: Via) {
        let Some(addr) = via.remote() else { return };
        let strangers = |path: &&Path| path.via.is_direct() && !path.announced;
        if self.paths.iter().filter(strangers).count() >= MAX_PEER_REFLEXIVE {
            self.crowded += 1;
            let oldest = self.paths.iter().position(|path| strangers(&path) && !path.is_proven());
            let Some(oldest) = oldest else { return };
            self.paths.remove(oldest);
        }
        // On another socket than those for which it was announced it is no less what it was announced as.
        let announced = self.candidates.iter().find(|candidate| candidate.addr == addr);
        let kind = announced.map_or(PathKind::PeerReflexive, |candidate| candidate.kind.into());
        self.paths.push(Path::new(via, kind, false));
        self.now = self.now.max(now);
        self.emit(Event::PeerReflexive { addr });
    }

    /// Chooses anew, and tidies up.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let used = self.choice.map(|choice| choice.via);
        let (best, rival) = self.best_path(now).unzip();
        let also = best.filter(|path| path.is_unsure(now)).and_then(|_| self.best_relay(now));
        let choice = best.map(|path| Choice { via: path.via, kind: path.kind, local: path.local, also });
        (self.choice, self.rival) = (choice, rival.flatten());
        if let Some(Choice { via, kind, .. }) = self.choice
            && used != Some(via)
        {
            self.chosen_at = now;
            self.emit(Event::Chosen { via, kind });
            self.path_mut(via).into_iter().for_each(|path| path.on_chosen(now));
        }
        if self.has_direct() {
            self.paths.iter_mut().filter(|path| path.via.is_by_datagrams()).for_each(|path| path.relax(ENOUGH));
        }
        self.paths.retain(|path| path.announced || !path.is_spent(now));
    }

    /// The path that data should use now, and its rival: a good path that is in use for a while is not left on
    /// hearsay, what seems better is measured as often first.
    fn best_path(&self, now: Instant) -> Option<(&Path, Option<Via>)> {
        let used = self.choice.map(|choice| choice.via);
        let best = rank::best(self.paths.iter().filter(|path| path.is_usable()), now, used)?;
        let incumbent = used.and_then(|via| self.path(via));
        let incumbent = incumbent.filter(|path| path.via.is_direct() && path.is_usable() && !path.is_doubtful(now));
        let settled = now - self.chosen_at >= SETTLED;
        let hearsay = |path: &&Path| settled && path.via != best.via && !rank::is_known(best, now);
        Some(incumbent.filter(hearsay).map_or((best, None), |path| (path, Some(best.via))))
    }

    /// The path in use is in doubt: asks all others that it might give way to, unless they answered since.
    pub(super) fn doubt_all(&mut self, now: Instant) {
        let used = self.choice.and_then(|choice| self.path(choice.via));
        let Some((since, is_relay)) = used.and_then(|p| Some((p.doubtful_since(now)?, !p.via.is_direct()))) else {
            return;
        };
        // Another relay of which nothing was wanted for a while may have gone before the one in use.
        let others = self.paths.iter_mut().filter(|path| path.via.is_direct() || is_relay);
        others.for_each(|path| path.doubt(now, since));
    }

    pub(super) fn role(&self, path: &Path) -> Role {
        match self.choice {
            Some(choice) if choice.via == path.via => Role::Used,
            Some(choice) if choice.via.is_direct() && !path.via.is_direct() => Role::Standby,
            _ if self.rival == Some(path.via) => Role::Rival,
            _ => Role::Other,
        }
    }

    pub(super) fn best_relay(&self, now: Instant) -> Option<Via> {
        rank::best(self.relays(), now, self.choice.map(|choice| choice.via)).map(|path| path.via)
    }

    pub(super) fn relays(&self) -> impl Iterator<Item = &Path> + Clone {
        self.paths.iter().filter(|path| !path.via.is_direct())
    }

    pub(super) fn has_relay(&self) -> bool {
        self.relays().next().is_some()
    }

    /// Whether datagrams go straight to the peer: nothing better is to be had.
    pub(super) fn has_direct(&self) -> bool {
        self.paths.iter().any(|path| path.via.is_by_datagrams() && path.is_usable())
    }

    pub(super) fn path(&self, via: Via) -> Option<&Path> {
        self.paths.iter().find(|path| path.via == via)
    }

    pub(super) fn path_mut(&mut self, via: Via) -> Option<&mut Path> {
        self.paths.iter_mut().find(|path| path.via == via)
    }
}

/// Every candidate from every socket of its family.
fn pairs<'a>(
    candidates: &'a [Candidate],
    sockets: &'a [(SocketId, Family)],
) -> impl Iterator<Item = (Candidate, Via)> + 'a {
    let reaches = |addr: SocketAddr, family| Family::of(addr.ip()) == family;
    candidates.iter().flat_map(move |candidate| {
        let fitting = sockets.iter().filter(move |(_, family)| reaches(candidate.addr, *family));
        fitting.map(|(socket, _)| (*candidate, Via::Direct { socket: *socket, remote: candidate.addr }))
    })
}
