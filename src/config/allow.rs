//! `[lan] allow`: the ports at which members may speak to this machine first.

use std::ops::RangeInclusive;

use toml::Spanned;

use super::check::{Problems, Wrong};
use super::names::nearest;
use crate::router::filter::{Ports, Protocol};
use crate::router::games::GAMES;

/// All games at once.
const ALL_GAMES: &str = "games";

/// The ports that a list opens; what is wrong with an entry is said at that entry.
pub(super) fn ports(problems: &mut Problems, list: &[Spanned<String>]) -> Ports {
    let mut ports = Ports::default();
    for entry in list {
        problems.take(Some(entry), |text| open(&mut ports, text.trim()));
    }
    ports
}

fn open(ports: &mut Ports, text: &str) -> Result<(), Wrong> {
    if text == ALL_GAMES {
        GAMES.iter().for_each(|game| game.open(ports));
        return Ok(());
    }
    if let Some(game) = GAMES.iter().find(|game| game.name == text) {
        game.open(ports);
        return Ok(());
    }
    let Some((range, protocol)) = text.split_once('/') else { return Err(unknown(text)) };
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err((format!("{protocol:?} has no ports"), format!("type \"{range}/tcp\" or \"{range}/udp\""))),
    };
    let range = port_range(range).ok_or_else(|| {
        let help = format!("a port is a number from 1 to 65535, a range is like \"27015-27020/{}\"", word(protocol));
        (format!("{range:?} is no port and no range of ports"), help)
    })?;
    ports.open(protocol, range);
    Ok(())
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (1 <= first && first <= last).then_some(first..=last)
}

const fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn unknown(text: &str) -> Wrong {
    if port_range(text).is_some() {
        return (format!("{text:?} says no protocol"), format!("type \"{text}/tcp\" or \"{text}/udp\""));
    }
    let names = GAMES.iter().map(|game| game.name).chain([ALL_GAMES]);
    let help = match nearest(text, names).filter(|_| !text.is_empty()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => {
            let names = GAMES.iter().map(|game| game.name).collect::<Vec<_>>().join(", ");
            format!(
                "type its ports, like \"25565/tcp\" or \"27015-27020/udp\"; known by name are {ALL_GAMES} (all) and: {names}"
            )
        }
    };
    (format!("{text:?} is no port and no game that is known"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_ranges_and_games_are_opened() {
        let mut ports = Ports::default();
        for entry in ["8080/tcp", "27015-27020/udp", "minecraft"] {
            open(&mut ports, entry).expect(entry);
        }
        for (protocol, port) in [(Protocol::Tcp, 8_080), (Protocol::Udp, 27_020), (Protocol::Tcp, 25_565)] {
            assert!(ports.has(protocol, port), "{port}");
        }
        assert!(!ports.has(Protocol::Tcp, 22) && !ports.has(Protocol::Udp, 8_303));
        open(&mut ports, "games").expect("all of them");
        assert!(ports.has(Protocol::Udp, 8_303));
    }

    #[test]
    fn what_is_meant_otherwise_is_told() {
        let wrong = [
            ("minecarft", "did you mean \"minecraft\"?"),
            ("25565", "type \"25565/tcp\" or \"25565/udp\""),
            ("25565/sctp", "type \"25565/tcp\""),
            ("0/udp", "1 to 65535"),
            ("9-8/udp", "1 to 65535"),
            ("65536/tcp", "1 to 65535"),
            ("", "type its ports"),
            ("something else", "25565/tcp"),
        ];
        for (text, help) in wrong {
            let (_, said) = open(&mut Ports::default(), text).expect_err(text);
            assert!(said.contains(help), "{text}: {said}");
        }
    }
}
