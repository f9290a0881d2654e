use super::super::tests::zone;
use super::*;

fn friday() -> Zone {
    zone("10.77.0.0/23", &[("alice", "10.77.0.1", 1), ("bob", "10.77.1.2", 2), ("carol", "", 3)])
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("written")
}

/// The answer of the network's zone, which must be to this question.
fn answer(question: &Message) -> Message {
    let answer = friday().answer(&bytes(question)).expect("answered");
    assert!(answer.len() <= 512);
    let answer = Message::from_vec(&answer).expect("well-formed");
    assert_eq!((answer.metadata.id, answer.metadata.message_type), (0x1234, MessageType::Response));
    assert!(!answer.metadata.recursion_available && !answer.metadata.truncation);
    answer
}

/// How it went, and what was answered.
fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let question = question(name, kind);
    let answer = answer(&question);
    assert_eq!(answer.queries, question.queries);
    let (code, own) = (answer.metadata.response_code, answer.metadata.authoritative);
    assert_eq!(own, code != ResponseCode::Refused);
    let denied = own && answer.answers.is_empty();
    let soas: Vec<_> = answer.authorities.iter().map(|record| (record.record_type(), record.ttl)).collect();
    assert_eq!(soas, if denied { vec![(RecordType::SOA, TTL)] } else { Vec::new() }, "{name}");
    let said = |record: &Record| {
        assert_eq!((record.name.to_ascii(), record.ttl), (name.to_owned(), TTL), "spelled as the question did");
        record.data.to_string()
    };
    (code, answer.answers.iter().map(said).collect())
}

fn is(data: &[&str]) -> (ResponseCode, Vec<String>) {
    (ResponseCode::NoError, data.iter().map(ToString::to_string).collect())
}

fn no_such_name() -> (ResponseCode, Vec<String>) {
    (ResponseCode::NXDomain, Vec::new())
}

fn refused() -> (ResponseCode, Vec<String>) {
    (ResponseCode::Refused, Vec::new())
}

#[test]
fn members_have_the_addresses_that_they_have() {
    use RecordType as R;
    assert_eq!(ask("alice.friday.internal.", R::A), is(&["10.77.0.1"]));
    assert_eq!(ask("alice.friday.internal.", R::AAAA), is(&["fd01:203:405::1"]));
    assert_eq!(ask("aLiCe.FRIDAY.Internal.", R::ANY), is(&["10.77.0.1", "fd01:203:405::1"]));
    assert_eq!(ask("carol.friday.internal.", R::A), is(&[]), "she has none of these");
    assert_eq!(ask("alice.friday.internal.", R::HTTPS), is(&[]));
    assert_eq!(ask("dave.friday.internal.", R::A), no_such_name());
    assert_eq!(ask("_smb._tcp.friday.internal.", R::SRV), no_such_name());
    assert_eq!(ask("www.alice.friday.internal.", R::A), no_such_name());
}

#[test]
fn addresses_have_the_names_of_their_members() {
    use RecordType as R;
    assert_eq!(ask("1.0.77.10.in-addr.arpa.", R::PTR), is(&["alice.friday.internal."]));
    assert_eq!(ask("2.1.77.10.IN-ADDR.arpa.", R::PTR), is(&["bob.friday.internal."]));
    assert_eq!(ask("2.1.77.10.in-addr.arpa.", R::A), is(&[]));
    assert_eq!(ask("9.1.77.10.in-addr.arpa.", R::PTR), no_such_name());
    let v6 = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.0.4.0.3.0.2.0.1.0.d.f.ip6.arpa.";
    assert_eq!(ask(v6, R::PTR), is(&["carol.friday.internal."]));
    assert_eq!(ask(&v6.replacen('3', "4", 1), R::PTR), no_such_name());
    assert_eq!(ask(&v6[2..], R::PTR), is(&[]), "there are names below it");
    assert_eq!(ask("lb._dns-sd._udp.0.0.77.10.in-addr.arpa.", R::PTR), no_such_name());
    // Of a subnet that is no octet's each piece is a zone.
    let small = zone("10.77.0.8/29", &[("alice", "10.77.0.9", 1)]);
    let whose = |name: &str| {
        let answer = small.answer(&bytes(&question(name, R::PTR))).expect("answered");
        Message::from_vec(&answer).expect("well-formed").metadata.response_code
    };
    assert_eq!(whose("9.0.77.10.in-addr.arpa."), ResponseCode::NoError);
    assert_eq!(whose("10.0.77.10.in-addr.arpa."), ResponseCode::NoError, "a zone, and nothing in it");
    assert_eq!(whose("16.0.77.10.in-addr.arpa."), ResponseCode::Refused, "somebody else's");
}

