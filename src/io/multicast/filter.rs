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
        SockFilter::new(code, jump(line, *yes), jump(line, *no), *operand)
    });
    assembled.collect()
}

fn ethertype(protocol: libc::c_int) -> u32 {
    u32::try_from(protocol).expect("ethertypes are positive")
}
