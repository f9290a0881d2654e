//! Puts together what was cut.

use super::layout::{Layout, Transport};
use super::vnet::Vnet;
use crate::wire::session::Segment;

/// Most payloads of one super-packet.
const MOST: usize = 64;
/// Most bytes of one super-packet: what an IP length can say.
const MOST_BYTES: usize = u16::MAX as usize;
/// Most bytes of headers: IPv4 with options and TCP with options.
const MOST_HEADER: usize = 120;
/// The TCP flags that end a run: FIN and PSH stand in the last segment alone.
const LAST: u8 = 0x09;
/// The TCP flag that only the first segment of a super-packet may have.
const CWR: u8 = 0x80;

/// Where a segment comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The receiver index of its datagram: one peer's one set of keys.
    pub keys: u32,
    /// The datagram's counter.
    pub counter: u32,
    /// The segment's place in its super-packet.
    pub index: u16,
}

impl Place {
    fn follows(self, before: Self) -> bool {
        self.keys == before.keys
            && Some(self.counter) == before.counter.checked_add(1)
            && Some(self.index) == before.index.checked_add(1)
    }
}

/// A super-packet that grows while segments continue it. Holds its payloads where they lie.
#[derive(Debug)]
pub struct Join<'a> {
    head: [u8; MOST_HEADER],
    layout: Layout,
    parts: [&'a [u8]; MOST],
    count: usize,
    bytes: usize,
    /// Of the last segment; `None`: they are packets of their own.
    last: Option<Place>,
    ended: bool,
}

impl<'a> Join<'a> {
    /// Begins with one segment, whose descriptor must be what [`super::describe`] says of it; gives nothing if not.
    pub fn begin(place: Place, segment: Segment, packet: &'a [u8]) -> Option<Self> {
        let layout = Layout::of(packet).filter(|layout| layout.descriptor(segment.index) == segment)?;
        let (header, payload) = packet.split_at(layout.header_len);
        let mut head = [0; MOST_HEADER];
        head.get_mut(..header.len())?.copy_from_slice(header);
        let mut parts: [&[u8]; MOST] = [&[]; MOST];
        parts[0] = payload;
        // A first one that says CWR would need a kind of its own; it is rare.
        let alone = layout.transport == Transport::Tcp && header[layout.transport_at + 13] & CWR != 0;
        let ended = payload.is_empty() || alone || ends(&layout, header);
        Some(Self { head, layout, parts, count: 1, bytes: payload.len(), last: Some(place), ended })
    }

    /// Begins with a packet of its own: UDP with a right checksum. A game's packets come in bursts too.
    pub fn begin_alone(packet: &'a [u8]) -> Option<Self> {
        let layout = Layout::of(packet).filter(|layout| is_alike(layout, packet))?;
        let (header, payload) = packet.split_at(layout.header_len);
        let mut head = [0; MOST_HEADER];
        head.get_mut(..header.len())?.copy_from_slice(header);
        let mut parts: [&[u8]; MOST] = [&[]; MOST];
        parts[0] = payload;
        Some(Self { head, layout, parts, count: 1, bytes: payload.len(), last: None, ended: false })
    }

    /// Takes a packet of its own in if it is of the same flow and no longer.
    pub fn push_alone(&mut self, packet: &'a [u8]) -> bool {
        if self.ended || self.last.is_some() || self.count == MOST {
            return false;
        }
        let Some(layout) = Layout::of(packet).filter(|layout| is_alike(layout, packet)) else { return false };
        let (header, payload) = packet.split_at(layout.header_len);
        let fits = self.fits(&layout, header, payload);
        if fits {
            self.add(payload);
        }
        fits
    }

