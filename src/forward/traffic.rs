//! What the packet path tells the node: how much went and came, and when. The node looks every now and then while there
//! is traffic; the first packet after quiet rings a [`Bell`], so that nobody need look when there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crate::sans::Instant;

/// Rung when there is traffic that nobody looks at.
#[derive(Debug, Default)]
pub struct Bell(AtomicBool);

impl Bell {
    /// Whether it was rung and nobody has come.
    pub fn is_rung(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Somebody comes, if it was rung: then looks at all whose traffic is not quiet.
    pub fn answer(&self) -> bool {
        self.is_rung() && self.0.swap(false, Ordering::SeqCst)
    }

    pub(super) fn ring(&self) {
        // Not a store: whoever answers is to see all that any of those who rang has done before.
        self.0.swap(true, Ordering::SeqCst);
    }
}

/// One peer's packets, whoever seals and opens them.
#[derive(Debug)]
pub struct Traffic {
    sent: Direction,
    received: Direction,
    /// Nobody looks.
    quiet: AtomicBool,
    bell: Arc<Bell>,
}

/// Packets one way; in cache lines of its own, for it is another thread that counts the other way's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Direction {
    /// Inner bytes.
    bytes: AtomicU64,
    /// When the last one passed, nanoseconds of [`Instant`]; 0: none yet.
    last: AtomicU64,
}

impl Direction {
    fn count(&self, now: Instant, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.last.store(now.as_nanos(), Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        Instant::from_nanos(self.last.load(Ordering::Relaxed))
    }
}

impl Traffic {
    /// None yet.
    pub fn new(bell: Arc<Bell>) -> Self {
        Self { sent: Direction::default(), received: Direction::default(), quiet: AtomicBool::new(true), bell }
    }

    /// Inner bytes sent.
    pub fn tx_bytes(&self) -> u64 {
        self.sent.bytes.load(Ordering::Relaxed)
    }

    /// Inner bytes received.
    pub fn rx_bytes(&self) -> u64 {
        self.received.bytes.load(Ordering::Relaxed)
    }

    /// Counts inner bytes that came in past the table.
    pub fn add_received(&self, bytes: u64) {
        self.received.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// When a packet was last sent; [`Instant::ZERO`] if never.
    pub fn sent_at(&self) -> Instant {
        self.sent.last()
    }

    /// When a packet last came by the way that the table names; [`Instant::ZERO`] if never.
    pub fn received_at(&self) -> Instant {
        self.received.last()
    }

    /// Whether nobody looks, nor was asked to.
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// Nobody looks from now on, until the bell rings. Look once more after this: what came meanwhile did not ring.
    pub fn rest(&self) {
        self.quiet.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Somebody looks.
    pub fn watch(&self) {
        self.quiet.store(false, Ordering::Relaxed);
    }

    /// Packets of so many inner bytes went.
    pub fn on_sent(&self, now: Instant, bytes: usize) {
        self.sent.count(now, bytes as u64);
        self.wake();
    }

    /// Packets of so many inner bytes came.
    pub fn on_received(&self, now: Instant, bytes: u64) {
        self.received.count(now, bytes);
        self.wake();
    }

    fn wake(&self) {
        // Either this sees that nobody looks, or whoever begins to rest sees the packet.
        fence(Ordering::SeqCst);
        if self.is_quiet() && self.quiet.swap(false, Ordering::Relaxed) {
            self.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_packet_after_quiet_rings_and_no_other_does() {
        let bell = Arc::new(Bell::default());
        let traffic = Traffic::new(bell.clone());
        let at = Instant::from_nanos;
        traffic.on_sent(at(5), 100);
        assert!(bell.is_rung() && bell.answer() && !bell.answer());
        traffic.on_sent(at(6), 100);
        traffic.on_received(at(7), 30);
        assert!(!bell.is_rung() && !traffic.is_quiet());
        assert_eq!((traffic.sent_at(), traffic.received_at()), (at(6), at(7)));
        assert_eq!((traffic.tx_bytes(), traffic.rx_bytes()), (200, 30));
        traffic.rest();
        traffic.on_received(at(9), 1);
        assert!(bell.answer());
    }
}
