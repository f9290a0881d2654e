//! How a rendezvous says no: that it refuses, and why, or that it does not know who speaks.

use super::message;
use crate::wire::{Malformed, Reader, Writer, kind};

/// A Refused's length.
pub const REFUSED_LEN: usize = 22;
/// An Unknown's length.
pub const UNKNOWN_LEN: usize = 16;

/// Why a rendezvous says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// It speaks another version (given as detail).
    Version = 1,
    /// Too many requests just now.
    Busy = 2,
    /// It holds as many registrations as it may.
    Full = 3,
    /// This network has as many members as one may have.
    NetworkFull = 4,
    /// This source prefix has as many registrations as one may have.
    PrefixFull = 5,
    /// It does not serve this network.
    NotAllowed = 6,
    /// A signature is wrong.
    Forged = 7,
    /// The number did not grow: a replay, or a peer that lost its state.
    Stale = 8,
    /// The same device is registered and alive elsewhere.
    Duplicate = 9,
    /// Too many relay channels.
    ChannelsFull = 10,
    /// No such member in this network.
    NoSuchMember = 11,
    /// The limit for relayed traffic is reached: some of it is dropped.
    RelayLimit = 12,
    /// It is stopping.
    Stopping = 13,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Version,
        Self::Busy,
        Self::Full,
        Self::NetworkFull,
        Self::PrefixFull,
        Self::NotAllowed,
        Self::Forged,
        Self::Stale,
        Self::Duplicate,
        Self::ChannelsFull,
        Self::NoSuchMember,
        Self::RelayLimit,
        Self::Stopping,
    ];

    /// From its number on the wire.
    pub fn from_wire(code: u8) -> Result<Self, Malformed> {
        Self::ALL.into_iter().find(|reason| reason.wire() == code).ok_or(Malformed::Bad("reason"))
    }

    /// Its number on the wire.
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// A word for counters and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::NetworkFull => "network-full",
            Self::PrefixFull => "prefix-full",
            Self::NotAllowed => "not-allowed",
            Self::Forged => "forged",
            Self::Stale => "stale",
            Self::Duplicate => "duplicate",
            Self::ChannelsFull => "channels-full",
            Self::NoSuchMember => "no-such-member",
            Self::RelayLimit => "relay-limit",
            Self::Stopping => "stopping",
        }
    }
}

/// The server's no.
///
/// ```text
/// 0        1        2        3        4        20       22
/// +--------+--------+--------+--------+--------+--------+
/// |  0xE7  |   4    |version | reason | nonce  | detail |
/// +--------+--------+--------+--------+--------+--------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The server's protocol version.
    pub version: u8,
    /// Why.
    pub reason: Reason,
    /// The question's: nobody but who saw it can refuse.
    pub nonce: [u8; 16],
    /// Seconds after which trying again makes sense; 0: unknown.
    pub retry_s: u16,
}

impl Refused {
    pub(super) fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(&datagram[2..]);
        let version = r.u8()?;
        Ok(Self { version, reason: Reason::from_wire(r.u8()?)?, nonce: r.array()?, retry_s: r.u16()? })
    }

    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(REFUSED_LEN);
        w.u8(kind::RENDEZVOUS).u8(message::REFUSED).u8(self.version).u8(self.reason.wire());
        w.bytes(&self.nonce).u16(self.retry_s).finish()
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
    pub(super) fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rendezvous::Message;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_wire(reason.wire()), Ok(reason));
        }
        assert!(Reason::from_wire(0).is_err());
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
}
