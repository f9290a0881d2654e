//! This machine carries for two members who do not reach each other: relay frames between them, unopened
//! ([`crate::forward::Carriage`]).
//!
//! ```text
//!   alice                          carol                           bob
//!     | == carry: bob ==============> |                              |    direct to both? room? offered?
//!     |                               | == alice asks ==============>|
//!     |                               | <============ carry: alice = |    both have asked
//!     | <== open, as number 5 ======= | == open, as number 9 =======>|
//!     | -- frame 5 -----------------> | -- frame 9 ----------------->|    not opened: rewritten
//! ```
//!
//! It carries only for those to whom it has a direct way *and* who ask by theirs, so nothing goes to where nobody has
//! answered, and never through a second carrier. An end is asked for again all the while; who does so no longer is carried
//! for no longer ([`HOLDS`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Node, RelayConfig, status};
use crate::addr::site;
use crate::forward::Way;
use crate::id::{NetworkId, PeerId};
use crate::punch::Via;
use crate::relay::{Change, Refusal};
use crate::sans::{Instant, RateLimit, Wakeup};
use crate::wire::relay::MAX_CHANNEL;
use crate::wire::session::{Carried, Control, feature};

/// An end that was not asked for again for so long is no longer wanted: three times what one waits
/// ([`super::carriers`]).
const HOLDS: Duration = Duration::from_secs(60);
/// The other end is told that it is asked for at most this often.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Numbers that are tried for one that is free.
const TRIES: usize = 8;

/// Those wishes of one peer that are listened to: an honest one says each three times a minute.
pub(super) fn wishes() -> RateLimit {
    RateLimit::new(2, 40)
}

/// What is carried for others.
#[derive(Debug)]
pub(super) struct Carrying {
    config: RelayConfig,
    /// By their places in the relay's table; a place whose holder went is another's.
    slots: Vec<Option<PeerId>>,
    /// By whose end it is, and who the other is.
    ends: BTreeMap<(PeerId, PeerId), End>,
    /// When it is looked who wants nothing more.
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    number: u32,
    /// Asked for last.
    wanted: Instant,
    /// When the other was last told so.
    told: Option<Instant>,
}

impl Carrying {
    pub(super) const fn new(config: RelayConfig) -> Self {
        Self { config, slots: Vec::new(), ends: BTreeMap::new(), due: None }
    }

    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        self.due.map(|at| Wakeup::new(at, "who is carried for"))
    }

    /// What an end is called, if there is one.
    #[cfg(test)]
    pub(super) fn number(&self, id: &PeerId, other: &PeerId) -> Option<u32> {
        self.ends.get(&(*id, *other)).map(|end| end.number)
    }

    /// Whether nobody is carried for.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.ends.is_empty() && self.slots.iter().all(Option::is_none)
    }

    fn slot(&self, id: &PeerId) -> Option<u32> {
        let place = self.slots.iter().position(|holder| holder.as_ref() == Some(id))?;
        u32::try_from(place).ok()
    }

    pub(super) fn free_slot(&mut self) -> u32 {
        let place = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if place == self.slots.len() {
            self.slots.push(None);
        }
        u32::try_from(place).expect("fewer than there are peers")
    }

    fn holder(&self, slot: u32) -> Option<PeerId> {
        *self.slots.get(slot as usize)?
    }
}

impl Node {
    /// Begins with this, or goes on.
    pub(super) fn set_carrying(&mut self, now: Instant, config: RelayConfig) {
        self.carrying.config = config;
        self.table.carriage().change(|channels| channels.set_limits(config.limits()));
        if !config.offer {
            self.carry_for_nobody(now);
        }
    }

    /// Everybody who is carried for is told that it is over.
    pub(super) fn carry_for_nobody(&mut self, now: Instant) {
        let ends: Vec<(PeerId, PeerId)> = self.carrying.ends.keys().copied().collect();
        ends.iter().for_each(|(id, other)| self.end_carrying(now, id, other));
    }

