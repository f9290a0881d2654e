//! Datagrams come in: opened where they lie, held against the router's guard, and made out.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::leg::is_frame;
use super::{Gate, Leg, Sharing, Table, Traffic};
use crate::id::{PeerId, SocketId};
use crate::offload::{self, Place};
use crate::router::Router;
use crate::sans::{Datagram, Instant};
use crate::session::{Channel, DATA_WINDOW, DataOpener, OpenError, Opening};
use crate::wire::session::{Header, Segment, data};
use crate::wire::{Class, classify, kind, relay};

/// Nothing that is ours is longer, bytes.
const LONGEST: usize = 2_048;

/// What became of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// These bytes of it are an inner packet for the TUN.
    Deliver(Range<usize>),
    /// These bytes of it are an inner packet for many: [`Table::delivery`] says where those who listen are.
    Shared(Range<usize>),
    /// These bytes are an inner packet with a partial checksum, which a super-packet may be made of again.
    Segment {
        /// Which bytes.
        range: Range<usize>,
        /// What its sender says of it; nothing of that is proven.
        segment: Segment,
        /// Where it belongs.
        place: Place,
    },
    /// It is on its way between two others: send the whole of it, rewritten in place.
    Forward {
        /// From this socket.
        socket: SocketId,
        /// To there.
        to: SocketAddr,
    },
    /// It was for the node.
    Taken,
    /// It was dropped and counted.
    Dropped,
}

/// What comes in under an index of ours.
#[derive(Clone, Debug)]
pub struct Ingress {
    /// Opens it.
    pub opener: Arc<DataOpener>,
    /// From this peer.
    pub peer: PeerId,
    /// This way; what comes by another is the node's.
    pub leg: Leg,
    /// Here it is counted.
    pub traffic: Arc<Traffic>,
    /// What is for many comes through this.
    pub gate: Arc<Gate>,
}

impl Ingress {
    /// Whether both do the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.opener, &other.opener)
            && Arc::ptr_eq(&self.traffic, &other.traffic)
            && Arc::ptr_eq(&self.gate, &other.gate)
            && (&self.leg, self.peer) == (&other.leg, other.peer)
    }
}

/// Opens the datagrams of a batch. Those of one key that follow each other take its replay window once, and are counted
/// once: when another key's comes, and at the end.
#[derive(Debug)]
pub struct Openings<'a> {
    table: &'a Table,
    run: Option<Run<'a>>,
}

#[derive(Debug)]
struct Run<'a> {
    index: u32,
    ingress: &'a Ingress,
    opening: Opening<'a, DATA_WINDOW>,
    /// Inner bytes, and when the last came; `None`: nothing yet.
    bytes: u64,
    last: Option<Instant>,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if let Some(last) = self.last {
            self.ingress.traffic.on_received(last, self.bytes);
        }
    }
}

impl<'a> Openings<'a> {
    pub(super) const fn new(table: &'a Table) -> Self {
        Self { table, run: None }
    }

    /// Opens a datagram in place. `None`: it is as it was, and the node's.
    pub fn open(&mut self, now: Instant, datagram: &mut Datagram<'_>) -> Option<Inbound> {
        match classify(datagram.payload) {
            Class::Keepalive => return Some(Inbound::Taken),
            Class::Unknown => return Some(self.dropped_as("malformed")),
            _ if datagram.payload.len() > LONGEST => return Some(self.dropped_as("malformed")),
            _ => {}
        }
        let lead = if is_frame(datagram.payload) { relay::HEADER } else { 0 };
        if lead > 0
            && let Some(passed_on) = self.table.carry(now, datagram)
        {
            return Some(passed_on);
        }
        let sealed = datagram.payload.get(lead..).filter(|sealed| sealed.first() == Some(&kind::DATA))?;
        let header = Header::decode(sealed).ok().filter(|header| header.channel == Channel::Data)?;
        let run = self.run_of(header.index)?;
        if run.ingress.leg.unframe(datagram) != Some(lead) {
            return None;
        }
        let bytes = &mut datagram.payload[lead..];
        let made = match run.opening.open(now, &header, bytes) {
            Ok(body) => {
                run.last = Some(now);
                let Ingress { peer, gate, .. } = run.ingress;
                let guard = Guard { router: &self.table.router, sharing: &self.table.sharing, peer, gate };
                make_out(now, header, bytes, body, &guard)
            }
            Err(error) => Err(refusal_word(error)),
        };
        let run = self.run.as_mut()?;
        Some(match made {
            Ok(inbound) => {
                let inbound = inbound.shifted(lead);
                run.bytes += inbound.packet().map_or(0, |packet| packet.len() as u64);
                inbound
            }
            Err(word) => self.dropped_as(word),
        })
    }

