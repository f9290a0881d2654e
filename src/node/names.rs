//! What everybody is called, for those who tell it outside ([`crate::names`]).
//!
//! In it are this machine, every peer that is known, here or gone, by the name and at the addresses that it has here, and
//! whoever is forgotten but keeps its name: for a week a name does not lead to somebody else, nor an address.

use std::collections::BTreeMap;

use super::Node;
use super::peer::Peer;
use crate::id::PeerId;
use crate::names::{Host, Zone};
use crate::router::Owned;
use crate::sans::Instant;

impl Node {
    /// The names, if they may be others than when this was asked last. Ask after every `handle_*`.
    #[must_use]
    pub fn poll_names(&mut self, now: Instant) -> Option<Zone> {
        std::mem::take(&mut self.names_changed).then(|| self.names(now))
    }

    fn names(&self, now: Instant) -> Zone {
        let me = host(self.naming.my_name.clone(), &self.naming.me());
        let known = |peer: &Peer| Some(host(peer.name.clone(), self.router.owned(&peer.id())?));
        let known = self.peers.values().filter_map(known);
        let hosts = std::iter::once(me).chain(known).chain(self.forgotten(now));
        Zone::new(&self.network_name, self.naming.overlay, hosts)
    }

    /// Those who are not among the peers any more, or not yet, and keep a name.
    fn forgotten(&self, now: Instant) -> Vec<Host> {
        let wall_ms = self.wall_ms(now);
        let (addresses, names) = self.naming.store(wall_ms);
        let addresses: BTreeMap<PeerId, _> = addresses.into_iter().map(|held| (held.claim.peer, held.key)).collect();
        let is_gone = |id: &PeerId| *id != self.my_id() && !self.peers.contains_key(id);
        let names = names.into_iter().map(|held| (held.key, held.claim.peer));
        let kept = names.filter(|(name, id)| is_gone(id) && self.naming.holder(wall_ms, name) == Some(*id));
        kept.map(|(name, id)| host(name, &self.naming.derived(&id, addresses.get(&id).copied()))).collect()
    }
}

fn host(name: String, owned: &Owned) -> Host {
    Host { name, v4: owned.v4, v6: owned.ula }
}
