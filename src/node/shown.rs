//! Under which name each member is shown, and what is said when what they claim does not go with ours.
//!
//! No two are shown under one name, here or gone: whoever comes second gets a number (`bob-2`), and loses it when the
//! name is free again.

use super::Node;
use super::naming::numbered;
use super::peer::Peer;
use crate::id::PeerId;
use crate::sans::Instant;
use crate::wire::announcement::V4Claim;

impl Node {
    /// How a member, or this machine, is called before people.
    pub(super) fn shown_name(&self, id: &PeerId) -> String {
        if *id == self.my_id() {
            return self.naming.my_name.clone();
        }
        self.peers.get(id).map_or_else(|| format!("{id:?}"), |p| p.name.clone())
    }

    /// A peer goes by this name here from now on, and nobody else does. Returns the name that it went by.
    pub(super) fn show_as(&mut self, id: &PeerId, name: String) -> Option<String> {
        let peer = self.peers.get_mut(id).filter(|peer| peer.name != name)?;
        tracing::info!(peer = %peer.name, "shown as {name} from now on");
        let freed = std::mem::replace(&mut peer.name, name.clone());
        self.names_changed = true;
        let namesakes: Vec<PeerId> =
            self.peers.values().filter(|peer| peer.name == name && peer.id() != *id).map(Peer::id).collect();
        for id in namesakes {
            self.show_as_free(&id);
        }
        Some(freed)
    }

    fn show_as_free(&mut self, id: &PeerId) {
        let Some(own) = self.peers.get(id).map(|peer| peer.signed.name.clone()) else { return };
        let name = self.free_name(id, &own);
        if let Some(peer) = self.peers.get_mut(id) {
            peer.name = name;
            self.names_changed = true;
        }
    }

    /// The name under which a peer without a session is shown: its own, or a numbered one if that is taken.
    pub(super) fn free_name(&self, id: &PeerId, name: &str) -> String {
        let taken = |wanted: &String| {
            !self.naming.is_free_name(wanted, id)
                || self.peers.values().any(|peer| peer.id() != *id && peer.name == *wanted)
        };
        (1..=u32::MAX).map(|n| numbered(name, n)).find(|wanted| !taken(wanted)).unwrap_or_default()
    }

    /// Nobody goes by `freed` any more: whoever is called so and went by a number has it now.
    pub(super) fn pass_on(&mut self, now: Instant, freed: &str) {
        let name = freed.to_owned();
        if self.peers.values().any(|peer| peer.name == name) {
            return;
        }
        let may = |peer: &&Peer| peer.signed.name == name && self.naming.is_free_name(&name, &peer.id());
        let Some(heir) = self.peers.values().find(may) else { return };
        let id = heir.id();
        if heir.session.is_established(now) {
            self.bind(now, &id);
        } else if let Some(freed) = self.show_as(&id, name) {
            self.pass_on(now, &freed);
        }
    }

    /// This machine was called `before` and is not now: who goes by its new name gets a number, and who went by a
    /// number for its sake loses that.
    pub(super) fn renamed(&mut self, now: Instant, before: &str) {
        let is_established = |peer: &&Peer| peer.session.is_established(now);
        let here: Vec<PeerId> = self.peers.values().filter(is_established).map(Peer::id).collect();
        let same = self.peers.values().filter(|peer| peer.name == self.naming.my_name);
        for id in same.map(Peer::id).collect::<Vec<_>>() {
            match here.contains(&id) {
                true => self.bind(now, &id),
                false => self.show_as_free(&id),
            }
        }
        self.pass_on(now, before);
        here.iter().for_each(|id| self.warn_of_namesake(now, id));
    }

    /// Two that call themselves alike are told apart by a number, which each gives to the other.
    pub(super) fn warn_of_namesake(&mut self, now: Instant, id: &PeerId) {
        let Some(peer) = self.peers.get(id).filter(|peer| peer.signed.name == self.naming.my_name) else {
            return self.warnings.clear("name-taken", &id.to_string());
        };
        let text = format!(
            "another member is called {} too and is shown here as {}: set another `name` under [peer] in net.toml on \
             one of the two",
            peer.signed.name, peer.name
        );
        let wall_ms = self.wall_ms(now);
        self.warnings.raise(wall_ms, "name-taken", id.to_string(), text);
    }

    /// All members need the same subnet: what one claims outside of ours is reached by nobody here.
    pub(super) fn warn_of_subnet(&mut self, now: Instant, id: &PeerId, claim: V4Claim) {
        let Some(addr) = claim.addr().filter(|addr| !self.naming.overlay.is_host_v4(*addr)) else {
            return self.warnings.clear("other-subnet", &id.to_string());
        };
        let text = format!(
            "{}'s address {addr} is outside of our subnet {}, so it is reached by its IPv6 address only: all members \
             need the same `subnet` under [network] in net.toml",
            self.shown_name(id),
            self.naming.overlay.v4
        );
        let wall_ms = self.wall_ms(now);
        self.warnings.raise(wall_ms, "other-subnet", id.to_string(), text);
    }

    /// Who is gone confuses nobody.
    pub(super) fn clear_confusions(&mut self, id: &PeerId) {
        for code in ["name-taken", "other-subnet"] {
            self.warnings.clear(code, &id.to_string());
        }
    }
}
