//! Who has which overlay address and name, ours included.
//!
//! Our own claims stand in the same [`Bindings`] as everybody's. A claimant that loses is told with the
//! holder's signed announcement; if that is us, an `auto` address moves to the next derived value until
//! [`SETTLE`] after the others could first hear us, a configured one is given up with a warning. What is ours for
//! longer is not given up on one member's word. A second `bob` is shown as `bob-2`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::cache::Cache;
use super::peer::Peer;
use super::{AddressChoice, Node, NodeConfig};
use crate::addr::OverlayNet;
use crate::crypto::Identity;
use crate::crypto::announcement;
use crate::id::PeerId;
use crate::router::Owned;
use crate::router::bindings::{Bindings, Claim, SETTLE, Stored, Strength};
use crate::sans::{Action, Instant};
use crate::wire::announcement::{MAX_NAME, V4Claim};
use crate::wire::session::{Control, Taken};

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
    fn derived(&self, id: &PeerId, v4: Option<Ipv4Addr>) -> Owned {
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
fn numbered(name: &str, n: u32) -> String {
    if n == 1 {
        return name.to_owned();
    }
    let suffix = format!("-{n}");
    let keep = name.len().min(MAX_NAME - suffix.len());
    format!("{}{suffix}", &name[..keep])
}

impl Node {
    /// A peer has a session: its address and name are bound, or it is told who holds them.
    pub(super) fn bind(&mut self, now: Instant, id: &PeerId) {
        let Some(peer) = self.peers.get(id) else { return };
        let (name, claim) = (peer.signed.name.clone(), peer.signed.v4);
        let wall_ms = self.wall_ms(now);
        let (shown, loser) = self.naming.bind_name(now, wall_ms, id, &name);
        let freed = self.show_as(id, shown);
        self.warn_of_namesake(now, id);
        self.warn_of_subnet(now, id, claim);
        let v4 = self.bind_v4(now, id, claim);
        self.route_to(id, v4);
        self.cache_changed = true;
        // Only now that this one waits for nothing itself: two that wait would bind each other for ever.
        self.rebind_freed(now, id);
        if let Some(loser) = loser.filter(|loser| *loser != self.my_id()) {
            self.bind(now, &loser);
        }
        if let Some(freed) = freed {
            self.pass_on(now, &freed);
        }
    }

    /// Its addresses lead to a peer from now on. All who go by the table get another one for it: not for nothing.
    fn route_to(&mut self, id: &PeerId, v4: Option<Ipv4Addr>) {
        let owned = self.naming.derived(id, v4);
        if !self.router.says(id, &owned) {
            Arc::make_mut(&mut self.router).insert(*id, owned);
        }
    }

    fn bind_v4(&mut self, now: Instant, id: &PeerId, claim: V4Claim) -> Option<Ipv4Addr> {
        let (addr, strength) = match claim {
            V4Claim::None => (None, Strength::Auto),
            V4Claim::Auto(a) => (Some(a), Strength::Auto),
            V4Claim::Configured(a) => (Some(a), Strength::Configured),
        };
        self.naming.addresses.release_all_but(id, addr.as_ref());
        let subject = id.to_string();
        let addr = addr.filter(|a| self.naming.overlay.is_host_v4(*a));
        let wall_ms = self.wall_ms(now);
        let claim = |addr| self.naming.addresses.claim(now, wall_ms, addr, Claim { strength, peer: *id });
        let claimed = addr.map(claim);
        if !matches!(claimed, Some(Err(_))) {
            self.warnings.clear("address-taken", &subject);
        }
        let addr = addr?;
        match claimed? {
            Ok(None) => Some(addr),
            Ok(Some(loser)) if loser == self.my_id() => {
                self.lose_my_address(now, addr, id);
                Some(addr)
            }
            Ok(Some(loser)) => {
                self.route_to(&loser, None);
                self.tell_taken(now, &loser, id);
                Some(addr)
            }
            Err(holder) if holder == self.my_id() => {
                self.warn_of_rival(now, addr, id);
                self.tell_taken(now, id, &holder);
                None
            }
            Err(holder) => {
                let text = format!(
                    "{} claims {addr}, which belongs to {}: it is reached by its IPv6 address until one of them \
                     changes `address` under [peer]; if the holder is gone for good: punchlan forget {}",
                    self.shown_name(id),
                    self.shown_name(&holder),
                    self.shown_name(&holder)
                );
                self.warnings.raise(wall_ms, "address-taken", subject, text);
                self.tell_taken(now, id, &holder);
                None
            }
        }
    }

    /// A member claims our address, and we keep it. The warning stands until that member claims another, or leaves.
    fn warn_of_rival(&mut self, now: Instant, addr: Ipv4Addr, rival: &PeerId) {
        let text = format!(
            "{addr} is also claimed by {}, and some members may reach them there instead of this machine: one of the two \
             should change `address` under [peer] in net.toml",
            self.shown_name(rival)
        );
        let wall_ms = self.wall_ms(now);
        self.warnings.raise(wall_ms, "address-taken", rival.to_string(), text);
    }

    /// Until a peer has a session, its packets may wait under the address it claims, if nobody holds that.
    pub(super) fn route_provisionally(&mut self, now: Instant, id: &PeerId) {
        let Some(peer) = self.peers.get(id) else { return };
        let wall_ms = self.wall_ms(now);
        let free = |a: &Ipv4Addr| {
            self.naming.is_free_for(wall_ms, a, id) && self.router.owner((*a).into()).is_none_or(|o| o == *id)
        };
        let v4 = peer.signed.v4.addr().filter(free);
        self.route_to(id, v4);
    }

    /// Tells `loser` that its address is bound to `holder`.
    fn tell_taken(&mut self, now: Instant, loser: &PeerId, holder: &PeerId) {
        let signed = if *holder == self.my_id() {
            self.shared.announcement.bytes().to_vec()
        } else {
            let Some(peer) = self.peers.get(holder) else { return };
            peer.signed.bytes().to_vec()
        };
        self.send_control(now, loser, &Control::AddressTaken { what: Taken::V4, holder: &signed });
    }

    /// A peer says that what we claim is bound to another.
    pub(super) fn told_taken(&mut self, now: Instant, what: Taken, holder: &[u8]) {
        let Ok(signed) = announcement::verify_member(holder, &self.shared.identity.network) else {
            self.drops.count("unauthentic");
            return;
        };
        let id = signed.peer;
        // A name that is taken needs nothing of us: the others number it.
        let Some(mine) = self.naming.v4.filter(|mine| what == Taken::V4 && signed.v4.addr() == Some(*mine)) else {
            return;
        };
        let wall_ms = self.wall_ms(now);
        if !self.may_speak(&id) {
            self.drops.count("denied");
        } else if !self.naming.is_long_mine(now, wall_ms, &mine) {
            self.lose_my_address(now, mine, &id);
        } else if self.is_here(&id) {
            // One member's word is not enough to take from us what the others have long bound to us.
            self.warn_of_rival(now, mine, &id);
        } else {
            self.drops.count("hearsay");
        }
    }

    /// Another holds our address.
    fn lose_my_address(&mut self, now: Instant, addr: Ipv4Addr, holder: &PeerId) {
        let wall_ms = self.wall_ms(now);
        let holder_name = self.shown_name(holder);
        let me = self.my_id();
        match self.naming.choice {
            AddressChoice::Auto if self.naming.may_move(now) => {
                self.naming.moves_left -= 1;
                let mut taken: BTreeSet<Ipv4Addr> = self.peers.values().filter_map(|p| p.signed.v4.addr()).collect();
                taken.insert(addr);
                self.naming.v4 = self.naming.free_auto(wall_ms, &taken);
                self.naming.addresses.release_all_but(&me, self.naming.v4.as_ref());
                self.naming.claim_mine(now, wall_ms);
                tracing::info!(taken = %addr, by = %holder_name, now = ?self.naming.v4, "address moved");
            }
            AddressChoice::Auto | AddressChoice::Configured(_) => {
                self.naming.v4 = None;
                self.naming.addresses.release_all_but(&me, None);
                // Whoever holds it, until it is free again: then it is ours.
                let claim = Claim { strength: Strength::Auto, peer: *holder };
                let _ = self.naming.addresses.claim(now, wall_ms, addr, claim);
                if !self.is_here(holder) {
                    self.naming.addresses.gone(holder, wall_ms);
                }
                let text = format!(
                    "{addr} belongs to {holder_name}: this machine is up without an IPv4 address; choose another \
                     `address` under [peer] in net.toml, or \"auto\""
                );
                self.warnings.raise(wall_ms, "address-taken", "", text);
            }
        }
        self.address_changed(now);
    }

    /// A peer is gone: what it held begins to age.
    pub(super) fn unbind(&mut self, now: Instant, id: &PeerId) {
        let wall_ms = self.wall_ms(now);
        self.naming.addresses.gone(id, wall_ms);
        self.naming.names.gone(id, wall_ms);
        self.clear_confusions(id);
        self.cache_changed = true;
    }

    /// Frees what a peer that is gone held, at the user's wish.
    pub(super) fn release(&mut self, now: Instant, id: &PeerId) {
        self.naming.addresses.release_all_but(id, None);
        self.naming.names.release_all_but(id, None);
        self.clear_confusions(id);
        self.cache_changed = true;
        self.rebind_freed(now, id);
    }

    /// An address of net.toml that another held is ours if it is free now.
    fn take_back_my_address(&mut self, now: Instant) {
        let AddressChoice::Configured(addr) = self.naming.choice else { return };
        let wall_ms = self.wall_ms(now);
        if self.naming.v4.is_some() || self.naming.addresses.holder(&addr, wall_ms).is_some() {
            return;
        }
        self.naming.v4 = Some(addr);
        self.naming.claim_mine(now, wall_ms);
        self.warnings.clear("address-taken", "");
        self.address_changed(now);
    }

    /// Our IPv4 address is another one, or none.
    fn address_changed(&mut self, now: Instant) {
        Arc::make_mut(&mut self.router).set_my_v4(self.naming.v4);
        self.actions.push_back(Action::SetOverlayV4(self.naming.v4));
        self.announce(now);
    }

    /// What `freed_by` held may be what another has waited for.
    fn rebind_freed(&mut self, now: Instant, freed_by: &PeerId) {
        self.take_back_my_address(now);
        let wall_ms = self.wall_ms(now);
        let waits = |id: &PeerId, peer: &Peer| {
            let lacks = self.router.owned(id).is_some_and(|owned| owned.v4.is_none());
            let free = |a| self.naming.overlay.is_host_v4(a) && self.naming.addresses.holder(&a, wall_ms).is_none();
            id != freed_by && lacks && peer.session.is_established(now) && peer.signed.v4.addr().is_some_and(free)
        };
        let waiting: Vec<PeerId> = self.peers.iter().filter(|(id, p)| waits(id, p)).map(|(id, _)| *id).collect();
        waiting.iter().for_each(|id| self.bind(now, id));
    }

    /// The name under which a peer without a session is shown: its own, or a numbered one if that is taken.
    pub(super) fn free_name(&self, id: &PeerId, name: &str) -> String {
        let taken = |wanted: &String| {
            !self.naming.is_free_name(wanted, id)
                || self.peers.values().any(|peer| peer.id() != *id && peer.name == *wanted)
        };
        (1..=u32::MAX).map(|n| numbered(name, n)).find(|wanted| !taken(wanted)).unwrap_or_default()
    }

    /// Drops bindings that are kept no longer.
    pub(super) fn expire_bindings(&mut self, now: Instant) {
        let wall_ms = self.wall_ms(now);
        self.naming.addresses.expire(wall_ms);
        self.naming.names.expire(wall_ms);
        self.take_back_my_address(now);
    }

    #[cfg(test)]
    pub(super) fn naming_holds(&self, wall_ms: u64, name: &str) -> bool {
        self.naming.names.holder(&name.to_owned(), wall_ms).is_some()
    }

    pub(super) fn shown_name(&self, id: &PeerId) -> String {
        if *id == self.my_id() {
            return self.naming.my_name.clone();
        }
        self.peers.get(id).map_or_else(|| format!("{id:?}"), |p| p.name.clone())
    }
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
