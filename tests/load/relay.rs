//! Two members of a network of their own, who send each other numbered packets through the relay.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use punchlan::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites};
use punchlan::id::{Epoch, NetworkKey, PeerId, ServerId};
use punchlan::io::clock;
use punchlan::rendezvous::{Client, State};
use punchlan::sans::Seed;

/// As long as full-size data.
const LENGTH: usize = 1_400;

struct End {
    client: Client,
    identity: Identity,
    socket: UdpSocket,
    number: u64,
}

pub(crate) struct Relay {
    ends: [End; 2],
    server: SocketAddr,
    pub(crate) sent: u32,
    pub(crate) arrived: u32,
    /// Arrived, but not as it was sent.
    pub(crate) wrong: u32,
}

impl Relay {
    /// Registers both and opens the channel.
    pub(crate) fn new(server: SocketAddr) -> Self {
        let ends = [1, 2].map(|n| End::new(server, n));
        let mut relay = Self { ends, server, sent: 0, arrived: 0, wrong: 0 };
        let ids = relay.ends.each_ref().map(|end| end.identity.device.id());
        let (end, mut wished) = (clock::now() + Duration::from_secs(10), false);
        while relay.ends[0].client.relay_header(&ids[1], &[0; LENGTH]).is_none() {
            assert!(clock::now() < end, "no channel: {:?}", relay.ends[0].client.problem());
            relay.pump();
            if !wished && relay.ends.iter().all(|end| end.client.state() == State::Registered) {
                wished = true;
                relay.ends[0].client.open_channel(clock::now(), ids[1]);
                relay.ends[1].client.open_channel(clock::now(), ids[0]);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        relay
    }

    /// Sends what is due at `rate` packets a second, and counts what has arrived.
    pub(crate) fn run(&mut self, elapsed: Duration, rate: u32) {
        let to: PeerId = self.ends[1].identity.device.id();
        while f64::from(self.sent) < elapsed.as_secs_f64() * f64::from(rate) {
            let payload = packet(self.sent);
            let end = &self.ends[0];
            let Some(header) = end.client.relay_header(&to, &payload) else { break };
            self.sent += u32::from(end.socket.send(&[&header[..], &payload].concat()).is_ok());
        }
        self.pump();
    }

    fn pump(&mut self) {
        for end in &mut self.ends {
            let mut buffer = [0; 2_048];
            loop {
                let now = clock::now();
                let End { client, number, .. } = end;
                client.handle_timeout(now, || {
                    *number += 1;
                    Some(*number)
                });
                while end.client.poll_event().is_some() {}
                while let Some((_, _, bytes)) = end.client.poll_transmit() {
                    end.socket.send(&bytes).expect("loopback is there");
                }
                let len = match end.socket.recv(&mut buffer) {
                    Ok(len) => len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                };
                let bytes = &mut buffer[..len];
                if end.client.handle_datagram(now, &end.identity, self.server, bytes) {
                    continue;
                }
                if let Some((_, range)) = end.client.relay_open(bytes, self.server) {
                    let payload = &bytes[range];
                    let number = payload.first_chunk().map(|number| u32::from_be_bytes(*number));
                    self.arrived += 1;
                    self.wrong += u32::from(number.is_none_or(|number| packet(number) != payload));
                }
            }
        }
    }
}

/// The `number`-th packet.
fn packet(number: u32) -> Vec<u8> {
    let mut packet = vec![u8::try_from(number % 251).expect("small"); LENGTH];
    packet[..4].copy_from_slice(&number.to_be_bytes());
    packet
}

impl End {
    fn new(server: SocketAddr, n: u8) -> Self {
        let network = NetworkSecrets::derive(&NetworkKey::new([0xEE; 32]), Epoch::default());
        let device = DeviceSecrets::from_seed(&[n; 32]);
        let identity = Identity { network, device, suites: Suites::ALL, features: 0 };
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound");
        socket.connect(server).expect("loopback is there");
        socket.set_nonblocking(true).expect("set");
        let mut client = Client::new(ServerId(0), None, &Seed::from_u64(u64::from(n) << 32));
        let now = clock::now();
        client.set_announcement(now, super::crowd::announce(&identity, n.into()));
        client.set_addresses(now, vec![server]);
        Self { client, identity, socket, number: clock::wall_ms() }
    }
}
