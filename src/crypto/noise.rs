//! The handshake itself: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` by the crate `snow`.
//!
//! The initiator knows the responder's static key, both know the network's PSK, and the prologue binds
//! version, network and epoch. Here snow is given an X25519 that refuses low-order results, and an ephemeral
//! key drawn from the caller's generator, so that a whole run is determined by its seed.

use std::fmt;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver, FallbackResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use zeroize::Zeroizing;

use super::Identity;
use super::dh;
use super::keys::{Secret32, hkdf};
use super::seal::{OpeningKey, SealingKey};
use super::suite::Suite;
use crate::sans::{Instant, Rng};
use crate::wire::VERSION;
use crate::wire::session::{Channel, INITIATION_NOISE, RESPONSE_NOISE};

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

/// The handshake failed: another network key or epoch, a key that is not the peer's, or damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("handshake failed")]
pub struct NoiseError;

/// The initiator's side, waiting for its response.
pub struct Initiator(HandshakeState);

/// The responder's side, between the two messages.
pub struct Responder {
    state: HandshakeState,
    remote_static: [u8; 32],
}

/// What both sides have in common in the end: a secret for each direction.
pub struct Split {
    initiator_to_responder: Secret32,
    responder_to_initiator: Secret32,
}

impl Initiator {
    /// Starts a handshake with the device whose static key is `peer`; the message to send.
    pub fn start(
        identity: &Identity,
        peer: &[u8; 32],
        payload: &[u8],
        rng: &mut Rng,
    ) -> Result<(Self, Vec<u8>), NoiseError> {
        let mut state = build(identity, Some(peer), rng)?;
        let mut message = vec![0; INITIATION_NOISE];
        let len = state.write_message(payload, &mut message)?;
        message.truncate(len);
        Ok((Self(state), message))
    }

    /// Reads the response. A message that fails changes nothing: the right one may still come.
    pub fn finish(&mut self, message: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Split), NoiseError> {
        let mut payload = Zeroizing::new(vec![0; RESPONSE_NOISE]);
        let len = self.0.read_message(message, &mut payload)?;
        payload.truncate(len);
        Ok((payload, Split::of(&mut self.0)))
    }
}

impl Responder {
    /// Reads an initiation; its payload.
    pub fn read(identity: &Identity, message: &[u8], rng: &mut Rng) -> Result<(Self, Zeroizing<Vec<u8>>), NoiseError> {
        let mut state = build(identity, None, rng)?;
        let mut payload = Zeroizing::new(vec![0; INITIATION_NOISE]);
        let len = state.read_message(message, &mut payload)?;
        payload.truncate(len);
        let remote_static = state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(NoiseError)?;
        Ok((Self { state, remote_static }, payload))
    }

    /// The static key that the initiator proved to hold.
    pub const fn remote_static(&self) -> &[u8; 32] {
        &self.remote_static
    }

    /// The response to send, and the secrets.
    pub fn respond(mut self, payload: &[u8]) -> Result<(Vec<u8>, Split), NoiseError> {
        let mut message = vec![0; RESPONSE_NOISE];
        let len = self.state.write_message(payload, &mut message)?;
        message.truncate(len);
        Ok((message, Split::of(&mut self.state)))
    }
}

impl Split {
    fn of(state: &mut HandshakeState) -> Self {
        let (initiator_to_responder, responder_to_initiator) = state.dangerously_get_raw_split();
        Self {
            initiator_to_responder: Zeroizing::new(initiator_to_responder),
            responder_to_initiator: Zeroizing::new(responder_to_initiator),
        }
    }

    /// The keys of one channel, as the initiator or the responder has them. `index` is the other side's.
    pub fn keys(
        &self,
        suite: Suite,
        channel: Channel,
        initiator: bool,
        index: u32,
        born: Instant,
    ) -> (SealingKey, OpeningKey) {
        let label = match channel {
            Channel::Data => "transport data",
            Channel::Control => "transport control",
        };
        let derived = |secret: &Secret32| hkdf(&[], secret.as_slice(), label, &[&[suite.to_wire()]]);
        let (to_responder, to_initiator) =
            (derived(&self.initiator_to_responder), derived(&self.responder_to_initiator));
        let (tx, rx) = if initiator { (to_responder, to_initiator) } else { (to_initiator, to_responder) };
        (SealingKey::new(suite, &tx, channel, index, born), OpeningKey::new(suite, &rx, born))
    }
}

fn build(identity: &Identity, peer: Option<&[u8; 32]>, rng: &mut Rng) -> Result<HandshakeState, NoiseError> {
    let prologue =
        [b"punchlan", &[VERSION][..], &identity.network.id().0, &identity.network.epoch().0.to_be_bytes()].concat();
    let resolver = FallbackResolver::new(
        Box::new(Ours { ephemeral: Zeroizing::new(rng.array()) }),
        Box::new(FallbackResolver::new(Box::new(RingResolver), Box::new(DefaultResolver))),
    );
    let builder = Builder::with_resolver(PATTERN.parse()?, Box::new(resolver))
        .local_private_key(identity.device.x25519_secret().expose())?
        .psk(2, identity.network.psk())?
        .prologue(&prologue)?;
    Ok(match peer {
        Some(peer) => builder.remote_public_key(peer)?.build_initiator()?,
        None => builder.build_responder()?,
    })
}

impl From<Error> for NoiseError {
    fn from(_: Error) -> Self {
        Self
    }
}

