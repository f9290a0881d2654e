//! Where packets wait on their way out: each in a slot of one of two sizes, and the order in which they leave
//! ([`Fair`]).
//!
//! A packet is read into a small slot, and what does not fit goes on in a large one behind it, so that a super-packet
//! needs no copy but of its first part, and a small packet no large slot. One slot of each size is always free for the
//! next packet: where there was none left, the head of the longest queue has gone.

use std::ops::Range;
use std::time::Duration;

use super::pool::Pool;
use crate::fair::{Fair, Fate, Flow, Slot};
use crate::io::tun::LEAD;
use crate::node::{HEADROOM, MTU, TAILROOM};
use crate::offload::{Vnet, mark, understands_marks};
use crate::sans::Instant;

/// Slots for packets, …
const SMALL: Slot = 512;
/// …and for super-packets: fewer would lose what a few streams have on their way.
const LARGE: Slot = 128;
/// Slots that were not needed for so long give their memory back.
const NEEDED: Duration = Duration::from_secs(10);
/// Bytes of the largest super-packet.
const SUPER: usize = 1 << 16;
/// Where the part of a packet begins that a small slot has no room for.
const REST: usize = HEADROOM + MTU as usize;
const _: () = assert!(LEAD <= HEADROOM, "what the kernel says before a packet is read to the free bytes before it");

/// The packets that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    fair: Fair,
    small: Pool,
    large: Pool,
    /// What the kernel said of the packet in each slot, and its length.
    said: Box<[(Vnet, usize)]>,
    lost: Lost,
    /// When it was last looked whether the pools need what they have.
    renewed: Instant,
}

/// Packets that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// There was no slot left.
    pub(super) full: u64,
    /// To tell their flow that its queue has stood for too long.
    pub(super) long: u64,
}

impl Waiting {
    pub(super) fn new() -> std::io::Result<Self> {
        let slots = SMALL + LARGE;
        Ok(Self {
            fair: Fair::new(slots),
            small: Pool::new(0..SMALL, REST + TAILROOM)?,
            large: Pool::new(SMALL..slots, HEADROOM + SUPER + TAILROOM)?,
            said: vec![(Vnet::PLAIN, 0); slots.into()].into_boxed_slice(),
            lost: Lost::default(),
            renewed: Instant::ZERO,
        })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.fair.is_empty()
    }

    /// Where the next packet is read to: from [`HEADROOM`] of the first place on, and what does not fit into the second.
    pub(super) fn room(&mut self) -> (&mut [u8], &mut [u8]) {
        let (small, large) = (self.small.next(), self.large.next());
        (&mut self.small.get_mut(small)[..REST], &mut self.large.get_mut(large)[REST..HEADROOM + SUPER])
    }

    /// A packet of `len` bytes has been read there, and waits from now on. Whether another had to go for the next.
    pub(super) fn push(&mut self, now: Instant, vnet: Vnet, len: usize) -> bool {
        let (small, large) = (self.small.next(), self.large.next());
        let slot = if HEADROOM + len <= REST {
            self.small.take()
        } else {
            let place = HEADROOM..REST;
            self.large.get_mut(large)[place.clone()].copy_from_slice(&self.small.get(small)[place]);
            self.large.take()
        };
        self.said[usize::from(slot)] = (vnet, len);
        let packet = &self.bytes(slot, HEADROOM..HEADROOM + len);
        let (flow, markable) = (Flow::of(packet), understands_marks(packet));
        self.fair.push(now, slot, flow, len, markable);
        let before = self.lost.full;
        while self.small.is_empty() || self.large.is_empty() {
            let of = if self.small.is_empty() { self.small.slots() } else { self.large.slots() };
            // Where none of these is the first of its queue, others have to go before it.
            let Some(slot) = self.fair.evict(|slot| of.contains(&slot)).or_else(|| self.fair.evict(|_| true)) else {
                break;
            };
            self.lost.full += 1;
            self.free(slot);
        }
        self.lost.full > before
    }

