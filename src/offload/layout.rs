//! Where things are in a packet that could be a segment.

use super::sum;
use super::vnet::Vnet;
use crate::wire::session::Segment;

/// What carries the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

/// A whole packet of TCP or UDP: no fragment, no extension headers, of exactly the length that it states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Over IPv4, else IPv6.
    pub v4: bool,
    /// What carries the payload.
    pub transport: Transport,
    /// Where the transport's header begins.
    pub transport_at: usize,
    /// Where the payload begins.
    pub header_len: usize,
}

const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;

/// See [`Layout::sums`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    network: u16,
    pseudo: u16,
}

impl Transport {
    /// Where its checksum is, from its header's start.
    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// Its IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl Layout {
    /// Reads a packet; `None` if it is anything else.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
        let first = *packet.first()?;
        let (v4, protocol, transport_at) = match first >> 4 {
            4 => {
                let header = usize::from(first & 0xf) * 4;
                // Neither a fragment nor one to come: of the flags only "don't fragment" may be set.
                let whole = word(6)? & !0x4000 == 0;
                if header < 20 || word(2)? != packet.len() || !whole {
                    return None;
                }
                (true, *packet.get(9)?, header)
            }
            6 if word(4)? + IPV6_HEADER == packet.len() => (false, *packet.get(6)?, IPV6_HEADER),
            _ => return None,
        };
        let (transport, header) = match protocol {
            6 => (Transport::Tcp, usize::from(*packet.get(transport_at + 12)? >> 4) * 4),
            17 if word(transport_at + 4)? == packet.len() - transport_at => (Transport::Udp, UDP_HEADER),
            _ => return None,
        };
        let least = if transport == Transport::Tcp { TCP_HEADER } else { UDP_HEADER };
        let header_len = transport_at + header;
        (header >= least && header_len <= packet.len()).then_some(Self { v4, transport, transport_at, header_len })
    }

    /// `VIRTIO_NET_HDR_GSO_*` of super-packets of this kind.
    pub const fn gso_type(&self) -> u8 {
        match (self.transport, self.v4) {
            (Transport::Tcp, true) => Vnet::TCP_V4,
            (Transport::Tcp, false) => Vnet::TCP_V6,
            (Transport::Udp, _) => Vnet::UDP,
        }
    }

    /// What the descriptor of the segment at `index` says.
    pub fn descriptor(&self, index: u16) -> Segment {
        let byte = |len: usize| u8::try_from(len).expect("an IP header without extensions has at most 60 bytes");
        Segment {
            gso_type: self.gso_type(),
            csum_start: byte(self.transport_at),
            csum_offset: byte(self.transport.checksum_offset()),
            header_len: u16::try_from(self.header_len).expect("at most 120 bytes"),
            index,
        }
    }

    /// Whether a whole packet has a checksum, and a right one.
    pub(super) fn has_right_checksum(&self, packet: &[u8]) -> bool {
        let part = &packet[self.transport_at..];
        let offset = self.transport.checksum_offset();
        part[offset..offset + 2] != [0, 0] && sum::is_right(&packet[self.addresses()], self.transport.number(), part)
    }

    /// Where source and destination are.
    const fn addresses(&self) -> std::ops::Range<usize> {
        if self.v4 { 12..20 } else { 8..40 }
    }

    /// The parts of the checksums that do not depend on a segment.
    pub(super) fn sums(&self, head: &[u8]) -> Sums {
        let mut network = 0;
        if self.v4 {
            // Without length, identification and the checksum itself.
            network =
                sum::sum(&head[..2], sum::sum(&head[6..10], sum::sum(&head[12..self.transport_at], 0).into()).into());
        }
        Sums { network, pseudo: sum::sum(&head[self.addresses()], self.transport.number().into()) }
    }

    /// Makes lengths and checksums of `head`, the headers, true for a packet with so many bytes of payload: the IPv4
    /// header's checksum whole, the transport's partial.
    pub(super) fn set_payload(&self, sums: &Sums, head: &mut [u8], payload: usize) {
        let part = self.header_len + payload - self.transport_at;
        let short = |len: usize| u16::try_from(len).expect("a packet is short");
        let part = short(part);
        if self.v4 {
            let total = short(self.header_len + payload);
            head[2..4].copy_from_slice(&total.to_be_bytes());
            let id = u16::from_be_bytes([head[4], head[5]]);
            let checksum = !sum::add([sums.network, total, id]);
            head[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            head[4..6].copy_from_slice(&part.to_be_bytes());
        }
        if self.transport == Transport::Udp {
            head[self.transport_at + 4..self.transport_at + 6].copy_from_slice(&part.to_be_bytes());
        }
        let partial = sum::add([sums.pseudo, part]);
        let checksum = self.transport_at + self.transport.checksum_offset();
        head[checksum..checksum + 2].copy_from_slice(&partial.to_be_bytes());
    }
}
