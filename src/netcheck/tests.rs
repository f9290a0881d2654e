//! Servers that are played: what they say wrong, or leave unsaid, must not become a finding.

use super::*;
use crate::nat::{Allocation, Behaviour, Bounds};
use crate::wire::stun::{Answer, BindingRequest};

const T0: Instant = Instant::from_nanos(1_000_000_000);
const RTT: Duration = Duration::from_millis(20);

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn server() -> SocketAddr {
    addr("198.51.100.1:3478")
}

fn plan(servers: &[&str]) -> Plan {
    Plan {
        servers: servers.iter().map(|text| addr(text)).collect(),
        own: vec![addr("192.168.1.2:0").ip()],
        sockets: (0..19).map(|i| SocketAddr::from(([0; 4], 40_000 + 137 * i))).collect(),
        ipv6: true,
        lifetime: false,
    }
}

/// A question that somebody answers: when it was asked, by what, to whom.
struct Asking<'a> {
    now: Instant,
    transmit: &'a Transmit,
    request: BindingRequest,
}

impl Asking<'_> {
    /// As from behind a NAT that keeps ports.
    fn answer(&self) -> Answer {
        let outside = SocketAddr::new(addr("203.0.113.9:0").ip(), 40_000 + 137 * self.transmit.socket.0);
        Answer::new(self.request.transaction, outside)
    }

    /// As from a rendezvous with another port.
    fn answer_with_port(&self) -> Answer {
        Answer { other_port: Some(3479), proof: Some([1; 16]), ..self.answer() }
    }
}

/// Whether it goes to the server, or to ourselves from outside.
fn is_of_the_play(transmit: &Transmit) -> bool {
    transmit.to == server() || transmit.to.ip() == addr("203.0.113.9:0").ip()
}

