//! Registration and introductions: what a peer and a rendezvous say to each other before they share keys,
//! and the frame around everything that they say afterwards ([`items`]).
//!
//! ```text
//! peer                                        rendezvous
//!  │ Hello (96 bytes, zeros at the end) ──────▶ │   no state
//!  │ ◀────── Cookie (86 bytes), or Refused      │   no state
//!  │ Register (334 bytes, cookie inside) ─────▶ │   cookie, limits, two signatures, one DH, then state
//!  │ sealed frame {announcement} ─────────────▶ │
//!  │ ◀────────────── sealed frame {registered}  │
//!  │ ◀──────────────────── sealed frames ─────▶ │   items, see [`items`]
//! ```
//!
//! No answer is longer than its question while the sender's address is unproven: a Cookie is shorter than a
//! Hello, a Refused and an Unknown shorter than anything that they answer.
//!
//! An address that was observed travels XORed with the nonce: some NATs rewrite their own address wherever
//! they find it in a datagram.

pub mod items;
mod refused;

use std::net::SocketAddr;

pub use self::refused::{Reason, Refused};

use super::{Malformed, Reader, Writer, kind};
use crate::id::{Epoch, NetworkId, PeerId, ServerKey};

/// The longest datagram of this protocol: what passes every IPv6 link unfragmented (1280 − 40 − 8).
pub const MAX_DATAGRAM: usize = 1232;
/// A Hello's length.
pub const HELLO_LEN: usize = 96;
/// A Cookie's length.
pub const COOKIE_LEN: usize = 86;
/// A Register's length.
pub const REGISTER_LEN: usize = 334;
/// A Refused's length.
pub const REFUSED_LEN: usize = 22;
/// An Unknown's length.
pub const UNKNOWN_LEN: usize = 16;
/// Bytes before the sealed part of a frame; all of them are authenticated.
pub const FRAME_HEADER: usize = 14;
/// Bytes of the seal behind it.
pub const FRAME_TAG: usize = 16;

mod message {
    pub(super) const HELLO: u8 = 1;
    pub(super) const COOKIE: u8 = 2;
    pub(super) const REGISTER: u8 = 3;
    pub(super) const REFUSED: u8 = 4;
    pub(super) const UNKNOWN: u8 = 5;
    pub(super) const TO_SERVER: u8 = 6;
    pub(super) const TO_PEER: u8 = 7;
}

/// Which way a sealed frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a peer to the rendezvous.
    ToServer,
    /// From the rendezvous to a peer.
    ToPeer,
}

/// A datagram with [`kind::RENDEZVOUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// "I am here; may I register?"
    Hello(Hello),
    /// "Prove that you can read this."
    Cookie(Cookie),
    /// "This is who I am."
    Register(Register<'a>),
    /// "No, because …"
    Refused(Refused),
    /// "I do not know who sent this": the rendezvous was restarted, or forgot.
    Unknown(Unknown),
    /// Everything afterwards.
    Frame(FrameHeader),
}

impl<'a> Message<'a> {
    /// Reads the datagram's clear part.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        match datagram {
            [kind::RENDEZVOUS, message::HELLO, ..] => Hello::parse(datagram).map(Self::Hello),
            [kind::RENDEZVOUS, message::COOKIE, ..] => Cookie::parse(datagram).map(Self::Cookie),
            [kind::RENDEZVOUS, message::REGISTER, ..] => Register::parse(datagram).map(Self::Register),
            [kind::RENDEZVOUS, message::REFUSED, ..] => Refused::parse(datagram).map(Self::Refused),
            [kind::RENDEZVOUS, message::UNKNOWN, ..] => Unknown::parse(datagram).map(Self::Unknown),
            [kind::RENDEZVOUS, message::TO_SERVER | message::TO_PEER, ..] => {
                FrameHeader::parse(datagram).map(Self::Frame)
            }
            [kind::RENDEZVOUS, other, ..] => Err(Malformed::UnknownKind(*other)),
            _ => Err(Malformed::Truncated),
        }
    }
}

/// ```text
/// 0        1        2        3        4        20        38
/// +--------+--------+--------+--------+--------+---------+----------------+
/// |  0xE7  |   1    |version |   0    | nonce  | asked   | zeros to 96    |
/// +--------+--------+--------+--------+--------+---------+----------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's protocol version.
    pub version: u8,
    /// Random; in the answer again.
    pub nonce: [u8; 16],
    /// The address this was sent to; the cookie is good for it alone.
    pub asked: Option<SocketAddr>,
}

