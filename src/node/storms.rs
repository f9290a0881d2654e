//! Who sends more packets for many than are let through, a peer or a program here, is named while it lasts: what is dropped
//! is for somebody to see to ([`crate::forward::Gate`] counts).

use std::collections::BTreeSet;
use std::time::Duration;

use super::Node;
use crate::forward::SHARED_RATE;
use crate::id::PeerId;
use crate::sans::{Instant, Wakeup};

/// Warned of as.
const STORM: &str = "storm";
/// A storm that is warned of is looked at so often.
const EVERY: Duration = Duration::from_secs(1);

/// Who is warned of, and when to look again; `None`: this machine.
#[derive(Debug, Default)]
pub(super) struct Storms {
    standing: BTreeSet<Option<PeerId>>,
    due: Option<Instant>,
}

impl Storms {
    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        self.due.map(|at| Wakeup::new(at, "storm"))
    }
}

impl Node {
    /// Whether a peer, or a program here, sends too much; who is warned of is looked at again in time.
    pub(super) fn look_for_storm(&mut self, now: Instant, who: Option<PeerId>) {
        if !self.storms.standing.contains(&who) {
            self.judge(now, who);
        }
    }

    /// Looks again at those who are warned of.
    pub(super) fn storms_timeout(&mut self, now: Instant) {
        if self.storms.due.is_some_and(|due| due <= now) {
            self.storms.due = None;
            let standing: Vec<Option<PeerId>> = self.storms.standing.iter().copied().collect();
            standing.into_iter().for_each(|who| self.judge(now, who));
        }
    }

    fn judge(&mut self, now: Instant, who: Option<PeerId>) {
        let subject = who.map_or_else(String::new, |id| id.to_string());
        match self.storm_of(now, who.as_ref()) {
            Some(text) => {
                let wall_ms = self.wall_ms(now);
                self.warnings.raise(wall_ms, STORM, subject, text);
                self.storms.standing.insert(who);
                self.storms.due.get_or_insert(now + EVERY);
            }
            None => {
                if self.storms.standing.remove(&who) {
                    self.warnings.clear(STORM, &subject);
                }
            }
        }
    }

    fn storm_of(&self, now: Instant, who: Option<&PeerId>) -> Option<String> {
        let Some(id) = who else {
            let sent = self.table.sharing().gate.storm(now)?;
            return Some(format!(
                "a program on this machine sends {sent} broadcast and multicast packets a second, and {SHARED_RATE} go to \
                 the others; the rest is dropped. `ss -uap` shows which programs send: end the one that does"
            ));
        };
        let peer = self.peers.get(id)?;
        let (name, sent) = (&peer.name, peer.gate.storm(now)?);
        Some(format!(
            "{name} sends {sent} broadcast and multicast packets a second, and {SHARED_RATE} of one member are taken; the \
             rest is dropped here. Have the program there ended that does (`punchlan status` warns of it there too), or \
             refuse the device: deny = [\"{id}\"] under [network]"
        ))
    }
}
