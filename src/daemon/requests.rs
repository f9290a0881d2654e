//! Questions from the control socket: asked of the node, answered when it knows.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::control::{Incoming, Refusal, Request, Response};
use crate::io::clock;
use crate::node::status::{Dns, Lan, Peer};
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
    /// Answers or begins one. Of the interface: its name, how programs know the members' names, what is in force of `[lan]`.
    pub(super) fn handle(
        &mut self,
        node: &mut Node,
        (interface, dns, lan): (&str, Option<Dns>, Lan),
        incoming: Incoming,
    ) -> Next {
        let Incoming { request, reply } = incoming;
        let (answer, next) = match request {
            Request::Status => {
                let mut status = Box::new(node.status(clock::now()));
                (status.network.interface, status.network.dns) = (Some(interface.to_owned()), dns);
                status.lan = Some(lan);
                (Response::Status { status }, Next::GoOn)
            }
            Request::Down => (Response::Done, Next::End),
            Request::Forget { name } => (forget(node, &name), Next::GoOn),
            Request::Why { peer } => (why(node, &peer), Next::GoOn),
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

fn why(node: &Node, wanted: &str) -> Response {
    let now = clock::now();
    let why = node.find_peer(now, wanted).and_then(|peer| node.why(now, &peer));
    why.map_or_else(|| no_such_peer(node, wanted), |why| Response::Why { why: Box::new(why) })
}

fn forget(node: &mut Node, name: &str) -> Response {
    match node.find_peer(clock::now(), name) {
        Some(peer) if node.is_here(&peer) => {
            let text = format!(
                "{name} is here, and would take address and name again at once\n  \
                 help: to keep a device out, put its id (from `punchlan status --json`) into `deny` in net.toml"
            );
            Response::refused(Refusal::Failed, text)
        }
        Some(peer) => {
            node.handle_command(clock::now(), Command::Forget(peer));
            Response::Done
        }
        None => no_such_peer(node, name),
    }
}

fn no_such_peer(node: &Node, wanted: &str) -> Response {
    let known = list(&node.status(clock::now()).peers);
    Response::refused(
        Refusal::NoSuchPeer,
        format!("nobody here is called {wanted}, or has that address; known: {known}"),
    )
}

/// Who is known, by everything that they may be called by.
fn list(peers: &[Peer]) -> String {
    let who = |peer: &Peer| match peer.addresses.first() {
        Some(address) => format!("{} ({address})", peer.name),
        None => peer.name.clone(),
    };
    let known: Vec<String> = peers.iter().map(who).collect();
    if known.is_empty() { "nobody yet".to_owned() } else { known.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;

    #[test]
    fn whoever_is_known_is_listed_with_an_address() {
        let peer = |name: &str, addresses: &[&str]| {
            let peer = serde_json::json!({
                "name": name, "id": PeerId([1; 32]), "addresses": addresses, "state": "offline", "path": null,
                "rtt_ms": null, "jitter_ms": null, "loss": null, "tx_bytes": 0, "rx_bytes": 0,
                "handshake_age_s": null, "direct_after_ms": null, "cipher": null
            });
            serde_json::from_value::<Peer>(peer).expect("the contract")
        };
        let peers = [peer("bob", &["10.77.0.2", "fd00::2"]), peer("bob-2", &["10.77.0.9"]), peer("eve", &[])];
        assert_eq!(list(&peers), "bob (10.77.0.2), bob-2 (10.77.0.9), eve");
        assert_eq!(list(&[]), "nobody yet");
    }
}
