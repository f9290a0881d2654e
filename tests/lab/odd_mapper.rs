//! Routers that map ports: Debian's miniupnpd, and those that nobody should have.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use punchlan::lab::Site;
pub use punchlan::lab::mapper::{Mapper, Offer};

/// What an odd router says to PCP and NAT-PMP.
#[derive(Clone, Copy, Debug)]
pub enum Odd {
    /// It speaks NAT-PMP alone, and has this address outside; no port is mapped.
    NatPmp(Ipv4Addr),
    /// It answers whatever comes with something else.
    Rubbish,
    /// It takes everything and never answers.
    Silent,
}

/// An odd router at work. Dropped, it ends.
#[derive(Debug)]
pub struct OddMapper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl OddMapper {
    /// Starts it on a site's router.
    pub fn start(site: &Site, odd: Odd) -> Result<Self> {
        let socket = site.router.enter(|| UdpSocket::bind("0.0.0.0:5351"))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut request = [0; 1_500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut request) else { continue };
                for answer in odd.answers(&request[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for OddMapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Odd {
    fn answers(self, request: &[u8]) -> Vec<Vec<u8>> {
        match (self, request) {
            (Self::Silent, _) => Vec::new(),
            (Self::Rubbish, _) => {
                let cut = |length: usize| request.iter().map(|byte| byte ^ 0x80).take(length).collect();
                vec![cut(1), vec![0xff; 1_400], cut(60), Vec::new()]
            }
            // RFC 6886 §3.2: 0 | 128 | result | epoch | address.
            (Self::NatPmp(address), [0, 0]) => vec![[&[0, 128, 0, 0, 0, 0, 1, 0][..], &address.octets()].concat()],
            // §3.3: 0 | 129 | result | epoch | port inside | port outside | seconds.
            (Self::NatPmp(_), [0, 1, _, _, port @ .., _, _, _, _, _, _]) if port.len() == 2 => {
                let lifetime = &request[8..12];
                vec![[&[0, 129, 0, 0, 0, 0, 1, 0][..], port, port, lifetime].concat()]
            }
            // §3.5: another version.
            (Self::NatPmp(_), _) => vec![vec![0, 128, 0, 1, 0, 0, 1, 0]],
        }
    }
}
