//! Whose a packet is: which flow's, which host's.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::offload::{Layout, tos};

/// The flow of a packet and the host it goes to, as far as a queue tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Of addresses, protocol and ports.
    pub(super) hash: u64,
    /// Of the destination's address.
    pub(super) host: u64,
    /// It asks for low delay.
    pub(super) urgent: bool,
}

/// DSCPs from here on are for what cannot wait: CS4 (real-time), AF4x, CS5, VA, EF, CS6 and CS7 (RFC 4594 §2).
const REAL_TIME: u8 = 32;

impl Flow {
    /// Reads a packet. Whatever is neither IPv4 nor IPv6 is one flow.
    pub fn of(packet: &[u8]) -> Self {
        let (source, destination, protocol) = match packet.first().map(|first| first >> 4) {
            Some(4) => (packet.get(12..16), packet.get(16..20), packet.get(9)),
            Some(6) => (packet.get(8..24), packet.get(24..40), packet.get(6)),
            _ => (None, None, None),
        };
        let mut hasher = DefaultHasher::new();
        destination.hash(&mut hasher);
        let host = hasher.finish();
        let ports = Layout::of(packet).and_then(|layout| packet.get(layout.transport_at..layout.transport_at + 4));
        (source, protocol, ports).hash(&mut hasher);
        Self { hash: hasher.finish(), host, urgent: tos(packet) >> 2 >= REAL_TIME }
    }
}
