//! L7: the peer process. `up` makes everything that a peer needs, in the order in which it can fail:
//!
//! 1. rights and /dev/net/tun (exit 3 if missing; nothing was made yet);
//! 2. the state folder: locked, device key, numbers, cache;
//! 3. the overlay's prefixes, held against the routes of this machine;
//! 4. UDP sockets; the interface with its addresses; the control socket;
//! 5. the [`run`] loop, until SIGTERM, Ctrl-C or `punchlan down`; then goodbye to everybody.
//!
//! Whatever was made is gone when `up` returns, whichever way it does.

#[cfg(not(target_os = "linux"))]
mod deaf;
#[cfg(target_os = "linux")]
mod ears;
mod failure;
mod gate;
#[cfg(target_os = "linux")]
mod handover;
#[cfg(target_os = "linux")]
mod inward;
mod names;
mod notify;
mod outward;
mod packets;
mod pool;
mod reload;
mod requests;
mod routes;
mod run;
mod sockets;
mod streams;
#[cfg(target_os = "linux")]
mod threads;
#[cfg(not(target_os = "linux"))]
mod turns;
mod waiting;
mod writer;

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::sync::mpsc;

pub use failure::Failure;
pub(crate) use notify::{Notice, notify};
pub use reload::Source;

use crate::addr::{OverlayNet, is_private_net};
use crate::control;
use crate::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites};
use crate::forward::SUPER_PACKET;
use crate::id::{Epoch, NetworkKey, PeerId};
use crate::io::doctor::Answers;
#[cfg(target_os = "linux")]
use crate::io::guard::Guard;
use crate::io::lan;
use crate::io::net::{Addresses, Network};
use crate::io::portmap::PortMapper;
use crate::io::signal::{self, Reloads};
use crate::io::store::{Folders, Loaded, RunDir, StateDir};
use crate::io::tun::{NAME_PREFIX, Tun};
use crate::io::udp::bind_pair;
use crate::io::{clock, entropy, limits, permission};
use crate::node::status::Lan;
use crate::node::{AddressChoice, LanConfig, LocalSocket, MTU, Node, NodeConfig, RelayConfig, RendezvousConfig};
use crate::offload::Offload;
use crate::router::Owned;
use crate::router::filter::Ports;
use crate::wire::session::feature;
#[cfg(not(target_os = "linux"))]
use deaf::Ears;
#[cfg(target_os = "linux")]
use ears::Ears;
use names::Names;
use requests::Requests;
use run::{Effect, Peer};
use sockets::{Open, Sockets};
use streams::Streams;
use writer::Writer;

/// Beacons that wait for the loop; more wait in the sockets, until the system drops them.
const BEACONS_WAITING: usize = 16;

/// What `up` runs on: net.toml, decided.
#[derive(Clone, Debug)]
pub struct Options {
    /// The network's name.
    pub network_name: String,
    /// The secret that all members share.
    pub key: NetworkKey,
    /// The IPv4 overlay; `None`: derived from the key.
    pub subnet: Option<Ipv4Net>,
    /// The servers to register with.
    pub rendezvous: Vec<RendezvousConfig>,
    /// Devices that are refused.
    pub deny: Vec<PeerId>,
    /// This machine's name.
    pub name: String,
    /// This machine's overlay IPv4 address.
    pub address: AddressChoice,
    /// UDP port, 0: any.
    pub listen: u16,
    /// Whether the router is asked for a port mapping.
    pub port_mapping: bool,
    /// Whether members on our LANs are told that we are here, and heard.
    pub lan_discovery: bool,
    /// What is carried for others.
    pub relay: RelayConfig,
    /// At which ports members may speak to this machine first; `None`: at all.
    pub allow: Option<Ports>,
    /// Whether what comes for the overlay by another interface is kept out.
    pub guard: bool,
    /// Which of what is for many there is.
    pub lan: LanConfig,
    /// Whether programs here are told the members' names.
    pub dns: bool,
    /// What to log, if net.toml says it.
    pub log: Option<String>,
}

impl Options {
    /// `[lan]`, for the status.
    fn lan(&self) -> Lan {
        let LanConfig { broadcast, multicast } = self.lan;
        Lan { broadcast, multicast, allow: self.allow.as_ref().map(Ports::entries), guard: self.guard }
    }
}

