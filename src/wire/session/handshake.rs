//! The two handshake messages, their payloads, and the cookie reply.

use super::{COOKIE_REPLY_LEN, HEADER, MAC, PAYLOAD, put_announcement, take_announcement};
use crate::wire::{Malformed, Reader, Writer, kind};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{
        Control, INITIATION_LEN, INITIATION_NOISE, OVERHEAD, RESPONSE_LEN, RESPONSE_NOISE, receiver_index,
    };
    use super::*;
    use crate::wire::announcement::MAX_SIGNED;

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

    proptest! {
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
    }
}
