//! Where things are in a packet of UDP, whole or in pieces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const UDP: u8 = 17;
/// Bytes of its header…
pub(super) const UDP_HEADER: usize = 8;
/// …and where in it the checksum is.
pub(super) const CHECKSUM: usize = 6;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const FRAGMENT: u8 = 44;
const FRAGMENT_HEADER: usize = 8;

/// A packet of UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Udp {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) part: Part,
    /// Where the datagram, or its piece, begins.
    pub(super) at: usize,
    /// Bytes of the packet; what stands behind them is padding.
    pub(super) len: usize,
}

/// Which part of the datagram it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    First,
    /// From this byte on, in units of eight; it has no ports.
    Later(u16),
}

impl Udp {
    /// Reads a packet; `None`: it is something else.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let udp = match packet.first()? >> 4 {
            4 => Self::read_v4(packet),
            6 => Self::read_v6(packet),
            _ => None,
        }?;
        (udp.at <= udp.len && udp.len <= packet.len()).then_some(udp)
    }

    fn read_v4(packet: &[u8]) -> Option<Self> {
        let head = packet.first_chunk::<IPV4_HEADER>()?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let (flags, at) = (word(6), usize::from(head[0] & 0xf) * 4);
        let part = match (flags & 0x2000 != 0, flags & 0x1fff) {
            (false, 0) => Part::Whole,
            (true, 0) => Part::First,
            (_, offset) => Part::Later(offset),
        };
        let ip = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]).into();
        let udp = Self { source: ip(12), destination: ip(16), part, at, len: word(2).into() };
        (head[9] == UDP && at >= IPV4_HEADER).then_some(udp)
    }

    fn read_v6(packet: &[u8]) -> Option<Self> {
        let (head, rest) = packet.split_first_chunk::<IPV6_HEADER>()?;
        let len = IPV6_HEADER + usize::from(u16::from_be_bytes([head[4], head[5]]));
        let (part, at) = match head[6] {
            UDP => (Part::Whole, IPV6_HEADER),
            FRAGMENT => {
                let [next, _, high, low, ..] = rest.first_chunk::<FRAGMENT_HEADER>()?;
                let part = match u16::from_be_bytes([*high, *low]) >> 3 {
                    0 => Part::First,
                    offset => Part::Later(offset),
                };
                (*next == UDP).then_some((part, IPV6_HEADER + FRAGMENT_HEADER))?
            }
            _ => return None,
        };
        let ip = |at: usize| Some(IpAddr::V6(Ipv6Addr::from(*head[at..].first_chunk::<16>()?)));
        Some(Self { source: ip(8)?, destination: ip(24)?, part, at, len })
    }

    /// Its bytes without the headers of IP.
    pub(super) fn datagram<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.at..self.len).unwrap_or_default()
    }

    /// Its source and destination ports, and the length that it states. A later piece has none.
    pub(super) fn header(&self, packet: &[u8]) -> Option<(u16, u16, usize)> {
        let [a, b, c, d, e, f, ..] = self.datagram(packet).first_chunk::<UDP_HEADER>()?;
        let [source, destination, len] = [[*a, *b], [*c, *d], [*e, *f]].map(u16::from_be_bytes);
        (!matches!(self.part, Part::Later(_))).then_some((source, destination, len.into()))
    }

    /// Where its addresses are.
    pub(super) const fn addresses(&self) -> std::ops::Range<usize> {
        if self.destination.is_ipv4() { 12..20 } else { 8..40 }
    }
}
