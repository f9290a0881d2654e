//! Announcements as they travel: signed by the device they are about, so that anybody may pass them on, and
//! sealed for members, so that a rendezvous learns nothing from them.
//!
//! ```text
//! signature   Ed25519 of the device over "punchlan announcement" | network id | the bytes before it
//! sealed      salt 16 | ChaCha20-Poly1305 of {len u16, signed announcement, zeros} | tag 16
//!             key = HKDF(the epoch's seal key, salt), nonce 0, AAD = network id; 512 or 1,024 bytes
//! ```

use std::ops::Deref;

use super::aead;
use super::keys::{DeviceSecrets, NetworkSecrets, verify as verify_signature};
use crate::id::NetworkId;
use crate::sans::Rng;
use crate::wire::announcement::{Announcement, split_signature};
use crate::wire::{Malformed, Reader, VERSION, Writer};

/// The lengths that a sealed announcement may have, bytes.
pub const SEALED: [usize; 2] = [512, 1024];

const SALT: usize = 16;

/// Why an announcement is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncementError {
    /// It does not parse.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Of another protocol version.
    #[error("version {0}")]
    Version(u8),
    /// Of another epoch.
    #[error("another epoch")]
    Epoch,
    /// Not signed by the device it names, or for another network.
    #[error("bad signature")]
    Signature,
    /// Not sealed by a member of this epoch.
    #[error("bad seal")]
    Seal,
}

/// An announcement whose signature holds, with the bytes that prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    announcement: Announcement,
    bytes: Vec<u8>,
}

impl Signed {
    /// What it says. (`Signed` also dereferences to it.)
    pub const fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// The signed bytes, to pass on as they are.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Signed {
    type Target = Announcement;
    fn deref(&self) -> &Announcement {
        &self.announcement
    }
}

/// Signs what this device says about itself. Peer id, static key and version are set to the device's own.
pub fn sign(device: &DeviceSecrets, network: &NetworkId, announcement: &Announcement) -> Signed {
    let mine = Announcement { version: VERSION, peer: device.id(), x25519: device.x25519(), ..announcement.clone() };
    let mut bytes = mine.encode();
    let signature = device.sign(&signed_text(network, &bytes));
    bytes.extend_from_slice(&signature);
    Signed { announcement: mine, bytes }
}

/// Reads a signed announcement and verifies it.
pub fn verify(signed: &[u8], network: &NetworkId) -> Result<Signed, AnnouncementError> {
    let (text, signature) = split_signature(signed)?;
    match text.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(AnnouncementError::Version(other)),
        None => return Err(Malformed::Truncated.into()),
    }
    let announcement = Announcement::decode(text)?;
    if !verify_signature(&announcement.peer.0, &signed_text(network, text), signature) {
        return Err(AnnouncementError::Signature);
    }
    Ok(Signed { announcement, bytes: signed.to_vec() })
}

/// Reads a signed announcement, verifies it, and refuses other epochs.
pub fn verify_member(signed: &[u8], network: &NetworkSecrets) -> Result<Signed, AnnouncementError> {
    let signed = verify(signed, &network.id())?;
    if signed.epoch == network.epoch() { Ok(signed) } else { Err(AnnouncementError::Epoch) }
}

fn signed_text(network: &NetworkId, text: &[u8]) -> Vec<u8> {
    [b"punchlan announcement", &network.0[..], text].concat()
}

/// Seals an announcement for the members, under a fresh salt, in the smaller size that holds it.
pub fn seal(network: &NetworkSecrets, signed: &Signed, rng: &mut Rng) -> Vec<u8> {
    let salt: [u8; SALT] = rng.array();
    let needed = SALT + 2 + signed.bytes.len() + aead::TAG;
    let len = SEALED.into_iter().find(|len| *len >= needed).expect("a signed announcement fits the larger size");
    let mut w = Writer::with_capacity(len);
    w.bytes(&salt).u16(u16::try_from(signed.bytes.len()).expect("at most MAX_SIGNED")).bytes(&signed.bytes);
    let mut sealed = w.pad_to(len).finish();
    key(network, &salt).seal(0, &network.id().0, &mut sealed[SALT..]);
    sealed
}

/// Opens a sealed announcement, verifies it, and refuses other epochs.
pub fn open(network: &NetworkSecrets, sealed: &[u8]) -> Result<Signed, AnnouncementError> {
    if !SEALED.contains(&sealed.len()) {
        return Err(Malformed::Bad("sealed length").into());
    }
    let (salt, body) = sealed.split_first_chunk().ok_or(Malformed::Truncated)?;
    let mut body = body.to_vec();
    let plain = key(network, salt).open(0, &network.id().0, &mut body).ok_or(AnnouncementError::Seal)?;
    let mut r = Reader::new(plain);
    let len = usize::from(r.u16()?);
    verify_member(r.bytes(len)?, network)
}

