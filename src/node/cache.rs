//! What a node remembers between runs: who holds which address and name, and the peers it has met, so that it
//! finds them where they were when no rendezvous answers.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::Node;
use crate::router::bindings::Stored;
use crate::sans::{Action, Instant};

/// The cache's content, JSON.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cache {
    /// Who holds which overlay IPv4 address.
    pub(super) addresses: Vec<Stored<Ipv4Addr>>,
    /// Who holds which name.
    pub(super) names: Vec<Stored<String>>,
    /// Signed announcements of the peers.
    pub(super) peers: Vec<Vec<u8>>,
}

/// Reads a cache. One that does not parse is an empty one: the store has already set damaged files aside.
pub(super) fn read(bytes: Option<&[u8]>) -> Cache {
    let Some(bytes) = bytes else { return Cache::default() };
    serde_json::from_slice(bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, "the peer cache is of another version; starting with an empty one");
        Cache::default()
    })
}

impl Node {
    /// Asks the shell to store the cache, if something in it changed.
    pub(super) fn save_cache(&mut self, now: Instant) {
        let changed = std::mem::take(&mut self.cache_changed);
        // A live holder's "last seen" moves on by itself.
        if !changed && self.peers.values().all(|p| !p.is_live(now)) {
            return;
        }
        let (addresses, names) = self.naming.store(self.wall_ms(now));
        let peers = self.peers.values().map(|p| p.signed.bytes().to_vec()).collect();
        let bytes = serde_json::to_vec(&Cache { addresses, names, peers }).expect("plain data serialises");
        self.actions.push_back(Action::SaveCache(bytes));
    }
}
