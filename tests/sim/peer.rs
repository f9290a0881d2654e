//! A host that runs the real node, with the smallest shell that keeps the shell's promises: a disk that
//! survives a kill, names that resolve after a while, a tunnel with a kernel behind it that answers pings.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use punchlan::addr::OverlayNet;
use punchlan::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites};
use punchlan::id::{Epoch, NetworkKey, PeerId, SocketId};
use punchlan::nat::Traits;
use punchlan::node::status::{self, Status};
use punchlan::node::{
    AddressChoice, Changeable, Command, Event, HEADROOM, Inbound, LocalSocket, Node, NodeConfig, Outbound, RelayConfig,
    RendezvousConfig, TAILROOM,
};
use punchlan::rendezvous::client::StreamWay;
use punchlan::sans::{Action, Carrier, Datagram, Done, Instant, Seed, Transmit, Wakeup};
use punchlan::wire::session::feature;

use super::ledger;
use super::machine::Machine;
use super::packet::{self, Inner, Kind};
use super::sockets::Sockets;
use super::streams::{Asked, Dial};
use super::world::HostId;

/// What host names mean, for all hosts.
pub type Names = Rc<RefCell<BTreeMap<String, Vec<SocketAddr>>>>;

const RESOLVE_TIME: Duration = Duration::from_millis(10);
const DISK_TIME: Duration = Duration::from_millis(2);
/// Where every peer listens for streams.
const LISTEN_PORT: u16 = 52_000;
const NAT_CHECK_TIME: Duration = Duration::from_secs(4);
/// 2026-11-21, when the world's clock read zero.
const EPOCH_MS: i64 = 1_795_219_200_000;
/// Inner packets waiting in flows are sent with this payload.
const PAYLOAD: usize = 64;

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
}

/// What survives a kill.
#[derive(Clone, Default)]
pub struct Disk {
    pub ceiling: u64,
    pub cache: Option<Vec<u8>>,
}

