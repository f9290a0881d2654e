//! The two handshake messages: what is in them, and what is checked, in which order.
//!
//! 1. the frame, and mac1: without the network key nothing goes on, and nothing is answered;
//! 2. the version: another one is named, and no more of the message is read;
//! 3. under load the sender's address, by a cookie ([`prove_source`]);
//! 4. Noise: the PSK, and the static key that the sender holds;
//! 5. the announcement inside: signed, of this epoch, naming that static key.
//!
//! Whether the number is new, and whether it is our turn to answer, is the session's to say.

use crate::crypto::announcement::{self, AnnouncementError};
use crate::crypto::keys::{Secret32, hkdf};
use crate::crypto::noise::{Initiator, NoiseError, Responder, Split};
use crate::crypto::{CookieJar, Identity, Signed, Suite, Suites, aead, cookie, mac};
use crate::id::PeerId;
use crate::sans::{Instant, Rng};
use crate::wire::session::{
    CookieReply, Handshake, INITIATION_NOISE, InitiationPayload, RESPONSE_NOISE, ResponsePayload,
};
use crate::wire::{Malformed, VERSION, kind};

/// Why a handshake message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not parse.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its sender does not have the network key, or means another receiver.
    #[error("mac1 does not hold")]
    Mac1,
    /// A member of another version.
    #[error("version {0}")]
    Version(u8),
    /// The handshake failed.
    #[error(transparent)]
    Noise(#[from] NoiseError),
    /// Its announcement is not believed.
    #[error("announcement: {0}")]
    Announcement(#[from] AnnouncementError),
    /// Its announcement is not that of the one who sent it, or not that of this session's peer.
    #[error("not the peer that it names")]
    Identity,
    /// Its number is not above those already taken.
    #[error("replayed")]
    Replayed,
    /// Answers nothing that was asked.
    #[error("unexpected")]
    Unexpected,
    /// No suite in common, or one that was not offered.
    #[error("no common suite")]
    Suite,
    /// The peer begins too many handshakes.
    #[error("too many handshakes")]
    TooMany,
}

/// An initiation that passed every check but that of its number.
#[derive(Debug)]
pub struct Initiation {
    sender: u32,
    number: u64,
    features: u32,
    suites: Suites,
    announcement: Signed,
    noise: Responder,
}

/// Whether an initiation is from a member and to this device: its mac1, which costs no DH.
pub fn check_member(identity: &Identity, initiation: &[u8]) -> Result<(), Refusal> {
    check_frame(identity, kind::INITIATION, initiation).map(|_| ())
}

/// Reads an initiation to this device.
pub fn read_initiation(identity: &Identity, bytes: &[u8], rng: &mut Rng) -> Result<Initiation, Refusal> {
    let frame = check_frame(identity, kind::INITIATION, bytes)?;
    check_version(&frame, INITIATION_NOISE)?;
    let (noise, payload) = Responder::read(identity, frame.noise, rng)?;
    let payload = InitiationPayload::decode(&payload)?;
    let announcement = announcement::verify_member(payload.announcement, &identity.network)?;
    if announcement.x25519 != *noise.remote_static() || announcement.peer == identity.device.id() {
        return Err(Refusal::Identity);
    }
    Ok(Initiation {
        sender: frame.sender,
        number: payload.number,
        features: payload.features,
        suites: Suites(payload.suites),
        announcement,
        noise,
    })
}

impl Initiation {
    /// Who sent it, as it says itself.
    pub const fn announcement(&self) -> &Signed {
        &self.announcement
    }

    /// Its place in its sender's sequence.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// What its sender can do.
    pub const fn features(&self) -> u32 {
        self.features
    }

    /// The index that its sender wants to be addressed by.
    pub(super) const fn sender(&self) -> u32 {
        self.sender
    }

    /// The suite for both.
    pub(super) fn suite(&self, identity: &Identity) -> Result<Suite, Refusal> {
        identity.suites.choose(self.suites).ok_or(Refusal::Suite)
    }

    /// The response, and the secrets.
    pub(super) fn respond(
        self,
        identity: &Identity,
        ours: &Signed,
        index: u32,
        suite: Suite,
    ) -> Result<(Vec<u8>, Split), Refusal> {
        let payload =
            ResponsePayload { features: identity.features, suite: suite.to_wire(), announcement: ours.bytes() };
        let (noise, split) = self.noise.respond(&payload.encode())?;
        let mut message = Handshake::encode(kind::RESPONSE, index, VERSION, self.sender, &noise);
        write_mac1(identity, &self.announcement.peer, &mut message);
        Ok((message, split))
    }
}

/// An initiation of ours, waiting for its response.
#[derive(Debug)]
pub(super) struct Pending {
    noise: Initiator,
    suites: Suites,
    /// The message, its mac2 zero.
    message: Vec<u8>,
    cookie_key: Secret32,
}

/// What a response brought.
pub(super) struct Answer {
    pub(super) remote: u32,
    pub(super) suite: Suite,
    pub(super) features: u32,
    pub(super) announcement: Signed,
    pub(super) split: Split,
}

impl Pending {
    /// A fresh initiation to `peer`.
    pub(super) fn start(
        identity: &Identity,
        ours: &Signed,
        (peer, x25519): (&PeerId, &[u8; 32]),
        index: u32,
        number: u64,
        rng: &mut Rng,
    ) -> Result<Self, NoiseError> {
        let payload = InitiationPayload {
            number,
            features: identity.features,
            suites: identity.suites.0,
            announcement: ours.bytes(),
        };
        let (noise, text) = Initiator::start(identity, x25519, &payload.encode(), rng)?;
        let mut message = Handshake::encode(kind::INITIATION, index, VERSION, 0, &text);
        write_mac1(identity, peer, &mut message);
        Ok(Self { noise, suites: identity.suites, message, cookie_key: identity.network.cookie_key(peer) })
    }

    /// The message, proving our address by `cookie` if we have one.
    pub(super) fn message(&self, cookie: Option<&cookie::Cookie>) -> Vec<u8> {
        let mut message = self.message.clone();
        if let Some(cookie) = cookie {
            mac::write_last(cookie, &mut message);
        }
        message
    }

    /// Reads the response of `peer`, whose frame was checked.
    pub(super) fn finish(
        &mut self,
        identity: &Identity,
        (peer, x25519): (&PeerId, &[u8; 32]),
        frame: &Handshake<'_>,
    ) -> Result<Answer, Refusal> {
        let (payload, split) = self.noise.finish(frame.noise)?;
        let payload = ResponsePayload::decode(&payload)?;
        let suite = Suite::from_wire(payload.suite).filter(|s| self.suites.contains(*s)).ok_or(Refusal::Suite)?;
        let announcement = announcement::verify_member(payload.announcement, &identity.network)?;
        if announcement.peer != *peer || announcement.x25519 != *x25519 {
            return Err(Refusal::Identity);
        }
        Ok(Answer { remote: frame.sender, suite, features: payload.features, announcement, split })
    }

    /// The cookie in a reply to this very message.
    pub(super) fn open_cookie(&self, reply: &CookieReply) -> Option<cookie::Cookie> {
        let sent = Handshake::decode(&self.message).ok()?;
        let mut sealed = reply.sealed;
        let opened = seal_of_cookie(&self.cookie_key, &reply.nonce).open(0, sent.mac1, &mut sealed)?;
        opened.try_into().ok()
    }
}

/// Reads the frame of a response to us.
pub(super) fn read_response<'a>(identity: &Identity, bytes: &'a [u8]) -> Result<Handshake<'a>, Refusal> {
    let frame = check_frame(identity, kind::RESPONSE, bytes)?;
    check_version(&frame, RESPONSE_NOISE)?;
    Ok(frame)
}

