//! L2: a fair queue. What waits here waits for its turn, not for whoever sends most: hosts take turns, the flows to one
//! host take turns among themselves, and a flow that has had less than its turn goes first. A game's packet does not
//! wait behind a download.
//!
//! It is `fq_codel` (RFC 8290), with two differences: a flow's turn is shared out among all flows to its host, so that a
//! host with many flows gets no more than one with a single flow; and a flow that asks for low delay has four turns in
//! one. A queue that stands is told to its flow ([`codel`]): by a mark where the flow understands marks (RFC 3168), else
//! by the loss of the packet at its head. Where all is full, the head of the longest queue goes.
//!
//! The packets stand elsewhere, in numbered slots; the queue knows their lengths. Nothing here allocates after
//! [`Fair::new`].

mod codel;
mod flow;

#[cfg(test)]
mod tests;

pub use flow::Flow;

use self::codel::Codel;
use crate::sans::Instant;

/// Flows that are told apart; more share a queue (RFC 8290 §4.1.2 has as many).
const FLOWS: usize = 1024;
/// Hosts that are told apart.
const HOSTS: usize = 256;
/// Bytes of a host's turn: about as many as go out in 10 µs, so that whoever waits a turn waits for no longer.
const TURN: usize = 16 << 10;
/// A flow's share of it is no smaller.
const LEAST: usize = 256;
/// Turns in one for a flow that asks for low delay.
const URGENT: usize = 4;

/// Where a packet stands.
pub type Slot = u16;

/// No slot, or no flow.
const NONE: u16 = u16::MAX;

/// What becomes of a packet whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes.
    Sent,
    /// It goes, and tells on the way that its queue is too long.
    Marked,
    /// It does not go, and tells so that its queue is too long.
    Dropped,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Fair {
    queues: Box<[Queue]>,
    /// How many flows to a host wait.
    waiting: Box<[u16]>,
    entries: Box<[Entry]>,
    /// Flows that begin to wait: first in turn.
    new: List,
    /// Flows that had their turn and wait still.
    old: List,
    len: usize,
}

/// A packet that waits.
#[derive(Clone, Copy, Debug)]
struct Entry {
    next: Slot,
    since: Instant,
    bytes: usize,
    /// Its flow understands marks.
    markable: bool,
}

/// The packets of one flow.
#[derive(Clone, Copy, Debug)]
struct Queue {
    /// The next in its list, where it waits.
    next: u16,
    first: Slot,
    last: Slot,
    bytes: usize,
    /// What it may still send in this turn.
    deficit: isize,
    host: u16,
    urgent: bool,
    listed: bool,
    codel: Codel,
}

/// Flows in line.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u16,
    last: u16,
}

impl Fair {
    /// An empty queue for the slots below `slots`.
    pub fn new(slots: Slot) -> Self {
        let queue = Queue {
            next: NONE,
            first: NONE,
            last: NONE,
            bytes: 0,
            deficit: 0,
            host: 0,
            urgent: false,
            listed: false,
            codel: Codel::default(),
        };
        let entry = Entry { next: NONE, since: Instant::ZERO, bytes: 0, markable: false };
        Self {
            queues: vec![queue; FLOWS].into_boxed_slice(),
            waiting: vec![0; HOSTS].into_boxed_slice(),
            entries: vec![entry; usize::from(slots)].into_boxed_slice(),
            new: List::EMPTY,
            old: List::EMPTY,
            len: 0,
        }
    }

    /// How many packets wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The packet in `slot`, which was free, waits from now on. `markable`: its flow understands marks.
    pub fn push(&mut self, now: Instant, slot: Slot, flow: Flow, bytes: usize, markable: bool) {
        let number = bucket(flow.hash, FLOWS);
        self.entries[usize::from(slot)] = Entry { next: NONE, since: now, bytes, markable };
        let queue = &mut self.queues[usize::from(number)];
        if queue.first == NONE {
            queue.first = slot;
        } else {
            self.entries[usize::from(queue.last)].next = slot;
        }
        queue.last = slot;
        queue.bytes += bytes;
        self.len += 1;
        if !queue.listed {
            (queue.listed, queue.host, queue.urgent) = (true, bucket(flow.host, HOSTS), flow.urgent);
            self.waiting[usize::from(queue.host)] += 1;
            self.queues[usize::from(number)].deficit = self.turn(number);
            self.new.push(&mut self.queues, number);
        }
    }

