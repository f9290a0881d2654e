//! Everything of one pair of peers: the handshake, and what is sealed under its keys.
//!
//! # Handshake
//!
//! Both messages have one frame, the same in every version: an 8-byte header, and two MACs as the last 32
//! bytes. So a peer of another version is recognised, and named, by one who cannot read more of it.
//!
//! ```text
//!  0  kind 0xE2 (initiation) | 0xE3 (response)
//!  1  sender index u24        what the sender wants on packets under the new keys
//!  4  version u8
//!  5  receiver index u24      initiation: 0; response: the initiation's sender index
//!  8  Noise message           initiation: e 32, sealed s 48, sealed payload 520 + 16
//!                             response:   e 32, sealed payload 520 + 16
//! -32 mac1 16                 under a key from the network key and the receiver's id, over all before it
//! -16 mac2 16                 under a cookie, over all before it; zeros: no cookie
//! ```
//!
//! That makes [`INITIATION_LEN`] and [`RESPONSE_LEN`] bytes, always. Payloads are padded with zeros:
//!
//! ```text
//! initiation  number u64 | features u32 | suites u8 (bit 0 AES-256-GCM, bit 1 ChaCha20-Poly1305) | len u16 | signed announcement
//! response    features u32 | suite u8 (the chosen bit) | len u16 | signed announcement
//! ```
//!
//! ```text
//! cookie reply   0xE4 | receiver index u24 | nonce 16 | sealed cookie 16 + 16
//! ```
//!
//! # Data and control
//!
//! ```text
//!  0  kind 0xE0 (data) | 0xE1 (control)
//!  1  receiver index u24
//!  4  counter u32
//!  8  sealed: inner kind u8, body       the 8 bytes before it are authenticated
//!     tag 16
//! ```
//!
//! ```text
//! data     1 packet         the packet
//!          2 segment        gso type u8 | csum start u8 | csum offset u8 | header len u16 | segment index u16 | packet
//!          3 fragment       id u16 | more u1, offset u15 in 8-byte units | bytes
//! control  0 nothing        proves that the sender has the keys
//!          1 ping           id u64
//!          2 pong           id u64
//!          3 announcement   len u16 | signed announcement
//!          4 goodbye
//!          5 address taken  what u8 (1 IPv4, 2 name) | len u16 | the holder's signed announcement
//! ```

use super::announcement::MAX_SIGNED;
use super::{Malformed, Reader, Writer, kind};

/// Bytes of an initiation.
pub const INITIATION_LEN: usize = HEADER + INITIATION_NOISE + 2 * MAC;
/// Bytes of a response.
pub const RESPONSE_LEN: usize = HEADER + RESPONSE_NOISE + 2 * MAC;
/// Bytes of a cookie reply.
pub const COOKIE_REPLY_LEN: usize = 4 + 16 + 32;
/// Bytes of the Noise message in an initiation.
pub const INITIATION_NOISE: usize = 32 + 48 + PAYLOAD + TAG;
/// Bytes of the Noise message in a response.
pub const RESPONSE_NOISE: usize = 32 + PAYLOAD + TAG;
/// Bytes of a handshake payload, padded.
pub const PAYLOAD: usize = 520;
/// Bytes of the clear header of every message here.
pub const HEADER: usize = 8;
/// Bytes of an AEAD tag.
pub const TAG: usize = 16;
/// Bytes of mac1 and of mac2.
pub const MAC: usize = 16;
/// Bytes around the body of a data packet: header, inner kind, tag.
pub const OVERHEAD: usize = HEADER + 1 + TAG;

// ---- handshake -----------------------------------------------------------------------------------------

/// The frame that both handshake messages have in every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake<'a> {
    /// [`kind::INITIATION`] or [`kind::RESPONSE`].
    pub kind: u8,
    /// The index that the sender wants to be addressed by.
    pub sender: u32,
    /// The sender's version.
    pub version: u8,
    /// The index of whom it answers; 0 in an initiation.
    pub receiver: u32,
    /// The Noise message.
    pub noise: &'a [u8],
    /// MAC over [`Handshake::before_mac1`].
    pub mac1: &'a [u8; MAC],
    /// MAC over [`Handshake::before_mac2`]; zeros: none.
    pub mac2: &'a [u8; MAC],
    bytes: &'a [u8],
}

