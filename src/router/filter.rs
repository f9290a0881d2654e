//! What members may send to this machine's programs: everything, or what the user allows and the answers to what was asked.
//!
//! Connections by TCP begin with a SYN, so refusing that one to a port refuses the connection, and nothing need be
//! remembered. UDP has no beginning: a datagram passes if a program here sent something into the overlay from the port
//! that it is for, not long ago ([`Asked`]). ICMP passes: without it nobody sees why something does not work.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use etherparse::IpNumber;

use crate::wire::ip::{self, Upper};

/// Flags of a TCP header, RFC 9293 §3.1; the first segment of a connection has the first of the two alone.
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// The two protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Ports to which members may speak first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    tcp: Vec<RangeInclusive<u16>>,
    udp: Vec<RangeInclusive<u16>>,
}

impl Ports {
    /// These too.
    pub fn open(&mut self, protocol: Protocol, ports: RangeInclusive<u16>) {
        let list = match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
        };
        if !list.contains(&ports) {
            list.push(ports);
        }
    }

    /// As they are written in net.toml.
    pub fn entries(&self) -> Vec<String> {
        let of = |list: &[RangeInclusive<u16>], protocol| {
            let text = |range: &RangeInclusive<u16>| match range.clone().into_inner() {
                (first, last) if first == last => format!("{first}/{protocol}"),
                (first, last) => format!("{first}-{last}/{protocol}"),
            };
            list.iter().map(text).collect::<Vec<_>>()
        };
        [of(&self.tcp, "tcp"), of(&self.udp, "udp")].concat()
    }

    /// Whether a port is among them.
    pub fn has(&self, protocol: Protocol, port: u16) -> bool {
        let list = match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        };
        list.iter().any(|ports| ports.contains(&port))
    }
}

/// Which UDP ports of this machine something was sent from: a bit each, for now and for the time before, so that nothing
/// need be looked up, locked or timed on the way of a packet.
#[derive(Debug)]
pub struct Asked {
    times: [[AtomicU64; WORDS]; 2],
    current: AtomicUsize,
}

const WORDS: usize = (u16::MAX as usize + 1) / 64;

impl Default for Asked {
    fn default() -> Self {
        Self { times: [const { [const { AtomicU64::new(0) }; WORDS] }; 2], current: AtomicUsize::new(0) }
    }
}

impl Asked {
    fn note(&self, port: u16) {
        let word = &self.times[self.current.load(Relaxed) & 1][usize::from(port / 64)];
        let bit = 1 << (port % 64);
        // Whoever reads it only shares it: a port is noted once and then read a thousand times.
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    fn has(&self, port: u16) -> bool {
        self.times.iter().any(|time| time[usize::from(port / 64)].load(Relaxed) & (1 << (port % 64)) != 0)
    }

    fn turn(&self) {
        let next = (self.current.load(Relaxed) + 1) & 1;
        self.times[next].iter().for_each(|word| word.store(0, Relaxed));
        self.current.store(next, Relaxed);
    }
}

/// See the module's documentation. Its clones share what was asked.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None`: everything is let in.
    rules: Option<(Ports, Arc<Asked>)>,
}

impl Filter {
    /// Lets in everything.
    pub const EVERYTHING: Self = Self { rules: None };

    /// Lets in what is for these ports, and answers; `None`: everything. What was asked before stays asked.
    #[must_use]
    pub fn with(&self, ports: Option<Ports>) -> Self {
        let asked = || self.rules.as_ref().map(|(_, asked)| asked.clone()).unwrap_or_default();
        Self { rules: ports.map(|ports| (ports, asked())) }
    }

    /// To be called at regular times: an answer is let in at the time in which it was asked for, and at the next.
    pub fn turn(&self) {
        self.rules.iter().for_each(|(_, asked)| asked.turn());
    }

    /// A program here sends this packet into the overlay.
    pub fn sent(&self, packet: &[u8]) {
        let Some((_, asked)) = &self.rules else { return };
        if let Some(Upper { protocol: IpNumber::UDP, later: false, bytes: [high, low, ..] }) = ip::upper(packet) {
            asked.note(u16::from_be_bytes([*high, *low]));
        }
    }

