//! What the node wants of a rendezvous and of the router.

use super::*;

#[test]
fn one_rendezvous_under_two_names_is_used_once_whichever_is_resolved_first() {
    for first in [0_u16, 1] {
        let config = |host: &str| RendezvousConfig::plain(host, 3478);
        let mut node = Setup::new(1, "alice").node_at(&[], vec![config("play.example.org"), config("198.51.100.1")]);
        let addr: SocketAddr = "198.51.100.1:3478".parse().expect("address");
        for server in [first, 1 - first] {
            node.handle_done(T0, Done::Resolved { server: crate::id::ServerId(server), result: Ok(vec![addr]) });
        }
        while let Some(action) = node.poll_action() {
            if let Action::Reserve { ceiling } = action {
                node.handle_done(T0, Done::Reserved { ceiling });
            }
        }
        node.handle_timeout(T0 + Duration::from_millis(30));
        let hellos = std::iter::from_fn(|| node.poll_transmit()).filter(|sent| sent.to == addr).count();
        assert_eq!(hellos, 1, "{first} was first");
        let warnings = node.status(T0).warnings;
        assert!(warnings.iter().any(|w| w.text.contains("names this rendezvous twice")), "{warnings:?}");
    }
}

/// Runs a node whose rendezvous is played by `answer`; what is said of it in the end.
fn said_of_its_rendezvous(mut node: Node, mut answer: impl FnMut(&Hello) -> Option<Vec<u8>>) -> String {
    let server: SocketAddr = "198.51.100.1:3478".parse().expect("address");
    let mut now = T0;
    for _ in 0..100 {
        node.handle_timeout(now);
        while let Some(action) = node.poll_action() {
            if let Action::Reserve { ceiling } = action {
                node.handle_done(now, Done::Reserved { ceiling });
            }
        }
        while let Some(t) = node.poll_transmit() {
            let Ok(Message::Hello(hello)) = Message::parse(&t.payload) else { continue };
            if let Some(mut payload) = answer(&hello) {
                let datagram = Datagram { socket: SocketId(0), local: None, from: server, payload: &mut payload };
                node.handle_datagram(now, datagram);
            }
        }
        now += Duration::from_millis(200);
    }
    let mut warnings = node.status(now).warnings.into_iter();
    warnings.find(|warning| warning.code == "rendezvous").expect("a warning").text
}

#[test]
fn what_keeps_us_from_a_rendezvous_is_said_with_what_to_do() {
    let place = "198.51.100.1:3478";
    let known = || {
        let mut node = Setup::new(1, "alice").node_with(place);
        let addresses = vec![place.parse().expect("address")];
        node.handle_done(T0, Done::Resolved { server: crate::id::ServerId(0), result: Ok(addresses) });
        node
    };
    let silent = said_of_its_rendezvous(known(), |_| None);
    assert!(silent.starts_with("rendezvous 198.51.100.1:3478: no answer; "), "{silent}");
    assert!(silent.matches(place).count() == 1 && silent.contains("is its port open, for UDP or"), "{silent}");

    let network = identity(1, 1).network.id();
    let closed = said_of_its_rendezvous(known(), |hello| {
        let refused =
            Refused { nonce: hello.nonce, reason: Reason::NotAllowed, retry_s: 1, version: crate::wire::VERSION };
        Some(refused.encode())
    });
    assert!(closed.starts_with("rendezvous 198.51.100.1:3478: does not serve this network"), "{closed}");
    assert!(closed.ends_with(&format!("add the network's id to `allow`: {network}")), "{closed}");

    let mut node = Setup::new(1, "alice").node_with(place);
    let why = "play.example.org does not resolve: Name or service not known".to_owned();
    node.handle_done(T0, Done::Resolved { server: crate::id::ServerId(0), result: Err(why.clone()) });
    let unknown = said_of_its_rendezvous(node, |_| None);
    assert!(unknown.contains(&why) && unknown.contains("spelled in net.toml"), "{unknown}");
}

