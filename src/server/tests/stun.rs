//! STUN with more than one port or address: answers come from where they were wished, and go to nobody else.

use std::net::SocketAddr;

use super::world::{MS, S};
use crate::id::SocketId;
use crate::rendezvous::server::Rate;
use crate::sans::{Datagram, Instant, Seed};
use crate::server::{Config, Core, Verdict};
use crate::wire::stun::{Answer, BindingRequest, Change, Proof, QUESTION_LEN};

const ADDRESS: Change = Change { address: true, port: false };

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn asker() -> SocketAddr {
    addr("203.0.113.9:40000")
}

/// A rendezvous with these sockets.
struct Stage {
    core: Core,
    sockets: Vec<SocketAddr>,
    now: Instant,
}

/// An answer: from where, to where, and its bytes.
type Answered = (SocketAddr, SocketAddr, Vec<u8>);

impl Stage {
    fn new(sockets: &[&str]) -> Self {
        Self::with(Config::default(), sockets)
    }

    fn with(config: Config, sockets: &[&str]) -> Self {
        let sockets: Vec<SocketAddr> = sockets.iter().map(|text| addr(text)).collect();
        let now = Instant::ZERO + S * 1000;
        let mut core = Core::new(config, [5; 32], &Seed::from_u64(1), now);
        core.set_sockets(&sockets);
        Self { core, sockets, now }
    }

    /// Two addresses with two ports each.
    fn square() -> Self {
        Self::new(&["198.51.100.10:3478", "198.51.100.11:3478", "198.51.100.10:3479", "198.51.100.11:3479"])
    }

    /// All answers to a question to a local address of a socket.
    fn all(&mut self, socket: u16, local: &str, from: SocketAddr, question: &[u8]) -> Vec<Answered> {
        let local = Some(local.parse().expect("address"));
        let mut payload = question.to_vec();
        let datagram = Datagram { socket: SocketId(socket), local, from, payload: &mut payload };
        assert!(!matches!(self.core.handle_datagram(self.now, datagram), Verdict::Forward { .. }));
        let mut all = Vec::new();
        while let Some(sent) = self.core.poll_transmit() {
            let port = self.sockets[usize::from(sent.socket.0)].port();
            all.push((SocketAddr::new(sent.src.expect("from an address"), port), sent.to, sent.payload));
        }
        all
    }

    /// The answer of the first socket to our question.
    fn ask(&mut self, from: SocketAddr, request: BindingRequest) -> Option<(SocketAddr, SocketAddr, Answer)> {
        self.now += S;
        let all = self.all(0, "198.51.100.10", from, &request.encode());
        assert!(all.len() <= 1);
        let (source, to, bytes) = all.into_iter().next()?;
        assert!(bytes.len() <= QUESTION_LEN);
        Some((source, to, Answer::parse(&bytes).ok()?))
    }

    fn wish(&mut self, change: Change) -> Option<SocketAddr> {
        let request = BindingRequest { change, ..BindingRequest::default() };
        self.ask(asker(), request).map(|(source, to, answer)| {
            assert_eq!((to, answer.mapped, answer.origin), (asker(), asker(), Some(source)));
            source
        })
    }

    fn proof(&mut self, of: SocketAddr) -> Proof {
        let request = BindingRequest { proof: Some(Proof::default()), ..BindingRequest::default() };
        self.ask(of, request).and_then(|(.., answer)| answer.proof).expect("to who asks for it")
    }
}

#[test]
fn an_answer_comes_from_where_it_was_wished() {
    let mut stage = Stage::square();
    assert_eq!(stage.wish(Change::NONE), Some(addr("198.51.100.10:3478")));
    assert_eq!(stage.wish(Change::PORT), Some(addr("198.51.100.10:3479")));
    assert_eq!(stage.wish(ADDRESS), Some(addr("198.51.100.11:3478")));
    assert_eq!(stage.wish(Change::BOTH), Some(addr("198.51.100.11:3479")));
    let question = BindingRequest { proof: Some(Proof::default()), ..BindingRequest::default() };
    let (.., answer) = stage.ask(asker(), question).expect("answered");
    assert_eq!((answer.other, answer.other_port), (Some(addr("198.51.100.11:3479")), Some(3479)));
}

#[test]
fn of_several_other_addresses_and_ports_those_are_named_that_are_there_together() {
    let mut stage = Stage::new(&[
        "198.51.100.10:3478",
        "198.51.100.11:3478",
        "198.51.100.10:3477",
        "198.51.100.10:3479",
        "198.51.100.12:3478",
        "198.51.100.12:3479",
    ]);
    assert_eq!(stage.wish(Change::BOTH), Some(addr("198.51.100.12:3479")));
    assert_eq!(
        (stage.wish(Change::PORT), stage.wish(ADDRESS)),
        (Some(addr("198.51.100.10:3477")), Some(addr("198.51.100.11:3478")))
    );
}

