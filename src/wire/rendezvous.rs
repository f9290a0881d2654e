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

mod cookie;
mod frame;
pub mod items;
mod refused;
mod register;

pub use self::cookie::{COOKIE_LEN, Cookie, HELLO_LEN, Hello};
pub use self::frame::{Direction, FRAME_HEADER, FRAME_TAG, FrameHeader};
pub use self::refused::{REFUSED_LEN, Reason, Refused, UNKNOWN_LEN, Unknown};
pub use self::register::{CLAIM_LEN, Claim, REGISTER_LEN, Register};

use super::{Malformed, kind};

/// The longest datagram of this protocol: what passes every IPv6 link unfragmented (1280 − 40 − 8).
pub const MAX_DATAGRAM: usize = 1232;

mod message {
    pub(super) const HELLO: u8 = 1;
    pub(super) const COOKIE: u8 = 2;
    pub(super) const REGISTER: u8 = 3;
    pub(super) const REFUSED: u8 = 4;
    pub(super) const UNKNOWN: u8 = 5;
    pub(super) const TO_SERVER: u8 = 6;
    pub(super) const TO_PEER: u8 = 7;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
