//! A link between two namespaces that does nothing for the kernel: two TUN devices without any offload, and a thread for
//! each direction. What crosses it is what the kernel itself has cut and summed, and is looked at.

use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::netns::{self, Namespace};

/// A cable at work. Dropped, it is gone.
#[derive(Debug)]
pub struct Cable {
    namespaces: [String; 2],
    threads: Vec<JoinHandle<()>>,
    seen: Arc<Seen>,
}

/// What crossed a cable.
#[derive(Debug, Default)]
struct Seen {
    right: AtomicU64,
    /// The first packets that were not as they must be, and why.
    wrong: Mutex<Vec<String>>,
}

impl Cable {
    /// Lays it between two machines: each end is called `cable`, and has these addresses.
    pub fn lay(ends: [(&Namespace, &[&str]); 2]) -> Result<Self> {
        let mut devices = Vec::new();
        for (namespace, addresses) in ends {
            let device = namespace.enter(|| tun::create(tun::configure().tun_name("cable").mtu(1400).up()))??;
            for address in addresses {
                namespace.ip(&format!("address add {address} dev cable"))?;
            }
            devices.push(Arc::new(device));
        }
        let seen = Arc::<Seen>::default();
        let threads = [(0, 1), (1, 0)].map(|(from, to)| {
            let (from, to, seen) = (devices[from].clone(), devices[to].clone(), seen.clone());
            std::thread::spawn(move || carry(&from, &to, &seen))
        });
        Ok(Self { namespaces: ends.map(|(n, _)| n.name().to_owned()), threads: threads.into(), seen })
    }

    /// How many packets of TCP and UDP crossed it with right checksums; what was wrong with others.
    pub fn seen(&self) -> (u64, Vec<String>) {
        let wrong = self.seen.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        (self.seen.right.load(Ordering::Relaxed), wrong.clone())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // Without their devices the threads' reads fail, and the threads end.
        let gone = self.namespaces.each_ref().map(|namespace| {
            netns::run(Command::new("ip").args(["-netns", namespace, "link", "delete", "cable"])).is_ok()
        });
        if gone == [true; 2] {
            for thread in self.threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

fn carry(from: &tun::Device, to: &tun::Device, seen: &Seen) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length) = from.recv(&mut buffer) {
        let packet = &buffer[..length];
        match check(packet) {
            Ok(0) => {}
            Ok(packets) => drop(seen.right.fetch_add(packets, Ordering::Relaxed)),
            Err(error) => {
                let mut wrong = seen.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                if wrong.len() < 5 {
                    wrong.push(format!("{error}: {:02x?}", &packet[..length.min(80)]));
                }
            }
        }
        // A full queue loses packets, as on any line.
        let _ = to.send(packet);
    }
}

/// 1 if these are TCP or UDP with right checksums, 0 if they are something else.
fn check(packet: &[u8]) -> Result<u64> {
    let sliced = SlicedPacket::from_ip(packet)?;
    let (source, destination): (IpAddr, IpAddr) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let sum = header.to_header().calc_header_checksum();
            anyhow::ensure!(header.header_checksum() == sum, "IPv4 checksum, which should be {sum:04x}");
            (header.source_addr().into(), header.destination_addr().into())
        }
        Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        _ => return Ok(0),
    };
    let (had, right) = match (&sliced.transport, source, destination) {
        (Some(TransportSlice::Tcp(tcp)), IpAddr::V4(a), IpAddr::V4(b)) => {
            (tcp.checksum(), tcp.calc_checksum_ipv4(a.octets(), b.octets())?)
        }
        (Some(TransportSlice::Tcp(tcp)), IpAddr::V6(a), IpAddr::V6(b)) => {
            (tcp.checksum(), tcp.calc_checksum_ipv6(a.octets(), b.octets())?)
        }
        (Some(TransportSlice::Udp(udp)), IpAddr::V4(a), IpAddr::V4(b)) => {
            (udp.checksum(), udp.to_header().calc_checksum_ipv4_raw(a.octets(), b.octets(), udp.payload())?)
        }
        (Some(TransportSlice::Udp(udp)), IpAddr::V6(a), IpAddr::V6(b)) => {
            (udp.checksum(), udp.to_header().calc_checksum_ipv6_raw(a.octets(), b.octets(), udp.payload())?)
        }
        _ => return Ok(0),
    };
    anyhow::ensure!(had == right, "checksum {had:04x}, which should be {right:04x}");
    Ok(1)
}
