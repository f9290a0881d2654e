//! The sockets that searches open, until they lead nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::super::Node;
use crate::id::SocketId;
use crate::sans::{Action, Instant, Wakeup};
use crate::symmetric::MOST_OPEN;

/// A socket that leads nowhere is closed after this: the peer may have chosen another than we.
const IDLE: Duration = Duration::from_secs(3);
/// Above this nobody opens more: two searches of the largest kind, and what earlier ones have found.
const MOST: usize = 640;

/// Those that are open.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// Their ports, and since when they lead nowhere.
    all: BTreeMap<SocketId, (u16, Option<Instant>)>,
    /// The newest wish for more.
    attempt: u64,
    /// Whether it is not answered.
    is_asking: bool,
    /// Those of earlier searches that it gets as well.
    lent: Vec<(SocketId, u16)>,
    /// When they are looked through next.
    due: Option<Instant>,
}

impl Opened {
    pub(super) fn local(&self, socket: SocketId) -> Option<SocketAddr> {
        self.all.get(&socket).map(|(port, _)| SocketAddr::from(([0; 4], *port)))
    }

    /// Whether there is room for those of one more search.
    pub(super) fn has_room(&self) -> bool {
        self.all.len() + MOST_OPEN <= MOST
    }

    /// Some may lead nowhere now, and what was asked for is not for the next.
    pub(super) fn search_ended(&mut self, now: Instant) {
        self.is_asking = false;
        self.lent.clear();
        self.due = (!self.all.is_empty()).then_some(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        self.due.map(|at| Wakeup::new(at, "close sockets"))
    }
}

impl Node {
    pub(in super::super) fn sockets_opened(&mut self, now: Instant, attempt: u64, sockets: &[(SocketId, u16)]) {
        let opened = &mut self.ports.opened;
        opened.all.extend(sockets.iter().map(|(id, port)| (*id, (*port, None))));
        opened.due.get_or_insert(now + IDLE);
        // Those for a search that has ended are closed with its others.
        if attempt == opened.attempt
            && std::mem::take(&mut opened.is_asking)
            && let Some((_, hunt)) = &mut self.ports.hunt
        {
            let lent = std::mem::take(&mut opened.lent);
            hunt.opened(now, &[&lent, sockets].concat());
        }
    }

    /// Gives so many to the search. Those of searches for others serve as well; but not to ask a rendezvous, which has seen
    /// them.
    pub(super) fn give_sockets(&mut self, now: Instant, count: usize) {
        let Some((_, hunt)) = &mut self.ports.hunt else { return };
        let opened = &mut self.ports.opened;
        let own: Vec<SocketId> = hunt.sockets().collect();
        let others = opened.all.iter().filter(|(id, _)| !own.contains(id)).map(|(id, (port, _))| (*id, *port));
        let most = if hunt.mine().is_some() { count } else { 0 };
        let lent: Vec<_> = others.take(most).collect();
        match count - lent.len() {
            0 => hunt.opened(now, &lent),
            more => {
                opened.attempt += 1;
                (opened.is_asking, opened.lent) = (true, lent);
                self.actions.push_back(Action::OpenSockets { attempt: opened.attempt, count: more });
            }
        }
    }

    /// Closes those that lead nowhere.
    pub(super) fn release_sockets(&mut self, now: Instant) {
        if self.ports.opened.due.is_none_or(|at| at > now) {
            return;
        }
        let hunted = self.ports.hunt.iter().flat_map(|(_, hunt)| hunt.sockets());
        let used = self.peers.values().flat_map(|peer| peer.punch.sockets_in_use(now));
        let lent = self.ports.opened.lent.iter().map(|(id, _)| *id);
        let used: BTreeSet<SocketId> = hunted.chain(used).chain(lent).collect();
        let mut close = Vec::new();
        self.ports.opened.all.retain(|socket, (_, idle)| {
            if used.contains(socket) {
                *idle = None;
                return true;
            }
            let stays = now - *idle.get_or_insert(now) < IDLE;
            close.extend((!stays).then_some(*socket));
            stays
        });
        self.ports.opened.due = (!self.ports.opened.all.is_empty()).then_some(now + IDLE);
        if !close.is_empty() {
            self.actions.push_back(Action::CloseSockets(close));
        }
    }
}