/// The key of one salt, used for one message: its nonce is always zero.
fn key(network: &NetworkSecrets, salt: &[u8; SALT]) -> aead::Key {
    aead::Key::new(&network.seal_key(salt))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{Epoch, NetworkKey};
    use crate::sans::Seed;
    use crate::wire::announcement::tests::{any_announcement, example};
    use crate::wire::announcement::{MAX_CANDIDATES, MAX_NAME};

    fn network(key: u8, epoch: u32) -> NetworkSecrets {
        NetworkSecrets::derive(&NetworkKey::new([key; 32]), Epoch(epoch))
    }

    fn device() -> DeviceSecrets {
        DeviceSecrets::from_seed(&[1; 32])
    }

    fn signed() -> Signed {
        sign(&device(), &network(1, 0).id(), &example())
    }

    #[test]
    fn what_a_device_signs_is_believed_and_names_the_device() {
        let read = verify(signed().bytes(), &network(1, 0).id()).expect("verifies");
        assert_eq!(read, signed());
        assert_eq!((read.peer, read.x25519, read.seq), (device().id(), device().x25519(), example().seq));
    }

    #[test]
    fn any_changed_byte_and_any_other_network_is_refused() {
        let id = network(1, 0).id();
        for i in 0..signed().bytes().len() {
            let mut changed = signed().bytes().to_vec();
            changed[i] ^= 1;
            assert!(verify(&changed, &id).is_err(), "byte {i}");
        }
        assert_eq!(verify(signed().bytes(), &network(2, 0).id()), Err(AnnouncementError::Signature));
    }

    #[test]
    fn nobody_signs_for_another() {
        let id = network(1, 0).id();
        let other = DeviceSecrets::from_seed(&[2; 32]);
        let mut forged = Announcement { peer: device().id(), ..example() }.encode();
        let signature = other.sign(&signed_text(&id, &forged));
        forged.extend_from_slice(&signature);
        assert_eq!(verify(&forged, &id), Err(AnnouncementError::Signature));
    }

    #[test]
    fn another_version_and_another_epoch_are_named() {
        let net = network(1, 0);
        let mut bytes = signed().bytes().to_vec();
        bytes[0] = 9;
        assert_eq!(verify(&bytes, &net.id()), Err(AnnouncementError::Version(9)));
        let later = sign(&device(), &net.id(), &Announcement { epoch: Epoch(5), ..example() });
        assert_eq!(verify_member(later.bytes(), &net), Err(AnnouncementError::Epoch));
    }

    #[test]
    fn fields_of_later_versions_are_covered_by_the_signature_and_kept() {
        let net = network(1, 0);
        let mut text = signed().announcement().encode();
        text.extend([9; 20]);
        let signature = device().sign(&signed_text(&net.id(), &text));
        text.extend_from_slice(&signature);
        let read = verify(&text, &net.id()).expect("verifies");
        assert_eq!((read.announcement(), read.bytes()), (signed().announcement(), &text[..]));
    }

    #[test]
    fn only_members_of_the_epoch_open_a_seal() {
        let mut rng = Seed::from_u64(1).rng();
        let sealed = seal(&network(1, 0), &signed(), &mut rng);
        assert_eq!(open(&network(1, 0), &sealed), Ok(signed()));
        assert_eq!(open(&network(2, 0), &sealed), Err(AnnouncementError::Seal));
        assert_eq!(open(&network(1, 1), &sealed), Err(AnnouncementError::Seal));
        for i in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[i] ^= 1;
            assert_eq!(open(&network(1, 0), &changed), Err(AnnouncementError::Seal), "byte {i}");
        }
        assert_ne!(seal(&network(1, 0), &signed(), &mut rng), sealed, "each has a fresh salt");
    }

    #[test]
    fn a_seal_has_one_of_two_lengths() {
        let net = network(1, 0);
        let mut rng = Seed::from_u64(1).rng();
        let mut large = example();
        large.name = "n".repeat(MAX_NAME);
        large.candidates = vec![large.candidates[1]; MAX_CANDIDATES];
        let large = sign(&device(), &net.id(), &large);
        assert_eq!(seal(&net, &signed(), &mut rng).len(), 512);
        assert_eq!(seal(&net, &large, &mut rng).len(), 1024);
        assert_eq!(open(&net, &seal(&net, &large, &mut rng)), Ok(large));
    }

    proptest! {
        #[test]
        fn any_announcement_survives_signing_and_sealing(announcement in any_announcement(), seed: u64) {
            let net = network(1, announcement.epoch.0);
            let signed = sign(&device(), &net.id(), &announcement);
            let sealed = seal(&net, &signed, &mut Seed::from_u64(seed).rng());
            prop_assert_eq!(open(&net, &sealed), Ok(signed));
        }

        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let net = network(1, 0);
            let _ = verify(&bytes, &net.id());
            bytes.resize(512, 0);
            let _ = (verify(&bytes, &net.id()), open(&net, &bytes));
        }
    }
}
