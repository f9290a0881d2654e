//! How a node begins: with what it is told ([`NodeConfig`]) and what an earlier run left (the cache).
//!
//! 1. **It is made** at once and waits for nothing; servers resolved, numbers reserved, interfaces listed are what it asks
//!    for first.
//! 2. **The peers of earlier runs** are known again, as offline, with what they last said of themselves.
//! 3. **They are searched** where they were, as soon as there are numbers; no server need answer for that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::cache::{self, Cache};
use super::carriage::Carrying;
use super::carriers::Carriers;
use super::lan::Beacons;
use super::naming::Naming;
use super::nat::NatWatch;
use super::peers::Peers;
use super::ports::PortSearch;
use super::servers::Server;
use super::storms::Storms;
use super::tcp::TcpSearch;
use super::warnings::Warnings;
use super::{FORGET_AFTER, Node, NodeConfig, RendezvousConfig, SAVE_EVERY, Shared, membership};
use crate::crypto::{CookieJar, announcement};
use crate::forward::Table;
use crate::gather::Gather;
use crate::gather::lease::Lease;
use crate::id::PeerId;
use crate::punch::Budget;
use crate::rendezvous::server::{Rate, RateTable};
use crate::router::Router;
use crate::sans::{Instant, RateLimit, Seed, Transport};
use crate::session::{Indices, Numbers};

/// A path that died, or an interface that came or went, is a reason to register anew, but not more often than this…
const REREGISTER_EVERY: Duration = Duration::from_secs(2);
/// …but for so many at once: a cable in the place of the Wi-Fi is several changes, of which the last one counts.
const REREGISTER_BURST: u32 = 3;
/// Handshake initiations a second that are read without proof of address; more is "under load".
const CALM_INITIATIONS: u32 = 40;
/// The same from one source whose address is proven: members can prove theirs as often as they like.
const PROVEN_INITIATIONS: Rate = Rate::new(4, 16);
/// Sources that are told apart: more than a network has members.
const PROVEN_SOURCES: usize = 512;

impl Node {
    /// A node that begins at `now`. Drain it once before the first input.
    pub fn new(config: NodeConfig, seed: &Seed, now: Instant) -> Self {
        let mut rng = seed.rng();
        let (cache, cache_rejected) = match cache::read(config.cache.as_deref()) {
            Ok(cache) => (cache, false),
            Err(error) => {
                tracing::debug!(%error, "cache");
                (Cache::default(), true)
            }
        };
        let naming = Naming::new(&config, now, &cache);
        let router = Arc::new(Router::new(config.overlay, naming.me()));
        let table = Arc::new(Table::new(router.clone()));
        let drops = table.drops().clone();
        let numbers = Numbers::new(config.stored_ceiling, config.wall_ms);
        let rendezvous = RendezvousConfig::merge(&config.rendezvous);
        let servers: Vec<Server> =
            rendezvous.iter().zip(0..).map(|(c, i)| Server::new(i, c.clone(), &mut rng)).collect();
        let next_server = u16::try_from(servers.len()).expect("net.toml is read up to a size that holds fewer");
        let cookies = CookieJar::new(&mut rng);
        let beacons = Beacons::new(config.lan_discovery, &mut rng);
        let proven_initiations = RateTable::with_cells(PROVEN_SOURCES, PROVEN_INITIATIONS, &mut rng);
        let sockets: Vec<_> = config.sockets.iter().map(|s| (s.id, s.addr)).collect();
        let gather = Gather::new(&sockets, &[config.overlay.v4.into(), config.overlay.v6.into()]);
        let announcement = membership::compose(&config.identity, &naming, 0, Vec::new());
        let mut node = Self {
            shared: Shared { indices: Indices::new(), numbers, rng, announcement, identity: config.identity },
            network_name: config.network_name,
            deny: config.deny.into_iter().collect(),
            sockets: config.sockets,
            starting: true,
            wall: (now, config.wall_ms),
            other_versions: BTreeMap::new(),
            naming,
            table,
            table_told: false,
            relay_stamps: Vec::new(),
            router,
            peers: Peers::default(),
            tags: BTreeMap::new(),
            servers,
            departing: Vec::new(),
            next_server,
            gather,
            lease: Lease::new(Transport::Udp, now, config.port_mapping),
            tcp_lease: Lease::new(Transport::Tcp, now, false),
            nat: NatWatch::default(),
            beacons,
            ports: PortSearch::default(),
            tcp: TcpSearch::default(),
            carriers: Carriers::default(),
            carrying: Carrying::new(config.relay),
            budget: Budget::default(),
            cookies,
            proven_initiations,
            initiations: RateLimit::new(CALM_INITIATIONS, CALM_INITIATIONS),
            relayed_initiations: [RateLimit::new(CALM_INITIATIONS, CALM_INITIATIONS); 2],
            reregistrations: RateLimit::slow(REREGISTER_EVERY, REREGISTER_BURST),
            leaving: false,
            cache_rejected,
            reserving: None,
            storms: Storms::default(),
            cuts: 0,
            announcements: RateLimit::new(1, membership::ANNOUNCE_BURST),
            announce_due: Some(now),
            next_interfaces: now,
            next_expiry: now,
            next_save: now + SAVE_EVERY,
            cache_changed: false,
            transmits: VecDeque::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            drops,
            warnings: Warnings::default(),
        };
        node.set_carrying(now, config.relay);
        node.set_lan(now, config.lan);
        node.start(now, cache);
        node
    }

    /// Begins a run: the servers, and the peers of earlier runs at the addresses they had.
    fn start(&mut self, now: Instant, cache: Cache) {
        self.warn_without_rendezvous(now);
        for known in &cache.peers {
            let age = Duration::from_millis(self.wall_ms(now).saturating_sub(known.seen_ms));
            let Ok(signed) = announcement::verify_member(&known.announcement, &self.shared.identity.network) else {
                continue;
            };
            let id = signed.peer;
            if age >= FORGET_AFTER || self.peers.contains_key(&id) {
                continue;
            }
            self.learn(now, signed);
            if let Some(peer) = self.peers.get_mut(&id) {
                (peer.offline, peer.met, peer.seen_ms) = (Some(now - age), true, known.seen_ms);
                peer.searched_ports.worked = known.found_by_search;
                peer.remember(known.newest.max(peer.signed.seq));
                self.grant_seniority(&id);
            }
        }
    }

    /// Searches those that an earlier run met. Not before numbers are there: without one no probe leaves, and the round
    /// that should open our NAT would be over without having opened anything.
    pub(super) fn search_known(&mut self, now: Instant) {
        let known: Vec<PeerId> = self.peers.iter().filter(|(_, peer)| peer.met).map(|(id, _)| *id).collect();
        known.iter().for_each(|id| self.search(now, id));
    }
}
