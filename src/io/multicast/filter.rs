//! What the kernel shows of an interface's packets: what this machine sends to everybody, and nothing else. Whatever the
//! program below does not accept costs nobody a wake-up.

use std::net::Ipv4Addr;

use nix::libc;
use socket2::SockFilter;

/// Subnets of one interface that are looked at; jumps are short.
const MOST_SUBNETS: usize = 32;
/// The kernel's own fields of a packet stand there (linux/filter.h).
const KERNEL: u32 = 0xffff_f000;
const PROTOCOL: u32 = KERNEL;
const PACKET_TYPE: u32 = KERNEL + 4;
/// Where the fields of the IP headers are (RFC 791 §3.1, RFC 8200 §3).
const V4_PROTOCOL: u32 = 9;
const V4_DESTINATION: u32 = 16;
const V6_NEXT_HEADER: u32 = 6;
const V6_DESTINATION: u32 = 24;
const UDP: u32 = 17;
const FRAGMENT: u32 = 44;
/// The first multicast address, and the first above them.
const MULTICAST: u32 = 0xe000_0000;
const RESERVED: u32 = 0xf000_0000;
const BROADCAST: u32 = u32::MAX;

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IS_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Where it goes on.
#[derive(Clone, Copy)]
enum To {
    Next,
    V6,
    Accept,
    Drop,
}

/// What of it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// What is sent to groups.
    pub multicast: bool,
    /// What is sent to 255.255.255.255 and to these addresses of whole subnets; `None`: none of it.
    pub broadcast: Option<&'a [Ipv4Addr]>,
}

/// Outgoing UDP, from the IP header on, to whoever is wanted.
pub(super) fn to_everybody(wanted: Wanted<'_>) -> Vec<SockFilter> {
    program(wanted).into_iter().map(|(code, yes, no, operand)| SockFilter::new(code, yes, no, operand)).collect()
}

/// Operations, lines to skip if so and if not, and what to compare with.
type Line = (u16, u8, u8, u32);

fn program(wanted: Wanted<'_>) -> Vec<Line> {
    use To::{Accept, Drop, Next, V6};

    let groups = if wanted.multicast { Accept } else { Drop };
    let mut lines = vec![
        (LOAD_HALF, PACKET_TYPE, Next, Next),
        (IS, u32::from(libc::PACKET_OUTGOING), Next, Drop),
        (LOAD_HALF, PROTOCOL, Next, Next),
        (IS, ethertype(libc::ETH_P_IP), Next, V6),
        (LOAD_BYTE, V4_PROTOCOL, Next, Next),
        (IS, UDP, Next, Drop),
        (LOAD_WORD, V4_DESTINATION, Next, Next),
    ];
    if let Some(subnets) = wanted.broadcast {
        let subnets = subnets.iter().take(MOST_SUBNETS).map(|broadcast| u32::from(*broadcast));
        lines.extend(subnets.chain([BROADCAST]).map(|everybody| (IS, everybody, Accept, Next)));
    }
    lines.extend([(IS_AT_LEAST, RESERVED, Drop, Next), (IS_AT_LEAST, MULTICAST, groups, Drop)]);
    let v6 = lines.len();
    lines.extend([
        (IS, ethertype(libc::ETH_P_IPV6), Next, Drop),
        (LOAD_BYTE, V6_DESTINATION, Next, Next),
        (IS, 0xff, Next, Drop),
        (LOAD_BYTE, V6_NEXT_HEADER, Next, Next),
        (IS, UDP, groups, Next),
        (IS, FRAGMENT, groups, Drop),
    ]);
    let (accept, drop) = (lines.len(), lines.len() + 1);
    lines.extend([(RETURN, u32::MAX, Next, Next), (RETURN, 0, Next, Next)]);
    let jump = |line: usize, to: To| {
        let target = match to {
            Next => line + 1,
            V6 => v6,
            Accept => accept,
            Drop => drop,
        };
        u8::try_from(target - line - 1).expect("the program is short")
    };
    let assembled = lines.iter().enumerate().map(|(line, (code, operand, yes, no))| {
        let code = u16::try_from(*code).expect("operations are small numbers");
        (code, jump(line, *yes), jump(line, *no), *operand)
    });
    assembled.collect()
}

