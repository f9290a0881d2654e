//! The loop: inputs to the node, the node's outputs to the world, sleep until the next input or wake-up.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::sync::mpsc;

use super::notify::{Notice, notify};
use super::outward::Outward;
use super::packets::{self, Sockets};
use super::reload::Source;
use super::requests::{Next, Requests};
use super::writer::Writer;
use super::{Failure, Options, in_subnet, prefixes};
use crate::addr::OverlayNet;
use crate::control;
use crate::id::SocketId;
use crate::io::clock::{self, Alarm};
use crate::io::net::{Changes, Network};
use crate::io::portmap::PortMapper;
use crate::io::signal::Reloads;
use crate::io::store::StateDir;
use crate::io::tun::Tun;
use crate::io::udp::{Batch, Fault, Socket, fault};
use crate::io::{interfaces, resolve};
use crate::node::{Command, HEADROOM, Node};
use crate::sans::{Action, Done};

/// Goodbyes get this long to leave the sockets.
const FAREWELL: Duration = Duration::from_millis(600);
/// The router gets this long, from the same moment, to take its port mapping back.
const ROUTER_FAREWELL: Duration = Duration::from_millis(1_000);

/// A running peer.
pub(super) struct Peer<S> {
    pub(super) node: Node,
    pub(super) writer: Writer,
    pub(super) port_mapper: PortMapper,
    pub(super) net: Network,
    pub(super) tun: Tun,
    pub(super) sockets: Sockets,
    pub(super) overlay: OverlayNet,
    /// The overlay address that the TUN has, and the one that it is to have.
    pub(super) v4_on_tun: Option<Ipv4Addr>,
    pub(super) v4_wanted: Option<Ipv4Addr>,
    pub(super) requests: Requests,
    /// What becomes of effects that run beside the loop is told here.
    pub(super) effects: mpsc::UnboundedSender<Effect>,
    /// net.toml as it was read last, and where it is read again.
    pub(super) options: Options,
    pub(super) source: S,
}

impl<S: Source> Peer<S> {
    /// Runs until `stop` or `down`; the state folder, which the next run must not have before all else of this one is
    /// gone.
    pub(super) async fn run(
        mut self,
        mut control: control::Server,
        mut news: mpsc::UnboundedReceiver<Effect>,
        mut reloads: Reloads,
        stop: impl Future<Output = &'static str>,
    ) -> Result<Option<Arc<StateDir>>, Failure> {
        let mut alarm = Alarm::new().map_err(|error| Failure::Failed(format!("no timer: {error}")))?;
        let mut changes = watch_network();
        let (mut batch4, mut batch6) = (Batch::new(), Batch::new());
        let mut outward = Outward::new().map_err(|error| Failure::Failed(format!("no memory: {error}")))?;
        let mut stop = std::pin::pin!(stop);
        loop {
            self.drain().await;
            let wakeup = self.node.poll_timeout().map(|wakeup| wakeup.at);
            let v6 = self.sockets.v6.as_ref();
            let more = outward.has_more();
            let (room, rest) = outward.room();
            // It begins anywhere, and takes the first in this order that is ready: those that often are stand apart, so that
            // each has its share.
            tokio::select! {
                reason = &mut stop => {
                    tracing::info!(reason, "stopping");
                    break;
                }
                received = self.sockets.v4.recv(&mut batch4) => self.receive(SocketId(0), received, &mut batch4)?,
                received = recv_optional(v6, &mut batch6) => self.receive(SocketId(1), received, &mut batch6)?,
                alarmed = alarm.until(wakeup) => {
                    alarmed.map_err(|error| Failure::Failed(format!("timer: {error}")))?;
                    self.node.set_wall_clock(clock::now(), clock::wall_ms());
                    self.node.handle_timeout(clock::now());
                }
                Some(()) = changes.recv() => {
                    self.list_interfaces();
                    self.node.handle_done(clock::now(), Done::RouterChanged);
                }
                Some(effect) = news.recv() => match effect {
                    Effect::Done(done) => self.node.handle_done(clock::now(), done),
                    Effect::Failed(text) => self.node.warn(clock::now(), "state", String::new(), text),
                },
                read = self.tun.recv(room, HEADROOM, rest), if !more => {
                    let first = read.map_err(|error| Failure::Failed(format!("interface {}: {error}", self.tun.name())))?;
                    outward.send(&mut self.node, &self.tun, &self.sockets, Some(first));
                }
                () = std::future::ready(()), if more => {
                    outward.send(&mut self.node, &self.tun, &self.sockets, None);
                    // Else this would go on for ever without a look at who else has something.
                    tokio::task::yield_now().await;
                }
                () = reloads.next() => drop(self.reload()),
                request = control.next() => match self.requests.handle(&mut self.node, self.tun.name(), request) {
                    Next::GoOn => {}
                    Next::Reload(reply) => drop(reply.send(self.reload())),
                    Next::End => {
                        tracing::info!("stopping: punchlan down");
                        break;
                    }
                },
            }
        }
        notify(Notice::Stopping);
        let router_end = clock::now() + ROUTER_FAREWELL;
        self.say_goodbye(&mut alarm, (&mut batch4, &mut batch6)).await?;
        self.port_mapper.finish(router_end - clock::now()).await;
        Ok(self.writer.finish().await)
    }

