//! Keys of two devices outside of their sessions: of probes between them, and of the relay frames of a third member that
//! one of them carries for the other. They come from DH(device, device) and the network key, so they need no session,
//! and last; a key for each direction, and a tag of probes.

use zeroize::Zeroizing;

use super::keys::{DeviceSecrets, NetworkSecrets, Secret32, hkdf};
use super::mac;
use super::relay::RelayKey;
use crate::id::PeerId;

/// The keys of one pair, seen from one end.
pub struct ProbeKeys {
    /// The tag on what this end sends.
    pub tx_tag: u64,
    /// The tag on what it receives: unique enough to look its sender up by.
    pub rx_tag: u64,
    tx: Secret32,
    rx: Secret32,
    /// The key of relay frames that this end sends to the other.
    pub relay_tx: RelayKey,
    /// The key of those that it receives.
    pub relay_rx: RelayKey,
}

impl ProbeKeys {
    /// The keys with `peer`; `None` if its X25519 key is of low order.
    pub fn derive(
        network: &NetworkSecrets,
        device: &DeviceSecrets,
        peer: &PeerId,
        peer_x25519: &[u8; 32],
    ) -> Option<Self> {
        let shared = device.dh(peer_x25519)?;
        let direction = |from: &PeerId, to: &PeerId| -> (u64, Secret32) {
            let okm: Zeroizing<[u8; 40]> =
                hkdf(network.probe_secret(), shared.as_slice(), "probe direction", &[&from.0, &to.0]);
            let (tag, key) = okm.split_first_chunk().expect("40 bytes are 8 and 32");
            (u64::from_be_bytes(*tag), Zeroizing::new(key.try_into().expect("40 bytes are 8 and 32")))
        };
        let relay = |from: &PeerId, to: &PeerId| {
            RelayKey::new(hkdf(network.probe_secret(), shared.as_slice(), "relay direction", &[&from.0, &to.0]))
        };
        let me = device.id();
        let ((tx_tag, tx), (rx_tag, rx)) = (direction(&me, peer), direction(peer, &me));
        Some(Self { tx_tag, rx_tag, tx, rx, relay_tx: relay(&me, peer), relay_rx: relay(peer, &me) })
    }

    /// Writes the MAC into the last 16 bytes of an encoded probe.
    ///
    /// # Panics
    /// If the probe has no room for it; every encoded one has.
    pub fn seal(&self, probe: &mut [u8]) {
        mac::write_last(self.tx.as_slice(), probe);
    }

    /// Whether the peer made this probe for us.
    pub fn verify(&self, probe: &[u8]) -> bool {
        mac::check_last(self.rx.as_slice(), probe)
    }
}

impl std::fmt::Debug for ProbeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProbeKeys(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, NetworkKey};
    use crate::wire::probe::{Probe, ProbeKind};

    fn keys(network: u8, me: u8, peer: u8) -> ProbeKeys {
        let network = NetworkSecrets::derive(&NetworkKey::new([network; 32]), Epoch(0));
        let peer = DeviceSecrets::from_seed(&[peer; 32]);
        ProbeKeys::derive(&network, &DeviceSecrets::from_seed(&[me; 32]), &peer.id(), &peer.x25519()).expect("good key")
    }

    fn probe(tag: u64) -> Vec<u8> {
        Probe { kind: ProbeKind::Request, tag, counter: 1, nonce: 2, observed: None }.encode(100)
    }

    #[test]
    fn both_ends_have_the_same_keys_crosswise() {
        let (a, b) = (keys(1, 1, 2), keys(1, 2, 1));
        assert_eq!((a.tx_tag, a.rx_tag), (b.rx_tag, b.tx_tag));
        assert_ne!(a.tx_tag, a.rx_tag);
        let mut sent = probe(a.tx_tag);
        a.seal(&mut sent);
        assert!(b.verify(&sent));
        assert!(!a.verify(&sent), "reflected");
        assert!(a.relay_tx == b.relay_rx && b.relay_tx == a.relay_rx && a.relay_tx != a.relay_rx);
    }

    #[test]
    fn neither_another_network_nor_another_device_verifies() {
        let mut sent = probe(0);
        keys(1, 1, 2).seal(&mut sent);
        assert!(!keys(2, 2, 1).verify(&sent));
        assert!(!keys(1, 3, 1).verify(&sent));
        assert!(!keys(1, 2, 1).verify(&sent[..99]));
        assert!(!keys(1, 2, 1).verify(&[]));
    }

    #[test]
    fn a_key_of_low_order_gives_none() {
        let network = NetworkSecrets::derive(&NetworkKey::new([1; 32]), Epoch(0));
        let me = DeviceSecrets::from_seed(&[1; 32]);
        assert!(ProbeKeys::derive(&network, &me, &PeerId([2; 32]), &[0; 32]).is_none());
    }
}
