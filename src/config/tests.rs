use std::net::Ipv4Addr;

use super::*;
use crate::id::ServerKey;

fn key() -> NetworkKey {
    NetworkKey::new([0x5a; 32])
}

fn parsed(text: &str) -> Result<NetConfig, ConfigError> {
    parse("net.toml", &Zeroizing::new(text.replace("@KEY@", &key().to_text())))
}

/// The complaint about a file, which must contain each of `parts` and never the key.
#[track_caller]
fn complains(text: &str, parts: &[&str]) {
    let said = parsed(text).expect_err(text).to_string();
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    let secret = key().to_text();
    assert!(!said.contains(&secret[5..21]), "the key is in:\n{said}");
}

const NETWORK: &str = "[network]\nkey = \"@KEY@\"\nsubnet = \"10.77.0.0/24\"\n";

#[test]
fn the_example_is_understood() {
    let example = include_str!("../../conf/net.toml");
    let own = example.replace(check::EXAMPLE_KEY, &key().to_text());
    let config = parse("conf/net.toml", &Zeroizing::new(own.clone())).expect("the example with a key of its own");
    assert_eq!(config.network.name, "friday");
    assert_eq!(config.network.rendezvous.len(), 3);
    assert_eq!((config.peer.address, config.relay), (AddressChoice::Auto, RelayConfig::default()));
    for (_, keys) in names::NET_TOML.sections {
        for key in *keys {
            let shown = ["", "# "].iter().any(|off| example.contains(&format!("\n{off}{key} =")));
            assert!(shown, "the example does not show `{key}`");
        }
    }
    // What it leaves out is understood too.
    let all = own.replace("\n# address =", "\naddress =");
    let config = parse("conf/net.toml", &Zeroizing::new(all)).expect("all of the example");
    assert_eq!(config.peer.address, AddressChoice::Configured(Ipv4Addr::new(10, 77, 0, 1)));
}

#[test]
fn the_examples_key_is_refused() {
    let example = include_str!("../../conf/net.toml");
    assert!(example.contains(check::EXAMPLE_KEY));
    let typed = [example.to_owned(), format!("[network]\nkey = \"{}\"", check::EXAMPLE_KEY.replace('-', ""))];
    for text in typed {
        let said = parse("net.toml", &Zeroizing::new(text)).expect_err("public").to_string();
        assert!(said.contains("public") && said.contains("punchlan init") && said.contains("punchlan join"), "{said}");
    }
    assert!(from_link(&format!("punchlan://join?name=a&key={}", check::EXAMPLE_KEY)).is_err());
}

#[test]
fn only_the_key_is_required() {
    let config = parsed("[network]\nkey = \"@KEY@\"").expect("enough");
    let secrets = NetworkSecrets::derive(&key(), Epoch::default());
    assert_eq!(config.network.overlay().v4, secrets.default_v4());
    assert_eq!(config.peer, PeerConfig::default());
    assert!(is_name(&config.peer.name_or_host()));
    complains("", &["there is no [network] section", "punchlan join"]);
    complains("[peer]\n[network]\nname = \"a\"", &["net.toml:2:1", "[network] has no `key`"]);
}

