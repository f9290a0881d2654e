//! OpenTTD: "who is there?" by broadcast, "I am" from each server; what is played there a client asks by TCP.
//!
//! ```text
//! question  03 00 00        length 2 (little-endian), kind 0
//! answer    03 00 01 …      length 2, kind 1; before version 12 followed by what is played
//! ```

use super::{Found, Protocol};

/// Asks who is there.
pub const QUESTION: &[u8] = &[3, 0, 0];
const ANSWERS: u8 = 1;

/// Reads an answer.
pub fn read(bytes: &[u8]) -> Option<Found> {
    let [low, high, ANSWERS, ..] = bytes else { return None };
    let is_whole = usize::from(u16::from_le_bytes([*low, *high])) == bytes.len();
    is_whole.then(|| Found::named(Protocol::OpenTtd, String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_that_it_is_there_and_nothing_else_does() {
        assert!(read(&[3, 0, 1]).is_some() && read(&[5, 0, 1, 4, 0]).is_some());
        let none: [&[u8]; 5] = [&[], &[3, 0], &[3, 0, 0], &[3, 0, 2], &[4, 0, 1]];
        none.into_iter().for_each(|bytes| assert_eq!(read(bytes), None));
    }
}
