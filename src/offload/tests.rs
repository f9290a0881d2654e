use std::net::IpAddr;

use etherparse::{IpNumber, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::wire::session::Segment;

/// A packet of TCP or UDP with a partial checksum, and the header that a kernel puts before it.
fn super_packet(v4: bool, udp: bool, payload: usize, size: u16, flags: u8, options: bool) -> (Vnet, Vec<u8>) {
    let (source, destination) = if v4 { ("10.77.0.1", "10.77.0.2") } else { ("fd00::1", "fd00::2") };
    between(source, destination, udp, payload, size, flags, options)
}

/// The same between two addresses of one family.
pub(crate) fn between(
    source: &str,
    destination: &str,
    udp: bool,
    payload: usize,
    size: u16,
    flags: u8,
    options: bool,
) -> (Vnet, Vec<u8>) {
    let payload: Vec<u8> = (0..=250).cycle().zip(0..payload).map(|(byte, _)| byte).collect();
    let mut packet = Vec::new();
    let builder = match (source.parse().expect("an address"), destination.parse().expect("an address")) {
        (IpAddr::V4(s), IpAddr::V4(d)) => PacketBuilder::ipv4(s.octets(), d.octets(), 64),
        (IpAddr::V6(s), IpAddr::V6(d)) => PacketBuilder::ipv6(s.octets(), d.octets(), 64),
        _ => panic!("one family"),
    };
    if udp {
        builder.udp(1000, 2000).write(&mut packet, &payload).expect("a vector takes all");
    } else {
        let options: &[u8] = if options { &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8] } else { &[] };
        let builder = builder.tcp(1000, 2000, 0xffff_f000, 512).ack(77).options_raw(options).expect("options");
        builder.write(&mut packet, &payload).expect("a vector takes all");
    }
    let layout = Layout::of(&packet).expect("one that can be cut");
    if !udp {
        packet[layout.transport_at + 13] |= flags;
    }
    let (head, body) = packet.split_at_mut(layout.header_len);
    layout.set_payload(&layout.sums(head), head, body.len());
    (Vnet { gso_size: size, gso_type: layout.gso_type(), ..Vnet::of(&layout, Some(size.into())) }, packet)
}

fn segments(cut: &Cut<'_>) -> Vec<(Segment, Vec<u8>)> {
    let write = |index| {
        let mut out = vec![0; cut.segment_len(index)];
        cut.write(index, &mut out);
        (cut.descriptor(index), out)
    };
    (0..cut.count()).map(write).collect()
}

const fn place(counter: u32, index: u16) -> Place {
    Place { keys: 5, counter, index }
}

fn concat(join: &mut Join<'_>) -> (Vnet, Vec<u8>) {
    let (vnet, head, parts) = join.finish();
    (vnet, [head, &parts.concat()].concat())
}

#[test]
fn places_count_from_the_header_of_the_link() {
    let (vnet, _) = super_packet(true, false, 3_000, 1_000, 0, false);
    let [on_a_tun, on_a_tap] = [0, 14].map(|link| vnet.encode(link));
    assert_eq!((&on_a_tun[..2], &on_a_tun[4..6], &on_a_tun[8..]), (&on_a_tap[..2], &on_a_tap[4..6], &on_a_tap[8..]));
    assert_eq!([2, 6].map(|at| u16::from_ne_bytes([on_a_tap[at], on_a_tap[at + 1]])), [54, 34], "headers, checksum");
    assert_eq!((Vnet::decode(&on_a_tun, 0), Vnet::decode(&on_a_tap, 14)), (vnet, vnet));
    // Of nothing that is to be done there is no place.
    assert_eq!(Vnet::PLAIN.encode(14), [0; Vnet::LEN]);
    assert_eq!(Vnet::decode(&[0; Vnet::LEN], 14), Vnet::PLAIN);
}

/// All checksums of a packet are right.
pub(crate) fn assert_valid(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).expect("a packet");
    let net = sliced.net.expect("IP");
    if let Some(v4) = net.ipv4_ref() {
        assert_eq!(v4.header().header_checksum(), v4.header().to_header().calc_header_checksum());
    }
    let payload = net.ip_payload_ref().expect("a payload").payload;
    let (addresses, number) = match packet[0] >> 4 {
        4 => (&packet[12..20], packet[9]),
        _ => (&packet[8..40], packet[6]),
    };
    let pseudo = sum::pseudo(addresses, number, payload.len());
    assert_eq!(sum::sum(payload, pseudo.into()), 0xffff, "one's complement of all is zero");
}

