//! Cuts a super-packet.

use super::layout::{Layout, Sums, Transport};
use super::vnet::Vnet;
use crate::wire::Malformed;
use crate::wire::session::Segment;

/// TCP flags that only the first segment keeps…
const CWR: u8 = 0x80;
/// …and that only the last one keeps: FIN and PSH.
const LAST: u8 = 0x09;

/// A super-packet and where it is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    packet: &'a [u8],
    layout: Layout,
    sums: Sums,
    size: usize,
}

impl<'a> Cut<'a> {
    /// Reads a super-packet of the TUN.
    ///
    /// # Errors
    /// It is none: `vnet` and the packet say different things.
    pub fn new(vnet: &Vnet, packet: &'a [u8]) -> Result<Self, Malformed> {
        let layout = Layout::of(packet).ok_or(Malformed::Bad("super-packet"))?;
        let size = usize::from(vnet.gso_size);
        if vnet.transport() != Some(layout.transport) || size == 0 {
            return Err(Malformed::Bad("super-packet's kind"));
        }
        Ok(Self { packet, layout, sums: layout.sums(packet), size })
    }

    /// The whole of it.
    pub const fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// How many segments it makes; at least one.
    pub fn count(&self) -> usize {
        self.payload().len().div_ceil(self.size).max(1)
    }

    /// Bytes of the segment at `index`, header included.
    pub fn segment_len(&self, index: usize) -> usize {
        self.layout.header_len + self.part(index).len()
    }

    /// What the descriptor of the segment at `index` says.
    pub fn descriptor(&self, index: usize) -> Segment {
        self.layout.descriptor(u16::try_from(index).expect("at most 65,535 bytes of payload"))
    }

    /// Writes the segment at `index`, [`Cut::segment_len`] bytes, with a partial checksum.
    pub fn write(&self, index: usize, out: &mut [u8]) {
        let (part, last) = (self.part(index), index + 1 >= self.count());
        let Layout { v4, transport, transport_at, header_len } = self.layout;
        let (head, body) = out.split_at_mut(header_len);
        head.copy_from_slice(&self.packet[..header_len]);
        body[..part.len()].copy_from_slice(part);
        if v4 {
            let id = u16::from_be_bytes([head[4], head[5]]).wrapping_add(self.descriptor(index).index);
            head[4..6].copy_from_slice(&id.to_be_bytes());
        }
        if transport == Transport::Tcp {
            let field = &mut head[transport_at + 4..transport_at + 8];
            let sequence = u32::from_be_bytes(field.try_into().expect("four bytes"));
            let ahead = u32::try_from(index * self.size).expect("within the packet");
            field.copy_from_slice(&sequence.wrapping_add(ahead).to_be_bytes());
            let flags = &mut head[transport_at + 13];
            *flags &= !if index == 0 { 0 } else { CWR };
            *flags &= !if last { 0 } else { LAST };
        }
        self.layout.set_payload(&self.sums, head, part.len());
    }

    /// Writes the segment at `index` as a packet of its own, with whole checksums.
    pub fn write_whole(&self, index: usize, out: &mut [u8]) {
        self.write(index, out);
        super::finish(&mut out[..self.segment_len(index)], &self.layout);
    }

    fn payload(&self) -> &'a [u8] {
        &self.packet[self.layout.header_len..]
    }

    fn part(&self, index: usize) -> &'a [u8] {
        let payload = self.payload();
        let start = (index * self.size).min(payload.len());
        &payload[start..(start + self.size).min(payload.len())]
    }
}