/// Whether an initiation's sender has shown that it receives at its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It has: go on with [`read_initiation`].
    Given,
    /// It has not: this cookie reply goes back, and nothing else happens.
    Demand(Vec<u8>),
    /// It is not even a member.
    Refused(Refusal),
}

/// Under load, asks an initiation for a cookie before any DH is done for it. `source` is whatever names the
/// way back: an address, or a channel of a relay.
pub fn prove_source(
    identity: &Identity,
    jar: &CookieJar,
    now: Instant,
    source: &[u8],
    initiation: &[u8],
    rng: &mut Rng,
) -> Proof {
    let frame = match check_frame(identity, kind::INITIATION, initiation) {
        Ok(frame) => frame,
        Err(refusal) => return Proof::Refused(refusal),
    };
    if jar.valid(now, source).iter().any(|cookie| mac::check(cookie, frame.before_mac2(), frame.mac2)) {
        return Proof::Given;
    }
    let nonce = rng.array();
    let mut sealed = [0; 32];
    sealed[..16].copy_from_slice(&jar.cookie(now, source));
    let key = identity.network.cookie_key(&identity.device.id());
    seal_of_cookie(&key, &nonce).seal(0, frame.mac1, &mut sealed);
    Proof::Demand(CookieReply { receiver: frame.sender, nonce, sealed }.encode())
}

/// The key of one cookie reply.
fn seal_of_cookie(key: &Secret32, nonce: &[u8; 16]) -> aead::Key {
    aead::Key::new(&hkdf(nonce, key.as_slice(), "cookie reply", &[]))
}

fn write_mac1(identity: &Identity, receiver: &PeerId, message: &mut [u8]) {
    let before_mac2 = message.len() - mac::LEN;
    mac::write_last(identity.network.mac1_key(receiver).as_slice(), &mut message[..before_mac2]);
}

fn check_frame<'a>(identity: &Identity, kind: u8, bytes: &'a [u8]) -> Result<Handshake<'a>, Refusal> {
    let frame = Handshake::decode(bytes)?;
    if frame.kind != kind {
        return Err(Malformed::UnknownKind(frame.kind).into());
    }
    let key = identity.network.mac1_key(&identity.device.id());
    if mac::check(key.as_slice(), frame.before_mac1(), frame.mac1) { Ok(frame) } else { Err(Refusal::Mac1) }
}

fn check_version(frame: &Handshake<'_>, noise: usize) -> Result<(), Refusal> {
    if frame.version != VERSION {
        return Err(Refusal::Version(frame.version));
    }
    if frame.noise.len() != noise {
        return Err(Malformed::Bad("handshake length").into());
    }
    Ok(())
}