proptest! {
    #[test]
    fn what_is_cut_and_joined_is_what_it_was(
        v4: bool, udp: bool, options: bool,
        payload in 1..60_000_usize, size in 900..1_400_u16, flags in prop::sample::select(vec![0, 1, 8, 9, 0x40]),
    ) {
        // A run has at most 64.
        let (vnet, packet) = super_packet(v4, udp, payload.min(64 * usize::from(size)), size, flags, options);
        let cut = Cut::new(&vnet, &packet).expect("fits");
        let segments = segments(&cut);
        let mut joined: Option<Join<'_>> = None;
        for (n, (segment, bytes)) in (100..).zip(&segments) {
            prop_assert!(bytes.len() <= usize::from(size) + 120);
            match &mut joined {
                None => joined = Some(Join::begin(place(n, segment.index), *segment, bytes).expect("described truly")),
                Some(join) => prop_assert!(join.push(place(n, segment.index), *segment, bytes), "{}", segment.index),
            }
        }
        let (again, whole) = concat(joined.as_mut().expect("at least one"));
        prop_assert_eq!(&whole, &packet);
        if segments.len() > 1 {
            prop_assert_eq!(again, vnet);
        }
    }

    #[test]
    fn each_segment_is_a_valid_packet_once_its_checksum_is_finished(
        v4: bool, udp: bool, payload in 1..20_000_usize, size in 1..1_400_u16, flags in 0..=255_u8,
    ) {
        let (vnet, packet) = super_packet(v4, udp, payload, size, flags, true);
        let cut = Cut::new(&vnet, &packet).expect("fits");
        for index in [0, cut.count() / 2, cut.count() - 1] {
            let mut out = vec![0; cut.segment_len(index)];
            cut.write_whole(index, &mut out);
            assert_valid(&out);
            let sliced = SlicedPacket::from_ip(&out).expect("a packet");
            match sliced.transport.expect("a transport") {
                TransportSlice::Tcp(tcp) => {
                    let ahead = u32::try_from(index * usize::from(size)).expect("small");
                    prop_assert_eq!(tcp.sequence_number(), 0xffff_f000_u32.wrapping_add(ahead));
                    prop_assert!(index == 0 || !tcp.cwr());
                    prop_assert!(index + 1 == cut.count() || !tcp.fin() && !tcp.psh());
                }
                TransportSlice::Udp(udp) => prop_assert_eq!(usize::from(udp.length()), out.len() - if v4 { 20 } else { 40 }),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    /// Whatever a hostile sender makes of its segments: what is written is what it sent, piece by piece.
    #[test]
    fn whatever_comes_is_joined_to_what_was_sent_and_nothing_else(
        v4: bool, udp: bool, payload in 1..9_000_usize, size in 100..1_400_u16,
        changes in prop::collection::vec((0..12_usize, 0..70_usize, any::<u8>()), 0..6),
        skips in prop::collection::vec(0..12_usize, 0..2),
    ) {
        let (vnet, packet) = super_packet(v4, udp, payload, size, 8, true);
        let mut segments = segments(&Cut::new(&vnet, &packet).expect("fits"));
        for (n, at, value) in changes {
            if let Some((_, bytes)) = segments.get_mut(n) && let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        for skip in skips {
            if skip < segments.len() {
                segments.remove(skip);
            }
        }
        let mut from = 0;
        while from < segments.len() {
            let (segment, bytes) = &segments[from];
            let Some(mut join) = Join::begin(place(0, segment.index), *segment, bytes) else { from += 1; continue };
            let mut to = from + 1;
            while let Some((segment, bytes)) = segments.get(to) {
                let counter = u32::try_from(to - from).expect("few");
                if !join.push(place(counter, segment.index), *segment, bytes) { break }
                to += 1;
            }
            let (vnet, whole) = concat(&mut join);
            let layout = Layout::of(&whole).expect("a whole packet");
            let sent: Vec<u8> = segments[from..to].iter().flat_map(|(_, bytes)| &bytes[layout.header_len..]).copied().collect();
            prop_assert_eq!(&whole[layout.header_len..], &sent[..]);
            prop_assert_eq!(usize::from(vnet.checksum_start), layout.transport_at);
            if to - from > 1 {
                // A kernel that cuts it again makes the packets that were sent.
                let again = Cut::new(&vnet, &whole).expect("a super-packet");
                prop_assert_eq!(again.count(), to - from);
                for (n, (_, bytes)) in segments[from..to].iter().enumerate() {
                    let mut out = vec![0; again.segment_len(n)];
                    again.write(n, &mut out);
                    let at = layout.transport_at;
                    prop_assert_eq!(&out[at..at + 4], &bytes[at..at + 4], "ports");
                    prop_assert_eq!(&out[layout.header_len..], &bytes[layout.header_len..]);
                    if !udp {
                        prop_assert_eq!(&out[at + 4..at + 16], &bytes[at + 4..at + 16], "numbers, flags, window");
                    }
                }
            }
            from = to;
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..200), vnet: [u8; 10], link: u16, index: u16,
    ) {
        let vnet = Vnet::decode(&vnet, link);
        prop_assert_eq!(Vnet::decode(&vnet.encode(link), link).gso_type, vnet.gso_type);
        vnet.finish(&mut bytes.clone());
        if let Ok(cut) = Cut::new(&vnet, &bytes) {
            (0..cut.count()).for_each(|n| cut.write(n, &mut vec![0; cut.segment_len(n)]));
        }
        if let Some(segment) = describe(&bytes) {
            let segment = Segment { index, ..segment };
            prop_assert!(Join::begin(place(0, index), segment, &bytes).is_some());
            for wrong in [Segment { gso_type: segment.gso_type ^ 1, ..segment }, Segment { csum_start: 0, ..segment },
                Segment { csum_offset: 2, ..segment }, Segment { header_len: segment.header_len + 1, ..segment }] {
                prop_assert!(Join::begin(place(0, index), wrong, &bytes).is_none(), "{:?}", wrong);
            }
        }
    }
}

#[test]
fn packets_of_one_flow_are_joined_and_cut_again_into_what_they_were() {
    for v4 in [true, false] {
        let (vnet, packet) = super_packet(v4, true, 5_000, 1_000, 0, false);
        let cut = Cut::new(&vnet, &packet).expect("fits");
        let whole = |n| {
            let mut out = vec![0; cut.segment_len(n)];
            cut.write_whole(n, &mut out);
            out
        };
        let packets: Vec<Vec<u8>> = (0..cut.count()).map(whole).collect();
        let mut join = Join::begin_alone(&packets[0]).expect("UDP");
        let (plain, alone) = concat(&mut join);
        assert_eq!((plain, &alone), (Vnet::PLAIN, &packets[0]), "one stays as it is");
        assert!(packets[1..].iter().all(|packet| join.push_alone(packet)));
        let (vnet, joined) = concat(&mut join);
        assert_eq!(joined, packet);
        let again = Cut::new(&vnet, &joined).expect("a super-packet");
        assert_eq!(again.count(), packets.len());
        for (n, packet) in packets.iter().enumerate() {
            let mut out = vec![0; again.segment_len(n)];
            again.write_whole(n, &mut out);
            assert_eq!(out, *packet);
        }
        // Whose checksum is wrong, or not there, stays alone, wrong as it is.
        for change in [1_u8, 0] {
            let mut wrong = packets[1].clone();
            let at = if v4 { 26 } else { 46 };
            wrong[at] ^= change;
            if change == 0 {
                wrong[at..at + 2].fill(0);
            }
            assert!(Join::begin_alone(&wrong).is_none());
            assert!(!Join::begin_alone(&packets[0]).expect("UDP").push_alone(&wrong));
        }
    }
}

#[test]
fn a_gap_another_sender_or_another_super_packet_end_a_run() {
    let (vnet, packet) = super_packet(true, false, 5_000, 1_000, 0, false);
    let segments = segments(&Cut::new(&vnet, &packet).expect("fits"));
    let begin = || Join::begin(place(7, 0), segments[0].0, &segments[0].1).expect("true");
    let (next, bytes) = &segments[1];
    assert!(begin().push(place(8, 1), *next, bytes));
    for wrong in [place(9, 1), place(7, 1), place(8, 2), Place { keys: 6, ..place(8, 1) }] {
        assert!(!begin().push(wrong, *next, bytes), "{wrong:?}");
    }
}

#[test]
fn fragments_and_extension_headers_are_no_segments() {
    let (_, mut packet) = super_packet(true, false, 100, 1_000, 0, false);
    assert!(describe(&packet).is_some());
    packet[6] = 0x20;
    assert!(describe(&packet).is_none(), "a fragment");
    let (_, mut packet) = super_packet(false, true, 100, 1_000, 0, false);
    packet[6] = IpNumber::IPV6_HEADER_HOP_BY_HOP.0;
    assert!(describe(&packet).is_none(), "options");
    let (_, packet) = super_packet(false, true, 100, 1_000, 0, false);
    assert!(describe(&packet[..packet.len() - 1]).is_none(), "cut off");
}