impl Hello {
    fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() < HELLO_LEN {
            return Err(Malformed::Truncated);
        }
        let mut r = Reader::new(&datagram[2..]);
        let (version, _) = (r.u8()?, r.u8()?);
        Ok(Self { version, nonce: r.array()?, asked: r.socket_addr()? })
    }

    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(HELLO_LEN);
        w.u8(kind::RENDEZVOUS).u8(message::HELLO).u8(self.version).u8(0);
        w.bytes(&self.nonce).socket_addr(self.asked).pad_to(HELLO_LEN).finish()
    }
}

/// ```text
/// 0        1        2        3        4        20       36            68                  86
/// +--------+--------+--------+--------+--------+--------+-------------+-------------------+
/// |  0xE7  |   2    |version |   0    | nonce  | cookie | server key  | observed ^ nonce  |
/// +--------+--------+--------+--------+--------+--------+-------------+-------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The server's protocol version.
    pub version: u8,
    /// The question's.
    pub nonce: [u8; 16],
    /// To be shown in a [`Register`].
    pub cookie: [u8; 16],
    /// The server's X25519 key.
    pub server: ServerKey,
    /// Where the question came from.
    pub observed: Option<SocketAddr>,
}

impl Cookie {
    fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(&datagram[2..]);
        let (version, _) = (r.u8()?, r.u8()?);
        let nonce = r.array()?;
        let (cookie, server) = (r.array()?, ServerKey(r.array()?));
        let observed = Reader::new(&xor_nonce(r.array()?, &nonce)).socket_addr()?;
        Ok(Self { version, nonce, cookie, server, observed })
    }

    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut plain = Writer::with_capacity(18);
        plain.socket_addr(self.observed);
        let mut observed = [0; 18];
        observed.copy_from_slice(plain.as_slice());
        let mut w = Writer::with_capacity(COOKIE_LEN);
        w.u8(kind::RENDEZVOUS).u8(message::COOKIE).u8(self.version).u8(0).bytes(&self.nonce);
        w.bytes(&self.cookie).bytes(&self.server.0).bytes(&xor_nonce(observed, &self.nonce)).finish()
    }
}

/// Hides an address from NATs that rewrite addresses inside datagrams.
fn xor_nonce(mut bytes: [u8; 18], nonce: &[u8; 16]) -> [u8; 18] {
    for (byte, pad) in bytes.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= pad;
    }
    bytes
}

/// ```text
/// 0        1        2        3        4        20       36       54            86            118
/// +--------+--------+--------+--------+--------+--------+--------+-------------+-------------+
/// |  0xE7  |   3    |version |   0    | nonce  | cookie | asked  | server key  | ephemeral   |
/// +--------+--------+--------+--------+--------+--------+--------+-------------+-------------+
/// 118           150           182          190          198        202      206         270        334
/// +-------------+-------------+------------+------------+----------+--------+-----------+----------+
/// | network id  | peer id     | number     | boot id    | epoch    | handle | signature | signature|
/// |             |             |            |            |          |        | network's | device's |
/// +-------------+-------------+------------+------------+----------+--------+-----------+----------+
/// ```
/// Each signature covers all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register<'a> {
    /// What is signed.
    pub claim: Claim,
    /// Ed25519 by the network's key.
    pub network_signature: &'a [u8; 64],
    /// Ed25519 by the device's key.
    pub device_signature: &'a [u8; 64],
}

/// The fields of a [`Register`] in front of its signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The sender's protocol version.
    pub version: u8,
    /// The Hello's.
    pub nonce: [u8; 16],
    /// The server's proof that we receive at our address.
    pub cookie: [u8; 16],
    /// As in the Hello.
    pub asked: Option<SocketAddr>,
    /// The server that this is meant for.
    pub server: ServerKey,
    /// Fresh X25519 key of this registration.
    pub ephemeral: [u8; 32],
    /// The network.
    pub network: NetworkId,
    /// The device.
    pub peer: PeerId,
    /// Grows with every registration of the device.
    pub number: u64,
    /// Random for each run of the program.
    pub boot: u64,
    /// Generation of the network's keys.
    pub epoch: Epoch,
    /// Random; names the registration in frames.
    pub handle: u32,
}

/// Bytes of a [`Claim`].
pub const CLAIM_LEN: usize = REGISTER_LEN - 128;

