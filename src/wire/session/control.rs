//! Messages between two nodes, on the control channel.

use super::traits::{put_traits, take_traits};
use super::{put_announcement, take_announcement};
use crate::id::PeerId;
use crate::nat::{NextPorts, PORTS, Traits};
use crate::wire::relay::MAX_CHANNEL;
use crate::wire::{Malformed, Reader, Writer, groups};

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
    /// At which ports whoever the sender has not written to will see it.
    Ports {
        /// That.
        next: NextPorts,
        /// The receiver is to say the same of itself.
        asks: bool,
        /// The sender searches for the receiver now.
        searches: bool,
    },
    /// The sender's NAT lets the receiver in at some ports: the receiver is to find one of them.
    LookForMe {
        /// Where they are.
        ports: NextPorts,
        /// How many there are.
        open: u16,
    },
    /// The receiver's ports were looked for, and none was found.
    Looked,
    /// What the sender knows of its NAT, for the user of the receiver.
    Nat(Traits),
    /// The receiver is to carry between the sender and this peer.
    Carry {
        /// Whom the sender does not reach directly.
        peer: PeerId,
        /// `false`: no longer.
        wanted: bool,
    },
    /// How the sender stands to carrying between the receiver and this peer.
    Carried {
        /// The other end.
        peer: PeerId,
        /// That.
        how: Carried,
    },
    /// Where the sender listens by TCP, for a pair of which UDP does not reach one side or either ([`crate::tcp`]).
    Tcp {
        /// Its NAT is open to where the receiver listens.
        primed: bool,
        /// As [`encode_candidates`](crate::wire::announcement::encode_candidates) writes them.
        places: &'a [u8],
    },
    /// Which multicast groups the sender wants, as [`Groups`](crate::wire::groups::Groups) writes them.
    Groups(&'a [u8]),
}

/// How a member stands to carrying between two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// It has no direct way to both, or one of the two wishes for it no longer.
    Not,
    /// It carries for nobody.
    NotOffered,
    /// It carries as much as may be.
    Full,
    /// The other end asks for it: so should the receiver, if it wishes for it too.
    Asked,
    /// Both have asked.
    Open {
        /// What the receiver calls the channel, 1 to [`MAX_CHANNEL`].
        number: u32,
    },
    /// More came from the receiver than is carried; the channel stands all the same.
    Throttled,
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
    /// If an announcement is longer than a signed one can be, or places or groups are longer than a datagram.
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
            Self::Ports { next, asks, searches } => {
                put_ports(w.u8(7), next).u8(u8::from(asks) | u8::from(searches) << 1)
            }
            Self::LookForMe { ports, open } => put_ports(w.u8(8), ports).u16(open),
            Self::Looked => w.u8(9),
            Self::Nat(traits) => put_traits(w.u8(10), traits),
            Self::Carry { peer, wanted } => w.u8(11).bytes(&peer.0).u8(u8::from(wanted)),
            Self::Carried { peer, how } => put_carried(w.u8(12).bytes(&peer.0), how),
            Self::Tcp { primed, places } => {
                let len = u16::try_from(places.len()).expect("sixteen candidates are short");
                w.u8(13).u8(u8::from(primed)).u16(len).bytes(places)
            }
            Self::Groups(groups) => {
                let len = u16::try_from(groups.len()).expect("a list of groups is short");
                w.u8(14).u16(len).bytes(groups)
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
            7 => {
                let (next, flags) = (take_ports(&mut r)?, r.u8()?);
                Self::Ports { next, asks: flags & 1 != 0, searches: flags & 2 != 0 }
            }
            8 => Self::LookForMe { ports: take_ports(&mut r)?, open: r.u16()? },
            9 => Self::Looked,
            10 => Self::Nat(take_traits(&mut r)?),
            11 => Self::Carry { peer: PeerId(r.array()?), wanted: r.u8()? != 0 },
            12 => Self::Carried { peer: PeerId(r.array()?), how: take_carried(&mut r)? },
            13 => {
                let (primed, len) = (r.u8()? != 0, r.u16()?);
                Self::Tcp { primed, places: r.bytes(usize::from(len))? }
            }
            14 => match r.u16()?.into() {
                len @ 0..=groups::MAX => Self::Groups(r.bytes(len)?),
                _ => return Err(Malformed::Bad("groups")),
            },
            other => return Err(Malformed::UnknownKind(other)),
        })
    }
}

/// A kind and a number.
fn put_carried(w: &mut Writer, how: Carried) -> &mut Writer {
    match how {
        Carried::Not => w.u8(0).u24(0),
        Carried::NotOffered => w.u8(1).u24(0),
        Carried::Full => w.u8(2).u24(0),
        Carried::Asked => w.u8(3).u24(0),
        Carried::Open { number } => w.u8(4).u24(number),
        Carried::Throttled => w.u8(5).u24(0),
    }
}

fn take_carried(r: &mut Reader<'_>) -> Result<Carried, Malformed> {
    Ok(match (r.u8()?, r.u24()?) {
        (0, _) => Carried::Not,
        (1, _) => Carried::NotOffered,
        (2, _) => Carried::Full,
        (3, _) => Carried::Asked,
        (4, number @ 1..=MAX_CHANNEL) => Carried::Open { number },
        (5, _) => Carried::Throttled,
        _ => return Err(Malformed::Bad("how it is carried")),
    })
}

