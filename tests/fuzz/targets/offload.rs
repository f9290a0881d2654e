//! Descriptors and the joining of what an authenticated but hostile peer sends: whatever comes, no write is out of
//! bounds, and a kernel that cuts again what is written makes the packets that were sent.

use arbitrary::{Result, Unstructured};
use etherparse::PacketBuilder;
use punchlan::offload::{Cut, Join, Layout, Place, Vnet, describe, finish};
use punchlan::wire::session::Segment;

/// One datagram's content.
struct Piece {
    /// `None`: a packet of its own.
    segment: Option<(Place, Segment)>,
    packet: Vec<u8>,
}

/// Reads a program of edits and plays both ends.
pub(crate) fn run(data: &[u8]) {
    let _ = raw(&mut Unstructured::new(data));
    if let Ok(pieces) = sent(&mut Unstructured::new(data)) {
        receive(&pieces);
    }
}

/// Any bytes as a packet of the TUN.
fn raw(input: &mut Unstructured<'_>) -> Result<()> {
    let vnet = Vnet::decode(&input.arbitrary()?, input.arbitrary()?);
    let packet: Vec<u8> = input.arbitrary()?;
    vnet.finish(&mut packet.clone());
    if let Ok(cut) = Cut::new(&vnet, &packet) {
        (0..cut.count().min(64)).for_each(|n| cut.write(n, &mut vec![0; cut.segment_len(n)]));
    }
    Ok(())
}

/// The segments of a true super-packet, and then what somebody made of them.
fn sent(input: &mut Unstructured<'_>) -> Result<Vec<Piece>> {
    let (v4, udp, alone): (bool, bool, bool) = (input.arbitrary()?, input.arbitrary()?, input.arbitrary()?);
    let (payload, size) = (input.int_in_range(1..=6_000_usize)?, input.int_in_range(200..=1_400_u16)?);
    let builder = if v4 {
        PacketBuilder::ipv4([10, 77, 0, 1], [10, 77, 0, 2], 64)
    } else {
        PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64)
    };
    let (mut packet, payload) = (Vec::new(), vec![7; payload]);
    if udp {
        builder.udp(1, 2).write(&mut packet, &payload).expect("a vector takes all");
    } else {
        builder.tcp(1, 2, 3, 4).ack(5).write(&mut packet, &payload).expect("a vector takes all");
    }
    let gso_type = Layout::of(&packet).expect("TCP or UDP").gso_type();
    let vnet = Vnet { gso_type, gso_size: size, ..Vnet::PLAIN };
    let cut = Cut::new(&vnet, &packet).expect("a super-packet");
    let mut pieces: Vec<Piece> = (0..cut.count())
        .map(|n| {
            let mut packet = vec![0; cut.segment_len(n)];
            cut.write(n, &mut packet);
            let (index, counter) = (cut.descriptor(n).index, u32::try_from(n).expect("few"));
            let segment = (!alone).then(|| (Place { keys: 1, counter, index }, cut.descriptor(n)));
            Piece { segment, packet }
        })
        .collect();
    for _ in 0..input.int_in_range(0..=12)? {
        let at = input.int_in_range(0..=pieces.len() - 1)?;
        match input.int_in_range(0..=6)? {
            0 => pieces.swap(at, 0),
            1 if pieces.len() > 1 => drop(pieces.remove(at)),
            2 => {
                let len = input.int_in_range(0..=pieces[at].packet.len())?;
                pieces[at].packet.truncate(len);
            }
            3 => pieces[at].packet.extend(input.bytes(3)?),
            4 => {
                if let Some((place, segment)) = &mut pieces[at].segment {
                    *place = Place { keys: input.arbitrary()?, counter: input.arbitrary()?, index: input.arbitrary()? };
                    segment.header_len ^= u16::from(input.arbitrary::<u8>()?);
                    segment.gso_type ^= input.arbitrary::<u8>()?;
                }
            }
            _ if !pieces[at].packet.is_empty() => {
                let byte = input.int_in_range(0..=pieces[at].packet.len().min(80) - 1)?;
                pieces[at].packet[byte] = input.arbitrary()?;
            }
            _ => {}
        }
    }
    for piece in pieces.iter_mut().filter(|piece| piece.segment.is_none()) {
        // Its own packets have whole checksums; a hostile one leaves some wrong.
        if let Some(layout) = Layout::of(&piece.packet).filter(|_| input.ratio(7_u8, 8_u8).unwrap_or(true)) {
            finish(&mut piece.packet, &layout);
        }
    }
    Ok(pieces)
}

/// As the shell does it.
fn receive(pieces: &[Piece]) {
    let mut open: Option<(Join<'_>, Vec<&Piece>)> = None;
    for piece in pieces {
        let taken = open.as_mut().is_some_and(|(join, _)| match piece.segment {
            None => join.push_alone(&piece.packet),
            Some((place, segment)) => join.push(place, segment, &piece.packet),
        });
        if taken {
            open.as_mut().expect("it took it").1.push(piece);
            continue;
        }
        open.take().into_iter().for_each(|(mut join, parts)| check(&mut join, &parts));
        let begun = match piece.segment {
            None => Join::begin_alone(&piece.packet),
            Some((place, segment)) => Join::begin(place, segment, &piece.packet),
        };
        if let (Some((_, segment)), Some(_)) = (piece.segment, &begun) {
            assert_eq!(describe(&piece.packet), Some(Segment { index: 0, ..segment }), "nothing else is believed");
        }
        open = begun.map(|join| (join, vec![piece]));
    }
    open.into_iter().for_each(|(mut join, parts)| check(&mut join, &parts));
}

/// What is written is what was sent.
fn check(join: &mut Join<'_>, pieces: &[&Piece]) {
    let (vnet, head, parts) = join.finish();
    let whole = [head, &parts.concat()].concat();
    if pieces.len() == 1 {
        return assert_eq!(masked(&whole), masked(&pieces[0].packet));
    }
    let cut = Cut::new(&vnet, &whole).expect("a super-packet");
    assert_eq!(cut.count(), pieces.len());
    for (n, piece) in pieces.iter().enumerate() {
        let mut out = vec![0; cut.segment_len(n)];
        cut.write(n, &mut out);
        assert_eq!(masked(&out), masked(&piece.packet), "{n}");
    }
}

/// Without checksums, which are made anew, and without an identification that means nothing.
fn masked(packet: &[u8]) -> Vec<u8> {
    let (mut packet, layout) = (packet.to_vec(), Layout::of(packet).expect("TCP or UDP"));
    if layout.v4 {
        packet[10..12].fill(0);
        if packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
        }
    }
    let at = layout.transport_at + layout.transport.checksum_offset();
    packet[at..at + 2].fill(0);
    packet
}
