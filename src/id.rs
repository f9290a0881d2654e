//! L0: the names of things. Which network, which peer, which server, which socket; and the checksummed
//! text in which people pass keys on.
//!
//! Text form: bech32m (BIP 350) over 32 bytes with the prefix `plk` (network key) or `plr` (rendezvous
//! key), written with dashes for the eye: `plk1-…`. Its checksum finds every change of up to four
//! characters, and names the character when only one is wrong.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use bech32::primitives::correction::CorrectableError as _;
use bech32::primitives::decode::{CheckedHrpstring, UncheckedHrpstring};
use bech32::{Bech32m, Hrp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The secret that all members of a network share: 256 random bits. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct NetworkKey([u8; 32]);

/// A network's public name: the Ed25519 key that members sign registrations with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(pub [u8; 32]);

/// A device's public name: its Ed25519 key. Their order decides ties.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 32]);

/// A rendezvous' X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerKey(pub [u8; 32]);

/// The generation of a network's derived secrets; 0 until members can be revoked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Epoch(pub u32);

/// One of this machine's sockets: of UDP, or, from [`SocketId::FIRST_STREAM`] on, a stream that carries datagrams
/// ([`crate::wire::stream`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub u16);

impl SocketId {
    /// The first that names a stream.
    pub const FIRST_STREAM: Self = Self(1 << 15);

    /// Whether it is a stream.
    pub const fn is_stream(self) -> bool {
        self.0 >= Self::FIRST_STREAM.0
    }
}

/// Who sends, as far as the network tells: whoever has an address, or the one at the other end of a stream, whose
/// address says nothing that holds for UDP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Origin {
    /// By UDP.
    Udp(SocketAddr),
    /// By a stream.
    Stream(SocketId),
}

impl Origin {
    /// Of what came by `socket` from `remote`.
    pub const fn of(socket: SocketId, remote: SocketAddr) -> Self {
        if socket.is_stream() { Self::Stream(socket) } else { Self::Udp(remote) }
    }

    /// The address that others reach it at by UDP.
    pub const fn udp(self) -> Option<SocketAddr> {
        match self {
            Self::Udp(addr) => Some(addr),
            Self::Stream(_) => None,
        }
    }
}

impl From<SocketAddr> for Origin {
    fn from(addr: SocketAddr) -> Self {
        Self::Udp(addr)
    }
}

/// One rendezvous of `net.toml`, by its place in the list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerId(pub u16);

/// Why a text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Another prefix, or none.
    #[error("a {what} starts with \"{prefix}1-\"")]
    Prefix {
        /// What was expected.
        what: &'static str,
        /// Its prefix.
        prefix: &'static str,
    },
    /// Too short or too long.
    #[error("a {what} has {expected} characters (dashes aside), this one has {found}")]
    Length {
        /// What was expected.
        what: &'static str,
        /// Characters that it should have.
        expected: usize,
        /// Characters that it has.
        found: usize,
    },
    /// A character that no key contains.
    #[error(
        "character {position} is '{found}', which no key contains (keys never use 1, b, i or o after \"{prefix}1-\")"
    )]
    Alphabet {
        /// 1-based, dashes counted as typed.
        position: usize,
        /// What stands there.
        found: char,
        /// The text's prefix.
        prefix: &'static str,
    },
    /// One character is wrong and the checksum says which. What it should be is not said: a corrected key
    /// would be a guess.
    #[error("typo: character {position} ('{found}', in \"{around}\") is wrong; compare it with the original")]
    Typo {
        /// 1-based, dashes counted as typed.
        position: usize,
        /// What stands there.
        found: char,
        /// It with its neighbours.
        around: String,
    },
    /// Several are wrong.
    #[error("several characters are wrong (the checksum does not match); copy it again as a whole")]
    Checksum,
}

const PAYLOAD: usize = 32;
/// `plk` + `1` + 52 characters of data + 6 of checksum.
const TEXT_LEN: usize = 3 + 1 + 52 + 6;
/// Characters between two dashes.
const GROUP: usize = 8;

fn encode_text(prefix: &'static str, bytes: &[u8; PAYLOAD]) -> String {
    let hrp = Hrp::parse(prefix).expect("our prefixes are valid");
    let plain = Zeroizing::new(bech32::encode_lower::<Bech32m>(hrp, bytes).expect("62 characters fit bech32m"));
    let mut text = String::with_capacity(TEXT_LEN + TEXT_LEN / GROUP + 1);
    let (head, data) = plain.split_at(prefix.len() + 1);
    text.push_str(head);
    for (i, c) in data.chars().enumerate() {
        if i % GROUP == 0 {
            text.push('-');
        }
        text.push(c);
    }
    text
}

