//! A long or a bad way: the core routes its packets through a TUN device, where they wait, and where some are lost, come
//! twice or come late.
//!
//! One thread takes packets in and notes when each is due, the other waits and sends them on. The kernel cuts trains of
//! datagrams before they come here, so each has a fate of its own. As in [`super::nat_router`], the second way through
//! the kernel costs a packet no hop.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sans::Seed;
use anyhow::Result;
use etherparse::Ipv4Header;

use super::netns::{self, Namespace};

/// What becomes of packets on their way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// Each takes so long.
    pub delay: Duration,
    /// Of a thousand, so many are lost…
    pub lost: u64,
    /// …so many come twice…
    pub doubled: u64,
    /// …and so many come later than that by as much again as `late_by`, and are overtaken.
    pub late: u64,
    /// See there.
    pub late_by: Duration,
}

/// A line at work. Dropped, packets take the short way again.
#[derive(Debug)]
pub struct LineAtWork {
    namespace: String,
    threads: Vec<JoinHandle<()>>,
}

impl LineAtWork {
    /// From now on everything that comes into `core` through one of these interfaces goes this way.
    pub fn start(core: &Namespace, interfaces: &[String], line: Line) -> Result<Self> {
        let device = Arc::new(core.enter(|| tun::create(tun::configure().tun_name("line").mtu(1500).up()))??);
        for (family, default) in [("inet", "0.0.0.0/0"), ("inet6", "::/0")] {
            core.ip(&format!("route add {default} dev line table 100"))?;
            for interface in interfaces {
                let rule = ["-netns", core.name(), "-family", family, "rule", "add", "iif", interface, "lookup", "100"];
                netns::run(Command::new("ip").args(rule))?;
            }
        }
        let (waiting, due) = mpsc::channel();
        let (input, output) = (device.clone(), device);
        let threads = vec![
            std::thread::spawn(move || take_in(&input, line, &waiting)),
            std::thread::spawn(move || send_on(&output, &due)),
        ];
        Ok(Self { namespace: core.name().to_owned(), threads })
    }
}

impl Drop for LineAtWork {
    fn drop(&mut self) {
        // Without its device the first thread's read fails; it ends, and with its channel the second.
        let gone = netns::run(Command::new("ip").args(["-netns", &self.namespace, "link", "delete", "line"]));
        if gone.is_ok() {
            for thread in self.threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

fn take_in(device: &tun::Device, line: Line, waiting: &Sender<(Instant, Vec<u8>)>) {
    let (mut buffer, mut rng) = (vec![0; 65_536], Seed::from_u64(1).rng());
    let mut happens = |per_mille: u64| rng.u64() % 1000 < per_mille;
    while let Ok(length) = device.recv(&mut buffer) {
        let Some(packet) = give_hop_back(&buffer[..length]) else { continue };
        if happens(line.lost) {
            continue;
        }
        let late = if happens(line.late) { line.late_by } else { Duration::ZERO };
        let at = Instant::now() + line.delay + late;
        let copy = happens(line.doubled).then(|| packet.clone());
        for packet in [Some(packet), copy].into_iter().flatten() {
            if waiting.send((at, packet)).is_err() {
                return;
            }
        }
    }
}

fn send_on(device: &tun::Device, taken_in: &Receiver<(Instant, Vec<u8>)>) {
    let mut waiting = BTreeMap::new();
    for number in 0_u64.. {
        let next = waiting.first_key_value().map(|((at, _), _)| *at);
        let pause = next.map_or(Duration::MAX, |at: Instant| at.saturating_duration_since(Instant::now()));
        match taken_in.recv_timeout(pause) {
            Ok((at, packet)) => drop(waiting.insert((at, number), packet)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(entry) = waiting.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
            // A full queue loses packets, as on any line.
            let _ = device.send(&entry.remove());
        }
    }
}

/// The packet with the hop that it is about to lose once more.
fn give_hop_back(packet: &[u8]) -> Option<Vec<u8>> {
    let mut copy = packet.to_vec();
    match packet.first()? >> 4 {
        4 => {
            let (mut ip, payload) = Ipv4Header::from_slice(packet).ok()?;
            ip.time_to_live = ip.time_to_live.checked_add(1)?;
            ip.header_checksum = ip.calc_header_checksum();
            copy = [&ip.to_bytes()[..], payload].concat();
        }
        6 => {
            let hop_limit = copy.get_mut(7)?;
            *hop_limit = hop_limit.checked_add(1)?;
        }
        _ => return None,
    }
    Some(copy)
}
