//! A packet costs a node no heap allocation, whichever way it goes: counted over 100,000 of them each way.

#[path = "common/counting.rs"]
mod counting;
#[path = "bench/lan.rs"]
mod lan;

use std::time::Duration;

use counting::allocations;
use etherparse::PacketBuilder;
use lan::{Lan, framed, overlay_addr, udp};
use punchlan::fair::{Fair, Flow};
use punchlan::node::{Inbound, Outbound, Train};
use punchlan::offload::{Cut, Vnet};

const PACKETS: u32 = 100_000;
/// Lists grow to their size in the first packets.
const WARM_UP: u32 = 1_000;
/// So long between two of them: within what a relay carries.
const EVERY: Duration = Duration::from_micros(80);

/// Packets both ways; timers are left alone, so that packets alone are counted.
fn packets_cost_nothing(lan: &mut Lan) {
    let packets = [(0, 1), (1, 0)].map(|(from, to)| framed(&udp(overlay_addr(from), overlay_addr(to), 1_000)));
    let mut buf = packets[0].clone();
    let mut before = 0;
    for n in 0..PACKETS + WARM_UP {
        if n == WARM_UP {
            before = allocations();
        }
        lan.now += EVERY;
        for (from, packet) in packets.iter().enumerate() {
            buf.copy_from_slice(packet);
            let now = lan.now;
            let verdict = lan.nodes[from].handle_packet(now, &mut buf);
            let Outbound::Send { to, range, .. } = verdict else { panic!("not sent: {verdict:?}") };
            let (start, got) = lan.deliver(from, to, &mut buf[range.clone()]).expect("it arrives");
            let Inbound::Deliver(inner) = got else { panic!("not delivered: {got:?}") };
            assert_eq!(buf[range.start + start + inner.start], 0x45);
        }
    }
    assert_eq!(allocations() - before, 0, "in {PACKETS} packets each way");
}

#[test]
fn packets_on_a_direct_path_cost_no_allocation() {
    packets_cost_nothing(&mut Lan::new(1));
}

#[test]
fn packets_through_a_relay_cost_no_allocation() {
    packets_cost_nothing(&mut Lan::relayed());
}

#[test]
fn super_packets_cost_no_allocation() {
    for mut lan in [Lan::new(1), Lan::relayed()] {
        let mut packet = Vec::new();
        let (from, to) = (overlay_addr(0).octets(), overlay_addr(1).octets());
        let builder = PacketBuilder::ipv4(from, to, 64).tcp(1, 2, 3, 4).ack(5);
        builder.write(&mut packet, &vec![7; 60_000]).expect("a vector takes all");
        let vnet = Vnet { gso_type: Vnet::TCP_V4, gso_size: 1_348, ..Vnet::PLAIN };
        let cut = Cut::new(&vnet, &packet).expect("a super-packet");
        let (mut arena, mut before) = (vec![0; 1 << 16], 0);
        for n in 0..PACKETS / 44 {
            if n == WARM_UP / 44 {
                before = allocations();
            }
            lan.now += EVERY * 44;
            let (now, mut next) = (lan.now, 0);
            while next < cut.count() {
                let train = lan.nodes[0].handle_super(now, &cut, &mut next, &mut arena);
                let Train { to, range, size, .. } = train.expect("a session stands");
                for datagram in arena[range].chunks_mut(size) {
                    let (_, got) = lan.deliver(0, to, datagram).expect("it arrives");
                    assert!(matches!(got, Inbound::Segment { .. }), "{got:?}");
                }
            }
        }
        assert_eq!(allocations() - before, 0);
    }
}

#[test]
fn waiting_for_a_turn_costs_no_allocation() {
    let packets = [100, 1_000].map(|len| udp(overlay_addr(0), overlay_addr(len / 100), len));
    let mut fair = Fair::new(64);
    let (mut now, before) = (punchlan::sans::Instant::from_nanos(1), allocations());
    for n in 0..PACKETS {
        now += EVERY;
        for (packet, slot) in packets.iter().zip([n % 32, 32 + n % 32]) {
            let slot = u16::try_from(slot).expect("small");
            fair.push(now, slot, Flow::of(packet), packet.len(), n.is_multiple_of(2));
        }
        if fair.len() > 20 {
            let evicted = fair.evict(|slot| slot < 32).or_else(|| fair.evict(|_| true));
            assert!(evicted.is_some() && fair.pop(now).is_some());
        }
    }
    assert_eq!(allocations() - before, 0);
}
