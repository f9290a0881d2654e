//! A net.toml as `init` and `join` write it: short, with a word on each line that a person may change.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::NetConfig;
use crate::node::{AddressChoice, LanConfig, RelayConfig, RendezvousConfig};

/// A rendezvous as a person writes it: `host:port`, with its pin behind a `#`.
pub(super) fn rendezvous(server: &RendezvousConfig) -> String {
    let pin = server.pin.as_ref().map(|pin| format!("#{pin}")).unwrap_or_default();
    server.text() + &pin
}

/// The text of a net.toml that means `config`.
pub fn to_toml(config: &NetConfig) -> Zeroizing<String> {
    let network = &config.network;
    // Room for everything at once: a text that grows leaves copies of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(2048 + 128 * (network.rendezvous.len() + network.deny.len())));
    text.push_str(
        "# A punchlan network. The key below is its secret: whoever has it is a member.\n\
         # Start with: sudo punchlan up net.toml\n\n[network]\n",
    );
    let key = network.key.to_text();
    let _ = writeln!(text, "name       = \"{}\"", network.name);
    let _ = writeln!(text, "key        = \"{}\"", *key);
    let _ = writeln!(text, "subnet     = \"{}\"", network.overlay().v4);
    let servers: Vec<String> = network.rendezvous.iter().map(|server| format!("\"{}\"", rendezvous(server))).collect();
    let _ = match servers.as_slice() {
        [] => writeln!(
            text,
            "rendezvous = []    # where members meet, as [\"host:3478\"]; `punchlan rendezvous` hosts one"
        ),
        servers => writeln!(text, "rendezvous = [{}]", servers.join(", ")),
    };
    if !network.deny.is_empty() {
        let ids: Vec<String> = network.deny.iter().map(|id| format!("\"{id}\"")).collect();
        let _ = writeln!(text, "deny       = [{}]", ids.join(", "));
    }
    write_peer(&mut text, config);
    write_relay(&mut text, config);
    write_lan(&mut text, config);
    text
}

fn write_peer(text: &mut String, config: &NetConfig) {
    let peer = &config.peer;
    if *peer == Default::default() {
        return;
    }
    text.push_str("\n[peer]\n");
    if let Some(name) = &peer.name {
        let _ = writeln!(text, "name    = \"{name}\"");
    }
    if let AddressChoice::Configured(addr) = peer.address {
        let _ = writeln!(text, "address = \"{addr}\"");
    }
    if peer.listen != 0 {
        let _ = writeln!(text, "listen  = {}", peer.listen);
    }
    for (key, wanted) in [("port_mapping", peer.port_mapping), ("lan_discovery", peer.lan_discovery)] {
        if !wanted {
            let _ = writeln!(text, "{key} = false");
        }
    }
    if let Some(log) = &peer.log {
        let _ = writeln!(text, "log     = {log:?}");
    }
}

fn write_relay(text: &mut String, config: &NetConfig) {
    let RelayConfig { offer, mbit } = config.relay;
    if config.relay != RelayConfig::default() {
        let _ = writeln!(text, "\n[relay]\noffer = {offer}\nmbit  = {mbit}");
    }
}

fn write_lan(text: &mut String, config: &NetConfig) {
    let LanConfig { broadcast, multicast } = config.lan;
    if config.lan != LanConfig::default() {
        let _ = writeln!(text, "\n[lan]\nbroadcast = {broadcast}\nmulticast = {multicast}");
    }
}