#[test]
fn a_mapped_port_is_announced_while_the_router_keeps_it() {
    let mut lan = pair();
    let alice = lan.node(0).my_id();
    let heard = |lan: &mut Lan| {
        let candidates = lan.node(1).peers.get(&alice).expect("met").signed.candidates.iter();
        candidates.filter(|c| c.kind == CandidateKind::Mapped).map(|c| c.addr.to_string()).collect::<Vec<_>>()
    };
    let report = |lan: &mut Lan| {
        let now = lan.now;
        lan.node(0).status(now).me.nat.port_mapping.unwrap_or_default()
    };
    let mapping = PortMapping {
        protocol: MappingProtocol::NatPmp,
        gateway: "192.168.1.1".parse().expect("address"),
        external: "203.0.113.9:4000".parse().expect("address"),
        lifetime: Some(Duration::from_secs(3600)),
        epoch: None,
    };
    assert_eq!(report(&mut lan), "off: `port_mapping = false` in net.toml");

    lan.router = Ok(mapping.clone());
    lan.reconfigure(0, Changeable { port_mapping: true, ..changeable() });
    lan.run(Duration::from_secs(2));
    assert_eq!(heard(&mut lan), ["203.0.113.9:4000"]);
    assert_eq!(report(&mut lan), "203.0.113.9:4000 by NAT-PMP of the router 192.168.1.1");

    // The provider gives the router another address; then it is gone.
    lan.router = Ok(PortMapping { external: "203.0.113.10:4000".parse().expect("address"), ..mapping.clone() });
    let now = lan.now;
    lan.node(0).handle_done(now, Done::RouterChanged);
    lan.run(Duration::from_secs(5));
    assert_eq!(heard(&mut lan), ["203.0.113.10:4000"]);
    lan.router = Err("the router is silent".into());
    lan.run(Duration::from_secs(1_802));
    assert_eq!(heard(&mut lan), [""; 0]);
    assert_eq!(report(&mut lan), "none: the router is silent");

    // A router that lies is not believed.
    lan.router = Ok(PortMapping { external: "100.64.0.9:4000".parse().expect("address"), ..mapping.clone() });
    lan.run(Duration::from_secs(10));
    assert_eq!(heard(&mut lan), [""; 0]);
    assert!(report(&mut lan).contains("double NAT"), "{}", report(&mut lan));
    assert_eq!(lan.unmapped, 1);

    lan.router = Ok(mapping);
    lan.run(Duration::from_secs(30));
    assert_eq!(heard(&mut lan), ["203.0.113.9:4000"]);
    lan.reconfigure(0, changeable());
    lan.run(Duration::from_secs(2));
    assert_eq!((heard(&mut lan), lan.unmapped), (Vec::new(), 2));
}

#[test]
fn who_leaves_gives_the_port_back() {
    let mut lan = pair();
    lan.router = Err("the router is silent".into());
    lan.reconfigure(0, Changeable { port_mapping: true, ..changeable() });
    let now = lan.now;
    lan.node(0).handle_command(now, Command::Leave);
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.unmapped, 1, "whatever was asked for may have been given");
    lan.node(1).handle_command(now, Command::Leave);
    lan.run(Duration::from_secs(60));
    assert_eq!(lan.unmapped, 1, "nothing was asked for");
}

#[test]
fn the_nat_is_another_when_an_ipv4_address_went_away_and_not_when_one_came_or_ipv6_changed() {
    let mut lan = Lan::new(&[Setup::new(1, "alice")]);
    lan.run(Duration::from_mins(2));
    assert_eq!(lan.node(0).nat.poll_timeout(), None, "nobody is there to ask");
    let (now, own) = (lan.now, ipnet::IpNet::new(lan.hosts[0].0.ip(), 24).expect("prefix"));
    let more = ["172.17.0.1/16", "2001:db8::17/64"].map(|net| net.parse().expect("prefix"));
    lan.node(0).handle_done(now, Done::Interfaces([&[own][..], &more].concat()));
    assert_eq!(lan.node(0).nat.poll_timeout(), None);
    lan.node(0).handle_done(now, Done::Interfaces(more.to_vec()));
    assert!(lan.node(0).nat.poll_timeout().is_some(), "this is another LAN");
}
