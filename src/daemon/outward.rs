//! Packets go out, turn by turn: those that wait in the TUN are read, and those leave whose turn it is.
//!
//! A turn has a few steps, and each of them these:
//!
//! 1. Packets are read, a little more than are sent: so the TUN's own queue, where who came first goes first, drains
//!    into ours, where small packets need not wait behind large ones ([`Waiting`]), and no more is read than can be sent
//!    soon.
//! 2. Packets are sealed where they stand, several in a row; then those that can go together leave together ([`Runs`]).
//! 3. A super-packet is cut and sealed into a train of its own, after what came before it.
//! 4. The datagram has the packet's own TOS or traffic class: what is urgent inside is so outside, and where the packet
//!    may be marked the datagram may (RFC 6040 §4.1, RFC 2983 §3.1).
//!
//! What is left waits for the next turn, which comes at once, but where there is one thread for all after the sockets have
//! had theirs. Nothing waits for anything else.

use std::io::{self, IoSlice};
use std::ops::Range;

use super::packets::Runs;
use super::sockets::Open;
use super::waiting::{Lost, Waiting};
use crate::fair::Slot;
use crate::id::SocketId;
use crate::io::clock;
use crate::io::tun::Tun;
use crate::io::udp::Way;
use crate::node::{HEADROOM, Node, Outbound, TAILROOM, Train};
use crate::offload::{Cut, Vnet, tos};
use crate::sans::Instant;

/// Packets that one step sends at most…
const PACKETS: usize = 64;
/// …and bytes, but for the last of them: a super-packet is still in the cache when it is sealed.
const BYTES: usize = 64 << 10;
/// Steps in a turn, about: more would have those wait for long that the sockets have something for, and fewer would have
/// TCP's acknowledgements come in so few at a time that they cost more than all else.
const STEPS: usize = 4;
/// Bytes of the largest train.
const TRAIN: usize = 1 << 16;

/// Who seals what goes out: the node, or a thread by the node's table.
pub(super) trait Seal {
    /// A packet with room around it, in place.
    fn seal(&mut self, now: Instant, buf: &mut [u8]) -> Outbound;
    /// Segments of a super-packet from `next` on, which moves on.
    fn seal_train(&mut self, now: Instant, cut: &Cut<'_>, next: &mut usize, arena: &mut [u8]) -> Option<Train>;
    /// Packets were dropped before it came to that.
    fn count_drops(&mut self, reason: &'static str, count: u64);
}

impl Seal for Node {
    fn seal(&mut self, now: Instant, buf: &mut [u8]) -> Outbound {
        self.handle_packet(now, buf)
    }

    fn seal_train(&mut self, now: Instant, cut: &Cut<'_>, next: &mut usize, arena: &mut [u8]) -> Option<Train> {
        self.handle_super(now, cut, next, arena)
    }

    fn count_drops(&mut self, reason: &'static str, count: u64) {
        Self::count_drops(self, reason, count);
    }
}

/// The way out, and what waits on it.
#[derive(Debug)]
pub(super) struct Outward {
    waiting: Waiting,
    /// Packets that are sealed and not sent yet.
    sealed: Vec<Sealed>,
    /// The sealed segments of a super-packet.
    train: Box<[u8]>,
    /// Datagrams of this turn whose socket is open no more.
    no_socket: u64,
}

/// Packets.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    packets: usize,
    bytes: usize,
}

impl Amount {
    const fn add(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += len;
    }
}

/// A datagram in the slot of its packet.
#[derive(Debug)]
struct Sealed {
    slot: Slot,
    range: Range<usize>,
    socket: SocketId,
    way: Way,
}

impl Outward {
    pub(super) fn new() -> io::Result<Self> {
        let train = vec![0; TRAIN].into_boxed_slice();
        Ok(Self { waiting: Waiting::new()?, sealed: Vec::with_capacity(PACKETS), train, no_socket: 0 })
    }

    /// Where the next packet is to be read to, from [`HEADROOM`] on, and its rest.
    pub(super) fn room(&mut self) -> (&mut [u8], &mut [u8]) {
        self.waiting.room()
    }

    /// Whether packets wait for the next turn.
    pub(super) const fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A turn. `first`: a packet has been read already.
    pub(super) fn send(&mut self, sealer: &mut impl Seal, tun: &Tun, open: &Open, first: Option<(Vnet, usize)>) {
        // A device that is gone says so again to the one who waits for it.
        self.turn(clock::now, sealer, open, first, |(room, rest)| tun.try_recv(room, HEADROOM, rest).ok().flatten());
    }

