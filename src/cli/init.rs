//! `punchlan init`: a new network.

use ipnet::Ipv4Net;

use super::args::Init;
use super::{Failure, block_on, files, output};
use crate::addr::is_private_net;
use crate::config::{self, NetConfig, NetworkConfig, PeerConfig};
use crate::crypto::NetworkSecrets;
use crate::daemon::{self, OTHER_SUBNET};
use crate::id::{Epoch, NetworkKey};
use crate::io::entropy;
use crate::io::net::{Clash, Network, Route};
use crate::node::{AddressChoice, LanConfig, RelayConfig};
use crate::sans::Rng;

/// Fresh keys to try until one derives a subnet that is free here. On a machine with few routes the first does.
const KEYS: usize = 64;

/// Where to look when everything that keys derive (10.0.0.0/8) is in use, by a company's VPN say.
const ELSEWHERE: [Ipv4Net; 2] = [
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(192, 168, 0, 0), 16),
];

pub(super) fn run(args: Init) -> Result<(), Failure> {
    files::refuse_existing(&args.file)?;
    let routes = routes();
    let (key, free) = match args.subnet {
        Some(subnet) => (fresh_key(), Some(subnet)),
        None => key_and_subnet(&routes, &mut entropy::seed().rng()),
    };
    let Some(subnet) = free else {
        return Err(Failure::Usage(
            "every private range is in use on this machine\n  help: choose one that is free: --subnet 10.77.0.0/24"
                .into(),
        ));
    };
    let peer = PeerConfig { name: args.name, address: args.address, ..PeerConfig::default() };
    let network =
        NetworkConfig { name: args.network, key, subnet: Some(subnet), rendezvous: args.rendezvous, deny: Vec::new() };
    if let AddressChoice::Configured(address) = peer.address {
        config::address_in(&network.overlay(), address)
            .map_err(|(what, help)| Failure::Usage(format!("{what}\n  help: {help}")))?;
    }
    let config = NetConfig { network, peer, relay: RelayConfig::default(), lan: LanConfig::default() };
    files::write_new(&args.file, &config::to_toml(&config))?;
    warn_of_subnet(subnet, &routes);
    output::answer(&next_steps(&args.file.display().to_string(), &config))
}

/// Says now what `up` would refuse or warn of.
pub(super) fn warn_of_subnet(subnet: Ipv4Net, routes: &[Route]) {
    if let Some(clash) = Clash::find(subnet, routes) {
        let then = if clash.is_fatal() { "\n  `punchlan up` will refuse to start as long as it is" } else { "" };
        output::warn(&format!("{subnet} {clash}{then}\n  help: {OTHER_SUBNET}"));
    }
    if !is_private_net(subnet) {
        output::warn(&format!("{}\n  help: {OTHER_SUBNET}", daemon::public_subnet(subnet)));
    }
}

fn next_steps(file: &str, config: &NetConfig) -> String {
    let network = &config.network;
    let argument = if file == config::DEFAULT_FILE { String::new() } else { format!(" {file}") };
    let subnet = network.overlay().v4;
    let mut text = format!(
        "Wrote {file}: the network \"{}\", {subnet}, with a fresh secret key. You appear in it as \"{}\".\n\n",
        network.name,
        config.peer.name_or_host()
    );
    if network.rendezvous.is_empty() {
        text.push_str(
            "It has no rendezvous yet, where members find each other. Anybody with a machine that the others can reach\n\
             (a small server will do) types `punchlan rendezvous` there. Then put its address into the file:\n\n    \
             rendezvous = [\"play.example.org:3478\"]\n\n",
        );
    }
    text + &format!(
        "Next:\n    sudo punchlan up{argument:<20}  start it here\n    punchlan invite{argument:<20}   a link for your friends\n"
    )
}

/// A key and the subnet it derives, free of everything that this machine reaches.
fn key_and_subnet(routes: &[Route], rng: &mut Rng) -> (NetworkKey, Option<Ipv4Net>) {
    let is_free = |subnet: &Ipv4Net| Clash::find(*subnet, routes).is_none();
    let derived = |key: &NetworkKey| NetworkSecrets::derive(key, Epoch::default()).default_v4();
    let mut keys = std::iter::repeat_with(|| NetworkKey::new(rng.array()));
    if let Some(key) = keys.by_ref().take(KEYS).find(|key| is_free(&derived(key))) {
        let subnet = derived(&key);
        return (key, Some(subnet));
    }
    let key = NetworkKey::new(rng.array());
    let mut candidates: Vec<Ipv4Net> =
        ELSEWHERE.iter().flat_map(|range| range.subnets(24).into_iter().flatten()).filter(is_free).collect();
    let chosen = usize::try_from(rng.u32()).unwrap_or_default().checked_rem(candidates.len());
    (key, chosen.map(|i| candidates.swap_remove(i)))
}

fn fresh_key() -> NetworkKey {
    NetworkKey::new(entropy::bytes())
}

/// What this machine reaches; without rights or means to ask, its own interfaces.
pub(super) fn routes() -> Vec<Route> {
    let listed = block_on(async {
        let network = Network::open().map_err(|error| Failure::Failed(error.to_string()))?;
        network.routes().await.map_err(|error| Failure::Failed(error.to_string()))
    });
    listed.unwrap_or_else(|_| {
        let interfaces = crate::io::interfaces::list(&[]).unwrap_or_default();
        interfaces.into_iter().map(|net| Route { net: net.trunc(), device: None }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sans::Seed;

    fn route(net: &str) -> Route {
        Route { net: net.parse().expect("prefix"), device: None }
    }

    #[test]
    fn the_subnet_is_one_that_the_key_derives_and_is_free_here() {
        let rng = || Seed::from_u64(1).rng();
        let (key, first) = key_and_subnet(&[route("0.0.0.0/0"), route("192.168.1.0/24")], &mut rng());
        let first = first.expect("free");
        assert_eq!(NetworkSecrets::derive(&key, Epoch::default()).default_v4(), first);
        let (_, second) = key_and_subnet(&[route(&first.to_string())], &mut rng());
        assert_ne!(second.expect("another"), first);
    }

    #[test]
    fn another_range_is_taken_when_all_of_ten_is_in_use_and_none_when_all_are() {
        let ten = route("10.0.0.0/8");
        let (_, subnet) = key_and_subnet(&[ten.clone(), route("172.16.0.0/12")], &mut Seed::from_u64(2).rng());
        assert!(ELSEWHERE[1].contains(&subnet.expect("free")), "{subnet:?}");
        let all = [ten, route("172.16.0.0/12"), route("192.168.0.0/16")];
        assert_eq!(key_and_subnet(&all, &mut Seed::from_u64(3).rng()).1, None);
    }
}
