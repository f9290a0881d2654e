//! The list of members that one server gave, and whether it is complete.
//!
//! Every answer to a refresh carries a [`Summary`] of what the list should be. After a registration that found the
//! server empty, and after asking for the whole list, entries are *stale* until news confirm them; what is still
//! stale when the server has said everything is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::MAX_MEMBERS;
use crate::crypto::registration::listing_digest;
use crate::id::PeerId;
use crate::sans::Instant;
use crate::wire::Writer;
use crate::wire::rendezvous::items::{Listing, Summary};

/// How long a gone member's last id is remembered, so that late news do not bring it back.
const REMEMBERED: Duration = Duration::from_secs(10);
/// The whole list is asked for at most this often.
const LIST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Members {
    entries: BTreeMap<PeerId, Entry>,
    sync: Sync,
    asked: Option<Instant>,
    /// Listings beyond [`MAX_MEMBERS`].
    pub(super) refused: u64,
}

#[derive(Debug)]
struct Entry {
    /// Of the newest news.
    id: u32,
    digest: u64,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Listed,
    Stale,
    Gone(Instant),
}

/// Whether the list is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sync {
    /// It is, or a summary will show that it is not.
    #[default]
    Settled,
    /// The next refresh will tell; `list`: it asks for everything.
    Wanted { list: bool },
    /// The answer to this refresh or a later one decides.
    Asked { token: u64, list: bool },
}

/// What became of news about a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Known already, or older than what is known.
    Nothing,
    /// Listed anew, or with other contents.
    Listed,
    /// Not listed any more.
    Gone,
}

impl Members {
    pub(super) fn lists(&self, peer: &PeerId) -> bool {
        self.entries.get(peer).is_some_and(|entry| !matches!(entry.standing, Standing::Gone(_)))
    }

    /// Whether news with this id about `peer` are newer than what is known.
    pub(super) fn is_newer(&self, peer: &PeerId, id: u32) -> bool {
        self.entries.get(peer).is_none_or(|entry| id > entry.id)
    }

    /// Takes news that are newer.
    pub(super) fn apply(&mut self, now: Instant, peer: PeerId, id: u32, listing: Option<&Listing<'_>>) -> Change {
        match listing {
            Some(Listing::Member { observed, sealed }) => self.list(peer, id, digest(&peer, *observed, sealed)),
            Some(Listing::Gone) => self.gone(now, &peer, id),
            None => {
                self.entries.entry(peer).and_modify(|entry| entry.id = id);
                Change::Nothing
            }
        }
    }

    fn list(&mut self, peer: PeerId, id: u32, digest: u64) -> Change {
        if self.entries.len() >= MAX_MEMBERS && !self.entries.contains_key(&peer) {
            self.refused += 1;
            return Change::Nothing;
        }
        let old = self.entries.insert(peer, Entry { id, digest, standing: Standing::Listed });
        match old {
            Some(old) if old.digest == digest && !matches!(old.standing, Standing::Gone(_)) => Change::Nothing,
            _ => Change::Listed,
        }
    }

    fn gone(&mut self, now: Instant, peer: &PeerId, id: u32) -> Change {
        let Some(entry) = self.entries.get_mut(peer) else { return Change::Nothing };
        entry.id = id;
        match std::mem::replace(&mut entry.standing, Standing::Gone(now)) {
            Standing::Gone(_) => Change::Nothing,
            _ => Change::Gone,
        }
    }

    /// Asks for the whole list, in which `peer` is news; `false` if it is not listed.
    pub(super) fn doubt(&mut self, peer: &PeerId) -> bool {
        let Some(entry) = self.entries.get_mut(peer) else { return false };
        entry.digest = !entry.digest;
        self.sync = Sync::Wanted { list: true };
        true
    }

    /// The server starts from nothing, with ids too.
    pub(super) fn start_over(&mut self) {
        self.entries.retain(|_, entry| !matches!(entry.standing, Standing::Gone(_)));
        for entry in self.entries.values_mut() {
            (entry.id, entry.standing) = (0, Standing::Stale);
        }
        self.sync = Sync::Wanted { list: false };
    }

    /// A refresh with this token goes out; whether it asks for the whole list.
    pub(super) fn refresh_sent(&mut self, now: Instant, token: u64) -> bool {
        match self.sync {
            Sync::Settled => false,
            Sync::Asked { list, .. } => list,
            Sync::Wanted { list } => {
                self.sync = Sync::Asked { token, list };
                if list {
                    self.asked = Some(now);
                    self.mark_stale();
                }
                list
            }
        }
    }

    fn mark_stale(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| entry.standing == Standing::Listed) {
            entry.standing = Standing::Stale;
        }
    }

    /// The answer to the refresh with `token`: the peers that are gone without a word. Afterwards
    /// [`Members::wants_refresh`] may hold.
    pub(super) fn summary(&mut self, now: Instant, token: u64, summary: &Summary) -> Vec<PeerId> {
        self.forget_gone(now);
        match self.sync {
            Sync::Asked { token: asked, .. } if token >= asked => {
                self.sync = if summary.pending { Sync::Wanted { list: false } } else { Sync::Settled };
            }
            _ => {}
        }
        if self.sync != Sync::Settled || summary.pending {
            return Vec::new();
        }
        let lost: Vec<PeerId> =
            self.entries.iter().filter(|(_, e)| e.standing == Standing::Stale).map(|(peer, _)| *peer).collect();
        for peer in &lost {
            self.entries.remove(peer);
        }
        if !self.agrees(summary) && self.asked.is_none_or(|asked| now - asked >= LIST_PAUSE) {
            self.sync = Sync::Wanted { list: true };
        }
        lost
    }

    /// Whether the list is not known to be complete, so that a refresh should not wait for its turn.
    pub(super) fn wants_refresh(&self) -> Option<Sync> {
        Some(self.sync).filter(|sync| matches!(sync, Sync::Wanted { .. }))
    }

    fn agrees(&self, summary: &Summary) -> bool {
        let listed = self.entries.values().filter(|entry| entry.standing == Standing::Listed);
        let (count, digest) = listed.fold((0_u32, 0), |(count, digest), entry| (count + 1, digest ^ entry.digest));
        (count, digest) == (summary.count, summary.digest)
    }

    fn forget_gone(&mut self, now: Instant) {
        self.entries.retain(|_, entry| !matches!(entry.standing, Standing::Gone(at) if now - at > REMEMBERED));
    }
}

/// As the server computes it.
fn digest(peer: &PeerId, observed: Option<SocketAddr>, sealed: &[u8]) -> u64 {
    listing_digest(peer, Writer::default().socket_addr(observed).as_slice(), sealed)
}
