//! Games and the ports at which they take other players: names for the user's rules, and for what is heard.

use std::ops::RangeInclusive;

use super::filter::{Ports, Protocol};

/// A game, or a program that players use.
#[derive(Debug)]
pub struct Game {
    /// As it is written in net.toml.
    pub name: &'static str,
    tcp: &'static [RangeInclusive<u16>],
    udp: &'static [RangeInclusive<u16>],
}

/// All that are known, by name. A world that Minecraft opens "to LAN" has another port each time.
pub const GAMES: &[Game] = &[
    Game { name: "0ad", tcp: &[], udp: &[20_595..=20_595] },
    Game { name: "7-days-to-die", tcp: &[26_900..=26_900], udp: &[26_900..=26_903] },
    Game {
        name: "age-of-empires",
        tcp: &[2_300..=2_400, 47_624..=47_624],
        udp: &[2_300..=2_400, 6_073..=6_073, 47_624..=47_624],
    },
    Game { name: "arma", tcp: &[], udp: &[2_302..=2_306] },
    Game { name: "assaultcube", tcp: &[], udp: &[28_763..=28_764] },
    Game { name: "call-of-duty", tcp: &[], udp: &[28_960..=28_960] },
    Game { name: "dont-starve-together", tcp: &[], udp: &[10_998..=11_000] },
    Game { name: "doom", tcp: &[], udp: &[5_029..=5_029, 10_666..=10_666] },
    Game { name: "factorio", tcp: &[], udp: &[34_197..=34_197] },
    Game { name: "hedgewars", tcp: &[46_631..=46_631], udp: &[46_631..=46_631] },
    Game { name: "luanti", tcp: &[], udp: &[29_998..=30_000] },
    Game { name: "minecraft", tcp: &[25_565..=25_565], udp: &[4_445..=4_445, 19_132..=19_133, 25_565..=25_565] },
    Game { name: "mumble", tcp: &[64_738..=64_738], udp: &[64_738..=64_738] },
    Game { name: "openttd", tcp: &[3_979..=3_979], udp: &[3_979..=3_979] },
    Game { name: "project-zomboid", tcp: &[], udp: &[16_261..=16_262] },
    Game { name: "quake", tcp: &[], udp: &[26_000..=26_000, 27_500..=27_500, 27_910..=27_910, 27_960..=27_963] },
    Game { name: "satisfactory", tcp: &[7_777..=7_777, 8_888..=8_888], udp: &[7_777..=7_777] },
    Game { name: "sauerbraten", tcp: &[], udp: &[28_784..=28_786] },
    Game { name: "source", tcp: &[27_015..=27_020], udp: &[27_015..=27_020] },
    Game { name: "starcraft", tcp: &[6_112..=6_112], udp: &[6_111..=6_112] },
    Game { name: "stardew-valley", tcp: &[], udp: &[24_642..=24_642] },
    Game { name: "steam-remote-play", tcp: &[27_036..=27_037], udp: &[27_031..=27_036] },
    Game { name: "supertuxkart", tcp: &[], udp: &[2_757..=2_759] },
    Game { name: "teamspeak", tcp: &[30_033..=30_033], udp: &[9_987..=9_987] },
    Game { name: "teeworlds", tcp: &[], udp: &[8_303..=8_310] },
    Game { name: "terraria", tcp: &[7_777..=7_777], udp: &[] },
    Game { name: "unreal-tournament", tcp: &[], udp: &[7_777..=7_779, 8_777..=8_777] },
    Game { name: "valheim", tcp: &[], udp: &[2_456..=2_458] },
    Game { name: "warcraft", tcp: &[6_112..=6_119], udp: &[6_112..=6_112] },
    Game { name: "wesnoth", tcp: &[15_000..=15_000], udp: &[] },
    Game { name: "xonotic", tcp: &[], udp: &[26_000..=26_010] },
];

impl Game {
    /// Opens its ports.
    pub fn open(&self, ports: &mut Ports) {
        self.tcp.iter().for_each(|range| ports.open(Protocol::Tcp, range.clone()));
        self.udp.iter().for_each(|range| ports.open(Protocol::Udp, range.clone()));
    }

    /// Whether a port is one of its own.
    pub fn has(&self, protocol: Protocol, port: u16) -> bool {
        let ranges = match protocol {
            Protocol::Tcp => self.tcp,
            Protocol::Udp => self.udp,
        };
        ranges.iter().any(|range| range.contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_that_can_be_typed_and_ports() {
        assert!(GAMES.is_sorted_by(|a, b| a.name < b.name));
        for game in GAMES {
            assert!(game.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            assert!(game.tcp.len() + game.udp.len() > 0 && game.tcp.iter().chain(game.udp).all(|r| !r.is_empty()));
        }
    }

    #[test]
    fn a_games_ports_are_open_and_no_others() {
        let mut ports = Ports::default();
        GAMES.iter().filter(|game| game.name == "minecraft").for_each(|game| game.open(&mut ports));
        assert!(ports.has(Protocol::Tcp, 25_565) && ports.has(Protocol::Udp, 4_445));
        assert!(!ports.has(Protocol::Tcp, 4_445) && !ports.has(Protocol::Tcp, 22));
        assert!(GAMES.iter().any(|game| game.has(Protocol::Udp, 8_303)));
    }
}