    /// Whether a member's packet is let in.
    pub fn admits(&self, packet: &[u8]) -> bool {
        let Some((ports, asked)) = &self.rules else { return true };
        let Some(upper) = ip::upper(packet) else { return false };
        match (upper.protocol, upper.bytes) {
            // Without the beginning, which came or did not come before, it is nothing; and what overlaps the beginning is
            // not taken by the kernel (RFC 5722).
            (IpNumber::TCP | IpNumber::UDP, _) if upper.later => true,
            (IpNumber::TCP, &[_, _, high, low, _, _, _, _, _, _, _, _, _, flags, ..]) => {
                flags & SYN_ACK != SYN || ports.has(Protocol::Tcp, u16::from_be_bytes([high, low]))
            }
            (IpNumber::UDP, &[_, _, high, low, ..]) => {
                let port = u16::from_be_bytes([high, low]);
                ports.has(Protocol::Udp, port) || asked.has(port)
            }
            (IpNumber::ICMP | IpNumber::IPV6_ICMP, _) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    const ME: [u8; 4] = [10, 77, 0, 9];
    const BOB: [u8; 4] = [10, 77, 0, 2];

    fn udp(source: u16, destination: u16) -> Vec<u8> {
        let mut out = Vec::new();
        PacketBuilder::ipv4(BOB, ME, 64).udp(source, destination).write(&mut out, b"payload").expect("a vector");
        out
    }

    fn tcp(destination: u16, flags: &str) -> Vec<u8> {
        let mut step = PacketBuilder::ipv6([2; 16], [3; 16], 64).tcp(50_000, destination, 7, 1_000);
        for flag in flags.chars() {
            step = match flag {
                's' => step.syn(),
                'a' => step.ack(1),
                _ => step.rst(),
            };
        }
        let mut out = Vec::new();
        step.write(&mut out, b"").expect("a vector");
        out
    }

    fn filter() -> Filter {
        let mut ports = Ports::default();
        ports.open(Protocol::Tcp, 25_565..=25_565);
        ports.open(Protocol::Udp, 27_015..=27_020);
        Filter::default().with(Some(ports))
    }

    #[test]
    fn without_rules_everything_is_let_in() {
        let filter = Filter::default();
        assert!(filter.admits(&udp(1, 2)) && filter.admits(&tcp(22, "s")) && filter.admits(b"no packet"));
    }

    #[test]
    fn only_an_allowed_port_takes_a_connection() {
        let filter = filter();
        assert!(filter.admits(&tcp(25_565, "s")) && !filter.admits(&tcp(22, "s")));
        for of_a_connection in ["sa", "a", "r", "ra", ""] {
            assert!(filter.admits(&tcp(22, of_a_connection)), "{of_a_connection}");
        }
        assert!(!filter.admits(&tcp(27_015, "s")), "that one is UDP's");
    }

    #[test]
    fn a_datagram_is_for_an_allowed_port_or_an_answer() {
        let filter = filter();
        assert!(filter.admits(&udp(1, 27_016)) && !filter.admits(&udp(27_016, 40_000)));
        filter.sent(&udp(40_000, 27_016));
        assert!(filter.admits(&udp(27_016, 40_000)) && !filter.admits(&udp(27_016, 40_001)));
        filter.turn();
        assert!(filter.admits(&udp(27_016, 40_000)), "asked in the time before");
        filter.sent(&udp(40_000, 27_016));
        filter.turn();
        assert!(filter.admits(&udp(27_016, 40_000)), "asked again");
        filter.turn();
        assert!(!filter.admits(&udp(27_016, 40_000)), "long ago");
    }

    #[test]
    fn other_rules_keep_what_was_asked() {
        let before = filter();
        before.sent(&udp(40_000, 1));
        let after = before.with(Some(Ports::default()));
        assert!(after.admits(&udp(1, 40_000)) && !after.admits(&udp(1, 27_016)));
        assert!(after.with(None).admits(&udp(1, 27_016)));
    }

    #[test]
    fn icmp_passes_and_what_has_no_ports_does_not() {
        let filter = filter();
        let mut ping = Vec::new();
        let builder = PacketBuilder::ipv4(BOB, ME, 64).icmpv4_echo_request(1, 1);
        builder.write(&mut ping, b"").expect("a vector");
        assert!(filter.admits(&ping));
        ping[9] = IpNumber::GRE.0;
        assert!(!filter.admits(&ping) && !filter.admits(b"no packet"));
    }

    #[test]
    fn a_connection_does_not_slip_in_by_fragments() {
        let filter = filter();
        let mut first = udp(1, 40_000);
        first[6] |= 0x20; // more fragments
        assert!(!filter.admits(&first));
        let mut later = udp(1, 40_000);
        later[7] = 1; // 8 bytes further on
        assert!(filter.admits(&later), "nothing without its beginning");
        let mut short = Vec::new();
        let builder = PacketBuilder::ipv4(BOB, ME, 64).tcp(1, 25_565, 7, 1_000).syn();
        builder.write(&mut short, b"").expect("a vector");
        short.truncate(20 + 8);
        short[3] = 28;
        short[6] |= 0x20;
        assert!(!filter.admits(&short), "a beginning without its flags");
    }
}