/// Runs a peer in the foreground until it is told to stop. Calls `ready` once, when interface and control
/// socket answer, with the line to print. What of net.toml may change meanwhile is read again from `source`. Must be called inside a tokio `current_thread` runtime.
///
/// # Errors
/// [`Failure`] carries the exit code and the sentence.
pub async fn up(options: Options, source: impl Source, ready: impl FnOnce(&str)) -> Result<(), Failure> {
    limits::raise_descriptors(limits::OF_A_PEER);
    permission::check().map_err(|error| Failure::NotPermitted(error.to_string()))?;
    let no_signals = |error| Failure::Failed(format!("cannot catch signals: {error}"));
    let stop = signal::stop().map_err(no_signals)?;
    let reloads = Reloads::catch().map_err(no_signals)?;

    let network = NetworkSecrets::derive(&options.key, Epoch::default());
    let id = network.id();
    let overlay = network.overlay(options.subnet);
    let folders = Folders::from_env();
    let state = StateDir::open(&folders.state, &id).map_err(|error| failure::of_state(error, &options.network_name))?;
    let device = DeviceSecrets::from_seed(&*state.device_seed(entropy::bytes)?);
    let features = feature::SEGMENTS | feature::CARRYING | feature::GROUPS;
    let identity = Arc::new(Identity { network, device, suites: Suites::native(), features });

    let net = Network::open()?;
    for leftover in net.remove_leftovers().await? {
        tracing::info!(interface = leftover, "removed what a crashed run left");
    }
    let clash = routes::at_start(&net, overlay.v4).await?;

    let offload = offload()?;
    let (v4, v6) = bind_pair(options.listen).map_err(|error| port_taken(options.listen, &error))?;
    let sockets = Sockets::new(v4, v6, offload);
    let (ceiling, cache) = (state.ceiling()?, state.cache()?);
    let damaged = [warn_of_damage("the counters", &ceiling), warn_of_damage("the peer cache", &cache)];
    let config = NodeConfig {
        identity,
        network_name: options.network_name.clone(),
        name: options.name.clone(),
        overlay,
        address: options.address,
        rendezvous: options.rendezvous.clone(),
        deny: options.deny.clone(),
        port_mapping: options.port_mapping,
        lan_discovery: options.lan_discovery,
        relay: options.relay,
        allow: options.allow.clone(),
        lan: options.lan,
        sockets: local_sockets(&sockets.open()),
        stored_ceiling: ceiling.value.unwrap_or(0),
        cache: cache.value,
        wall_ms: clock::wall_ms(),
    };
    let mut node = Node::new(config, &entropy::seed(), clock::now());
    if node.cache_rejected() {
        let aside = state.reject_cache()?;
        let text = format!("the peer cache is of another version: set aside as {}, and begun anew", aside.display());
        node.warn(clock::now(), "state-damaged", text.clone(), text);
    }
    for text in damaged.into_iter().flatten() {
        node.warn(clock::now(), "state-damaged", text.clone(), text);
    }
    if !is_private_net(overlay.v4) {
        let text = format!("{}. Better another subnet: {OTHER_SUBNET}", public_subnet(overlay.v4));
        node.warn(clock::now(), "public-subnet", overlay.v4.to_string(), text);
    }

    let tun = Tun::open(NAME_PREFIX, MTU, offload).map_err(|error| match permission::of_open(&error) {
        Some(missing) => Failure::NotPermitted(missing.to_string()),
        None => Failure::Failed(format!("no network interface could be made: {error}")),
    })?;
    let tun = Arc::new(tun);
    #[cfg(target_os = "linux")]
    keep(&tun);
    #[cfg(target_os = "linux")]
    let _guard = if options.guard { Some(raise_guard(&tun, &overlay).await?) } else { None };
    #[cfg(not(target_os = "linux"))]
    if options.guard {
        return Err(Failure::Config(
            "[lan] guard is a rule of Linux' nftables, which this system does not have: delete it from net.toml".into(),
        ));
    }
    net.configure(&tun, MTU, &interface_addresses(&overlay, &node.me())).await?;
    net.limit_super_packets(&tun, SUPER_PACKET).await;
    let _answers = Answers::start((tun.name(), tun.index()), overlay, &options.name);

    let run_dir = RunDir::create(&folders.run, &id).map_err(|error| failure::of_run(&folders.run, &error))?;
    let control = control::Server::bind(&run_dir)?;
    let line = ready_line(&options.network_name, tun.name(), &node.me());
    ready(&line);
    notify(Notice::Ready(&line));

    let (effects, news) = mpsc::unbounded_channel();
    let writer = Writer::start(state, effects.clone());
    let router_said = effects.clone();
    // The loop may have ended.
    let port_mapper = PortMapper::start(move |done| drop(router_said.send(Effect::Done(done))));
    let (heard, beacons) = mpsc::channel(BEACONS_WAITING);
    let (me, requests) = (node.me(), Requests::default());
    let names = Names::new(
        me.ula,
        #[cfg(target_os = "linux")]
        (names::Place { network: id, index: tun.index(), ula: me.ula }, effects.clone()),
    );
    let sockets = Arc::new(sockets);
    let streams = Streams::new(sockets.clone(), effects.clone());
    let mut peer = Peer {
        node,
        writer,
        port_mapper,
        nat_check: None,
        lan: lan::Lan::new(heard),
        ears: Ears::new(),
        names,
        net,
        tun,
        sockets,
        streams,
        overlay,
        v4_on_tun: me.v4,
        v4_wanted: me.v4,
        requests,
        effects,
        options,
        source,
    };
    peer.tell_clash(clash);
    let ended = peer.run(control, news, beacons, reloads, stop).await;
    run_dir.remove();
    ended.map(drop)
}

