//! What the parts of the packet path cost, one at a time: `cargo bench --bench parts`. No system calls; of those
//! `scripts/bench` tells.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod lan;

use std::cell::RefCell;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use lan::{Lan, framed, overlay_addr, udp};
use punchlan::crypto::seal::{OpeningKey, SealingKey};
use punchlan::crypto::{ReplayWindow, Suite};
use punchlan::node::{Inbound, Outbound};
use punchlan::offload::{Cut, Join, Place, Vnet};
use punchlan::sans::Instant;
use punchlan::wire::session::{Channel, HEADER, Header, OVERHEAD, TAG, data};

const NOW: Instant = Instant::from_nanos(1_000_000_000);

fn seal(c: &mut Criterion) {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let key = zeroize::Zeroizing::new([7; 32]);
        let mut group = c.benchmark_group(format!("seal and open {suite}"));
        for len in [100_usize, 1400] {
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::new("seal", len), |b| {
                // A key lasts for 2^32 packets; a run seals fewer.
                let tx = SealingKey::new(suite, &key, Channel::Data, 1, NOW);
                let mut datagram = vec![data::PACKET; HEADER + 1 + len + TAG];
                b.iter(|| tx.seal(NOW, black_box(&mut datagram)).expect("seals"));
            });
            group.bench_function(BenchmarkId::new("open", len), |b| {
                let (tx, rx) = (SealingKey::new(suite, &key, Channel::Data, 1, NOW), OpeningKey::new(suite, &key, NOW));
                let mut sealed = vec![data::PACKET; HEADER + 1 + len + TAG];
                tx.seal(NOW, &mut sealed).expect("seals");
                let header = Header::decode(&sealed).expect("a header");
                b.iter_batched_ref(
                    || sealed.clone(),
                    |d| rx.open(NOW, &header, d).expect("opens"),
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

/// 64 KB of TCP with a partial checksum.
fn super_packet() -> (Vnet, Vec<u8>) {
    let builder = PacketBuilder::ipv4([10, 77, 0, 1], [10, 77, 0, 2], 64).tcp(1, 2, 3, 4).ack(5);
    let mut packet = Vec::new();
    builder.write(&mut packet, &vec![7; 62_000]).expect("a vector takes all");
    let vnet =
        Vnet { gso_type: Vnet::TCP_V4, gso_size: 1348, header_len: 40, checksum_start: 20, checksum_offset: Some(16) };
    (vnet, packet)
}

fn offload(c: &mut Criterion) {
    let (vnet, packet) = super_packet();
    let cut = Cut::new(&vnet, &packet).expect("a super-packet");
    let mut group = c.benchmark_group("super-packet");
    group.throughput(Throughput::Bytes(packet.len() as u64));
    group.bench_function("cut", |b| {
        let mut out = vec![0; 1400];
        b.iter(|| (0..cut.count()).for_each(|n| cut.write(n, black_box(&mut out))));
    });
    let segments: Vec<_> = (0..cut.count())
        .map(|n| {
            let mut out = vec![0; cut.segment_len(n)];
            cut.write(n, &mut out);
            (cut.descriptor(n), out)
        })
        .collect();
    group.bench_function("join", |b| {
        b.iter(|| {
            let place = |n: u16| Place { keys: 1, counter: n.into(), index: n };
            let mut join = Join::begin(place(0), segments[0].0, &segments[0].1).expect("a segment");
            for (n, (segment, bytes)) in (1..).zip(&segments[1..]) {
                assert!(join.push(place(n), *segment, bytes));
            }
            black_box(join.finish().2.len())
        });
    });
    group.finish();
}

fn small_parts(c: &mut Criterion) {
    c.bench_function("replay window", |b| {
        let (mut window, mut counter) = (ReplayWindow::<32_768>::new(), 0);
        b.iter(|| {
            counter += 1;
            black_box(window.check(counter) && window.accept(counter))
        });
    });
    c.bench_function("wire: header", |b| {
        let bytes = [&Header { channel: Channel::Data, index: 5, counter: 6 }.encode()[..], &[0; 40]].concat();
        b.iter(|| Header::decode(black_box(&bytes)).expect("a header"));
    });
    c.bench_function("wire: addresses", |b| {
        let packet = udp(overlay_addr(0), overlay_addr(1), 100);
        b.iter(|| punchlan::wire::ip::addresses(black_box(&packet)).expect("a packet"));
    });
}

/// A packet through the node, out and in, beside so many sessions.
fn node(c: &mut Criterion) {
    let mut group = c.benchmark_group("node");
    for friends in [1_usize, 10, 100, 1_000] {
        let mut lan = Lan::new(friends);
        let out = framed(&udp(overlay_addr(0), overlay_addr(friends), 100));
        group.bench_function(BenchmarkId::new("out: route, seal", friends), |b| {
            let mut buf = out.clone();
            b.iter(|| {
                buf.copy_from_slice(&out);
                let now = lan.now;
                black_box(lan.nodes[0].handle_packet(now, &mut buf))
            });
        });
        group.bench_function(BenchmarkId::new("in: open, guard", friends), |b| {
            let packet = framed(&udp(overlay_addr(friends), overlay_addr(0), 100));
            let shared = RefCell::new(&mut lan);
            // Each datagram is new, sealed outside of what is measured: one that was seen before is dropped at once.
            let seal = || {
                let (mut lan, mut buf) = (shared.borrow_mut(), packet.clone());
                let now = lan.now;
                let Outbound::Send { to, range, .. } = lan.nodes[friends].handle_packet(now, &mut buf) else {
                    panic!("a session stands")
                };
                (to, buf[range].to_vec())
            };
            let open = |(to, datagram): &mut (SocketAddr, Vec<u8>)| {
                let verdict = shared.borrow_mut().deliver(friends, *to, datagram);
                assert!(matches!(verdict, Some((_, Inbound::Deliver(_)))));
            };
            b.iter_batched_ref(seal, open, BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("when to wake up", friends), |b| {
            b.iter(|| black_box(lan.nodes[0].poll_timeout()));
        });
    }
    group.finish();
}

/// A broadcast to so many peers, against as many packets to one each: what it costs, and what goes on the wire.
fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    for friends in [2_usize, 8, 32] {
        let mut lan = Lan::new(friends);
        let now = lan.now;
        let broadcast = udp(overlay_addr(0), Ipv4Addr::BROADCAST, 100);
        let to_each: Vec<Vec<u8>> =
            (1..=friends).map(|n| framed(&udp(overlay_addr(0), overlay_addr(n), 100))).collect();
        group.bench_function(BenchmarkId::new("one to all", friends), |b| {
            b.iter(|| {
                lan.nodes[0].handle_shared(now, black_box(&broadcast));
                let sent = std::iter::from_fn(|| lan.nodes[0].poll_transmit());
                let bytes: usize = sent.map(|transmit| transmit.payload.len()).sum();
                assert_eq!(bytes, (broadcast.len() + OVERHEAD) * friends);
            });
        });
        group.bench_function(BenchmarkId::new("one to each", friends), |b| {
            let mut bufs = to_each.clone();
            b.iter(|| {
                for (buf, packet) in bufs.iter_mut().zip(&to_each) {
                    buf.copy_from_slice(packet);
                    let Outbound::Send { range, .. } = lan.nodes[0].handle_packet(now, buf) else {
                        panic!("a session stands")
                    };
                    assert_eq!(range.len(), broadcast.len() + OVERHEAD);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(parts, seal, offload, small_parts, node, fan_out);
criterion_main!(parts);