impl Claim {
    /// The bytes that the network's key signs, with room for the two signatures.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(REGISTER_LEN);
        w.u8(kind::RENDEZVOUS).u8(message::REGISTER).u8(self.version).u8(0);
        w.bytes(&self.nonce).bytes(&self.cookie).socket_addr(self.asked).bytes(&self.server.0);
        w.bytes(&self.ephemeral).bytes(&self.network.0).bytes(&self.peer.0);
        w.u64(self.number).u64(self.boot).u32(self.epoch.0).u32(self.handle).finish()
    }

    fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(&datagram[2..]);
        let (version, _) = (r.u8()?, r.u8()?);
        Ok(Self {
            version,
            nonce: r.array()?,
            cookie: r.array()?,
            asked: r.socket_addr()?,
            server: ServerKey(r.array()?),
            ephemeral: r.array()?,
            network: NetworkId(r.array()?),
            peer: PeerId(r.array()?),
            number: r.u64()?,
            boot: r.u64()?,
            epoch: Epoch(r.u32()?),
            handle: r.u32()?,
        })
    }
}

impl<'a> Register<'a> {
    fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let claim = Claim::parse(datagram)?;
        let (network, device) = datagram
            .get(CLAIM_LEN..REGISTER_LEN)
            .and_then(|signatures| signatures.split_first_chunk())
            .ok_or(Malformed::Truncated)?;
        let device_signature = device.first_chunk().ok_or(Malformed::Truncated)?;
        Ok(Self { claim, network_signature: network, device_signature })
    }

    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.claim.encode();
        bytes.extend_from_slice(self.network_signature);
        bytes.extend_from_slice(self.device_signature);
        bytes
    }
}

/// A hint, and no more than that, since anybody could send it: the receiver says Hello again while it
/// keeps its registration.
///
/// ```text
/// 0        1        2                       16
/// +--------+--------+-----------------------+
/// |  0xE7  |   5    | question's first 14   |
/// +--------+--------+-----------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The first bytes of the frame or relay frame that is answered.
    pub question: [u8; 14],
}

impl Unknown {
    fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        Ok(Self { question: Reader::new(&datagram[2..]).array()? })
    }

    /// The answer to `question`; `None` if that is shorter than the answer would be.
    pub fn to(question: &[u8]) -> Option<Self> {
        (question.len() >= UNKNOWN_LEN).then(|| question.first_chunk()).flatten().map(|q| Self { question: *q })
    }

    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(UNKNOWN_LEN);
        w.u8(kind::RENDEZVOUS).u8(message::UNKNOWN).bytes(&self.question).finish()
    }
}

/// In front of the sealed items; all of it is authenticated, and the counter is the nonce.
///
/// ```text
/// 0        1        2            6              14
/// +--------+--------+------------+--------------+----------------+-----+
/// |  0xE7  | 6 or 7 | handle     | counter      | sealed items   | tag |
/// +--------+--------+------------+--------------+----------------+-----+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which way; each has keys of its own.
    pub direction: Direction,
    /// The registration, as its [`Claim`] named it.
    pub handle: u32,
    /// Grows with every frame of a direction.
    pub counter: u64,
}

