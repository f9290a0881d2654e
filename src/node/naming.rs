//! Who has which overlay address and name, ours included.
//!
//! Our own claims stand in the same [`Bindings`] as everybody's. A claimant that loses is told with the
//! holder's signed announcement; if that is us, an `auto` address moves to the next derived value until
//! [`SETTLE`] after the others could first hear us, a configured one is given up with a warning. What is ours for
//! longer is not given up on one member's word. A second `bob` is shown as `bob-2`.

mod binding;
mod mine;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::cache::Cache;
use super::{AddressChoice, NodeConfig};
use crate::addr::OverlayNet;
use crate::crypto::Identity;
use crate::id::PeerId;
use crate::router::Owned;
use crate::router::bindings::{Bindings, Claim, SETTLE, Stored, Strength};
use crate::sans::Instant;
use crate::wire::announcement::{MAX_NAME, V4Claim};

/// How often an `auto` address moves in one run.
const MAX_MOVES: u8 = 8;
/// Derived addresses that are tried before a machine goes without one.
const MAX_ATTEMPTS: u32 = 1_000;

/// Claims and holders of addresses and names.
#[derive(Debug)]
pub(super) struct Naming {
    pub(super) overlay: OverlayNet,
    pub(super) my_name: String,
    identity: Arc<Identity>,
    choice: AddressChoice,
    /// Our IPv4 address, while nobody else holds it.
    v4: Option<Ipv4Addr>,
    /// While this is none or lies ahead, an `auto` address may move.
    settled: Option<Instant>,
    /// How often it may still move: a member must not drive us on for ever.
    moves_left: u8,
    addresses: Bindings<Ipv4Addr>,
    names: Bindings<String>,
}

impl Naming {
    pub(super) fn new(config: &NodeConfig, now: Instant, cache: &Cache) -> Self {
        let mut naming = Self {
            overlay: config.overlay,
            my_name: config.name.clone(),
            identity: config.identity.clone(),
            choice: config.address,
            v4: None,
            settled: None,
            moves_left: MAX_MOVES,
            addresses: Bindings::restore(cache.addresses.iter().cloned()),
            names: Bindings::restore(cache.names.iter().cloned()),
        };
        for denied in &config.deny {
            naming.addresses.release_all_but(denied, None);
            naming.names.release_all_but(denied, None);
        }
        naming.v4 = match config.address {
            AddressChoice::Configured(addr) => Some(addr),
            AddressChoice::Auto => naming.free_auto(config.wall_ms, &BTreeSet::new()),
        };
        // What was ours in an earlier run and is not now is free for others.
        naming.addresses.release_all_but(&naming.id(), naming.v4.as_ref());
        naming.names.release_all_but(&naming.id(), Some(&naming.my_name));
        naming.claim_mine(now, config.wall_ms);
        naming
    }

    /// The others can hear us now: the first seconds in which an `auto` address may move begin.
    pub(super) fn online(&mut self, now: Instant) {
        self.settled.get_or_insert(now + SETTLE);
    }

    /// Whether an `auto` address may still move.
    fn may_move(&self, now: Instant) -> bool {
        self.moves_left > 0 && self.settled.is_none_or(|end| now < end)
    }

    /// Whether `addr` has been ours for so long that the others know: for as long as claims are settled in, or, if it
    /// was chosen, in an earlier run. A derived one of an earlier run may move, or two that never met would keep one
    /// and the same for ever.
    fn is_long_mine(&self, now: Instant, wall_ms: u64, addr: &Ipv4Addr) -> bool {
        let mine = self.addresses.holder(addr, wall_ms) == Some(self.id());
        let chosen = matches!(self.choice, AddressChoice::Configured(_));
        mine && (!self.may_move(now) || chosen && self.addresses.is_of_an_earlier_run(addr))
    }

    /// Who holds a name or an IPv4 address, here or gone.
    pub(super) fn holder(&self, wall_ms: u64, wanted: &str) -> Option<PeerId> {
        match wanted.parse() {
            Ok(addr) => self.addresses.holder(&addr, wall_ms),
            Err(_) => self.names.holder(&wanted.to_owned(), wall_ms),
        }
    }

    /// Our addresses.
    pub(super) fn me(&self) -> Owned {
        self.derived(&self.id(), self.v4)
    }

