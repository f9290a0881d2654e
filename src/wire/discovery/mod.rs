//! How games and machines say on a LAN that they are there: the bytes that ask, and what others' bytes say. None of these
//! protocols is ours; whatever comes is read within bounds, and what is not understood is nothing.
//!
//! | protocol | asked at | says it by itself |
//! |---|---|---|
//! | [`minecraft`] | | group 224.0.2.60, port 4445 |
//! | [`bedrock`] (Minecraft's other edition) | 19132 | |
//! | [`source`] (Half-Life, Counter-Strike, Garry's Mod, ARK, Rust …) | 27015–27020 | |
//! | [`quake`] (1, World, 2, 3, and what descends from them) | 26000, 27500, 27910, 27960–27963 | |
//! | [`teeworlds`] (0.6, DDNet, 0.7) | 8303–8310 | |
//! | [`openttd`] | 3979 | |
//! | [`ssdp`] (UPnP) | group 239.255.255.250, port 1900 | the same |
//! | [`mdns`] (Bonjour, avahi) | group 224.0.0.251, port 5353 | the same |

pub mod bedrock;
pub mod mdns;
pub mod minecraft;
pub mod openttd;
pub mod quake;
pub mod source;
pub mod ssdp;
pub mod teeworlds;

/// What is longer than this is cut off: characters of a text.
const TEXT: usize = 80;

/// By which protocol somebody says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// A world that is open to the LAN.
    Minecraft,
    /// A server by Valve's query.
    Source,
    /// A server by the query of Quake and its descendants.
    Quake,
    /// A server of Teeworlds.
    Teeworlds,
    /// A server of OpenTTD.
    OpenTtd,
    /// A machine by UPnP.
    Ssdp,
    /// A service by multicast DNS.
    Mdns,
}

impl Protocol {
    /// For people and programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minecraft => "Minecraft",
            Self::Source => "Source",
            Self::Quake => "Quake",
            Self::Teeworlds => "Teeworlds",
            Self::OpenTtd => "OpenTTD",
            Self::Ssdp => "SSDP",
            Self::Mdns => "mDNS",
        }
    }

    /// Whether it is a game's.
    pub const fn is_game(self) -> bool {
        !matches!(self, Self::Ssdp | Self::Mdns)
    }
}

/// What somebody says of itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// In which protocol.
    pub protocol: Protocol,
    /// The server's or the service's name; may be empty.
    pub name: String,
    /// Which game, or which kind of service, if that is said.
    pub game: Option<String>,
    /// What is played there.
    pub map: Option<String>,
    /// Players now, and at most.
    pub players: Option<[u16; 2]>,
    /// Where it is joined, if not at the port that it spoke from.
    pub port: Option<u16>,
}

impl Found {
    /// Says no more than a name.
    const fn named(protocol: Protocol, name: String) -> Self {
        Self { protocol, name, game: None, map: None, players: None, port: None }
    }
}

/// What an answer to a game's question is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What was asked for.
    Found(Found),
    /// "Ask again, with this": it wants to see that we are where we say.
    AskAgain(Vec<u8>),
}

/// A question of a game's, and the ports at which it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// UDP ports.
    pub ports: Vec<u16>,
}

/// All that games are asked. `token`: of four bytes that nobody can guess, by which answers are known.
pub fn questions(token: [u8; 4]) -> Vec<Question> {
    let question = |bytes: Vec<u8>, ports: &[u16]| Question { bytes, ports: ports.to_vec() };
    vec![
        question(source::question(None), &[27_015, 27_016, 27_017, 27_018, 27_019, 27_020]),
        question(quake::INFO.to_vec(), &[26_000, 27_960, 27_961, 27_962, 27_963]),
        question(quake::STATUS.to_vec(), &[27_500, 27_910]),
        question(quake::FIRST.to_vec(), &[26_000]),
        question(teeworlds::question(token[0]), &[8_303, 8_304, 8_305, 8_306]),
        question(teeworlds::token_question(token), &[8_303, 8_304, 8_305, 8_306]),
        question(openttd::QUESTION.to_vec(), &[3_979]),
        question(bedrock::question(), &[19_132]),
    ]
}

/// What came to who asked; `None`: nothing that is understood.
pub fn answer(token: [u8; 4], bytes: &[u8]) -> Option<Answer> {
    source::read(bytes).or_else(|| teeworlds::read(token, bytes)).or_else(|| {
        quake::read(bytes).or_else(|| openttd::read(bytes)).or_else(|| bedrock::read(bytes)).map(Answer::Found)
    })
}

/// Words of somebody else: as text, not endless, in one line and without what steers a terminal.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(TEXT).collect::<String>().trim().to_owned()
}

/// The same; `None` if nothing is left.
fn some_text(bytes: &[u8]) -> Option<String> {
    Some(text(bytes)).filter(|text| !text.is_empty())
}

/// The next text that ends in a zero, and what follows.
fn c_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebodys_words_are_one_short_line_that_steers_nothing() {
        assert_eq!(text(b" a\x1b[2J\r\nb\xff "), "a [2J  b\u{fffd}");
        assert_eq!(text(&[b'x'; 500]).len(), TEXT);
        assert_eq!((some_text(b" \n"), c_string(b"no end")), (None, None));
    }

    #[test]
    fn no_question_is_taken_for_an_answer() {
        for question in questions([1, 2, 3, 4]) {
            assert_eq!(answer([1, 2, 3, 4], &question.bytes), None, "{question:?}");
            assert!(!question.ports.is_empty());
        }
    }
}