impl FrameHeader {
    fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() < FRAME_HEADER + FRAME_TAG {
            return Err(Malformed::Truncated);
        }
        let mut r = Reader::new(&datagram[1..]);
        let direction = if r.u8()? == message::TO_SERVER { Direction::ToServer } else { Direction::ToPeer };
        Ok(Self { direction, handle: r.u32()?, counter: r.u64()? })
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; FRAME_HEADER] {
        let mut out = [0; FRAME_HEADER];
        out[0] = kind::RENDEZVOUS;
        out[1] = match self.direction {
            Direction::ToServer => message::TO_SERVER,
            Direction::ToPeer => message::TO_PEER,
        };
        out[2..6].copy_from_slice(&self.handle.to_be_bytes());
        out[6..].copy_from_slice(&self.counter.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim() -> Claim {
        Claim {
            version: 1,
            nonce: [2; 16],
            cookie: [3; 16],
            asked: Some("198.51.100.1:3478".parse().expect("address")),
            server: ServerKey([4; 32]),
            ephemeral: [5; 32],
            network: NetworkId([6; 32]),
            peer: PeerId([7; 32]),
            number: 0x0809_0a0b_0c0d_0e0f,
            boot: 0x1011_1213_1415_1617,
            epoch: Epoch(0x1819_1a1b),
            handle: 0x1c1d_1e1f,
        }
    }

    #[test]
    fn a_hello_is_these_bytes() {
        let hello = Hello { version: 1, nonce: [0xAA; 16], asked: Some("198.51.100.1:3478".parse().expect("address")) };
        let mut expected = vec![0xE7, 1, 1, 0];
        expected.extend([0xAA; 16]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 1, 0x0d, 0x96]);
        expected.resize(HELLO_LEN, 0);
        assert_eq!(hello.encode(), expected);
        assert_eq!(Message::parse(&expected), Ok(Message::Hello(hello)));
        assert_eq!(Message::parse(&expected[..HELLO_LEN - 1]), Err(Malformed::Truncated));
    }

    #[test]
    fn a_cookie_is_these_bytes_and_shows_no_address_in_clear() {
        let cookie = Cookie {
            version: 1,
            nonce: [0x0F; 16],
            cookie: [0xCC; 16],
            server: ServerKey([0xDD; 32]),
            observed: Some("203.0.113.9:41641".parse().expect("address")),
        };
        let mut expected = vec![0xE7, 2, 1, 0];
        expected.extend([0x0F; 16]);
        expected.extend([0xCC; 16]);
        expected.extend([0xDD; 32]);
        let plain = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 9, 0xa2, 0xa9];
        expected.extend(plain.map(|byte: u8| byte ^ 0x0F));
        assert_eq!(expected.len(), COOKIE_LEN);
        assert_eq!(cookie.encode(), expected);
        assert_eq!(Message::parse(&expected), Ok(Message::Cookie(cookie)));
    }

    #[test]
    fn a_register_is_these_bytes() {
        let register = Register { claim: claim(), network_signature: &[8; 64], device_signature: &[9; 64] };
        let mut expected = vec![0xE7, 3, 1, 0];
        expected.extend([2; 16]);
        expected.extend([3; 16]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 1, 0x0d, 0x96]);
        for fill in 4..8 {
            expected.extend([fill; 32]);
        }
        expected.extend(0x08..=0x1f);
        assert_eq!(claim().encode(), expected);
        assert_eq!(expected.len(), CLAIM_LEN);
        expected.extend([8; 64]);
        expected.extend([9; 64]);
        assert_eq!(expected.len(), REGISTER_LEN);
        assert_eq!(register.encode(), expected);
        assert_eq!(Message::parse(&expected), Ok(Message::Register(register)));
        assert_eq!(Message::parse(&expected[..REGISTER_LEN - 1]), Err(Malformed::Truncated));
    }

    #[test]
    fn short_answers_are_these_bytes() {
        let refused = Refused { version: 1, reason: Reason::Duplicate, nonce: [5; 16], retry_s: 30 };
        let mut expected = vec![0xE7, 4, 1, 9];
        expected.extend([5; 16]);
        expected.extend([0, 30]);
        assert_eq!(refused.encode(), expected);
        assert_eq!(Message::parse(&expected), Ok(Message::Refused(refused)));

        let question: Vec<u8> = (0xE0..0xF4).collect();
        let unknown = Unknown::to(&question).expect("long enough");
        let mut expected = vec![0xE7, 5];
        expected.extend(0xE0..0xEE);
        assert_eq!(unknown.encode(), expected);
        assert_eq!(Message::parse(&expected), Ok(Message::Unknown(unknown)));
        assert_eq!(Unknown::to(&question[..15]), None);
    }

    #[test]
    fn a_frame_header_is_these_bytes() {
        let header = FrameHeader { direction: Direction::ToPeer, handle: 0x0102_0304, counter: 5 };
        let mut bytes = header.encode().to_vec();
        assert_eq!(bytes, [0xE7, 7, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5]);
        bytes.resize(FRAME_HEADER + FRAME_TAG, 0);
        assert_eq!(Message::parse(&bytes), Ok(Message::Frame(header)));
        bytes.pop();
        assert_eq!(Message::parse(&bytes), Err(Malformed::Truncated));
    }

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_wire(reason.wire()), Ok(reason));
        }
        assert!(Reason::from_wire(0).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), kind_of in 0u8..9) {
            let _ = Message::parse(&bytes);
            if let [first, second, ..] = &mut bytes[..] {
                (*first, *second) = (kind::RENDEZVOUS, kind_of);
            }
            let _ = Message::parse(&bytes);
        }
    }
}