    fn dropped_as(&self, word: &'static str) -> Inbound {
        self.table.drops.count(word);
        Inbound::Dropped
    }

    fn run_of(&mut self, index: u32) -> Option<&mut Run<'a>> {
        if self.run.as_ref().is_none_or(|run| run.index != index) {
            // One window is let go before another is taken: nobody waits for two.
            self.run = None;
            let ingress = self.table.ingress.get(&index)?;
            self.run = Some(Run { index, ingress, opening: ingress.opener.begin(), bytes: 0, last: None });
        }
        self.run.as_mut()
    }
}

/// What an opened datagram is held against.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a> {
    /// Who has which address.
    pub router: &'a Router,
    /// What is for many.
    pub sharing: &'a Sharing,
    /// Who sent it.
    pub peer: &'a PeerId,
    /// What is for many comes from that peer through this.
    pub gate: &'a Gate,
}

/// What an opened datagram holds, or why it is dropped: a word of `counters.drop`.
///
/// # Errors
/// It is not of this format, or its sender may not send it.
pub fn make_out(
    now: Instant,
    header: Header,
    bytes: &[u8],
    body: Range<usize>,
    guard: &Guard<'_>,
) -> Result<Inbound, &'static str> {
    let inner = body.start + 1..body.end;
    let (segment, packet) = match bytes.get(body.start) {
        Some(&data::PACKET) => (None, inner),
        Some(&data::SEGMENT) => match Segment::decode(&bytes[inner.clone()]) {
            Ok((segment, _)) => (Some(segment), inner.start + Segment::LEN..inner.end),
            Err(_) => return Err("malformed"),
        },
        // Fragments are agreed on by a feature that this version does not offer.
        _ => return Err("reserved-kind"),
    };
    if segment.is_some_and(|segment| offload::describe(&bytes[packet.clone()]) != Some(Segment { index: 0, ..segment }))
    {
        return Err("segment");
    }
    let many = guard.router.guard(guard.peer, &bytes[packet.clone()]).map_err(|reason| reason.word())?;
    if let Some(destination) = many {
        guard.sharing.lets_in(now, guard.gate, destination, &bytes[packet.clone()])?;
    }
    Ok(match segment {
        None if many.is_some() => Inbound::Shared(packet),
        None => Inbound::Deliver(packet),
        // What is for many is never cut.
        Some(_) if many.is_some() => return Err("segment"),
        Some(segment) => {
            let place = Place { keys: header.index, counter: header.counter, index: segment.index };
            Inbound::Segment { range: packet, segment, place }
        }
    })
}

/// A word of `counters.drop`.
pub const fn refusal_word(error: OpenError) -> &'static str {
    match error {
        OpenError::Replayed => "replayed",
        OpenError::Malformed => "malformed",
        OpenError::UnknownIndex => "unknown-index",
        OpenError::Expired => "no-keys",
        OpenError::Forged => "unauthentic",
    }
}

impl Inbound {
    /// Where the inner packet is, if there is one.
    pub fn packet(&self) -> Option<Range<usize>> {
        match self {
            Self::Deliver(range) | Self::Shared(range) | Self::Segment { range, .. } => Some(range.clone()),
            Self::Forward { .. } | Self::Taken | Self::Dropped => None,
        }
    }

    /// The same verdict about bytes that begin `base` further on.
    #[must_use]
    pub fn shifted(self, base: usize) -> Self {
        match self {
            Self::Deliver(range) => Self::Deliver(range.start + base..range.end + base),
            Self::Shared(range) => Self::Shared(range.start + base..range.end + base),
            Self::Segment { range, segment, place } => {
                Self::Segment { range: range.start + base..range.end + base, segment, place }
            }
            other => other,
        }
    }
}
