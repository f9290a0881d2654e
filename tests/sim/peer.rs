//! A host that runs the real node, with the smallest shell that keeps the shell's promises: a disk that
//! survives a kill, names that resolve after a while, a tunnel with a kernel behind it that answers pings.

mod programs;
mod shell;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use punchlan::addr::OverlayNet;
use punchlan::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites};
use punchlan::id::{Epoch, NetworkKey, PeerId, SocketId};
use punchlan::nat::Traits;
use punchlan::node::status::{self, Status};
use punchlan::node::{
    AddressChoice, Changeable, Command, Inbound, LanConfig, LocalSocket, Node, NodeConfig, RelayConfig,
    RendezvousConfig,
};
use punchlan::rendezvous::client::StreamWay;
use punchlan::sans::{Carrier, Datagram, Done, Instant, Seed, Transmit, Wakeup};

use self::programs::Flow;
use super::ledger;
use super::machine::Machine;
use super::sockets::Sockets;
use super::streams::Dial;
use super::world::HostId;

/// What host names mean, for all hosts.
pub type Names = Rc<RefCell<BTreeMap<String, Vec<SocketAddr>>>>;

/// 2026-11-21, when the world's clock read zero.
const EPOCH_MS: i64 = 1_795_219_200_000;
/// What `net.toml` says.
#[derive(Clone)]
pub struct Profile {
    pub name: String,
    pub network_key: u8,
    pub device: u8,
    pub address: AddressChoice,
    pub rendezvous: Vec<String>,
    pub deny: Vec<PeerId>,
    pub lan_discovery: bool,
    pub relay: RelayConfig,
    pub lan: LanConfig,
    /// What its version can do.
    pub features: u32,
}

/// What survives a kill.
#[derive(Clone, Default)]
pub struct Disk {
    pub ceiling: u64,
    pub cache: Option<Vec<u8>>,
}

/// A peer's process, its disk, and the kernel behind its tunnel.
pub struct Peer {
    host: HostId,
    pub profile: Profile,
    pub disk: Disk,
    /// Added to the wall clock.
    pub wall_offset_ms: i64,
    /// What `ListInterfaces` finds.
    pub interfaces: Vec<IpNet>,
    node: Option<Node>,
    lives: u64,
    ledger: ledger::Shared,
    names: Names,
    /// Effects that take time, in order.
    pending: VecDeque<(Instant, Done)>,
    flows: Vec<Flow>,
    out: VecDeque<Transmit>,
    /// What it says on its LAN.
    said: VecDeque<Vec<u8>>,
    /// What `Action::OpenSockets` opened.
    pub opened: Sockets,
    dials: VecDeque<Dial>,
    let_go: VecDeque<u64>,
    given_up: VecDeque<u64>,
    /// Where it listens for streams.
    listens: Option<u16>,
    hang_ups: VecDeque<SocketId>,
    /// What `Action::SetOverlayV4` said, in order.
    pub overlay_v4: Vec<Option<Ipv4Addr>>,
    /// What a look at the NAT finds: whoever looks is a machine of its own here.
    pub nat: Traits,
    /// Whom it was to ask, each time.
    pub nat_checks: Vec<Vec<SocketAddr>>,
    /// Answers to `punchlan ping`.
    pub pongs: Vec<(u64, status::Path)>,
    /// Packets for many that came out of the tunnel.
    pub shared: Vec<Vec<u8>>,
    /// Something on this machine says again on its real LAN what comes out of the tunnel for many.
    pub reflects: bool,
    /// Inner packets that the node refused.
    pub refused: u64,
    /// Datagrams that the node dropped.
    pub dropped: u64,
}

const NETWORK: &str = "friday";

/// The rendezvous of this name, by TCP alone if it says so.
pub fn rendezvous(host: &str) -> RendezvousConfig {
    match host.strip_prefix("tcp://") {
        Some(host) => RendezvousConfig::stream(host.to_owned(), StreamWay { port: 3478, carrier: Carrier::Tcp }),
        None => RendezvousConfig::plain(host, 3478),
    }
}

