//! Packets go out: sealed where they stand, or cut into a train.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::{HEADROOM, Leg, MTU, TAILROOM, Traffic};
use crate::id::SocketId;
use crate::offload::Cut;
use crate::sans::Instant;
use crate::session::{SealError, SealingKey};
use crate::wire::relay;
use crate::wire::session::{HEADER, Segment, TAG, data};

/// Datagrams in a train, and their bytes: what UDP takes in one call (`UDP_MAX_SEGMENTS` of older kernels).
const TRAIN: usize = 64;
const TRAIN_BYTES: usize = 65_000;

/// Full segments of a train, whichever way it goes.
const FULL: usize = TRAIN_BYTES / (relay::HEADER + HEADER + 1 + Segment::LEN + MTU as usize + TAG);
/// Bytes of a super-packet that has one full segment more, at least: TCP over IPv6 with timestamps has the least in each.
const TOO_MANY: usize = (FULL + 1) * (MTU as usize - 40 - 20 - 12);
/// Super-packets of no more bytes are one train; a longer one would be a full train, and a second for the little that is
/// left, which costs nearly as much.
pub const SUPER_PACKET: usize = TOO_MANY - 1;
const _: () = assert!(FULL < TRAIN && SUPER_PACKET <= u16::MAX as usize);

/// Where the sealed datagram begins: the packet stands at [`HEADROOM`], before it the inner kind and the header.
const SEALED_AT: usize = HEADROOM - 1 - HEADER;
const _: () = assert!(SEALED_AT >= relay::HEADER && TAILROOM >= TAG);

/// Datagrams that leave together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Train {
    /// From this socket.
    pub socket: SocketId,
    /// To this address.
    pub to: SocketAddr,
    /// These bytes of the buffer…
    pub range: Range<usize>,
    /// …are datagrams of so many bytes, the last one maybe shorter.
    pub size: usize,
}

/// How packets go to a peer.
#[derive(Clone, Debug)]
pub struct Egress {
    /// Under this key.
    pub key: Arc<SealingKey>,
    /// This way.
    pub leg: Leg,
    /// The peer puts segments together.
    pub segments: bool,
    /// Here they are counted.
    pub traffic: Arc<Traffic>,
}

impl Egress {
    /// Whether both do the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.key, &other.key)
            && Arc::ptr_eq(&self.traffic, &other.traffic)
            && (&self.leg, self.segments) == (&other.leg, other.segments)
    }

    /// Seals a packet in place: `buf` is [`HEADROOM`] free bytes, the packet, [`TAILROOM`] free bytes.
    ///
    /// # Errors
    /// The key's; the packet is as it was.
    pub fn seal(&self, now: Instant, buf: &mut [u8]) -> Result<Train, SealError> {
        let inner = buf.len().checked_sub(HEADROOM + TAILROOM).ok_or(SealError::TooShort)?;
        let range = SEALED_AT - self.leg.lead()..HEADROOM + inner + TAG;
        buf[HEADROOM - 1] = data::PACKET;
        self.key.seal(now, &mut buf[SEALED_AT..range.end])?;
        self.leg.frame(&mut buf[range.clone()]);
        self.traffic.on_sent(now, inner);
        Ok(Train { socket: self.leg.socket, to: self.leg.remote, size: range.len(), range })
    }

    /// Seals a copy of a packet: a datagram of its own.
    ///
    /// # Errors
    /// The key's.
    pub fn seal_copy(&self, now: Instant, packet: &[u8]) -> Result<Vec<u8>, SealError> {
        let lead = self.leg.lead();
        let mut datagram = Vec::with_capacity(lead + HEADER + 1 + packet.len() + TAG);
        datagram.resize(lead + HEADER, 0);
        datagram.push(data::PACKET);
        datagram.extend_from_slice(packet);
        datagram.resize(datagram.len() + TAG, 0);
        self.key.seal(now, &mut datagram[lead..])?;
        self.leg.frame(&mut datagram);
        self.traffic.on_sent(now, packet.len());
        Ok(datagram)
    }

    /// Seals segments of a super-packet, from `next` on, one behind the other into `arena`: as many as one train takes,
    /// and `next` moves on. `None`: the next one has to go otherwise.
    pub fn seal_train(&self, now: Instant, cut: &Cut<'_>, next: &mut usize, arena: &mut [u8]) -> Option<Train> {
        if !self.segments || cut.segment_len(*next) > usize::from(MTU) {
            return None;
        }
        let lead = self.leg.lead();
        let packet_at = lead + HEADER + 1 + Segment::LEN;
        let size = packet_at + cut.segment_len(*next) + TAG;
        let (last, mut end, mut bytes) = (cut.count().min(*next + TRAIN), 0, 0);
        while *next < last && end + size <= arena.len().min(TRAIN_BYTES) {
            let len = cut.segment_len(*next);
            let datagram = &mut arena[end..end + packet_at + len + TAG];
            datagram[lead + HEADER] = data::SEGMENT;
            datagram[packet_at - Segment::LEN..packet_at].copy_from_slice(&cut.descriptor(*next).encode());
            cut.write(*next, &mut datagram[packet_at..packet_at + len]);
            if self.key.seal(now, &mut datagram[lead..]).is_err() {
                break;
            }
            self.leg.frame(datagram);
            *next += 1;
            (end, bytes) = (end + datagram.len(), bytes + len);
        }
        (end > 0).then(|| {
            self.traffic.on_sent(now, bytes);
            Train { socket: self.leg.socket, to: self.leg.remote, range: 0..end, size }
        })
    }
}