    /// The packet whose turn it is.
    pub fn pop(&mut self, now: Instant) -> Option<(Slot, Fate)> {
        loop {
            let (number, is_new) = match (self.new.first, self.old.first) {
                (NONE, NONE) => return None,
                (NONE, old) => (old, false),
                (new, _) => (new, true),
            };
            let queue = &self.queues[usize::from(number)];
            if queue.deficit > 0 && queue.first != NONE {
                return Some(self.take(now, number));
            }
            let (empty, list) = (queue.first == NONE, if is_new { &mut self.new } else { &mut self.old });
            list.pop(&mut self.queues);
            if empty && !(is_new && self.old.first != NONE) {
                let queue = &mut self.queues[usize::from(number)];
                queue.listed = false;
                self.waiting[usize::from(queue.host)] -= 1;
                continue;
            }
            // One that is empty already waits for a turn of the others too, or who sends single packets quickly would
            // always be first.
            if !empty {
                self.queues[usize::from(number)].deficit += self.turn(number);
            }
            self.old.push(&mut self.queues, number);
        }
    }

    /// There is no room: of the packets at the heads that stand in slots `of` these, that of the longest queue goes.
    pub fn evict(&mut self, of: impl Fn(Slot) -> bool) -> Option<Slot> {
        let mut longest: Option<&Queue> = None;
        let mut found = NONE;
        for mut number in [self.new.first, self.old.first] {
            while number != NONE {
                let queue = &self.queues[usize::from(number)];
                let head = queue.first != NONE && of(queue.first);
                if head && longest.is_none_or(|longest| queue.bytes > longest.bytes) {
                    (longest, found) = (Some(queue), number);
                }
                number = queue.next;
            }
        }
        (found != NONE).then(|| self.unlink(found))
    }

    fn take(&mut self, now: Instant, number: u16) -> (Slot, Fate) {
        let slot = self.unlink(number);
        let entry = self.entries[usize::from(slot)];
        let queue = &mut self.queues[usize::from(number)];
        let tells = queue.codel.tells(now, now - entry.since, queue.bytes);
        let fate = match (tells, entry.markable) {
            (false, _) => Fate::Sent,
            (true, true) => Fate::Marked,
            (true, false) => Fate::Dropped,
        };
        if fate != Fate::Dropped {
            queue.deficit -= isize::try_from(entry.bytes).expect("a packet is small");
        }
        (slot, fate)
    }

    fn unlink(&mut self, number: u16) -> Slot {
        let queue = &mut self.queues[usize::from(number)];
        let slot = queue.first;
        let entry = &self.entries[usize::from(slot)];
        (queue.first, queue.bytes) = (entry.next, queue.bytes - entry.bytes);
        self.len -= 1;
        slot
    }

    /// What a flow may send in one turn.
    fn turn(&self, number: u16) -> isize {
        let queue = &self.queues[usize::from(number)];
        let share = TURN / usize::from(self.waiting[usize::from(queue.host)].max(1));
        let turns = if queue.urgent { URGENT } else { 1 };
        isize::try_from(share.max(LEAST) * turns).expect("a few KB")
    }
}

impl List {
    const EMPTY: Self = Self { first: NONE, last: NONE };

    fn push(&mut self, queues: &mut [Queue], number: u16) {
        queues[usize::from(number)].next = NONE;
        if self.first == NONE {
            self.first = number;
        } else {
            queues[usize::from(self.last)].next = number;
        }
        self.last = number;
    }

    fn pop(&mut self, queues: &mut [Queue]) {
        self.first = queues[usize::from(self.first)].next;
    }
}

/// Which of `count` places a hash belongs to.
fn bucket(hash: u64, count: usize) -> u16 {
    u16::try_from(hash % count as u64).expect("there are fewer places")
}
