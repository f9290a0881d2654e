//! What was dropped on the packet path, by reason: a word of `counters.drop` each.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Counts by word, shared by all who drop. What is dropped is rare, or worth nothing: a lock is cheap enough.
#[derive(Debug, Default)]
pub struct Drops(Mutex<BTreeMap<&'static str, u64>>);

impl Drops {
    /// Counts one.
    pub fn count(&self, word: &'static str) {
        tracing::trace!(reason = word, "dropped");
        self.add(word, 1);
    }

    /// Counts several.
    pub fn add(&self, word: &'static str, n: u64) {
        if n > 0 {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(word).or_default() += n;
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(word, n)| (*word, *n)).collect()
    }
}
