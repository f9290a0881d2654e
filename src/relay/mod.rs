//! L3: the relay's channels. A channel is a pair of members that both opened it; each end has a number of its
//! own for it. A frame comes in under the sender's number and key and goes out under the receiver's, rewritten in place:
//! one look-up, two tags, no allocation.
//!
//! What may be forwarded is limited by the sender's source prefix, by network, and in all ([`meter`]).

mod meter;

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;

use self::meter::{MeterId, Meters};
use crate::crypto::relay::RelayKey;
use crate::id::{NetworkId, Origin};
use crate::sans::{Instant, RateLimit};
use crate::wire::relay::{HEADER, Header};

/// What a relay allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second from one source prefix.
    pub prefix_bytes: u64,
    /// Bytes a second of one network.
    pub network_bytes: u64,
    /// Bytes a second in all.
    pub total_bytes: u64,
    /// Channels that one registration may open.
    pub channels_per_peer: usize,
    /// Channel ends in all; each takes about 150 bytes.
    pub channels: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            prefix_bytes: 25_000_000,
            network_bytes: 50_000_000,
            total_bytes: 125_000_000,
            channels_per_peer: 256,
            channels: 200_000,
        }
    }
}

/// What became of a relay frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Rewritten in place: send it to the peer in this slot.
    Forward {
        /// The receiver's slot.
        to: u32,
    },
    /// Nobody opened such a channel from this address.
    Unknown,
    /// Malformed, forged, or the other end did not open.
    Dropped,
    /// Over a limit. `tell`: the sender in this slot has not heard of that lately.
    Throttled {
        /// The sender's slot.
        tell: Option<u32>,
    },
}

/// Why a channel is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many as may be are open.
    #[error("as many channels as may be are open")]
    Full,
    /// The number stands for another channel of the same address.
    #[error("the number is taken")]
    NumberTaken,
    /// No such registration.
    #[error("no such registration")]
    NoSuchEnd,
}

/// Both ends of a channel changed: what each now calls it, 0 if it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The end that asked, and its number.
    pub asker: (u32, u32),
    /// The other.
    pub other: (u32, u32),
}

/// How much was forwarded, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames forwarded.
    pub frames: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
    /// Frames with a wrong tag.
    pub forged: u64,
    /// Frames on a channel whose other end is not open.
    pub half_open: u64,
    /// Frames over the limit of a source prefix.
    pub over_prefix: u64,
    /// Frames over the limit of a network.
    pub over_network: u64,
    /// Frames over the limit in all.
    pub over_total: u64,
}

/// What was sent before a renewal arrives within this after the first that was sent after it: another way may be slower.
const LATE: Duration = Duration::from_secs(2);
/// A sender over its limit is told this often.
const TELL_PAUSE: Duration = Duration::from_secs(10);

/// See the module's documentation. Slots are the owner's names for registrations.
#[derive(Debug)]
pub struct Table {
    limits: Limits,
    ends: Vec<Option<Box<End>>>,
    /// By origin and number of the sender.
    channels: HashMap<(Origin, u32), Channel>,
    /// Where a registration was before it moved, at most once for each.
    moved: HashMap<Origin, Origin>,
    meters: Meters,
    total: RateLimit,
    counters: Counters,
}

/// A registration.
#[derive(Debug)]
struct End {
    origin: Origin,
    receive: RelayKey,
    /// How it was before the last renewal.
    former: Option<Former>,
    send: RelayKey,
    prefix: MeterId,
    network: MeterId,
    /// Its channels: the other's slot and our number.
    open: Vec<(u32, u32)>,
    /// Who has a channel to it, whether it opened its end or not.
    facing: Vec<u32>,
    told: Option<Instant>,
}

/// How a registration was.
#[derive(Debug)]
struct Former {
    origin: Origin,
    receive: RelayKey,
    /// Its frames are taken until then; `None`: none under the new key came yet.
    until: Option<Instant>,
}

/// One direction of a channel.
#[derive(Clone, Copy, Debug)]
struct Channel {
    from: u32,
    to: u32,
    /// The receiver's number; 0 until it opened its end.
    number: u32,
}

