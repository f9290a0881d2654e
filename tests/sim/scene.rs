//! A world of punchlan: rendezvous in offices of their own, peers in houses, and the questions that tests ask.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use punchlan::id::PeerId;
use punchlan::node::status::{self, PeerState, Status};
use punchlan::node::{AddressChoice, Command, LanConfig, RelayConfig};
use punchlan::sans::Instant;
use punchlan::wire::session::feature;

use super::ledger::{self, Entry};
use super::packet::Kind;
use super::peer::{Names, Peer, Profile};
use super::server::Server;
use super::world::{GatewayId, HostId, World};
use crate::nat::NatConfig;

/// The port of every rendezvous.
const RENDEZVOUS_PORT: u16 = 3478;

/// The longest that a packet may be under way.
const UNDER_WAY: Duration = Duration::from_millis(500);

/// See the module.
pub struct Scene {
    pub world: World,
    pub servers: Vec<HostId>,
    pub peers: Vec<HostId>,
    pub ledger: ledger::Shared,
    names: Names,
    houses: u8,
    ports: u16,
}

/// How a house looks from outside.
#[derive(Clone, Copy, Debug)]
pub struct House {
    pub nat: Option<NatConfig>,
    /// Whether it has IPv6, behind a stateful firewall.
    pub ipv6: bool,
}

impl House {
    /// IPv4 alone, behind this NAT or none.
    pub const fn v4(nat: Option<NatConfig>) -> Self {
        Self { nat, ipv6: false }
    }
}

impl Scene {
    /// A world with one running rendezvous.
    pub fn new(seed: u64) -> Self {
        let mut scene = Self {
            world: World::new(seed),
            servers: Vec::new(),
            peers: Vec::new(),
            ledger: ledger::Shared::default(),
            names: Names::default(),
            houses: 0,
            ports: 40_000,
        };
        scene.rendezvous();
        scene
    }

    /// One more rendezvous, running.
    pub fn rendezvous(&mut self) -> HostId {
        let number = self.servers.len() as u64 + 1;
        let name = format!("rdv{number}");
        let addresses = [format!("198.51.100.{number}"), format!("2001:db8:ff::{number:x}")].map(|a| ip(&a));
        let office = self.world.gateway(&format!("{name}'s router"), None, false);
        let host = self.world.host(&name, office, &addresses, Server::new(number));
        self.servers.push(host);
        self.name(host, &addresses);
        self.start_server(host);
        host
    }

    /// What a rendezvous' host name means from now on.
    pub fn name(&mut self, server: HostId, addresses: &[IpAddr]) {
        let index = self.servers.iter().position(|s| *s == server).expect("a rendezvous");
        let list = addresses.iter().map(|a| SocketAddr::new(*a, RENDEZVOUS_PORT)).collect();
        self.names.borrow_mut().insert(rendezvous_name(index), list);
    }

    /// What another host name means from now on.
    pub fn alias(&mut self, name: &str, address: IpAddr) {
        self.names.borrow_mut().insert(name.to_owned(), vec![SocketAddr::new(address, RENDEZVOUS_PORT)]);
    }

    /// Starts a rendezvous (again).
    pub fn start_server(&mut self, server: HostId) {
        self.world.bind(server, Some(RENDEZVOUS_PORT));
        self.world.with(server, |s: &mut Server, now| s.start(now));
    }

    /// Kills a rendezvous.
    pub fn kill_server(&mut self, server: HostId) {
        self.world.note(server, "killed");
        self.world.bind(server, None);
        self.world.end_streams(server);
        self.world.with(server, |s: &mut Server, _| s.kill());
    }

    /// A house.
    pub fn house(&mut self, house: House) -> GatewayId {
        self.houses += 1;
        let outside = ip(&format!("203.0.113.{}", self.houses));
        self.world.gateway(&format!("router {}", self.houses), house.nat.map(|n| (n, outside)), house.ipv6)
    }

    /// A peer in a house of its own.
    pub fn peer(&mut self, name: &str, house: House) -> HostId {
        let gateway = self.house(house);
        self.peer_in(name, gateway, house, 2)
    }

