//! A packet for many that a program here sent on a real LAN, as it would have been had it been sent on the overlay.
//!
//! A socket that is bound to nothing sends such packets by one interface, mostly a real LAN's. They are heard there as ever;
//! here a copy is adopted: its source becomes our own address in the overlay, so that answers come by the overlay, and the
//! LAN's broadcast address the overlay's. How far it may go stays as it is: multicast mostly has a TTL of 1.
//!
//! What a program left to the network card is not done in a copy that was taken before: checksums are computed anew. Only
//! a datagram in pieces has a finished one, in its first piece, which is corrected (RFC 1624).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::offload::sum;
use crate::router::Owned;
use crate::wire::beacon;

const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
/// Where its checksum is.
const CHECKSUM: usize = 6;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const FRAGMENT: u8 = 44;
const FRAGMENT_HEADER: usize = 8;
/// The scope of a group that stays on its link.
const LINK_LOCAL: u8 = 2;

/// Ports of what is about one LAN alone: DHCP, DHCPv6, mDNS and LLMNR, which send on each interface what is true there, and
/// our own beacons.
const OF_ONE_LAN: [u16; 7] = [67, 68, 546, 547, 5353, 5355, beacon::PORT];

/// A real LAN of this machine.
#[derive(Clone, Copy, Debug)]
pub struct RealLan<'a> {
    /// The interface's index.
    pub interface: u32,
    /// The broadcast addresses of the subnets there.
    pub broadcasts: &'a [Ipv4Addr],
    /// All addresses of this machine, of whichever interface: what others send is not ours to pass on.
    pub hosts: &'a [IpAddr],
}

/// A packet of UDP for many, whole or a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overheard {
    /// Where it was sent to.
    pub destination: IpAddr,
    /// Its bytes; what stands behind them is padding.
    pub len: usize,
    part: Part,
    /// Where what UDP carries, or its piece, begins.
    payload_at: usize,
}

/// Which part of the datagram it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Later,
}

impl Overheard {
    /// Reads a packet that was sent on `lan`; `None`: it is none that the overlay should have.
    pub fn read(packet: &[u8], lan: &RealLan<'_>) -> Option<Self> {
        let (heard, source) = match packet.first()? >> 4 {
            4 => Self::read_v4(packet)?,
            6 => Self::read_v6(packet)?,
            _ => return None,
        };
        let is_for_many = match heard.destination {
            IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || lan.broadcasts.contains(&v4),
            IpAddr::V6(v6) => v6.is_multicast(),
        };
        let is_beacon = [IpAddr::V4(beacon::GROUP_V4), IpAddr::V6(beacon::GROUP_V6)].contains(&heard.destination);
        (is_for_many && !is_beacon && lan.hosts.contains(&source) && heard.is_of_the_overlay(packet)).then_some(heard)
    }

    fn read_v4(packet: &[u8]) -> Option<(Self, IpAddr)> {
        let head = packet.first_chunk::<IPV4_HEADER>()?;
        let (header, len) = (usize::from(head[0] & 0xf) * 4, usize::from(u16::from_be_bytes([head[2], head[3]])));
        let fragment = u16::from_be_bytes([head[6], head[7]]);
        let part = match (fragment & 0x2000 != 0, fragment & 0x1fff) {
            (false, 0) => Part::Whole,
            (true, 0) => Part::First,
            _ => Part::Later,
        };
        let [source, destination] = [12, 16].map(|at| v4_at(packet, at));
        let heard = Self { destination: destination?.into(), len, part, payload_at: header };
        (header >= IPV4_HEADER && header <= len && len <= packet.len() && head[9] == UDP)
            .then_some((heard, source?.into()))
    }