    /// Takes a segment in if it continues the run without a gap.
    pub fn push(&mut self, place: Place, segment: Segment, packet: &'a [u8]) -> bool {
        if self.ended || self.count == MOST || !self.last.is_some_and(|last| place.follows(last)) {
            return false;
        }
        let Some(layout) = Layout::of(packet) else { return false };
        let (header, payload) = packet.split_at(layout.header_len);
        let fits = layout.descriptor(segment.index) == segment && self.fits(&layout, header, payload);
        if fits {
            self.add(payload);
            self.last = Some(place);
            self.ended |= ends(&layout, header);
            if layout.transport == Transport::Tcp {
                // What only the last one says is true of the whole.
                self.head[layout.transport_at + 13] |= header[layout.transport_at + 13] & LAST;
            }
        }
        fits
    }

    fn fits(&self, layout: &Layout, header: &[u8], payload: &[u8]) -> bool {
        *layout == self.layout
            && !payload.is_empty()
            && payload.len() <= self.size()
            && layout.header_len + self.bytes + payload.len() <= MOST_BYTES
            && self.continues(header)
    }

    fn add(&mut self, payload: &'a [u8]) {
        self.parts[self.count] = payload;
        self.count += 1;
        self.bytes += payload.len();
        self.ended = payload.len() < self.size();
    }

    /// What is to be written: what is to be done with it, the headers, the payloads.
    pub fn finish(&mut self) -> (Vnet, &[u8], &[&'a [u8]]) {
        let head = &mut self.head[..self.layout.header_len];
        if self.last.is_none() && self.count == 1 {
            return (Vnet::PLAIN, head, &self.parts[..1]);
        }
        self.layout.set_payload(&self.layout.sums(head), head, self.bytes);
        let size = (self.count > 1).then_some(self.parts[0].len());
        (Vnet::of(&self.layout, size), head, &self.parts[..self.count])
    }

    /// Payload bytes of each but the last.
    const fn size(&self) -> usize {
        self.parts[0].len()
    }

    /// Whether these headers are the run's own, as far as segments of one super-packet agree.
    fn continues(&self, header: &[u8]) -> bool {
        let Layout { v4, transport, transport_at, header_len } = self.layout;
        let same = |from: usize, to: usize| self.head[from..to] == header[from..to];
        let id = |bytes: &[u8]| u16::from_be_bytes([bytes[4], bytes[5]]);
        let nth = u16::try_from(self.count).expect("at most 64");
        // The identification counts on, unless it means nothing (RFC 6864 §4: "don't fragment" is set).
        let counts = || header[6] & 0x40 != 0 || id(header) == id(&self.head).wrapping_add(nth);
        // Lengths and checksums differ.
        let network = if v4 {
            same(0, 2) && same(6, 10) && same(12, transport_at) && counts()
        } else {
            same(0, 4) && same(6, 40)
        };
        network
            && match transport {
                Transport::Udp => same(transport_at, transport_at + 4),
                Transport::Tcp => {
                    let number = |bytes: &[u8]| {
                        let field = &bytes[transport_at + 4..transport_at + 8];
                        u32::from_be_bytes(field.try_into().expect("four bytes"))
                    };
                    let ahead = u32::try_from(self.bytes).expect("below 64 KB");
                    let flags = |bytes: &[u8]| bytes[transport_at + 13];
                    let plain = |flags: u8| flags & !LAST;
                    number(header) == number(&self.head).wrapping_add(ahead)
                        && same(transport_at, transport_at + 4)
                        && same(transport_at + 8, transport_at + 13)
                        && plain(flags(header)) == plain(flags(&self.head))
                        && same(transport_at + 14, transport_at + 16)
                        && same(transport_at + 18, header_len)
                }
            }
    }
}

/// Whether a packet of its own may be one of several: UDP with a right checksum, which is made anew.
fn is_alike(layout: &Layout, packet: &[u8]) -> bool {
    layout.transport == Transport::Udp && packet.len() > layout.header_len && layout.has_right_checksum(packet)
}

fn ends(layout: &Layout, header: &[u8]) -> bool {
    layout.transport == Transport::Tcp && header[layout.transport_at + 13] & LAST != 0
}