#[test]
fn with_a_second_port_alone_the_port_can_change_and_no_other_address_is_named() {
    // As two wildcards are bound; the asker reaches one of the machine's addresses.
    let mut stage = Stage::new(&["0.0.0.0:3478", "[::]:3478", "0.0.0.0:3479", "[::]:3479"]);
    assert_eq!(stage.wish(Change::PORT), Some(addr("198.51.100.10:3479")));
    assert_eq!((stage.wish(ADDRESS), stage.wish(Change::BOTH)), (None, None));
    let question = BindingRequest { proof: Some(Proof::default()), ..BindingRequest::default() };
    let (.., answer) = stage.ask(asker(), question).expect("answered");
    assert_eq!((answer.other, answer.other_port), (None, Some(3479)));
}

#[test]
fn a_wish_that_cannot_be_met_is_refused_in_the_words_of_the_protocol() {
    let mut stage = Stage::new(&["198.51.100.10:3478"]);
    for (request, kind) in [
        (BindingRequest { change: Change::PORT, ..BindingRequest::default() }, 3),
        (BindingRequest { response_port: Some(9), ..BindingRequest::default() }, 0x27),
        (BindingRequest { response_port: Some(9), proof: Some([1; 16]), ..BindingRequest::default() }, 0x27),
    ] {
        let all = stage.all(0, "198.51.100.10", asker(), &request.encode());
        let [(source, to, bytes)] = &all[..] else { panic!("{all:?}") };
        assert_eq!((*source, *to), (addr("198.51.100.10:3478"), asker()));
        assert_eq!(bytes[20..], [0, 9, 0, 4, 0, 0, 4, 20, 0, 10, 0, 2, 0, kind, 0, 0]);
    }
}

#[test]
fn an_answer_goes_to_another_port_only_with_the_proof_of_who_was_there() {
    let mut stage = Stage::square();
    let silent = SocketAddr::new(asker().ip(), 50_000);
    let proof = stage.proof(silent);
    let there = |proof| BindingRequest { response_port: Some(silent.port()), proof, ..BindingRequest::default() };
    let to = |answered: Option<(SocketAddr, SocketAddr, Answer)>| answered.map(|(source, to, _)| (source, to));
    let served = Some((addr("198.51.100.10:3478"), silent));
    let (.., answer) = stage.ask(asker(), there(Some(proof))).expect("served");
    assert_eq!(answer.proof, None, "it would prove that the asker was there, to who is elsewhere");
    assert_eq!(to(stage.ask(asker(), there(Some(proof)))), served);
    stage.now += S * 310;
    assert_eq!(to(stage.ask(asker(), there(Some(proof)))), served, "it holds for as long as a mapping is watched");

    assert_eq!(to(stage.ask(asker(), there(None))), None);
    assert_eq!(to(stage.ask(asker(), there(Some([0; 16])))), None);
    // Of another port, from another address, at another of the server's sockets, with another wish, or long ago.
    let other_port = BindingRequest { response_port: Some(53), ..there(Some(proof)) };
    assert_eq!(to(stage.ask(asker(), other_port)), None);
    assert_eq!(to(stage.ask(addr("203.0.113.10:40000"), there(Some(proof)))), None);
    let refused = |all: Vec<Answered>| all.iter().all(|(_, to, bytes)| *to == asker() && bytes[..2] == [1, 0x11]);
    assert!(refused(stage.all(1, "198.51.100.11", asker(), &there(Some(proof)).encode())));
    let elsewhere = BindingRequest { change: Change::BOTH, ..there(Some(proof)) };
    assert_eq!(to(stage.ask(asker(), elsewhere)), None);
    stage.now += S * 660;
    assert_eq!(to(stage.ask(asker(), there(Some(proof)))), None);
}

#[test]
fn wherever_it_comes_from_an_answer_is_no_longer_than_its_question_and_goes_to_the_asker_alone() {
    let mut stage = Stage::square();
    let changes = [Change::NONE, Change::PORT, ADDRESS, Change::BOTH];
    for request in changes.map(|change| BindingRequest { change, proof: Some([1; 16]), ..BindingRequest::default() }) {
        let bytes = request.encode();
        for attributes in (0..=QUESTION_LEN - 20).step_by(4) {
            stage.now += S;
            // As short as the attributes allow: those at the end are left out, or cut.
            let mut question = bytes[..20 + attributes].to_vec();
            question[3] = u8::try_from(attributes).expect("short");
            let growth = if attributes == 0 { crate::wire::stun::MAX_GROWTH } else { 0 };
            let all = stage.all(0, "198.51.100.10", asker(), &question);
            assert!(all.len() <= 1 && all.iter().all(|(_, to, _)| *to == asker()), "{all:?}");
            assert!(all.iter().all(|(.., answer)| answer.len() <= question.len() + growth), "{question:02x?}: {all:?}");
        }
    }
}

#[test]
fn answers_from_elsewhere_count_as_any_other_against_the_limit() {
    let config = Config { stun_per_prefix: Rate::new(1, 3), ..Config::default() };
    let mut stage = Stage::with(config, &["198.51.100.10:3478", "198.51.100.10:3479"]);
    let wish = BindingRequest { change: Change::PORT, ..BindingRequest::default() }.encode();
    let mut answered = 0;
    for _ in 0..10 {
        stage.now += MS;
        answered += stage.all(0, "198.51.100.10", asker(), &wish).len();
    }
    assert_eq!(answered, 3);
    assert_eq!(stage.core.counters().get("stun-rate"), Some(&7));
}