impl<'a> Handshake<'a> {
    /// Reads the frame of either message, of any version.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let kind = match r.u8()? {
            kind @ (kind::INITIATION | kind::RESPONSE) => kind,
            other => return Err(Malformed::UnknownKind(other)),
        };
        let (sender, version, receiver) = (r.u24()?, r.u8()?, r.u24()?);
        let (rest, mac2) = r.rest().split_last_chunk().ok_or(Malformed::Truncated)?;
        let (noise, mac1) = rest.split_last_chunk().ok_or(Malformed::Truncated)?;
        Ok(Self { kind, sender, version, receiver, noise, mac1, mac2, bytes })
    }

    /// The message with both MACs zero.
    pub fn encode(kind: u8, sender: u32, version: u8, receiver: u32, noise: &[u8]) -> Vec<u8> {
        let len = HEADER + noise.len() + 2 * MAC;
        let mut w = Writer::with_capacity(len);
        w.u8(kind).u24(sender).u8(version).u24(receiver).bytes(noise).pad_to(len).finish()
    }

    /// What mac1 covers.
    pub fn before_mac1(&self) -> &'a [u8] {
        &self.bytes[..self.bytes.len() - 2 * MAC]
    }

    /// What mac2 covers.
    pub fn before_mac2(&self) -> &'a [u8] {
        &self.bytes[..self.bytes.len() - MAC]
    }
}

/// The sealed payload of an initiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitiationPayload<'a> {
    /// The initiation's place in the sender's one sequence of numbers.
    pub number: u64,
    /// What the sender can do.
    pub features: u32,
    /// The suites it offers, a bit each.
    pub suites: u8,
    /// Its signed announcement.
    pub announcement: &'a [u8],
}

impl<'a> InitiationPayload<'a> {
    /// The padded payload.
    ///
    /// # Panics
    /// If the announcement is longer than a signed one can be.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(PAYLOAD);
        w.u64(self.number).u32(self.features).u8(self.suites);
        put_announcement(&mut w, self.announcement);
        w.pad_to(PAYLOAD).finish()
    }

    /// Reads a payload.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        Ok(Self { number: r.u64()?, features: r.u32()?, suites: r.u8()?, announcement: take_announcement(&mut r)? })
    }
}

/// The sealed payload of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponsePayload<'a> {
    /// What the sender can do.
    pub features: u32,
    /// The suite it chose, as one bit.
    pub suite: u8,
    /// Its signed announcement.
    pub announcement: &'a [u8],
}

impl<'a> ResponsePayload<'a> {
    /// The padded payload.
    ///
    /// # Panics
    /// If the announcement is longer than a signed one can be.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(PAYLOAD);
        w.u32(self.features).u8(self.suite);
        put_announcement(&mut w, self.announcement);
        w.pad_to(PAYLOAD).finish()
    }

    /// Reads a payload.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        Ok(Self { features: r.u32()?, suite: r.u8()?, announcement: take_announcement(&mut r)? })
    }
}

fn put_announcement(w: &mut Writer, signed: &[u8]) {
    assert!(signed.len() <= MAX_SIGNED, "only signed announcements are sent, and those are short enough");
    w.u16(u16::try_from(signed.len()).expect("at most MAX_SIGNED")).bytes(signed);
}

fn take_announcement<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let len = usize::from(r.u16()?);
    r.bytes(len)
}

/// "Prove your address first": a cookie for the next initiation's mac2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// The sender index of the initiation that it answers.
    pub receiver: u32,
    /// Makes the sealing key unique.
    pub nonce: [u8; 16],
    /// The cookie, sealed.
    pub sealed: [u8; 32],
}

impl CookieReply {
    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(COOKIE_REPLY_LEN);
        w.u8(kind::COOKIE_REPLY).u24(self.receiver).bytes(&self.nonce).bytes(&self.sealed).finish()
    }

    /// Reads a message.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            kind::COOKIE_REPLY => Ok(Self { receiver: r.u24()?, nonce: r.array()?, sealed: r.array()? }),
            other => Err(Malformed::UnknownKind(other)),
        }
    }
}

/// Whose handshake message, data or control this is: the receiver index, without reading more.
pub fn receiver_index(datagram: &[u8]) -> Option<u32> {
    let at = match datagram.first()? {
        &kind::DATA | &kind::CONTROL | &kind::COOKIE_REPLY => 1,
        &kind::RESPONSE => 5,
        _ => return None,
    };
    Reader::new(datagram.get(at..)?).u24().ok()
}

// ---- data and control ----------------------------------------------------------------------------------

/// The two streams under one pair of keys, each with keys and counters of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Packets of the overlay.
    Data,
    /// Messages between the two nodes.
    Control,
}