#[test]
fn what_is_written_is_read_back() {
    let mut config = parsed("[network]\nkey = \"@KEY@\"").expect("enough");
    config.network.subnet = Some(config.network.overlay().v4);
    assert_eq!(parse("a", &to_toml(&config)), Ok(config.clone()));
    config.network.rendezvous = ["a.example", "[2001:db8::1]:7"].map(|t| parse_rendezvous(t).expect("place")).to_vec();
    config.network.rendezvous[0].pin = Some(ServerKey([9; 32]));
    config.network.deny = vec![PeerId([3; 32])];
    config.peer = PeerConfig {
        name: Some("bob".into()),
        address: AddressChoice::Auto,
        listen: 7,
        port_mapping: false,
        lan_discovery: false,
        log: Some("punchlan=warn".into()),
    };
    config.relay = RelayConfig { offer: false, mbit: 3 };
    config.lan = LanConfig { broadcast: false, multicast: true };
    assert_eq!(parse("a", &to_toml(&config)), Ok(config.clone()));
    assert_eq!(from_link(&to_link(&config.network)), Ok(config.network));
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest_known_one() {
    complains(
        "[network]\nkey = \"@KEY@\"\nsubnett = \"\"",
        &["net.toml:3:1", "unknown key `subnett`", "did you mean `subnet`"],
    );
    complains("[network]\nkye = \"@KEY@\"", &["net.toml:2:1", "did you mean `key`"]);
    complains("[networks]\nkey = \"@KEY@\"", &["net.toml:1:2", "did you mean [network]"]);
    complains("[quux]", &["unknown section [quux]", "[network] and [peer]"]);
    complains("[network]\nkey = \"@KEY@\"\nlisten = 4", &["belongs into the section [peer]"]);
    complains("key = \"@KEY@\"", &["outside of any section", "[network]"]);
    complains("[network]\nzzzzzz = 1", &["has the keys name, key, subnet"]);
    complains("[[network]]\nkey = \"@KEY@\"", &["single brackets"]);
}

#[test]
fn sections_of_later_versions_are_errors() {
    for section in ["[dns]", "[socks]", "[[forward]]", "[[expose]]"] {
        complains(&format!("{NETWORK}{section}\na = 1"), &["net.toml:4", "not in this version"]);
    }
}

#[test]
fn what_is_no_toml_and_what_has_the_wrong_type_is_named() {
    complains(
        "[network]\nkey = plk1-abc",
        &["net.toml:2:7", "not valid TOML", "not in quotation marks", "help: key = \"…\""],
    );
    complains("[network\nkey = 1", &["net.toml:1", "not valid TOML"]);
    complains("[network]\nkey = 5", &["net.toml:2:7", "wrong type", "text in quotation marks"]);
    complains(
        "[network]\nkey = \"@KEY@\"\nrendezvous = \"198.51.100.1\"",
        &["net.toml:3:14", "a list", "type: rendezvous = [\"198.51.100.1\"]"],
    );
    complains(&format!("{NETWORK}[peer]\nlisten = \"x\""), &["net.toml:5:10", "should be a whole number"]);
    complains("[network]\nkey = \"@KEY@\"\nkey = \"@KEY@\"", &["net.toml:3", "twice"]);
    complains("[network]\nsubnet = 10.77.0.0/24", &["net.toml:2", "not in quotation marks", "subnet = \"…\""]);
    complains("[network]\nname = friday # mine", &["net.toml:2", "not in quotation marks"]);
    complains("[network]\nrendezvous = [a:1]", &["text stands in quotation marks"]);
    complains("Name = 'a'", &["net.toml:1:1", "did you mean `name`? It belongs into the section [network]"]);
    complains("[peer]\nlisten = 007", &["not valid TOML: "]);
    complains("network = 5", &["is a section, not a value"]);
    complains("[network]\nkey = \"@KEY@", &["net.toml:2", "quotation mark at the end is missing"]);
}

#[test]
fn a_typo_in_the_key_is_named() {
    let text = key().to_text();
    let mut typo = text.to_string();
    typo.replace_range(20..21, if &text[20..21] == "q" { "p" } else { "q" });
    complains(&format!("[network]\nkey = \"{typo}\""), &["net.toml:2:7", "typo: character 21", "copy the key again"]);
    complains("[network]\nkey = \"secret-word\"", &["starts with \"plk1-\""]);
}

#[test]
fn every_value_that_means_nothing_is_shown_with_its_remedy() {
    let peer = |line: &str| format!("{NETWORK}[peer]\n{line}");
    let network = |line: &str| format!("[network]\nkey = \"@KEY@\"\n{line}");
    complains(&peer("name = \"Alice's PC\""), &["net.toml:5:8", "a-z, 0-9 and -", "name = \"alice-s-pc\""]);
    complains(
        &peer("address = \"10.78.0.1\""),
        &["outside of the network's subnet 10.77.0.0/24", "10.77.0.1 to 10.77.0.254"],
    );
    complains(&peer("address = \"10.77.0.255\""), &["broadcast address"]);
    complains(&peer("address = \"10.77.0.0\""), &["network 10.77.0.0/24 itself"]);
    complains(&peer("address = \"10.77.0.1/24\""), &["without its /24"]);
    complains(&peer("port_mapping = \"no\""), &["net.toml:5:16", "should be true or false, without quotation marks"]);
    complains(&peer("port_maping = true"), &["did you mean `port_mapping`"]);
    complains(&format!("{NETWORK}[relay]\nmbit = 0"), &["net.toml:5:8", "from 1 to 10000", "offer = false"]);
    complains(&format!("{NETWORK}[relay]\nmbit = \"10 Mbit/s\""), &["net.toml:5:8", "a whole number"]);
    complains(&format!("{NETWORK}[relay]\nofer = true"), &["net.toml:5:1", "did you mean `offer`"]);
    complains(&peer("listen = 70000"), &["70000 is no UDP port"]);
    complains(&peer("listen = -1"), &["-1 is no UDP port"]);
    complains(&network("subnet = \"10.77.0.0/30\""), &["net.toml:3:10", "too small", "room for 2 machines", "/29"]);
    complains(&network("subnet = \"0.0.0.0/0\""), &["too large"]);
    complains(&network("subnet = \"10.77.0.9/24\""), &["type: subnet = \"10.77.0.0/24\""]);
    complains(&network("subnet = \"127.3.0.0/24\""), &["loopback"]);
    complains(&network("subnet = \"224.3.0.0/24\""), &["multicast"]);
    complains(&network("subnet = \"fd00::/64\""), &["no IPv4 subnet"]);
    complains(&network("deny = [\"bob\"]"), &["64 hexadecimal digits", "status --json"]);
    complains(&network("rendezvous = [\"a:1\", \"a:1\"]"), &["net.toml:3:22", "twice"]);
    complains(&network("rendezvous = [\"a b\"]"), &["no \"host:port\""]);
    complains(&network("rendezvous = [\"tls://a:443\"]"), &["\"tls://\" is no way", "\"wss://a:443\""]);
    complains(&network("rendezvous = [\"tcp://a:443/x\"]"), &["TCP has no path", "\"tcp://a:443\""]);
    complains(&network("rendezvous = [\"wss://a/ü\"]"), &["is no path of a web server"]);
    complains(&network("rendezvous = [\"wss://a\", \"wss://a:443/\"]"), &["in the list twice"]);
    complains(&network("rendezvous = [\"2001:db8::1\"]"), &["[2001:db8::1]:3478"]);
    complains(&network("rendezvous = [\"a:1#plr1-zz\"]"), &["rendezvous' key is damaged"]);
    complains(&network("rendezvous = [\"a:1#@KEY@\"]"), &["this is a network's key"]);
    complains(
        &network("rendezvous = [\"play.example.org:99999\"]"),
        &["\"99999\" is no port", "play.example.org:3478"],
    );
    complains(&network("rendezvous = [\"[2001:db8::1]:x\"]"), &["\"x\" is no port", "[2001:db8::1]:3478"]);
    complains(&format!("[network]\nkey = \"{}\"", ServerKey([7; 32])), &["net.toml:2:7", "this is a rendezvous' key"]);
    for slip in ["loud", "wran", ""] {
        complains(&peer(&format!("log = \"{slip}\"")), &["net.toml:5:7", "is no level", "error, warn, info"]);
    }
}

#[test]
fn all_complaints_are_shown_in_the_order_of_the_file() {
    let text = format!("{NETWORK}rendezvous = [\"a b\"]\n[peer]\nname = \"\"\nlisten = -1");
    let said = parsed(&text).expect_err("wrong").to_string();
    let lines: Vec<usize> = ["net.toml:4", "net.toml:6", "net.toml:7"].map(|at| said.find(at).expect(at)).to_vec();
    assert!(lines.is_sorted(), "{said}");
}

#[test]
fn places_of_rendezvous_are_understood() {
    let place = |text: &str| parse_rendezvous(text).map(|server| (server.host, server.port)).map_err(|(what, _)| what);
    let is = |host: &str, port: u16| Ok((host.to_owned(), port));
    assert_eq!(place("198.51.100.1:3478"), is("198.51.100.1", 3478));
    assert_eq!(place("Play.Example.org"), is("play.example.org", DEFAULT_PORT));
    assert_eq!(place("[2001:DB8::1]"), is("2001:db8::1", DEFAULT_PORT));
    assert_eq!(place("[2001:db8::1]:9"), is("2001:db8::1", 9));
    assert_eq!(place("[::ffff:192.0.2.1]:9"), is("192.0.2.1", 9));
    assert_eq!(place("localhost:1"), is("localhost", 1));
    for bad in [
        "",
        ":1",
        "a:",
        "a:0",
        "a:65536",
        "a:b",
        "1.2.3.4.5",
        "1.2.3",
        "300.1.2.3:1",
        "a..b",
        "[::]:1",
        "0.0.0.0",
        "[a]:1",
        "[::1",
        "[::1]x",
        "-a",
        "a/b",
        "ä:1",
    ] {
        assert!(place(bad).is_err(), "{bad}");
    }
    let pinned = format!("a.example:9#{}", ServerKey([7; 32]));
    let server = parse_rendezvous(&pinned).expect("pinned");
    assert_eq!((server.pin, write::rendezvous(&server)), (Some(ServerKey([7; 32])), pinned));
}

#[test]
fn what_editors_of_windows_write_is_read() {
    let text = format!("\u{feff}{NETWORK}[peer]\nname = \"bob\"\n").replace('\n', "\r\n");
    assert_eq!(parsed(&text).expect("understood").peer.name.as_deref(), Some("bob"));
}

#[test]
fn a_host_name_becomes_a_name() {
    assert_eq!(name_from("Alice.local"), "alice");
    assert_eq!(name_from("DESKTOP_7_ÄÖ x"), "desktop-7-x");
    assert_eq!(name_from("--__--"), "peer");
    assert_eq!(name_from(""), "peer");
    assert_eq!(name_from(&"a".repeat(80)).len(), 32);
    assert!(is_name(&name_from(&format!("{}-b", "a".repeat(31)))));
}

#[test]
fn a_link_is_found_in_the_message_it_came_in() {
    let link = to_link(&parsed(NETWORK).expect("network").network);
    let message = format!("Hi!\ntype this: punchlan join '{}'\nsee you", *link);
    assert_eq!(find_link(&message), Some(link.as_str()));
    assert_eq!(find_link(&format!("(**{}**).", *link)), Some(link.as_str()));
    for [open, close] in ["\u{201c}\u{201d}", "\u{2018}\u{2019}", "\u{201e}\u{201c}", "\u{ab}\u{bb}"].map(|pair| {
        let mut quotes = pair.chars();
        [quotes.next().expect("opens"), quotes.next().expect("closes")]
    }) {
        assert_eq!(find_link(&format!("{open}{}{close}", *link)), Some(link.as_str()), "{open}{close}");
    }
    assert_eq!(find_link("PUNCHLAN://join?x"), Some("PUNCHLAN://join?x"));
    assert_eq!(find_link("nothing"), None);
}

#[test]
fn a_damaged_link_says_what_is_damaged_and_not_what_it_is() {
    let link = to_link(&parsed(NETWORK).expect("network").network).to_string();
    assert!(from_link(&link.replace('&', "&amp;").replace("join?", "join/?")).is_ok());
    assert!(from_link(&format!("{link}&colour=red")).is_ok());
    let wrong = |text: &str| {
        let said = from_link(text).expect_err(text).to_string();
        assert!(!said.contains(&key().to_text()[5..21]), "{said}");
        said
    };
    assert!(wrong("punchlan://join?name=friday").contains("single quotes"));
    assert!(wrong("punchlan://join?name=friday&subnet=10.7.0.0/24").contains("before the network's key"));
    assert!(wrong("punchlan://join").contains("before the network's key"));
    assert!(wrong("punchlan://leave?x=y").contains("no invite"));
    assert!(wrong("https://example.org").contains("begins with \"punchlan://join?\""));
    assert!(wrong(&link[..link.find("&subnet").expect("subnet") - 4]).contains("damaged"));
    assert!(wrong(&link.replace("10.77", "10.777")).contains("subnet"));
}

proptest::proptest! {
    #[test]
    fn no_text_at_all_makes_the_parser_panic(text in "(?s).{0,200}") {
        let _ = parse("net.toml", &Zeroizing::new(text.clone()));
        let _ = find_link(&text).map(from_link);
        let _ = from_link(&format!("punchlan://join?{text}"));
        let _ = parse_rendezvous(&text);
        proptest::prop_assert!(is_name(&name_from(&text)));
    }

    #[test]
    fn no_text_that_looks_like_a_file_makes_the_parser_panic(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "[network]", "\n", "key", " = ", "\"", "plk1-", "[peer]", "[[", "]]", "{", "}", "'''", "\"\"\"", "é",
                "rendezvous", "[", "]", ",", "10.77.0.0/24", "subnet", "=", "\\", "address", ".", "1979-05-27", "#",
            ]),
            0..40,
        )
    ) {
        let _ = parse("net.toml", &Zeroizing::new(parts.concat()));
    }
}
