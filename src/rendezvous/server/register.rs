//! Letting peers in, the cheapest check first: nothing is kept, and nothing costly done, before the cookie
//! shows that the sender receives at its address.

use super::limits::Rate;
use super::network::{Network, Seat};
use super::registration::{Paces, Registration, Route, Slot};
use super::{Event, RelayKeys, Server};
use crate::crypto::registration::{Keys, is_signed};
use crate::sans::Instant;
use crate::wire::rendezvous::items::ToPeer;
use crate::wire::rendezvous::{Claim, Cookie, Hello, Reason, Register};
use crate::wire::{VERSION, Writer};

/// Registers of one device: each may tell all members of a new address.
const REGISTERS: Rate = Rate::new(1, 10);
/// Seconds after which a busy server may be asked again.
const BUSY_S: u16 = 1;
/// Seconds after which a full one may have room.
const FULL_S: u16 = 10;
/// Seconds after which a refusal for good may be history.
const LONG_S: u16 = 30;

impl Server {
    /// Proves the address. Keeps nothing.
    pub(super) fn on_hello(&mut self, now: Instant, route: Route, hello: &Hello) -> bool {
        let prefix = self.limits.prefix(route.remote.ip());
        if !self.hellos_of.allow(now, &prefix) || !self.hellos.allow(now) {
            return self.refuse(now, route, hello.nonce, Reason::Busy, BUSY_S);
        }
        if hello.version != VERSION {
            return self.refuse(now, route, hello.nonce, Reason::Version, LONG_S);
        }
        self.count("hello");
        self.send_cookie(now, route, hello.nonce, hello.asked);
        true
    }

    fn send_cookie(&mut self, now: Instant, route: Route, nonce: [u8; 16], asked: Option<std::net::SocketAddr>) {
        let cookie = self.cookies.cookie(now, &proven_by_cookie(route, asked));
        let observed = route.observed();
        self.send(route, Cookie { version: VERSION, nonce, cookie, server: self.key(), observed }.encode());
    }

    pub(super) fn on_register(&mut self, now: Instant, route: Route, register: &Register<'_>, bytes: &[u8]) -> bool {
        let claim = &register.claim;
        if claim.version != VERSION || !self.cookies.check(now, &proven_by_cookie(route, claim.asked), &claim.cookie) {
            // Too old, or of another server: the sender may prove its address anew.
            let hello = Hello { version: claim.version, nonce: claim.nonce, asked: claim.asked };
            self.count("cookie");
            return self.on_hello(now, route, &hello);
        }
        if let Some(slot) = self.by_handle.get(&(route.origin(), claim.handle)).copied() {
            return self.on_repeated_register(now, slot, route, claim);
        }
        match self.admit(now, route, register, bytes) {
            Ok(keys) => self.take_seat(now, route, claim, keys),
            Err((reason, retry_s)) => self.refuse(now, route, claim.nonce, reason, retry_s),
        }
    }

    /// The answer was lost, or the handle is somebody else's.
    fn on_repeated_register(&mut self, now: Instant, slot: Slot, route: Route, claim: &Claim) -> bool {
        let Some(registration) = self.registrations.get(slot) else { return false };
        if (registration.peer, registration.network, registration.number) != (claim.peer, claim.network, claim.number) {
            return self.refuse(now, route, claim.nonce, Reason::Busy, 0);
        }
        if registration.seated {
            self.confirm(slot);
        }
        true
    }

