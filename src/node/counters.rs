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
        self.add(word, 1);
    }

    /// Takes over what somebody who goes has counted.
    pub(super) fn add(&mut self, word: &'static str, n: u64) {
        if n > 0 {
            *self.0.entry(word).or_default() += n;
        }
    }

    /// All of them, for `status`, with those that others have counted.
    pub(super) fn to_map(&self, others: &[(&'static str, u64)]) -> BTreeMap<String, u64> {
        let mut all = Self(self.0.clone());
        others.iter().for_each(|(word, n)| all.add(word, *n));
        all.0.into_iter().map(|(word, n)| (word.to_owned(), n)).collect()
    }
}
