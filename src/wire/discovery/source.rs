//! Valve's server query, `A2S_INFO`, which games of the Source engine and many others answer.
//!
//! ```text
//! question  FF FF FF FF 'T' "Source Engine Query" 00 [challenge 4]
//! "again"   FF FF FF FF 'A' challenge 4
//! answer    FF FF FF FF 'I' version 1, name, map, folder, game (each to a 00), app 2, players 1, most 1, bots 1, kind 1,
//!           system 1, password 1, secured 1, version to a 00, flags 1, [port 2, if flags & 80]
//! old       FF FF FF FF 'm' address, name, map, folder, game (each to a 00), players 1, most 1 …
//! ```
//!
//! Numbers are little-endian.

use super::super::Reader;
use super::{Answer, Found, Protocol, c_string, some_text, text};

const CONNECTIONLESS: [u8; 4] = [0xff; 4];
const QUERY: &[u8] = b"TSource Engine Query\0";
/// The port is said too.
const HAS_PORT: u8 = 0x80;

/// The question, with what the server wants to see again.
pub fn question(challenge: Option<[u8; 4]>) -> Vec<u8> {
    let challenge = challenge.unwrap_or_default();
    let end = if challenge == [0; 4] { &[][..] } else { &challenge };
    [&CONNECTIONLESS, QUERY, end].concat()
}

/// Reads an answer.
pub fn read(bytes: &[u8]) -> Option<Answer> {
    let (kind, rest) = bytes.strip_prefix(&CONNECTIONLESS)?.split_first()?;
    match kind {
        b'A' => Some(Answer::AskAgain(question(Some(*rest.first_chunk()?)))),
        b'I' => info(rest.get(1..)?).map(Answer::Found),
        b'm' => old(rest).map(Answer::Found),
        _ => None,
    }
}

fn info(bytes: &[u8]) -> Option<Found> {
    let (found, rest) = named(bytes)?;
    let mut reader = Reader::new(rest);
    reader.u16().ok()?;
    let players = [reader.u8().ok()?, reader.u8().ok()?].map(u16::from);
    // Bots, kind, system, password, secured; then the version.
    let more = reader.bytes(5).ok().and_then(|_| c_string(reader.rest()));
    let port = more.and_then(|(_, rest)| match rest {
        [flags, low, high, ..] if flags & HAS_PORT != 0 => Some(u16::from_le_bytes([*low, *high])),
        _ => None,
    });
    Some(Found { players: Some(players), port: port.filter(|port| *port != 0), ..found })
}

fn old(bytes: &[u8]) -> Option<Found> {
    let (_, rest) = c_string(bytes)?;
    let (found, rest) = named(rest)?;
    let players = rest.first_chunk::<2>().map(|players| players.map(u16::from));
    Some(Found { players, ..found })
}

/// Name, map, folder and game, and what follows.
fn named(bytes: &[u8]) -> Option<(Found, &[u8])> {
    let (name, rest) = c_string(bytes)?;
    let (map, rest) = c_string(rest)?;
    let (folder, rest) = c_string(rest)?;
    let (game, rest) = c_string(rest)?;
    let game = some_text(game).or_else(|| some_text(folder));
    Some((Found { game, map: some_text(map), ..Found::named(Protocol::Source, text(name)) }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the protocol's documentation shows it.
    const ANSWER: &[u8] = b"\xff\xff\xff\xffI\x11Game Server\0de_dust2\0cstrike\0Counter-Strike: Source\0\xf0\x00\
        \x05\x10\x04dl\x00\x001.0.0.22\0\x80\x87\x69";

    #[test]
    fn a_server_says_its_name_map_players_and_port() {
        let Some(Answer::Found(found)) = read(ANSWER) else { panic!("an answer") };
        assert_eq!((found.name.as_str(), found.game.as_deref()), ("Game Server", Some("Counter-Strike: Source")));
        assert_eq!((found.map.as_deref(), found.players, found.port), (Some("de_dust2"), Some([5, 16]), Some(27_015)));
        let old = b"\xff\xff\xff\xffm192.0.2.7:27015\0HLDS\0crossfire\0valve\0Half-Life\0\x02\x0c\x2f";
        let Some(Answer::Found(found)) = read(old) else { panic!("an answer") };
        assert_eq!((found.name.as_str(), found.players, found.port), ("HLDS", Some([2, 12]), None));
    }

    #[test]
    fn a_server_that_wants_to_see_who_asks_is_asked_again() {
        let again = read(b"\xff\xff\xff\xffA\x01\x02\x03\x04");
        let expected = b"\xff\xff\xff\xffTSource Engine Query\0\x01\x02\x03\x04";
        assert_eq!(again, Some(Answer::AskAgain(expected.to_vec())));
        assert_eq!(read(b"\xff\xff\xff\xffA\x01\x02\x03"), None);
    }

    #[test]
    fn what_is_cut_off_is_understood_as_far_as_it_goes_or_not_at_all() {
        for len in 0..ANSWER.len() {
            if let Some(Answer::Found(found)) = read(&ANSWER[..len]) {
                assert_eq!((found.players, found.port), (Some([5, 16]), None), "{len}");
            }
        }
    }
}
