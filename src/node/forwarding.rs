//! The table that packets go by, and what those who use it tell.
//!
//! Whatever changes a peer, a registration or the router shows in the table at the next packet of this node's
//! ([`Node::handle_packet`], [`Node::handle_datagram`]) and at the next [`Node::poll_table`]. Packets that went by the
//! table past this node show in the peer's machines when they are taken over: every [`WATCH`] while there is traffic, at
//! every timeout of the peer, when the bell rings because it begins, before anything that the peer says is heard, and
//! before its way changes: so each counts in its order, and for the way that it went.

use std::sync::Arc;
use std::time::Duration;

use super::Node;
use crate::forward::{Egress, Ingress, Leg, RelayChannel, Table};
use crate::id::PeerId;
use crate::punch::Via;
use crate::sans::Instant;
use crate::session;
use crate::wire::session::feature;

/// While there is traffic it is looked at this often: a doubt that begins after a second of silence begins at most so
/// much later.
const WATCH: Duration = Duration::from_millis(100);

/// How packets come from a peer, and under which indices: not more than three.
type Ingresses = [Option<(u32, Ingress)>; 3];

/// Which way along a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Out,
    In,
}

impl Node {
    /// The table, if it is another than when this was asked last: for those who go by it past this node. Ask after every
    /// `handle_*`.
    #[must_use]
    pub fn poll_table(&mut self, now: Instant) -> Option<Arc<Table>> {
        self.refresh(now);
        (!std::mem::replace(&mut self.table_told, true)).then(|| self.table.clone())
    }

    /// The table as it stood last.
    pub fn table(&self) -> Arc<Table> {
        self.table.clone()
    }

    /// The table's bell rang. Drain afterwards.
    pub fn handle_bell(&mut self, now: Instant) {
        self.attend(now);
        self.drain_many(now);
    }

    /// Brings the table up to date.
    pub(super) fn refresh(&mut self, now: Instant) {
        if self.leaving {
            if self.table.peers() > 0 {
                Arc::make_mut(&mut self.table).clear();
                self.table_told = false;
            }
            return;
        }
        if !Arc::ptr_eq(self.table.router(), &self.router) {
            Arc::make_mut(&mut self.table).set_router(self.router.clone());
            self.table_told = false;
        }
        let stamps = || self.servers.iter().map(|server| server.client.relay_stamp());
        if !stamps().eq(self.relay_stamps.iter().copied()) {
            self.relay_stamps = stamps().collect();
            let relayed: Vec<PeerId> =
                self.peers.iter().filter(|(_, peer)| !peer.relays.is_empty()).map(|(id, _)| *id).collect();
            relayed.iter().for_each(|id| self.refresh_peer(now, *id));
        }
        while let Some(id) = self.peers.take_changed() {
            self.refresh_peer(now, id);
            // What it carries for us goes its way.
            self.carriers.carried_by(&id).into_iter().for_each(|carried| self.refresh_peer(now, carried));
        }
    }

    fn refresh_peer(&mut self, now: Instant, id: PeerId) {
        if self.untold(now, &id).is_none() {
            return;
        }
        self.take_over(now, &id);
        if let Some((egress, ingress)) = self.untold(now, &id) {
            Arc::make_mut(&mut self.table).set(id, egress, ingress);
            self.table_told = false;
        }
    }

    /// How packets go and come, if the table says something else.
    fn untold(&self, now: Instant, id: &PeerId) -> Option<(Option<Egress>, Ingresses)> {
        let peer = self.peers.get(id).filter(|peer| peer.session.is_established(now));
        let choice = peer.and_then(|peer| peer.punch.choice()).filter(|choice| choice.also.is_none());
        let egress = choice.and_then(|choice| self.egress(id, choice.via));
        let ingress = peer.map(|_| self.ingress(id)).unwrap_or_default();
        (!self.table.says(id, egress.as_ref(), &ingress)).then_some((egress, ingress))
    }

    /// How packets go to a peer by `via`.
    pub(super) fn egress(&self, id: &PeerId, via: Via) -> Option<Egress> {
        let peer = self.peers.get(id)?;
        Some(Egress {
            key: peer.session.sealing_key(session::Channel::Data)?,
            leg: self.leg(id, via, Direction::Out)?,
            segments: peer.session.peer_features().is_some_and(|bits| bits & feature::SEGMENTS != 0),
            traffic: peer.traffic.clone(),
        })
    }

