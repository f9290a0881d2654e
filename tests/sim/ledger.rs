//! Every inner packet that a test sends, who must get it, and who did.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use punchlan::sans::Instant;

use super::world::HostId;

/// Marks an inner packet as ours; its number follows.
const MARK: u64 = 0x7075_6e63_686c_616e;

/// One ledger for all hosts.
pub type Shared = Rc<RefCell<Ledger>>;

/// All inner packets so far, by number.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
}

/// One inner packet.
#[derive(Debug)]
pub struct Entry {
    pub sent: Instant,
    pub from: HostId,
    pub to: HostId,
    /// When it came out of the tunnel. Never empty for long, never more than one.
    pub arrived: Vec<Instant>,
    /// When its answer did.
    pub answered: Option<Instant>,
}

impl Ledger {
    /// Enters a packet and returns its payload.
    pub fn send(&mut self, now: Instant, from: HostId, to: HostId, size: usize) -> Vec<u8> {
        let number = self.entries.len() as u64;
        self.entries.push(Entry { sent: now, from, to, arrived: Vec::new(), answered: None });
        let mut payload = [MARK.to_be_bytes(), number.to_be_bytes()].concat();
        payload.resize(size.max(payload.len()), 0x5a);
        payload
    }

    /// A packet with this payload came out of `host`'s tunnel.
    pub fn arrived(&mut self, now: Instant, host: HostId, payload: &[u8]) {
        let entry = self.entry(payload);
        assert_eq!(entry.to, host, "an inner packet of {:?} reached the wrong peer", entry.from);
        entry.arrived.push(now);
        assert_eq!(entry.arrived.len(), 1, "an inner packet was delivered twice");
    }

    /// Its answer came out of `host`'s tunnel.
    pub fn answered(&mut self, now: Instant, host: HostId, payload: &[u8]) {
        let entry = self.entry(payload);
        assert_eq!(entry.from, host, "an answer reached the wrong peer");
        entry.answered.get_or_insert(now);
    }

    fn entry(&mut self, payload: &[u8]) -> &mut Entry {
        let (mark, number) = payload.split_at_checked(8).expect("a payload of ours");
        assert_eq!(mark, MARK.to_be_bytes(), "a payload of ours");
        let number = u64::from_be_bytes(number[..8].try_into().expect("eight bytes"));
        &mut self.entries[usize::try_from(number).expect("small")]
    }

    /// How many packets were sent; a mark for [`Self::since`].
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The packets from the `mark`-th on, of one direction.
    pub fn since(&self, mark: usize, from: HostId, to: HostId) -> impl Iterator<Item = &Entry> {
        self.entries[mark..].iter().filter(move |e| e.from == from && e.to == to)
    }

    /// The longest time without an arrival between `from` and `to` of what was sent from the mark on, until `end`.
    pub fn longest_gap(&self, mark: usize, from: HostId, to: HostId, start: Instant, end: Instant) -> Duration {
        let mut times: Vec<Instant> = self.since(mark, from, to).flat_map(|e| e.arrived.iter().copied()).collect();
        times.retain(|t| *t >= start);
        times.extend([start, end]);
        times.sort_unstable();
        times.windows(2).map(|w| w[1] - w[0]).max().unwrap_or_default()
    }
}
