//! Services by multicast DNS (RFC 6762, RFC 6763). Which kinds there are is asked first, then who has one of each.

use std::net::Ipv4Addr;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{Found, Protocol, some_text, text};

/// Where it is said and asked.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// The UDP port of that.
pub const PORT: u16 = 5_353;

/// Whose kinds of services are asked for.
const KINDS: [&str; 4] = ["_services", "_dns-sd", "_udp", "local"];
/// Records of one message that are looked at.
const MOST: usize = 64;

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Kinds of services that there are.
    pub kinds: Vec<Name>,
    /// Services.
    pub found: Vec<Found>,
}

/// Asks which kinds of services there are.
pub fn question() -> Option<Vec<u8>> {
    ask_for(Name::from_labels(KINDS.map(str::as_bytes)).ok()?)
}

/// Asks who has a service of this kind.
pub fn ask_for(kind: Name) -> Option<Vec<u8>> {
    let mut question = Message::new(0, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(kind, RecordType::PTR));
    question.to_vec().ok()
}

/// Reads what somebody answers or says by itself.
pub fn read(bytes: &[u8]) -> Option<Said> {
    let message =
        Message::from_vec(bytes).ok().filter(|message| message.metadata.message_type == MessageType::Response)?;
    let records = || message.answers.iter().chain(&message.additionals).take(MOST);
    let mut said = Said::default();
    for record in records() {
        let RData::PTR(target) = &record.data else { continue };
        if is_list_of_kinds(&record.name) {
            said.kinds.push(target.0.clone());
        } else if let Some(kind) = kind(&record.name) {
            said.found.push(service(&target.0, kind, records()));
        }
    }
    Some(said)
}

fn is_list_of_kinds(name: &Name) -> bool {
    name.iter().eq(KINDS.map(str::as_bytes))
}

/// `_http._tcp`, if the name is one of a kind of service.
fn kind(name: &Name) -> Option<String> {
    let labels: Vec<&[u8]> = name.iter().collect();
    match labels[..] {
        [.., service, protocol, domain]
            if domain == b"local" && service.starts_with(b"_") && protocol.starts_with(b"_") =>
        {
            Some(format!("{}.{}", text(service), text(protocol)))
        }
        _ => None,
    }
}

fn service<'a>(instance: &Name, kind: String, mut records: impl Iterator<Item = &'a Record>) -> Found {
    let name = instance.iter().next().and_then(some_text).unwrap_or_default();
    let port = records.find_map(|record| match &record.data {
        RData::SRV(srv) if record.name == *instance => Some(srv.port),
        _ => None,
    });
    Found { game: Some(kind), port: port.filter(|port| *port != 0), ..Found::named(Protocol::Mdns, name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer as avahi gives it: a service with its port, classes with the bit that says that they are all.
    const ANSWER: &[u8] = b"\0\0\x84\0\0\0\0\x01\0\0\0\x01\x05_http\x04_tcp\x05local\0\0\x0c\0\x01\0\0\x11\x94\0\x0e\x0bSteve's box\xc0\x0c\
        \xc0\x28\0\x21\x80\x01\0\0\0\x78\0\x0d\0\0\0\0\x1f\x90\x04host\xc0\x17";

    #[test]
    fn a_service_its_kind_and_its_port_are_read() {
        let said = read(ANSWER).expect("an answer");
        let [found] = &said.found[..] else { panic!("one service: {said:?}") };
        assert_eq!((found.name.as_str(), found.game.as_deref()), ("Steve's box", Some("_http._tcp")));
        assert_eq!((found.port, said.kinds.len()), (Some(8_080), 0));
    }

    #[test]
    fn kinds_that_are_listed_are_asked_for() {
        let list = b"\0\0\x84\0\0\0\0\x01\0\0\0\0\x09_services\x07_dns-sd\x04_udp\x05local\0\0\x0c\0\x01\0\0\x11\x94\0\x0d\x05_http\x04_tcp\xc0\x23";
        let said = read(list).expect("an answer");
        assert_eq!(said.kinds.iter().map(kind).collect::<Vec<_>>(), [Some("_http._tcp".to_owned())]);
        assert!(ask_for(said.kinds[0].clone()).is_some_and(|bytes| bytes.windows(6).any(|part| part == b"\x05_http")));
    }

    #[test]
    fn a_question_says_nothing_and_neither_does_what_is_cut_off() {
        assert_eq!(read(&question().expect("a question")), None);
        for len in 0..ANSWER.len() {
            assert_eq!(read(&ANSWER[..len]), None, "{len}");
        }
    }
}