    /// A peer, the `place`-th in this house. Not started.
    pub fn peer_in(&mut self, name: &str, gateway: GatewayId, house: House, place: u8) -> HostId {
        let interfaces = interfaces(self.houses, house, place);
        let addresses: Vec<IpAddr> = interfaces.iter().map(IpNet::addr).collect();
        let id = HostId(self.servers.len() + self.peers.len());
        let profile = Profile {
            name: name.to_owned(),
            network_key: 1,
            device: u8::try_from(self.peers.len() + 1).expect("few peers"),
            address: AddressChoice::Auto,
            rendezvous: (0..self.servers.len()).map(rendezvous_name).collect(),
            deny: Vec::new(),
            lan_discovery: true,
            relay: RelayConfig::default(),
            lan: LanConfig::default(),
            features: feature::CARRYING | feature::GROUPS,
        };
        let peer = Peer::new(id, profile, interfaces, self.ledger.clone(), self.names.clone());
        assert_eq!(self.world.host(name, gateway, &addresses, peer), id);
        self.peers.push(id);
        id
    }

    /// Changes a peer's configuration or disk, for its next start.
    pub fn edit(&mut self, peer: HostId, change: impl FnOnce(&mut Peer)) {
        self.world.with(peer, |p: &mut Peer, _| change(p));
    }

    /// `punchlan up`, on a port of its own as `listen = 0` gives one.
    pub fn up(&mut self, peer: HostId) {
        self.ports += 1;
        let port = self.ports;
        self.world.note(peer, "up");
        self.world.bind(peer, Some(port));
        self.world.with(peer, |p: &mut Peer, now| p.start(now, port));
    }

    /// `kill -9`.
    pub fn kill(&mut self, peer: HostId) {
        self.world.note(peer, "killed");
        self.world.bind(peer, None);
        self.world.end_streams(peer);
        self.world.with(peer, |p: &mut Peer, _| p.kill());
    }

    /// `punchlan down`: says goodbye, then is gone.
    pub fn down(&mut self, peer: HostId) {
        self.world.note(peer, "down");
        self.world.with(peer, |p: &mut Peer, now| p.command(now, Command::Leave));
        self.world.run_until(Duration::from_secs(2), |w| w.machine::<Peer>(peer).node().has_left());
        self.kill(peer);
    }

    /// A peer changes its own addresses, in its house or another.
    pub fn readdress(&mut self, peer: HostId, gateway: GatewayId, interfaces: Vec<IpNet>) {
        let addresses: Vec<IpAddr> = interfaces.iter().map(IpNet::addr).collect();
        self.world.move_host(peer, gateway, &addresses);
        self.edit(peer, |p| p.interfaces = interfaces);
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        self.world.run(duration);
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.world.now()
    }

    /// A peer's machine.
    pub fn machine(&self, peer: HostId) -> &Peer {
        self.world.machine(peer)
    }

    /// What a peer's `status` says.
    pub fn status(&self, peer: HostId) -> Status {
        self.machine(peer).status(self.now())
    }

    /// What `a` says of `b`, if it lists it.
    pub fn view(&self, a: HostId, b: HostId) -> Option<status::Peer> {
        view(&self.world, a, b)
    }

    /// How `a` reaches `b`.
    pub fn state(&self, a: HostId, b: HostId) -> Option<PeerState> {
        self.view(a, b).map(|v| v.state)
    }

    /// A peer's overlay IPv4 address.
    pub fn v4(&self, peer: HostId) -> IpAddr {
        self.machine(peer).node().me().v4.expect("it has one").into()
    }

    /// A peer's overlay IPv6 address.
    pub fn v6(&self, peer: HostId) -> IpAddr {
        self.machine(peer).node().me().ula.into()
    }

    /// A peer's id.
    pub fn id(&self, peer: HostId) -> PeerId {
        self.machine(peer).id()
    }

    /// Waits until `a` and `b` list each other with an address to send to.
    pub fn acquaint(&mut self, a: HostId, b: HostId, limit: Duration) -> Option<Duration> {
        self.world.run_until_they([a, b], limit, |w| {
            [(a, b), (b, a)].iter().all(|(x, y)| view(w, *x, *y).is_some_and(|v| !v.addresses.is_empty()))
        })
    }

