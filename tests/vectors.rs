//! The wire format of a pair of peers against vectors that an independent program made
//! (`tests/vectors/generate.py`), in both directions.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use punchlan::crypto::announcement::{open, seal, sign, verify};
use punchlan::crypto::probe::ProbeKeys;
use punchlan::crypto::{DeviceSecrets, Identity, NetworkSecrets, Signed, Suites};
use punchlan::id::{Epoch, NetworkId, NetworkKey, PeerId};
use punchlan::sans::{Action, Instant, Rng, Seed};
use punchlan::session::{Channel, Env, Indices, Numbers, Session, read_initiation};
use punchlan::wire::announcement::{Announcement, Candidate, CandidateKind, V4Claim};
use punchlan::wire::probe::{Probe, ProbeKind};

const NOW: Instant = Instant::ZERO;

fn vectors() -> BTreeMap<&'static str, Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hexadecimal");
    let lines = include_str!("vectors/session.txt").lines().map(|line| line.split_once(' ').expect("name and value"));
    lines.map(|(name, hex)| (name, hex.as_bytes().chunks(2).map(byte).collect())).collect()
}

fn bytes_from(first: u8) -> [u8; 32] {
    std::array::from_fn(|i| first + u8::try_from(i).expect("small"))
}

fn identity(seed: u8) -> Identity {
    Identity {
        network: NetworkSecrets::derive(&NetworkKey::new(bytes_from(0)), Epoch(0)),
        device: DeviceSecrets::from_seed(&bytes_from(seed)),
        suites: Suites::ALL,
        features: 5,
    }
}

fn announcement(identity: &Identity) -> Signed {
    let announcement = Announcement {
        version: 1,
        epoch: Epoch(0),
        seq: 7,
        peer: identity.device.id(),
        x25519: identity.device.x25519(),
        features: 5,
        name: "alice".into(),
        v4: V4Claim::Auto(Ipv4Addr::new(10, 77, 0, 9)),
        candidates: vec![
            Candidate { kind: CandidateKind::Host, addr: "192.0.2.1:4660".parse().expect("v4") },
            Candidate { kind: CandidateKind::Reflexive, addr: "[2001:db8::1]:9".parse().expect("v6") },
        ],
    };
    sign(&identity.device, &identity.network.id(), &announcement)
}

#[test]
fn identities_and_addresses_are_derived_as_drawn() {
    let (v, a) = (vectors(), identity(32));
    assert_eq!(a.network.id(), NetworkId(v["network_id"][..].try_into().expect("32 bytes")));
    assert_eq!(a.network.psk()[..], v["psk"]);
    assert_eq!(a.device.id(), PeerId(v["peer_a"][..].try_into().expect("32 bytes")));
    assert_eq!(a.device.x25519()[..], v["x25519_a"]);
    let ula: [u8; 16] = v["ula_a"][..].try_into().expect("16 bytes");
    assert_eq!(a.network.ula(&a.device.id()), Ipv6Addr::from(ula));
    let [x, y] = v["subnet_hash"][..] else { panic!("2 bytes") };
    assert_eq!(a.network.default_v4().addr(), Ipv4Addr::new(10, 64 | (x & 63), y, 0));
    let hash = u64::from_be_bytes(v["ipv4_hash_a_1"][..].try_into().expect("8 bytes"));
    let host = u8::try_from(1 + hash % 254).expect("below 255");
    let subnet = "10.77.0.0/24".parse().expect("prefix");
    assert_eq!(a.network.auto_v4(subnet, &a.device.id(), 1), Ipv4Addr::new(10, 77, 0, host));
}

#[test]
fn announcements_hold_in_both_directions() {
    let (v, a) = (vectors(), identity(32));
    let signed = announcement(&a);
    assert_eq!(signed.bytes(), v["announcement_a"]);
    assert_eq!(verify(&v["announcement_a"], &a.network.id()).as_ref(), Ok(&signed));
    assert_eq!(seal(&a.network, &signed, &mut Seed::from_u64(1).rng()), v["sealed_announcement_a"]);
    assert_eq!(open(&a.network, &v["sealed_announcement_a"]), Ok(signed));
}

