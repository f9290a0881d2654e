//! Everything that a person, another program or an earlier run has written: files, links, keys, questions to the control
//! socket, the peer cache. Any text is understood or refused in words, and no word shows a secret.

use std::sync::{Arc, LazyLock};

use punchlan::addr::OverlayNet;
use punchlan::config;
use punchlan::control::{Request, Response};
use punchlan::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites};
use punchlan::id::{Epoch, NetworkId, NetworkKey, PeerId, ServerKey, SocketId};
use punchlan::node::{AddressChoice, LocalSocket, Node, NodeConfig};
use punchlan::sans::{Instant, Seed};
use zeroize::Zeroizing;

/// The first byte says whose text the rest is.
pub(crate) fn run(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    if which % 8 == 0 {
        return cache(bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match which % 8 {
        1 => net_toml(text),
        2 => rendezvous_toml(text),
        3 => link(text),
        4 => keys(text),
        5 => drop(serde_json::from_str::<Request>(text)),
        6 => drop(serde_json::from_str::<Response>(text)),
        _ => pieces(text),
    }
}

fn net_toml(text: &str) {
    match config::parse("net.toml", &Zeroizing::new(text.to_owned())) {
        Ok(mut understood) => {
            let written = config::to_toml(&understood);
            // A derived one is written out.
            understood.network.subnet = Some(understood.network.overlay().v4);
            assert_eq!(config::parse("net.toml", &written).as_ref(), Ok(&understood), "{}", *written);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn rendezvous_toml(text: &str) {
    if let Err(error) = config::parse_rendezvous_file("rendezvous.toml", text) {
        assert!(!error.to_string().is_empty());
    }
}

fn link(text: &str) {
    let found = config::find_link(text);
    if let Some(Ok(network)) = found.map(config::from_link) {
        let link = config::to_link(&network);
        let again = config::from_link(&link).expect("what we write can be read");
        assert_eq!(again.key, network.key);
        assert_eq!((again.name, again.rendezvous), (network.name, network.rendezvous));
    }
}

fn keys(text: &str) {
    if let Ok(key) = text.parse::<NetworkKey>() {
        assert!(key.to_text().parse::<NetworkKey>() == Ok(key));
    }
    if let Ok(key) = text.parse::<ServerKey>() {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    let _ = (text.parse::<PeerId>(), text.parse::<NetworkId>());
}

fn pieces(text: &str) {
    let _ = (config::parse_subnet(text), config::parse_rendezvous(text), config::parse_listen(text));
    assert!(config::is_name(&config::name_from(text)), "{text:?}");
    let _ = (config::mask_keys(text), punchlan::log::check(text));
}

static IDENTITY: LazyLock<Arc<Identity>> = LazyLock::new(|| {
    let network = NetworkSecrets::derive(&NetworkKey::new([1; 32]), Epoch::default());
    Arc::new(Identity { network, device: DeviceSecrets::from_seed(&[1; 32]), suites: Suites::ALL, features: 0 })
});

/// A node that starts with it.
fn cache(bytes: &[u8]) {
    let config = NodeConfig {
        identity: IDENTITY.clone(),
        network_name: "friday".into(),
        name: "alice".into(),
        overlay: OverlayNet { v4: "10.77.0.0/24".parse().expect("a prefix"), v6: IDENTITY.network.overlay_v6() },
        address: AddressChoice::Auto,
        rendezvous: Vec::new(),
        deny: Vec::new(),
        port_mapping: false,
        lan_discovery: false,
        relay: punchlan::node::RelayConfig::default(),
        lan: punchlan::node::LanConfig::default(),
        sockets: vec![LocalSocket { id: SocketId(0), addr: "0.0.0.0:4000".parse().expect("an address") }],
        stored_ceiling: 0,
        cache: Some(bytes.to_vec()),
        wall_ms: 1_800_000_000_000,
    };
    let now = Instant::from_nanos(1_000_000_000_000);
    let mut node = Node::new(config, &Seed::from_u64(1), now);
    while node.poll_transmit().is_some() || node.poll_action().is_some() {}
    let _ = node.status(now);
}