impl Channel {
    /// Its first byte.
    pub const fn kind(self) -> u8 {
        match self {
            Self::Data => kind::DATA,
            Self::Control => kind::CONTROL,
        }
    }
}

/// The clear header of data and control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which stream.
    pub channel: Channel,
    /// The receiver's index, 24 bits.
    pub index: u32,
    /// The packet's number under its key.
    pub counter: u32,
}

impl Header {
    /// The header's bytes.
    pub const fn encode(&self) -> [u8; HEADER] {
        let ([_, i, j, k], [a, b, c, d]) = (self.index.to_be_bytes(), self.counter.to_be_bytes());
        [self.channel.kind(), i, j, k, a, b, c, d]
    }

    /// Reads the header of a datagram that has room for an inner kind and a tag.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() < OVERHEAD {
            return Err(Malformed::Truncated);
        }
        let mut r = Reader::new(datagram);
        let channel = match r.u8()? {
            kind::DATA => Channel::Data,
            kind::CONTROL => Channel::Control,
            other => return Err(Malformed::UnknownKind(other)),
        };
        Ok(Self { channel, index: r.u24()?, counter: r.u32()? })
    }
}

/// Inner kinds of the data channel.
pub mod data {
    /// A packet.
    pub const PACKET: u8 = 1;
    /// A segment of a super-packet, after its [`super::Segment`].
    pub const SEGMENT: u8 = 2;
    /// A part of a packet, after its [`super::Fragment`].
    pub const FRAGMENT: u8 = 3;
}

/// Describes the super-packet that a segment was cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// `gso_type` of virtio-net.
    pub gso_type: u8,
    /// Where the checksummed part starts.
    pub csum_start: u8,
    /// Where the checksum goes, from there.
    pub csum_offset: u8,
    /// Bytes of headers.
    pub header_len: u16,
    /// The segment's place in the super-packet.
    pub index: u16,
}

impl Segment {
    /// Bytes on the wire.
    pub const LEN: usize = 7;

    /// The descriptor's bytes.
    pub const fn encode(&self) -> [u8; Self::LEN] {
        let ([a, b], [c, d]) = (self.header_len.to_be_bytes(), self.index.to_be_bytes());
        [self.gso_type, self.csum_start, self.csum_offset, a, b, c, d]
    }

    /// The descriptor, and the packet behind it.
    pub fn decode(body: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut r = Reader::new(body);
        let segment = Self {
            gso_type: r.u8()?,
            csum_start: r.u8()?,
            csum_offset: r.u8()?,
            header_len: r.u16()?,
            index: r.u16()?,
        };
        Ok((segment, r.rest()))
    }
}

/// Says which part of a packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Common to the parts of one packet.
    pub id: u16,
    /// Whether a later part follows.
    pub more: bool,
    /// Where the part belongs, in units of 8 bytes; 15 bits.
    pub offset: u16,
}

impl Fragment {
    /// Bytes on the wire.
    pub const LEN: usize = 4;
    const MORE: u16 = 0x8000;

    /// The header's bytes.
    pub const fn encode(&self) -> [u8; Self::LEN] {
        let offset = (self.offset & !Self::MORE) | if self.more { Self::MORE } else { 0 };
        let ([a, b], [c, d]) = (self.id.to_be_bytes(), offset.to_be_bytes());
        [a, b, c, d]
    }

    /// The header, and the part behind it.
    pub fn decode(body: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut r = Reader::new(body);
        let (id, offset) = (r.u16()?, r.u16()?);
        Ok((Self { id, more: offset & Self::MORE != 0, offset: offset & !Self::MORE }, r.rest()))
    }
}

/// A message on the control channel: the sealed inner kind and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// Proves that the sender has the keys.
    Nothing,
    /// Please answer with a pong.
    Ping(u64),
    /// Answer to the ping of that id.
    Pong(u64),
    /// A signed announcement, anybody's.
    Announcement(&'a [u8]),
    /// The sender leaves.
    Goodbye,
    /// What the receiver claims is bound to another.
    AddressTaken {
        /// What is taken.
        what: Taken,
        /// The holder's signed announcement.
        holder: &'a [u8],
    },
}

/// What an [`Control::AddressTaken`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The IPv4 address.
    V4 = 1,
    /// The name.
    Name = 2,
}

