//! Which multicast groups are wanted, here and at each peer.
//!
//! A peer is told when a session stands and whenever that changes, at most once a second: the last word counts. Such a
//! message may be lost, and nobody answers it; so it is said again twice. Whoever has said nothing gets everything.

use std::sync::Arc;
use std::time::Duration;

use super::{LanConfig, Node};
use crate::forward::{Joins, Sharing};
use crate::id::PeerId;
use crate::sans::Instant;
use crate::wire::groups::Groups;
use crate::wire::session::{Control, feature};

/// Nobody is told more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// Pauses until it is said again.
const AGAIN: [Duration; 2] = [PAUSE, Duration::from_secs(4)];

/// What is said between a peer and us.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// What it wants.
    pub(super) wants: Groups,
    /// When it was told last, and how often of the newest.
    last: Option<Instant>,
    round: usize,
    /// When to tell it.
    pub(super) due: Option<Instant>,
}

impl Talk {
    fn news(&mut self, now: Instant) {
        self.round = 0;
        self.due = Some(self.last.map_or(now, |last| now.max(last + PAUSE)));
    }

    fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.last = Some(now);
            self.due = AGAIN.get(self.round).map(|pause| now + *pause);
            self.round += 1;
        }
        is_due
    }
}

impl Node {
    /// What the programs of this machine have joined, all of it each time. Until this is called nothing is known of that.
    /// Drain afterwards.
    pub fn set_groups(&mut self, now: Instant, joins: Joins) {
        if *self.table.sharing().joins != joins {
            let sharing = Sharing { joins: Arc::new(joins), ..self.table.sharing().clone() };
            self.set_sharing(now, sharing);
        }
    }

    pub(super) fn set_lan(&mut self, now: Instant, lan: LanConfig) {
        if self.table.sharing().lan != lan {
            let sharing = Sharing { lan, ..self.table.sharing().clone() };
            self.set_sharing(now, sharing);
        }
    }

    fn set_sharing(&mut self, now: Instant, sharing: Sharing) {
        let is_news = wanted(self.table.sharing()) != wanted(&sharing);
        Arc::make_mut(&mut self.table).set_sharing(sharing);
        self.table_told = false;
        if is_news {
            let all: Vec<PeerId> = self.peers.keys().copied().collect();
            all.iter().for_each(|id| self.groups_are_news(now, id));
        }
    }

    /// A peer does not know yet which groups are wanted here.
    pub(super) fn groups_are_news(&mut self, now: Instant, id: &PeerId) {
        let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.session.is_established(now)) else { return };
        if peer.session.peer_features().is_some_and(|bits| bits & feature::GROUPS != 0) {
            peer.groups.news(now);
            self.tell_groups(now, id);
        } else {
            // It may have said something when it was of another version.
            peer.groups = Talk::default();
        }
    }

    /// Tells it, if it is time.
    pub(super) fn tell_groups(&mut self, now: Instant, id: &PeerId) {
        if self.peers.get_mut(id).is_some_and(|peer| peer.groups.take_due(now)) {
            let groups = wanted(self.table.sharing()).encode();
            self.send_control(now, id, &Control::Groups(&groups));
        }
    }

    /// A peer says which groups it wants.
    pub(super) fn told_groups(&mut self, id: &PeerId, groups: &[u8]) {
        match (self.peers.get_mut(id), Groups::decode(groups)) {
            (Some(peer), Ok(groups)) => peer.groups.wants = groups,
            _ => self.drops.count("malformed"),
        }
    }
}

/// What peers are told.
fn wanted(sharing: &Sharing) -> Groups {
    if sharing.lan.multicast { sharing.joins.groups() } else { Groups::these([]) }
}