    fn turn(
        &mut self,
        clock: impl Fn() -> Instant,
        sealer: &mut impl Seal,
        open: &Open,
        mut first: Option<(Vnet, usize)>,
        mut read: impl FnMut((&mut [u8], &mut [u8])) -> Option<(Vnet, usize)>,
    ) {
        let (mut taken, mut sent) = (Amount::default(), Amount::default());
        while sent.packets < STEPS * PACKETS && sent.bytes < STEPS * BYTES {
            let now = clock();
            let more = self.read(now, &mut taken, sent, |room| first.take().or_else(|| read(room)));
            let went = self.leave(now, &mut sent, sealer, open);
            if !went || !more && self.waiting.is_empty() {
                break;
            }
        }
        self.waiting.rest(clock());
        let Lost { full, long } = self.waiting.take_lost();
        sealer.count_drops("queue-full", full);
        sealer.count_drops("queue-long", long);
        sealer.count_drops("no-socket", std::mem::take(&mut self.no_socket));
    }

    /// Reads what can be sent now, and a quarter of what was sent; whether there may be more.
    fn read(
        &mut self,
        now: Instant,
        taken: &mut Amount,
        sent: Amount,
        mut read: impl FnMut((&mut [u8], &mut [u8])) -> Option<(Vnet, usize)>,
    ) -> bool {
        let most = |sent: usize, step: usize| sent + sent / 4 + step;
        while taken.packets < most(sent.packets, PACKETS) && taken.bytes < most(sent.bytes, BYTES) {
            let Some((vnet, len)) = read(self.waiting.room()) else { return false };
            taken.add(len);
            if self.waiting.push(now, vnet, len) {
                // More would be read only to be dropped: who sends without end must not keep us from sending.
                return true;
            }
        }
        true
    }

    /// A step; whether there was anything to send.
    fn leave(&mut self, now: Instant, sent: &mut Amount, sealer: &mut impl Seal, open: &Open) -> bool {
        let mut step = Amount::default();
        while step.packets < PACKETS && step.bytes < BYTES {
            let Some(slot) = self.waiting.pop(now) else { break };
            let (vnet, len) = self.waiting.said(slot);
            step.add(len);
            sent.add(len);
            if vnet.gso_type == 0 {
                self.seal(now, sealer, slot, &vnet, len);
            } else {
                // What came before it goes before it.
                self.flush(open);
                let packet = self.waiting.bytes(slot, HEADROOM..HEADROOM + len);
                self.no_socket += send_super(now, sealer, open, &vnet, packet, &mut self.train);
                self.waiting.free(slot);
            }
        }
        self.flush(open);
        step.packets > 0
    }

    fn seal(&mut self, now: Instant, sealer: &mut impl Seal, slot: Slot, vnet: &Vnet, len: usize) {
        let framed = &mut self.waiting.slot(slot)[..HEADROOM + len + TAILROOM];
        vnet.finish(&mut framed[HEADROOM..HEADROOM + len]);
        let tos = tos(&framed[HEADROOM..]);
        match sealer.seal(now, framed) {
            Outbound::Send { socket, to, range } => {
                self.sealed.push(Sealed { slot, range, socket, way: Way { to, src: None, tos } });
            }
            Outbound::Taken | Outbound::Dropped => self.waiting.free(slot),
        }
    }

    fn flush(&mut self, open: &Open) {
        if self.sealed.is_empty() {
            return;
        }
        let mut runs = Runs::new(open);
        for Sealed { slot, range, socket, way } in &self.sealed {
            let known = runs.push(*socket, *way, self.waiting.bytes(*slot, range.clone()));
            self.no_socket += u64::from(!known);
        }
        runs.flush();
        self.sealed.drain(..).for_each(|sealed| self.waiting.free(sealed.slot));
    }
}

/// Cuts, seals and sends a super-packet; how many datagrams of it have no socket.
fn send_super(now: Instant, sealer: &mut impl Seal, open: &Open, vnet: &Vnet, packet: &[u8], train: &mut [u8]) -> u64 {
    let cut = match Cut::new(vnet, packet) {
        Ok(cut) => cut,
        Err(error) => {
            tracing::debug!(%error, ?vnet, "the kernel handed over something odd");
            return 0;
        }
    };
    let (tos, mut next, mut no_socket) = (tos(packet), 0, 0);
    while next < cut.count() {
        if let Some(Train { socket, to, range, size }) = sealer.seal_train(now, &cut, &mut next, train) {
            no_socket += open.send_train(socket, Way { to, src: None, tos }, size, &[IoSlice::new(&train[range])]);
        }
    }
    no_socket
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::sockets::Sockets;
    use super::super::waiting::tests::{packet, read};
    use super::*;
    use crate::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites};
    use crate::id::{Epoch, NetworkKey};
    use crate::io::udp::Socket;
    use crate::node::{AddressChoice, NodeConfig};
    use crate::offload::Offload;
    use crate::sans::Seed;