/// A kind and two numbers.
fn put_ports(w: &mut Writer, ports: NextPorts) -> &mut Writer {
    match ports {
        NextPorts::Same => w.u8(0).u32(0),
        NextPorts::Counted { first, step } => w.u8(1).u16(first).u16(step.cast_unsigned()),
        NextPorts::Within { first, last } => w.u8(2).u16(first).u16(last),
    }
}

fn take_ports(r: &mut Reader<'_>) -> Result<NextPorts, Malformed> {
    Ok(match (r.u8()?, r.u16()?, r.u16()?) {
        (0, _, _) => NextPorts::Same,
        (1, first, step) if PORTS.contains(&first) => NextPorts::Counted { first, step: step.cast_signed() },
        (2, first, last) if PORTS.contains(&first) && first <= last => NextPorts::Within { first, last },
        _ => return Err(Malformed::Bad("ports")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{Allocation, Behaviour};

    #[test]
    fn control_messages_hold_in_both_directions() {
        let (counted, within) =
            (NextPorts::Counted { first: 0x0506, step: -2 }, NextPorts::Within { first: 0x0506, last: 0x0708 });
        let traits = Traits {
            translates: Some(true),
            mapping: Some(Behaviour::AddressDependent),
            allocation: Some(Allocation::Block { first: 0x0506, last: 0x0708 }),
            ..Traits::default()
        };
        let peer = PeerId([7; 32]);
        let carry = [&[11][..], &[7; 32], &[1]].concat();
        let carried = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 9), (5, 0)]
            .map(|(how, number)| [&[12][..], &[7; 32], &[how, 0, 0, number]].concat());
        let hows = [
            Carried::Not,
            Carried::NotOffered,
            Carried::Full,
            Carried::Asked,
            Carried::Open { number: 9 },
            Carried::Throttled,
        ];
        let vectors = [
            (Control::Carry { peer, wanted: true }, &carry[..]),
            (Control::Nothing, &[0]),
            (Control::Ping(0x0102), &[1, 0, 0, 0, 0, 0, 0, 1, 2]),
            (Control::Pong(0x0102), &[2, 0, 0, 0, 0, 0, 0, 1, 2]),
            (Control::Announcement(b"ab"), &[3, 0, 2, b'a', b'b']),
            (Control::Goodbye, &[4]),
            (Control::AddressTaken { what: Taken::V4, holder: b"ab" }, &[5, 1, 0, 2, b'a', b'b']),
            (Control::AddressTaken { what: Taken::Name, holder: b"" }, &[5, 2, 0, 0]),
            (Control::Stranger(b"ab"), &[6, 0, 2, b'a', b'b']),
            (Control::Ports { next: NextPorts::Same, asks: true, searches: true }, &[7, 0, 0, 0, 0, 0, 3]),
            (Control::Ports { next: within, asks: true, searches: false }, &[7, 2, 5, 6, 7, 8, 1]),
            (Control::LookForMe { ports: counted, open: 0x0102 }, &[8, 1, 5, 6, 0xff, 0xfe, 1, 2]),
            (Control::Looked, &[9]),
            (Control::Tcp { primed: true, places: b"ab" }, &[13, 1, 0, 2, b'a', b'b']),
            (Control::Groups(b"ab"), &[14, 0, 2, b'a', b'b']),
            (Control::Nat(Traits::default()), &[10, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (Control::Nat(traits), &[10, 2, 2, 0, 0, 3, 5, 6, 7, 8]),
        ];
        let carried = hows.iter().zip(&carried).map(|(how, bytes)| (Control::Carried { peer, how: *how }, &bytes[..]));
        for (message, bytes) in vectors.into_iter().chain(carried) {
            assert_eq!(message.encode(), bytes);
            assert_eq!(Control::decode(bytes), Ok(message));
            assert_eq!(Control::decode(&[bytes, &[0xff]].concat()), Ok(message), "trailing bytes are ignored");
            assert!(Control::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        assert_eq!(Control::decode(&[15]), Err(Malformed::UnknownKind(15)));
        let long = u16::try_from(groups::MAX + 1).expect("short").to_be_bytes();
        let long = [&[14][..], &long, &[0; groups::MAX + 1]].concat();
        assert_eq!(Control::decode(&long), Err(Malformed::Bad("groups")));
        for (how, number) in [(4, 0), (6, 1)] {
            let message = [&[12][..], &[7; 32], &[how, 0, 0, number]].concat();
            assert_eq!(Control::decode(&message), Err(Malformed::Bad("how it is carried")));
        }
        for odd in [[2, 7, 8, 5, 6], [1, 3, 255, 0, 1], [2, 3, 255, 5, 6], [3, 5, 6, 7, 8]] {
            let message = [&[7][..], &odd, &[0]].concat();
            assert_eq!(Control::decode(&message), Err(Malformed::Bad("ports")), "{odd:?}");
        }
        assert_eq!(Control::decode(&[5, 3, 0, 0]), Err(Malformed::Bad("what is taken")));
    }
}
