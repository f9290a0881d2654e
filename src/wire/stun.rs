//! STUN Binding (RFC 8489), and of NAT behaviour discovery (RFC 5780) what a rendezvous answers and `punchlan netcheck`
//! asks.
//!
//! ```text
//! 0        2        4                 8                       20
//! +--------+--------+-----------------+-----------------------+---------------
//! | type   | length | 0x2112A442      | transaction (96 bits) | attributes …     §5
//! +--------+--------+-----------------+-----------------------+---------------
//! attribute: type u16 | length u16 | value, padded to 4 bytes                   §14
//!
//! XOR-MAPPED-ADDRESS 0x0020  0 | family | port ^ 0x2112 | address ^ (cookie | transaction)   RFC 8489 §14.2
//! MAPPED-ADDRESS     0x0001  0 | family | port | address                                     RFC 8489 §14.1
//! CHANGE-REQUEST     0x0003  29 bits 0 | change address | change port | 0                    RFC 5780 §7.2
//! RESPONSE-PORT      0x0027  port u16 | 2 bytes 0                                            RFC 5780 §7.5
//! RESPONSE-ORIGIN    0x802B  as MAPPED-ADDRESS: where the answer comes from                  RFC 5780 §7.3
//! OTHER-ADDRESS      0x802C  as MAPPED-ADDRESS: where "change address and port" comes from   RFC 5780 §7.4
//! PUNCHLAN           0xE0E7  other port u16 | 2 bytes 0 | proof, 16 bytes | zeros
//! ```
//!
//! The last one is ours, and of those that others ignore (RFC 8489 §14). A question has it with as many zeros as make
//! room for the answer. An answer names by it the server's other port, which RFC 5780 has no word for where there is no
//! second address; and a *proof* that its receiver was there, without which RESPONSE-PORT would have the server write
//! to whom it is told to.
//!
//! Anybody may ask, and a source address can be forged. So an answer to the stock request, which is a header alone, is
//! the address alone, at most [`MAX_GROWTH`] bytes longer; any other answer is no longer than its question.

mod answer;
mod request;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use answer::Answer;
pub use request::{BindingRequest, Change, QUESTION_LEN};

use super::{Malformed, Reader, Writer};

/// How much longer than its question an answer can be.
pub const MAX_GROWTH: usize = 24;

/// That who shows it was where an answer went.
pub type Proof = [u8; 16];

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const HEADER: usize = 20;
/// Bytes of the value of our attribute that mean something.
const OURS_LEN: u16 = 20;

mod method {
    pub(super) const BINDING_REQUEST: u16 = 0x0001;
    pub(super) const BINDING_SUCCESS: u16 = 0x0101;
    pub(super) const BINDING_ERROR: u16 = 0x0111;
}

/// The types of attributes.
pub mod attribute {
    pub(super) const MAPPED_ADDRESS: u16 = 0x0001;
    /// To answer from elsewhere.
    pub const CHANGE_REQUEST: u16 = 0x0003;
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// To answer to another port.
    pub const RESPONSE_PORT: u16 = 0x0027;
    pub(super) const RESPONSE_ORIGIN: u16 = 0x802B;
    pub(super) const OTHER_ADDRESS: u16 = 0x802C;
    pub(super) const PUNCHLAN: u16 = 0xE0E7;
}

/// Which Binding request this error response refuses, for whatever reason.
pub fn refused(datagram: &[u8]) -> Result<[u8; 12], Malformed> {
    match read_header(&mut Reader::new(datagram), datagram)? {
        (method::BINDING_ERROR, transaction) => Ok(transaction),
        _ => Err(Malformed::Bad("STUN type")),
    }
}

/// What precedes the attributes: the type and the transaction.
fn read_header(r: &mut Reader<'_>, datagram: &[u8]) -> Result<(u16, [u8; 12]), Malformed> {
    let (kind, len) = (r.u16()?, usize::from(r.u16()?));
    if r.array()? != COOKIE || len % 4 != 0 || datagram.len() != HEADER + len {
        return Err(Malformed::Bad("STUN header"));
    }
    Ok((kind, r.array()?))
}

/// The next attribute, if there is one.
fn read_attribute<'a>(r: &mut Reader<'a>) -> Result<Option<(u16, &'a [u8])>, Malformed> {
    if r.rest().is_empty() {
        return Ok(None);
    }
    let (kind, len) = (r.u16()?, usize::from(r.u16()?));
    let padded = r.bytes(len.next_multiple_of(4))?;
    Ok(Some((kind, &padded[..len])))
}

/// The port and the proof of our attribute; one that is too short for them is somebody else's.
fn read_ours(value: &[u8]) -> Option<(u16, Proof)> {
    let mut r = Reader::new(value);
    let port = r.u16().ok()?;
    r.u16().ok()?;
    Some((port, r.array().ok()?))
}

/// A message around these attributes.
fn message(kind: u16, transaction: &[u8; 12], attributes: &[u8]) -> Vec<u8> {
    let mut w = Writer::with_capacity(HEADER + attributes.len());
    w.u16(kind).u16(u16::try_from(attributes.len()).expect("we write a few short attributes"));
    w.bytes(&COOKIE).bytes(transaction).bytes(attributes).finish()
}

/// What addresses are hidden with from routers that rewrite all that looks like one; nothing hides nothing.
#[derive(Clone, Copy)]
struct Mask([u8; 16]);

impl Mask {
    const NONE: Self = Self([0; 16]);

    fn of(transaction: &[u8; 12]) -> Self {
        let mut mask = [0; 16];
        mask[..4].copy_from_slice(&COOKIE);
        mask[4..].copy_from_slice(transaction);
        Self(mask)
    }

    const fn port(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    fn bytes<const N: usize>(self, bytes: [u8; N]) -> [u8; N] {
        std::array::from_fn(|i| bytes[i] ^ self.0[i])
    }
}

fn write_address(w: &mut Writer, kind: u16, addr: SocketAddr, mask: Mask) {
    let port = addr.port() ^ mask.port();
    match addr.ip() {
        IpAddr::V4(v4) => w.u16(kind).u16(8).u16(1).u16(port).bytes(&mask.bytes(v4.octets())),
        IpAddr::V6(v6) => w.u16(kind).u16(20).u16(2).u16(port).bytes(&mask.bytes(v6.octets())),
    };
}

fn read_address(value: &[u8], mask: Mask) -> Result<SocketAddr, Malformed> {
    let mut r = Reader::new(value);
    let family = r.u16()? & 0xFF;
    let port = r.u16()? ^ mask.port();
    let ip = match family {
        1 => IpAddr::V4(Ipv4Addr::from(mask.bytes(r.array()?))),
        2 => IpAddr::V6(Ipv6Addr::from(mask.bytes(r.array()?))).to_canonical(),
        _ => return Err(Malformed::Bad("address family")),
    };
    Ok(SocketAddr::new(ip, port))
}