    /// A turn reads so many small packets, and sends so many.
    const READ: u64 = 304;
    const SENT: u64 = 256;

    /// A node that knows nobody: it counts what it is given, and sends nothing.
    pub(crate) fn node() -> Node {
        let network = NetworkSecrets::derive(&NetworkKey::new([1; 32]), Epoch::default());
        let overlay = network.overlay(None);
        let device = DeviceSecrets::from_seed(&[2; 32]);
        let identity = Arc::new(Identity { network, device, suites: Suites::native(), features: 0 });
        let config = NodeConfig {
            identity,
            network_name: "test".to_owned(),
            name: "test".to_owned(),
            overlay,
            address: AddressChoice::Auto,
            rendezvous: Vec::new(),
            deny: Vec::new(),
            port_mapping: false,
            lan_discovery: false,
            relay: crate::node::RelayConfig::default(),
            lan: crate::node::LanConfig::default(),
            sockets: Vec::new(),
            stored_ceiling: 0,
            cache: None,
            wall_ms: 0,
        };
        Node::new(config, &Seed::from_u64(3), Instant::ZERO)
    }

    /// Turns with a source that always has a packet of these many bytes; how many were read.
    async fn turns(node: &mut Node, outward: &mut Outward, count: u32, len: usize, pause: Duration) -> u64 {
        let open = open();
        let packet = packet(7, 0, len, 0);
        let mut taken = 0;
        for n in 0..count {
            let now = Instant::ZERO + Duration::from_secs(1) + pause * n;
            outward.turn(
                || now,
                node,
                &open,
                None,
                |room| {
                    taken += 1;
                    Some(read(room, &packet))
                },
            );
        }
        taken
    }

    /// Turns without a source until nothing waits.
    async fn empty(node: &mut Node, outward: &mut Outward) {
        let open = open();
        while outward.has_more() {
            outward.turn(|| Instant::ZERO, node, &open, None, |_| None);
        }
    }

    fn open() -> Arc<Open> {
        Sockets::new(Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound"), None, Offload::All).open()
    }

    fn given(node: &Node) -> u64 {
        node.dropped("source-not-ours")
    }

    #[tokio::test]
    async fn a_turn_reads_a_little_more_than_it_sends_and_the_rest_leaves_in_the_next() {
        let (mut node, mut outward) = (node(), Outward::new().expect("there is room"));
        assert_eq!(turns(&mut node, &mut outward, 1, 100, Duration::ZERO).await, READ);
        assert_eq!((given(&node), outward.has_more()), (SENT, true));
        empty(&mut node, &mut outward).await;
        assert_eq!(given(&node), READ);
        // Of large ones fewer; what was read before the turn is one of them.
        let (mut node, mut outward) = (self::node(), Outward::new().expect("there is room"));
        let open = open();
        let first = read(outward.room(), &packet(7, 0, 1_400, 0));
        let mut bytes = 0;
        outward.turn(
            || Instant::ZERO,
            &mut node,
            &open,
            Some(first),
            |room| {
                bytes += 30_000;
                Some(read(room, &packet(7, 0, 30_000, 0)))
            },
        );
        assert!((STEPS * BYTES..(STEPS + 2) * BYTES + 30_000).contains(&bytes), "{bytes}");
        assert!(outward.has_more() && given(&node) == 1, "what came first went first");
    }

    #[tokio::test]
    async fn packets_for_which_there_is_no_slot_are_counted() {
        let (mut node, mut outward) = (node(), Outward::new().expect("there is room"));
        let read = turns(&mut node, &mut outward, 100, 100, Duration::ZERO).await;
        assert_eq!((given(&node), node.dropped("queue-long")), (100 * SENT, 0));
        let full = node.dropped("queue-full");
        empty(&mut node, &mut outward).await;
        let waited = given(&node) - 100 * SENT;
        assert!(waited <= 512 && full > 100 && read == 100 * SENT + full + waited, "{read}: {full} and {waited}");
    }

    #[tokio::test]
    async fn packets_that_are_lost_to_tell_that_the_queue_stands_are_counted() {
        let (mut node, mut outward) = (node(), Outward::new().expect("there is room"));
        let read = turns(&mut node, &mut outward, 30, 1_400, Duration::from_millis(10)).await;
        let told = node.dropped("queue-long");
        assert!((2..=6).contains(&told), "{told}");
        empty(&mut node, &mut outward).await;
        assert_eq!(given(&node), read - told - node.dropped("queue-full"), "all others went");
    }
}
