//! The question.

use super::{HEADER, OURS_LEN, Proof, attribute, message, method, read_attribute, read_header, read_ours};
use crate::wire::{Malformed, Reader, Writer};

/// Bytes of the questions that we ask: of the longest answer, over IPv6.
pub const QUESTION_LEN: usize = HEADER + 3 * 24 + 4 + OURS_LEN as usize;

/// From where else than from where it was asked a server is to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// From its other address.
    pub address: bool,
    /// From its other port.
    pub port: bool,
}

impl Change {
    /// From where it was asked.
    pub const NONE: Self = Self { address: false, port: false };
    /// From the other port.
    pub const PORT: Self = Self { address: false, port: true };
    /// From the other address and port.
    pub const BOTH: Self = Self { address: true, port: true };
}

/// A Binding request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindingRequest {
    /// In the answer again.
    pub transaction: [u8; 12],
    /// From where the answer is to come.
    pub change: Change,
    /// To which port of the asker it is to go, if not to the one that it came from.
    pub response_port: Option<u16>,
    /// That the asker was there. As we ask it is always there, and zeros mean none.
    pub proof: Option<Proof>,
    /// The first attribute that a server must understand and that we do not (RFC 8489 §6.3.1).
    pub not_understood: Option<u16>,
}

impl BindingRequest {
    /// Reads a request. Attributes that may be ignored are.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(datagram);
        let (kind, transaction) = read_header(&mut r, datagram)?;
        if kind != method::BINDING_REQUEST {
            return Err(Malformed::Bad("STUN type"));
        }
        let mut request = Self { transaction, ..Self::default() };
        while let Some((kind, value)) = read_attribute(&mut r)? {
            match kind {
                attribute::CHANGE_REQUEST => {
                    let flags = Reader::new(value).u32()?;
                    request.change = Change { address: flags & 4 != 0, port: flags & 2 != 0 };
                }
                attribute::RESPONSE_PORT => request.response_port = Some(Reader::new(value).u16()?),
                attribute::PUNCHLAN => request.proof = read_ours(value).map(|(_, proof)| proof).or(request.proof),
                kind if kind < 0x8000 && !is_ignorable(kind) => {
                    request.not_understood = request.not_understood.or(Some(kind));
                }
                _ => {}
            }
        }
        Ok(request)
    }

    /// The request with room for any answer: [`QUESTION_LEN`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(QUESTION_LEN);
        if self.change != Change::NONE {
            let flags = u32::from(self.change.address) << 2 | u32::from(self.change.port) << 1;
            w.u16(attribute::CHANGE_REQUEST).u16(4).u32(flags);
        }
        if let Some(port) = self.response_port {
            w.u16(attribute::RESPONSE_PORT).u16(4).u16(port).u16(0);
        }
        let rest = QUESTION_LEN - HEADER - w.as_slice().len() - 4;
        w.u16(attribute::PUNCHLAN).u16(u16::try_from(rest).expect("it is below QUESTION_LEN"));
        w.u32(0).bytes(&self.proof.unwrap_or_default()).pad_to(QUESTION_LEN - HEADER);
        message(method::BINDING_REQUEST, &self.transaction, &w.finish())
    }

    /// Whether a request is a header alone, as stock clients send it.
    pub const fn is_stock(datagram: &[u8]) -> bool {
        datagram.len() == HEADER
    }

    /// The answer to who asked with an attribute that is not understood, or cannot be served: error 420.
    pub fn refuse(&self, kind: u16) -> Vec<u8> {
        let mut w = Writer::with_capacity(16);
        w.u16(attribute::ERROR_CODE).u16(4).u16(0).u8(4).u8(20);
        w.u16(attribute::UNKNOWN_ATTRIBUTES).u16(2).u16(kind).u16(0);
        message(method::BINDING_ERROR, &self.transaction, &w.finish())
    }
}

/// Credentials: a server that asks for none ignores them.
fn is_ignorable(kind: u16) -> bool {
    matches!(kind, attribute::USERNAME | attribute::MESSAGE_INTEGRITY | attribute::MESSAGE_INTEGRITY_SHA256)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use stun_types::message::{BINDING, Message};

    /// As every stock client sends it.
    pub(in super::super) fn stock() -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
        bytes.extend(1..=12);
        bytes
    }

    #[test]
    fn our_question_is_read_as_it_was_written_and_has_one_length() {
        for change in [Change::NONE, Change::PORT, Change::BOTH, Change { address: true, port: false }] {
            for response_port in [None, Some(40_000)] {
                let proof = Some([9; 16]);
                let request =
                    BindingRequest { transaction: [7; 12], change, response_port, proof, ..Default::default() };
                let bytes = request.encode();
                assert_eq!(bytes.len(), QUESTION_LEN);
                assert_eq!(BindingRequest::parse(&bytes), Ok(request));
                let message = Message::from_bytes(&bytes).expect("another implementation reads it");
                assert!(message.has_method(BINDING));
            }
        }
    }

    #[test]
    fn the_bytes_of_a_wish_are_those_of_rfc_5780() {
        let request =
            BindingRequest { change: Change::BOTH, response_port: Some(0x1234), ..Default::default() }.encode();
        assert_eq!(request[20..28], [0, 3, 0, 4, 0, 0, 0, 6]);
        assert_eq!(request[28..36], [0, 0x27, 0, 4, 0x12, 0x34, 0, 0]);
    }

    #[test]
    fn software_is_ignored_and_what_must_be_understood_is_named() {
        let mut bytes = stock();
        bytes[3] = 12;
        bytes.extend([0x80, 0x22, 0, 5, b'p', b'r', b'o', b'b', b'e', 0, 0, 0]);
        assert_eq!(BindingRequest::parse(&bytes).expect("valid").not_understood, None);

        let mut bytes = stock();
        bytes[3] = 8;
        bytes.extend([0, 0x26, 0, 4, 0, 0, 0, 0]);
        let request = BindingRequest::parse(&bytes).expect("valid");
        assert_eq!(request.not_understood, Some(0x26));
        let refusal = request.refuse(0x26);
        assert_eq!(refusal[20..], [0, 9, 0, 4, 0, 0, 4, 20, 0, 10, 0, 2, 0, 0x26, 0, 0]);
        assert_eq!(refusal[..2], [1, 0x11]);
        assert_eq!(super::super::refused(&refusal), Ok(request.transaction));
        assert!(super::super::refused(&stock()).is_err());
    }

    #[test]
    fn our_attribute_is_ignored_where_somebody_else_means_something_by_it() {
        let mut bytes = stock();
        bytes[3] = 8;
        bytes.extend([0xE0, 0xE7, 0, 4, 1, 2, 3, 4]);
        assert_eq!(
            BindingRequest::parse(&bytes).map(|request| (request.proof, request.not_understood)),
            Ok((None, None))
        );
    }

    #[test]
    fn what_is_no_request_is_not_read() {
        let mut indication = stock();
        indication[1] = 0x11;
        assert!(BindingRequest::parse(&indication).is_err());
        let mut long = stock();
        long.push(0);
        assert!(BindingRequest::parse(&long).is_err());
        assert!(BindingRequest::parse(&stock()[..19]).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = BindingRequest::parse(&tail);
            let mut bytes = stock();
            bytes[3] = u8::try_from(tail.len()).expect("short");
            bytes.extend(&tail);
            if let Ok(request) = BindingRequest::parse(&bytes) {
                prop_assert_eq!(BindingRequest::parse(&request.encode()).map(|r| r.change), Ok(request.change));
            }
        }
    }
}