fn ethertype(protocol: libc::c_int) -> u32 {
    u32::try_from(protocol).expect("ethertypes are positive")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::tests::udp;

    /// Runs the program as the kernel does (linux/filter.h).
    fn accepts(program: &[Line], packet_type: u8, packet: &[u8]) -> bool {
        let protocol = if packet[0] >> 4 == 4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
        let (mut at, mut loaded) = (0, 0);
        loop {
            let (code, yes, no, operand) = program[at];
            let is_so = match u32::from(code) {
                LOAD_HALF | LOAD_BYTE | LOAD_WORD => {
                    loaded = match operand {
                        PACKET_TYPE => packet_type.into(),
                        PROTOCOL => ethertype(protocol),
                        V4_DESTINATION => u32::from_be_bytes(*packet[16..].first_chunk().unwrap()),
                        byte => packet[usize::try_from(byte).unwrap()].into(),
                    };
                    false
                }
                IS => loaded == operand,
                IS_AT_LEAST => loaded >= operand,
                RETURN => return operand != 0,
                other => panic!("{other:#x} is not in the program"),
            };
            at += 1 + usize::from(if is_so { yes } else { no });
        }
    }

    #[test]
    fn what_is_sent_to_everybody_is_seen_as_far_as_it_is_wanted_and_nothing_else() {
        let subnets = [Ipv4Addr::new(192, 0, 2, 255), Ipv4Addr::new(198, 51, 100, 255)];
        let (v4, v6) = ("192.0.2.1", "2001:db8::1");
        let broadcast = ["255.255.255.255", "192.0.2.255", "198.51.100.255"].map(|to| udp(v4, to));
        let multicast = [udp(v4, "224.0.2.60"), udp(v4, "239.255.255.255"), udp(v6, "ff02::1"), udp(v6, "ff15::7")];
        let others = [udp(v4, "192.0.2.2"), udp(v4, "203.0.113.255"), udp(v4, "240.0.0.1"), udp(v6, "2001:db8::2")];
        for (has_broadcast, has_multicast) in [(true, true), (true, false), (false, true), (false, false)] {
            let wanted = Wanted { multicast: has_multicast, broadcast: has_broadcast.then_some(&subnets[..]) };
            let program = program(wanted);
            for (packets, expected) in [(&broadcast[..], has_broadcast), (&multicast, has_multicast), (&others, false)]
            {
                for packet in packets {
                    assert_eq!(accepts(&program, libc::PACKET_OUTGOING, packet), expected, "{wanted:?}: {packet:?}");
                    assert!(!accepts(&program, libc::PACKET_BROADCAST, packet), "it came from outside");
                    let [mut tcp, mut piece] = [packet.clone(), packet.clone()];
                    (tcp[9], tcp[6]) = if packet[0] >> 4 == 4 { (6, tcp[6]) } else { (tcp[9], 6) };
                    assert!(!accepts(&program, libc::PACKET_OUTGOING, &tcp), "{packet:?}");
                    piece[6] = if packet[0] >> 4 == 4 { 0x20 } else { 44 };
                    assert_eq!(accepts(&program, libc::PACKET_OUTGOING, &piece), expected, "a piece of it");
                }
            }
        }
    }

    #[test]
    fn an_interface_of_many_subnets_has_a_program_all_the_same() {
        let subnets: Vec<Ipv4Addr> = (0..200).map(|n| Ipv4Addr::new(10, 0, n, 255)).collect();
        let program = program(Wanted { multicast: true, broadcast: Some(&subnets) });
        assert!(accepts(&program, libc::PACKET_OUTGOING, &udp("10.0.0.1", "10.0.31.255")));
        assert!(accepts(&program, libc::PACKET_OUTGOING, &udp("10.0.0.1", "255.255.255.255")));
    }
}
