//! When addresses and names are bound to peers, and when they are free again: a claimant is bound to what it claims in its first
//! authenticated session, or hears who holds it; what a peer that is gone held is free after a while, and whoever waited
//! for it has it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::id::PeerId;
use crate::node::Node;
use crate::node::peer::Peer;
use crate::router::bindings::{Claim, Strength};
use crate::sans::Instant;
use crate::wire::announcement::V4Claim;
use crate::wire::session::{Control, Taken};

impl Node {
    /// A peer has a session: its address and name are bound, or it is told who holds them.
    pub(in crate::node) fn bind(&mut self, now: Instant, id: &PeerId) {
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
            self.names_changed = true;
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

    /// Until a peer has a session, its packets may wait under the address it claims, if nobody holds that.
    pub(in crate::node) fn route_provisionally(&mut self, now: Instant, id: &PeerId) {
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

    /// A peer is gone: what it held begins to age.
    pub(in crate::node) fn unbind(&mut self, now: Instant, id: &PeerId) {
        let wall_ms = self.wall_ms(now);
        self.naming.addresses.gone(id, wall_ms);
        self.naming.names.gone(id, wall_ms);
        self.clear_confusions(id);
        self.cache_changed = true;
    }

    /// Frees what a peer that is gone held, at the user's wish.
    pub(in crate::node) fn release(&mut self, now: Instant, id: &PeerId) {
        self.naming.addresses.release_all_but(id, None);
        self.naming.names.release_all_but(id, None);
        self.clear_confusions(id);
        (self.cache_changed, self.names_changed) = (true, true);
        self.rebind_freed(now, id);
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

    /// Drops bindings that are kept no longer.
    pub(in crate::node) fn expire_bindings(&mut self, now: Instant) {
        let wall_ms = self.wall_ms(now);
        self.naming.addresses.expire(wall_ms);
        self.naming.names.expire(wall_ms);
        self.take_back_my_address(now);
    }

    #[cfg(test)]
    pub(in crate::node) fn naming_holds(&self, wall_ms: u64, name: &str) -> bool {
        self.naming.names.holder(&name.to_owned(), wall_ms).is_some()
    }
}
