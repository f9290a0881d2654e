//! The header before each packet or frame of a TUN or TAP device with `IFF_VNET_HDR`: `struct virtio_net_hdr` (virtio 1.2
//! §5.1.6), in the machine's own byte order.

use super::layout::{Layout, Transport};

/// What the kernel says of a packet, or is told of one. All places count from the packet's first byte; in the header's bytes
/// they count from the link's header before it, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vnet {
    /// `VIRTIO_NET_HDR_GSO_*`; 0: one packet.
    pub gso_type: u8,
    /// Payload bytes of each segment, but for the last.
    pub gso_size: u16,
    /// Bytes of headers.
    pub header_len: u16,
    /// The checksum is partial: it is to be computed from there…
    pub checksum_start: u16,
    /// …and stored so far from there; `None`: it is complete.
    pub checksum_offset: Option<u16>,
}

/// The checksum field is to be filled in.
const NEEDS_CHECKSUM: u8 = 1;

impl Vnet {
    /// Bytes of it.
    pub const LEN: usize = 10;

    /// One packet, nothing left to do.
    pub const PLAIN: Self = Self { gso_type: 0, gso_size: 0, header_len: 0, checksum_start: 0, checksum_offset: None };

    /// TCP over IPv4.
    pub const TCP_V4: u8 = 1;
    /// TCP over IPv6.
    pub const TCP_V6: u8 = 4;
    /// UDP, from Linux 6.2 on.
    pub const UDP: u8 = 5;
    /// Beside the type: the first packet says CWR (RFC 3168), the others must not.
    pub const ECN: u8 = 0x80;

    /// One segment, or several of `size` payload bytes, with a partial checksum.
    pub(super) fn of(layout: &Layout, size: Option<usize>) -> Self {
        let short = |len: usize| u16::try_from(len).expect("a packet is short");
        Self {
            gso_type: if size.is_some() { layout.gso_type() } else { 0 },
            gso_size: size.map_or(0, short),
            header_len: short(layout.header_len),
            checksum_start: short(layout.transport_at),
            checksum_offset: Some(short(layout.transport.checksum_offset())),
        }
    }

    /// The transport whose segments are inside; `None`: it is one packet, or of no kind that we asked for.
    pub(super) const fn transport(&self) -> Option<Transport> {
        match self.gso_type & !Self::ECN {
            Self::TCP_V4 | Self::TCP_V6 => Some(Transport::Tcp),
            Self::UDP => Some(Transport::Udp),
            _ => None,
        }
    }

    /// The header's bytes, where a link's header of `link` bytes stands between it and the packet.
    pub const fn encode(&self, link: u16) -> [u8; Self::LEN] {
        let (flags, start, offset) = match self.checksum_offset {
            Some(offset) => (NEEDS_CHECKSUM, self.checksum_start.saturating_add(link), offset),
            None => (0, 0, 0),
        };
        let header = if self.header_len == 0 { 0 } else { self.header_len.saturating_add(link) };
        let [header, size, start, offset] =
            [header.to_ne_bytes(), self.gso_size.to_ne_bytes(), start.to_ne_bytes(), offset.to_ne_bytes()];
        [flags, self.gso_type, header[0], header[1], size[0], size[1], start[0], start[1], offset[0], offset[1]]
    }

    /// Reads it.
    pub const fn decode(bytes: &[u8; Self::LEN], link: u16) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        Self {
            gso_type,
            gso_size: u16::from_ne_bytes([g0, g1]),
            header_len: u16::from_ne_bytes([h0, h1]).saturating_sub(link),
            checksum_start: u16::from_ne_bytes([s0, s1]).saturating_sub(link),
            checksum_offset: if flags & NEEDS_CHECKSUM == 0 { None } else { Some(u16::from_ne_bytes([o0, o1])) },
        }
    }

    /// Completes the checksum of one packet, if it is partial.
    pub fn finish(&self, packet: &mut [u8]) {
        if let Some(offset) = self.checksum_offset {
            super::sum::finish(packet, self.checksum_start.into(), offset.into());
        }
    }
}
