//! The rendezvous servers of net.toml: one client machine each, and what their news means for the peers.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::peer::Peer;
use super::{Inbound, Node, RendezvousConfig};
use crate::id::{Origin, PeerId, ServerId, SocketId};
use crate::rendezvous::client::{Client, Event, State};
use crate::sans::{Action, Instant, Rng};

/// One rendezvous.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) id: ServerId,
    pub(super) config: RendezvousConfig,
    pub(super) client: Client,
    /// What its name resolved to last.
    addresses: Vec<SocketAddr>,
}

impl Server {
    pub(super) fn new(index: u16, config: RendezvousConfig, rng: &mut Rng) -> Self {
        let id = ServerId(index);
        let client = Client::new(id, config.pin, &rng.seed()).with_streams(config.udp, config.streams.clone());
        Self { id, client, config, addresses: Vec::new() }
    }

    fn resolve(&self) -> Action {
        Action::Resolve { server: self.id, host: self.config.host.clone(), port: self.config.port }
    }
}

impl Node {
    /// The server with this id, if it is used.
    pub(super) fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.iter().find(|server| server.id == id)
    }

    pub(super) fn server_mut(&mut self, id: ServerId) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.id == id)
    }

    /// Those that are used, and those that are being left.
    pub(super) fn all_servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().chain(&self.departing)
    }

    pub(super) fn warn_without_rendezvous(&mut self, now: Instant) {
        if self.servers.is_empty() {
            let text = "net.toml names no rendezvous: only peers on this machine's LANs, and peers met before at the \
                        addresses they had then, can be found; add `rendezvous = [\"HOST:PORT\"]` under [network]"
                .to_owned();
            let wall_ms = self.wall_ms(now);
            self.warnings.raise(wall_ms, "no-rendezvous", "", text);
        } else {
            self.warnings.clear("no-rendezvous", "");
        }
    }

    pub(super) fn resolved(&mut self, now: Instant, id: ServerId, result: Result<Vec<SocketAddr>, String>) {
        // The same rendezvous under two names is one: its datagrams could not be told apart, and each registration would
        // replace the other. The name that was resolved first has it.
        let taken: Vec<SocketAddr> =
            self.servers.iter().filter(|s| s.id != id).flat_map(|s| s.addresses.iter().copied()).collect();
        let Some(server) = self.server_mut(id) else { return };
        match result {
            Ok(addresses) if addresses.iter().any(|a| taken.contains(a)) => {
                let text = "net.toml names this rendezvous twice; remove one of the two".to_owned();
                server.client.unresolved(now, text);
            }
            Ok(addresses) => {
                server.addresses.clone_from(&addresses);
                server.client.set_addresses(now, addresses);
            }
            Err(reason) => {
                let what = "it is tried again and again: check how it is spelled in net.toml, and this machine's DNS";
                server.client.unresolved(now, format!("{reason}; {what}"));
            }
        }
    }

    pub(super) fn servers_timeout(&mut self, now: Instant) {
        for server in self.servers.iter_mut().chain(&mut self.departing) {
            server.client.handle_timeout(now, || self.shared.numbers.take());
        }
    }

    pub(super) fn handle_from_server(&mut self, now: Instant, from: Origin, bytes: &[u8]) -> Inbound {
        self.tell_clients_apart();
        let identity = &self.shared.identity;
        let known = self
            .servers
            .iter_mut()
            .chain(&mut self.departing)
            .any(|s| s.client.handle_datagram(now, identity, from, bytes));
        if known {
            self.drain(now);
            Inbound::Taken
        } else {
            self.drops.count("unknown-rendezvous");
            Inbound::Dropped
        }
    }

    /// The same rendezvous in two ways that no name shows, as an address and a web server's name, is one too.
    fn tell_clients_apart(&mut self) {
        if self.servers.len() < 2 {
            return;
        }
        let keys: Vec<_> = self.servers.iter().filter_map(|s| Some((s.id, s.client.server_key()?))).collect();
        for server in &mut self.servers {
            let others = keys.iter().filter(|(id, _)| *id != server.id);
            server.client.set_taken(others.map(|(_, key)| *key).collect());
        }
    }

    pub(super) fn unwrap_relay(&self, frame: &mut [u8], from: Origin) -> Option<(ServerId, PeerId, Range<usize>)> {
        self.servers.iter().find_map(|server| {
            let (peer, range) = server.client.relay_open(frame, from)?;
            Some((server.id, peer, range))
        })
    }

    /// The header that makes `payload` a relay frame for a peer, and where to send it.
    pub(super) fn relay_header(
        &self,
        server: ServerId,
        peer: &PeerId,
        payload: &[u8],
    ) -> Option<([u8; crate::wire::relay::HEADER], SocketId, SocketAddr)> {
        let client = &self.server(server)?.client;
        let to = client.server_addr()?;
        Some((client.relay_header(peer, payload)?, client.server_socket()?, to))
    }

    pub(super) fn drain_servers(&mut self, now: Instant) {
        for index in 0..self.servers.len() {
            while let Some(event) = self.servers[index].client.poll_event() {
                self.handle_server_event(now, index, event);
            }
            while let Some((socket, to, payload)) = self.servers[index].client.poll_transmit() {
                self.transmit(socket, to, payload, None);
            }
            self.warn_of_server(now, index);
        }
        for index in 0..self.departing.len() {
            // What it still has to say concerns nobody any more, but for its streams.
            while let Some(event) = self.departing[index].client.poll_event() {
                if let Event::Disconnect(socket) = event {
                    self.actions.push_back(Action::Disconnect(socket));
                }
            }
            while let Some((socket, to, payload)) = self.departing[index].client.poll_transmit() {
                self.transmit(socket, to, payload, None);
            }
        }
        let (gone, departing) =
            std::mem::take(&mut self.departing).into_iter().partition::<Vec<_>, _>(|s| s.client.has_left());
        self.departing = departing;
        self.actions.extend(gone.iter().flat_map(|server| server.client.streams()).map(Action::Disconnect));
    }

    fn handle_server_event(&mut self, now: Instant, index: usize, event: Event) {
        let id = self.servers[index].id;
        match event {
            Event::ResolveAgain => self.actions.push_back(self.servers[index].resolve()),
            Event::Observed { socket, addr } => {
                if self.gather.has_moved(id, socket, addr) {
                    self.look_at_leases(now);
                    self.nat_moved(now);
                }
                if self.gather.reflexive().next().is_none() {
                    // There is somebody to ask again.
                    self.nat.registered(now, &mut self.shared.rng);
                }
                self.gather.observed(id, socket, addr);
                self.candidates_may_have_changed(now);
            }
            Event::Unobserved => {
                self.gather.forget(id);
                self.nat_moved(now);
                self.candidates_may_have_changed(now);
            }
            Event::Connect { attempt, to, carrier } => {
                self.actions.push_back(Action::Connect { server: id, attempt, to, carrier });
            }
            Event::Disconnect(socket) => self.actions.push_back(Action::Disconnect(socket)),
            Event::Registered => {
                let name = self.servers[index].config.text();
                tracing::info!(rendezvous = name, "registered");
                // Should the other be there still, it tries again, and we are told again.
                self.warnings.clear("duplicate", &name);
                self.naming.online(now);
                self.announce_to(now, index);
                self.admit_all(now);
                self.listed_again(now, index);
                self.nat.registered(now, &mut self.shared.rng);
            }
            Event::Lost | Event::Refused(_) => {
                if matches!(event, Event::Lost) {
                    // Perhaps it is our router that went away.
                    self.look_at_leases(now);
                }
                // Who was listed stays noted: the client tells what changed once it is back.
                for peer in self.peers.values_mut() {
                    peer.relays.remove(&id);
                    peer.punch.relay_down(now, id);
                }
                self.carriers.look_soon(now);
                self.admit_all(now);
            }
            Event::Duplicate => {
                let text = format!(
                    "another machine is up with this device's identity (a copied state folder?): give each machine its \
                     own, by removing the copied one; {} keeps the first",
                    self.servers[index].config.text()
                );
                let wall_ms = self.wall_ms(now);
                self.warnings.raise(wall_ms, "duplicate", self.servers[index].config.text(), text);
            }
            Event::Member { peer, observed, sealed } => self.member(now, id, &peer, observed, &sealed),
            Event::Left { peer } => self.unlisted(now, id, &peer),
            Event::Introduced { peer } => {
                self.introduced(now, &peer);
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.punch.introduce(now);
                }
            }
            Event::RelayOpen { peer } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.relays.insert(id);
                    peer.punch.relay_up(now, id);
                    peer.session.connect(now);
                    peer.session.restart(now);
                }
            }
            Event::RelayClosed { peer } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.relays.remove(&id);
                    peer.punch.relay_down(now, id);
                }
                self.carriers.look_soon(now);
            }
        }
    }

    /// A stream is there, or is not.
    pub(super) fn connected(&mut self, now: Instant, id: ServerId, attempt: u64, result: Result<SocketId, String>) {
        match self.any_server_mut(id) {
            Some(server) => server.client.connected(now, attempt, result),
            // It was forgotten meanwhile.
            None => self.actions.extend(result.ok().map(Action::Disconnect)),
        }
    }

    /// A stream ended, perhaps one of theirs.
    pub(super) fn server_disconnected(&mut self, now: Instant, socket: SocketId) {
        for server in self.servers.iter_mut().chain(&mut self.departing) {
            server.client.disconnected(now, socket);
        }
    }

    fn any_server_mut(&mut self, id: ServerId) -> Option<&mut Server> {
        self.servers.iter_mut().chain(&mut self.departing).find(|server| server.id == id)
    }

    /// Whether all that we hear of a rendezvous comes by streams, because UDP does not pass here.
    pub(super) fn is_udp_blocked(&self) -> bool {
        let mut registered = self.servers.iter().filter(|s| s.client.state() == State::Registered).peekable();
        registered.peek().is_some() && registered.all(|server| server.client.is_udp_blocked())
    }

    /// Whether no direct way leads beyond our own networks, for UDP does not pass here or there.
    pub(super) fn is_udp_blocked_to(&self, id: &PeerId) -> bool {
        self.is_udp_blocked() || self.peers.get(id).is_some_and(Peer::is_udp_blocked)
    }

    /// A direct path died: ask for a new introduction by the quickest server that lists the peer.
    pub(super) fn introduce_again(&mut self, now: Instant, id: &PeerId) {
        // Perhaps it is our own address that changed: the servers see, and tell the others.
        self.reregister(now);
        let lists = |s: &&mut Server| s.client.state() == State::Registered && s.client.lists(id);
        let quickest = |s: &&mut Server| s.client.rtt().unwrap_or(Duration::MAX);
        match self.servers.iter_mut().filter(lists).min_by_key(quickest) {
            Some(server) => server.client.introduce(now, *id),
            None => self.search(now, id),
        }
    }

    /// A server is back, and with it those that it lists as before.
    fn listed_again(&mut self, now: Instant, index: usize) {
        let server = &self.servers[index];
        let back = |id: &PeerId, peer: &Peer| {
            peer.offline.is_some() && peer.listed.contains_key(&server.id) && server.client.lists(id)
        };
        let ids: Vec<PeerId> = self.peers.iter().filter(|(id, peer)| back(id, peer)).map(|(id, _)| *id).collect();
        ids.iter().for_each(|id| self.appeared(now, id));
    }

    /// Whether a server that answers lists the peer.
    pub(super) fn is_listed(&self, id: &PeerId) -> bool {
        self.servers.iter().any(|server| server.client.lists(id))
    }

    /// Registers everywhere anew, if that was not done just now.
    pub(super) fn reregister(&mut self, now: Instant) {
        if self.reregistrations.allow(now) {
            self.servers.iter_mut().for_each(|server| server.client.reregister(now));
        }
    }

    /// Whether any rendezvous answers us.
    pub(super) fn is_registered(&self) -> bool {
        self.servers.iter().any(|server| server.client.state() == State::Registered)
    }

    /// What is wrong with a rendezvous stands as a warning until it is registered with.
    fn warn_of_server(&mut self, now: Instant, index: usize) {
        let server = &self.servers[index];
        let name = server.config.text();
        let text = match (server.client.state(), server.client.problem()) {
            (state, Some(problem)) => format!("rendezvous {name}: {}", self.explain(server, state, problem)),
            (State::Registered, None) => {
                self.warnings.clear("rendezvous", &name);
                return;
            }
            (_, None) => return,
        };
        let wall_ms = self.wall_ms(now);
        self.warnings.raise(wall_ms, "rendezvous", name, text);
    }

    /// A problem in the client's words, and what the user can do that the client knows nothing of.
    fn explain(&self, server: &Server, state: State, problem: &str) -> String {
        let name = &server.config.text();
        // What net.toml calls it is not said twice.
        let problem = problem.strip_suffix(&format!(" from {name}")).unwrap_or(problem);
        let problem = problem.strip_prefix(&format!("{name} ")).unwrap_or(problem);
        match state {
            State::Unreachable if !server.config.udp => format!("{problem}; it is tried again and again"),
            State::Unreachable => format!(
                "{problem}; it is tried again and again: is `punchlan rendezvous` running there, and is its port open, for \
                 UDP or at least for TCP?"
            ),
            State::Refused if problem.ends_with("`allow`") => {
                format!("{problem}: {}", self.shared.identity.network.id())
            }
            _ => problem.to_owned(),
        }
    }
}
