//! A packet or message goes out.
//!
//! 1. The table seals it in place, for the one way that it goes by ([`crate::forward`]).
//! 2. What the table says nothing of is for everyone; or for a peer with two ways at the moment; or for one without a
//!    session, for which it waits a moment, and which is asked for.

use std::net::SocketAddr;
use std::time::Duration;

use super::status::{Path, PathKind};
use super::{Event, HEADROOM, Node, Outbound, TAILROOM, Train, tcp};
use crate::forward::Unsealed;
use crate::id::{PeerId, SocketId};
use crate::nat::Traits;
use crate::offload::Cut;
use crate::punch::{self, Via};
use crate::router::Route;
use crate::sans::{Instant, Transmit};
use crate::session::{self, Channel};
use crate::wire::kind;
use crate::wire::probe::Probe;
use crate::wire::session::{Control, HEADER, TAG};

/// Pings that wait for their pong, per peer.
const MAX_PINGS: usize = 64;

impl Node {
    /// A packet came from the TUN: `buf` is [`HEADROOM`] free bytes, the packet, [`TAILROOM`] free bytes. It is
    /// sealed in place.
    pub fn handle_packet(&mut self, now: Instant, buf: &mut [u8]) -> Outbound {
        if self.leaving {
            // Nothing comes after the goodbye.
            return Outbound::Dropped;
        }
        self.refresh(now);
        match self.table.seal(now, buf) {
            Ok(train) => {
                self.attend(now);
                return train.into();
            }
            Err(Unsealed::Dropped) => return Outbound::Dropped,
            Err(Unsealed::Shared) => {
                self.handle_shared(now, &buf[HEADROOM..buf.len() - TAILROOM]);
                return Outbound::Taken;
            }
            Err(Unsealed::Node) => self.drain_many(now),
        }
        match self.router.route(&buf[HEADROOM..buf.len() - TAILROOM]) {
            Route::Peer(id) => self.send_packet(now, &id, buf),
            // The table knows them as this node does.
            Route::Everyone(_) => self.not_sent("no-such-address"),
            Route::Drop(reason) => self.not_sent(reason.word()),
        }
    }

    pub(super) fn send_packet(&mut self, now: Instant, id: &PeerId, buf: &mut [u8]) -> Outbound {
        let Some(peer) = self.peers.get_mut(id) else { return self.not_sent("no-such-address") };
        let Some(choice) = peer.punch.choice().copied().filter(|_| peer.session.is_established(now)) else {
            if peer.waiting.push(now, buf.to_vec()) {
                self.drops.count("no-session");
            }
            self.search(now, id);
            self.drain_peer(now, id);
            return Outbound::Taken;
        };
        let Some(egress) = self.egress(id, choice.via) else {
            // The way is in doubt as if the packet had been lost on it.
            self.peers.get_mut(id).into_iter().for_each(|peer| peer.punch.data_sent(now, choice.via));
            return self.not_sent("no-relay");
        };
        let Ok(train) = egress.seal(now, buf) else { return self.not_sent("no-keys") };
        self.attend(now);
        if let Some(also) = choice.also {
            let sealed = HEADROOM - 1 - HEADER..train.range.end;
            self.send_via(also, id, buf[sealed].to_vec(), None);
        }
        train.into()
    }

    /// A super-packet came from the TUN: its segments from `next` on are sealed one behind the other into `arena`, as
    /// many as one train takes, and `next` moves on. Call until that is [`Cut::count`].
    pub fn handle_super(&mut self, now: Instant, cut: &Cut<'_>, next: &mut usize, arena: &mut [u8]) -> Option<Train> {
        self.refresh(now);
        if let Some(train) = self.table.seal_train(now, cut, next, arena) {
            self.attend(now);
            return Some(train);
        }
        // For many, for nobody, for a peer without a session, or that takes no segments, or that has two ways at the moment.
        let framed = self.table.cut_alone(cut, next, arena)?;
        self.handle_packet(now, framed).train()
    }

    /// Lets a peer's machines say what they have to say.
    pub(super) fn drain_peer(&mut self, now: Instant, id: &PeerId) {
        while let Some(event) = self.peers.get_mut(id).and_then(|p| p.session.poll_event()) {
            match event {
                session::Event::Established { .. } | session::Event::Confirmed { .. } => self.met(now, id),
                session::Event::Expired => tracing::debug!(peer = ?id, "keys expired"),
            }
        }
        while let Some(message) = self.peers.get_mut(id).and_then(|p| p.session.poll_transmit()) {
            self.send_handshake(id, message);
        }
        while let Some(event) = self.peers.get_mut(id).and_then(|p| p.punch.poll_event()) {
            self.handle_path_event(now, id, &event);
        }
        while let Some(probe) = self.peers.get_mut(id).and_then(|p| p.punch.poll_probe(now, &mut self.budget)) {
            self.send_probe(id, &probe);
        }
        while let Some(via) = self.peers.get_mut(id).and_then(|p| p.punch.poll_keepalive()) {
            self.send_plain(via, vec![kind::KEEPALIVE]);
        }
    }

