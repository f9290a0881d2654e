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

/// What the loop is to do after a question.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing but go on.
    GoOn,
    /// Read net.toml again, and answer here.
    Reload(oneshot::Sender<Response>),
    /// End.
    End,
}

impl Requests {
    /// Answers or begins one.
    pub(super) fn handle(&mut self, node: &mut Node, interface: &str, incoming: Incoming) -> Next {
        let Incoming { request, reply } = incoming;
        let (answer, next) = match request {
            Request::Status => {
                let mut status = Box::new(node.status(clock::now()));
                status.network.interface = Some(interface.to_owned());
                (Response::Status { status }, Next::GoOn)
            }
            Request::Down => (Response::Done, Next::End),
            Request::Forget { name } => (forget(node, &name), Next::GoOn),
            Request::Reload => return Next::Reload(reply),
            Request::Ping { peer, .. } => {
                self.ping(node, &peer, reply);
                return Next::GoOn;
            }
        };
        // A client that went away needs no answer.
        let _ = reply.send(answer);
        next
    }

    /// Clients count their pings as they like; the node's ids are ours.
    fn ping(&mut self, node: &mut Node, peer: &str, reply: oneshot::Sender<Response>) {
        let Some(peer) = node.find_peer(clock::now(), peer) else {
            let _ = reply.send(no_such_peer(node, peer));
            return;
        };
        self.last_id += 1;
        if self.pings.len() >= MAX_PINGS {
            self.pings.pop_first();
        }
        self.pings.insert(self.last_id, reply);
        node.handle_command(clock::now(), Command::Ping { peer, id: self.last_id });
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
