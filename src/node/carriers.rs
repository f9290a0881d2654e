//! Other members carry between us and a peer that we do not reach directly: asked are those to whom we have a direct way
//! ourselves ([`super::carriage`] is their side of it), the quickest first. What they open is a relay among others to the
//! peer's [`Punch`](crate::punch::Punch), which measures it and takes it if it is quicker than a rendezvous', or if there is
//! no other.
//!
//! The peer has to ask as well: its carrier tells it that we did.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::Node;
use super::peer::{FAREWELL, Peer};
use crate::crypto::relay::RelayKey;
use crate::forward::Way;
use crate::id::{PeerId, SocketId};
use crate::punch::Via;
use crate::sans::{Instant, Wakeup};
use crate::wire::relay::{HEADER, Header};
use crate::wire::session::{Carried, Control};

/// So many are asked for one peer: the second for when the first goes.
const ENOUGH: usize = 2;
/// So many may carry for one peer, those that it asked included.
const MOST: usize = 4;
/// So many are remembered for one peer, those that refused included.
const MOST_KNOWN: usize = 16;
/// An answer is waited for so long…
const PATIENCE: Duration = Duration::from_secs(2);
/// …so many times.
const TRIES: u32 = 3;
/// A channel that stands is asked for again so often: a third of the time after which it is closed.
const REFRESH: Duration = Duration::from_secs(20);
/// Who refused, or did not answer, is asked again after this, which doubles each time…
const REST: Duration = Duration::from_secs(5);
/// …up to this. Who carries less than we sent is asked after this at once.
const LONG_REST: Duration = Duration::from_mins(5);
/// Ordinary punching needs no longer, see [`crate::punch`]: carriers are asked after that.
const PUNCHING: Duration = Duration::from_millis(1_600);

/// What is known of carriers at large.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    /// What channels that stand are called here: by the carrier, and the peer that it carries to.
    open: BTreeMap<PeerId, BTreeMap<PeerId, u32>>,
    /// When [`Node::look_for_carriers`] has something to do.
    look: Option<Instant>,
}

/// How a member stands to carrying between us and one peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carrier {
    pub(super) standing: Standing,
    /// What it said last against it.
    pub(super) said: Option<Carried>,
    /// How often in a row it was asked in vain.
    vain: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    /// Asked last, for the so many-th time.
    Asked(Instant, u32),
    /// It carries.
    Open {
        /// It said so last.
        heard: Instant,
        /// Asked since whether that is still so.
        asked: Option<(Instant, u32)>,
        /// From where its frames came last.
        from: Option<SocketAddr>,
    },
    /// Not asked before.
    Resting(Instant),
}

impl Carrier {
    const fn is_resting(&self) -> bool {
        matches!(self.standing, Standing::Resting(_))
    }

    /// When something about it is due.
    fn due(&self) -> Instant {
        match self.standing {
            Standing::Asked(at, _) | Standing::Open { asked: Some((at, _)), .. } => at + PATIENCE,
            Standing::Open { heard, asked: None, .. } => heard + REFRESH,
            Standing::Resting(until) => until,
        }
    }

    const fn from(&self) -> Option<SocketAddr> {
        match self.standing {
            Standing::Open { from, .. } => from,
            Standing::Asked(..) | Standing::Resting(_) => None,
        }
    }

    /// In place of this, or of nothing.
    fn becomes(known: Option<&Self>, standing: Standing) -> Self {
        known.map_or(Self { standing, said: None, vain: 0 }, |known| Self { standing, ..*known })
    }
}

impl Carriers {
    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        self.look.map(|at| Wakeup::new(at, "carriers"))
    }

    /// Ways came, or went: it is looked whether carriers are wanted, once it is known what punching comes to.
    pub(super) fn look_soon(&mut self, now: Instant) {
        let soon = now + PUNCHING;
        self.look = Some(self.look.map_or(soon, |at| at.min(soon)));
    }

    /// To whom this member carries for us.
    pub(super) fn carried_by(&self, carrier: &PeerId) -> Vec<PeerId> {
        self.open.get(carrier).map(|open| open.keys().copied().collect()).unwrap_or_default()
    }

    fn closed(&mut self, carrier: &PeerId, peer: &PeerId) {
        if let Some(open) = self.open.get_mut(carrier) {
            open.remove(peer);
            if open.is_empty() {
                self.open.remove(carrier);
            }
        }
    }
}

// ---- who is asked --------------------------------------------------------------------------------------