/// A flow of inner packets.
struct Flow {
    to: HostId,
    address: IpAddr,
    kind: Kind,
    every: Duration,
    next: Instant,
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
            listens: None,
            hang_ups: VecDeque::new(),
            overlay_v4: Vec::new(),
            nat: Traits::default(),
            nat_checks: Vec::new(),
            pongs: Vec::new(),
            refused: 0,
            dropped: 0,
        }
    }

    /// Its keys; made once, for tests ask for ids all the time.
    pub fn identity(&self) -> Arc<Identity> {
        thread_local! {
            static KNOWN: RefCell<BTreeMap<(u8, u8), Arc<Identity>>> = const { RefCell::new(BTreeMap::new()) };
        }
        let Profile { network_key, device, .. } = self.profile;
        let derive = || {
            let network = NetworkSecrets::derive(&NetworkKey::new([network_key; 32]), Epoch::default());
            let device = DeviceSecrets::from_seed(&[device; 32]);
            Arc::new(Identity { network, device, suites: Suites::ALL, features: feature::CARRYING })
        };
        KNOWN.with_borrow_mut(|known| known.entry((network_key, device)).or_insert_with(derive).clone())
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

    /// A program here sends to `address`, which must be `to`'s.
    pub fn send(&mut self, now: Instant, kind: Kind, to: HostId, address: IpAddr, size: usize) {
        let payload = self.ledger.borrow_mut().send(now, self.host, to, size);
        let me = self.node().me();
        let source = match address {
            IpAddr::V4(_) => me.v4.map(IpAddr::V4),
            IpAddr::V6(_) => Some(IpAddr::V6(me.ula)),
        };
        if let Some(source) = source {
            self.write_tunnel(now, &packet::write(kind, source, address, &payload));
        }
    }

    /// A program here sends every so often.
    pub fn flow(&mut self, now: Instant, kind: Kind, to: HostId, address: IpAddr, every: Duration) {
        self.flows.push(Flow { to, address, kind, every, next: now });
    }

    /// All programs here stop sending.
    pub fn hush(&mut self) {
        self.flows.clear();
    }

    /// The kernel routes any packet into the tunnel.
    pub fn write_tunnel(&mut self, now: Instant, packet: &[u8]) {
        let mut buf = vec![0; HEADROOM];
        buf.extend_from_slice(packet);
        buf.resize(buf.len() + TAILROOM, 0);
        match self.node.as_mut().expect("the peer runs").handle_packet(now, &mut buf) {
            Outbound::Send { socket, to, range } => {
                let payload = buf[range].to_vec();
                self.out.push_back(Transmit { socket, src: None, to, ttl: None, payload });
            }
            Outbound::Taken => {}
            Outbound::Dropped => self.refused += 1,
        }
        self.settle(now);
    }

    /// A packet came out of the tunnel.
    fn read_tunnel(&mut self, now: Instant, bytes: &[u8]) {
        let (source, destination, inner) = packet::read(bytes);
        let me = self.node().me();
        let shared = matches!(destination, IpAddr::V4(a) if a.is_broadcast() || a.octets()[3] == 255);
        assert!(shared || me.iter().any(|a| a == destination), "{destination} is not an address of this tunnel");
        match inner {
            Inner::Udp(payload) => self.ledger.borrow_mut().arrived(now, self.host, &payload),
            Inner::EchoReply(payload) => self.ledger.borrow_mut().answered(now, self.host, &payload),
            Inner::EchoRequest(payload) => {
                self.ledger.borrow_mut().arrived(now, self.host, &payload);
                self.write_tunnel(now, &packet::write(Kind::EchoReply, destination, source, &payload));
            }
        }
    }

    /// Performs what the node asks for, until it asks for nothing.
    fn settle(&mut self, now: Instant) {
        while let Some(node) = &mut self.node {
            if let Some(action) = node.poll_action() {
                self.perform(now, action);
            } else if let Some(Event::Pong { id, path, .. }) = node.poll_event() {
                self.pongs.push((id, path));
            } else {
                break;
            }
        }
    }

    fn perform(&mut self, now: Instant, action: Action) {
        match action {
            Action::Resolve { server, host, port } => {
                let known = self.names.borrow().get(&host).cloned();
                let with_port = |a: SocketAddr| SocketAddr::new(a.ip(), port);
                let result = known.map(|list| list.into_iter().map(with_port).collect());
                let result = result.ok_or_else(|| format!("{host} is unknown"));
                self.pending.push_back((now + RESOLVE_TIME, Done::Resolved { server, result }));
            }
            Action::ListInterfaces => {
                self.pending.push_back((now + DISK_TIME, Done::Interfaces(self.interfaces.clone())));
            }
            Action::Reserve { ceiling } => self.pending.push_back((now + DISK_TIME, Done::Reserved { ceiling })),
            Action::SaveCache(bytes) => self.disk.cache = Some(bytes),
            Action::SetOverlayV4(address) => self.overlay_v4.push(address),
            Action::CheckNat { attempt, servers } => {
                self.nat_checks.push(servers);
                let found = self.nat;
                self.pending.push_back((now + NAT_CHECK_TIME, Done::NatChecked { attempt, found }));
            }
            Action::OpenSockets { attempt, count } => {
                let sockets = self.opened.open(count);
                self.pending.push_back((now + DISK_TIME, Done::SocketsOpened { attempt, sockets }));
            }
            Action::CloseSockets(sockets) => self.opened.close(&sockets),
            Action::SayOnLan(bytes) => self.said.push_back(bytes),
            Action::LeaveLan => {}
            Action::Connect { server, attempt, to, .. } => {
                self.dials.push_back(Dial { to, from: None, ttl: None, asked: Asked::Rendezvous { server, attempt } });
            }
            Action::Dial { attempt, to, ttl, .. } => {
                self.dials.push_back(Dial { to, from: self.listens, ttl, asked: Asked::Port { attempt } });
            }
            Action::Listen => {
                self.listens = Some(LISTEN_PORT);
                self.pending.push_back((now + DISK_TIME, Done::Listening(Ok(LISTEN_PORT))));
            }
            Action::LetGo { attempt } => self.let_go.push_back(attempt),
            Action::StopListening => self.listens = None,
            Action::Disconnect(socket) => self.hang_ups.push_back(socket),
            Action::MapPort { .. } | Action::UnmapPort(_) => {
                unreachable!("no router here maps ports, and none is asked")
            }
        }
    }

    fn done(&mut self, now: Instant, done: Done) {
        if let Done::Reserved { ceiling } = done {
            assert!(ceiling >= self.disk.ceiling, "a reservation never shrinks");
            self.disk.ceiling = ceiling;
        }
        if let Some(node) = &mut self.node {
            node.handle_done(now, done);
        }
        self.settle(now);
    }

    /// Sends what its flows have due.
    fn pump(&mut self, now: Instant) {
        for i in 0..self.flows.len() {
            if self.flows[i].next <= now {
                let Flow { to, address, kind, every, .. } = self.flows[i];
                let next = self.flows[i].next + every;
                self.flows[i].next = if next > now { next } else { now + every };
                self.send(now, kind, to, address, PAYLOAD);
            }
        }
    }
}

impl Machine for Peer {
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let Some(node) = &mut self.node else { return };
        let Datagram { socket, local, from, payload } = datagram;
        match node.handle_datagram(now, Datagram { socket, local, from, payload: &mut *payload }) {
            Inbound::Deliver(range) | Inbound::Segment { range, .. } => self.read_tunnel(now, &payload[range]),
            Inbound::Forward { socket, to } => {
                self.out.push_back(Transmit { socket, src: None, to, ttl: None, payload: payload.to_vec() });
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

#[test]
fn sockets_that_were_asked_for_are_there_at_once_and_told_of_a_little_later() {
    let profile = Profile {
        name: "alice".to_owned(),
        network_key: 1,
        device: 1,
        address: AddressChoice::Auto,
        rendezvous: Vec::new(),
        deny: Vec::new(),
        lan_discovery: true,
        relay: RelayConfig::default(),
    };
    let now = Instant::from_nanos(1);
    let mut peer = Peer::new(HostId(0), profile, Vec::new(), ledger::Shared::default(), Names::default());
    peer.perform(now, Action::OpenSockets { attempt: 7, count: 3 });
    let sockets = peer.opened().to_vec();
    assert_eq!(sockets.len(), 3);
    assert_eq!(peer.pending.pop_back(), Some((now + DISK_TIME, Done::SocketsOpened { attempt: 7, sockets })));
    peer.perform(now, Action::CloseSockets(vec![SocketId(3)]));
    assert_eq!(peer.opened().len(), 2);
    peer.kill();
    assert_eq!((peer.opened(), peer.pending.len()), (&[][..], 0));
}
