//! The question of `punchlan games`, and a member's answer: does what is for many arrive, and does the answer?
//!
//! ```text
//!  0               8               16                                    48
//! +---------------+---------------+--------------------------------------+
//! | "punchln?"    | nonce         | zeros                                |   question
//! +---------------+---------------+--------------------------------------+
//! | "punchln!"    | nonce         | the member's name, at most 32 bytes  |   answer
//! +---------------+---------------+--------------------------------------+
//! ```
//!
//! Both are ordinary datagrams inside the overlay, between sockets of the system: what a firewall does to a game it does to
//! them. An answer is never longer than its question.

use std::net::Ipv4Addr;

use super::{Malformed, Reader, Writer};

/// The UDP port that members answer on.
pub const PORT: u16 = 24_786;
/// The group that they are in: of the block that stays within a site (RFC 2365 §6.1).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 112, 109);
/// The length of a question, bytes, and the most that an answer has.
pub const LONGEST: usize = 16 + NAME;

const NAME: usize = 32;
const ASKS: [u8; 8] = *b"punchln?";
const ANSWERS: [u8; 8] = *b"punchln!";

/// Tells a question from others.
pub type Nonce = [u8; 8];

/// "Who hears this?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question(pub Nonce);

impl Question {
    /// Its bytes.
    pub fn encode(self) -> Vec<u8> {
        Writer::with_capacity(LONGEST).bytes(&ASKS).bytes(&self.0).pad_to(LONGEST).finish()
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none, or shorter than an answer may be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() < LONGEST {
            return Err(Malformed::Truncated);
        }
        fields(bytes, ASKS).map(|(nonce, _)| Self(nonce))
    }
}

/// "I do."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The question's.
    pub nonce: Nonce,
    /// Who hears it, as it calls itself.
    pub name: String,
}

impl Answer {
    /// Its bytes. What does not fit of the name is left out.
    pub fn encode(&self) -> Vec<u8> {
        let end = (0..=NAME).rev().find(|end| self.name.is_char_boundary(*end)).unwrap_or(0);
        Writer::with_capacity(LONGEST).bytes(&ANSWERS).bytes(&self.nonce).bytes(&self.name.as_bytes()[..end]).finish()
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (nonce, name) = fields(bytes, ANSWERS)?;
        Ok(Self { nonce, name: String::from_utf8_lossy(&name[..name.len().min(NAME)]).into_owned() })
    }
}

fn fields(bytes: &[u8], magic: [u8; 8]) -> Result<(Nonce, &[u8]), Malformed> {
    let mut reader = Reader::new(bytes);
    match reader.array::<8>()? {
        read if read == magic => Ok((reader.array()?, reader.rest())),
        [first, ..] => Err(Malformed::UnknownKind(first)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_never_shorter_than_its_answer() {
        let question = Question([7; 8]);
        assert_eq!(Question::decode(&question.encode()), Ok(question));
        for name in ["bob", "", &"x".repeat(NAME), &"ä".repeat(NAME)] {
            let answer = Answer { nonce: [7; 8], name: name.to_owned() }.encode();
            assert!(answer.len() <= question.encode().len());
            let read = Answer::decode(&answer).expect("an answer");
            assert!(name.starts_with(&read.name) && read.nonce == [7; 8]);
        }
        let short = &question.encode()[..LONGEST - 1];
        assert_eq!(Question::decode(short), Err(Malformed::Truncated));
    }

    #[test]
    fn neither_is_taken_for_the_other_or_for_anything_else() {
        let question = Question([7; 8]).encode();
        let answer = Answer { nonce: [7; 8], name: "x".repeat(NAME) }.encode();
        assert!(Answer::decode(&question).is_err() && Question::decode(&answer).is_err());
        assert!(Answer::decode(b"").is_err() && Answer::decode(b"punchln!").is_err());
    }
}
