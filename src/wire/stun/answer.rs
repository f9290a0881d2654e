//! The answer.

use std::net::SocketAddr;

use super::{
    HEADER, MAX_GROWTH, Mask, OURS_LEN, Proof, attribute, message, method, read_address, read_attribute, read_header,
    read_ours, write_address,
};
use crate::wire::{Malformed, Reader, Writer};

/// A Binding success response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The question's.
    pub transaction: [u8; 12],
    /// The asker's address, as the server sees it.
    pub mapped: SocketAddr,
    /// Where the answer comes from.
    pub origin: Option<SocketAddr>,
    /// The server's other address and port.
    pub other: Option<SocketAddr>,
    /// The server's other port, at the address that was asked.
    pub other_port: Option<u16>,
    /// That who shows it was at [`Answer::mapped`]; only to who asks for it.
    pub proof: Option<Proof>,
}

impl Answer {
    /// The address alone.
    pub const fn new(transaction: [u8; 12], mapped: SocketAddr) -> Self {
        Self { transaction, mapped, origin: None, other: None, other_port: None, proof: None }
    }

    /// The answer, with as much besides the address as fits into `room` bytes.
    pub fn encode(&self, room: usize) -> Vec<u8> {
        let mut body = Writer::with_capacity(MAX_GROWTH);
        write_address(&mut body, attribute::XOR_MAPPED_ADDRESS, self.mapped, Mask::of(&self.transaction));
        let mut add = |write: &dyn Fn(&mut Writer)| {
            let mut one = Writer::default();
            write(&mut one);
            if HEADER + body.as_slice().len() + one.as_slice().len() <= room {
                body.bytes(one.as_slice());
            }
        };
        if let Some(proof) = self.proof {
            let port = self.other_port.unwrap_or(0);
            add(&|w| {
                w.u16(attribute::PUNCHLAN).u16(OURS_LEN).u16(port).u16(0).bytes(&proof);
            });
        }
        for (kind, addr) in [(attribute::OTHER_ADDRESS, self.other), (attribute::RESPONSE_ORIGIN, self.origin)] {
            if let Some(addr) = addr {
                add(&|w| write_address(w, kind, addr, Mask::NONE));
            }
        }
        message(method::BINDING_SUCCESS, &self.transaction, &body.finish())
    }

    /// Reads an answer, also that of an older server (RFC 5389, RFC 3489 with the cookie). Attributes that are not known
    /// are ignored; where an address comes twice the first counts.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(datagram);
        let (kind, transaction) = read_header(&mut r, datagram)?;
        if kind != method::BINDING_SUCCESS {
            return Err(Malformed::Bad("STUN type"));
        }
        let (mut hidden, mut plain, mut origin, mut other, mut ours) = (None, None, None, None, None);
        while let Some((kind, value)) = read_attribute(&mut r)? {
            match kind {
                attribute::XOR_MAPPED_ADDRESS => first(&mut hidden, read_address(value, Mask::of(&transaction))?),
                attribute::MAPPED_ADDRESS => first(&mut plain, read_address(value, Mask::NONE)?),
                attribute::RESPONSE_ORIGIN => first(&mut origin, read_address(value, Mask::NONE)?),
                attribute::OTHER_ADDRESS => first(&mut other, read_address(value, Mask::NONE)?),
                attribute::PUNCHLAN => ours = ours.or_else(|| read_ours(value)),
                _ => {}
            }
        }
        let mapped = hidden.or(plain).ok_or(Malformed::Bad("answer without an address"))?;
        let other_port = ours.map(|(port, _)| port).filter(|port| *port != 0);
        Ok(Self { transaction, mapped, origin, other, other_port, proof: ours.map(|(_, proof)| proof) })
    }
}

fn first<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::stock;
    use super::super::{BindingRequest, QUESTION_LEN};
    use super::*;
    use proptest::prelude::*;
    use stun_types::attribute::XorMappedAddress;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    fn transaction() -> [u8; 12] {
        BindingRequest::parse(&stock()).expect("stock").transaction
    }

    #[test]
    fn a_stock_request_is_answered_with_the_address_alone() {
        let full = Answer { other: Some(addr("192.0.2.9:9")), ..Answer::new(transaction(), addr("192.0.2.1:32853")) };
        let answer = full.encode(stock().len());
        let mut expected = vec![1, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42];
        expected.extend(1..=12);
        expected.extend([0, 0x20, 0, 8, 0, 1, 0x80 ^ 0x21, 0x55 ^ 0x12, 192 ^ 0x21, 0x12, 2 ^ 0xA4, 1 ^ 0x42]);
        assert_eq!(answer, expected);
    }

    #[test]
    fn another_implementation_reads_the_answer() {
        for from in ["192.0.2.1:32853", "[2001:db8::7]:9"].map(addr) {
            let answer = Answer::new(transaction(), from).encode(0);
            let message = stun_types::message::Message::from_bytes(&answer).expect("a STUN message");
            let attribute = message.attribute::<XorMappedAddress>().expect("an address");
            assert_eq!(attribute.addr(message.transaction_id()), from);
            assert!(answer.len() <= stock().len() + MAX_GROWTH);
        }
    }

    #[test]
    fn the_longest_answer_fits_into_our_question_and_says_all() {
        for (one, two) in [("192.0.2.1:1", "192.0.2.2:2"), ("[2001:db8::1]:1", "[2001:db8::2]:2")] {
            let answer = Answer {
                transaction: [3; 12],
                mapped: addr(one),
                origin: Some(addr(two)),
                other: Some(addr(two)),
                other_port: Some(3479),
                proof: Some([8; 16]),
            };
            let bytes = answer.encode(QUESTION_LEN);
            assert!(bytes.len() <= QUESTION_LEN);
            assert_eq!(Answer::parse(&bytes), Ok(answer));
            assert_eq!(bytes.len() == QUESTION_LEN, answer.mapped.is_ipv6(), "and no byte is spare");
        }
    }

    #[test]
    fn an_old_server_is_understood_and_the_hidden_address_counts() {
        let answer = |attributes: &[u8]| Answer::parse(&message(method::BINDING_SUCCESS, &[0; 12], attributes));
        let plain = [0, 1, 0, 8, 0, 1, 0, 7, 192, 0, 2, 1];
        let hidden = [0, 0x20, 0, 8, 0, 1, 0x21, 0x12 ^ 9, 192 ^ 0x21, 0x12, 2 ^ 0xA4, 2 ^ 0x42];
        assert_eq!(answer(&plain).map(|a| a.mapped), Ok(addr("192.0.2.1:7")));
        assert_eq!(answer(&[plain, hidden].concat()).map(|a| a.mapped), Ok(addr("192.0.2.2:9")));
        let short = [0xE0, 0xE7, 0, 4, 1, 2, 3, 4];
        assert_eq!(answer(&[&plain[..], &short].concat()).map(|a| (a.other_port, a.proof)), Ok((None, None)));
        assert_eq!(answer(&[]), Err(Malformed::Bad("answer without an address")));
        assert_eq!(answer(&[0, 1, 0, 4, 0, 1, 0, 7]), Err(Malformed::Truncated));
        assert_eq!(Answer::parse(&stock()), Err(Malformed::Bad("STUN type")));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = Answer::parse(&bytes);
            bytes.truncate(bytes.len() / 4 * 4);
            let _ = Answer::parse(&message(method::BINDING_SUCCESS, &[0; 12], &bytes));
        }
    }
}