    /// The packet whose turn it is. Its slot is the caller's, to be given back by [`Waiting::free`].
    pub(super) fn pop(&mut self, now: Instant) -> Option<Slot> {
        loop {
            let (slot, fate) = self.fair.pop(now)?;
            match fate {
                Fate::Sent => return Some(slot),
                Fate::Marked => {
                    let len = self.said[usize::from(slot)].1;
                    mark(&mut self.slot(slot)[HEADROOM..HEADROOM + len]);
                    return Some(slot);
                }
                Fate::Dropped => {
                    self.lost.long += 1;
                    self.free(slot);
                }
            }
        }
    }

    /// What the kernel said of the packet in a slot, and its length.
    pub(super) const fn said(&self, slot: Slot) -> (Vnet, usize) {
        self.said[slot as usize]
    }

    /// Bytes of a slot.
    pub(super) fn bytes(&self, slot: Slot, range: Range<usize>) -> &[u8] {
        &self.pool(slot).get(slot)[range]
    }

    /// A slot: the packet begins at [`HEADROOM`].
    pub(super) fn slot(&mut self, slot: Slot) -> &mut [u8] {
        let pool = if slot < SMALL { &mut self.small } else { &mut self.large };
        pool.get_mut(slot)
    }

    /// The packet in the slot is gone.
    pub(super) fn free(&mut self, slot: Slot) {
        let pool = if slot < SMALL { &mut self.small } else { &mut self.large };
        pool.give(slot);
    }

    /// Nothing waits now: the memory of a passing need goes back to the system, sometimes.
    pub(super) fn rest(&mut self, now: Instant) {
        if self.is_empty() && now.since(self.renewed) >= NEEDED {
            self.renewed = now;
            self.small.renew();
            self.large.renew();
        }
    }