/// Runs a check against whatever `play` answers, and from where.
fn run(plan: Plan, mut play: impl FnMut(Asking<'_>) -> Option<(SocketAddr, Answer)>) -> (Report, Vec<Transmit>) {
    run_raw(plan, |asking| play(asking).map(|(from, answer)| (from, answer.encode(usize::MAX))))
}

/// The same with the bytes of the answers.
fn run_raw(plan: Plan, mut play: impl FnMut(Asking<'_>) -> Option<(SocketAddr, Vec<u8>)>) -> (Report, Vec<Transmit>) {
    let (mut now, mut sent, mut wire) = (T0, Vec::new(), Vec::new());
    let mut check = Check::new(plan, &Seed::from_u64(1), now);
    loop {
        while let Some(transmit) = check.poll_transmit() {
            let request = BindingRequest::parse(&transmit.payload).expect("ours");
            let answer = play(Asking { now, transmit: &transmit, request });
            wire.extend(answer.map(|(from, answer)| (now + RTT, transmit.socket, from, answer)));
            sent.push(transmit);
        }
        if let Some(report) = check.poll_report() {
            assert_eq!((check.poll_report(), check.poll_timeout()), (None, None));
            return (report, sent);
        }
        wire.sort_by_key(|(at, ..)| *at);
        let timeout = check.poll_timeout().expect("it goes on").at;
        assert!(timeout > now, "a timer that never rests");
        match wire.first().filter(|(at, ..)| *at < timeout).cloned() {
            Some((at, socket, from, mut payload)) => {
                wire.remove(0);
                now = at;
                check.handle_datagram(now, Datagram { socket, local: None, from, payload: &mut payload });
            }
            None => {
                now = timeout;
                check.handle_timeout(now);
            }
        }
        assert!(now < T0 + Duration::from_mins(6), "it comes to an end");
    }
}

#[test]
fn without_servers_there_is_nothing_to_find_out() {
    let (report, sent) = run(plan(&[]), |_| None);
    assert_eq!((report.udp.why(), sent.len()), (Some("no server was named that could be asked"), 0));
}

#[test]
fn a_plain_server_tells_where_we_are_and_says_why_no_more() {
    let (report, sent) = run(plan(&["198.51.100.1:3478"]), |asking| Some((server(), asking.answer())));
    assert_eq!(report.ipv4.known(), Some(&addr("203.0.113.9:40000")));
    assert_eq!(report.allocation.known(), Some(&Allocation::Preserved));
    assert_eq!(report.servers, [Asked { server: server(), rtt: Some(RTT) }]);
    assert!(report.mapping.known().is_none() && report.filtering.known().is_none());
    assert_eq!(report.ipv6.why(), Some("no server with an IPv6 address was asked"));
    assert_eq!(report.lifetime.why(), Some("it was not asked for, and takes minutes"));
    assert!(sent.iter().all(is_of_the_play));
}

#[test]
fn ipv6_is_public_translated_or_silent() {
    let six = addr("[2001:db8::1]:3478");
    let of = |seen: Option<&str>, own: &str| {
        let plan = Plan { own: vec![own.parse().expect("address")], ..plan(&["[2001:db8::1]:3478"]) };
        let play = |asking: Asking<'_>| {
            Some((six, Answer { mapped: addr(seen?), ..Answer::new(asking.request.transaction, six) }))
        };
        run(plan, play).0
    };
    let ours = "2001:db8:5::7".parse().expect("address");
    assert_eq!(of(Some("[2001:db8:5::7]:9"), "2001:db8:5::7").ipv6.known(), Some(&Ipv6::Public(ours)));
    assert_eq!(of(Some("[2001:db8:5::7]:9"), "fd00::7").ipv6.known(), Some(&Ipv6::Translated(ours)));
    let silent = of(None, "fd00::7");
    assert_eq!((silent.ipv6.known(), silent.udp.known()), (Some(&Ipv6::Silent), Some(&false)));
    let without = run(Plan { ipv6: false, ..plan(&["[2001:db8::1]:3478"]) }, |_| None).0;
    assert_eq!(without.ipv6.why(), Some("this machine has no IPv6"));
}

#[test]
fn a_server_cannot_have_us_write_to_ourselves_or_into_the_house() {
    for other in
        ["127.0.0.1:53", "192.168.1.1:80", "224.0.0.1:5353", "0.0.0.0:9", "[2001:db8::9]:3479", "198.51.100.1:9"]
    {
        let (report, sent) = run(plan(&["198.51.100.1:3478"]), |asking| {
            Some((server(), Answer { other: Some(addr(other)), ..asking.answer() }))
        });
        assert!(sent.iter().all(is_of_the_play), "{other}");
        assert_eq!(report.filtering.known(), None);
    }
    // The same by what it says of the sockets that write to each other, or of all.
    for mapped in [
        "127.0.0.1:53",
        "192.168.1.1:80",
        "192.168.1.2:80",
        "100.64.0.1:80",
        "224.0.0.1:5353",
        "0.0.0.0:9",
        "[2001:db8::9]:3479",
        "[fd00::9]:3479",
        "203.0.113.9:0",
        "198.51.100.1:3478",
        "198.51.100.77:53",
    ] {
        // Of all sockets, or of all but the first.
        for first in [0, 1] {
            let honest = addr("198.51.100.2:3478");
            let (report, sent) = run(plan(&["198.51.100.1:3478", "198.51.100.2:3478"]), |asking| {
                let to = asking.transmit.to;
                let lies = to != honest && asking.transmit.socket.0 >= first;
                let mapped = if lies { addr(mapped) } else { asking.answer().mapped };
                let answer = if to == honest { asking.answer() } else { asking.answer_with_port() };
                Some((to, Answer { mapped, ..answer }))
            });
            let asked = [server(), addr("198.51.100.1:3479"), honest];
            let ours = |to: SocketAddr| to.ip() == addr("203.0.113.9:0").ip() && to.port() != 0;
            assert!(sent.iter().all(|transmit| asked.contains(&transmit.to) || ours(transmit.to)), "{mapped}");
            assert_eq!(report.hairpin.known(), None, "{mapped}");
        }
    }
}

#[test]
fn a_server_that_stops_to_answer_or_answers_too_few_is_not_taken_for_a_strict_nat() {
    // It has another port that answers, and grows tired when the answers from there are asked for.
    for (answers, expected) in [(true, Some(Behaviour::AddressAndPortDependent)), (false, None)] {
        let (report, _) = run(plan(&["198.51.100.1:3478"]), |asking| {
            let answer = asking.answer_with_port();
            let filters = asking.transmit.socket == FILTERED && asking.now > T0 + Duration::from_millis(400);
            let passes = asking.request.change == Change::NONE && (answers || !filters);
            passes.then_some((asking.transmit.to, answer))
        });
        assert_eq!(report.filtering.known().and_then(Bounds::exact), expected, "{:?}", report.filtering);
    }
}

#[test]
fn a_server_that_ignores_a_wish_tells_nothing_by_it() {
    let (report, _) = run(plan(&["198.51.100.1:3478"]), |asking| Some((asking.transmit.to, asking.answer_with_port())));
    assert_eq!(report.filtering.known(), None);
}

#[test]
fn of_several_servers_the_one_that_can_tell_most_is_asked_most_and_the_silent_ones_delay_little() {
    let mut last = T0;
    let servers = ["198.51.100.7:3478", "198.51.100.1:3478", "198.51.100.8:3478"];
    let (report, sent) = run(plan(&servers), |asking| {
        last = asking.now;
        let to = asking.transmit.to;
        let can_more = to.ip() == server().ip();
        let answer = if can_more { asking.answer_with_port() } else { asking.answer() };
        (to != addr(servers[2]) && asking.request.change == Change::NONE).then_some((to, answer))
    });
    assert!(sent.iter().filter(|transmit| transmit.to == server()).count() > 10);
    assert!(last < T0 + Duration::from_secs(4));
    let answered: Vec<bool> = report.servers.iter().map(|asked| asked.rtt.is_some()).collect();
    assert_eq!(answered, [true, true, false]);
    assert_eq!(report.mapping.known().and_then(Bounds::exact), Some(Behaviour::EndpointIndependent));
}

#[test]
fn a_server_in_our_own_network_tells_nothing_of_the_way_to_others() {
    let near = addr("192.168.1.9:3478");
    let (report, _) = run(plan(&["192.168.1.9:3478"]), |asking| {
        let mapped = SocketAddr::new(addr("192.168.1.2:0").ip(), 40_000 + 137 * asking.transmit.socket.0);
        Some((near, Answer::new(asking.request.transaction, mapped)))
    });
    assert_eq!((report.udp.known(), report.translates.known()), (Some(&true), None));
    assert!(report.mapping.why().is_some_and(|why| why.contains("this machine's own network")), "{report:?}");
}

#[test]
fn a_server_in_the_house_beside_one_on_the_internet_does_not_make_the_nat_strict() {
    for order in [["192.168.1.9:3478", "198.51.100.1:3478"], ["198.51.100.1:3478", "192.168.1.9:3478"]] {
        for inside in ["192.168.1.2:7", "192.168.1.1:7", "127.0.0.1:7"] {
            let (report, sent) = run(plan(&order), |asking| {
                let near = asking.transmit.to.ip() == addr("192.168.1.9:0").ip();
                let answer = asking.answer_with_port();
                let answer = if near { Answer { mapped: addr(inside), ..answer } } else { asking.answer() };
                Some((asking.transmit.to, answer))
            });
            assert_eq!(report.ipv4.known(), Some(&addr("203.0.113.9:40000")), "{order:?} {inside}");
            assert_eq!(report.mapping.known(), None, "{order:?} {inside}");
            assert!(sent.iter().filter(|transmit| transmit.to == server()).count() >= SOCKETS);
        }
    }
}

#[test]
fn a_rendezvous_at_home_that_is_reached_by_way_of_the_router_tells_nothing() {
    let plan = Plan { lifetime: true, ..plan(&["203.0.113.9:3478"]) };
    let (report, sent) = run(plan, |asking| {
        let mapped = SocketAddr::new(addr("192.168.1.1:0").ip(), 40_000 + asking.transmit.socket.0);
        Some((asking.transmit.to, Answer { mapped, ..asking.answer_with_port() }))
    });
    assert_eq!((report.translates.known(), report.hairpin.known(), sent.len()), (None, None, 1));
    assert!(report.lifetime.why().is_some_and(|why| why.contains("on this side of the router")), "{report:?}");
}

#[test]
fn an_ipv6_server_in_the_house_does_not_speak_for_the_world() {
    let of = |servers: &[&str]| {
        let plan = Plan { own: vec!["fd00::7".parse().expect("address")], ..plan(servers) };
        let mapped = |to: SocketAddr| if to == addr("[fd00::1]:3478") { "[fd00::7]:9" } else { "[2001:db8:5::7]:9" };
        let answer = |asking: Asking<'_>| Answer::new(asking.request.transaction, addr(mapped(asking.transmit.to)));
        run(plan, |asking| Some((asking.transmit.to, answer(asking)))).0.ipv6
    };
    let seen = Ipv6::Translated("2001:db8:5::7".parse().expect("address"));
    assert_eq!(of(&["[fd00::1]:3478", "[2001:db8::1]:3478"]).known(), Some(&seen));
    assert_eq!(of(&["[2001:db8::1]:3478", "[fd00::1]:3478"]).known(), Some(&seen));
    assert_eq!(of(&["[fd00::1]:3478"]).why(), Some("the server is in this machine's own network"));
}

#[test]
fn a_refusal_is_no_silence() {
    // Of all; of answers from elsewhere; of answers to another port.
    let refusing = |refuses: fn(&BindingRequest) -> bool| {
        let plan = Plan { lifetime: true, ..plan(&["198.51.100.1:3478"]) };
        let play = |asking: Asking<'_>| {
            let answer = asking.answer_with_port().encode(usize::MAX);
            Some((asking.transmit.to, if refuses(&asking.request) { asking.request.refuse(3) } else { answer }))
        };
        run_raw(plan, play).0
    };
    let all = refusing(|_| true);
    assert_eq!(
        (all.udp.known(), all.mapping.why()),
        (Some(&true), Some("no server answered over IPv4, but by a refusal"))
    );
    let elsewhere = refusing(|request| request.change != Change::NONE);
    assert_eq!(elsewhere.filtering.why(), Some("198.51.100.1:3478 refuses to answer from elsewhere"));
    let port = refusing(|request| request.response_port.is_some());
    assert_eq!(port.lifetime.why(), Some("198.51.100.1:3478 refuses to answer to another port"));
}

