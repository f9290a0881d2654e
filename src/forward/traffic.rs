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

    fn ring(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One peer's packets, whoever seals and opens them.
#[derive(Debug)]
pub struct Traffic {
    /// Inner bytes.
    tx_bytes: AtomicU64,
    rx_bytes: AtomicU64,
    /// When the last one went and came, nanoseconds of [`Instant`]; 0: none yet.
    sent: AtomicU64,
    received: AtomicU64,
    /// Nobody looks.
    quiet: AtomicBool,
    bell: Arc<Bell>,
}

impl Traffic {
    /// None yet.
    pub const fn new(bell: Arc<Bell>) -> Self {
        Self {
            tx_bytes: AtomicU64::new(0),
            rx_bytes: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            quiet: AtomicBool::new(true),
            bell,
        }
    }

    /// Inner bytes sent.
    pub fn tx_bytes(&self) -> u64 {
        self.tx_bytes.load(Ordering::Relaxed)
    }

    /// Inner bytes received.
    pub fn rx_bytes(&self) -> u64 {
        self.rx_bytes.load(Ordering::Relaxed)
    }

    /// Counts inner bytes that came in past the table.
    pub fn add_received(&self, bytes: u64) {
        self.rx_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// When a packet was last sent; [`Instant::ZERO`] if never.
    pub fn sent_at(&self) -> Instant {
        Instant::from_nanos(self.sent.load(Ordering::Relaxed))
    }

    /// When a packet last came by the way that the table names; [`Instant::ZERO`] if never.
    pub fn received_at(&self) -> Instant {
        Instant::from_nanos(self.received.load(Ordering::Relaxed))
    }

    /// Whether somebody looks, or was asked to.
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
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.sent.store(now.as_nanos(), Ordering::Relaxed);
        self.wake();
    }

    /// Packets of so many inner bytes came.
    pub fn on_received(&self, now: Instant, bytes: u64) {
        self.rx_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.received.store(now.as_nanos(), Ordering::Relaxed);
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
