//! An IPv4 packet in pieces (RFC 791 §3.2): what fits into a real LAN's packet may be too long for the overlay's.

use super::overheard::set_header_checksum;

const HEADER: usize = 20;
/// Where a piece belongs is said in units of so many bytes.
const UNIT: usize = 8;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// The pieces of a packet that is longer than `mtu`, each a packet that is not. One that was to stay whole has no number by
/// which its pieces are known from another's: they get `number`. `None`: it is no IPv4 packet, or one with options, which
/// none of ours has.
///
/// That it was to stay whole holds up nobody: what is for many is answered by no router that it is too long (RFC 1122
/// §3.2.2), and on an interface with this MTU the system would have cut it just so.
pub fn pieces(packet: &[u8], mtu: usize, number: u16) -> Option<Vec<Vec<u8>>> {
    let (header, payload) = packet.split_at_checked(HEADER).filter(|(header, _)| header[0] == 0x45)?;
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let each = mtu.checked_sub(HEADER)? / UNIT * UNIT;
    let count = payload.len().div_ceil(each.max(UNIT));
    let mut all = Vec::with_capacity(count);
    for (n, part) in payload.chunks(each.max(UNIT)).enumerate() {
        let mut piece = [header, part].concat();
        let more = if n + 1 < count { MORE } else { flags & MORE };
        let offset = u16::try_from(usize::from(flags & OFFSET) + n * each / UNIT).ok().filter(|at| *at <= OFFSET)?;
        piece[2..4].copy_from_slice(&u16::try_from(HEADER + part.len()).ok()?.to_be_bytes());
        piece[6..8].copy_from_slice(&(more | offset).to_be_bytes());
        if flags & DONT_FRAGMENT != 0 {
            piece[4..6].copy_from_slice(&number.to_be_bytes());
        }
        set_header_checksum(&mut piece);
        all.push(piece);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::sum;

    fn packet(len: usize, id: u16, flags: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 1, 17, 0, 0, 10, 77, 0, 1, 239, 1, 2, 3];
        packet.extend((HEADER..len).map(|n| n.to_le_bytes()[0]));
        packet[2..4].copy_from_slice(&u16::try_from(len).expect("short").to_be_bytes());
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        packet
    }

    #[test]
    fn pieces_are_packets_that_make_up_the_whole() {
        // 150 units further on, and more to come.
        for (len, id, flags, count) in [(1_401, 9, 0, 2), (1_500, 0, DONT_FRAGMENT, 2), (9_000, 9, MORE | 150, 7)] {
            let whole = packet(len, id, flags);
            let all = pieces(&whole, 1_400, 77).expect("IPv4");
            let mut payload = Vec::new();
            for (n, piece) in all.iter().enumerate() {
                let word = |at: usize| u16::from_be_bytes([piece[at], piece[at + 1]]);
                assert_eq!((usize::from(word(2)), sum::sum(&piece[..HEADER], 0)), (piece.len(), 0xffff));
                assert!(piece.len() <= 1_400);
                assert_eq!(word(4), if flags == DONT_FRAGMENT { 77 } else { id });
                let is_last = n + 1 == all.len();
                assert_eq!(word(6) & MORE, if is_last { flags & MORE } else { MORE });
                assert_eq!(usize::from(word(6) & OFFSET), usize::from(flags & OFFSET) + payload.len() / UNIT);
                assert_eq!((piece[8], &piece[12..20]), (1, &whole[12..20]));
                payload.extend_from_slice(&piece[HEADER..]);
            }
            assert_eq!((all.len(), &payload[..]), (count, &whole[HEADER..]));
        }
    }

    #[test]
    fn what_cannot_be_cut_is_not() {
        let mut options = packet(1_500, 0, 0);
        options[0] = 0x46;
        assert_eq!(pieces(&options, 1_400, 7), None);
        assert_eq!(pieces(&[0x60; 1_500], 1_400, 7), None);
        assert_eq!(pieces(&[0x45; 7], 1_400, 7), None);
        assert_eq!(pieces(&packet(1_500, 0, OFFSET), 1_400, 7), None, "it would end beyond any packet");
    }
}
