//! L5: the whole peer without I/O. The only place where sessions, paths, rendezvous and router meet.
//!
//! # What it decides
//!
//! * **Who is a member** ([`membership`], [`matchmaking`]): a sealed announcement opens only with the network key, is signed by
//!   its device, and the highest number wins, whoever delivered it.
//! * **Which way a datagram goes**: the peer's [`Punch`](crate::punch::Punch) chooses; before it has, handshakes
//!   go through any relay that is open.
//! * **What a datagram may change** ([`inbound`]): nothing, before it is authenticated.
//! * **Who holds an address or a name** ([`naming`]).
//! * **Who carries between whom** ([`carriers`], [`carriage`]): a member with a direct way to both.
//! * **What all this comes to for packets** ([`forwarding`]): a table, which whoever has it seals and opens by.
//!
//! # How a pair of peers meets
//!
//! ```text
//!   alice                        rendezvous                        bob
//!     | -- register, announce ------> |                              |
//!     |                               | <------ register, announce - |
//!     | <-- member bob, introduced -- | -- member alice, introduced ->|   both start now
//!     | -- open channel ------------> | <------------- open channel -|
//!     | ~~ low-TTL probes to every candidate: opens our own NAT ~~   |   priming
//!     | <-- channel open ------------ | -- channel open -----------> |
//!     | == initiation, response through the relay =================> |   a session: traffic flows
//!     | == primed ================================================> |
//!     | <------------- probes and echoes, directly ----------------> |   an upgrade without a lost packet
//! ```

pub mod config;
pub mod status;
pub mod why;

mod cache;
mod carriage;
mod carriers;
mod fan_out;
mod forwarding;
mod groups;
mod inbound;
mod lan;
mod matchmaking;
mod membership;
mod naming;
mod nat;
mod outbound;
mod peer;
mod peers;
mod port_mapping;
mod ports;
mod reconfigure;
mod report;
mod reservation;
mod servers;
mod shown;
mod start;
mod storms;
mod tcp;
mod versions;
mod waiting;
mod warnings;
mod words;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use config::{AddressChoice, LanConfig, LocalSocket, NodeConfig, RelayConfig, RendezvousConfig};
pub use reconfigure::Changeable;
pub use words::{Command, Event, Outbound};

pub use crate::forward::{HEADROOM, Inbound, Interface, Join, Joins, MTU, RealLan, TAILROOM, Train};

use crate::crypto::{CookieJar, Identity, Signed};
use crate::forward::{Drops, Table};
use crate::gather::Gather;
use crate::gather::lease::Lease;
use crate::id::PeerId;
use crate::punch::Budget;
use crate::rendezvous::server::RateTable;
use crate::router::{Owned, Router};
use crate::sans::{Action, Done, Instant, RateLimit, Rng, Transmit, Wakeup};
use crate::session::{Env, Indices, Numbers};
use carriage::Carrying;
use carriers::Carriers;
use lan::Beacons;
use naming::Naming;
use nat::NatWatch;
use peer::Peer;
use peers::Peers;
use ports::PortSearch;
use servers::Server;
use storms::Storms;
use tcp::TcpSearch;
use warnings::Warnings;

/// How often the interfaces are listed again, in case the system said nothing of a change.
const INTERFACES_EVERY: Duration = Duration::from_secs(30);
/// How often the cache is saved while something in it changes.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked who is gone.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// How long an offline peer is remembered.
const FORGET_AFTER: Duration = Duration::from_hours(24);

/// The whole peer without I/O. Driven as the crate's documentation says.
#[derive(Debug)]
pub struct Node {
    shared: Shared,
    network_name: String,
    deny: BTreeSet<PeerId>,
    sockets: Vec<LocalSocket>,
    /// No numbers have been reserved yet.
    starting: bool,
    /// What the wall clock said, and when.
    wall: (Instant, u64),
    /// Who is warned of for its version, and when it was last heard; `None`: who has not said who it is.
    other_versions: BTreeMap<Option<PeerId>, Instant>,