    /// Rates, signatures, limits, keys.
    fn admit(
        &mut self,
        now: Instant,
        route: Route,
        register: &Register<'_>,
        bytes: &[u8],
    ) -> Result<Keys, (Reason, u16)> {
        let claim = &register.claim;
        let prefix = self.limits.prefix(route.remote.ip());
        if claim.server != self.key() {
            return Err((Reason::Forged, BUSY_S));
        }
        if !self.limits.allow.is_empty() && !self.limits.allow.contains(&claim.network) {
            return Err((Reason::NotAllowed, LONG_S));
        }
        if !self.registers_of.allow(now, &prefix) || !self.registers.allow(now) {
            return Err((Reason::Busy, BUSY_S));
        }
        let bytes = bytes.get(..crate::wire::rendezvous::REGISTER_LEN).unwrap_or(bytes);
        if !is_signed(register, bytes) {
            return Err((Reason::Forged, LONG_S));
        }
        let network = self.networks.get_mut(&claim.network);
        if network.is_some_and(|network| !network.registers.allow(now)) {
            return Err((Reason::Busy, BUSY_S));
        }
        self.check_room(claim, &prefix)?;
        if self.paces(claim).is_some_and(|paces| !paces.registers.allow(now, REGISTERS)) {
            return Err((Reason::Busy, BUSY_S));
        }
        Keys::derive(&self.secret, &claim.ephemeral, bytes).ok_or((Reason::Forged, LONG_S))
    }

    /// Whether the number grew and there is room for one more, unless the device sits here already.
    fn check_room(&self, claim: &Claim, prefix: &ipnet::IpNet) -> Result<(), (Reason, u16)> {
        let network = self.networks.get(&claim.network);
        match network.and_then(|network| network.seat(&claim.peer)) {
            Some(Seat::Left { number, .. }) if claim.number <= number => return Err((Reason::Stale, BUSY_S)),
            Some(Seat::Taken(slot)) => {
                let held = self.registrations.get(slot);
                let moves = held.is_some_and(|held| self.limits.prefix(held.route.remote.ip()) != *prefix);
                return match held.map_or(0, |held| held.number) {
                    number if claim.number <= number => Err((Reason::Stale, BUSY_S)),
                    _ if moves && self.is_full(prefix) => Err((Reason::PrefixFull, FULL_S)),
                    _ => Ok(()),
                };
            }
            _ => {}
        }
        if self.registrations.len() >= self.limits.registrations {
            Err((Reason::Full, FULL_S))
        } else if network.is_some_and(|network| network.len() >= self.limits.per_network) {
            Err((Reason::NetworkFull, FULL_S))
        } else if self.is_full(prefix) {
            Err((Reason::PrefixFull, FULL_S))
        } else {
            Ok(())
        }
    }

    fn is_full(&self, prefix: &ipnet::IpNet) -> bool {
        self.prefixes.get(prefix).is_some_and(|held| *held >= self.limits.per_prefix)
    }

    /// How fast the device of `claim` was lately, if it is known.
    fn paces(&mut self, claim: &Claim) -> Option<&mut Paces> {
        match self.networks.get_mut(&claim.network)?.seat_mut(&claim.peer)? {
            Seat::Taken(slot) => self.registrations.get_mut(*slot).map(|registration| &mut registration.paces),
            Seat::Left { paces, .. } => Some(paces),
        }
    }

    /// The claim is genuine and new: it gets the device's seat, or contests it.
    fn take_seat(&mut self, now: Instant, route: Route, claim: &Claim, keys: Keys) -> bool {
        let holder = self.networks.get(&claim.network).and_then(|network| network.slot(&claim.peer));
        let held = holder.and_then(|slot| Some((slot, self.registrations.get(slot)?)));
        match held.map(|(slot, held)| (slot, held.boot == claim.boot, held.route.origin() == route.origin())) {
            Some((slot, true, _)) => self.renew(now, slot, route, claim, keys),
            Some((slot, false, false)) => {
                let newcomer = self.add(now, route, claim, keys);
                self.contest(now, slot, newcomer, claim.nonce);
            }
            Some((slot, false, true)) => {
                self.end_contest(now, slot);
                let newcomer = self.add(now, route, claim, keys);
                self.vacate(now, slot);
                self.seat(now, newcomer);
            }
            None => {
                let slot = self.add(now, route, claim, keys);
                self.seat(now, slot);
            }
        }
        true
    }

