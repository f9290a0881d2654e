//! Our own address: what becomes of it when another holds it too. Told so, we move on (`auto`), or give
//! it up and take it back when it is free (configured); unless it is ours for long: then both keep it, with a warning.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::crypto::announcement;
use crate::id::PeerId;
use crate::node::{AddressChoice, Node};
use crate::router::bindings::{Claim, Strength};
use crate::sans::{Action, Instant};
use crate::wire::session::Taken;

impl Node {
    /// A peer says that what we claim is bound to another.
    pub(in crate::node) fn told_taken(&mut self, now: Instant, what: Taken, holder: &[u8]) {
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
    pub(super) fn lose_my_address(&mut self, now: Instant, addr: Ipv4Addr, holder: &PeerId) {
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

    /// An address of net.toml that another held is ours if it is free now.
    pub(super) fn take_back_my_address(&mut self, now: Instant) {
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
        self.names_changed = true;
        self.actions.push_back(Action::SetOverlayV4(self.naming.v4));
        self.announce(now);
    }

    /// A member claims our address, and we keep it. The warning stands until that member claims another, or leaves.
    pub(super) fn warn_of_rival(&mut self, now: Instant, addr: Ipv4Addr, rival: &PeerId) {
        let text = format!(
            "{addr} is also claimed by {}, and some members may reach them there instead of this machine: one of the two \
             should change `address` under [peer] in net.toml",
            self.shown_name(rival)
        );
        let wall_ms = self.wall_ms(now);
        self.warnings.raise(wall_ms, "address-taken", rival.to_string(), text);
    }
}