    fn read_v6(packet: &[u8]) -> Option<(Self, IpAddr)> {
        let head = packet.first_chunk::<IPV6_HEADER>()?;
        let len = IPV6_HEADER + usize::from(u16::from_be_bytes([head[4], head[5]]));
        let (part, payload_at) = match head[6] {
            UDP => (Part::Whole, IPV6_HEADER),
            FRAGMENT => {
                let fragment = packet.get(IPV6_HEADER..)?.first_chunk::<FRAGMENT_HEADER>()?;
                let first = u16::from_be_bytes([fragment[2], fragment[3]]) & 0xfff8 == 0;
                let part = if first { Part::First } else { Part::Later };
                (fragment[0] == UDP).then_some((part, IPV6_HEADER + FRAGMENT_HEADER))?
            }
            _ => return None,
        };
        let [source, destination] = [8, 24].map(|at| v6_at(packet, at));
        let heard = Self { destination: destination?.into(), len, part, payload_at };
        (payload_at <= len && len <= packet.len()).then_some((heard, source?.into()))
    }

    /// Whether its ports are not those of one LAN; a later piece has none.
    fn is_of_the_overlay(&self, packet: &[u8]) -> bool {
        if self.part == Part::Later {
            return true;
        }
        let payload = &packet[self.payload_at..self.len];
        let Some([a, b, c, d, e, f, ..]) = payload.first_chunk::<UDP_HEADER>() else { return false };
        let [source, destination, len] = [[*a, *b], [*c, *d], [*e, *f]].map(u16::from_be_bytes);
        let is_one_lans = OF_ONE_LAN.contains(&source) || OF_ONE_LAN.contains(&destination);
        !is_one_lans && (self.part == Part::First || usize::from(len) == payload.len())
    }

    /// Makes it one of ours, `me`, on an overlay with this broadcast address: its bytes. `None`: we have no address of its
    /// family.
    pub fn adopt<'a>(&self, packet: &'a mut [u8], me: &Owned, broadcast: Ipv4Addr) -> Option<&'a mut [u8]> {
        let packet = packet.get_mut(..self.len)?;
        let addresses = if self.destination.is_ipv4() { 12..20 } else { 8..40 };
        let before = sum::sum(&packet[addresses.clone()], 0);
        match self.destination {
            IpAddr::V4(to) => {
                let to = if to.is_multicast() || to.is_broadcast() { to } else { broadcast };
                packet[12..16].copy_from_slice(&me.v4?.octets());
                packet[16..20].copy_from_slice(&to.octets());
                set_header_checksum(packet);
            }
            IpAddr::V6(to) => packet[8..24].copy_from_slice(&source_for(to, me).octets()),
        }
        let after = sum::sum(&packet[addresses.clone()], 0);
        match self.part {
            Part::Whole => {
                let partial = sum::pseudo(&packet[addresses], UDP, self.len - self.payload_at);
                packet[self.payload_at + CHECKSUM..][..2].copy_from_slice(&partial.to_be_bytes());
                sum::finish(packet, self.payload_at, CHECKSUM);
            }
            Part::First => correct(&mut packet[self.payload_at + CHECKSUM..], before, after),
            Part::Later => {}
        }
        Some(packet)
    }
}

/// Our address for what is sent to a group: answers to what stays on a link come there (RFC 4291 §2.7).
fn source_for(group: Ipv6Addr, me: &Owned) -> Ipv6Addr {
    let scope = group.octets()[1] & 0xf;
    if scope == LINK_LOCAL { me.link_local } else { me.ula }
}

/// Puts the right checksum into an IPv4 header.
pub(super) fn set_header_checksum(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 0xf) * 4;
    packet[10..12].fill(0);
    let checksum = !sum::sum(&packet[..header], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Corrects the checksum at the start of `field` after what it covers has changed: its sum was `before`, and is `after`.
fn correct(field: &mut [u8], before: u16, after: u16) {
    let checksum = u16::from_be_bytes([field[0], field[1]]);
    // Zero: there is none.
    if checksum != 0 {
        let corrected = match !sum::add([!checksum, !before, after]) {
            0 => 0xffff,
            other => other,
        };
        field[..2].copy_from_slice(&corrected.to_be_bytes());
    }
}

fn v4_at(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    packet.get(at..)?.first_chunk().copied().map(Ipv4Addr::from_octets)
}

fn v6_at(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    packet.get(at..)?.first_chunk().copied().map(Ipv6Addr::from_octets)
}
