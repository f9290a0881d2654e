//! L2: everything that knows a secret. All primitives come from other crates; here is only what is made
//! of them, in this order:
//!
//! - [`keys`]: the network key and the device seed become labelled secrets (HKDF), the ids are their
//!   public halves; [`addresses`] derives what needs no lease.
//! - [`announcement`]: signed by the device, sealed for members.
//! - [`mac`], [`cookie`]: what is checked before anything expensive is done; [`aead`], [`dh`]: for the rest.
//! - [`noise`]: the handshake; [`suite`] and [`seal`]: what its keys become; [`replay`]: what was seen.
//! - [`probe`], [`relay`]: tags and MACs outside of sessions; [`registration`]: what a rendezvous shares with each peer.
//!
//! Secrets are zeroised when dropped, and their `Debug` says nothing. (What `ring` and `snow` hold while they work
//! is theirs: neither zeroises its state, so no object of theirs outlives its use.)

pub mod addresses;
pub mod aead;
pub mod announcement;
pub mod cookie;
pub mod dh;
pub mod keys;
pub mod mac;
pub mod noise;
pub mod probe;
pub mod registration;
pub mod relay;
pub mod replay;
pub mod seal;
pub mod suite;

pub use announcement::Signed;
pub use cookie::CookieJar;
pub use keys::{DeviceSecrets, NetworkSecrets, hkdf, verify};
pub use replay::ReplayWindow;
pub use suite::{Suite, Suites};

/// Who this machine is in one network, and what it can do.
#[derive(Debug)]
pub struct Identity {
    /// The network's secrets.
    pub network: NetworkSecrets,
    /// The device's secrets.
    pub device: DeviceSecrets,
    /// The suites it offers.
    pub suites: Suites,
    /// What it can do beyond this version's base.
    pub features: u32,
}