    /// Datagrams came in.
    fn receive(
        &mut self,
        socket: SocketId,
        received: std::io::Result<usize>,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        received.map_err(|error| Failure::Failed(format!("the UDP socket broke: {error}")))?;
        packets::receive(clock::now(), &mut self.node, &self.tun, socket, batch);
        Ok(())
    }

    /// Performs everything that the node wants.
    async fn drain(&mut self) {
        loop {
            while let Some(t) = self.node.poll_transmit() {
                self.send(t.socket, t.to, t.src, t.ttl, &t.payload);
            }
            while let Some(event) = self.node.poll_event() {
                self.requests.event(event);
            }
            let Some(action) = self.node.poll_action() else { return };
            self.perform(action).await;
        }
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::Resolve { server, host, port } => {
                let effects = self.effects.clone();
                tokio::spawn(async move {
                    let result = resolve::resolve(&host, port).await;
                    let _ = effects.send(Effect::Done(Done::Resolved { server, result }));
                });
            }
            Action::ListInterfaces => {
                self.list_interfaces();
                self.set_overlay_v4().await;
            }
            Action::Reserve { ceiling } => self.writer.reserve(ceiling),
            Action::SaveCache(snapshot) => self.writer.save_cache(snapshot),
            Action::SetOverlayV4(new) => {
                self.v4_wanted = new;
                self.set_overlay_v4().await;
            }
            Action::MapPort { attempt, port } => self.port_mapper.map(attempt, port),
            Action::UnmapPort => self.port_mapper.unmap(),
        }
    }

    /// Gives the TUN the address that it is to have; tried again with the next look at the interfaces.
    async fn set_overlay_v4(&mut self) {
        if self.v4_on_tun == self.v4_wanted {
            return;
        }
        let net = |addr| in_subnet(&self.overlay, addr);
        let (old, new): (Option<Ipv4Net>, _) = (self.v4_on_tun.map(net), self.v4_wanted.map(net));
        match self.net.replace_v4(&self.tun, old, new).await {
            Ok(()) => {
                self.v4_on_tun = self.v4_wanted;
                self.node.clear_warning("interface", "");
            }
            Err(error) => self.node.warn(clock::now(), "interface", String::new(), error.to_string()),
        }
    }

    fn list_interfaces(&mut self) {
        let ours = prefixes(&self.overlay);
        match (interfaces::list(&ours), interfaces::overlays()) {
            (Ok(list), Ok(overlays)) => {
                let overlays = ours.into_iter().chain(overlays).collect();
                self.node.handle_done(clock::now(), Done::Overlays(overlays));
                self.node.handle_done(clock::now(), Done::Interfaces(list));
            }
            (Err(error), _) | (_, Err(error)) => tracing::debug!(%error, "interfaces cannot be listed"),
        }
    }

    fn send(&self, socket: SocketId, to: SocketAddr, src: Option<IpAddr>, ttl: Option<u8>, payload: &[u8]) {
        let Some(Err(error)) = self.sockets.get(socket).map(|s| s.send(to, src, ttl, payload)) else { return };
        if fault(&error) == Fault::Broken {
            tracing::debug!(%error, %to, "not sent");
        }
    }

    /// Tells everybody that we leave, and the servers again until they say that they know.
    async fn say_goodbye(
        &mut self,
        alarm: &mut Alarm,
        (batch4, batch6): (&mut Batch, &mut Batch),
    ) -> Result<(), Failure> {
        let end = clock::now() + FAREWELL;
        self.node.handle_command(clock::now(), Command::Leave);
        loop {
            self.drain().await;
            if self.node.has_left() || clock::now() >= end {
                return Ok(());
            }
            let wakeup = self.node.poll_timeout().map_or(end, |wakeup| wakeup.at.min(end));
            let (socket, received) = tokio::select! {
                received = self.sockets.v4.recv(batch4) => (SocketId(0), received),
                received = recv_optional(self.sockets.v6.as_ref(), batch6) => (SocketId(1), received),
                _ = alarm.until(Some(wakeup)) => {
                    self.node.handle_timeout(clock::now());
                    continue;
                }
            };
            self.receive(socket, received, if socket == SocketId(0) { batch4 } else { batch6 })?;
        }
    }
}

/// What became of an effect that ran beside the loop.
#[derive(Debug)]
pub(super) enum Effect {
    Done(Done),
    /// The state folder could not be written, and why.
    Failed(String),
}

/// Tells of changes of this machine's network. In a task of its own: what it hears it must not forget when
/// packets come.
fn watch_network() -> mpsc::Receiver<()> {
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut changes = match Changes::watch() {
            Ok(changes) => changes,
            Err(error) => return tracing::debug!(%error, "changes of the network are seen every 30 s"),
        };
        while changes.next().await.is_ok() && tell.send(()).await.is_ok() {}
    });
    told
}

/// Receives on a socket that a machine without IPv6 lacks.
async fn recv_optional(socket: Option<&Socket>, batch: &mut Batch) -> std::io::Result<usize> {
    match socket {
        Some(socket) => socket.recv(batch).await,
        None => std::future::pending().await,
    }
}