#[test]
fn whom_nobody_could_be_asked_by_is_not_said_to_have_no_udp() {
    let (report, sent) = run(Plan { ipv6: false, ..plan(&["[2001:db8::1]:3478"]) }, |_| None);
    assert_eq!((report.udp.why(), sent.len()), (Some("no server could be asked: this machine has no IPv6"), 0));
    assert_eq!(report.mapping.why(), Some("no server with an IPv4 address was asked"));
    let (report, _) = run(Plan { sockets: Vec::new(), ..plan(&["198.51.100.1:3478"]) }, |_| None);
    assert_eq!(report.udp.why(), Some("no server could be asked: this machine has no IPv4"));
    assert_eq!(report.ipv4.why(), Some("this machine has no IPv4"));
}

#[test]
fn why_the_hairpin_is_unknown_depends_on_what_is_known_of_the_mapping() {
    let of = |strict: bool| {
        let (report, _) = run(plan(&["198.51.100.1:3478"]), |asking| {
            let answer = asking.answer_with_port();
            let mapped = SocketAddr::new(
                answer.mapped.ip(),
                answer.mapped.port() + u16::from(strict) * asking.transmit.to.port() % 7,
            );
            let passes = is_of_the_play(asking.transmit) || asking.transmit.to.ip() == server().ip();
            (passes && asking.request.change == Change::NONE)
                .then_some((asking.transmit.to, Answer { mapped, ..answer }))
        });
        report.hairpin.why().expect("nothing came back").to_owned()
    };
    assert!(of(false).starts_with("nothing came back"), "a second port alone leaves it open: {}", of(false));
    assert!(of(true).starts_with("two sockets cannot know"), "{}", of(true));
}