/// Follows what becomes of the interface, from before it is configured until it is gone.
#[cfg(target_os = "linux")]
fn keep(tun: &Arc<Tun>) {
    let tun = Arc::downgrade(tun);
    tokio::spawn(async move {
        if let Err(error) = crate::io::net::keep(tun).await {
            tracing::debug!(%error, "changes of our own interface are not seen");
        }
    });
}

/// The variable that says how much of the kernel's work we take over.
const OFFLOAD: &str = "PUNCHLAN_OFFLOAD";

fn offload() -> Result<Offload, Failure> {
    let Some(text) = std::env::var_os(OFFLOAD).filter(|text| !text.is_empty()) else { return Ok(Offload::default()) };
    let text = text.to_string_lossy();
    text.parse().map_err(|possible| Failure::Config(format!("{OFFLOAD}={text} is not understood: {possible}")))
}

/// What to do when the subnet does not do.
pub(crate) const OTHER_SUBNET: &str = "choose one that nobody's network uses, write it as `subnet` under [network] into every \
                            member's net.toml, and start again";

/// What is wrong with a subnet that is somebody's.
pub(crate) fn public_subnet(subnet: Ipv4Net) -> String {
    format!(
        "{subnet} is no private range: whoever has these addresses on the internet is not reached from here while the \
         network is up"
    )
}

/// Keeps out what comes for the overlay by other interfaces.
#[cfg(target_os = "linux")]
async fn raise_guard(tun: &Tun, overlay: &OverlayNet) -> Result<Guard, Failure> {
    Guard::raise(tun.name(), overlay).await.map_err(|error| {
        let what = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no `nft` here: install nftables".to_owned(),
            _ => format!("nft: {error}"),
        };
        Failure::Failed(format!("the guard that net.toml wants cannot be raised. {what}; or write guard = false"))
    })
}

/// What to say about a state file that was damaged, set aside and made anew.
fn warn_of_damage<T>(what: &str, loaded: &Loaded<T>) -> Option<String> {
    let aside = loaded.moved_aside.as_ref()?;
    Some(format!("{what} of an earlier run: damaged, set aside as {}, and begun anew", aside.display()))
}

fn port_taken(port: u16, error: &std::io::Error) -> Failure {
    Failure::Failed(format!(
        "{error}. Stop it, or choose another `listen` under [peer] in net.toml (now {port}; 0: any)"
    ))
}

fn local_sockets(open: &Open) -> Vec<LocalSocket> {
    open.iter().map(|(id, socket)| LocalSocket { id, addr: socket.local_addr() }).collect()
}

/// An overlay IPv4 address with the subnet's length.
fn in_subnet(overlay: &OverlayNet, addr: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new(addr, overlay.v4.prefix_len()).expect("a prefix length of a prefix")
}

fn interface_addresses(overlay: &OverlayNet, me: &Owned) -> Addresses {
    let v6 = [me.ula, me.link_local].map(|addr| Ipv6Net::new(addr, 64).expect("64 is a prefix length"));
    Addresses { v4: me.v4.map(|addr| in_subnet(overlay, addr)), v6: v6.to_vec() }
}

/// The overlay's prefixes.
fn prefixes(overlay: &OverlayNet) -> Vec<IpNet> {
    vec![overlay.v4.into(), overlay.v6.into()]
}

fn ready_line(network: &str, interface: &str, me: &Owned) -> String {
    let v4 = me.v4.map(|addr| format!("{addr}, ")).unwrap_or_default();
    format!("{network} is up on {interface}: this machine is {v4}{} (see: punchlan status)", me.ula)
}
