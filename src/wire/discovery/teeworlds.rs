//! Teeworlds' server query.
//!
//! ```text
//! 0.6, DDNet   FF×6 FF FF FF FF "gie3" token 1   ->  FF×6 FF FF FF FF "inf3", then texts, each to a 00: token, version, name,
//!                                                    map, kind of game, flags, players, most players, clients, most clients
//! 0.7          04 00 00 FF FF FF FF 05 token 4, zeros up to 520   ->  04 00 00 token 4, 05 theirs 4
//!              21 theirs 4, token 4, FF FF FF FF "gie3" 0         ->  21 token 4, theirs 4, FF FF FF FF "inf3" 0, then texts:
//!                                        version, name, host, map, kind of game; numbers: flags, level, players, most
//!                                        players, clients, most clients
//! ```
//!
//! 0.7 writes numbers in bytes of seven bits, the first of which has six and a sign.

use super::{Answer, Found, Protocol, c_string, some_text, text};

const CONNECTIONLESS: [u8; 6] = [0xff; 6];
const ASKS: &[u8] = b"\xff\xff\xff\xffgie3";
const SAYS: &[u8] = b"\xff\xff\xff\xffinf3";
/// A control packet of 0.7, acknowledging nothing, with no chunks.
const CONTROL: [u8; 3] = [0x04, 0, 0];
/// "This is my token."
const TOKEN: u8 = 5;
/// A packet of 0.7 outside of connections.
const OUTSIDE: u8 = 0x21;
/// A question for a token has this length, so that it is no shorter than any answer.
const TOKEN_QUESTION: usize = 520;

/// Asks servers of 0.6.
pub fn question(token: u8) -> Vec<u8> {
    [&CONNECTIONLESS, ASKS, &[token]].concat()
}

/// Asks servers of 0.7 for what they want to see in a question.
pub fn token_question(token: [u8; 4]) -> Vec<u8> {
    let mut question = [&CONTROL[..], &[0xff; 4], &[TOKEN], &token].concat();
    question.resize(TOKEN_QUESTION, 0);
    question
}

/// Reads an answer to one of the two.
pub fn read(token: [u8; 4], bytes: &[u8]) -> Option<Answer> {
    if let Some(said) = bytes.strip_prefix(&CONNECTIONLESS) {
        return old(said.strip_prefix(SAYS)?).map(Answer::Found);
    }
    if let Some(said) = bytes.strip_prefix(&CONTROL) {
        let theirs: &[u8; 4] = said.strip_prefix(&token)?.strip_prefix(&[TOKEN])?.first_chunk()?;
        return Some(Answer::AskAgain([&[OUTSIDE][..], theirs, &token, ASKS, &[0]].concat()));
    }
    let said = bytes.strip_prefix(&[OUTSIDE])?.strip_prefix(&token)?.get(4..)?;
    new(said.strip_prefix(SAYS)?).map(Answer::Found)
}

fn old(said: &[u8]) -> Option<Found> {
    let mut texts = Texts(said);
    let (_token, _version) = (texts.next()?, texts.next()?);
    let (name, map, game, _flags) = (texts.next()?, texts.next()?, texts.next()?, texts.next()?);
    let (_players, _most_players, clients, most) = (texts.next()?, texts.next()?, texts.next(), texts.next());
    let number = |text: Option<&[u8]>| str::from_utf8(text?).ok()?.parse().ok();
    Some(found(name, map, game, number(clients).zip(number(most))))
}

fn new(said: &[u8]) -> Option<Found> {
    let (_, said) = number(said)?;
    let mut texts = Texts(said);
    let (_version, name, _host) = (texts.next()?, texts.next()?, texts.next()?);
    let (map, game) = (texts.next()?, texts.next()?);
    let mut rest = texts.0;
    let mut numbers = [0; 6];
    for place in &mut numbers {
        (*place, rest) = number(rest)?;
    }
    let [_flags, _level, _players, _most_players, clients, most] = numbers;
    Some(found(name, map, game, u16::try_from(clients).ok().zip(u16::try_from(most).ok())))
}

fn found(name: &[u8], map: &[u8], game: &[u8], players: Option<(u16, u16)>) -> Found {
    let players = players.map(|(now, most)| [now, most]);
    Found { game: some_text(game), map: some_text(map), players, ..Found::named(Protocol::Teeworlds, text(name)) }
}

/// A number, and what follows it.
fn number(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let (mut value, mut goes_on) = (i64::from(first & 0x3f), first & 0x80 != 0);
    for shift in [6, 13, 20, 27] {
        if !goes_on {
            break;
        }
        let (byte, after) = rest.split_first()?;
        value |= i64::from(byte & 0x7f) << shift;
        (goes_on, rest) = (byte & 0x80 != 0, after);
    }
    Some((if first & 0x40 != 0 { !value } else { value }, rest))
}

/// Texts that each end in a zero.
struct Texts<'a>(&'a [u8]);

impl<'a> Iterator for Texts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (text, rest) = c_string(self.0)?;
        self.0 = rest;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [u8; 4] = [9, 8, 7, 6];

    #[test]
    fn a_server_of_0_6_is_read() {
        let said = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffinf39\x000.6.5\0unnamed server\0dm1\0DM\x000\x001\x008\x003\x0016\0";
        let Some(Answer::Found(found)) = read(OURS, said) else { panic!("an answer") };
        assert_eq!((found.name.as_str(), found.map.as_deref()), ("unnamed server", Some("dm1")));
        assert_eq!((found.game.as_deref(), found.players), (Some("DM"), Some([3, 16])));
    }

    #[test]
    fn a_server_of_0_7_is_asked_with_its_token_and_then_read() {
        let token = [&[4, 0, 0][..], &OURS, &[5, 1, 2, 3, 4]].concat();
        let again = [&[0x21, 1, 2, 3, 4][..], &OURS, b"\xff\xff\xff\xffgie3\0"].concat();
        assert_eq!(read(OURS, &token), Some(Answer::AskAgain(again)));
        assert_eq!(read([0; 4], &token), None, "somebody else's");
        let said = b"\xff\xff\xff\xffinf3\x000.7.5\0ours\0\0ctf1\0CTF\0\x00\x00\x02\x08\x03\x90\x01";
        let said = [&[0x21][..], &OURS, &[1, 2, 3, 4], said].concat();
        let Some(Answer::Found(found)) = read(OURS, &said) else { panic!("an answer") };
        assert_eq!((found.name.as_str(), found.map.as_deref(), found.players), ("ours", Some("ctf1"), Some([3, 80])));
        for len in 0..said.len() {
            assert_eq!(read(OURS, &said[..len]), None);
        }
    }

    #[test]
    fn numbers_have_six_and_then_seven_bits_and_a_sign() {
        for (bytes, value) in [(&[0x3f][..], 63), (&[0x80, 1], 64), (&[0x40], -1), (&[0xbf, 0xff, 0x7f], 0x0f_ffff)] {
            assert_eq!(number(bytes), Some((value, &[][..])));
        }
        assert!(number(&[0xff; 9]).is_some() && number(&[0xff]).is_none() && number(&[]).is_none());
    }
}