    /// Wants a session, and a way if there is none.
    pub(super) fn search(&mut self, now: Instant, id: &PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.session.connect(now);
        if peer.offline.is_some() {
            peer.searched = Some(now);
        }
        if peer.punch.choice().is_none() {
            peer.punch.introduce(now);
            self.carriers.look_soon(now);
        }
    }

    /// Both sides have keys: what the peer claims is bound, and what waited goes.
    fn met(&mut self, now: Instant, id: &PeerId) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.met = true;
            self.naming.online(now);
            self.warnings.clear("version", &id.to_string());
        }
        self.grant_seniority(id);
        self.forget_hearsay(id);
        self.bind(now, id);
        self.search_ports_as_before(now, id);
        self.want_tcp(now, id);
        self.tell_announcement(now, id);
        if self.nat.found() != Traits::default() {
            self.tell_nat(now, id);
        }
        self.groups_are_news(now, id);
        self.introduce_strangers(now, Some(id));
        self.flush_waiting(now, id);
    }

    /// Sends what waited for a session and a way.
    fn flush_waiting(&mut self, now: Instant, id: &PeerId) {
        let ready = |p: &super::Peer| p.session.is_established(now) && p.punch.choice().is_some();
        while let Some(mut packet) = self.peers.get_mut(id).filter(|p| ready(p)).and_then(|p| p.waiting.pop(now)) {
            if let Outbound::Send { socket, to, range } = self.send_packet(now, id, &mut packet) {
                self.transmit(socket, to, packet[range].to_vec(), None);
            }
        }
        while let Some(ping) = self.peers.get_mut(id).filter(|p| ready(p)).and_then(|p| p.waiting_pings.pop(now)) {
            self.ping(now, id, ping);
        }
    }

    fn handle_path_event(&mut self, now: Instant, id: &PeerId, event: &punch::Event) {
        match event {
            punch::Event::Chosen { via, .. } => {
                self.way_is_found(now, id, *via);
                self.way_changes(now, id);
                if let (Some(peer), Via::Direct { .. }) = (self.peers.get_mut(id), via) {
                    let heard = *peer.heard.get_or_insert(now);
                    let after = *peer.direct_after.get_or_insert(now - heard);
                    tracing::info!(peer = %peer.name, "direct after {} ms", after.as_millis());
                }
                if let Some(peer) = self.peers.get_mut(id).filter(|p| !p.session.is_established(now)) {
                    peer.session.connect(now);
                    peer.session.restart(now);
                }
                self.flush_waiting(now, id);
            }
            punch::Event::PathLost => {
                self.introduce_again(now, id);
                self.way_changes(now, id);
            }
            punch::Event::RelayDoubtful { relay } => match relay {
                Via::Relay { server } => self.server_mut(*server).into_iter().for_each(|s| s.client.check(now)),
                Via::Member { carrier } => self.check_carrier(now, id, carrier),
                Via::Direct { .. } => {}
            },
            punch::Event::Stuck => {
                self.punching_is_stuck(now, id);
                self.want_tcp(now, id);
            }
            // The search goes on there by itself.
            punch::Event::PeerReflexive { addr } => {
                tracing::debug!(peer = ?id, %addr, "peer-reflexive");
                self.is_peer_reflexive(now, id, *addr);
            }
        }
    }

    /// Handshakes go the chosen way, else through every relay that is open.
    fn send_handshake(&mut self, id: &PeerId, message: Vec<u8>) {
        let Some(peer) = self.peers.get(id) else { return };
        match peer.punch.choice().map(|choice| choice.via) {
            Some(via) => self.send_via(via, id, message, None),
            None => {
                for server in peer.relays.iter().copied().collect::<Vec<_>>() {
                    self.send_via(Via::Relay { server }, id, message.clone(), None);
                }
            }
        }
    }

    pub(super) fn send_probe(&mut self, id: &PeerId, out: &punch::ProbeOut) {
        // Without a number there is no probe; the next one is asked for when the block is reserved.
        let Some(counter) = self.shared.numbers.take() else { return };
        let Some(peer) = self.peers.get(id) else { return };
        let (kind, nonce, observed) = (out.kind, out.nonce, out.observed);
        let probe = Probe { kind, tag: peer.probe_keys.tx_tag, counter, nonce, observed };
        let mut bytes = probe.encode(out.len);
        peer.probe_keys.seal(&mut bytes);
        self.send_via(out.via, id, bytes, out.ttl);
    }

    /// Sends a sealed in-session message the way data goes; nothing if there is no session.
    /// Says whether it went.
    pub(super) fn send_control(&mut self, now: Instant, id: &PeerId, message: &Control<'_>) -> bool {
        let Some(peer) = self.peers.get_mut(id).filter(|p| p.session.is_established(now)) else { return false };
        let Some(via) = peer.punch.choice().map(|c| c.via).or_else(|| {
            let server = *peer.relays.first()?;
            Some(Via::Relay { server })
        }) else {
            return false;
        };
        let inner = message.encode();
        let mut datagram = vec![0; HEADER + inner.len() + TAG];
        datagram[HEADER..HEADER + inner.len()].copy_from_slice(&inner);
        let sealed = peer.session.seal(now, Channel::Control, &mut datagram).is_ok();
        if sealed {
            self.send_via(via, id, datagram, None);
        }
        sealed
    }

    /// Pings a peer over the overlay, now or as soon as there is a session.
    pub(super) fn ping(&mut self, now: Instant, id: &PeerId, ping: u64) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !peer.session.is_established(now) || peer.punch.choice().is_none() {
            if peer.waiting_pings.push(now, ping) {
                self.drops.count("no-session");
            }
            return self.search(now, id);
        }
        if peer.pings.len() >= MAX_PINGS {
            peer.pings.pop_first();
        }
        peer.pings.insert(ping, now);
        self.send_control(now, id, &Control::Ping(ping));
    }

    pub(super) fn pong(&mut self, now: Instant, via: Via, id: &PeerId, ping: u64) {
        let Some(sent) = self.peers.get_mut(id).and_then(|p| p.pings.remove(&ping)) else { return };
        if let Some(path) = self.path_status(now, id, via) {
            self.events.push_back(Event::Pong { id: ping, rtt: now - sent, path });
        }
    }

    /// The way `via` to a peer, for people.
    pub(super) fn path_status(&self, now: Instant, id: &PeerId, via: Via) -> Option<Path> {
        let (kind, remote, socket, relay, transport) = match via {
            Via::Direct { socket, remote } => {
                let known = self.peers.get(id)?.punch.paths(now).find(|path| path.via == via);
                let kind = known.map_or(PathKind::PeerReflexive, |path| path.kind);
                (kind, remote, socket, None, tcp::word(via))
            }
            Via::Relay { server } => {
                let server = self.server(server)?;
                let (addr, socket) = (server.client.server_addr()?, server.client.server_socket()?);
                (PathKind::Relay, addr, socket, Some(server.config.text()), server.client.transport())
            }
            Via::Member { carrier } => {
                let ((socket, remote), ..) = self.carried_out(&carrier, id)?;
                let transport = tcp::word(Via::Direct { socket, remote });
                (PathKind::Relay, remote, socket, Some(self.peers.get(&carrier)?.name.clone()), transport)
            }
        };
        let local = self.sockets.iter().find(|s| s.id == socket);
        Some(Path {
            kind,
            transport: transport.to_owned(),
            family: if remote.is_ipv4() { "ipv4" } else { "ipv6" }.to_owned(),
            local: local
                .map(|s| s.addr)
                .or_else(|| self.ports.local(socket))
                .or_else(|| self.tcp.local(socket, remote)),
            remote,
            relay,
        })
    }

    /// Queues a datagram for a peer on a given way.
    pub(super) fn send_via(&mut self, via: Via, id: &PeerId, payload: Vec<u8>, ttl: Option<u8>) {
        let framed = match via {
            Via::Direct { socket, remote } => return self.transmit(socket, remote, payload, ttl),
            Via::Relay { server } => self.relay_header(server, id, &payload),
            Via::Member { carrier } => self.carried_header(&carrier, id, &payload),
        };
        if let Some((header, socket, to)) = framed {
            self.transmit(socket, to, [&header[..], &payload].concat(), ttl);
        }
    }

    /// Queues bytes that belong to no peer's session on a direct way.
    pub(super) fn send_plain(&mut self, via: Via, payload: Vec<u8>) {
        if let Via::Direct { socket, remote } = via {
            self.transmit(socket, remote, payload, None);
        }
    }

    /// A peer is reached another way, or not any more: that concerns those too who are carried by it, and for it.
    pub(super) fn way_changes(&mut self, now: Instant, id: &PeerId) {
        self.carrier_moves(now, id);
        self.carried_moves(now, id);
        self.carriers.look_soon(now);
    }

    pub(super) fn transmit(&mut self, socket: SocketId, to: SocketAddr, payload: Vec<u8>, ttl: Option<u8>) {
        self.transmits.push_back(Transmit { socket, src: None, to, ttl, tos: 0, payload });
    }

    fn not_sent(&mut self, word: &'static str) -> Outbound {
        self.drops.count(word);
        Outbound::Dropped
    }
}

/// Milliseconds, for `status`.
pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