    /// What was lost since this was asked for last.
    pub(super) fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.lost)
    }

    const fn pool(&self, slot: Slot) -> &Pool {
        if slot < SMALL { &self.small } else { &self.large }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An IPv4 packet of UDP: its last bytes are `n`, as much as one can tell of it.
    pub(in super::super) fn packet(port: u16, tos: u8, len: usize, n: u8) -> Vec<u8> {
        let builder = etherparse::PacketBuilder::ipv4([10, 77, 0, 1], [10, 77, 0, 2], 64).udp(9, port);
        let mut packet = Vec::new();
        builder.write(&mut packet, &vec![n; len - 28]).expect("a vector takes all");
        packet[1] = tos;
        packet
    }

    /// As the kernel hands it over.
    pub(in super::super) fn read(room: (&mut [u8], &mut [u8]), packet: &[u8]) -> (Vnet, usize) {
        let (first, rest) = (&mut room.0[HEADROOM..], room.1);
        let (here, there) = packet.split_at(packet.len().min(first.len()));
        first[..here.len()].copy_from_slice(here);
        rest[..there.len()].copy_from_slice(there);
        (if there.is_empty() { Vnet::PLAIN } else { Vnet { gso_type: Vnet::UDP, ..Vnet::PLAIN } }, packet.len())
    }

    fn push(waiting: &mut Waiting, now: Instant, packet: &[u8]) {
        let (vnet, len) = read(waiting.room(), packet);
        waiting.push(now, vnet, len);
    }

    /// The next packet, and its slot, which is free again.
    fn pop(waiting: &mut Waiting, now: Instant) -> Option<(Slot, Vec<u8>)> {
        let slot = waiting.pop(now)?;
        let len = waiting.said(slot).1;
        let packet = waiting.bytes(slot, HEADROOM..HEADROOM + len).to_vec();
        waiting.free(slot);
        Some((slot, packet))
    }

    fn last(packet: &[u8]) -> u8 {
        packet[packet.len() - 1]
    }

    #[test]
    fn packets_of_all_lengths_are_whole_in_a_slot_that_was_used_a_moment_ago() {
        let mut waiting = Waiting::new().expect("there is room");
        for (n, len) in
            [28, 600, 1_399, 1_400, 1_401, 2_800, 65_535].into_iter().cycle().zip(0..).take(100).map(|(a, b)| (b, a))
        {
            let mut packet = packet(7, 0, len, n);
            packet[len / 2] ^= 1;
            push(&mut waiting, Instant::ZERO, &packet);
            let expected = if len <= usize::from(MTU) { 0 } else { SMALL };
            assert_eq!(pop(&mut waiting, Instant::ZERO), Some((expected, packet)));
        }
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_small_packet_overtakes_those_of_another_flow() {
        let mut waiting = Waiting::new().expect("there is room");
        for n in 0..3 {
            push(&mut waiting, Instant::ZERO, &packet(7, 0, 60_000, n));
        }
        push(&mut waiting, Instant::ZERO, &packet(8, 0, 100, 9));
        let order: Vec<u8> =
            std::iter::from_fn(|| pop(&mut waiting, Instant::ZERO)).map(|(_, packet)| last(&packet)).collect();
        assert_eq!(order, [0, 9, 1, 2]);
    }

    #[test]
    fn where_no_slot_is_left_the_head_of_the_longest_queue_goes() {
        let mut waiting = Waiting::new().expect("there is room");
        // All but one to read to.
        for n in 0..130 {
            push(&mut waiting, Instant::ZERO, &packet(7, 0, 60_000, n));
        }
        assert_eq!(waiting.take_lost(), Lost { full: 3, long: 0 });
        // Small ones are lost for small ones, though the others' queue is the longest.
        for n in 0..200 {
            push(&mut waiting, Instant::ZERO, &packet(8, 0, 100, n));
            push(&mut waiting, Instant::ZERO, &packet(9, 0, 100, n));
            push(&mut waiting, Instant::ZERO, &packet(10, 0, 110, n));
        }
        assert_eq!(waiting.take_lost(), Lost { full: 600 - 511, long: 0 });
        assert_eq!(waiting.take_lost(), Lost::default(), "told once");
        let mut left = [0; 11];
        let mut first = [None; 11];
        while let Some((_, packet)) = pop(&mut waiting, Instant::ZERO) {
            let port = usize::from(packet[23]);
            left[port] += 1;
            first[port].get_or_insert(last(&packet));
        }
        assert_eq!((left[7], first[7]), (127, Some(3)), "the oldest went");
        assert_eq!(left[8] + left[9] + left[10], 511);
        assert!(left[8..].iter().all(|left| (160..=180).contains(left)), "{left:?}");
    }

    #[test]
    fn what_goes_is_free_again_even_where_only_others_can_go() {
        let mut waiting = Waiting::new().expect("there is room");
        // Of one flow, so that its small ones stand behind its large ones.
        for n in 0..3 {
            push(&mut waiting, Instant::ZERO, &packet(7, 0, 60_000, n));
        }
        for _ in 0..600 {
            push(&mut waiting, Instant::ZERO, &packet(7, 0, 100, 7));
        }
        assert_eq!(waiting.take_lost().full, 3 + 600 - 511);
        assert_eq!(std::iter::from_fn(|| pop(&mut waiting, Instant::ZERO)).count(), 511);
        assert_eq!((waiting.small.free(), waiting.large.free()), (SMALL.into(), LARGE.into()));
    }

    #[test]
    fn a_queue_that_stands_marks_packets_or_loses_them() {
        for (tos, marked) in [(0xb8, 0), (0xba, 5)] {
            let mut waiting = Waiting::new().expect("there is room");
            let mut now = Instant::ZERO + Duration::from_secs(1);
            let (mut got, mut marks) = (0, 0);
            for _ in 0..20 {
                for _ in 0..if waiting.is_empty() { 10 } else { 1 } {
                    push(&mut waiting, now, &packet(7, tos, 60_000, 0));
                }
                now += Duration::from_millis(20);
                let (_, packet) = pop(&mut waiting, now).expect("one waits");
                assert_eq!(packet[1] & 0xfc, 0xb8);
                got += 1;
                marks += usize::from(packet[1] == 0xbb);
            }
            assert_eq!((got, marks), (20, marked));
            assert_eq!(waiting.take_lost(), Lost { full: 0, long: if marked == 0 { 5 } else { 0 } });
        }
    }
}
