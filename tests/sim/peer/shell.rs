//! The effects that the node asks for, and how long each takes.

use std::net::SocketAddr;
use std::time::Duration;

use punchlan::node::Event;
use punchlan::sans::{Action, Done, Instant};

use super::Peer;
use crate::sim::streams::{Asked, Dial};

const RESOLVE_TIME: Duration = Duration::from_millis(10);
const DISK_TIME: Duration = Duration::from_millis(2);
/// Where every peer listens for streams.
const LISTEN_PORT: u16 = 52_000;
const NAT_CHECK_TIME: Duration = Duration::from_secs(4);

impl Peer {
    /// Performs what the node asks for, until it asks for nothing.
    pub(super) fn settle(&mut self, now: Instant) {
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
            Action::GiveUp { attempt } => self.given_up.push_back(attempt),
            Action::StopListening => self.listens = None,
            Action::Disconnect(socket) => self.hang_ups.push_back(socket),
            Action::MapPort { .. } | Action::UnmapPort(_) => {
                unreachable!("no router here maps ports, and none is asked")
            }
        }
    }

    pub(super) fn done(&mut self, now: Instant, done: Done) {
        if let Done::Reserved { ceiling } = done {
            assert!(ceiling >= self.disk.ceiling, "a reservation never shrinks");
            self.disk.ceiling = ceiling;
        }
        if let Some(node) = &mut self.node {
            node.handle_done(now, done);
        }
        self.settle(now);
    }
}

#[cfg(test)]
mod tests {
    use punchlan::id::SocketId;
    use punchlan::node::{AddressChoice, LanConfig, RelayConfig};
    use punchlan::wire::session::feature;

    use super::*;
    use crate::sim::ledger;
    use crate::sim::machine::Machine as _;
    use crate::sim::peer::{Names, Profile};
    use crate::sim::world::HostId;

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
            lan: LanConfig::default(),
            features: feature::CARRYING | feature::GROUPS,
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
}
