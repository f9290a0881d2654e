//! STUN Binding (RFC 8489): what a stock client asks, and the shortest answer that tells it its address.
//!
//! ```text
//! 0        2        4                 8                       20
//! +--------+--------+-----------------+-----------------------+---------------
//! | type   | length | 0x2112A442      | transaction (96 bits) | attributes …     §5
//! +--------+--------+-----------------+-----------------------+---------------
//! attribute: type u16 | length u16 | value, padded to 4 bytes                   §14
//! XOR-MAPPED-ADDRESS (0x0020): 0 | family | port ^ 0x2112 | address ^ (cookie | transaction)   §14.2
//! ```
//!
//! Anybody may ask, and a source address can be forged, so the answer carries nothing else. It is at most
//! [`MAX_GROWTH`] bytes longer than the stock request, which is a header alone; any other request gets no answer that is
//! longer than itself.

use std::net::{IpAddr, SocketAddr};

use super::{Malformed, Reader, Writer};

/// How much longer than its question an answer can be.
pub const MAX_GROWTH: usize = 24;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const HEADER: usize = 20;

mod method {
    pub(super) const BINDING_REQUEST: u16 = 0x0001;
    pub(super) const BINDING_SUCCESS: u16 = 0x0101;
    pub(super) const BINDING_ERROR: u16 = 0x0111;
}

mod attribute {
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
}

/// A Binding request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingRequest {
    /// In the answer again.
    pub transaction: [u8; 12],
    /// The first attribute that a server must understand and that we do not (§6.3.1).
    pub not_understood: Option<u16>,
}

impl BindingRequest {
    /// Reads a request. Attributes that may be ignored are.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(datagram);
        match r.u16()? {
            method::BINDING_REQUEST => {}
            _ => return Err(Malformed::Bad("STUN type")),
        }
        let len = usize::from(r.u16()?);
        if r.array()? != COOKIE || len % 4 != 0 || datagram.len() != HEADER + len {
            return Err(Malformed::Bad("STUN header"));
        }
        let transaction = r.array()?;
        let mut not_understood = None;
        while !r.rest().is_empty() {
            let (kind, len) = (r.u16()?, usize::from(r.u16()?));
            r.bytes(len.next_multiple_of(4))?;
            if kind < 0x8000 && !is_ignorable(kind) {
                not_understood = not_understood.or(Some(kind));
            }
        }
        Ok(Self { transaction, not_understood })
    }

    /// Whether a request is a header alone, as stock clients send it.
    pub const fn is_stock(datagram: &[u8]) -> bool {
        datagram.len() == HEADER
    }

    /// The answer to a client at `from`: its address, or error 420 with the attribute that was not understood.
    pub fn answer(&self, from: SocketAddr) -> Vec<u8> {
        let mut body = Writer::with_capacity(MAX_GROWTH);
        let success = match self.not_understood {
            None => {
                self.write_address(&mut body, from);
                true
            }
            Some(kind) => {
                body.u16(attribute::ERROR_CODE).u16(4).u16(0).u8(4).u8(20);
                body.u16(attribute::UNKNOWN_ATTRIBUTES).u16(2).u16(kind).u16(0);
                false
            }
        };
        let body = body.finish();
        let mut w = Writer::with_capacity(HEADER + body.len());
        w.u16(if success { method::BINDING_SUCCESS } else { method::BINDING_ERROR });
        w.u16(u16::try_from(body.len()).expect("an answer is at most 24 bytes")).bytes(&COOKIE);
        w.bytes(&self.transaction).bytes(&body).finish()
    }

    fn write_address(&self, w: &mut Writer, from: SocketAddr) {
        let mut pad = [0; 16];
        pad[..4].copy_from_slice(&COOKIE);
        pad[4..].copy_from_slice(&self.transaction);
        let (family, ip): (u8, &[u8]) = match from.ip() {
            IpAddr::V4(v4) => (1, &v4.octets()),
            IpAddr::V6(v6) => (2, &v6.octets()),
        };
        let ip: Vec<u8> = ip.iter().zip(pad).map(|(byte, pad)| byte ^ pad).collect();
        w.u16(attribute::XOR_MAPPED_ADDRESS).u16(if family == 1 { 8 } else { 20 });
        w.u8(0).u8(family).u16(from.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]])).bytes(&ip);
    }
}

/// Credentials: a server that asks for none ignores them.
fn is_ignorable(kind: u16) -> bool {
    matches!(kind, attribute::USERNAME | attribute::MESSAGE_INTEGRITY | attribute::MESSAGE_INTEGRITY_SHA256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stun_types::attribute::XorMappedAddress;

    /// As every stock client sends it.
    fn request() -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
        bytes.extend(1..=12);
        bytes
    }

    #[test]
    fn a_stock_request_is_answered_with_the_address_alone() {
        let answer = BindingRequest::parse(&request()).expect("stock").answer("192.0.2.1:32853".parse().expect("v4"));
        let mut expected = vec![1, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42];
        expected.extend(1..=12);
        expected.extend([0, 0x20, 0, 8, 0, 1, 0x80 ^ 0x21, 0x55 ^ 0x12, 192 ^ 0x21, 0x12, 2 ^ 0xA4, 1 ^ 0x42]);
        assert_eq!(answer, expected);
    }

    #[test]
    fn another_implementation_reads_the_answer() {
        for from in ["192.0.2.1:32853", "[2001:db8::7]:9"] {
            let from: SocketAddr = from.parse().expect("address");
            let answer = BindingRequest::parse(&request()).expect("stock").answer(from);
            let message = stun_types::message::Message::from_bytes(&answer).expect("a STUN message");
            let attribute = message.attribute::<XorMappedAddress>().expect("an address");
            assert_eq!(attribute.addr(message.transaction_id()), from);
            assert!(answer.len() <= request().len() + MAX_GROWTH);
        }
    }

    #[test]
    fn software_is_ignored_and_a_wish_to_change_the_address_is_refused() {
        let from = "[2001:db8::7]:9".parse().expect("v6");
        let mut bytes = request();
        bytes[3] = 12;
        bytes.extend([0x80, 0x22, 0, 5, b'p', b'r', b'o', b'b', b'e', 0, 0, 0]);
        assert_eq!(BindingRequest::parse(&bytes).expect("valid").answer(from).len(), 44);

        let mut bytes = request();
        bytes[3] = 8;
        bytes.extend([0, 3, 0, 4, 0, 0, 0, 6]);
        let answer = BindingRequest::parse(&bytes).expect("valid").answer(from);
        assert_eq!(answer[20..], [0, 9, 0, 4, 0, 0, 4, 20, 0, 10, 0, 2, 0, 3, 0, 0]);
        assert_eq!(answer[..2], [1, 0x11]);
    }

    #[test]
    fn what_is_no_request_is_not_answered() {
        let mut indication = request();
        indication[1] = 0x11;
        assert!(BindingRequest::parse(&indication).is_err());
        let mut long = request();
        long.push(0);
        assert!(BindingRequest::parse(&long).is_err());
        assert!(BindingRequest::parse(&request()[..19]).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = BindingRequest::parse(&tail);
            let mut bytes = request();
            bytes[3] = u8::try_from(tail.len()).expect("short");
            bytes.extend(&tail);
            if let Ok(request) = BindingRequest::parse(&bytes) {
                let answer = request.answer("[2001:db8::7]:9".parse().expect("v6"));
                prop_assert!(answer.len() <= bytes.len() + MAX_GROWTH);
            }
        }
    }
}
