//! Collects the items of one sealed frame.

use crate::wire::Writer;
use crate::wire::rendezvous::items::MAX_ITEMS;

#[derive(Debug, Default)]
pub(super) struct Frame(Writer);

impl Frame {
    /// Appends the item that `write` writes, if it still fits.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Writer)) -> bool {
        let mut one = Writer::default();
        write(&mut one);
        self.push_bytes(one.as_slice())
    }

    /// Appends an item that was written already, if it still fits.
    pub(super) fn push_bytes(&mut self, item: &[u8]) -> bool {
        let fits = self.0.as_slice().len() + item.len() <= MAX_ITEMS;
        if fits {
            self.0.bytes(item);
        }
        fits
    }

    /// The items, if there are any; the frame is empty again.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        Some(self.0.finish()).filter(|items| !items.is_empty())
    }
}
