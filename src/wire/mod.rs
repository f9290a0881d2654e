//! L1: bytes to typed messages and back. No state, no keys.
//!
//! One UDP socket carries everything, so the first byte says what a datagram is:
//!
//! ```text
//! 0x00–0x03 with the STUN magic cookie   STUN (RFC 8489)                  wire::stun
//! any single byte alone                  keepalive to a NAT, ignored
//! 0xE0  data            sealed packet                                     wire::session
//! 0xE1  control         sealed in-session message                         wire::session
//! 0xE2  initiation      first handshake message                           wire::session
//! 0xE3  response        second handshake message                          wire::session
//! 0xE4  cookie reply    "prove your address first"                        wire::session
//! 0xE5  probe           is there a path?                                  wire::probe
//! 0xE6  relay frame     a datagram inside a channel of a rendezvous       wire::relay
//! 0xE7  rendezvous      registration and introductions                    wire::rendezvous
//! 0xE8  beacon        "I am here", on sockets of its own on the LAN        wire::beacon
//! 0xE9–0xEF reserved; the rest is counted and dropped
//! ```
//!
//! Inside the overlay two members may ask each other whether what is for many arrives ([`doctor`]); and games, which all have
//! their own ways to say that they are there, are understood as far as that goes ([`discovery`]).
//!
//! Where UDP does not pass, the same datagrams go by a stream ([`stream`]). All integers are big-endian. Unknown trailing bytes are ignored, unknown kinds are counted.

pub mod announcement;
pub mod beacon;
pub mod discovery;
pub mod doctor;
pub mod groups;
pub mod ip;
pub mod probe;
pub mod relay;
pub mod rendezvous;
pub mod session;
pub mod stream;
pub mod stun;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The protocol's version, in every handshake and registration.
pub const VERSION: u8 = 1;

/// First bytes.
pub mod kind {
    /// Sealed packet.
    pub const DATA: u8 = 0xE0;
    /// Sealed in-session message.
    pub const CONTROL: u8 = 0xE1;
    /// First handshake message.
    pub const INITIATION: u8 = 0xE2;
    /// Second handshake message.
    pub const RESPONSE: u8 = 0xE3;
    /// Handshake cookie.
    pub const COOKIE_REPLY: u8 = 0xE4;
    /// Path probe.
    pub const PROBE: u8 = 0xE5;
    /// Relay frame.
    pub const RELAY: u8 = 0xE6;
    /// Registration and introductions.
    pub const RENDEZVOUS: u8 = 0xE7;
    /// A member on the LAN; [`classify`](super::classify) knows none, for no socket of a peer takes one.
    pub const BEACON: u8 = 0xE8;
    /// The keepalive's only byte.
    pub const KEEPALIVE: u8 = 0x00;
}

/// What a datagram is, by its first byte alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A STUN message.
    Stun,
    /// One byte to keep a NAT's mapping.
    Keepalive,
    /// See [`kind::DATA`].
    Data,
    /// See [`kind::CONTROL`].
    Control,
    /// See [`kind::INITIATION`].
    Initiation,
    /// See [`kind::RESPONSE`].
    Response,
    /// See [`kind::COOKIE_REPLY`].
    CookieReply,
    /// See [`kind::PROBE`].
    Probe,
    /// See [`kind::RELAY`].
    Relay,
    /// See [`kind::RENDEZVOUS`].
    Rendezvous,
    /// Not ours.
    Unknown,
}

/// Sorts a datagram by its first bytes.
pub fn classify(datagram: &[u8]) -> Class {
    match datagram {
        [_] => Class::Keepalive,
        [0x00..=0x03, _, _, _, 0x21, 0x12, 0xA4, 0x42, ..] => Class::Stun,
        [kind::DATA, ..] => Class::Data,
        [kind::CONTROL, ..] => Class::Control,
        [kind::INITIATION, ..] => Class::Initiation,
        [kind::RESPONSE, ..] => Class::Response,
        [kind::COOKIE_REPLY, ..] => Class::CookieReply,
        [kind::PROBE, ..] => Class::Probe,
        [kind::RELAY, ..] => Class::Relay,
        [kind::RENDEZVOUS, ..] => Class::Rendezvous,
        _ => Class::Unknown,
    }
}

/// A message does not parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the format needs.
    #[error("truncated")]
    Truncated,
    /// A kind that this version does not know.
    #[error("unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// A field with a value that the format forbids.
    #[error("bad {0}")]
    Bad(&'static str),
}

/// Reads fields off the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader over `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Malformed::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// Three bytes, as indices and channels have.
    pub fn u24(&mut self) -> Result<u32, Malformed> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A socket address in 18 bytes ([`Writer::socket_addr`]); all zeros mean none.
    pub fn socket_addr(&mut self) -> Result<Option<SocketAddr>, Malformed> {
        let ip = IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)).to_canonical();
        let port = self.u16()?;
        Ok((port != 0).then(|| SocketAddr::new(ip, port)))
    }

    /// What is left.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Appends fields to a byte vector.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty writer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Appends `bytes`.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.bytes(&[v])
    }

    /// Two bytes.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// The low three bytes.
    pub fn u24(&mut self, v: u32) -> &mut Self {
        self.bytes(&v.to_be_bytes()[1..])
    }

    /// Four bytes.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// A socket address in 18 bytes: IPv6 or IPv4-mapped address, port. All zeros mean none.
    pub fn socket_addr(&mut self, addr: Option<SocketAddr>) -> &mut Self {
        let (ip, port) = addr.map_or((Ipv6Addr::UNSPECIFIED, 0), |a| {
            let ip = match a.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            (ip, a.port())
        });
        self.bytes(&ip.octets()).u16(port)
    }

    /// Zeros up to a total length of `len`.
    pub fn pad_to(&mut self, len: usize) -> &mut Self {
        if self.0.len() < len {
            self.0.resize(len, 0);
        }
        self
    }

    /// Bytes written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_says_what_a_datagram_is() {
        assert_eq!(classify(&[]), Class::Unknown);
        assert_eq!(classify(&[0]), Class::Keepalive);
        assert_eq!(classify(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]), Class::Stun);
        assert_eq!(classify(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x43]), Class::Unknown);
        assert_eq!(classify(&[kind::PROBE, 0]), Class::Probe);
        assert_eq!(classify(&[0xEF, 0]), Class::Unknown);
    }

    #[test]
    fn fields_survive_the_wire() {
        let addrs: [Option<SocketAddr>; 3] =
            [None, Some("192.0.2.1:9".parse().expect("v4")), Some("[2001:db8::1]:65535".parse().expect("v6"))];
        let mut w = Writer::default();
        w.u8(1).u16(2).u24(0x030405).u32(6).u64(7);
        for a in addrs {
            w.socket_addr(a);
        }
        let bytes = w.pad_to(100).finish();
        assert_eq!(bytes.len(), 100);
        let mut r = Reader::new(&bytes);
        assert_eq!((r.u8(), r.u16(), r.u24(), r.u32(), r.u64()), (Ok(1), Ok(2), Ok(0x030405), Ok(6), Ok(7)));
        for a in addrs {
            assert_eq!(r.socket_addr(), Ok(a));
        }
        assert_eq!(r.bytes(1000), Err(Malformed::Truncated));
    }
}
