//! The NATs that Linux cannot do, in user space: a thread in the router's namespace that translates what the
//! kernel routes into a TUN device, by [`crate::nat::model`].
//!
//! ```text
//!    lan ──▶ kernel ──▶ tun ──▶ outbound ──▶ tun ──▶ kernel ──▶ wan      everything from the LAN
//!    lan ◀── kernel ◀── tun ◀── inbound ◀─── tun ◀── kernel ◀── wan      everything to the public address
//! ```
//!
//! The public address is not the router's own, so the kernel never answers for it. UDP and TCP are translated by
//! ports, ICMP echo by identifiers; everything else, and fragments, are dropped. Of TCP a mapping ends as any other does, with
//! silence. A packet crosses the kernel
//! twice but counts one hop, as in any other router: its TTL is given back. Where it is a carrier's NAT it stands behind
//! the router of a home, and hosts there have one hop more than others: a TTL of 2 ends before it, unseen, and one of 3
//! dies in the core.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::sans::{Instant, Seed};
use anyhow::Result;
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, IpNumber, Ipv4Header, TcpHeader, UdpHeader};
use ipnet::Ipv4Net;

use super::netns::Namespace;
use crate::io::clock;
use crate::nat::model::{Nat, NatConfig};

/// What carriers number homes from (RFC 6598).
const CARRIER: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// A user-space NAT at work. Dropped, it stops.
#[derive(Debug)]
pub struct NatRouter {
    translator: Arc<Mutex<Translator>>,
    namespace: String,
    thread: Option<JoinHandle<()>>,
}

impl NatRouter {
    /// Starts translating in `router`, between its LAN and `public`.
    pub fn start(router: &Namespace, config: NatConfig, public: Ipv4Addr) -> Result<Self> {
        let device = router.enter(|| tun::create(tun::configure().tun_name("nat").mtu(1500).up()))??;
        router.ip("rule add iif lan lookup 100
             rule add iif wan to PUBLIC lookup 100
             route add default dev nat table 100"
            .replace("PUBLIC", &public.to_string())
            .as_str())?;
        let translator = Arc::new(Mutex::new(Translator::new(config, public)));
        let shared = translator.clone();
        let thread = router.spawn(move || translate_all(&device, &shared))?;
        Ok(Self { translator, namespace: router.name().to_owned(), thread: Some(thread) })
    }

    /// Gets another public address, which must be routed here, and loses all mappings.
    pub fn set_public(&self, router: &Namespace, public: Ipv4Addr) -> Result<()> {
        router.ip(&format!("rule add iif wan to {public} lookup 100"))?;
        let mut translator = self.translator.lock().unwrap_or_else(PoisonError::into_inner);
        translator.public = public;
        translator.all().for_each(|nat| nat.set_external(public.into()));
        Ok(())
    }

    /// Loses all mappings, as a router that was restarted.
    pub fn forget(&self) {
        let mut translator = self.translator.lock().unwrap_or_else(PoisonError::into_inner);
        translator.all().for_each(Nat::forget);
    }
}