impl<'a> Control<'a> {
    /// Inner kind and body.
    ///
    /// # Panics
    /// If an announcement is longer than a signed one can be.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match *self {
            Self::Nothing => w.u8(0),
            Self::Ping(id) => w.u8(1).u64(id),
            Self::Pong(id) => w.u8(2).u64(id),
            Self::Announcement(signed) => {
                put_announcement(w.u8(3), signed);
                &mut w
            }
            Self::Goodbye => w.u8(4),
            Self::AddressTaken { what, holder } => {
                put_announcement(w.u8(5).u8(what as u8), holder);
                &mut w
            }
        };
        w.finish()
    }

    /// Reads inner kind and body.
    pub fn decode(inner: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(inner);
        Ok(match r.u8()? {
            0 => Self::Nothing,
            1 => Self::Ping(r.u64()?),
            2 => Self::Pong(r.u64()?),
            3 => Self::Announcement(take_announcement(&mut r)?),
            4 => Self::Goodbye,
            5 => {
                let what = match r.u8()? {
                    1 => Taken::V4,
                    2 => Taken::Name,
                    _ => return Err(Malformed::Bad("what is taken")),
                };
                Self::AddressTaken { what, holder: take_announcement(&mut r)? }
            }
            other => return Err(Malformed::UnknownKind(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn handshake_messages_have_their_lengths() {
        assert_eq!((INITIATION_LEN, RESPONSE_LEN, COOKIE_REPLY_LEN, OVERHEAD), (656, 608, 52, 25));
        assert_eq!(Handshake::encode(kind::INITIATION, 1, 1, 0, &[0; INITIATION_NOISE]).len(), INITIATION_LEN);
        assert_eq!(Handshake::encode(kind::RESPONSE, 1, 1, 2, &[0; RESPONSE_NOISE]).len(), RESPONSE_LEN);
    }

    #[test]
    fn the_handshake_frame_holds_in_both_directions() {
        let mut bytes = Handshake::encode(kind::RESPONSE, 0x010203, 7, 0x040506, &[0xcc; 3]);
        assert_eq!(bytes[..11], [0xe3, 1, 2, 3, 7, 4, 5, 6, 0xcc, 0xcc, 0xcc]);
        assert_eq!(bytes[11..], [0; 32]);
        bytes[11..27].fill(0xd1);
        bytes[27..].fill(0xd2);
        let frame = Handshake::decode(&bytes).expect("decodes");
        assert_eq!((frame.kind, frame.sender, frame.version, frame.receiver), (kind::RESPONSE, 0x010203, 7, 0x040506));
        assert_eq!((frame.noise, frame.mac1, frame.mac2), (&[0xcc; 3][..], &[0xd1; 16], &[0xd2; 16]));
        assert_eq!((frame.before_mac1(), frame.before_mac2()), (&bytes[..11], &bytes[..27]));
        assert_eq!(receiver_index(&bytes), Some(0x040506));
        assert_eq!(Handshake::decode(&bytes[..39]), Err(Malformed::Truncated));
    }

    #[test]
    fn handshake_payloads_hold_in_both_directions() {
        let initiation = InitiationPayload { number: 0x0102, features: 3, suites: 3, announcement: b"xyz" };
        let bytes = initiation.encode();
        assert_eq!(bytes[..18], [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 3, 0, 3, b'x', b'y', b'z']);
        assert_eq!((bytes.len(), bytes[18..].iter().all(|b| *b == 0)), (PAYLOAD, true));
        assert_eq!(InitiationPayload::decode(&bytes), Ok(initiation));
        let response = ResponsePayload { features: 3, suite: 2, announcement: b"xyz" };
        let bytes = response.encode();
        assert_eq!(bytes[..10], [0, 0, 0, 3, 2, 0, 3, b'x', b'y', b'z']);
        assert_eq!((bytes.len(), bytes[10..].iter().all(|b| *b == 0)), (PAYLOAD, true));
        assert_eq!(ResponsePayload::decode(&bytes), Ok(response));
        assert_eq!(InitiationPayload { announcement: &[0; MAX_SIGNED], ..initiation }.encode().len(), PAYLOAD);
    }

    #[test]
    fn the_cookie_reply_holds_in_both_directions() {
        let reply = CookieReply { receiver: 0x010203, nonce: [0xaa; 16], sealed: [0xbb; 32] };
        let mut vector = vec![0xe4, 1, 2, 3];
        vector.extend([0xaa; 16]);
        vector.extend([0xbb; 32]);
        assert_eq!(reply.encode(), vector);
        assert_eq!(CookieReply::decode(&vector), Ok(reply));
        assert_eq!(receiver_index(&vector), Some(0x010203));
    }

    #[test]
    fn the_header_holds_in_both_directions() {
        for (channel, first) in [(Channel::Data, 0xe0), (Channel::Control, 0xe1)] {
            let header = Header { channel, index: 0x010203, counter: 0x04050607 };
            assert_eq!(header.encode(), [first, 1, 2, 3, 4, 5, 6, 7]);
            let mut datagram = header.encode().to_vec();
            assert_eq!(Header::decode(&datagram), Err(Malformed::Truncated));
            datagram.extend([0; 17]);
            assert_eq!(Header::decode(&datagram), Ok(header));
            assert_eq!(receiver_index(&datagram), Some(0x010203));
        }
    }

    #[test]
    fn segments_and_fragments_hold_in_both_directions() {
        let segment = Segment { gso_type: 1, csum_start: 2, csum_offset: 3, header_len: 0x0405, index: 0x0607 };
        assert_eq!(segment.encode(), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Segment::decode(&[1, 2, 3, 4, 5, 6, 7, 8]), Ok((segment, &[8][..])));
        let fragment = Fragment { id: 0x0102, more: true, offset: 0x0304 };
        assert_eq!(fragment.encode(), [1, 2, 0x83, 4]);
        assert_eq!(Fragment::decode(&[1, 2, 0x83, 4, 5]), Ok((fragment, &[5][..])));
        assert_eq!(Fragment { more: false, ..fragment }.encode(), [1, 2, 3, 4]);
    }

    #[test]
    fn control_messages_hold_in_both_directions() {
        let vectors: [(Control<'_>, &[u8]); 7] = [
            (Control::Nothing, &[0]),
            (Control::Ping(0x0102), &[1, 0, 0, 0, 0, 0, 0, 1, 2]),
            (Control::Pong(0x0102), &[2, 0, 0, 0, 0, 0, 0, 1, 2]),
            (Control::Announcement(b"ab"), &[3, 0, 2, b'a', b'b']),
            (Control::Goodbye, &[4]),
            (Control::AddressTaken { what: Taken::V4, holder: b"ab" }, &[5, 1, 0, 2, b'a', b'b']),
            (Control::AddressTaken { what: Taken::Name, holder: b"" }, &[5, 2, 0, 0]),
        ];
        for (message, bytes) in vectors {
            assert_eq!(message.encode(), bytes);
            assert_eq!(Control::decode(bytes), Ok(message));
            assert_eq!(Control::decode(&[bytes, &[0xff]].concat()), Ok(message), "trailing bytes are ignored");
            assert!(Control::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        assert_eq!(Control::decode(&[6]), Err(Malformed::UnknownKind(6)));
        assert_eq!(Control::decode(&[5, 3, 0, 0]), Err(Malformed::Bad("what is taken")));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(first in 0xdf..=0xe8_u8, bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            for bytes in [bytes.clone(), [&[first], &bytes[..]].concat()] {
                let _ = (Handshake::decode(&bytes), CookieReply::decode(&bytes), Header::decode(&bytes));
                let _ = (InitiationPayload::decode(&bytes), ResponsePayload::decode(&bytes));
                let _ = (Segment::decode(&bytes), Fragment::decode(&bytes), Control::decode(&bytes));
                let _ = receiver_index(&bytes);
            }
        }

        #[test]
        fn any_payload_survives_the_wire(
            (number, features, suites) in any::<(u64, u32, u8)>(),
            announcement in prop::collection::vec(any::<u8>(), 0..=MAX_SIGNED),
        ) {
            let payload = InitiationPayload { number, features, suites, announcement: &announcement };
            let bytes = payload.encode();
            prop_assert_eq!(InitiationPayload::decode(&bytes), Ok(payload));
            let payload = ResponsePayload { features, suite: suites, announcement: &announcement };
            let bytes = payload.encode();
            prop_assert_eq!(ResponsePayload::decode(&bytes), Ok(payload));
            let control = Control::Announcement(&announcement);
            let bytes = control.encode();
            prop_assert_eq!(Control::decode(&bytes), Ok(control));
        }

        #[test]
        fn any_header_survives_the_wire(index in 0..1_u32 << 24, counter: u32, id: u16, more: bool, offset in 0..0x8000_u16) {
            let header = Header { channel: Channel::Data, index, counter };
            prop_assert_eq!(Header::decode(&[&header.encode()[..], &[0; 17]].concat()), Ok(header));
            let fragment = Fragment { id, more, offset };
            let bytes = fragment.encode();
            prop_assert_eq!(Fragment::decode(&bytes), Ok((fragment, &[][..])));
        }
    }
}
