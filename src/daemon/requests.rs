//! Questions from the control socket: asked of the node, answered when it knows.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::control::{Incoming, Refusal, Request, Response};
use crate::io::clock;
use crate::node::{Command, Event, Node};

/// Pings whose answers are awaited at once. Older ones are given up: their clients have long stopped waiting.
const MAX_PINGS: usize = 1_024;

/// Questions that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last_id: u64,
    pings: BTreeMap<u64, oneshot::Sender<Response>>,
}

impl Requests {
    /// Answers or begins one; says whether the daemon is to end.
    pub(super) fn handle(&mut self, node: &mut Node, interface: &str, incoming: Incoming) -> bool {
        let Incoming { request, reply } = incoming;
        let down = request == Request::Down;
        let answer = match request {
            Request::Status => {
                let mut status = Box::new(node.status(clock::now()));
                status.network.interface = Some(interface.to_owned());
                Some(Response::Status { status })
            }
            Request::Down => Some(Response::Done),
            Request::Ping { peer, .. } => return self.ping(node, &peer, reply),
            Request::Forget { name } => Some(forget(node, &name)),
        };
        if let Some(answer) = answer {
            // A client that went away needs no answer.
            let _ = reply.send(answer);
        }
        down
    }

    /// Clients count their pings as they like; the node's ids are ours.
    fn ping(&mut self, node: &mut Node, peer: &str, reply: oneshot::Sender<Response>) -> bool {
        let Some(peer) = node.find_peer(clock::now(), peer) else {
            let _ = reply.send(no_such_peer(node, peer));
            return false;
        };
        self.last_id += 1;
        if self.pings.len() >= MAX_PINGS {
            self.pings.pop_first();
        }
        self.pings.insert(self.last_id, reply);
        node.handle_command(clock::now(), Command::Ping { peer, id: self.last_id });
        false
    }

    /// Something that the node tells may be an answer.
    pub(super) fn event(&mut self, event: Event) {
        let Event::Pong { id, rtt, path } = event;
        if let Some(reply) = self.pings.remove(&id) {
            let rtt_ms = (rtt.as_secs_f64() * 1e6).round() / 1e3;
            let _ = reply.send(Response::Pong { path, rtt_ms });
        }
    }
}

fn forget(node: &mut Node, name: &str) -> Response {
    match node.find_peer(clock::now(), name) {
        Some(peer) if node.is_here(&peer) => {
            Response::refused(Refusal::Failed, format!("{name} is here; only who is gone can be forgotten"))
        }
        Some(peer) => {
            node.handle_command(clock::now(), Command::Forget(peer));
            Response::Done
        }
        None => no_such_peer(node, name),
    }
}

fn no_such_peer(node: &Node, wanted: &str) -> Response {
    let known: Vec<String> = node.status(clock::now()).peers.into_iter().map(|peer| peer.name).collect();
    let known = if known.is_empty() { "nobody yet".to_owned() } else { known.join(", ") };
    Response::refused(
        Refusal::NoSuchPeer,
        format!("nobody here is called {wanted}, or has that address; known: {known}"),
    )
}
