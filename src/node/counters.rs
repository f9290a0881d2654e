//! What was dropped, by reason: a fixed word each, under `counters.drop` in `status`.

use std::collections::BTreeMap;

/// Counts by word.
#[derive(Debug)]
pub(super) struct Drops(BTreeMap<&'static str, u64>);

/// Words that `status` shows even while they are zero.
const ALWAYS: [&str; 3] = ["malformed", "replayed", "source-not-owned"];

impl Default for Drops {
    fn default() -> Self {
        Self(ALWAYS.into_iter().map(|word| (word, 0)).collect())
    }
}

impl Drops {
    /// Counts one drop.
    pub(super) fn count(&mut self, word: &'static str) {
        tracing::trace!(reason = word, "dropped");
        *self.0.entry(word).or_default() += 1;
    }

    /// Drops so far for one reason.
    pub(super) fn of(&self, word: &str) -> u64 {
        self.0.get(word).copied().unwrap_or(0)
    }

    /// All of them, for `status`, with those that others have counted.
    pub(super) fn to_map(&self, others: &[(&'static str, u64)]) -> BTreeMap<String, u64> {
        let others = others.iter().copied().filter(|(_, n)| *n > 0);
        self.0.iter().map(|(word, n)| (*word, *n)).chain(others).map(|(word, n)| (word.to_owned(), n)).collect()
    }
}
