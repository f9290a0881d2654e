//! What games and machines say on a LAN, of which none is ours: any bytes are understood within bounds, or are nothing. And
//! the doctor's own question and answer.

use punchlan::wire::discovery::{
    Answer, Found, answer, bedrock, mdns, minecraft, openttd, quake, source, ssdp, teeworlds,
};
use punchlan::wire::doctor;

/// Asked with this, as servers say it back.
const TOKEN: [u8; 4] = [9, 8, 7, 6];
/// Characters that a text may have.
const TEXT: usize = 80;

/// The first byte says which reader gets the rest.
pub(crate) fn run(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 10 {
        0 => check(minecraft::read(bytes)),
        1 => check_answer(source::read(bytes)),
        2 => check(quake::read(bytes)),
        3 => check_answer(teeworlds::read(TOKEN, bytes)),
        4 => check(openttd::read(bytes)),
        5 => check(ssdp::read(bytes)),
        6 => services(bytes),
        7 => doctors(bytes),
        8 => check(bedrock::read(bytes)),
        _ => check_answer(answer(TOKEN, bytes)),
    }
}

fn check_answer(answer: Option<Answer>) {
    match answer {
        Some(Answer::Found(found)) => check(Some(found)),
        // No answer has us write more than a question.
        Some(Answer::AskAgain(question)) => assert!(question.len() < 64),
        None => {}
    }
}

fn check(found: Option<Found>) {
    let Some(found) = found else { return };
    for text in [Some(&found.name), found.game.as_ref(), found.map.as_ref()].into_iter().flatten() {
        assert!(text.chars().count() <= 2 * TEXT + 1 && !text.contains(char::is_control), "{text:?}");
    }
}

fn services(bytes: &[u8]) {
    let Some(said) = mdns::read(bytes) else { return };
    assert!(said.kinds.len() + said.found.len() <= 64);
    said.found.into_iter().for_each(|found| check(Some(found)));
    said.kinds.into_iter().filter_map(mdns::ask_for).for_each(|question| assert_eq!(mdns::read(&question), None));
}

fn doctors(bytes: &[u8]) {
    if let Ok(question) = doctor::Question::decode(bytes) {
        let answer = doctor::Answer { nonce: question.0, name: "x".repeat(200) };
        assert!(answer.encode().len() <= bytes.len());
    }
    if let Ok(answer) = doctor::Answer::decode(bytes) {
        assert_eq!(doctor::Answer::decode(&answer.encode()).map(|again| again.nonce), Ok(answer.nonce));
    }
}