    /// The direct way to a peer that knows of carrying.
    pub(super) fn direct_way(&self, now: Instant, id: &PeerId) -> Option<Way> {
        let peer = self.peers.get(id).filter(|peer| peer.offline.is_none() && peer.session.is_established(now))?;
        let knows = peer.session.peer_features().is_some_and(|bits| bits & feature::CARRYING != 0);
        match peer.punch.choice().filter(|_| knows)?.via {
            Via::Direct { socket, remote } => Some((socket, remote)),
            Via::Relay { .. } | Via::Member { .. } => None,
        }
    }

    /// A peer wishes, or no longer, that we carry between it and `other`; that came by `via`.
    pub(super) fn told_to_carry(&mut self, now: Instant, id: &PeerId, via: Via, other: &PeerId, wanted: bool) {
        if self.peers.get_mut(id).is_none_or(|peer| !peer.carries.allow(now)) {
            return self.drops.count("carry-rate");
        }
        let refusal = if wanted { self.carry(now, id, via, other).err() } else { Some(Carried::Not) };
        if let Some(how) = refusal {
            self.end_carrying(now, id, other);
            self.tell_carried(now, id, other, how);
        }
    }

    fn carry(&mut self, now: Instant, id: &PeerId, via: Via, other: &PeerId) -> Result<(), Carried> {
        let ways = (self.direct_way(now, id), self.direct_way(now, other));
        let (Some(way), Some(other_way), Some(from), true) = (ways.0, ways.1, via.remote(), id != other) else {
            return Err(Carried::Not);
        };
        if !self.carrying.config.offer {
            return Err(Carried::NotOffered);
        }
        // Whoever sees the wish pass may have it come from elsewhere first.
        let from = if self.is_proven(now, id, via) { from } else { way.1 };
        let slots = (self.attach(id, way, Some(from)), self.attach(other, other_way, None));
        let known = self.carrying.ends.get(&(*id, *other)).map(|end| end.number);
        let (number, change) = self.open_end(slots, known)?;
        let end = self.carrying.ends.entry((*id, *other)).or_insert(End { number, wanted: now, told: None });
        end.wanted = now;
        let is_news = end.told.is_none_or(|at| now - at >= ASK_AGAIN);
        self.carrying.due.get_or_insert(now + HOLDS);
        match change {
            Some(change) => self.tell_open(now, change),
            None if is_news => {
                end.told = Some(now);
                self.tell_carried(now, other, id, Carried::Asked);
            }
            None => {}
        }
        Ok(())
    }

    /// Whether the peer has answered on this way.
    fn is_proven(&self, now: Instant, id: &PeerId, via: Via) -> bool {
        self.peers.get(id).is_some_and(|p| p.punch.paths(now).any(|path| path.via == via && path.proven.is_some()))
    }

    /// The place of a member that is reached by `way`, and whose frames come `from` there, if that is known.
    fn attach(&mut self, id: &PeerId, way: Way, from: Option<SocketAddr>) -> u32 {
        let known = self.carrying.slot(id);
        let slot = known.unwrap_or_else(|| self.carrying.free_slot());
        self.carrying.slots[slot as usize] = Some(*id);
        let carriage = self.table.carriage();
        carriage.set_way(slot, Some(way));
        if let Some(peer) = self.peers.get(id).filter(|_| known.is_none() || from.is_some()) {
            let (receive, send) = (peer.probe_keys.relay_rx.clone(), peer.probe_keys.relay_tx.clone());
            let from = from.unwrap_or(way.1);
            carriage.change(|channels| match known {
                None => channels.attach(slot, from.into(), receive, send, NetworkId([0; 32]), site(from.ip())),
                Some(_) => channels.renew(slot, from.into(), receive, send, site(from.ip())),
            });
        }
        slot
    }

    /// Opens the end of the first at the second, by the number that it has or by one that is free.
    fn open_end(&mut self, (slot, other): (u32, u32), known: Option<u32>) -> Result<(u32, Option<Change>), Carried> {
        let rng = &mut self.shared.rng;
        let numbers = known.into_iter().chain(std::iter::repeat_with(|| rng.u32() % MAX_CHANNEL + 1));
        for number in numbers.take(TRIES) {
            match self.table.carriage().change(|channels| channels.open(slot, other, number)) {
                Ok(change) => return Ok((number, change)),
                Err(Refusal::NumberTaken) => {}
                Err(Refusal::Full | Refusal::NoSuchEnd) => break,
            }
        }
        self.drops.count("carry-full");
        Err(Carried::Full)
    }