impl Table {
    /// A table without channels.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ends: Vec::new(),
            channels: HashMap::new(),
            moved: HashMap::new(),
            meters: Meters::new(limits.prefix_bytes, limits.network_bytes),
            total: meter::limit(limits.total_bytes),
            counters: Counters::default(),
        }
    }

    /// Other limits from now on; channels that stand stay.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.meters.set_rates(limits.prefix_bytes, limits.network_bytes);
        self.total = meter::limit(limits.total_bytes);
    }

    /// A registration stands: frames from it come from `origin` under `receive`, frames to it go out under `send`.
    pub fn attach(
        &mut self,
        slot: u32,
        origin: Origin,
        receive: RelayKey,
        send: RelayKey,
        network: NetworkId,
        prefix: IpNet,
    ) {
        self.detach(slot);
        let (prefix, network) = (self.meters.of_prefix(prefix), self.meters.of_network(network));
        let end = End {
            origin,
            receive,
            former: None,
            send,
            prefix,
            network,
            open: Vec::new(),
            facing: Vec::new(),
            told: None,
        };
        let index = slot as usize;
        if self.ends.len() <= index {
            self.ends.resize_with(index + 1, || None);
        }
        self.ends[index] = Some(Box::new(end));
    }

    /// It has new keys and perhaps a new address, from where its traffic counts from now on; its channels stay.
    pub fn renew(&mut self, slot: u32, origin: Origin, receive: RelayKey, send: RelayKey, prefix: IpNet) {
        let Some(end) = end_mut(&mut self.ends, slot) else { return };
        let former = std::mem::replace(&mut end.prefix, self.meters.of_prefix(prefix));
        self.meters.release(former);
        let old = std::mem::replace(&mut end.origin, origin);
        let receive = std::mem::replace(&mut end.receive, receive);
        let earlier = end.former.replace(Former { origin: old, receive, until: None });
        end.send = send;
        if let Some(earlier) = earlier {
            self.moved.remove(&earlier.origin);
        }
        if old == origin {
            return;
        }
        self.moved.insert(old, origin);
        for (_, number) in &end.open {
            if let Some(channel) = self.channels.remove(&(old, *number)) {
                self.channels.insert((origin, *number), channel);
            }
        }
    }

    /// It ended: the slots of those who had a channel to it, open or not. Their ends are gone too, so that nobody
    /// who takes the slot later finds them.
    pub fn detach(&mut self, slot: u32) -> Vec<u32> {
        let Some(end) = end_mut(&mut self.ends, slot) else { return Vec::new() };
        let (own, facing) = (end.open.clone(), end.facing.clone());
        for (other, _) in own {
            self.forget_end(slot, other);
        }
        for other in &facing {
            self.forget_end(*other, slot);
        }
        if let Some(end) = self.ends[slot as usize].take() {
            if let Some(former) = end.former {
                self.moved.remove(&former.origin);
            }
            self.meters.release(end.prefix);
            self.meters.release(end.network);
        }
        facing
    }

    /// `slot` calls its channel to `other` `number`. If the other end was open, or the same is asked again, both
    /// are told.
    ///
    /// # Errors
    /// Over a limit, or the number stands for another channel.
    pub fn open(&mut self, slot: u32, other: u32, number: u32) -> Result<Option<Change>, Refusal> {
        let known = self.number(slot, other);
        if known != Some(number) {
            self.check_room(slot, number)?;
            end_mut(&mut self.ends, other).ok_or(Refusal::NoSuchEnd)?;
            if known.is_some() {
                self.forget_end(slot, other);
            }
            let theirs = self.number(other, slot).unwrap_or(0);
            let end = end_mut(&mut self.ends, slot).ok_or(Refusal::NoSuchEnd)?;
            end.open.push((other, number));
            self.channels.insert((end.origin, number), Channel { from: slot, to: other, number: theirs });
            if let Some(faced) = end_mut(&mut self.ends, other) {
                faced.facing.push(slot);
            }
        }
        let Some(theirs) = self.number(other, slot) else { return Ok(None) };
        self.point(other, theirs, number);
        Ok(Some(Change { asker: (slot, number), other: (other, theirs) }))
    }

    /// `slot` wishes for it no longer. The other end stays half open.
    pub fn close(&mut self, slot: u32, other: u32) -> Option<Change> {
        if !self.forget_end(slot, other) {
            return None;
        }
        let theirs = self.number(other, slot)?;
        self.point(other, theirs, 0);
        Some(Change { asker: (slot, 0), other: (other, 0) })
    }

    /// Rewrites a frame from `from` for its receiver.
    pub fn forward(&mut self, now: Instant, from: Origin, frame: &mut [u8]) -> Verdict {
        let Ok((header, payload)) = Header::parse(frame) else { return Verdict::Dropped };
        let Some(channel) = self.channel(from, header.channel) else { return Verdict::Unknown };
        let Some(sender) = end_mut(&mut self.ends, channel.from) else { return Verdict::Unknown };
        if !sender.is_genuine(now, &header, payload) {
            self.counters.forged += 1;
            return Verdict::Dropped;
        }
        if channel.number == 0 {
            self.counters.half_open += 1;
            return Verdict::Dropped;
        }
        let (prefix, network) = (sender.prefix, sender.network);
        if !self.allow(now, prefix, network, frame.len()) {
            return Verdict::Throttled { tell: self.tell(now, channel.from) };
        }
        let Some(receiver) = end_mut(&mut self.ends, channel.to) else { return Verdict::Dropped };
        let tag = receiver.send.tag(channel.number, &frame[HEADER..]);
        frame[..HEADER].copy_from_slice(&Header { channel: channel.number, tag }.encode());
        self.counters.frames += 1;
        self.counters.bytes += frame.len() as u64;
        Verdict::Forward { to: channel.to }
    }

    /// How much was forwarded, and what was not.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Channel ends.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether nobody opened a channel.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    fn channel(&self, from: Origin, number: u32) -> Option<Channel> {
        let known = self.channels.get(&(from, number));
        known.or_else(|| self.channels.get(&(*self.moved.get(&from)?, number))).copied()
    }

    fn check_room(&self, slot: u32, number: u32) -> Result<(), Refusal> {
        let end = self.ends.get(slot as usize).and_then(Option::as_ref).ok_or(Refusal::NoSuchEnd)?;
        if self.channels.contains_key(&(end.origin, number)) {
            return Err(Refusal::NumberTaken);
        }
        let full = end.open.len() >= self.limits.channels_per_peer || self.channels.len() >= self.limits.channels;
        if full { Err(Refusal::Full) } else { Ok(()) }
    }

    /// What `slot` calls its channel to `other`.
    fn number(&self, slot: u32, other: u32) -> Option<u32> {
        let end = self.ends.get(slot as usize)?.as_ref()?;
        end.open.iter().find(|(to, _)| *to == other).map(|(_, number)| *number)
    }

    /// Frames of `slot` on its channel `number` go out as the receiver's `theirs`.
    fn point(&mut self, slot: u32, number: u32, theirs: u32) {
        let Some(end) = end_mut(&mut self.ends, slot) else { return };
        if let Some(channel) = self.channels.get_mut(&(end.origin, number)) {
            channel.number = theirs;
        }
    }

    /// Removes the end of `slot` to `other`; whether there was one.
    fn forget_end(&mut self, slot: u32, other: u32) -> bool {
        let Some(end) = end_mut(&mut self.ends, slot) else { return false };
        let Some(place) = end.open.iter().position(|(to, _)| *to == other) else { return false };
        let (_, number) = end.open.swap_remove(place);
        self.channels.remove(&(end.origin, number));
        if let Some(faced) = end_mut(&mut self.ends, other) {
            faced.facing.retain(|facing| *facing != slot);
        }
        true
    }

    fn allow(&mut self, now: Instant, prefix: MeterId, network: MeterId, len: usize) -> bool {
        let units = meter::units(len);
        let (ok, counter) = if !self.meters.allow(now, prefix, units) {
            (false, &mut self.counters.over_prefix)
        } else if !self.meters.allow(now, network, units) {
            (false, &mut self.counters.over_network)
        } else {
            (self.total.allow_n(now, units), &mut self.counters.over_total)
        };
        *counter += u64::from(!ok);
        ok
    }

    fn tell(&mut self, now: Instant, slot: u32) -> Option<u32> {
        let end = end_mut(&mut self.ends, slot)?;
        let is_due = end.told.is_none_or(|told| now - told >= TELL_PAUSE);
        is_due.then(|| {
            end.told = Some(now);
            slot
        })
    }
}

impl End {
    fn is_genuine(&mut self, now: Instant, header: &Header, payload: &[u8]) -> bool {
        let is_new = self.receive.check(header.channel, payload, header.tag);
        let Some(former) = &mut self.former else { return is_new };
        if is_new {
            former.until.get_or_insert(now + LATE);
            return true;
        }
        former.until.is_none_or(|until| now < until) && former.receive.check(header.channel, payload, header.tag)
    }
}

fn end_mut(ends: &mut [Option<Box<End>>], slot: u32) -> Option<&mut End> {
    ends.get_mut(slot as usize)?.as_deref_mut()
}

#[cfg(test)]
mod tests;
