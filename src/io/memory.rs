//! Memory that the system gives only as far as it is filled, and gets back when that was a passing need.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Zeroed bytes.
pub struct Memory(MmapMut);

impl Memory {
    /// So many bytes, more than none.
    ///
    /// # Errors
    /// The system has no room for them.
    pub fn new(len: usize) -> io::Result<Self> {
        MmapMut::map_anon(len).map(Self)
    }

    /// Gives back what was filled: all is zero again. Nothing happens if the system has no room for that.
    pub fn renew(&mut self) {
        if let Ok(fresh) = Self::new(self.len()) {
            *self = fresh;
        }
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_is_gone_when_it_is_renewed() {
        let mut memory = Memory::new(100_000).expect("there is room");
        memory.fill(7);
        memory.renew();
        assert_eq!(*memory, [0; 100_000]);
    }
}