    /// Keeps a registration, not seated yet.
    fn add(&mut self, now: Instant, route: Route, claim: &Claim, keys: Keys) -> Slot {
        let mut registration = Registration::new(now, claim, route, keys);
        registration.paces = self.paces(claim).copied().unwrap_or_default();
        let expires = registration.expires;
        let slot = self.registrations.insert(registration);
        self.enter(slot, route, claim.handle);
        *self.prefixes.entry(self.limits.prefix(route.remote.ip())).or_default() += 1;
        self.expiries.insert((expires, slot));
        slot
    }

    /// Notes where a registration is found.
    fn enter(&mut self, slot: Slot, route: Route, handle: u32) {
        self.by_handle.insert((route.origin(), handle), slot);
        if route.socket.is_stream() {
            self.streams.insert((route.socket, slot));
        }
    }

    /// Gives a registration its device's seat, which is free.
    pub(super) fn seat(&mut self, now: Instant, slot: Slot) {
        let Some(registration) = self.registrations.get_mut(slot) else { return };
        registration.seated = true;
        let (network, peer, route) = (registration.network, registration.peer, registration.route);
        let (remote, origin) = (route.remote, route.origin());
        let keys = relay_keys(registration);
        let prefix = self.limits.prefix(remote.ip());
        let rate = self.limits.registers_per_network;
        self.networks.entry(network).or_insert_with(|| Network::new(rate)).sit(peer, slot);
        self.count("registered");
        tracing::debug!(?network, ?peer, %remote, "registered");
        self.events.push_back(Event::Attached { slot, origin, keys, network, prefix });
        self.enlist(now, slot);
        self.confirm(slot);
    }

    /// The same run of the device: new keys, the rest stays.
    fn renew(&mut self, now: Instant, slot: Slot, route: Route, claim: &Claim, keys: Keys) {
        self.end_contest(now, slot);
        let Some(registration) = self.registrations.get_mut(slot) else { return };
        let before = registration.is_listed().then(|| registration.digest());
        let (former, old_handle) = (registration.route, registration.handle);
        registration.renew(now, claim, route, keys);
        let after = registration.is_listed().then(|| registration.digest());
        let keys = relay_keys(registration);
        self.by_handle.remove(&(former.origin(), old_handle));
        self.streams.remove(&(former.socket, slot));
        self.enter(slot, route, claim.handle);
        let (from, to) = (self.limits.prefix(former.remote.ip()), self.limits.prefix(route.remote.ip()));
        self.leave_prefix(&from);
        *self.prefixes.entry(to).or_default() += 1;
        if let Some(network) = self.networks.get_mut(&claim.network) {
            network.relist(before, after);
        }
        self.count("renewed");
        self.events.push_back(Event::Renewed { slot, origin: route.origin(), keys, prefix: to });
        // By which stream it is reached is nobody's concern.
        if former.observed() != route.observed() {
            self.tell_members_about(now, slot, true);
        }
        self.confirm(slot);
        self.touched.push(slot);
    }

    pub(super) fn leave_prefix(&mut self, prefix: &ipnet::IpNet) {
        if let Some(held) = self.prefixes.get_mut(prefix) {
            *held -= 1;
            if *held == 0 {
                self.prefixes.remove(prefix);
            }
        }
    }

    /// Says `registered`, as often as it is asked.
    fn confirm(&mut self, slot: Slot) {
        let Some(registration) = self.registrations.get(slot) else { return };
        let (fresh, observed) = (registration.fresh, registration.route.observed());
        let summary = self.summary(slot);
        let mut w = Writer::default();
        ToPeer::Registered { fresh, observed, summary }.write(&mut w);
        self.send_items(slot, w.as_slice());
    }
}

fn relay_keys(registration: &Registration) -> RelayKeys {
    RelayKeys { from_peer: registration.keys.relay_to_server.clone(), to_peer: registration.keys.relay_to_peer.clone() }
}

/// What a cookie proves: who answers from which address to which address.
fn proven_by_cookie(route: Route, asked: Option<std::net::SocketAddr>) -> Vec<u8> {
    let local = route.local.map(|ip| std::net::SocketAddr::new(ip, 1));
    let mut w = Writer::with_capacity(56);
    w.socket_addr(Some(route.remote)).socket_addr(asked).socket_addr(local).u16(route.socket.0).finish()
}
