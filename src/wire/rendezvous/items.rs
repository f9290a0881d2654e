//! What is inside a sealed frame: items, as many as fit.
//!
//! ```text
//! +------+--------+----------+------+--------+----
//! | kind | length |  body    | kind | length | …
//! |  u8  |  u16   |          |      |        |
//! +------+--------+----------+------+--------+----
//! ```
//!
//! An item that must arrive carries an id and is repeated until the other side has acknowledged that id. Ids grow;
//! of two items about the same thing the higher id is the newer. Items of unknown kind are skipped.

mod news;
mod to_peer;
mod to_server;

pub use self::news::{Listing, PeerNews};
pub use self::to_peer::{Summary, ToPeer};
pub use self::to_server::ToServer;

use super::{FRAME_HEADER, FRAME_TAG, MAX_DATAGRAM, Reason};
use crate::wire::{Reader, Writer};

/// Room for items in one frame.
pub const MAX_ITEMS: usize = MAX_DATAGRAM - FRAME_HEADER - FRAME_TAG;
/// The longest sealed announcement.
pub const MAX_ANNOUNCEMENT: usize = 1024;

/// The ids of an Ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids<'a>(&'a [u8]);

impl<'a> Ids<'a> {
    /// Big-endian ids, four bytes each.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Each id.
    pub fn iter(self) -> impl Iterator<Item = u32> + 'a {
        self.0.as_chunks().0.iter().map(|id| u32::from_be_bytes(*id))
    }
}

/// The parts behind their kind and length.
fn item(w: &mut Writer, kind: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    w.u8(kind).u16(u16::try_from(len).unwrap_or(u16::MAX));
    for part in parts {
        w.bytes(part);
    }
}

/// Kind and body of each item.
struct Bodies<'a>(Reader<'a>);

impl<'a> Iterator for Bodies<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let kind = self.0.u8().ok()?;
        let len = self.0.u16().ok()?;
        Some((kind, self.0.bytes(len.into()).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;
    use proptest::prelude::*;

    #[test]
    fn items_of_unknown_kind_are_skipped() {
        let mut w = Writer::default();
        item(&mut w, 200, &[&[1, 2, 3]]);
        ToServer::List.write(&mut w);
        assert_eq!(ToServer::all(w.as_slice()).collect::<Vec<_>>(), [ToServer::List]);
    }

    #[test]
    fn the_longest_item_fits_a_frame() {
        let mut w = Writer::default();
        let listing = Some(Listing::Member { observed: None, sealed: &[0; MAX_ANNOUNCEMENT] });
        ToPeer::Peer(PeerNews { id: 1, peer: PeerId([0; 32]), listing, start: true, channel: Some(1) }).write(&mut w);
        assert!(w.as_slice().len() <= MAX_ITEMS);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), first in 0u8..9) {
            let _ = (ToServer::all(&bytes).count(), ToPeer::all(&bytes).count());
            let mut framed = vec![first, 0, u8::try_from(bytes.len().min(255)).expect("capped")];
            framed.extend(bytes);
            let _ = (ToServer::all(&framed).count(), ToPeer::all(&framed).count());
        }
    }
}
