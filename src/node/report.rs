//! What `status` says, put together from the machines.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Node;
use super::outbound::millis;
use super::peer::Peer;
use super::status::{
    Candidate, Counters, Me, Nat, Network, Peer as PeerReport, PeerState, Rendezvous, RendezvousState, SCHEMA, Status,
};
use crate::punch::Via;
use crate::rendezvous::client::State;
use crate::sans::Instant;

/// What `status` shows even while it is zero.
const ALWAYS: [&str; 3] = ["malformed", "replayed", "source-not-owned"];

impl Node {
    /// Everything that `punchlan status` shows. The interface's name, how names are known and `[lan]` are the shell's to fill
    /// in.
    pub fn status(&self, now: Instant) -> Status {
        let mut peers: Vec<PeerReport> = self.peers.values().map(|peer| self.peer_report(now, peer)).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        Status {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: Network {
                name: self.network_name.clone(),
                id: self.shared.identity.network.id(),
                interface: None,
                subnet: self.naming.overlay.v4,
                mtu: super::MTU,
                denied: self.deny.len(),
                dns: None,
            },
            me: self.me_report(),
            rendezvous: self.servers.iter().map(rendezvous_report).collect(),
            peers,
            warnings: self.warnings.to_vec(),
            lan: None,
            counters: Counters { drop: self.all_drops() },
        }
    }

    /// What was dropped so far, whoever counted it.
    pub(super) fn all_drops(&self) -> BTreeMap<String, u64> {
        let mut all: BTreeMap<String, u64> = ALWAYS.into_iter().map(|word| (word.to_owned(), 0)).collect();
        let counted = self.drops.all().into_iter().chain([
            ("probe-budget", self.budget.refused()),
            ("echo-rate", self.peers.values().map(|peer| peer.punch.unanswered()).sum()),
            ("too-many-paths", self.peers.values().map(|peer| peer.punch.crowded()).sum()),
            ("too-many-listed", self.servers.iter().map(|server| server.client.overflowed()).sum()),
            ("too-many-warnings", self.warnings.refused()),
            ("evicted-binding", self.naming.evicted()),
        ]);
        counted.filter(|(_, n)| *n > 0).for_each(|(word, n)| *all.entry(word.to_owned()).or_default() += n);
        all
    }

    fn me_report(&self) -> Me {
        let me = self.naming.me();
        let candidates = self.gather.candidates().iter();
        Me {
            name: self.naming.my_name.clone(),
            id: self.my_id(),
            addresses: me.v4.map(IpAddr::V4).into_iter().chain([IpAddr::V6(me.ula)]).collect(),
            candidates: candidates.map(|c| Candidate { kind: c.kind.into(), address: c.addr }).collect(),
            nat: Nat { port_mapping: self.lease.report(), ..self.nat.report() },
            carries: self.carried(),
        }
    }

    fn peer_report(&self, now: Instant, peer: &Peer) -> PeerReport {
        let id = peer.id();
        let choice = peer.punch.choice().filter(|_| peer.session.is_established(now) && peer.offline.is_none());
        let state = match choice.map(|c| c.via) {
            _ if peer.offline.is_some() => PeerState::Offline,
            None => PeerState::Connecting,
            Some(Via::Relay { .. } | Via::Member { .. }) => PeerState::Relayed,
            Some(Via::Direct { .. }) => PeerState::Direct,
        };
        let stats = choice.and_then(|_| peer.punch.stats(now));
        let owned = self.router.owned(&id);
        PeerReport {
            name: peer.name.clone(),
            id,
            addresses: owned
                .map(|o| o.v4.map(IpAddr::V4).into_iter().chain([IpAddr::V6(o.ula)]).collect())
                .unwrap_or_default(),
            state,
            path: choice.and_then(|c| self.path_status(now, &id, c.via)),
            rtt_ms: stats.as_ref().and_then(|s| s.rtt).map(millis),
            jitter_ms: stats.as_ref().and_then(|s| s.jitter).map(millis),
            loss: stats.as_ref().and_then(|s| s.loss),
            tx_bytes: peer.traffic.tx_bytes(),
            rx_bytes: peer.traffic.rx_bytes(),
            handshake_age_s: peer.session.handshake_age(now).map(|age| (age.as_secs_f64() * 10.0).round() / 10.0),
            direct_after_ms: peer.direct_after.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            cipher: peer.session.suite().map(|suite| suite.to_string()),
        }
    }
}

fn rendezvous_report(server: &super::servers::Server) -> Rendezvous {
    Rendezvous {
        address: server.config.text(),
        transport: server.client.transport().to_owned(),
        state: match server.client.state() {
            State::Resolving => RendezvousState::Resolving,
            State::Registering => RendezvousState::Registering,
            State::Registered => RendezvousState::Registered,
            State::Unreachable => RendezvousState::Unreachable,
            State::Refused => RendezvousState::Refused,
        },
        rtt_ms: server.client.rtt().map(millis),
    }
}
