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
