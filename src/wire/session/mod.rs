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
//! initiation  number u64 | features u32 (bit 0: takes segments, bit 1: knows of carrying, bit 3: says its groups) | suites u8 (bit 0 AES-256-GCM, bit 1 ChaCha20-Poly1305) | len u16 | signed announcement
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
//!          6 stranger       len u16 | signed announcement of a member without a rendezvous in common
//!          7 ports          how the sender's NAT gives ports 5 | bit 0: say the same, bit 1: I search for you
//!          8 look for me    ports 5 | how many are open u16
//!          9 looked         in vain
//!         10 NAT            translates u8 | mapping u8 | filtering u8 | hairpin u8 | allocation u8, two numbers u16
//!         11 carry          peer 32 | 1, or 0: no longer
//!         12 carried        peer 32 | 0 not, 1 not offered, 2 full, 3 asked, 4 open, 5 throttled | channel u24
//!         13 TCP            primed u8 | len u16 | where the sender listens by TCP
//!         14 groups         len u16 | the multicast groups that the sender wants
//! ports    0 the same for all, 0 u32 | 1 counted: next u16, step i16 | 2 within: first u16, last u16
//! ```

mod control;
mod handshake;
mod packet;
mod traits;

pub use self::control::{Carried, Control, Taken};
pub use self::handshake::{CookieReply, Handshake, InitiationPayload, ResponsePayload};
pub use self::packet::{Channel, Fragment, Header, Segment, data, feature};

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

/// Whose handshake message, data or control this is: the receiver index, without reading more.
pub fn receiver_index(datagram: &[u8]) -> Option<u32> {
    let at = match datagram.first()? {
        &kind::DATA | &kind::CONTROL | &kind::COOKIE_REPLY => 1,
        &kind::RESPONSE => 5,
        _ => return None,
    };
    Reader::new(datagram.get(at..)?).u24().ok()
}

/// A length and a signed announcement.
///
/// # Panics
/// If it is longer than a signed one can be.
fn put_announcement(w: &mut Writer, signed: &[u8]) {
    assert!(signed.len() <= MAX_SIGNED, "only signed announcements are sent, and those are short enough");
    w.u16(u16::try_from(signed.len()).expect("at most MAX_SIGNED")).bytes(signed);
}

/// What [`put_announcement`] put.
fn take_announcement<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let len = usize::from(r.u16()?);
    if len > MAX_SIGNED {
        return Err(Malformed::Bad("announcement length"));
    }
    r.bytes(len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_announcement_longer_than_any_is_refused(len in MAX_SIGNED + 1..=600) {
            let text = [&len.to_be_bytes()[6..], &vec![0; len]].concat();
            prop_assert!(take_announcement(&mut Reader::new(&text)).is_err());
        }

        #[test]
        fn random_bytes_never_panic(first in 0xdf..=0xe8_u8, bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            for bytes in [bytes.clone(), [&[first], &bytes[..]].concat()] {
                let _ = (Handshake::decode(&bytes), CookieReply::decode(&bytes), Header::decode(&bytes));
                let _ = (InitiationPayload::decode(&bytes), ResponsePayload::decode(&bytes));
                let _ = (Segment::decode(&bytes), Fragment::decode(&bytes), Control::decode(&bytes));
                let _ = receiver_index(&bytes);
            }
        }
    }
}
