//! Numbers are used only once they are reserved on disk: asking for that, asking again, and what waits for the answer.

use std::time::Duration;

use super::Node;
use crate::sans::{Action, Instant};

/// A reservation of numbers that was not answered is repeated after this, doubling to [`RESERVE_SELDOM`].
const RESERVE_AGAIN: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const RESERVE_SELDOM: Duration = Duration::from_secs(30);

impl Node {
    /// Asks for what the numbers want.
    pub(super) fn drain_numbers(&mut self, now: Instant) {
        if let Some(action) = self.shared.numbers.poll_action() {
            if let Action::Reserve { ceiling } = action {
                self.reserving = Some((ceiling, now + RESERVE_AGAIN, RESERVE_AGAIN));
            }
            self.actions.push_back(action);
        }
    }

    /// All numbers below `ceiling` are ours.
    pub(super) fn reserved(&mut self, now: Instant, ceiling: u64) {
        self.reserving = self.reserving.filter(|(asked, ..)| *asked > ceiling);
        self.warnings.clear("state", "");
        self.shared.numbers.handle_reserved(ceiling);
        if std::mem::take(&mut self.starting) {
            self.search_known(now);
        }
        if self.announce_due.is_some() {
            self.announce(now);
        }
    }

    /// A reservation that nobody answered (a full disk, say) is asked for again, with growing pauses.
    pub(super) fn reserve_again(&mut self, now: Instant) {
        if let Some((ceiling, due, pause)) = self.reserving.filter(|(_, due, _)| now >= *due) {
            let pause = (pause * 2).min(RESERVE_SELDOM);
            self.reserving = Some((ceiling, due.max(now) + pause, pause));
            self.actions.push_back(Action::Reserve { ceiling });
        }
    }
}
