//! Messages between two nodes, on the control channel.

use super::{put_announcement, take_announcement};
use crate::wire::{Malformed, Reader, Writer};

/// A message on the control channel: the sealed inner kind and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// Proves that the sender has the keys.
    Nothing,
    /// Please answer with a pong.
    Ping(u64),
    /// Answer to the ping of that id.
    Pong(u64),
    /// A signed announcement, anybody's.
    Announcement(&'a [u8]),
    /// The sender leaves.
    Goodbye,
    /// What the receiver claims is bound to another.
    AddressTaken {
        /// What is taken.
        what: Taken,
        /// The holder's signed announcement.
        holder: &'a [u8],
    },
    /// The signed announcement of a member that shares no rendezvous with the receiver, who was told of the receiver just
    /// now.
    Stranger(&'a [u8]),
}

/// What an [`Control::AddressTaken`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The IPv4 address.
    V4 = 1,
    /// The name.
    Name = 2,
}

impl<'a> Control<'a> {
    /// Inner kind and body.
    ///
    /// # Panics
    /// If an announcement is longer than a signed one can be.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match *self {
            Self::Nothing => w.u8(0),
            Self::Ping(id) => w.u8(1).u64(id),
            Self::Pong(id) => w.u8(2).u64(id),
            Self::Announcement(signed) => {
                put_announcement(w.u8(3), signed);
                &mut w
            }
            Self::Goodbye => w.u8(4),
            Self::AddressTaken { what, holder } => {
                put_announcement(w.u8(5).u8(what as u8), holder);
                &mut w
            }
            Self::Stranger(signed) => {
                put_announcement(w.u8(6), signed);
                &mut w
            }
        };
        w.finish()
    }

    /// Reads inner kind and body.
    pub fn decode(inner: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(inner);
        Ok(match r.u8()? {
            0 => Self::Nothing,
            1 => Self::Ping(r.u64()?),
            2 => Self::Pong(r.u64()?),
            3 => Self::Announcement(take_announcement(&mut r)?),
            4 => Self::Goodbye,
            5 => {
                let what = match r.u8()? {
                    1 => Taken::V4,
                    2 => Taken::Name,
                    _ => return Err(Malformed::Bad("what is taken")),
                };
                Self::AddressTaken { what, holder: take_announcement(&mut r)? }
            }
            6 => Self::Stranger(take_announcement(&mut r)?),
            other => return Err(Malformed::UnknownKind(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_hold_in_both_directions() {
        let vectors: [(Control<'_>, &[u8]); 8] = [
            (Control::Nothing, &[0]),
            (Control::Ping(0x0102), &[1, 0, 0, 0, 0, 0, 0, 1, 2]),
            (Control::Pong(0x0102), &[2, 0, 0, 0, 0, 0, 0, 1, 2]),
            (Control::Announcement(b"ab"), &[3, 0, 2, b'a', b'b']),
            (Control::Goodbye, &[4]),
            (Control::AddressTaken { what: Taken::V4, holder: b"ab" }, &[5, 1, 0, 2, b'a', b'b']),
            (Control::AddressTaken { what: Taken::Name, holder: b"" }, &[5, 2, 0, 0]),
            (Control::Stranger(b"ab"), &[6, 0, 2, b'a', b'b']),
        ];
        for (message, bytes) in vectors {
            assert_eq!(message.encode(), bytes);
            assert_eq!(Control::decode(bytes), Ok(message));
            assert_eq!(Control::decode(&[bytes, &[0xff]].concat()), Ok(message), "trailing bytes are ignored");
            assert!(Control::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        assert_eq!(Control::decode(&[7]), Err(Malformed::UnknownKind(7)));
        assert_eq!(Control::decode(&[5, 3, 0, 0]), Err(Malformed::Bad("what is taken")));
    }
}
