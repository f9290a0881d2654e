//! L8: net.toml, the invite link that carries its `[network]` section, and rendezvous.toml.
//!
//! What a person typed and what the program runs on are two types. A text becomes a [`NetConfig`] in three
//! steps, each of which knows where in the text its complaint belongs:
//!
//! 1. `names`: it is TOML, and every section and key is one that exists. An unknown one is answered with
//!    the nearest that does; one of a later version with "not in this version".
//! 2. `file`: each key has the type it should have (serde).
//! 3. `check`: each value means something, and the values agree with each other.
//!
//! All complaints of a step are shown at once, each with file, line, what is wrong and what to type
//! ([`ConfigError`]). The secret key is masked in every line that is shown.

mod check;
mod file;
mod link;
pub(crate) mod names;
mod rendezvous;
mod report;
mod write;

use std::path::Path;

use ipnet::Ipv4Net;
use zeroize::Zeroizing;

use crate::addr::OverlayNet;
use crate::crypto::NetworkSecrets;
use crate::id::{Epoch, NetworkKey, PeerId};
use crate::node::{AddressChoice, LanConfig, RelayConfig, RendezvousConfig};

pub use check::{Wrong, address_in, is_name, name_from, parse_rendezvous, parse_subnet};
pub use link::{LinkError, find_link, from_link, to_link};
pub use rendezvous::{RendezvousFile, load_rendezvous, parse_listen, parse_rendezvous_file};
pub use report::{ConfigError, mask_keys};
pub use write::to_toml;

/// Where commands look when no file is named.
pub const DEFAULT_FILE: &str = "net.toml";

/// The UDP port of a rendezvous that names none: STUN's.
pub const DEFAULT_PORT: u16 = 3478;

/// What a network is called that has no name.
pub const DEFAULT_NETWORK: &str = "lan";

/// net.toml, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// What all members share.
    pub network: NetworkConfig,
    /// This machine.
    pub peer: PeerConfig,
    /// What it carries for others.
    pub relay: RelayConfig,
    /// Which of what is for many there is in it.
    pub lan: LanConfig,
}

/// The `[network]` section: what all members share, and what an invite carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Its name, for people.
    pub name: String,
    /// The secret of its members.
    pub key: NetworkKey,
    /// The IPv4 overlay; `None`: derived from the key.
    pub subnet: Option<Ipv4Net>,
    /// Where members meet.
    pub rendezvous: Vec<RendezvousConfig>,
    /// Devices that are refused.
    pub deny: Vec<PeerId>,
}

/// The `[peer]` section: this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name; `None`: from the host name.
    pub name: Option<String>,
    /// Its overlay IPv4 address.
    pub address: AddressChoice,
    /// Its UDP port, 0: any.
    pub listen: u16,
    /// Whether its router is asked for a port mapping.
    pub port_mapping: bool,
    /// Whether members on its LANs are told that it is here, and heard.
    pub lan_discovery: bool,
    /// What it logs; `None`: what a user would notice.
    pub log: Option<String>,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self { name: None, address: AddressChoice::Auto, listen: 0, port_mapping: true, lan_discovery: true, log: None }
    }
}

impl NetworkConfig {
    /// The overlay's prefixes.
    pub fn overlay(&self) -> OverlayNet {
        NetworkSecrets::derive(&self.key, Epoch::default()).overlay(self.subnet)
    }
}

impl PeerConfig {
    /// The name to appear under: the configured one, or the host's as far as it can be a name here.
    pub fn name_or_host(&self) -> String {
        self.name.clone().unwrap_or_else(|| name_from(&gethostname::gethostname().to_string_lossy()))
    }
}

/// Reads and understands the net.toml at `path`.
///
/// # Errors
/// Everything that is wrong with it: exit code 2.
pub fn load(path: &Path) -> Result<NetConfig, ConfigError> {
    let text = file::read_secret(path)?;
    parse(&path.display().to_string(), &text)
}

/// Understands the text of a net.toml; `shown_path` appears in errors.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(shown_path: &str, text: &Zeroizing<String>) -> Result<NetConfig, ConfigError> {
    let complain = |problems| ConfigError::in_text(shown_path, text, problems);
    let table = names::check(&names::NET_TOML, text).map_err(complain)?;
    let typed = file::typed::<file::NetToml>(text, table).map_err(|problem| complain(vec![problem]))?;
    check::check(typed).map_err(complain)
}

#[cfg(test)]
mod tests;