    /// Waits until both ways between `a` and `b` are in `state`.
    pub fn settle(&mut self, a: HostId, b: HostId, state: PeerState, limit: Duration) -> Option<Duration> {
        self.world.run_until_they([a, b], limit, |w| {
            [(a, b), (b, a)].iter().all(|(x, y)| view(w, *x, *y).is_some_and(|v| v.state == state))
        })
    }

    /// Waits until each way has carried one more inner packet of the running flows.
    pub fn talk(&mut self, a: HostId, b: HostId, limit: Duration) -> Option<Duration> {
        let (ledger, mark) = (self.ledger.clone(), self.ledger.borrow().len());
        self.world.run_until(limit, |_| {
            let ledger = ledger.borrow();
            [(a, b), (b, a)].iter().all(|(x, y)| ledger.since(mark, *x, *y).any(|e| !e.arrived.is_empty()))
        })
    }

    /// Programs on both send datagrams to each other's overlay IPv4 address.
    pub fn flows(&mut self, a: HostId, b: HostId, every: Duration) {
        for (from, to) in [(a, b), (b, a)] {
            let address = self.v4(to);
            self.world.with(from, |p: &mut Peer, now| p.flow(now, Kind::Udp, to, address, every));
        }
    }

    /// All programs stop sending, and what is under way arrives.
    pub fn hush(&mut self) {
        for peer in self.peers.clone() {
            self.edit(peer, Peer::hush);
        }
        self.run(Duration::from_secs(3));
    }

    /// One packet from `a` to `b` at its overlay address `to`.
    pub fn send(&mut self, kind: Kind, a: HostId, b: HostId, to: IpAddr) {
        self.world.with(a, |p: &mut Peer, now| p.send(now, kind, b, to, 64));
    }

    /// How many inner packets there were: a mark for the questions below.
    pub fn mark(&self) -> usize {
        self.ledger.borrow().len()
    }

    /// Counts packets from `a` to `b` since the mark.
    pub fn count(&self, mark: usize, a: HostId, b: HostId, which: impl Fn(&Entry) -> bool) -> usize {
        self.ledger.borrow().since(mark, a, b).filter(|e| which(e)).count()
    }

    /// Sent and lost from `a` to `b` since the mark; what is under way counts as neither.
    pub fn lost(&self, mark: usize, a: HostId, b: HostId) -> (usize, usize) {
        let due = |e: &Entry| e.sent + UNDER_WAY <= self.now();
        (self.count(mark, a, b, due), self.count(mark, a, b, |e| due(e) && e.arrived.is_empty()))
    }

    /// The longest silence in either direction from `start` on.
    pub fn longest_gap(&self, mark: usize, a: HostId, b: HostId, start: Instant) -> Duration {
        let ledger = self.ledger.borrow();
        let gap = |x, y| ledger.longest_gap(mark, x, y, start, self.now());
        gap(a, b).max(gap(b, a))
    }

    /// The codes of a peer's warnings.
    pub fn warnings(&self, peer: HostId) -> Vec<String> {
        self.status(peer).warnings.into_iter().map(|w| w.code).collect()
    }
}

fn view(world: &World, a: HostId, b: HostId) -> Option<status::Peer> {
    let (a, b): (&Peer, &Peer) = (world.machine(a), world.machine(b));
    let id = b.id();
    if !a.runs() {
        return None;
    }
    a.status(world.now()).peers.into_iter().find(|p| p.id == id)
}

/// The addresses of the `place`-th machine in the `number`-th house.
pub fn interfaces(number: u8, house: House, place: u8) -> Vec<IpNet> {
    let v4 = match house.nat {
        Some(nat) if nat.translates => format!("192.168.1.{place}/24"),
        _ => format!("203.0.113.{number}/32"),
    };
    let v6 = house.ipv6.then(|| format!("2001:db8:{number:x}::{place:x}/64"));
    [Some(v4), v6].into_iter().flatten().map(|text| text.parse().expect("a prefix")).collect()
}

fn rendezvous_name(index: usize) -> String {
    format!("rdv{}.example", index + 1)
}

/// An address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