    fn ingress(&self, id: &PeerId) -> Ingresses {
        let Some(peer) = self.peers.get(id) else { return [const { None }; 3] };
        let Some(leg) = peer.arrives.and_then(|via| self.leg(id, via, Direction::In)) else {
            return [const { None }; 3];
        };
        let mut openers = peer.session.data_openers();
        std::array::from_fn(|_| {
            let (index, opener) = openers.next()?;
            let (leg, traffic, gate) = (leg.clone(), peer.traffic.clone(), peer.gate.clone());
            Some((index, Ingress { opener, peer: *id, leg, traffic, gate }))
        })
    }

    fn leg(&self, id: &PeerId, via: Via, direction: Direction) -> Option<Leg> {
        match via {
            Via::Direct { socket, remote } => Some(Leg { via, socket, remote, relay: None }),
            Via::Relay { server } => {
                let client = &self.server(server)?.client;
                let remote = client.server_addr()?;
                let (number, keys) = match direction {
                    Direction::Out => client.relay_out(id).map(|(number, key)| (number, vec![key]))?,
                    Direction::In => client.relay_in(id)?,
                };
                Some(Leg { via, socket: client.server_socket()?, remote, relay: Some(RelayChannel { number, keys }) })
            }
            Via::Member { carrier } => {
                let ((socket, remote), number, key) = match direction {
                    Direction::Out => self.carried_out(&carrier, id)?,
                    Direction::In => self.carried_in(&carrier, id)?,
                };
                Some(Leg { via, socket, remote, relay: Some(RelayChannel { number, keys: vec![key] }) })
            }
        }
    }

    /// If the bell rang, takes over from all who have traffic that nobody looked at.
    pub(super) fn attend(&mut self, now: Instant) {
        if !self.table.bell().answer() {
            return;
        }
        self.tell_throttled(now);
        let busy = self.peers.iter().filter(|(_, peer)| peer.watch.is_none() && !peer.traffic.is_quiet());
        let busy: Vec<PeerId> = busy.map(|(id, _)| *id).collect();
        for id in busy {
            self.take_over(now, &id);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.watch = Some(now + WATCH);
            }
        }
    }

    /// Takes over at a timeout of the peer's; looks no more if there was nothing.
    pub(super) fn watch(&mut self, now: Instant, id: &PeerId) {
        let news = self.take_over(now, id);
        self.look_for_storm(now, Some(*id));
        let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.watch.is_some_and(|at| at <= now)) else { return };
        peer.watch = Some(now + WATCH);
        if news {
            return;
        }
        peer.traffic.rest();
        if self.take_over(now, id) {
            // It came between the look and the rest.
            self.peers.get(id).inspect(|peer| peer.traffic.watch());
        } else if let Some(peer) = self.peers.get_mut(id) {
            peer.watch = None;
        }
    }

    /// What went and came past this node is told to the peer's machines, in its order; whether anything did.
    pub(super) fn take_over(&mut self, now: Instant, id: &PeerId) -> bool {
        let ways =
            (self.table.egress(id).map(|out| out.leg.via), self.table.ingress(id).map(|ingress| ingress.leg.via));
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let (sent, received) = (peer.traffic.sent_at(), peer.traffic.received_at());
        let news = (sent > peer.taken_over.0, received > peer.taken_over.1);
        peer.taken_over = (sent, received);
        // Who said goodbye is not brought back by what came before it.
        if peer.session.is_established(now) {
            if news.0 && sent <= received {
                peer.sent(sent, ways.0);
            }
            if news.1 {
                peer.session.data_opened(received);
                ways.1.into_iter().for_each(|via| peer.punch.received(received, via));
                peer.heard_from(received);
            }
            if news.0 && sent > received {
                peer.sent(sent, ways.0);
            }
            if peer.session.has_events() {
                self.drain_peer(now, id);
            }
        }
        news.0 || news.1
    }
}

impl super::Peer {
    /// Data went to it.
    fn sent(&mut self, at: Instant, via: Option<Via>) {
        self.session.data_sealed(at);
        let via = via.or_else(|| self.punch.choice().map(|choice| choice.via));
        via.into_iter().for_each(|via| self.punch.data_sent(at, via));
    }
}
