//! A datagram comes in.
//!
//! 1. Its first byte says what it is; relay frames are unwrapped, and what is in them takes the same way.
//! 2. Data: the receiver index names the peer, its key opens it, the router's guard looks at the inner source and
//!    destination, the shell gets the packet. Mostly the table does so ([`crate::forward`]); the first packets by another
//!    way, or under new keys, come here.
//! 3. Everything else goes to the machine it is for. Nothing unauthenticated changes anything.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::peer::FAREWELL;
use super::{Inbound, Node};
use crate::addr::site;
use crate::forward::{self, Guard};
use crate::id::{Origin, PeerId};
use crate::punch::{ProbeIn, Via};
use crate::sans::{Datagram, Instant};
use crate::session::{Channel, Proof, Refusal, check_member, prove_source, read_initiation};
use crate::wire::probe::Probe;
use crate::wire::session::{Control, Header, receiver_index};
use crate::wire::{Class, Writer, classify};

/// How a datagram reached us: its way, which is also the way to answer.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    via: Via,
    local: Option<IpAddr>,
    /// The peer whose relay channel it came through.
    channel_peer: Option<PeerId>,
}

impl Node {
    /// A datagram came in on one of our sockets.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) -> Inbound {
        let mut datagram = datagram;
        self.refresh(now);
        let opened = self.table.openings().open(now, &mut datagram);
        if let Some(inbound) = opened {
            self.attend(now);
            return inbound;
        }
        let Datagram { socket, local, from, payload } = datagram;
        self.drain_many(now);
        let class = classify(payload);
        if self.leaving && class != Class::Rendezvous {
            return Inbound::Dropped;
        }
        match class {
            Class::Relay => match self.unwrap_relay(payload, Origin::of(socket, from)) {
                Some((server, peer, range)) => {
                    let arrival = Arrival { via: Via::Relay { server }, local, channel_peer: Some(peer) };
                    let base = range.start;
                    self.handle_from_peer(now, arrival, &mut payload[range]).shifted(base)
                }
                None => match self.unwrap_carried(now, payload, from) {
                    Some((via, peer, range)) => {
                        let arrival = Arrival { via, local, channel_peer: Some(peer) };
                        let base = range.start;
                        self.handle_from_peer(now, arrival, &mut payload[range]).shifted(base)
                    }
                    None => self.dropped_as("relay-frame"),
                },
            },
            Class::Rendezvous => self.handle_from_server(now, Origin::of(socket, from), payload),
            Class::Stun if self.is_stun_of_port(now, socket, payload) => Inbound::Taken,
            _ if socket.is_stream() && !self.tcp.is_peers(socket) => self.dropped_as("malformed"),
            Class::Keepalive => Inbound::Taken,
            Class::Stun if self.is_stun_of_search(now, socket, from, payload) => {
                self.search_ports(now);
                Inbound::Taken
            }
            // Nobody asked: gathering asks the rendezvous.
            Class::Stun => self.dropped_as("unexpected-stun"),
            // What is sent to the overlay goes in circles there.
            _ if self.comes_through_an_overlay(from) => self.dropped_as("through-overlay"),
            _ => {
                let arrival = Arrival { via: Via::Direct { socket, remote: from }, local, channel_peer: None };
                self.handle_from_peer(now, arrival, payload)
            }
        }
    }

    pub(super) fn comes_through_an_overlay(&self, from: SocketAddr) -> bool {
        self.gather.overlays().iter().any(|overlay| overlay.contains(&from.ip()))
    }

    fn handle_from_peer(&mut self, now: Instant, arrival: Arrival, bytes: &mut [u8]) -> Inbound {
        match classify(bytes) {
            Class::Data | Class::Control => self.handle_sealed(now, arrival, bytes),
            Class::Probe => self.handle_probe(now, arrival, bytes),
            Class::Initiation => self.handle_initiation(now, arrival, bytes),
            Class::Response => self.handle_response(now, arrival, bytes),
            Class::CookieReply => self.handle_cookie_reply(now, bytes),
            Class::Keepalive => Inbound::Taken,
            Class::Stun | Class::Relay | Class::Rendezvous | Class::Unknown => self.dropped_as("malformed"),
        }
    }

    fn handle_sealed(&mut self, now: Instant, arrival: Arrival, bytes: &mut [u8]) -> Inbound {
        let Ok(header) = Header::decode(bytes) else { return self.dropped_as("malformed") };
        let Some(id) = Some(header.index).and_then(|index| self.shared.indices.owner(index)) else {
            return self.dropped_as("unknown-index");
        };
        if arrival.is_foreign(&id) {
            return self.dropped_as("relay-frame");
        }
        self.take_over(now, &id);
        let Some(peer) = self.peers.get_mut(&id) else { return self.dropped_as("unknown-index") };
        let opened = match peer.session.open(now, bytes) {
            Ok(opened) => opened,
            Err(error) => return self.dropped_as(forward::refusal_word(error)),
        };
        peer.punch.received(now, arrival.via);
        peer.heard_from(now);
        if opened.channel == Channel::Data {
            peer.arrived(now, arrival.via);
        }
        let listens = opened.channel == Channel::Data || peer.controls.allow(now);
        if peer.session.has_events() {
            // The first packet under new keys confirms them: what waited goes before this packet's answer.
            self.drain_peer(now, &id);
        }
        match opened.channel {
            Channel::Data => self.handle_packet_from(now, &id, header, bytes, opened.body),
            Channel::Control if !listens => self.dropped_as("control-rate"),
            Channel::Control => {
                let inner = bytes[opened.body].to_vec();
                self.handle_control(now, arrival, &id, &inner);
                self.search_ports(now);
                self.drain_peer(now, &id);
                Inbound::Taken
            }
        }
    }

    /// An inner packet that its sender's session has vouched for.
    fn handle_packet_from(
        &mut self,
        now: Instant,
        id: &PeerId,
        header: Header,
        bytes: &[u8],
        body: Range<usize>,
    ) -> Inbound {
        let Some(peer) = self.peers.get(id) else { return self.dropped_as("unknown-index") };
        let guard = Guard { router: &self.router, sharing: self.table.sharing(), peer: id, gate: &peer.gate };
        match forward::make_out(now, header, bytes, body, &guard) {
            Ok(inbound) => {
                if let Some(packet) = inbound.packet() {
                    peer.traffic.add_received(packet.len() as u64);
                }
                inbound
            }
            Err(word) => self.dropped_as(word),
        }
    }

    fn handle_control(&mut self, now: Instant, arrival: Arrival, id: &PeerId, inner: &[u8]) {
        match Control::decode(inner) {
            Ok(Control::Nothing) => {}
            Ok(Control::Ping(ping)) => {
                self.send_control(now, id, &Control::Pong(ping));
            }
            Ok(Control::Pong(ping)) => self.pong(now, arrival.via, id, ping),
            Ok(Control::Announcement(bytes)) => self.handle_announcement(now, bytes),
            Ok(Control::Stranger(bytes)) => self.told_of(now, id, bytes),
            Ok(Control::Goodbye) => self.peer_left(now, id),
            Ok(Control::AddressTaken { what, holder }) => self.told_taken(now, what, holder),
            Ok(Control::Ports { next, asks, searches }) => self.told_ports(now, id, (next, searches), asks),
            Ok(Control::LookForMe { ports, open }) => self.told_to_look(now, id, ports, open),
            Ok(Control::Looked) => self.told_looked(id),
            Ok(Control::Nat(traits)) => self.told_nat(id, traits),
            Ok(Control::Carry { peer, wanted }) => self.told_to_carry(now, id, arrival.via, &peer, wanted),
            Ok(Control::Tcp { primed, places }) => self.told_tcp(now, id, primed, places),
            Ok(Control::Groups(groups)) => self.told_groups(id, groups),
            Ok(Control::Carried { peer, how }) => self.told_carried(now, id, &peer, how),
            Err(_) => self.drops.count("malformed"),
        }
    }

    fn handle_probe(&mut self, now: Instant, arrival: Arrival, bytes: &[u8]) -> Inbound {
        let Some(id) = Probe::peek_tag(bytes).and_then(|tag| self.tags.get(&tag)).copied() else {
            return self.dropped_as("unknown-probe");
        };
        if arrival.is_foreign(&id) {
            return self.dropped_as("relay-frame");
        }
        let Some(peer) = self.peers.get(&id) else { return self.dropped_as("unknown-probe") };
        if !peer.probe_keys.verify(bytes) {
            return self.dropped_as("unauthentic");
        }
        self.take_over(now, &id);
        let Some(peer) = self.peers.get_mut(&id) else { return self.dropped_as("unknown-probe") };
        let Ok(probe) = Probe::decode(bytes) else { return self.dropped_as("malformed") };
        if !peer.probe_window.accept(probe.counter) {
            return self.dropped_as("replayed");
        }
        if peer.offline.is_none_or(|since| now - since >= FAREWELL) {
            peer.heard_from(now);
        }
        let Probe { kind, nonce, observed, .. } = probe;
        peer.punch.handle_probe(now, arrival.via, arrival.local, &ProbeIn { kind, nonce, len: bytes.len(), observed });
        self.drain_peer(now, &id);
        Inbound::Taken
    }

    fn handle_initiation(&mut self, now: Instant, arrival: Arrival, bytes: &[u8]) -> Inbound {
        // Only members count: garbage must not put them under load.
        if let Err(refusal) = check_member(&self.shared.identity, bytes) {
            return self.refused(now, arrival, refusal);
        }
        // What came by a relay has its source proven by the frame's tag.
        let within = match arrival.channel_peer {
            Some(id) => {
                let peer = self.peers.get_mut(&id);
                let is_senior = peer.as_ref().is_some_and(|peer| peer.senior);
                // Those who were met first have a share that newcomers, who may be invented, cannot take from them.
                let of_all = &mut self.relayed_initiations[usize::from(is_senior)];
                peer.is_none_or(|peer| peer.initiations.allow(now)) && of_all.allow(now)
            }
            None => self.initiations.allow(now) || self.proves_its_source(now, arrival, bytes),
        };
        if !within {
            return self.dropped_as("under-load");
        }
        let initiation = match read_initiation(&self.shared.identity, bytes, &mut self.shared.rng) {
            Ok(initiation) => initiation,
            Err(refusal) => return self.refused(now, arrival, refusal),
        };
        let signed = initiation.announcement().clone();
        let id = signed.peer;
        if !self.may_speak(&id) || arrival.is_foreign(&id) {
            return self.dropped_as("denied");
        }
        self.learn(now, signed);
        self.take_over(now, &id);
        let Some(peer) = self.peers.get_mut(&id) else { return self.dropped_as("too-many-peers") };
        match peer.session.handle_initiation(now, &mut self.shared.env(), initiation) {
            Ok(Some(response)) => self.send_via(arrival.via, &id, response, None),
            Ok(None) => {}
            Err(refusal) => return self.refused(now, arrival, refusal),
        }
        self.drain_peer(now, &id);
        Inbound::Taken
    }

    fn handle_response(&mut self, now: Instant, arrival: Arrival, bytes: &[u8]) -> Inbound {
        let Some(id) = receiver_index(bytes).and_then(|index| self.shared.indices.owner(index)) else {
            return self.dropped_as("unknown-index");
        };
        if arrival.is_foreign(&id) {
            return self.dropped_as("relay-frame");
        }
        self.take_over(now, &id);
        let Some(peer) = self.peers.get_mut(&id) else { return self.dropped_as("unknown-index") };
        match peer.session.handle_response(now, &mut self.shared.env(), bytes) {
            Ok(signed) => {
                peer.punch.received(now, arrival.via);
                peer.heard_from(now);
                self.learn(now, signed);
                self.drain_peer(now, &id);
                Inbound::Taken
            }
            Err(refusal) => self.refused(now, arrival, refusal),
        }
    }

    fn handle_cookie_reply(&mut self, now: Instant, bytes: &[u8]) -> Inbound {
        let Some(id) = receiver_index(bytes).and_then(|index| self.shared.indices.owner(index)) else {
            return self.dropped_as("unknown-index");
        };
        let taken = self.peers.get_mut(&id).is_some_and(|peer| peer.session.handle_cookie_reply(now, bytes));
        self.drain_peer(now, &id);
        if taken { Inbound::Taken } else { self.dropped_as("unauthentic") }
    }

    /// A handshake message that is refused is counted; one of another version is named, because its mac1 held.
    fn refused(&mut self, now: Instant, arrival: Arrival, refusal: Refusal) -> Inbound {
        if let Refusal::Version(theirs) = refusal {
            // Without a channel the sender has no name, and its address may be anybody's.
            self.warn_of_version(now, arrival.channel_peer.as_ref(), theirs);
        }
        self.dropped_as(refusal_word(refusal))
    }

    /// As if it had come through a relay channel to `peer`.
    #[cfg(test)]
    pub(super) fn handle_relayed(&mut self, now: Instant, peer: PeerId, bytes: &mut [u8]) -> Inbound {
        let via = Via::Relay { server: crate::id::ServerId(0) };
        self.handle_from_peer(now, Arrival { via, local: None, channel_peer: Some(peer) }, bytes)
    }

    fn dropped_as(&mut self, word: &'static str) -> Inbound {
        self.drops.count(word);
        Inbound::Dropped
    }

    /// Under load, an initiation is read only with the cookie that we sent to its source; else it gets one.
    fn proves_its_source(&mut self, now: Instant, arrival: Arrival, bytes: &[u8]) -> bool {
        let Via::Direct { remote, .. } = arrival.via else { return false };
        let shared = &mut self.shared;
        let mut source = Writer::default();
        let source = source.socket_addr(Some(remote)).as_slice();
        match prove_source(&shared.identity, &self.cookies, now, source, bytes, &mut shared.rng) {
            Proof::Given => self.proven_initiations.allow(now, &site(remote.ip())),
            Proof::Demand(reply) => {
                self.send_plain(arrival.via, reply);
                false
            }
            Proof::Refused(_) => false,
        }
    }
}

impl Arrival {
    /// Whether it came through the relay channel of another than `id`.
    fn is_foreign(&self, id: &PeerId) -> bool {
        self.channel_peer.is_some_and(|peer| peer != *id)
    }
}

/// A refusal's word in `status`.
const fn refusal_word(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed(_) => "malformed",
        Refusal::Mac1 | Refusal::Noise(_) | Refusal::Identity | Refusal::Announcement(_) => "unauthentic",
        Refusal::Version(_) => "version",
        Refusal::Replayed => "replayed",
        Refusal::Unexpected => "unexpected-response",
        Refusal::Suite => "no-common-suite",
        Refusal::TooMany => "too-many-handshakes",
    }
}
