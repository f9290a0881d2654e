//! The server queries of Quake and of what descends from it.
//!
//! ```text
//! Quake 3, Xonotic …   FF FF FF FF "getinfo …"    ->  FF FF FF FF "infoResponse\n" "\key\value\key\value…"
//! Quake 2              FF FF FF FF "status\n"     ->  FF FF FF FF "print\n"  "\key\value…\n" a line for each player
//! QuakeWorld           the same                   ->  FF FF FF FF "n"        the same
//! Quake                80 00 length 2, 02 "QUAKE" 00 03  ->  80 00 length 2, 83, address, name, map (each to a 00),
//!                                                            players 1, most 1, version 1
//! ```

use super::{Found, Protocol, c_string, some_text, text};

/// Asks Quake 3 and its descendants.
pub const INFO: &[u8] = b"\xff\xff\xff\xffgetinfo punchlan";
/// Asks QuakeWorld and Quake 2.
pub const STATUS: &[u8] = b"\xff\xff\xff\xffstatus\n";
/// Asks the first one.
pub const FIRST: &[u8] = b"\x80\x00\x00\x0c\x02QUAKE\x00\x03";

/// What an answer begins with, and which game it is if it does not say so itself.
const BEGINNINGS: [(&[u8], &str); 4] = [
    (b"\xff\xff\xff\xffinfoResponse\n", "Quake 3"),
    (b"\xff\xff\xff\xffstatusResponse\n", "Quake 3"),
    (b"\xff\xff\xff\xffprint\n", "Quake 2"),
    (b"\xff\xff\xff\xffn\\", "QuakeWorld"),
];

/// Reads an answer.
pub fn read(bytes: &[u8]) -> Option<Found> {
    let said = BEGINNINGS.iter().find_map(|(start, game)| Some((bytes.strip_prefix(*start)?, *game)));
    match said {
        Some((said, game)) => keys(said, game),
        None => first(bytes),
    }
}

fn keys(said: &[u8], game: &str) -> Option<Found> {
    let mut lines = said.split(|byte| *byte == b'\n');
    let line = lines.next()?;
    let players = lines.filter(|line| !line.iter().all(|byte| *byte == 0)).count();
    let mut words = line.strip_prefix(b"\\").unwrap_or(line).split(|byte| *byte == b'\\');
    let (mut found, mut now, mut most) = (Found::named(Protocol::Quake, String::new()), None, None);
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        match key.to_ascii_lowercase().as_slice() {
            b"hostname" | b"sv_hostname" => found.name = text(&plain(value)),
            b"mapname" | b"map" => found.map = some_text(value),
            b"gamename" | b"game" if found.game.is_none() => found.game = some_text(value),
            b"clients" => now = number(value),
            b"sv_maxclients" | b"maxclients" => most = number(value),
            _ => {}
        }
    }
    if found.name.is_empty() && found.map.is_none() {
        return None;
    }
    found.game.get_or_insert_with(|| game.to_owned());
    let now = now.or_else(|| u16::try_from(players).ok());
    found.players = now.zip(most).map(|(now, most)| [now, most]);
    Some(found)
}

fn number(bytes: &[u8]) -> Option<u16> {
    str::from_utf8(bytes).ok()?.trim().parse().ok()
}

/// Without what colours it: each `^` and the digit behind it.
fn plain(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [byte, tail @ ..] = rest {
        rest = match (byte, tail) {
            (b'^', [digit, tail @ ..]) if digit.is_ascii_digit() => tail,
            _ => {
                plain.push(*byte);
                tail
            }
        };
    }
    plain
}

fn first(bytes: &[u8]) -> Option<Found> {
    let (&[0x80, 0, high, low, 0x83], rest) = bytes.split_first_chunk()? else { return None };
    if usize::from(u16::from_be_bytes([high, low])) != bytes.len() {
        return None;
    }
    let (_, rest) = c_string(rest)?;
    let (name, rest) = c_string(rest)?;
    let (map, rest) = c_string(rest)?;
    let players = rest.first_chunk::<2>()?.map(u16::from);
    let found = Found::named(Protocol::Quake, text(name));
    Some(Found { game: Some("Quake".to_owned()), map: some_text(map), players: Some(players), ..found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_quake_3_say_keys_and_values() {
        let found = read(
            b"\xff\xff\xff\xffinfoResponse\n\\voip\\opus\\g_humanplayers\\1\\gametype\\0\\sv_maxclients\\8\\clients\\1\
              \\mapname\\oa_dm1\\hostname\\^1our ^7arena\\protocol\\71\\gamename\\Quake3Arena",
        )
        .expect("an answer");
        assert_eq!((found.name.as_str(), found.game.as_deref()), ("our arena", Some("Quake3Arena")));
        assert_eq!((found.map.as_deref(), found.players), (Some("oa_dm1"), Some([1, 8])));
    }

    #[test]
    fn players_of_older_ones_are_counted() {
        let said = b"\xff\xff\xff\xffprint\n\\mapname\\q2dm1\\hostname\\noname\\maxclients\\8\n0 15 \"Grunt\"\n3 20 \"Bitterman\"\n";
        let found = read(said).expect("an answer");
        assert_eq!((found.game.as_deref(), found.players), (Some("Quake 2"), Some([2, 8])));
        let said = b"\xff\xff\xff\xffn\\hostname\\qw\\map\\dm6\\maxclients\\16\n\0";
        let found = read(said).expect("an answer");
        assert_eq!((found.game.as_deref(), found.players), (Some("QuakeWorld"), Some([0, 16])));
        let said = b"\x80\x00\x00\x23\x83192.0.2.7:26000\0ours\0start\0\x01\x04\x03";
        let found = read(said).expect("an answer");
        assert_eq!((found.name.as_str(), found.map.as_deref(), found.players), ("ours", Some("start"), Some([1, 4])));
    }

    #[test]
    fn what_says_nothing_is_no_server() {
        let none: [&[u8]; 6] = [
            b"",
            b"\xff\xff\xff\xff",
            b"\xff\xff\xff\xffinfoResponse\n",
            b"\xff\xff\xff\xffinfoResponse\n\\hostname",
            b"\xff\xff\xff\xffprint\nNo such thing.\n",
            b"\x80\x00\x00\x27\x83192.0.2.7:26000\0ours\0start\0\x01\x04\x03",
        ];
        none.into_iter().for_each(|bytes| assert_eq!(read(bytes), None, "{bytes:?}"));
    }
}
