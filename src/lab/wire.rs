//! What crossed the core: every packet that came into it, with its time. Whether two peers talk directly is
//! decided here, by counting, and never asked of a daemon.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use etherparse::{IpNumber, NetSlice, SlicedPacket, TcpHeader};
use nix::sys::socket::{self, AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, sockopt};
use nix::sys::time::TimeVal;

use super::Lab;
use super::netns::Namespace;
use crate::wire::stream;

/// A packet on its way through the core.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When it came in.
    pub at: Instant,
    /// Its source.
    pub from: IpAddr,
    /// Its destination.
    pub to: IpAddr,
    /// The whole of it, from the IP header on.
    pub bytes: Vec<u8>,
}

/// A running capture.
#[derive(Debug)]
pub struct Wire {
    packets: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Starts to listen on all interfaces of the core.
    pub fn tap(lab: &Lab) -> Result<Self> {
        Self::tap_at(&lab.core)
    }

    /// The same of another router.
    pub fn tap_at(router: &Namespace) -> Result<Self> {
        let tap = router.enter(|| {
            socket::socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll)
        })??;
        socket::setsockopt(&tap, sockopt::RcvBufForce, &(64 << 20))?;
        socket::setsockopt(&tap, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))?;
        let (packets, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (shared, until) = (packets.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 17];
            while !until.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket::recvfrom::<LinkAddr>(tap.as_raw_fd(), &mut buffer) else { continue };
                // A delay line's device is no Ethernet; what passes it was seen before.
                if from.is_some_and(|from| from.pkttype() == INCOMING && from.hatype() == ETHERNET)
                    && let Some(packet) = Packet::parse(&buffer[..length])
                {
                    lock(&shared).push(packet);
                }
            }
        });
        Ok(Self { packets, stop, thread: Some(thread) })
    }

    /// What came by so far.
    pub fn packets(&self) -> Vec<Packet> {
        lock(&self.packets).clone()
    }

    /// Forgets what came by so far.
    pub fn clear(&self) {
        lock(&self.packets).clear();
    }

    /// Packets between these two, by all of their addresses, whose length is in `lengths`, since the last
    /// `clear`.
    pub fn count(&self, a: &[IpAddr], b: &[IpAddr], lengths: std::ops::Range<usize>) -> Count {
        let packets = lock(&self.packets);
        let way = |from: &[IpAddr], to: &[IpAddr]| -> Vec<Instant> {
            let of_way = |packet: &&Packet| from.contains(&packet.from) && to.contains(&packet.to);
            let of_interest = packets.iter().filter(of_way);
            of_interest.flat_map(|packet| std::iter::repeat_n(packet.at, packet.datagrams(&lengths))).collect()
        };
        Count { there: way(a, b), back: way(b, a) }
    }
}

/// When packets of interest crossed.
#[derive(Clone, Debug)]
pub struct Count {
    /// From the first host to the second.
    pub there: Vec<Instant>,
    /// From the second to the first.
    pub back: Vec<Instant>,
}

impl Count {
    /// When traffic was first seen in both directions.
    pub fn both_ways_since(&self) -> Option<Instant> {
        Some(*self.there.first()?.max(self.back.first()?))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Packet {
    fn parse(frame: &[u8]) -> Option<Self> {
        let at = Instant::now();
        let ethernet_header = 14;
        let (from, to) = match SlicedPacket::from_ethernet(frame).ok()?.net? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => return None,
        };
        Some(Self { at, from, to, bytes: frame.get(ethernet_header..)?.to_vec() })
    }

    /// How many datagrams of such a length it is, or carries: several that left together cross as one. Those are equally long,
    /// and begin alike: of one kind, to one index or channel.
    fn datagrams(&self, lengths: &std::ops::Range<usize>) -> usize {
        if self.is_tcp() {
            return self.datagrams_of_stream(lengths);
        }
        if lengths.contains(&self.bytes.len()) {
            return 1;
        }
        let header = UDP_HEADER + if self.from.is_ipv4() { 20 } else { 40 };
        let payload = self.bytes.get(header..).unwrap_or_default();
        let alike =
            |size: usize| payload.chunks(size).all(|part| part.len() == size && part.get(..4) == payload.get(..4));
        let is_made_of = |count: &usize| {
            let size = payload.len() / count;
            size > 0 && lengths.contains(&(header + size)) && alike(size)
        };
        (2..=TRAIN).find(is_made_of).unwrap_or(0)
    }

    fn is_tcp(&self) -> bool {
        let protocol = if self.from.is_ipv4() { self.bytes.get(9) } else { self.bytes.get(6) };
        protocol == Some(&IpNumber::TCP.0)
    }

    /// Of a stream's: those that begin and end in it. Each is as long as it would be by UDP.
    fn datagrams_of_stream(&self, lengths: &std::ops::Range<usize>) -> usize {
        let header = if self.from.is_ipv4() { 20 } else { 40 };
        let Some((_, payload)) = self.bytes.get(header..).and_then(|tcp| TcpHeader::from_slice(tcp).ok()) else {
            return 0;
        };
        let whole = stream::whole(payload).unwrap_or(0);
        let of_interest = |datagram: &&mut [u8]| lengths.contains(&(header + UDP_HEADER + datagram.len()));
        stream::datagrams(&mut payload[..whole].to_vec()).filter(of_interest).count()
    }

    /// Whether it contains these bytes anywhere.
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.bytes.windows(needle.len()).any(|window| window == needle)
    }
}

/// `PACKET_HOST` of packet(7): sent to us by somebody else, and so seen once on its way.
const INCOMING: u8 = 0;
const UDP_HEADER: usize = 8;
/// Datagrams that leave together, at most.
const TRAIN: usize = 64;
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;

fn lock(packets: &Mutex<Vec<Packet>>) -> MutexGuard<'_, Vec<Packet>> {
    packets.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Long enough for packets in flight to reach the tap.
pub const SETTLE: Duration = Duration::from_millis(100);
