//! Who sent a packet to everybody: a socket that is bound to nothing but a port means whoever there is, one that is bound
//! to an address or to an interface means those there alone. The kernel is asked by the source port (sock_diag(7)), which
//! takes no rights.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use nix::libc;
use rtnetlink::sys::constants::NETLINK_SOCK_DIAG;
use rtnetlink::sys::{Socket, SocketAddr};

use crate::sans::{Instant, RateLimit};

/// So long an answer is believed: programs that announce themselves do so again and again by one socket.
const BELIEVED: Duration = Duration::from_secs(1);
/// More ports than these begin anew.
const MOST: usize = 256;
/// Questions a second, and at once: the kernel looks through all sockets for an answer. What comes from still other ports
/// is of nobody's game.
const ASKED: u32 = 50;

/// Requests and answers (linux/inet_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
/// IPv6 (RFC 8200 §3, §4.5).
const V6_HEADER: usize = 40;
const FRAGMENT: u8 = 44;
const FRAGMENT_HEADER: usize = 8;

/// Who sends from which port.
#[derive(Debug)]
pub struct Senders {
    kernel: Socket,
    known: BTreeMap<(Family, u16), (Instant, bool)>,
    /// The answer for the packet before: later pieces of a datagram say no port.
    last: bool,
    asks: RateLimit,
}

/// What a packet is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    /// IPv4; sockets of IPv6 send it too.
    V4,
    /// IPv6.
    V6,
}

impl Senders {
    /// Nobody is known yet.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn open() -> io::Result<Self> {
        let mut kernel = Socket::new(NETLINK_SOCK_DIAG)?;
        kernel.bind_auto()?;
        kernel.connect(&SocketAddr::new(0, 0))?;
        // It answers at once, or not at all.
        kernel.set_non_blocking(true)?;
        Ok(Self { kernel, known: BTreeMap::new(), last: false, asks: RateLimit::new(ASKED, ASKED) })
    }

    /// Whether a packet of UDP that this machine sent is for everybody. Where nobody has its port any more, nobody waits for
    /// answers: it is not.
    pub fn mean_everybody(&mut self, now: Instant, packet: &[u8]) -> bool {
        match source(packet) {
            Some((family, Some(port))) => self.last = self.means_everybody(now, family, port),
            Some((_, None)) => {}
            None => return false,
        }
        self.last
    }

    fn means_everybody(&mut self, now: Instant, family: Family, port: u16) -> bool {
        if let Some((asked, everybody)) = self.known.get(&(family, port))
            && now - *asked < BELIEVED
        {
            return *everybody;
        }
        if !self.asks.allow(now) {
            return false;
        }
        let everybody = self.ask(family, port).unwrap_or_else(|error| {
            // It knows nothing of UDP's sockets: better too many hear it than too few.
            tracing::debug!(%error, port, "whose packet it is cannot be asked");
            true
        });
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert((family, port), (now, everybody));
        everybody
    }

    fn ask(&self, family: Family, port: u16) -> io::Result<bool> {
        let families: &[libc::c_int] = match family {
            Family::V4 => &[libc::AF_INET, libc::AF_INET6],
            Family::V6 => &[libc::AF_INET6],
        };
        let mut everybody = false;
        for family in families {
            self.kernel.send(&request(u8::try_from(*family).expect("families are small numbers"), port), 0)?;
            while !self.read_answer(port, &mut everybody)? {}
        }
        Ok(everybody)
    }

    /// Reads a part of an answer; whether it was the last.
    fn read_answer(&self, port: u16, everybody: &mut bool) -> io::Result<bool> {
        let (bytes, _) = self.kernel.recv_from_full()?;
        let mut rest = &bytes[..];
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => return Err(error(body)),
                _ => *everybody |= is_unbound(body, port).unwrap_or(false),
            }
            rest = next;
        }
        Ok(false)
    }
}

/// Where a packet of UDP is from; a later piece of a datagram says no port.
fn source(packet: &[u8]) -> Option<(Family, Option<u16>)> {
    let port = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    match packet.first()? >> 4 {
        4 => {
            let (header, piece) = (usize::from(packet[0] & 0xf) * 4, port(6)? & 0x1fff);
            Some((Family::V4, if piece == 0 { Some(port(header)?) } else { None }))
        }
        6 if *packet.get(6)? == FRAGMENT => {
            let piece = port(V6_HEADER + 2)? & 0xfff8;
            Some((Family::V6, if piece == 0 { Some(port(V6_HEADER + FRAGMENT_HEADER)?) } else { None }))
        }
        6 => Some((Family::V6, Some(port(V6_HEADER)?))),
        _ => None,
    }
}