impl Drop for NatRouter {
    fn drop(&mut self) {
        // Without its device the thread's read fails, and the thread ends.
        let delete = ["-netns", &self.namespace, "link", "delete", "nat"];
        let gone = super::netns::run(std::process::Command::new("ip").args(delete));
        if let (Ok(_), Some(thread)) = (gone, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn translate_all(device: &tun::Device, translator: &Mutex<Translator>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let packet = match device.recv(&mut buffer) {
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let translated = {
            let mut translator = translator.lock().unwrap_or_else(PoisonError::into_inner);
            translator.translate(clock::now(), packet)
        };
        if let Some(packet) = translated {
            // A full queue loses packets, as in any router.
            let _ = device.send(&packet);
        }
    }
}

/// Three NATs, one for each protocol that has something to translate.
#[derive(Debug)]
struct Translator {
    public: Ipv4Addr,
    udp: Nat,
    tcp: Nat,
    echo: Nat,
}

/// Where a packet goes from and to, in the terms of a NAT: an identifier of ICMP echo stands for the port of
/// both sides, and the remote's "port" says nothing.
struct Flow {
    source: SocketAddr,
    destination: SocketAddr,
}

impl Translator {
    fn new(config: NatConfig, public: Ipv4Addr) -> Self {
        let seed = |protocol| Seed::from_u64(u64::from(public.to_bits()) << 8 | protocol);
        let nat = |protocol| Nat::new(config, IpAddr::V4(public), &seed(protocol));
        Self { public, udp: nat(17), tcp: nat(6), echo: nat(1) }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Nat> {
        [&mut self.udp, &mut self.tcp, &mut self.echo].into_iter()
    }

    /// The packet as it leaves, if it does.
    fn translate(&mut self, now: Instant, packet: &[u8]) -> Option<Vec<u8>> {
        let (mut ip, payload) = Ipv4Header::from_slice(packet).ok()?;
        if ip.is_fragmenting_payload() {
            return None;
        }
        let payload = payload.get(..ip.payload_len().ok()?.into())?;
        ip.time_to_live = ip.time_to_live.checked_add(1)?;
        match ip.protocol {
            IpNumber::UDP => self.translate_udp(now, ip, payload),
            IpNumber::TCP => self.translate_tcp(now, ip, payload),
            IpNumber::ICMP => self.translate_echo(now, ip, payload),
            _ => None,
        }
    }

    fn translate_udp(&mut self, now: Instant, mut ip: Ipv4Header, payload: &[u8]) -> Option<Vec<u8>> {
        let (mut udp, data) = UdpHeader::from_slice(payload).ok()?;
        let flow = Flow::new(&ip, udp.source_port, udp.destination_port);
        let flow = flow.translate(now, &mut self.udp, self.public)?;
        (udp.source_port, udp.destination_port) = flow.apply(&mut ip)?;
        udp.checksum = udp.calc_checksum_ipv4(&ip, data).ok()?;
        Some([&ip.to_bytes()[..], &udp.to_bytes(), data].concat())
    }

    fn translate_tcp(&mut self, now: Instant, mut ip: Ipv4Header, payload: &[u8]) -> Option<Vec<u8>> {
        let (mut tcp, data) = TcpHeader::from_slice(payload).ok()?;
        let flow = Flow::new(&ip, tcp.source_port, tcp.destination_port);
        let flow = flow.translate(now, &mut self.tcp, self.public)?;
        (tcp.source_port, tcp.destination_port) = flow.apply(&mut ip)?;
        tcp.checksum = tcp.calc_checksum_ipv4(&ip, data).ok()?;
        Some([&ip.to_bytes()[..], &tcp.to_bytes(), data].concat())
    }

    fn translate_echo(&mut self, now: Instant, mut ip: Ipv4Header, payload: &[u8]) -> Option<Vec<u8>> {
        let (icmp, data) = Icmpv4Header::from_slice(payload).ok()?;
        let (Icmpv4Type::EchoRequest(echo) | Icmpv4Type::EchoReply(echo)) = icmp.icmp_type else { return None };
        let outbound = ip.destination != self.public.octets();
        let ports = if outbound { (echo.id, 0) } else { (0, echo.id) };
        let flow = Flow::new(&ip, ports.0, ports.1).translate(now, &mut self.echo, self.public)?;
        let ports = flow.apply(&mut ip)?;
        let echo = IcmpEchoHeader { id: if outbound { ports.0 } else { ports.1 }, ..echo };
        let icmp = match icmp.icmp_type {
            Icmpv4Type::EchoRequest(_) => Icmpv4Type::EchoRequest(echo),
            _ => Icmpv4Type::EchoReply(echo),
        };
        Some([&ip.to_bytes()[..], &Icmpv4Header::with_checksum(icmp, data).to_bytes(), data].concat())
    }
}

impl Flow {
    fn new(ip: &Ipv4Header, source: u16, destination: u16) -> Self {
        Self {
            source: SocketAddr::from((ip.source, source)),
            destination: SocketAddr::from((ip.destination, destination)),
        }
    }

    /// Out, in, or (hairpin) out and in again.
    fn translate(mut self, now: Instant, nat: &mut Nat, public: Ipv4Addr) -> Option<Self> {
        let comes_in = self.destination.ip() == IpAddr::V4(public);
        if is_inside(self.source) {
            self.source = nat.outbound(now, self.source, self.destination)?;
        }
        if comes_in {
            self.destination = nat.inbound(now, self.destination, self.source)?;
        }
        Some(self)
    }

    /// Writes the addresses into the header and returns the ports.
    fn apply(self, ip: &mut Ipv4Header) -> Option<(u16, u16)> {
        let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (self.source, self.destination) else {
            return None;
        };
        ip.source = source.ip().octets();
        ip.destination = destination.ip().octets();
        ip.header_checksum = ip.calc_header_checksum();
        Some((source.port(), destination.port()))
    }
}

/// Whether it is of a home's network, or of a carrier's between itself and homes.
fn is_inside(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V4(ip) if ip.is_private() || CARRIER.contains(&ip))
}