impl Peer {
    /// A peer that has not been started.
    pub fn new(host: HostId, profile: Profile, interfaces: Vec<IpNet>, ledger: ledger::Shared, names: Names) -> Self {
        Self {
            host,
            profile,
            disk: Disk::default(),
            wall_offset_ms: 0,
            interfaces,
            node: None,
            lives: 0,
            ledger,
            names,
            pending: VecDeque::new(),
            flows: Vec::new(),
            out: VecDeque::new(),
            said: VecDeque::new(),
            opened: Sockets::default(),
            dials: VecDeque::new(),
            let_go: VecDeque::new(),
            given_up: VecDeque::new(),
            listens: None,
            hang_ups: VecDeque::new(),
            overlay_v4: Vec::new(),
            nat: Traits::default(),
            nat_checks: Vec::new(),
            pongs: Vec::new(),
            shared: Vec::new(),
            reflects: false,
            refused: 0,
            dropped: 0,
        }
    }

    /// Its keys; made once, for tests ask for ids all the time.
    pub fn identity(&self) -> Arc<Identity> {
        thread_local! {
            static KNOWN: RefCell<BTreeMap<(u8, u8, u32), Arc<Identity>>> = const { RefCell::new(BTreeMap::new()) };
        }
        let Profile { network_key, device, features, .. } = self.profile;
        let derive = || {
            let network = NetworkSecrets::derive(&NetworkKey::new([network_key; 32]), Epoch::default());
            let device = DeviceSecrets::from_seed(&[device; 32]);
            Arc::new(Identity { network, device, suites: Suites::ALL, features })
        };
        KNOWN.with_borrow_mut(|known| known.entry((network_key, device, features)).or_insert_with(derive).clone())
    }

    /// Its id.
    pub fn id(&self) -> PeerId {
        self.identity().device.id()
    }

    /// `punchlan up`, with its UDP sockets bound to `port`.
    pub fn start(&mut self, now: Instant, port: u16) {
        self.lives += 1;
        self.flows.iter_mut().for_each(|flow| flow.next = now);
        let identity = self.identity();
        let v4: Ipv4Net = "10.77.0.0/24".parse().expect("a prefix");
        let overlay = OverlayNet { v4, v6: identity.network.overlay_v6() };
        let socket = |id, ip: IpAddr| LocalSocket { id: SocketId(id), addr: SocketAddr::new(ip, port) };
        let config = NodeConfig {
            identity,
            network_name: NETWORK.to_owned(),
            name: self.profile.name.clone(),
            overlay,
            address: self.profile.address,
            rendezvous: self.profile.rendezvous.iter().map(|host| rendezvous(host)).collect(),
            deny: self.profile.deny.clone(),
            port_mapping: false,
            lan_discovery: self.profile.lan_discovery,
            relay: self.profile.relay,
            allow: None,
            lan: self.profile.lan,
            sockets: vec![socket(0, IpAddr::from([0; 4])), socket(1, IpAddr::from([0; 16]))],
            stored_ceiling: self.disk.ceiling,
            cache: self.disk.cache.clone(),
            wall_ms: self.wall_ms(now),
        };
        let seed = Seed::from_u64((self.host.0 as u64 + 1) << 32 | self.lives);
        self.node = Some(Node::new(config, &seed, now));
        self.settle(now);
    }

    /// What may change while it runs, as it is.
    pub fn changeable(&self) -> Changeable {
        Changeable {
            network_name: NETWORK.to_owned(),
            name: self.profile.name.clone(),
            rendezvous: self.profile.rendezvous.iter().map(|host| rendezvous(host)).collect(),
            deny: self.profile.deny.clone(),
            port_mapping: false,
            lan_discovery: self.profile.lan_discovery,
            relay: self.profile.relay,
            allow: None,
            lan: self.profile.lan,
        }
    }

