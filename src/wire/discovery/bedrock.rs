//! A world of Minecraft's Bedrock edition, by the ping of RakNet, which asks before there is a connection.
//!
//! ```text
//! question  01 time 8 magic 16 who 8
//! answer    1C time 8 who 8 magic 16 length 2, then texts with `;` between: edition, name, protocol, version, players, most …
//! ```

use super::super::Reader;
use super::{Found, Protocol, some_text, text};

const ASKS: u8 = 0x01;
const ANSWERS: u8 = 0x1c;
const MAGIC: [u8; 16] = *b"\x00\xff\xff\x00\xfe\xfe\xfe\xfe\xfd\xfd\xfd\xfd\x12\x34\x56\x78";

/// Asks who is there.
pub fn question() -> Vec<u8> {
    [&[ASKS][..], &[0; 8], &MAGIC, &[0; 8]].concat()
}

/// Reads an answer.
pub fn read(bytes: &[u8]) -> Option<Found> {
    let mut reader = Reader::new(bytes.strip_prefix(&[ANSWERS])?);
    reader.bytes(16).ok()?;
    (reader.array().ok()? == MAGIC).then_some(())?;
    let len = reader.u16().ok()?;
    let mut words = reader.bytes(len.into()).ok()?.split(|byte| *byte == b';');
    let (edition, name) = (words.next()?, words.next()?);
    let (version, now, most) = (words.nth(1), words.next(), words.next());
    let number = |word: Option<&[u8]>| str::from_utf8(word?).ok()?.parse().ok();
    let game = [Some(edition), version].into_iter().flatten().filter_map(some_text).collect::<Vec<_>>().join(" ");
    let players = number(now).zip(number(most)).map(|(now, most)| [now, most]);
    Some(Found { game: Some(game), players, ..Found::named(Protocol::Minecraft, text(name)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_its_version_and_its_players_are_read() {
        let said = b"MCPE;Our world;390;1.14.60;2;10;13253860892328930865;Bedrock level;Survival;";
        let length = u16::try_from(said.len()).expect("short").to_be_bytes();
        let answer = [&[ANSWERS][..], &[7; 16], &MAGIC, &length, said].concat();
        let found = read(&answer).expect("a world");
        assert_eq!((found.name.as_str(), found.game.as_deref()), ("Our world", Some("MCPE 1.14.60")));
        assert_eq!(found.players, Some([2, 10]));
        for len in 0..answer.len() {
            assert_eq!(read(&answer[..len]), None);
        }
        assert_eq!(read(&question()), None);
    }
}