fn decode_text(what: &'static str, prefix: &'static str, typed: &str) -> Result<[u8; PAYLOAD], KeyTextError> {
    let typed = typed.trim();
    // Position (1-based, in characters as typed) and value of every character that counts.
    let kept: Vec<(usize, char)> =
        typed.chars().enumerate().map(|(i, c)| (i + 1, c)).filter(|(_, c)| *c != '-' && !c.is_whitespace()).collect();
    let plain: Zeroizing<String> = Zeroizing::new(kept.iter().map(|(_, c)| c.to_ascii_lowercase()).collect());
    if !plain.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('1')) {
        return Err(KeyTextError::Prefix { what, prefix });
    }
    if let Some((position, found)) = kept[prefix.len() + 1..].iter().find(|(_, c)| !is_bech32_char(*c)) {
        return Err(KeyTextError::Alphabet { position: *position, found: *found, prefix });
    }
    if kept.len() != TEXT_LEN {
        return Err(KeyTextError::Length { what, expected: TEXT_LEN, found: kept.len() });
    }
    let unchecked = UncheckedHrpstring::new(&plain).map_err(|_| KeyTextError::Checksum)?;
    if let Err(error) = unchecked.validate_checksum::<Bech32m>() {
        return Err(locate(&error, &kept).unwrap_or(KeyTextError::Checksum));
    }
    let checked = CheckedHrpstring::new::<Bech32m>(&plain).map_err(|_| KeyTextError::Checksum)?;
    let mut bytes = [0; PAYLOAD];
    let mut iter = checked.byte_iter();
    for byte in &mut bytes {
        *byte = iter.next().ok_or(KeyTextError::Checksum)?;
    }
    Ok(bytes)
}

fn is_bech32_char(c: char) -> bool {
    c.is_ascii_alphanumeric() && !matches!(c.to_ascii_lowercase(), '1' | 'b' | 'i' | 'o')
}

/// Where the single wrong character is, if it is a single one.
fn locate(error: &bech32::primitives::decode::ChecksumError, kept: &[(usize, char)]) -> Option<KeyTextError> {
    let corrector = error.correction_context::<Bech32m>()?;
    let errors: Vec<(usize, _)> = corrector.bch_errors()?.collect();
    let [(from_end, _)] = errors[..] else { return None };
    let index = kept.len().checked_sub(1 + from_end)?;
    let (position, found) = *kept.get(index)?;
    let around = kept[index.saturating_sub(3)..(index + 4).min(kept.len())].iter().map(|(_, c)| *c).collect();
    Some(KeyTextError::Typo { position, found, around })
}

impl NetworkKey {
    const PREFIX: &'static str = "plk";

    /// A key from fresh entropy.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for key derivation alone.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The text to write into `net.toml` and invites. The only way to print a key.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(encode_text(Self::PREFIX, &self.0))
    }
}

impl FromStr for NetworkKey {
    type Err = KeyTextError;
    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        decode_text("network key", Self::PREFIX, text).map(Self)
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(…)")
    }
}

impl ServerKey {
    const PREFIX: &'static str = "plr";
}

impl FromStr for ServerKey {
    type Err = KeyTextError;
    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        decode_text("rendezvous key", Self::PREFIX, text).map(Self)
    }
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_text(Self::PREFIX, &self.0))
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Lower-case hexadecimal text, the form of public ids in `status`, `deny` and folder names.
macro_rules! hex_id {
    ($type:ident, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        /// The first four bytes: enough for a log line.
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl FromStr for $type {
            type Err = HexIdError;
            fn from_str(text: &str) -> Result<Self, HexIdError> {
                let digits = text.as_bytes();
                if digits.len() != 64 {
                    return Err(HexIdError { what: $what });
                }
                let mut bytes = [0; 32];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    let nibble = |c: u8| char::from(c).to_digit(16).ok_or(HexIdError { what: $what });
                    *byte = u8::try_from(nibble(pair[0])? << 4 | nibble(pair[1])?).expect("two nibbles are a byte");
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A text is not a public id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {what} is 64 hexadecimal digits")]
pub struct HexIdError {
    what: &'static str,
}

hex_id!(NetworkId, "network id");
hex_id!(PeerId, "peer id");

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> NetworkKey {
        NetworkKey::new(std::array::from_fn(|i| u8::try_from(i * 7).expect("small")))
    }

    #[test]
    fn a_key_survives_its_text() {
        let text = key().to_text();
        assert!(text.starts_with("plk1-"), "{}", *text);
        assert_eq!(text.parse::<NetworkKey>(), Ok(key()));
        assert_eq!(text.replace('-', "").to_uppercase().parse::<NetworkKey>(), Ok(key()));
    }

    #[test]
    fn every_single_typo_is_found_and_named() {
        let text = key().to_text();
        for (i, c) in text.char_indices().skip(5).filter(|(_, c)| *c != '-') {
            let wrong = if c == 'q' { 'p' } else { 'q' };
            let mut typed = text.to_string();
            typed.replace_range(i..=i, &wrong.to_string());
            match typed.parse::<NetworkKey>() {
                Err(KeyTextError::Typo { position, found, .. }) => assert_eq!((position, found), (i + 1, wrong)),
                other => panic!("typo at {i} not named: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_a_key_is_said_plainly() {
        let text = key().to_text();
        assert!(matches!("hunter2".parse::<NetworkKey>(), Err(KeyTextError::Prefix { .. })));
        assert!(matches!(text[..40].parse::<NetworkKey>(), Err(KeyTextError::Length { .. })));
        let mut typed = text.to_string();
        typed.replace_range(7..8, "b");
        assert!(matches!(typed.parse::<NetworkKey>(), Err(KeyTextError::Alphabet { position: 8, found: 'b', .. })));
        assert!(matches!(text.parse::<ServerKey>(), Err(KeyTextError::Prefix { prefix: "plr", .. })));
    }

    #[test]
    fn no_secret_is_in_debug() {
        assert_eq!(format!("{:?}", key()), "NetworkKey(…)");
    }

    #[test]
    fn ids_survive_their_text() {
        let id = PeerId([0xa5; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("zz".parse::<PeerId>().is_err());
        assert!("é".repeat(32).parse::<PeerId>().is_err());
    }
}