#[test]
fn the_zones_themselves_are_there() {
    use RecordType as R;
    for zone in friday().zone_names() {
        let (code, said) = ask(&format!("{zone}."), R::SOA);
        assert_eq!((code, said.len()), (ResponseCode::NoError, 1), "{zone}");
        assert_eq!(ask(&format!("{zone}."), R::A), is(&[]), "{zone}");
    }
    let zones = ["friday.internal", "0.77.10.in-addr.arpa", "1.77.10.in-addr.arpa"];
    assert_eq!(friday().zone_names()[..3], zones);
    assert_eq!(friday().zone_names()[3], "0.0.0.0.5.0.4.0.3.0.2.0.1.0.d.f.ip6.arpa");
}

#[test]
fn what_is_not_ours_is_refused_and_nobody_else_is_asked() {
    use RecordType as R;
    for name in ["example.org.", "internal.", "saturday.internal.", "alice.", ".", "xfriday.internal.", "arpa."] {
        assert_eq!(ask(name, R::A), refused(), "{name}");
    }
    for name in ["1.2.77.10.in-addr.arpa.", "77.10.in-addr.arpa.", "1.0.0.127.in-addr.arpa.", "d.f.ip6.arpa."] {
        assert_eq!(ask(name, R::PTR), refused(), "{name}");
    }
    let mut chaos = question("alice.friday.internal.", R::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(answer(&chaos).metadata.response_code, ResponseCode::Refused);
    let mut update = question("friday.internal.", R::SOA);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(answer(&update).metadata.response_code, ResponseCode::NotImp);
}

#[test]
fn extensions_are_answered_where_they_are_used() {
    let mut question = question("alice.friday.internal.", RecordType::A);
    assert_eq!(answer(&question).edns, None);
    question.set_edns(Edns::new());
    let answered = answer(&question);
    assert_eq!(answered.answers.len(), 1);
    assert_eq!(answered.edns.map(|edns| (edns.version(), edns.max_payload())), Some((0, PAYLOAD)));
    question.edns.as_mut().expect("set").set_version(1);
    let answered = answer(&question);
    // Another name of the same number is BADSIG.
    let code = u16::from(answered.metadata.response_code);
    assert_eq!((code, answered.answers.len()), (ResponseCode::BADVERS.into(), 0));
}

#[test]
fn what_is_no_question_is_refused_as_such_or_not_answered() {
    let whole = bytes(&question("alice.friday.internal.", RecordType::A));
    for length in 0..whole.len() {
        match friday().answer(&whole[..length]) {
            None => assert!(length < HEADER),
            Some(said) => {
                let said = Message::from_vec(&said).expect("well-formed");
                assert_eq!((said.metadata.id, said.metadata.response_code), (0x1234, ResponseCode::FormErr));
                assert!(length >= HEADER);
            }
        }
    }
    let mut two = question("alice.friday.internal.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(answer(&two).metadata.response_code, ResponseCode::FormErr);
    let reply = friday().answer(&whole).expect("answered");
    assert_eq!(friday().answer(&reply), None, "two servers do not talk without end");
}

#[test]
fn the_longest_answer_fits_without_being_asked_for() {
    let long = "n".repeat(32);
    let zone = Zone::new(&long, friday().overlay, friday().hosts().cloned());
    let label = "x".repeat(60);
    let names = [format!("{label}.{label}.{label}.{long}.internal."), format!("{label}.{label}.{label}.{label}.")];
    for name in names {
        let mut question = question(&name, RecordType::ANY);
        question.set_edns(Edns::new());
        assert!(zone.answer(&bytes(&question)).expect("answered").len() <= 512, "{name}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_no_answer_is_long(
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600),
        (at, with) in (0_usize..60, proptest::prelude::any::<u8>()),
    ) {
        let mut question = bytes(&question("alice.friday.internal.", RecordType::A));
        let at = at % question.len();
        question[at] = with;
        for input in [noise, question] {
            let length = friday().answer(&input).map_or(0, |answer| answer.len());
            proptest::prop_assert!(length <= 512);
        }
    }
}