impl Node {
    /// Asks who may be asked, and asks again.
    pub(super) fn look_for_carriers(&mut self, now: Instant) {
        if self.carriers.look.is_none_or(|at| at > now) {
            return;
        }
        self.carriers.look = None;
        let concerned = |peer: &Peer| !peer.carriers.is_empty() || lacks_a_direct_way(peer);
        let ids: Vec<PeerId> = self.peers.iter().filter(|(_, peer)| concerned(peer)).map(|(id, _)| *id).collect();
        let quickest = if ids.is_empty() { Vec::new() } else { self.quickest(now) };
        let due = ids.iter().filter_map(|id| self.look_for_carriers_to(now, id, &quickest)).min();
        self.carriers.look = self.carriers.look.into_iter().chain(due).min();
    }

    /// Those who may be asked, the quickest first.
    fn quickest(&self, now: Instant) -> Vec<PeerId> {
        let reached = self.peers.keys().filter(|id| self.direct_way(now, id).is_some());
        let rtt = |id: &PeerId| self.peers.get(id).and_then(|peer| peer.punch.stats(now)?.rtt).unwrap_or(Duration::MAX);
        let mut all: Vec<(Duration, PeerId)> = reached.map(|id| (rtt(id), *id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// When to look again.
    fn look_for_carriers_to(&mut self, now: Instant, id: &PeerId, quickest: &[PeerId]) -> Option<Instant> {
        let peer = self.peers.get(id)?;
        if !lacks_a_direct_way(peer) {
            self.leave_carriers(now, id);
            return None;
        }
        // Where there is no way at all it is not waited for what punching comes to: packets that wait begin it over and over.
        let is_young = peer.punch.choice().is_some() && peer.punch.is_young(now);
        let is_due = |carrier: &Carrier| carrier.due() <= now;
        let due = peer.carriers.iter().filter(|(_, known)| is_due(known) && !known.is_resting());
        let due: Vec<(PeerId, Standing)> = due.map(|(carrier, known)| (*carrier, known.standing)).collect();
        due.into_iter().for_each(|(carrier, known)| self.carrier_is_due(now, id, &carrier, known));
        let peer = self.peers.get_mut(id)?;
        // Who has gone meanwhile is forgotten.
        peer.carriers.retain(|carrier, known| !known.is_resting() || !is_due(known) || quickest.contains(carrier));
        let busy = peer.carriers.values().filter(|carrier| !carrier.is_resting()).count();
        let new = MOST_KNOWN.saturating_sub(peer.carriers.len());
        // Little is better than nothing.
        let has_none = peer.punch.choice().is_none();
        let is_better = |known: &Carrier| has_none && known.said == Some(Carried::Throttled);
        let rested = |known: &Carrier| known.is_resting() && (is_due(known) || is_better(known));
        let may = |carrier: &&PeerId| *carrier != id && peer.carriers.get(carrier).map_or(new > 0, rested);
        let next: Vec<PeerId> = quickest.iter().filter(may).take(ENOUGH.saturating_sub(busy)).copied().collect();
        if is_young && !next.is_empty() {
            return Some(now + PUNCHING);
        }
        next.iter().for_each(|carrier| self.ask_carrier(now, id, carrier, 1));
        let is_enough = busy + next.len() >= ENOUGH;
        let all = self.peers.get(id)?.carriers.values();
        all.filter(|known| !(is_enough && known.is_resting())).map(Carrier::due).min()
    }

    fn carrier_is_due(&mut self, now: Instant, id: &PeerId, carrier: &PeerId, known: Standing) {
        match known {
            Standing::Asked(_, tries) | Standing::Open { asked: Some((_, tries)), .. } => match tries < TRIES {
                true => self.ask_carrier(now, id, carrier, tries + 1),
                false => self.carrier_rests(now, id, carrier, None),
            },
            Standing::Open { asked: None, .. } => self.ask_carrier(now, id, carrier, 1),
            Standing::Resting(_) => {}
        }
    }

    fn ask_carrier(&mut self, now: Instant, id: &PeerId, carrier: &PeerId, tries: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let known = peer.carriers.get(carrier);
        let standing = match known.map(|known| known.standing) {
            Some(Standing::Open { heard, from, .. }) => Standing::Open { heard, asked: Some((now, tries)), from },
            _ => Standing::Asked(now, tries),
        };
        peer.carriers.insert(*carrier, Carrier::becomes(known, standing));
        self.say_carry(now, id, carrier, true);
    }

    fn say_carry(&mut self, now: Instant, id: &PeerId, carrier: &PeerId, wanted: bool) {
        if self.direct_way(now, carrier).is_some() {
            self.send_control(now, carrier, &Control::Carry { peer: *id, wanted });
        }
    }

    /// Data that goes by a carrier is not answered.
    pub(super) fn check_carrier(&mut self, now: Instant, id: &PeerId, carrier: &PeerId) {
        if let Some(Standing::Open { asked: None, .. }) = self.carrier(id, carrier).map(|known| known.standing) {
            self.ask_carrier(now, id, carrier, 1);
            self.carriers.look_soon(now);
        }
    }
}

// ---- what they say -------------------------------------------------------------------------------------

impl Node {
    /// A member says how it stands to carrying between us and a peer.
    pub(super) fn told_carried(&mut self, now: Instant, carrier: &PeerId, id: &PeerId, how: Carried) {
        let waits = self.carrier(id, carrier).is_some_and(|known| !known.is_resting());
        match how {
            Carried::Asked if self.may_be_carried(now, carrier, id) => self.ask_carrier(now, id, carrier, 1),
            Carried::Open { number } if waits => self.carrier_opened(now, carrier, id, number),
            // What was not asked for, or not any more.
            Carried::Asked | Carried::Open { .. } => return self.say_carry(now, id, carrier, false),
            Carried::Not | Carried::NotOffered | Carried::Full if waits => {
                self.carrier_rests(now, id, carrier, Some(how));
            }
            Carried::Throttled if waits && self.has_another_relay(id, carrier) => {
                self.say_carry(now, id, carrier, false);
                self.carrier_rests(now, id, carrier, Some(how));
            }
            Carried::Not | Carried::NotOffered | Carried::Full | Carried::Throttled => return,
        }
        self.carriers.look_soon(now);
    }

    /// The peer wishes that this member carries between us, and so it is there: it is searched for, should it be gone.
    fn may_be_carried(&mut self, now: Instant, carrier: &PeerId, id: &PeerId) -> bool {
        let is_reached = self.direct_way(now, carrier).is_some();
        let Some(peer) = self.peers.get_mut(id).filter(|_| is_reached && carrier != id) else { return false };
        if peer.offline.is_some_and(|since| now - since >= FAREWELL) {
            peer.searched.get_or_insert(now);
        }
        if !lacks_a_direct_way(peer) {
            return false;
        }
        let busy = peer.carriers.values().filter(|carrier| !carrier.is_resting()).count();
        let known = peer.carriers.get(carrier);
        if known.is_none() && peer.carriers.len() >= MOST_KNOWN || known.is_none_or(Carrier::is_resting) && busy >= MOST
        {
            self.drops.count("too-many-carriers");
            return false;
        }
        let is_weak = known.is_some_and(|known| known.is_resting() && known.said == Some(Carried::Throttled));
        !is_weak || peer.punch.choice().is_none()
    }

    fn carrier_opened(&mut self, now: Instant, carrier: &PeerId, id: &PeerId, number: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let from = peer.carriers.get(carrier).and_then(Carrier::from);
        let standing = Standing::Open { heard: now, asked: None, from };
        peer.carriers.insert(*carrier, Carrier { standing, said: None, vain: 0 });
        if self.carriers.open.entry(*carrier).or_default().insert(*id, number).is_none() {
            tracing::debug!(peer = ?id, ?carrier, "carried by");
            peer.punch.relay_up(now, Via::Member { carrier: *carrier });
            peer.session.connect(now);
            peer.session.restart(now);
        }
        self.drain_peer(now, id);
    }

    fn carrier_rests(&mut self, now: Instant, id: &PeerId, carrier: &PeerId, said: Option<Carried>) {
        self.carriers.closed(carrier, id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        let vain = peer.carriers.get(carrier).map_or(0, |known| known.vain);
        let rest = if said == Some(Carried::Throttled) { LONG_REST } else { LONG_REST.min(REST * (1 << vain.min(8))) };
        let standing = Standing::Resting(now + rest);
        peer.carriers.insert(*carrier, Carrier { standing, said, vain: vain.saturating_add(1) });
        peer.punch.relay_down(now, Via::Member { carrier: *carrier });
        self.carriers.look_soon(now);
        self.drain_peer(now, id);
    }

    fn carrier(&self, id: &PeerId, carrier: &PeerId) -> Option<&Carrier> {
        self.peers.get(id)?.carriers.get(carrier)
    }

    fn has_another_relay(&self, id: &PeerId, carrier: &PeerId) -> bool {
        let this = Via::Member { carrier: *carrier };
        self.peers.get(id).is_some_and(|peer| peer.punch.has_relay_beside(this))
    }

    /// Nobody is to carry to this peer any more: it is reached, or gone.
    pub(super) fn leave_carriers(&mut self, now: Instant, id: &PeerId) {
        let Some(peer) = self.peers.get_mut(id).filter(|peer| !peer.carriers.is_empty()) else { return };
        for (carrier, known) in std::mem::take(&mut peer.carriers) {
            self.carriers.closed(&carrier, id);
            if let Some(peer) = self.peers.get_mut(id) {
                peer.punch.relay_down(now, Via::Member { carrier });
            }
            if !known.is_resting() {
                self.say_carry(now, id, &carrier, false);
            }
        }
        self.drain_peer(now, id);
    }

    /// A member is reached another way, or not any more: what it carries for us goes there, or is over.
    pub(super) fn carrier_moves(&mut self, now: Instant, carrier: &PeerId) {
        let is_reached = self.direct_way(now, carrier).is_some();
        for id in self.carriers.carried_by(carrier) {
            match is_reached {
                // Frames are taken from where they were asked for.
                true => self.ask_carrier(now, &id, carrier, 1),
                false => self.carrier_rests(now, &id, carrier, None),
            }
        }
    }
}

// ---- frames --------------------------------------------------------------------------------------------

impl Node {
    /// Where frames for a peer go that a member carries: its way, what it calls the channel, and the key.
    pub(super) fn carried_out(&self, carrier: &PeerId, id: &PeerId) -> Option<(Way, u32, RelayKey)> {
        let number = *self.carriers.open.get(carrier)?.get(id)?;
        let member = self.peers.get(carrier)?;
        match member.punch.choice()?.via {
            Via::Direct { socket, remote } => Some(((socket, remote), number, member.probe_keys.relay_tx.clone())),
            Via::Relay { .. } | Via::Member { .. } => None,
        }
    }

    /// The header that makes `payload` such a frame, and where to send it.
    pub(super) fn carried_header(
        &self,
        carrier: &PeerId,
        id: &PeerId,
        payload: &[u8],
    ) -> Option<([u8; HEADER], SocketId, SocketAddr)> {
        let ((socket, remote), channel, key) = self.carried_out(carrier, id)?;
        Some((Header { channel, tag: key.tag(channel, payload) }.encode(), socket, remote))
    }

    /// From where they come.
    pub(super) fn carried_in(&self, carrier: &PeerId, id: &PeerId) -> Option<(Way, u32, RelayKey)> {
        let ((socket, remote), number, _) = self.carried_out(carrier, id)?;
        let key = self.peers.get(carrier)?.probe_keys.relay_rx.clone();
        let from = self.carrier(id, carrier).and_then(Carrier::from);
        Some(((socket, from.unwrap_or(remote)), number, key))
    }

    /// A frame that a member carried here: by whom, from whom, and where the peer's datagram is in it.
    pub(super) fn unwrap_carried(
        &mut self,
        now: Instant,
        frame: &[u8],
        source: SocketAddr,
    ) -> Option<(Via, PeerId, Range<usize>)> {
        let (header, payload) = Header::parse(frame).ok()?;
        let genuine = |carrier: &PeerId| {
            let keys = self.peers.get(carrier).map(|member| &member.probe_keys);
            keys.is_some_and(|keys| keys.relay_rx.check(header.channel, payload, header.tag))
        };
        let all =
            self.carriers.open.iter().flat_map(|(carrier, open)| open.iter().map(move |(id, n)| (carrier, id, n)));
        let found = all.filter(|(.., number)| **number == header.channel).find(|(carrier, ..)| genuine(carrier));
        let (carrier, id) = found.map(|(carrier, id, _)| (*carrier, *id))?;
        // A tag may be copied: only from where the member is known to be is its frame a sign that others will follow.
        let is_there = |member: &Peer| {
            member.punch.paths(now).any(|path| path.proven.is_some() && path.via.remote() == Some(source))
        };
        if self.carrier(&id, &carrier)?.from() != Some(source)
            && self.peers.get(&carrier).is_some_and(is_there)
            && let Some(known) = self.peers.get_mut(&id).and_then(|peer| peer.carriers.get_mut(&carrier))
            && let Standing::Open { from, .. } = &mut known.standing
        {
            *from = Some(source);
        }
        Some((Via::Member { carrier }, id, HEADER..frame.len()))
    }
}

/// Whether it is here, or searched for, and not reached directly.
fn lacks_a_direct_way(peer: &Peer) -> bool {
    (peer.offline.is_none() || peer.searched.is_some())
        && !peer.punch.choice().is_some_and(|choice| choice.via.is_direct())
}