    /// Both ends hear what they call the channel.
    fn tell_open(&mut self, now: Instant, Change { asker, other }: Change) {
        let holders = (self.carrying.holder(asker.0), self.carrying.holder(other.0));
        let (Some(a), Some(b)) = holders else { return };
        self.tell_carried(now, &a, &b, Carried::Open { number: asker.1 });
        self.tell_carried(now, &b, &a, Carried::Open { number: other.1 });
    }

    fn tell_carried(&mut self, now: Instant, whom: &PeerId, peer: &PeerId, how: Carried) {
        self.send_control(now, whom, &Control::Carried { peer: *peer, how });
    }

    // ---- when it ends ----------------------------------------------------------------------------------

    /// A channel is closed, whichever of its ends asked for it; the other one hears of it.
    fn end_carrying(&mut self, now: Instant, id: &PeerId, other: &PeerId) {
        for (a, b) in [(id, other), (other, id)] {
            if self.carrying.ends.remove(&(*a, *b)).is_none() {
                continue;
            }
            if let (Some(a), Some(b)) = (self.carrying.slot(a), self.carrying.slot(b)) {
                self.table.carriage().change(|channels| channels.close(a, b));
            }
            let how = if self.carrying.config.offer { Carried::Not } else { Carried::NotOffered };
            self.tell_carried(now, a, b, how);
        }
        [id, other].into_iter().for_each(|id| self.detach_unused(id));
    }

    /// A member's place is free when it has nothing to do with any channel.
    fn detach_unused(&mut self, id: &PeerId) {
        if self.carrying.ends.keys().any(|(a, b)| a == id || b == id) {
            return;
        }
        if let Some(slot) = self.carrying.slot(id) {
            self.table.carriage().change(|channels| channels.detach(slot));
            self.table.carriage().set_way(slot, None);
            self.carrying.slots[slot as usize] = None;
        }
    }

    /// A peer is reached another way, or not any more.
    pub(super) fn carried_moves(&mut self, now: Instant, id: &PeerId) {
        let Some(slot) = self.carrying.slot(id) else { return };
        if let Some(way) = self.direct_way(now, id) {
            return self.table.carriage().set_way(slot, Some(way));
        }
        let of = |(a, b): &&(PeerId, PeerId)| a == id || b == id;
        let ends: Vec<(PeerId, PeerId)> = self.carrying.ends.keys().filter(of).copied().collect();
        ends.iter().for_each(|(a, b)| self.end_carrying(now, a, b));
        self.detach_unused(id);
    }

    /// Ends what nobody asks for any more.
    pub(super) fn expire_carrying(&mut self, now: Instant) {
        if self.carrying.due.is_none_or(|due| due > now) {
            return;
        }
        let old = self.carrying.ends.iter().filter(|(_, end)| now - end.wanted >= HOLDS);
        let old: Vec<(PeerId, PeerId)> = old.map(|(ends, _)| *ends).collect();
        old.iter().for_each(|(id, other)| self.end_carrying(now, id, other));
        self.carrying.due = self.carrying.ends.values().map(|end| end.wanted + HOLDS).min();
    }

    /// Who sent more than is carried hears of it, and may take another way.
    pub(super) fn tell_throttled(&mut self, now: Instant) {
        for (slot, number) in self.table.carriage().take_throttled() {
            let Some(id) = self.carrying.holder(slot) else { continue };
            let of = |((a, _), end): &(&(PeerId, PeerId), &End)| *a == id && end.number == number;
            let other = self.carrying.ends.iter().find(of).map(|((_, other), _)| *other);
            other.into_iter().for_each(|other| self.tell_carried(now, &id, &other, Carried::Throttled));
        }
    }

    // ---- for people ------------------------------------------------------------------------------------

    /// Between how many pairs is carried, and how many bytes were.
    pub(super) fn carried(&self) -> status::Carries {
        let both = |(a, b): &&(PeerId, PeerId)| a < b && self.carrying.ends.contains_key(&(*b, *a));
        let pairs = self.carrying.ends.keys().filter(both).count();
        status::Carries { pairs, bytes: self.table.carriage().counters().bytes }
    }
}
