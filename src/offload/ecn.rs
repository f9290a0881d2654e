//! The byte of an IP header that says how the packet is to be treated: the TOS of IPv4, the traffic class of IPv6. Its
//! upper six bits are the DSCP (RFC 2474), the lower two the ECN field (RFC 3168 §5).

use super::sum;

/// The ECN field's bits.
const ECN: u8 = 0b11;
/// Congestion experienced: some queue on the way was too long.
const CE: u8 = 0b11;
/// Both ends understand marks, …
const ECT_0: u8 = 0b10;
/// …told in the other of two ways (RFC 8311: they react at once).
const ECT_1: u8 = 0b01;
/// They do not.
const NOT_ECT: u8 = 0b00;

/// That byte of a packet; 0 of what is none.
pub fn tos(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 4 => *second,
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        _ => 0,
    }
}

/// Whether its flow understands marks.
pub fn understands_marks(packet: &[u8]) -> bool {
    tos(packet) & ECN != NOT_ECT
}

/// Tells its flow that a queue was too long. Only what [understands](understands_marks) it may be told so.
pub fn mark(packet: &mut [u8]) {
    set(packet, CE);
}

/// What happened to the datagram around it (its TOS was `outer`) has happened to this packet: the table of RFC 6040
/// §4.2. `false`: it is to be dropped, because it was marked on its way and its flow does not understand marks.
#[must_use]
pub fn decapsulate(outer: u8, packet: &mut [u8]) -> bool {
    match (outer & ECN, tos(packet) & ECN) {
        (CE, NOT_ECT) => return false,
        (CE, ECT_0 | ECT_1) => set(packet, CE),
        (ECT_1, ECT_0) => set(packet, ECT_1),
        _ => {}
    }
    true
}

fn set(packet: &mut [u8], ecn: u8) {
    match packet {
        [first, second, rest @ ..] if *first >> 4 == 4 => {
            let before = u16::from_be_bytes([*first, *second]);
            *second = *second & !ECN | ecn;
            let after = u16::from_be_bytes([*first, *second]);
            // The header's checksum, without the rest of the header (RFC 1624, equation 3).
            if let Some(field) = rest.get_mut(8..10) {
                let checksum = u16::from_be_bytes([field[0], field[1]]);
                field.copy_from_slice(&(!sum::add([!checksum, !before, after])).to_be_bytes());
            }
        }
        [first, second, ..] if *first >> 4 == 6 => *second = *second & !(ECN << 4) | ecn << 4,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::super::tests::assert_valid;
    use super::*;

    fn packet(v4: bool, tos: u8) -> Vec<u8> {
        let builder = if v4 {
            let mut header = etherparse::Ipv4Header { dscp: dscp(tos), ecn: ecn(tos), ..Default::default() };
            (header.source, header.destination, header.time_to_live) = ([10, 77, 0, 1], [10, 77, 0, 2], 64);
            PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        } else {
            let header = etherparse::Ipv6Header { traffic_class: tos, hop_limit: 64, ..Default::default() };
            PacketBuilder::ip(etherparse::IpHeaders::Ipv6(header, Default::default()))
        };
        let mut bytes = Vec::new();
        builder.udp(1, 2).write(&mut bytes, &[7; 5]).expect("a vector takes all");
        bytes
    }

    fn dscp(tos: u8) -> etherparse::IpDscp {
        (tos >> 2).try_into().expect("six bits")
    }

    fn ecn(tos: u8) -> etherparse::IpEcn {
        (tos & ECN).try_into().expect("two bits")
    }

    #[test]
    fn the_table_of_rfc_6040() {
        // By inner: what becomes of it for an outer Not-ECT, ECT(1), ECT(0), CE.
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (v4, dscp) in [(true, 0), (false, 0), (true, 0xb8), (false, 0xb8)] {
            for (inner, row) in table {
                for (outer, becomes) in [NOT_ECT, ECT_1, ECT_0, CE].into_iter().zip(row) {
                    let mut bytes = packet(v4, dscp | inner);
                    // The outer DSCP is nobody's business here.
                    let kept = decapsulate(0x28 | outer, &mut bytes);
                    assert_eq!(
                        kept.then(|| tos(&bytes)),
                        becomes.map(|ecn| dscp | ecn),
                        "{outer:02b} around {inner:02b}"
                    );
                    assert_eq!(bytes, packet(v4, dscp | becomes.unwrap_or(inner)), "nothing else changes");
                }
            }
        }
    }

    #[test]
    fn who_understands_marks_is_marked() {
        for v4 in [true, false] {
            let understood = [NOT_ECT, ECT_1, ECT_0, CE].map(|ecn| understands_marks(&packet(v4, 0x10 | ecn)));
            assert_eq!(understood, [false, true, true, true]);
            let mut bytes = packet(v4, 0x10 | ECT_0);
            mark(&mut bytes);
            assert_eq!(bytes, packet(v4, 0x10 | CE));
        }
    }

    proptest! {
        #[test]
        fn the_checksum_stays_right(before: u8, after in 0..4_u8, id: u16) {
            let mut bytes = packet(true, before);
            // Another checksum, zero and all ones among them.
            let old = u16::from_be_bytes([bytes[10], bytes[11]]);
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            bytes[10..12].copy_from_slice(&(!sum::add([!old, id])).to_be_bytes());
            assert_valid(&bytes);
            set(&mut bytes, after);
            prop_assert_eq!(tos(&bytes), before & !ECN | after);
            assert_valid(&bytes);
        }

        #[test]
        fn whatever_is_no_packet_is_left_alone(bytes in prop::collection::vec(any::<u8>(), 0..12), outer: u8) {
            let mut after = bytes.clone();
            let kept = decapsulate(outer, &mut after);
            prop_assert_eq!(after.len(), bytes.len());
            if tos(&bytes) == 0 {
                prop_assert_eq!((kept, after), (outer & ECN != CE, bytes));
            }
        }
    }
}