#[test]
fn an_answer_from_the_same_address_is_none_from_another() {
    // It has two addresses, and answers from its other port alone, whatever is wished.
    let (report, _) = run(plan(&["198.51.100.1:3478"]), |asking| {
        let to = asking.transmit.to;
        let from = if asking.request.change == Change::NONE { to } else { SocketAddr::new(to.ip(), 3479) };
        Some((from, Answer { other: Some(addr("198.51.100.2:3479")), ..asking.answer_with_port() }))
    });
    let weak = Bounds { most: Behaviour::AddressDependent, ..Bounds::ANY };
    assert_eq!(report.filtering.known(), Some(&weak));
}

#[test]
fn an_answer_over_ipv6_does_not_end_the_patience_with_ipv4() {
    let (report, _) = run(plan(&["[2001:db8::1]:3478", "198.51.100.1:3478"]), |asking| {
        let to = asking.transmit.to;
        if to.is_ipv6() {
            return Some((to, Answer::new(asking.request.transaction, addr("[2001:db8:5::7]:9"))));
        }
        // The first tries are lost.
        (asking.now > T0 + Duration::from_millis(1_300)).then(|| (to, asking.answer()))
    });
    assert_eq!(report.ipv4.known(), Some(&addr("203.0.113.9:40000")));
}