    fn wall_ms(&self, now: Instant) -> u64 {
        let passed = i64::try_from(now.as_nanos() / 1_000_000).expect("small");
        u64::try_from(EPOCH_MS + passed + self.wall_offset_ms).expect("after 1970")
    }

    /// `kill -9`: only the disk remains.
    pub fn kill(&mut self) {
        self.node = None;
        self.pending.clear();
        self.out.clear();
        self.said.clear();
        self.dials.clear();
        self.let_go.clear();
        self.given_up.clear();
        self.listens = None;
        self.hang_ups.clear();
        self.opened.close_all();
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.node.is_some()
    }

    /// The real thing.
    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("the peer runs")
    }

    /// A wish of its user.
    pub fn command(&mut self, now: Instant, command: Command) {
        self.node.as_mut().expect("the peer runs").handle_command(now, command);
        self.settle(now);
    }

    /// What `punchlan status --json` says.
    pub fn status(&self, now: Instant) -> Status {
        self.node().status(now)
    }
}

impl Machine for Peer {
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let Some(node) = &mut self.node else { return };
        let Datagram { socket, local, from, payload } = datagram;
        match node.handle_datagram(now, Datagram { socket, local, from, payload: &mut *payload }) {
            Inbound::Deliver(range) | Inbound::Segment { range, .. } => self.read_tunnel(now, &payload[range]),
            Inbound::Shared(range) => self.read_shared(now, &payload[range]),
            Inbound::Forward { socket, to } => {
                self.out.push_back(Transmit { socket, src: None, to, ttl: None, tos: 0, payload: payload.to_vec() });
            }
            Inbound::Taken => {}
            Inbound::Dropped => self.dropped += 1,
        }
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.pending.iter().position(|(at, _)| *at <= now) {
            let (_, done) = self.pending.remove(due).expect("it was just seen");
            self.done(now, done);
        }
        if self.node.is_none() {
            return;
        }
        self.pump(now);
        let node = self.node.as_mut().expect("it runs");
        if node.poll_timeout().is_some_and(|w| w.at <= now) {
            node.handle_timeout(now);
        }
        self.settle(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front().or_else(|| self.node.as_mut()?.poll_transmit())
    }

    fn poll_timeout(&self) -> Option<Wakeup> {
        let node = self.node.as_ref()?;
        let pending = self.pending.iter().map(|(at, _)| Wakeup::new(*at, "the shell"));
        let flows = self.flows.iter().map(|f| Wakeup::new(f.next, "a program"));
        pending.chain(flows).chain(node.poll_timeout()).min()
    }

    fn handle_said(&mut self, now: Instant, from: IpAddr, bytes: &[u8]) {
        if let Some(node) = &mut self.node {
            node.handle_beacon(now, from, bytes);
        }
        self.settle(now);
    }

    fn poll_said(&mut self) -> Option<Vec<u8>> {
        self.said.pop_front()
    }

    fn opened(&self) -> &[(SocketId, u16)] {
        self.opened.all()
    }

    fn poll_dial(&mut self) -> Option<Dial> {
        self.dials.pop_front()
    }

    fn poll_let_go(&mut self) -> Option<u64> {
        self.let_go.pop_front()
    }

    fn poll_given_up(&mut self) -> Option<u64> {
        self.given_up.pop_front()
    }

    fn dialled(&mut self, now: Instant, done: Done) {
        self.done(now, done);
    }

    fn poll_hang_up(&mut self) -> Option<SocketId> {
        self.hang_ups.pop_front()
    }

    fn stream_ended(&mut self, now: Instant, socket: SocketId) {
        self.done(now, Done::Disconnected(socket));
    }

    fn listens(&self) -> Option<u16> {
        self.listens
    }

    fn accepted(&mut self, now: Instant, socket: SocketId, from: SocketAddr) {
        self.done(now, Done::Accepted { socket, from });
    }
}
