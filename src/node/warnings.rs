//! What somebody must act on. A warning stands until its cause is gone; it is logged once when it appears.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::{Node, status};
use crate::sans::Instant;

/// Warnings of one kind that stand at once. Nobody reads more; and a member who causes many of one kind does not hide
/// those of another. One about this machine itself, without a subject, always has room.
const MAX_OF_A_KIND: usize = 16;

/// The standing warnings.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    standing: BTreeMap<(&'static str, String), Standing>,
    /// Those beyond [`MAX_OF_A_KIND`].
    refused: u64,
}

#[derive(Debug)]
struct Standing {
    text: String,
    since_ms: u64,
}

impl Warnings {
    /// Raises (or rewords) the warning `code` about `subject`.
    /// Whether it stands now.
    pub(super) fn raise(&mut self, wall_ms: u64, code: &'static str, subject: impl Into<String>, text: String) -> bool {
        let key = (code, subject.into());
        let of_its_kind = self.standing.keys().filter(|(other, _)| *other == code).count();
        if of_its_kind >= MAX_OF_A_KIND && !key.1.is_empty() && !self.standing.contains_key(&key) {
            self.refused += 1;
            return false;
        }
        let standing = self.standing.entry(key).or_insert_with(|| {
            tracing::warn!("{text}");
            Standing { text: String::new(), since_ms: wall_ms }
        });
        standing.text = text;
        true
    }

    /// Lowers it, if it stands.
    pub(super) fn clear(&mut self, code: &'static str, subject: &str) {
        if let Some(standing) = self.standing.remove(&(code, subject.to_owned())) {
            tracing::info!("no longer so: {}", standing.text);
        }
    }

    /// How often there was no room for one.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// All of them, for `status`.
    pub(super) fn to_vec(&self) -> Vec<status::Warning> {
        let warning = |((code, _), standing): (&(&'static str, String), &Standing)| status::Warning {
            code: (*code).to_owned(),
            text: standing.text.clone(),
            since: rfc3339(standing.since_ms),
        };
        self.standing.iter().map(warning).collect()
    }
}

/// Wall milliseconds as people write them; the year 9999 is as far as that goes.
fn rfc3339(wall_ms: u64) -> String {
    const END_OF_9999_MS: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(wall_ms.min(END_OF_9999_MS))).to_string()
}

impl Node {
    /// Something that the shell found wrong and that somebody must act on.
    pub fn warn(&mut self, now: Instant, code: &'static str, subject: String, text: String) {
        let wall_ms = self.wall_ms(now);
        self.warnings.raise(wall_ms, code, subject, text);
    }

    /// The same of something that may be wrong in several ways: another text is another warning.
    pub fn warn_of(&mut self, now: Instant, code: &'static str, text: String) {
        if self.warnings.standing.get(&(code, String::new())).is_some_and(|standing| standing.text != text) {
            self.warnings.clear(code, "");
        }
        self.warn(now, code, String::new(), text);
    }

    /// That is no longer so.
    pub fn clear_warning(&mut self, code: &'static str, subject: &str) {
        self.warnings.clear(code, subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_keeps_its_first_time_until_it_is_cleared() {
        let mut w = Warnings::default();
        w.raise(1_000, "address-taken", "10.77.0.1", "one".into());
        w.raise(9_000, "address-taken", "10.77.0.1", "two".into());
        assert_eq!(w.to_vec()[0].since, "1970-01-01T00:00:01Z");
        assert_eq!(w.to_vec()[0].text, "two");
        w.clear("address-taken", "10.77.0.1");
        assert!(w.to_vec().is_empty());
        w.raise(u64::MAX, "x", "", "far future does not panic".into());
        assert_eq!(w.to_vec().len(), 1);
    }

    #[test]
    fn only_so_many_stand_and_the_rest_is_counted() {
        let mut w = Warnings::default();
        let stand = (0..100).filter(|n| w.raise(0, "version", n.to_string(), "text".into())).count();
        assert_eq!(stand, MAX_OF_A_KIND);
        w.raise(0, "version", "0", "reworded".into());
        assert_eq!((w.to_vec().len(), w.refused()), (MAX_OF_A_KIND, 100 - MAX_OF_A_KIND as u64));
        assert!(w.raise(0, "state", "folder", "the disk is full".into()), "another kind has room of its own");
        assert!(w.raise(0, "version", "", "of ourselves".into()));
    }
}
