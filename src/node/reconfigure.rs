//! What may change while the node runs: the rendezvous, who is refused, the names of machine and network, whether the
//! router is asked for a port mapping, whether we say on our LANs that we are here, what is carried for others, and whether
//! there is broadcast and multicast.
//!
//! A rendezvous that stays keeps its registration, its channels and its [`ServerId`]; one that goes is told so, and
//! kept until it knows; one that comes registers at once, under an id that no other has.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::servers::Server;
use super::{LanConfig, Node, RelayConfig, RendezvousConfig};
use crate::id::{PeerId, ServerId};
use crate::router::filter::{Ports, Protocol};
use crate::sans::Instant;
use crate::wire::doctor;

/// What may change while a node runs. All of it is given each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changeable {
    /// The network's name, for people.
    pub network_name: String,
    /// This machine's name.
    pub name: String,
    /// The servers to register with.
    pub rendezvous: Vec<RendezvousConfig>,
    /// Devices that are refused.
    pub deny: Vec<PeerId>,
    /// Whether the router is asked for a port mapping.
    pub port_mapping: bool,
    /// Whether members on our LANs are told that we are here, and heard.
    pub lan_discovery: bool,
    /// What is carried for others.
    pub relay: RelayConfig,
    /// At which ports members may speak to this machine first; `None`: at all.
    pub allow: Option<Ports>,
    /// Which of what is for many there is.
    pub lan: LanConfig,
}

impl Node {
    pub(super) fn reconfigure(&mut self, now: Instant, wanted: Changeable) {
        let Changeable { network_name, name, rendezvous, deny, port_mapping, lan_discovery, relay, lan, allow } =
            wanted;
        self.names_changed |= self.network_name != network_name;
        self.network_name = network_name;
        self.set_rendezvous(now, &RendezvousConfig::merge(&rendezvous));
        self.set_deny(now, deny.into_iter().collect());
        self.lease.set_wanted(now, port_mapping);
        if !port_mapping {
            self.tcp_lease.set_wanted(now, false);
            self.port_may_rest(now);
        }
        self.set_lan_discovery(now, lan_discovery);
        self.set_carrying(now, relay);
        self.set_allow(allow);
        self.set_lan(now, lan);
        let wall_ms = self.wall_ms(now);
        let before = self.naming.my_name.clone();
        if self.naming.rename_me(now, wall_ms, name) {
            (self.cache_changed, self.names_changed) = (true, true);
            self.renamed(now, &before);
            self.announce(now);
        }
    }

    /// Whoever looks for what stands in the way is answered whatever else is let in.
    pub(super) fn set_allow(&mut self, mut ports: Option<Ports>) {
        ports.iter_mut().for_each(|ports| ports.open(Protocol::Udp, doctor::PORT..=doctor::PORT));
        let filter = self.router.filter().with(ports);
        Arc::make_mut(&mut self.router).set_filter(filter);
    }

    fn set_rendezvous(&mut self, now: Instant, wanted: &[RendezvousConfig]) {
        let (kept, gone) =
            std::mem::take(&mut self.servers).into_iter().partition(|server| wanted.contains(&server.config));
        self.servers = kept;
        for server in gone {
            self.depart(now, server);
        }
        for config in wanted {
            if !self.servers.iter().any(|server| server.config == *config) {
                let server = self.new_server(config);
                self.servers.push(server);
            }
        }
        self.servers.sort_by_key(|server| wanted.iter().position(|config| server.config == *config));
        self.warn_without_rendezvous(now);
        self.candidates_may_have_changed(now);
        self.admit_all(now);
    }

    fn new_server(&mut self, config: &RendezvousConfig) -> Server {
        // After 65,536 changes ids come round.
        while self.all_servers().any(|server| server.id == ServerId(self.next_server)) {
            self.next_server = self.next_server.wrapping_add(1);
        }
        let server = Server::new(self.next_server, config.clone(), &mut self.shared.rng);
        self.next_server = self.next_server.wrapping_add(1);
        server
    }

    /// A server is used no longer: its relay paths are gone at once.
    fn depart(&mut self, now: Instant, mut server: Server) {
        for peer in self.peers.values_mut() {
            peer.listed.remove(&server.id);
            peer.relays.remove(&server.id);
            peer.punch.relay_down(now, server.id);
        }
        self.gather.forget(server.id);
        for code in ["rendezvous", "duplicate"] {
            self.warnings.clear(code, &server.config.text());
        }
        server.client.leave(now);
        self.departing.push(server);
    }

    fn set_deny(&mut self, now: Instant, deny: BTreeSet<PeerId>) {
        let old = std::mem::replace(&mut self.deny, deny);
        let me = self.my_id();
        let refused: Vec<PeerId> = self.deny.difference(&old).copied().filter(|id| *id != me).collect();
        for id in refused {
            self.release(now, &id);
            self.remove_peer(now, &id);
        }
        // Whoever is refused no longer was listed long ago.
        for id in old.difference(&self.deny) {
            self.servers.iter_mut().for_each(|server| server.client.list_again(now, id));
        }
    }
}