/// What snow takes from us; the rest is its own.
struct Ours {
    ephemeral: Secret32,
}

impl CryptoResolver for Ours {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519::default())),
            DHChoice::Curve448 => None,
        }
    }

    fn resolve_hash(&self, _: &HashChoice) -> Option<Box<dyn Hash>> {
        None
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn Cipher>> {
        None
    }
}

/// A generator for the one ephemeral key that each side of a handshake draws.
struct Once(Option<Secret32>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.take().filter(|bytes| bytes.len() == dest.len()).ok_or(Error::Rng)?;
        dest.copy_from_slice(bytes.as_slice());
        Ok(())
    }
}

/// [`dh::Secret`] as snow wants it: empty until it is set or generated.
#[derive(Default)]
struct X25519 {
    secret: Option<dh::Secret>,
    public: [u8; 32],
}

impl X25519 {
    fn install(&mut self, bytes: Zeroizing<[u8; 32]>) {
        let secret = dh::Secret::new(bytes);
        self.public = secret.public();
        self.secret = Some(secret);
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        self.install(Zeroizing::new(privkey.try_into().expect("snow hands back the 32 bytes that it was given")));
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(bytes.as_mut_slice())?;
        self.install(bytes);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_ref().map_or(&[], |secret| secret.expose())
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = pubkey.first_chunk().ok_or(Error::Dh)?;
        let shared = self.secret.as_ref().and_then(|secret| secret.agree(public)).ok_or(Error::Dh)?;
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(shared.as_slice());
        Ok(())
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator(…)")
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder(…)")
    }
}

impl fmt::Debug for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Split(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{DeviceSecrets, NetworkSecrets, Suites};
    use crate::id::{Epoch, NetworkKey};
    use crate::sans::Seed;
    use crate::wire::session::PAYLOAD;

    fn identity(network: u8, epoch: u32, device: u8) -> Identity {
        Identity {
            network: NetworkSecrets::derive(&NetworkKey::new([network; 32]), Epoch(epoch)),
            device: DeviceSecrets::from_seed(&[device; 32]),
            suites: Suites::ALL,
            features: 0,
        }
    }

    #[test]
    fn both_sides_end_with_the_same_keys_crosswise() {
        let (a, b) = (identity(1, 0, 1), identity(1, 0, 2));
        let mut rng = Seed::from_u64(1).rng();
        let (mut initiator, first) = Initiator::start(&a, &b.device.x25519(), &[7; PAYLOAD], &mut rng).expect("starts");
        assert_eq!(first.len(), INITIATION_NOISE);
        let (responder, payload) = Responder::read(&b, &first, &mut rng).expect("reads");
        assert_eq!((&payload[..], responder.remote_static()), (&[7; PAYLOAD][..], &a.device.x25519()));
        let (second, theirs) = responder.respond(&[8; PAYLOAD]).expect("responds");
        assert_eq!(second.len(), RESPONSE_NOISE);
        let (payload, ours) = initiator.finish(&second).expect("finishes");
        assert_eq!(payload[..], [8; PAYLOAD]);
        assert_eq!(ours.initiator_to_responder, theirs.initiator_to_responder);
        assert_eq!(ours.responder_to_initiator, theirs.responder_to_initiator);
        assert_ne!(ours.initiator_to_responder, ours.responder_to_initiator);
    }

    #[test]
    fn another_network_epoch_or_device_fails() {
        let a = identity(1, 0, 1);
        let b = identity(1, 0, 2);
        let mut rng = Seed::from_u64(1).rng();
        let (_, first) = Initiator::start(&a, &b.device.x25519(), &[7; PAYLOAD], &mut rng).expect("starts");
        for wrong in [identity(2, 0, 2), identity(1, 1, 2), identity(1, 0, 3)] {
            assert!(Responder::read(&wrong, &first, &mut rng).is_err());
        }
    }

    #[test]
    fn a_failed_response_leaves_room_for_the_right_one() {
        let (a, b) = (identity(1, 0, 1), identity(1, 0, 2));
        let mut rng = Seed::from_u64(1).rng();
        let (mut initiator, first) = Initiator::start(&a, &b.device.x25519(), &[7; PAYLOAD], &mut rng).expect("starts");
        let (second, _) =
            Responder::read(&b, &first, &mut rng).expect("reads").0.respond(&[8; PAYLOAD]).expect("responds");
        for i in 0..second.len() {
            let mut damaged = second.clone();
            damaged[i] ^= 1;
            assert!(initiator.finish(&damaged).is_err(), "byte {i}");
        }
        assert!(initiator.finish(&[0; 32]).is_err());
        assert!(initiator.finish(&[]).is_err());
        assert!(initiator.finish(&second).is_ok());
    }

    #[test]
    fn low_order_keys_are_refused() {
        let a = identity(1, 0, 1);
        let mut rng = Seed::from_u64(1).rng();
        assert!(Initiator::start(&a, &[0; 32], &[7; PAYLOAD], &mut rng).is_err());
        let mut message = vec![0; INITIATION_NOISE];
        message[32..].fill(1);
        assert!(Responder::read(&a, &message, &mut rng).is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_messages() {
        let (a, b) = (identity(1, 0, 1), identity(1, 0, 2));
        let first = |seed| {
            let mut rng = Seed::from_u64(seed).rng();
            Initiator::start(&a, &b.device.x25519(), &[7; PAYLOAD], &mut rng).expect("starts").1
        };
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
