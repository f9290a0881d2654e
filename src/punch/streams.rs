//! The peer's paths over connections: ways like others, which nobody announced, and which end when the connection does.

use std::net::SocketAddr;
use std::time::Duration;

use super::path::Path;
use super::{Punch, Via};
use crate::id::SocketId;
use crate::sans::Instant;

impl Punch {
    /// A connection with the peer stands, if it is the one who answers there.
    pub fn stream_up(&mut self, now: Instant, socket: SocketId, remote: SocketAddr) {
        let via = Via::Direct { socket, remote };
        if self.path(via).is_none() {
            self.add_peer_reflexive(now, via);
            self.path_mut(via).into_iter().for_each(|path| path.be_eager(now));
            self.refresh(now);
        }
    }

    /// A connection ended, whoever's it was.
    pub fn stream_down(&mut self, now: Instant, socket: SocketId) {
        let was_used = self.choice.is_some_and(|choice| choice.via.socket() == Some(socket));
        self.paths.retain(|path| path.via.socket() != Some(socket));
        let leads_there = |path: &Path| path.via.is_direct() && path.is_usable();
        if was_used && !self.paths.iter().any(leads_there) {
            self.lose_path(now);
        }
        self.refresh(now);
    }

    /// Whether a way begins at this socket.
    pub fn uses(&self, socket: SocketId) -> bool {
        self.paths.iter().any(|path| path.via.socket() == Some(socket))
    }

    /// Connections with the peer by which nothing goes, and by which nothing has come for so long.
    pub fn idle_streams(&self, now: Instant, idle: Duration) -> impl Iterator<Item = SocketId> {
        let used = self.choice.map(|choice| choice.via);
        let is_idle = move |path: &&Path| path.via.is_stream() && used != Some(path.via) && path.is_idle(now, idle);
        self.paths.iter().filter(is_idle).filter_map(|path| path.via.socket())
    }
}
