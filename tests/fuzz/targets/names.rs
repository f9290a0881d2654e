//! Questions of a name server's clients, and hosts files that somebody else has written: any bytes are answered or passed
//! over, and no line of anybody else is touched.

use std::net::Ipv6Addr;
use std::sync::LazyLock;

use punchlan::addr::OverlayNet;
use punchlan::id::NetworkId;
use punchlan::names::{Host, Zone, hosts};

/// The network in the markers of the corpus.
const ID: NetworkId = NetworkId([7; 32]);

static ZONE: LazyLock<Zone> = LazyLock::new(|| {
    let v4 = "10.77.0.0/23".parse().expect("a prefix");
    let v6 = "fd01:203:405::/64".parse().expect("a prefix");
    let host = |(name, last): (&str, u16)| Host {
        name: name.to_owned(),
        v4: Some([10, 77, 1, u8::try_from(last).expect("few")].into()),
        v6: Ipv6Addr::new(0xfd01, 0x203, 0x405, 0, 0, 0, 0, last),
    };
    Zone::new("friday", OverlayNet { v4, v6 }, [("alice", 1), ("bob-2", 2)].map(host))
});

/// The first byte says which it is.
pub(crate) fn run(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 2 {
        0 => question(bytes),
        _ => hosts_file(&bytes.iter().copied().map(char::from).collect::<String>()),
    }
}

fn question(bytes: &[u8]) {
    let Some(answer) = ZONE.answer(bytes) else { return };
    assert!((12..=512).contains(&answer.len()), "{} bytes", answer.len());
    assert_eq!(answer[..2], bytes[..2], "to this question");
    assert_eq!(ZONE.answer(&answer), None, "an answer is no question");
}

fn hosts_file(text: &str) {
    let others = hosts::without_block(text, &ID);
    assert!(others.lines().all(|line| text.lines().any(|old| old == line)), "nothing is made up");
    assert_eq!(hosts::without_block(&others, &ID), others);
    let written = hosts::with_block(text, &ID, &ZONE, "desk");
    let line_break = if others.is_empty() || others.ends_with('\n') { "" } else { "\n" };
    assert_eq!(hosts::without_block(&written, &ID), others + line_break);
    assert!(hosts::blocks(&written).contains(&ID));
}