    naming: Naming,
    router: Arc<Router>,
    /// What all this comes to for packets; whether it was asked for since it changed; the registrations it was made with.
    table: Arc<Table>,
    table_told: bool,
    relay_stamps: Vec<[Option<u32>; 3]>,
    peers: Peers,
    /// Whose probes carry which tag.
    tags: BTreeMap<u64, PeerId>,
    servers: Vec<Server>,
    /// Those that are used no longer, until they know.
    departing: Vec<Server>,
    /// The next one's id: not that of one that went before, until all have had their turn.
    next_server: u16,
    gather: Gather,
    lease: Lease,
    tcp_lease: Lease,
    nat: NatWatch,
    beacons: Beacons,
    ports: PortSearch,
    tcp: TcpSearch,
    carriers: Carriers,
    carrying: Carrying,
    budget: Budget,
    initiations: RateLimit,
    /// The same for those that come through relays: from others, and from those who were met first.
    relayed_initiations: [RateLimit; 2],
    /// The same for each source that proves its address under load.
    proven_initiations: RateTable,
    reregistrations: RateLimit,
    leaving: bool,
    cache_rejected: bool,
    /// The reservation that was asked for last, when to ask again, and how long to wait then.
    reserving: Option<(u64, Instant, Duration)>,
    /// Proofs of address, while too many initiations come.
    cookies: CookieJar,
    storms: Storms,
    /// Packets that were cut into pieces so far: the number by which the last one's are known.
    cuts: u16,

    /// Our own changes on their way to the others.
    announcements: RateLimit,
    announce_due: Option<Instant>,
    next_interfaces: Instant,
    next_expiry: Instant,
    next_save: Instant,
    cache_changed: bool,

    transmits: VecDeque<Transmit>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    /// Whoever goes by the table counts here too.
    drops: Arc<Drops>,
    warnings: Warnings,
}

/// What all sessions of this node share.
#[derive(Debug)]
struct Shared {
    identity: Arc<Identity>,
    indices: Indices,
    numbers: Numbers,
    rng: Rng,
    /// Our own newest announcement.
    announcement: Signed,
}

impl Shared {
    fn env(&mut self) -> Env<'_> {
        Env {
            identity: &self.identity,
            indices: &mut self.indices,
            numbers: &mut self.numbers,
            rng: &mut self.rng,
            announcement: &self.announcement,
        }
    }
}

impl Node {
    /// The answer to an [`Action`].
    pub fn handle_done(&mut self, now: Instant, done: Done) {
        match done {
            Done::Resolved { server, result } => self.resolved(now, server, result),
            Done::Interfaces(list) => {
                let before = self.gather.v4_hosts();
                self.gather.set_interfaces(&list);
                if self.candidates_may_have_changed(now) {
                    // What the servers saw of us may no longer be so.
                    self.reregister(now);
                }
                // One more (a bridge, say) moves nothing: should it be the way out, the servers see us elsewhere.
                let hosts = self.gather.v4_hosts();
                if before.is_empty() && !hosts.is_empty() || before.iter().any(|ip| !hosts.contains(ip)) {
                    self.nat_moved(now);
                }
            }
            Done::Overlays(prefixes) => {
                self.gather.set_overlays(&prefixes);
                self.admit_all(now);
            }
            Done::Reserved { ceiling } => self.reserved(now, ceiling),
            Done::PortMapped { transport, attempt, result } => self.port_mapped(now, transport, attempt, result),
            Done::NatChecked { attempt, found } => self.nat_checked(now, attempt, found),
            Done::SocketsOpened { attempt, sockets } => self.sockets_opened(now, attempt, &sockets),
            Done::Connected { server, attempt, result } => self.connected(now, server, attempt, result),
            Done::Disconnected(socket) => self.disconnected(now, socket),
            Done::Listening(result) => self.tcp_listening(now, result),
            Done::Dialled { attempt, result } => self.tcp_dialled(now, attempt, result),
            Done::Accepted { socket, from } => self.tcp_accepted(now, socket, from),
            Done::RouterChanged => self.look_at_leases(now),
        }
        self.drain(now);
    }