#[test]
fn a_machine_that_slept_does_not_take_it_for_a_short_lifetime() {
    let mut check = Check::new(Plan { lifetime: true, ..plan(&["198.51.100.1:3478"]) }, &Seed::from_u64(1), T0);
    let (mut now, mut slept) = (T0, false);
    let report = loop {
        while let Some(transmit) = check.poll_transmit() {
            let request = BindingRequest::parse(&transmit.payload).expect("ours");
            let asking = Asking { now, transmit: &transmit, request };
            let (to, mut payload) = (transmit.to, asking.answer_with_port().encode(usize::MAX));
            // Nothing reaches the silent ones after the sleep.
            let silent = asking.request.response_port.is_some();
            if asking.request.change != Change::NONE || to.ip() != server().ip() || silent && slept {
                continue;
            }
            let socket = asking.request.response_port.map_or(transmit.socket, |port| SocketId((port - 40_000) / 137));
            check.handle_datagram(now, Datagram { socket, local: None, from: to, payload: &mut payload });
        }
        if let Some(report) = check.poll_report() {
            break report;
        }
        now = check.poll_timeout().expect("it goes on").at;
        // In the middle of the silence, for ten minutes.
        if !slept && now > T0 + Duration::from_secs(25) {
            (now, slept) = (now + Duration::from_mins(10), true);
        }
        check.handle_timeout(now);
    };
    assert!(slept);
    let found = report.lifetime.known().expect("the first silences were measured");
    assert!(found.least >= Duration::from_secs(14) && found.most.is_none(), "{found}");
}

#[test]
fn whatever_servers_answer_a_check_comes_to_its_end() {
    for seed in 0..300 {
        let mut rng = Seed::from_u64(seed).rng();
        let lifetime = seed % 4 == 0;
        let plan = Plan { lifetime, ..plan(&["198.51.100.1:3478", "198.51.100.2:3478"]) };
        let any = |rng: &mut Rng| {
            let ip = [198, 51, 100, rng.array::<1>()[0] % 4];
            SocketAddr::from((ip, 3478 + u16::from(rng.array::<1>()[0] % 3)))
        };
        let (_, sent) = run(plan, |asking| {
            let answer = Answer {
                transaction: asking.request.transaction,
                mapped: any(&mut rng),
                origin: None,
                other: Some(any(&mut rng)),
                other_port: Some(3478 + u16::from(rng.array::<1>()[0] % 3)),
                proof: Some(rng.array()),
            };
            (!rng.u32().is_multiple_of(3)).then(|| (any(&mut rng), answer))
        });
        assert!(sent.len() <= if lifetime { 310 } else { 155 }, "{} datagrams", sent.len());
    }
}

#[test]
fn without_a_rendezvous_no_lifetime_is_measured_and_no_time_is_lost() {
    let plan = Plan { lifetime: true, ..plan(&["198.51.100.1:3478"]) };
    let (report, _) = run(plan, |asking| Some((server(), asking.answer())));
    assert_eq!(report.lifetime.why(), Some("only a rendezvous of this version can tell, and none answered"));
}
