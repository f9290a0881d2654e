//! The names as lines of a hosts file: a block of our own in a text that is otherwise not ours.
//!
//! ```text
//! # begin punchlan 3f…c2 friday.internal: written by punchlan while it is up, see [dns] in net.toml
//! 10.77.0.2 bob.friday.internal bob
//! fd01:203:405::2 bob.friday.internal bob
//! # end punchlan 3f…c2
//! ```
//!
//! The number is the network's, so every network has a block, and finds that of an earlier run again. Only our own lines
//! are ever taken away: the two markers, and between them what reads as we write it; whatever else somebody wrote there
//! stays. A short name is written only where no other line has it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Zone;
use crate::id::NetworkId;

const BEGIN: &str = "# begin punchlan ";
const END: &str = "# end punchlan ";

/// The text with the block of this network as `zone` says, and no other of it. `not_short`: what nobody is called in short.
pub fn with_block(text: &str, id: &NetworkId, zone: &Zone, not_short: &str) -> String {
    let mut text = without_block(text, id);
    let taken = names_in(&text);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let domain = zone.domain();
    text += &format!("{BEGIN}{id} {domain}: written by punchlan while it is up, see [dns] in net.toml\n");
    for host in zone.hosts() {
        let full = zone.full_name(&host.name);
        let is_free = !taken.contains(&host.name) && !host.name.eq_ignore_ascii_case(not_short);
        let short = if is_free { format!(" {}", host.name) } else { String::new() };
        for address in host.addresses() {
            text += &format!("{address} {full}{short}\n");
        }
    }
    text + &format!("{END}{id}\n")
}

/// The text without the block of this network.
pub fn without_block(text: &str, id: &NetworkId) -> String {
    let (begin, end) = (format!("{BEGIN}{id} "), format!("{END}{id}"));
    // Without its end a block ends where somebody else's lines begin.
    let last_end = text.lines().rev().position(|line| line.trim_end() == end).map(|below| text.lines().count() - below);
    let (mut left, mut block) = (String::with_capacity(text.len()), None);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let trimmed = line.trim_end();
        if let Some(said) = trimmed.strip_prefix(&begin) {
            block = Some(format!(".{}", said.split(':').next().unwrap_or_default()));
        } else if trimmed == end {
            block = None;
        } else if block.as_ref().is_none_or(|domain| !is_ours(trimmed, domain)) {
            block = block.filter(|_| last_end.is_some_and(|last| number < last));
            left += line;
        }
    }
    left
}

/// The networks that have a block, of which their daemon may have gone without taking it away.
pub fn blocks(text: &str) -> Vec<NetworkId> {
    let id = |line: &str| line.strip_prefix(BEGIN)?.split(' ').next()?.parse().ok();
    text.lines().filter_map(id).collect()
}

/// An address and a member of the domain, and nothing else but its short name.
fn is_ours(line: &str, domain: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let ([address, full] | [address, full, _]) = words[..] else { return false };
    let short = full.strip_suffix(domain);
    address.parse::<IpAddr>().is_ok() && short.is_some_and(|short| words.get(2).is_none_or(|written| *written == short))
}

/// All names in the lines of others.
fn names_in(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.flat_map(|line| line.split_whitespace().skip(1)).map(str::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::zone;
    use super::*;

    const OTHERS: &str = "127.0.0.1\tlocalhost\n127.0.1.1 desk.example.org Desk # alice\n::1 ip6-localhost\n";
    const ID: NetworkId = NetworkId([7; 32]);

    fn friday() -> Zone {
        zone("10.77.0.0/24", &[("alice", "10.77.0.1", 1), ("desk", "10.77.0.2", 2), ("carol", "", 3)])
    }

    #[test]
    fn the_block_has_full_names_and_short_ones_where_nobody_has_them() {
        let expected = format!(
            "{OTHERS}# begin punchlan {ID} friday.internal: written by punchlan while it is up, see [dns] in net.toml\n\
             10.77.0.1 alice.friday.internal alice\nfd01:203:405::1 alice.friday.internal alice\n\
             fd01:203:405::3 carol.friday.internal\n\
             10.77.0.2 desk.friday.internal\nfd01:203:405::2 desk.friday.internal\n# end punchlan {ID}\n"
        );
        let written = with_block(OTHERS, &ID, &friday(), "Carol");
        assert_eq!(written, expected);
        assert_eq!(with_block(&written, &ID, &friday(), "carol"), expected, "again is the same");
        assert_eq!(without_block(&written, &ID), OTHERS);
        assert_eq!(blocks(&written), [ID]);
        // No line break at the end is one thing that cannot be kept.
        assert_eq!(without_block(&with_block("::1 x", &ID, &friday(), ""), &ID), "::1 x\n");
        assert_eq!(without_block(&with_block("", &ID, &friday(), ""), &ID), "");
    }

    #[test]
    fn each_network_has_a_block_and_a_short_name_is_the_first_ones() {
        let other = NetworkId([8; 32]);
        let both = with_block(&with_block(OTHERS, &ID, &friday(), ""), &other, &friday(), "");
        assert_eq!(both.matches("internal alice\n").count(), 2, "of the first alone: {both}");
        assert_eq!(both.matches("alice.friday.internal").count(), 4);
        assert_eq!(blocks(&both), [ID, other]);
        assert_eq!(without_block(&both, &other), with_block(OTHERS, &ID, &friday(), ""));
        assert_eq!(without_block(&without_block(&both, &ID), &other), OTHERS);
    }

    #[test]
    fn a_line_that_is_not_ours_is_never_touched() {
        let written = with_block(OTHERS, &ID, &friday(), "");
        for foreign in ["192.0.2.7 nas.home.internal nas", "# mine", "", "10.77.0.9 x.friday.internal y", "nonsense"] {
            let text = written.replace("# end", &format!("{foreign}\n# end"));
            assert_eq!(without_block(&text, &ID), format!("{OTHERS}{foreign}\n"), "within the block");
            // Somebody took the end away.
            let text = written.replace(&format!("# end punchlan {ID}"), foreign) + "10.77.0.1 alice.friday.internal\n";
            let left = format!("{OTHERS}{foreign}\n10.77.0.1 alice.friday.internal\n");
            assert_eq!(without_block(&text, &ID), left, "behind a block without an end");
        }
        let text = written.replace('\n', "\r\n");
        assert_eq!(without_block(&text, &ID), OTHERS.replace('\n', "\r\n"), "as an editor of Windows leaves it");
    }

    proptest::proptest! {
        #[test]
        fn whatever_stands_in_the_file_stays(
            lines in proptest::collection::vec(
                proptest::sample::select(vec![
                    "127.0.0.1 localhost", "# begin punchlan", "# end punchlan", "10.77.0.1 alice.friday.internal alice",
                    "", " ", "# begin punchlan zz friday.internal:", "::1 \u{e4}", "\t",
                ]),
                0..12,
            )
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let written = with_block(&text, &ID, &friday(), "");
            proptest::prop_assert_eq!(without_block(&written, &ID), text);
        }
    }
}
