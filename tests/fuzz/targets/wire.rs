//! Every parser of the wire: any bytes are understood or refused, and what is understood is written as it was.

use punchlan::crypto::announcement;
use punchlan::id::NetworkId;
use punchlan::wire::announcement::{Announcement, split_signature};
use punchlan::wire::beacon::Beacon;
use punchlan::wire::groups::Groups;
use punchlan::wire::probe::Probe;
use punchlan::wire::rendezvous::items::{ToPeer, ToServer};
use punchlan::wire::rendezvous::{Claim, Message, Unknown};
use punchlan::wire::session::{
    Control, CookieReply, Fragment, Handshake, Header, InitiationPayload, ResponsePayload, Segment, receiver_index,
};
use punchlan::wire::stun::{Answer, BindingRequest, QUESTION_LEN};
use punchlan::wire::{Writer, classify, ip, relay};

/// What was understood says the same when it is written and read again.
macro_rules! again {
    ($kind:ident, $bytes:ident) => {
        if let Ok(value) = $kind::decode($bytes) {
            let written: Vec<u8> = value.encode().into();
            assert_eq!($kind::decode(&written).as_ref(), Ok(&value));
        }
    };
}

/// The first byte says which parser gets the rest.
pub(crate) fn run(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    let _ = (classify(bytes), receiver_index(bytes), Probe::peek_tag(bytes), Unknown::to(bytes));
    match which % 15 {
        0 => message(bytes),
        1 => to_server(bytes),
        2 => to_peer(bytes),
        3 => {
            again!(Control, bytes);
            again!(Groups, bytes);
        }
        4 => probe(bytes),
        5 => {
            if let Ok(header) = Header::decode(bytes) {
                assert!(bytes.starts_with(&header.encode()));
            }
        }
        6 => again!(Announcement, bytes),
        7 => again!(InitiationPayload, bytes),
        8 => again!(ResponsePayload, bytes),
        9 => again!(CookieReply, bytes),
        10 => handshake(bytes),
        11 => packets(bytes),
        12 => relay_frame(bytes),
        13 => again!(Beacon, bytes),
        _ => {
            let _ = (split_signature(bytes), announcement::verify(bytes, &NetworkId([7; 32])));
            stun(bytes);
        }
    }
}

fn stun(bytes: &[u8]) {
    if let Ok(request) = BindingRequest::parse(bytes) {
        for from in ["192.0.2.1:7", "[2001:db8::1]:7"] {
            let answer = Answer::new(request.transaction, from.parse().expect("an address"));
            assert!(answer.encode(bytes.len()).len() <= bytes.len() + 24);
        }
        let written = BindingRequest { not_understood: None, ..request };
        let read = BindingRequest::parse(&written.encode());
        assert_eq!(read.map(|read| (read.change, read.response_port)), Ok((request.change, request.response_port)));
    }
    if let Ok(answer) = Answer::parse(bytes) {
        let again = Answer::parse(&answer.encode(QUESTION_LEN)).expect("what was understood can be written");
        assert_eq!((again.mapped, again.proof), (answer.mapped, answer.proof));
    }
}

fn message(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    let written = match message {
        Message::Hello(hello) => hello.encode(),
        Message::Cookie(cookie) => cookie.encode(),
        Message::Register(register) => {
            let claim: Claim = register.claim;
            assert!(claim.encode().len() <= bytes.len());
            register.encode()
        }
        Message::Refused(refused) => refused.encode(),
        Message::Unknown(unknown) => unknown.encode(),
        Message::Frame(header) => header.encode().to_vec(),
    };
    match (Message::parse(&written), message) {
        // Of a frame only the clear part is ours to write.
        (_, Message::Frame(_)) => assert_eq!(written, bytes[..written.len()]),
        (read, _) => assert_eq!(read, Ok(message)),
    }
}

fn to_server(bytes: &[u8]) {
    for item in ToServer::all(bytes) {
        let mut w = Writer::default();
        item.write(&mut w);
        assert_eq!(ToServer::all(&w.finish()).next(), Some(item));
    }
}

fn to_peer(bytes: &[u8]) {
    for item in ToPeer::all(bytes) {
        let mut w = Writer::default();
        item.write(&mut w);
        assert_eq!(ToPeer::all(&w.finish()).next(), Some(item));
    }
}

fn probe(bytes: &[u8]) {
    if let Ok(probe) = Probe::decode(bytes) {
        // The tag and the code that prove it are not of this layer.
        let written = probe.encode(bytes.len());
        assert_eq!(Probe::decode(&written), Ok(probe));
    }
}

fn handshake(bytes: &[u8]) {
    if let Ok(message) = Handshake::decode(bytes) {
        assert!(message.before_mac1().len() < message.before_mac2().len());
        assert!(message.before_mac2().len() < bytes.len());
    }
}

fn packets(bytes: &[u8]) {
    let _ = (ip::addresses(bytes), ip::is_link_message(bytes));
    if let Ok((segment, rest)) = Segment::decode(bytes) {
        assert!(rest.len() < bytes.len());
        let _ = segment.encode();
    }
    if let Ok((fragment, rest)) = Fragment::decode(bytes) {
        assert!(rest.len() < bytes.len());
        let _ = fragment.encode();
    }
}

fn relay_frame(bytes: &[u8]) {
    if let Ok((header, payload)) = relay::Header::parse(bytes) {
        assert_eq!([&header.encode()[..], payload].concat(), bytes);
    }
}
