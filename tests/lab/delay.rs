//! A long way: the core routes its packets through a TUN device, where they wait.
//!
//! One thread takes packets in and notes when each is due, the other waits and sends them on, in order. As in
//! [`super::nat_router`], the second way through the kernel costs a packet no hop.

use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use etherparse::Ipv4Header;

use super::netns::{self, Namespace};

/// A delay at work. Dropped, packets take the short way again.
#[derive(Debug)]
pub struct DelayLine {
    namespace: String,
    threads: Vec<JoinHandle<()>>,
}

impl DelayLine {
    /// From now on everything that comes into `core` through one of these interfaces waits for `delay`.
    pub fn start(core: &Namespace, interfaces: &[String], delay: Duration) -> Result<Self> {
        let device = Arc::new(core.enter(|| tun::create(tun::configure().tun_name("delay").mtu(1500).up()))??);
        for (family, default) in [("inet", "0.0.0.0/0"), ("inet6", "::/0")] {
            core.ip(&format!("route add {default} dev delay table 100"))?;
            for interface in interfaces {
                let rule = ["-netns", core.name(), "-family", family, "rule", "add", "iif", interface, "lookup", "100"];
                netns::run(Command::new("ip").args(rule))?;
            }
        }
        let (waiting, due) = mpsc::channel();
        let (input, output) = (device.clone(), device);
        let threads = vec![
            std::thread::spawn(move || take_in(&input, delay, &waiting)),
            std::thread::spawn(move || send_on(&output, &due)),
        ];
        Ok(Self { namespace: core.name().to_owned(), threads })
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        // Without its device the first thread's read fails; it ends, and with its channel the second.
        let gone = netns::run(Command::new("ip").args(["-netns", &self.namespace, "link", "delete", "delay"]));
        if gone.is_ok() {
            for thread in self.threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

fn take_in(device: &tun::Device, delay: Duration, waiting: &Sender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length) = device.recv(&mut buffer) {
        if let Some(packet) = give_hop_back(&buffer[..length])
            && waiting.send((Instant::now() + delay, packet)).is_err()
        {
            return;
        }
    }
}

fn send_on(device: &tun::Device, due: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((at, packet)) = due.recv() {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        // A full queue loses packets, as on any line.
        let _ = device.send(&packet);
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
