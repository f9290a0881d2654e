//! Members of another protocol version: there is no way to talk to them, so somebody must install something.

use std::time::Duration;

use super::Node;
use crate::id::PeerId;
use crate::sans::Instant;
use crate::wire::VERSION;

/// Whoever speaks another version tries again sooner than this, or is listed.
const VERSION_HOLDS: Duration = Duration::from_secs(300);

impl Node {
    /// A member, or one who has not said which, speaks another version.
    pub(super) fn warn_of_version(&mut self, now: Instant, id: Option<&PeerId>, theirs: u8) {
        let name = id.map_or_else(|| "a member".to_owned(), |id| self.shown_name(id));
        let subject = id.map(ToString::to_string).unwrap_or_default();
        let text = format!(
            "{name} speaks protocol version {theirs}, this machine {VERSION}: install the same punchlan version on both"
        );
        let wall_ms = self.wall_ms(now);
        if self.warnings.raise(wall_ms, "version", subject, text) {
            self.other_versions.insert(id.copied(), now);
        }
    }

    /// Whoever speaks another version does not say when it speaks ours: it is heard no longer, and listed nowhere.
    pub(super) fn end_warnings_of_version(&mut self, now: Instant) {
        let is_listed = |id: &PeerId| self.servers.iter().any(|server| server.client.lists(id));
        let over = |(id, heard): &(&Option<PeerId>, &Instant)| {
            now - **heard >= VERSION_HOLDS && !id.as_ref().is_some_and(is_listed)
        };
        let over: Vec<Option<PeerId>> = self.other_versions.iter().filter(over).map(|(id, _)| *id).collect();
        for id in over {
            self.other_versions.remove(&id);
            self.warnings.clear("version", &id.map(|id| id.to_string()).unwrap_or_default());
        }
    }
}