    /// What our announcement claims.
    pub(super) fn my_claim(&self) -> V4Claim {
        match (self.v4, self.choice) {
            (None, _) => V4Claim::None,
            (Some(addr), AddressChoice::Auto) => V4Claim::Auto(addr),
            (Some(addr), AddressChoice::Configured(_)) => V4Claim::Configured(addr),
        }
    }

    /// Addresses and names of those who are gone that made room for others.
    pub(super) const fn evicted(&self) -> u64 {
        self.addresses.evicted() + self.names.evicted()
    }

    pub(super) fn store(&self, wall_ms: u64) -> (Vec<Stored<Ipv4Addr>>, Vec<Stored<String>>) {
        (self.addresses.store(wall_ms), self.names.store(wall_ms))
    }

    fn id(&self) -> PeerId {
        self.identity.device.id()
    }

    /// A machine's addresses: the IPv6 ones follow from its id.
    pub(super) fn derived(&self, id: &PeerId, v4: Option<Ipv4Addr>) -> Owned {
        let network = &self.identity.network;
        Owned { v4, ula: network.ula(id), link_local: network.link_local(id) }
    }

    /// The first derived address that nobody holds and that is not in `taken`.
    fn free_auto(&self, wall_ms: u64, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let me = self.id();
        (0..MAX_ATTEMPTS)
            .map(|k| self.identity.network.auto_v4(self.overlay.v4, &me, k))
            .find(|a| !taken.contains(a) && self.addresses.holder(a, wall_ms).is_none_or(|holder| holder == me))
    }

    fn claim_mine(&mut self, now: Instant, wall_ms: u64) {
        let strength = match self.choice {
            AddressChoice::Auto => Strength::Auto,
            AddressChoice::Configured(_) => Strength::Configured,
        };
        let me = Claim { strength, peer: self.id() };
        if let Some(v4) = self.v4 {
            // A configured address that a holder of an earlier run keeps is claimed all the same: that holder
            // may be gone for good, and if it is not, it will tell us.
            let _ = self.addresses.claim(now, wall_ms, v4, me);
        }
        let _ = self.names.claim(now, wall_ms, self.my_name.clone(), me);
    }

    /// This machine is called otherwise from now on; whether that is news.
    pub(super) fn rename_me(&mut self, now: Instant, wall_ms: u64, name: String) -> bool {
        let news = self.my_name != name;
        if news {
            self.my_name = name;
            self.names.release_all_but(&self.id(), Some(&self.my_name));
            self.claim_mine(now, wall_ms);
        }
        news
    }

    /// Whether `addr` may be routed to a peer that has claimed it but has no session yet.
    fn is_free_for(&self, wall_ms: u64, addr: &Ipv4Addr, id: &PeerId) -> bool {
        self.overlay.is_host_v4(*addr)
            && Some(*addr) != self.v4
            && self.addresses.holder(addr, wall_ms).is_none_or(|holder| holder == *id)
    }

    /// Whether a peer may be shown as `name`, as far as bindings say.
    pub(super) fn is_free_name(&self, name: &String, id: &PeerId) -> bool {
        *name != self.my_name && !self.names.is_held_by_another(name, id)
    }

    /// The name under which a live peer is shown: its own, or the first of `name-2`, `name-3`, … that is free.
    fn bind_name(&mut self, now: Instant, wall_ms: u64, id: &PeerId, name: &str) -> (String, Option<PeerId>) {
        let me = Claim { strength: Strength::Auto, peer: *id };
        for n in 1..=u32::MAX {
            let wanted = numbered(name, n);
            if wanted == self.my_name {
                // On this machine it is this machine's, whoever else goes by it.
                continue;
            }
            if let Ok(loser) = self.names.claim(now, wall_ms, wanted.clone(), me) {
                self.names.release_all_but(id, Some(&wanted));
                return (wanted, loser);
            }
        }
        (name.to_owned(), None)
    }
}

/// `bob`, `bob-2`, `bob-3` … never longer than a name may be.
pub(super) fn numbered(name: &str, n: u32) -> String {
    if n == 1 {
        return name.to_owned();
    }
    let suffix = format!("-{n}");
    let keep = name.len().min(MAX_NAME - suffix.len());
    format!("{}{suffix}", &name[..keep])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_bob_is_bob_2_however_long_the_name() {
        assert_eq!(numbered("bob", 1), "bob");
        assert_eq!(numbered("bob", 2), "bob-2");
        let long = "b".repeat(32);
        assert_eq!(numbered(&long, 12), format!("{}-12", "b".repeat(29)));
    }
}