/// Asks for all UDP sockets of this port: `nlmsghdr` and `inet_diag_req_v2`.
fn request(family: u8, port: u16) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[0..4].copy_from_slice(&u32::try_from(REQUEST).expect("short").to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes[HEADER] = family;
    bytes[HEADER + 1] = u8::try_from(libc::IPPROTO_UDP).expect("protocols are small numbers");
    let (states, source_port) = (HEADER + 4, HEADER + 8);
    bytes[states..states + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes[source_port..source_port + 2].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// The first message: its kind, its body and what comes after it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn error(body: &[u8]) -> io::Error {
    let number = body.first_chunk().map_or(0, |number| i32::from_ne_bytes(*number));
    io::Error::from_raw_os_error(number.saturating_neg())
}

/// Whether a socket, an `inet_diag_msg`, has this port, and neither an address nor an interface.
fn is_unbound(socket: &[u8], port: u16) -> Option<bool> {
    let (source_port, source, interface) = (socket.get(4..6)?, socket.get(8..24)?, socket.get(40..44)?);
    let nothing = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    Some(source_port == port.to_be_bytes() && nothing(source) && nothing(interface))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

    use super::*;
    use crate::io::clock;

    fn means_everybody(family: Family, socket: &UdpSocket) -> bool {
        let port = socket.local_addr().unwrap().port();
        Senders::open().unwrap().means_everybody(clock::now(), family, port)
    }

    #[test]
    fn who_is_bound_to_nothing_means_everybody_and_who_is_bound_somewhere_those_there() {
        let unbound = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        assert!(means_everybody(Family::V4, &unbound) && !means_everybody(Family::V6, &unbound));
        let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!means_everybody(Family::V4, &bound));
        let of_both = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        assert!(means_everybody(Family::V4, &of_both) && means_everybody(Family::V6, &of_both));
        let bound = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        assert!(!means_everybody(Family::V6, &bound));
    }

    #[test]
    fn an_answer_is_believed_for_a_moment_and_a_port_that_is_nobodys_means_nobody() {
        let (mut senders, now) = (Senders::open().unwrap(), clock::now());
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(senders.means_everybody(now, Family::V4, port));
        drop(socket);
        assert!(senders.means_everybody(now, Family::V4, port));
        assert!(!senders.means_everybody(now + BELIEVED, Family::V4, port));
        for port in 0..=u16::try_from(MOST).unwrap() {
            senders.known.insert((Family::V6, port), (now, false));
        }
        senders.means_everybody(now + BELIEVED, Family::V4, 1);
        assert!(senders.known.len() <= MOST);
    }

    #[test]
    fn who_takes_a_new_port_for_every_packet_has_the_kernel_look_through_its_sockets_so_often_alone() {
        let (mut senders, now) = (Senders::open().unwrap(), clock::now());
        let sockets: Vec<UdpSocket> =
            (0..=ASKED).map(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap()).collect();
        let ports = sockets.iter().map(|socket| socket.local_addr().unwrap().port());
        let heard = ports.filter(|port| senders.means_everybody(now, Family::V4, *port)).count();
        assert_eq!(heard, usize::try_from(ASKED).unwrap());
    }

    #[test]
    fn pieces_of_a_datagram_are_its_senders() {
        let mut senders = Senders::open().unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let mut packet = [[0x45; 20], [0; 20]].concat();
        packet[20..22].copy_from_slice(&socket.local_addr().unwrap().port().to_be_bytes());
        let mut hears = |senders: &mut Senders, piece: [u8; 2]| {
            packet[6..8].copy_from_slice(&piece);
            senders.mean_everybody(clock::now(), &packet)
        };
        assert!(!hears(&mut senders, [0, 185]), "the first was not heard");
        assert!(hears(&mut senders, [0x20, 0]) && hears(&mut senders, [0x20, 185]) && hears(&mut senders, [1, 114]));
        let mut senders = Senders::open().unwrap();
        for nonsense in [&[][..], &[0x45], &[0x4f; 20], &[0x60; 41], &[0x10; 60]] {
            assert!(!senders.mean_everybody(clock::now(), nonsense), "{nonsense:?}");
        }
    }

    #[test]
    fn answers_that_are_cut_short_say_nothing() {
        let mut answer = request(2, 7).to_vec();
        for cut in 0..answer.len() {
            assert!(message(&answer[..cut]).is_none(), "{cut}");
        }
        assert!(message(&answer).is_some());
        answer[0..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert!(message(&answer).is_none() && is_unbound(&[0; 43], 0).is_none());
    }
}