#[test]
fn probes_hold_in_both_directions() {
    let (v, a, b) = (vectors(), identity(32), identity(64));
    let keys = |me: &Identity, peer: &Identity| {
        ProbeKeys::derive(&me.network, &me.device, &peer.device.id(), &peer.device.x25519()).expect("good key")
    };
    let (tx, rx) = (keys(&a, &b), keys(&b, &a));
    let probe = Probe { kind: ProbeKind::Request, tag: tx.tx_tag, counter: 1000, nonce: 6, observed: None };
    let mut bytes = probe.encode(0);
    tx.seal(&mut bytes);
    assert_eq!(bytes, v["probe_a_to_b"]);
    assert_eq!(Probe::peek_tag(&v["probe_a_to_b"]), Some(rx.rx_tag));
    assert!(rx.verify(&v["probe_a_to_b"]));
    assert_eq!(Probe::decode(&v["probe_a_to_b"]), Ok(probe));
}

/// One end of the handshake, its randomness fixed.
struct End {
    identity: Identity,
    announcement: Signed,
    indices: Indices,
    numbers: Numbers,
    rng: Rng,
    session: Session,
}

impl End {
    fn new(seed: u8, peer: u8, rng: u64) -> Self {
        let (identity, peer) = (identity(seed), identity(peer));
        let mut numbers = Numbers::new(1000, 0);
        while let Some(Action::Reserve { ceiling }) = numbers.poll_action() {
            numbers.handle_reserved(ceiling);
        }
        Self {
            announcement: announcement(&identity),
            indices: Indices::new(),
            numbers,
            rng: Seed::from_u64(rng).rng(),
            session: Session::new(identity.device.id(), peer.device.id(), peer.device.x25519()),
            identity,
        }
    }

    fn with_env<T>(&mut self, f: impl FnOnce(&mut Session, &mut Env<'_>) -> T) -> T {
        let mut env = Env {
            identity: &self.identity,
            indices: &mut self.indices,
            numbers: &mut self.numbers,
            rng: &mut self.rng,
            announcement: &self.announcement,
        };
        f(&mut self.session, &mut env)
    }

    fn assert_opens(&mut self, sealed: &[u8], channel: Channel, inner: &[u8]) {
        let mut datagram = sealed.to_vec();
        let opened = self.session.open(NOW, &mut datagram).expect("opens");
        assert_eq!((opened.channel, &datagram[opened.body]), (channel, inner));
    }

    fn seal_packet(&mut self) -> Vec<u8> {
        let mut datagram = [&[0; 8], b"\x01packet".as_slice(), &[0; 16]].concat();
        self.session.seal(NOW, Channel::Data, &mut datagram).expect("seals");
        datagram
    }
}

#[test]
fn a_whole_handshake_and_its_packets_hold_in_both_directions() {
    let v = vectors();
    let (mut a, mut b) = (End::new(32, 64, 1), End::new(64, 32, 2));
    a.session.connect(NOW);
    a.with_env(|session, env| session.handle_timeout(NOW, env));
    assert_eq!(a.session.poll_transmit().as_ref(), Some(&v["initiation"]));

    let initiation = read_initiation(&b.identity, &v["initiation"], &mut b.rng).expect("reads");
    assert_eq!((initiation.number(), initiation.features()), (1000, 5));
    assert_eq!(initiation.announcement().bytes(), v["announcement_a"]);
    let response = b.with_env(|session, env| session.handle_initiation(NOW, env, initiation)).expect("answers");
    assert_eq!(response.as_ref(), Some(&v["response"]));

    let announced = a.with_env(|session, env| session.handle_response(NOW, env, &v["response"])).expect("finishes");
    assert_eq!(announced, b.announcement);
    assert_eq!(a.session.poll_transmit().as_ref(), Some(&v["nothing_a_to_b"]));
    b.assert_opens(&v["nothing_a_to_b"], Channel::Control, &[0]);
    assert_eq!(b.session.poll_transmit().as_ref(), Some(&v["nothing_b_to_a"]));
    a.assert_opens(&v["nothing_b_to_a"], Channel::Control, &[0]);

    assert_eq!(a.seal_packet(), v["data_a_to_b"]);
    b.assert_opens(&v["data_a_to_b"], Channel::Data, b"\x01packet");
    assert_eq!(b.seal_packet(), v["data_b_to_a"]);
    a.assert_opens(&v["data_b_to_a"], Channel::Data, b"\x01packet");
}
