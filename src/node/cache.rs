//! What a node remembers between runs: who holds which address and name, and the peers it has met, so that it
//! finds them where they were when no rendezvous answers.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::Node;
use super::peer::Peer;
use crate::router::bindings::{Stored, seen_now};
use crate::sans::{Action, Instant};

/// The cache's content, JSON.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cache {
    /// Who holds which overlay IPv4 address.
    pub(super) addresses: Vec<Stored<Ipv4Addr>>,
    /// Who holds which name.
    pub(super) names: Vec<Stored<String>>,
    /// The peers that we had a session with.
    pub(super) peers: Vec<Known>,
}

/// A peer of an earlier run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    /// When it was last seen, milliseconds of wall time.
    pub(super) seen_ms: u64,
    /// The highest number of its announcements, probes and initiations that was taken: what is no higher is old.
    #[serde(default)]
    pub(super) newest: u64,
    /// The way to it was found by a search over ports.
    #[serde(default)]
    pub(super) found_by_search: bool,
    /// Its signed announcement.
    #[serde(with = "hex")]
    pub(super) announcement: Vec<u8>,
}

/// Bytes as hexadecimal text.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        s.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        let pair = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).ok().filter(|_| pair.len() == 2);
            text.and_then(|text| u8::from_str_radix(text, 16).ok())
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        bytes.ok_or_else(|| serde::de::Error::custom("not hexadecimal"))
    }
}

/// Reads a cache; an empty one if there is none. `Err`: it is there, but not one of this version.
pub(super) fn read(bytes: Option<&[u8]>) -> Result<Cache, serde_json::Error> {
    bytes.map_or_else(|| Ok(Cache::default()), serde_json::from_slice)
}

impl Node {
    /// Asks the shell to store the cache, if something in it changed.
    pub(super) fn save_cache(&mut self, now: Instant) {
        if !std::mem::take(&mut self.cache_changed) {
            return;
        }
        let wall_ms = self.wall_ms(now);
        let (addresses, names) = self.naming.store(wall_ms);
        let known = |peer: &Peer| Known {
            seen_ms: if peer.is_live(now) { seen_now(peer.seen_ms, wall_ms) } else { peer.seen_ms },
            newest: peer.newest(),
            found_by_search: peer.searched_ports.worked,
            announcement: peer.signed.bytes().to_vec(),
        };
        let peers = self.peers.values().filter(|peer| peer.met).map(known).collect();
        let bytes = serde_json::to_vec(&Cache { addresses, names, peers }).expect("plain data serialises");
        self.actions.push_back(Action::SaveCache(bytes));
    }
}
