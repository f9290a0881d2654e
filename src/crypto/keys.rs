//! The two roots of trust and what is derived from them.
//!
//! ```text
//! network key ─HKDF─┬─ of an epoch: PSK, announcement seal, signing seed ─Ed25519─ NetworkId
//!                   └─ lasting: mac1, cookie, probe and address keys
//! device seed ─HKDF─┬─ signing seed ─Ed25519─ PeerId
//!                   └─ X25519, the Noise static key
//! ```
//!
//! Every output has a label of its own, so none says anything about another.

use std::fmt;

use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::dh;
use crate::id::{Epoch, NetworkId, NetworkKey, PeerId};

/// A derived secret.
pub type Secret32 = Zeroizing<[u8; 32]>;

/// An output length for ring.
struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA256 (RFC 5869). `info` is `"punchlan " label 0x00 context…`; labels contain no zero byte, and a
/// label's contexts have one length each, so no two uses share an output.
///
/// # Panics
/// If `N` is over 255 hashes long, which no use is.
pub fn hkdf<const N: usize>(salt: &[u8], secret: &[u8], label: &str, context: &[&[u8]]) -> Zeroizing<[u8; N]> {
    let mut info: Vec<&[u8]> = vec![b"punchlan ", label.as_bytes(), &[0]];
    info.extend(context);
    let mut out = Zeroizing::new([0; N]);
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&info, Len(N))
        .and_then(|okm| okm.fill(out.as_mut_slice()))
        .expect("outputs are shorter than 255 hashes");
    out
}

/// Whether `signature` over `message` is of the Ed25519 key `public`.
pub fn verify(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

/// An Ed25519 key, kept as its seed, which can be zeroised.
struct Signer {
    seed: Secret32,
    public: [u8; 32],
}

impl Signer {
    fn new(seed: Secret32) -> Self {
        let public = Self::pair(&seed).public_key().as_ref().try_into().expect("Ed25519 keys have 32 bytes");
        Self { seed, public }
    }

    fn pair(seed: &Secret32) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).expect("a seed has 32 bytes")
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        Self::pair(&self.seed).sign(message).as_ref().try_into().expect("Ed25519 signatures have 64 bytes")
    }
}

/// What a network key gives its members.
pub struct NetworkSecrets {
    id: NetworkId,
    epoch: Epoch,
    signer: Signer,
    psk: Secret32,
    seal: Secret32,
    mac1: Secret32,
    cookie: Secret32,
    probe: Secret32,
    pub(super) addresses: Secret32,
}

impl NetworkSecrets {
    /// The secrets of `epoch`.
    pub fn derive(key: &NetworkKey, epoch: Epoch) -> Self {
        let of_epoch = |label| hkdf(b"punchlan network", key.expose(), label, &[&epoch.0.to_be_bytes()]);
        let lasting = |label| hkdf(b"punchlan network", key.expose(), label, &[]);
        let signer = Signer::new(of_epoch("network signing"));
        Self {
            id: NetworkId(signer.public),
            epoch,
            signer,
            psk: of_epoch("psk"),
            seal: of_epoch("announcement seal"),
            mac1: lasting("mac1"),
            cookie: lasting("cookie"),
            probe: lasting("probe"),
            addresses: lasting("addresses"),
        }
    }

    /// The network's public name.
    pub const fn id(&self) -> NetworkId {
        self.id
    }

    /// The generation of these secrets.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The Noise pre-shared key.
    pub fn psk(&self) -> &[u8; 32] {
        &self.psk
    }

    /// Signs as a member; [`NetworkId`] is the key that verifies.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signer.sign(message)
    }

    /// The key of mac1 in handshakes to `receiver`. The same in every version and epoch.
    pub fn mac1_key(&self, receiver: &PeerId) -> Secret32 {
        hkdf(&[], self.mac1.as_slice(), "mac1 receiver", &[&receiver.0])
    }

    /// The key that seals cookies of `sender`.
    pub fn cookie_key(&self, sender: &PeerId) -> Secret32 {
        hkdf(&[], self.cookie.as_slice(), "cookie sender", &[&sender.0])
    }

    /// The key that seals the announcement with this salt.
    pub(super) fn seal_key(&self, salt: &[u8; 16]) -> Secret32 {
        hkdf(salt, self.seal.as_slice(), "announcement", &[])
    }

    /// What probe keys need beside a DH.
    pub(super) fn probe_secret(&self) -> &[u8; 32] {
        &self.probe
    }
}

impl fmt::Debug for NetworkSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkSecrets({:?}, …)", self.id)
    }
}

/// What a device's seed gives it.
pub struct DeviceSecrets {
    signer: Signer,
    x25519: dh::Secret,
}

impl DeviceSecrets {
    /// The secrets of the device with this seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let derived = |label| hkdf(b"punchlan device", seed, label, &[]);
        Self { signer: Signer::new(derived("device signing")), x25519: dh::Secret::new(derived("device x25519")) }
    }

    /// The device's public name.
    pub const fn id(&self) -> PeerId {
        PeerId(self.signer.public)
    }

    /// Its public X25519 key.
    pub const fn x25519(&self) -> [u8; 32] {
        self.x25519.public()
    }

    /// Signs as the device; [`PeerId`] is the key that verifies.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signer.sign(message)
    }

    /// DH with another device; `None` if that key is of low order.
    pub fn dh(&self, public: &[u8; 32]) -> Option<Secret32> {
        self.x25519.agree(public)
    }

    /// The Noise static key.
    pub(super) const fn x25519_secret(&self) -> &dh::Secret {
        &self.x25519
    }
}

impl fmt::Debug for DeviceSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceSecrets({:?}, …)", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(epoch: u32) -> NetworkSecrets {
        NetworkSecrets::derive(&NetworkKey::new([7; 32]), Epoch(epoch))
    }

    #[test]
    fn hkdf_is_rfc_5869_with_our_info() {
        // RFC 5869 by its definition, with HMAC: T(1) = HMAC(HMAC(salt, secret), info | 1).
        use ring::hmac;
        let prk = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"salt"), b"secret");
        let info = b"punchlan label\0context\x01";
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, prk.as_ref()), info);
        assert_eq!(hkdf::<32>(b"salt", b"secret", "label", &[b"context"]).as_slice(), expected.as_ref());
    }

    #[test]
    fn an_epoch_has_its_own_psk_seal_and_id_and_shares_mac1_and_addresses() {
        let (a, b) = (network(0), network(1));
        assert_ne!(a.id(), b.id());
        assert_ne!(a.psk(), b.psk());
        assert_ne!(a.seal_key(&[0; 16]), b.seal_key(&[0; 16]));
        assert_eq!(a.mac1_key(&PeerId([1; 32])), b.mac1_key(&PeerId([1; 32])));
        assert_ne!(a.mac1_key(&PeerId([1; 32])), a.mac1_key(&PeerId([2; 32])));
        assert_eq!(a.addresses, b.addresses);
    }

    #[test]
    fn ids_verify_what_their_secrets_sign() {
        let device = DeviceSecrets::from_seed(&[1; 32]);
        assert!(verify(&device.id().0, b"text", &device.sign(b"text")));
        assert!(!verify(&device.id().0, b"test", &device.sign(b"text")));
        assert!(verify(&network(0).id().0, b"text", &network(0).sign(b"text")));
        assert!(!verify(&network(1).id().0, b"text", &network(0).sign(b"text")));
    }

    #[test]
    fn no_secret_is_in_debug() {
        let device = DeviceSecrets::from_seed(&[1; 32]);
        assert!(format!("{:?}{device:?}", network(0)).len() < 64);
    }
}