    /// A wish of the user.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Leave => self.leave(now),
            Command::Ping { peer, id } => self.ping(now, &peer, id),
            Command::Forget(peer) => self.forget(now, &peer),
            Command::Reconfigure(wanted) => self.reconfigure(now, wanted),
        }
        self.drain(now);
    }

    /// Time has passed; see [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.servers_timeout(now);
        if self.leaving {
            return self.drain_servers(now);
        }
        self.reserve_again(now);
        self.lease.handle_timeout(now);
        self.tcp_lease.handle_timeout(now);
        self.look_at_nat(now);
        self.beacons_timeout(now);
        self.look_for_carriers(now);
        self.expire_carrying(now);
        self.storms_timeout(now);
        if now >= self.next_interfaces {
            self.next_interfaces = now + INTERFACES_EVERY;
            self.actions.push_back(Action::ListInterfaces);
            self.introduce_strangers(now, None);
        }
        if self.announce_due.is_some_and(|due| now >= due) {
            self.announce(now);
        }
        if now >= self.next_save {
            self.next_save = now + SAVE_EVERY;
            self.save_cache(now);
        }
        self.attend(now);
        for id in self.peers.due(now) {
            self.watch(now, &id);
            self.tell_groups(now, &id);
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.session.handle_timeout(now, &mut self.shared.env());
            peer.punch.handle_timeout(now);
            for _ in 0..peer.waiting.expire(now) {
                self.drops.count("no-session");
            }
        }
        if now >= self.next_expiry {
            self.next_expiry = now + EXPIRE_EVERY;
            self.expire_peers(now);
        }
        self.drain(now);
    }

    /// The next datagram to send. Drain after every `handle_*`.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next effect to perform. Drain after every `handle_*`.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing that happened. Drain after every `handle_*`.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`], after everything was drained.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        let own = [Wakeup::new(self.next_interfaces, "interfaces"), Wakeup::new(self.next_save, "cache")];
        let reserve = self.reserving.map(|(_, due, _)| Wakeup::new(due, "reserve numbers"));
        let announce = self.announce_due.map(|due| Wakeup::new(due, "announce"));
        if self.leaving {
            return self.all_servers().filter_map(|s| s.client.poll_timeout()).min();
        }
        let peers = self.peers.poll_timeout();
        let servers = self.all_servers().map(|s| s.client.poll_timeout());
        let punching = [self.ports.poll_timeout(), self.tcp.poll_timeout()];
        let leases = [self.lease.poll_timeout(), self.tcp_lease.poll_timeout()];
        let router = leases.into_iter().chain([self.nat.poll_timeout()]).chain(punching);
        let members = [self.carriers.poll_timeout(), self.carrying.poll_timeout(), self.beacons.poll_timeout()];
        let others = router.chain(members).chain([self.storms.poll_timeout()]).flatten();
        own.into_iter().chain(announce).chain(reserve).chain(others).chain(peers).chain(servers.flatten()).min()
    }

    /// Whether everybody who is to know of [`Command::Leave`] knows.
    pub fn has_left(&self) -> bool {
        self.servers.iter().all(|server| server.client.has_left() || server.client.server_addr().is_none())
    }

    /// This machine's overlay addresses.
    pub fn me(&self) -> Owned {
        self.naming.me()
    }

    /// The shell dropped so many packets, for `reason`, a word of `counters.drop`.
    pub fn count_drops(&mut self, reason: &'static str, count: u64) {
        self.drops.add(reason, count);
    }

    /// What was dropped so far for `reason`, a word of `counters.drop`.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.all_drops().get(reason).copied().unwrap_or(0)
    }

    /// Whether the stored cache was there and could not be read: worth setting aside.
    pub const fn cache_rejected(&self) -> bool {
        self.cache_rejected
    }

    /// A peer by its name here or its overlay address; also one that is long gone, but holds them still.
    pub fn find_peer(&self, now: Instant, wanted: &str) -> Option<PeerId> {
        let by_address = wanted.parse::<IpAddr>().ok().and_then(|address| self.router.owner(address));
        let by_name = || self.peers.values().find(|p| p.name == wanted).map(Peer::id);
        let holder = || self.naming.holder(self.wall_ms(now), wanted).filter(|id| *id != self.my_id());
        by_address.or_else(by_name).or_else(holder)
    }

    /// Lets every child say what it has to say, until none has anything left.
    fn drain(&mut self, now: Instant) {
        self.drain_numbers(now);
        self.drain_lease(now);
        self.drain_servers(now);
        let mut drained = 0;
        // Draining one may touch another.
        while let Some(id) = self.peers.touched(drained) {
            self.drain_peer(now, &id);
            drained += 1;
        }
        self.search_ports(now);
        self.punch_by_tcp(now);
        self.drain_tcp_lease(now);
        self.peers.settle();
    }

    /// Packets of many peers came one after the other: those are put in order again.
    fn drain_many(&mut self, now: Instant) {
        if self.peers.many_are_touched() {
            self.drain(now);
        }
    }

    /// What the wall clock says, milliseconds since 1970: it may have been set since the start.
    pub fn set_wall_clock(&mut self, now: Instant, wall_ms: u64) {
        self.wall = (now, wall_ms);
    }

    /// The wall clock, as it was last told plus what has passed: good for ages and for people.
    fn wall_ms(&self, now: Instant) -> u64 {
        let (at, wall_ms) = self.wall;
        let passed = u64::try_from((now - at).as_millis()).unwrap_or(u64::MAX);
        wall_ms.saturating_add(passed)
    }

    fn my_id(&self) -> PeerId {
        self.shared.identity.device.id()
    }
}
