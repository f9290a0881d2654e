//! The loop: inputs to the node, the node's outputs to the world, sleep until the next input or wake-up.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

#[cfg(not(target_os = "linux"))]
use super::deaf::Ears;
#[cfg(target_os = "linux")]
use super::ears::Ears;
use super::names::Names;
use super::notify::{Notice, notify};
use super::reload::Source;
use super::requests::{Next, Requests};
use super::sockets::Sockets;
use super::streams::Streams;
#[cfg(target_os = "linux")]
use super::threads::PacketPath;
#[cfg(not(target_os = "linux"))]
use super::turns::PacketPath;
use super::writer::Writer;
use super::{Failure, Options, in_subnet, prefixes};
use crate::addr::OverlayNet;
use crate::control;
use crate::io::clock::{self, Alarm};
use crate::io::lan::{Heard, Lan};
use crate::io::net::{Changes, Network};
use crate::io::portmap::PortMapper;
use crate::io::signal::Reloads;
use crate::io::store::StateDir;
use crate::io::tun::Tun;
use crate::io::udp::{Fault, Way, fault};
use crate::io::{interfaces, netcheck, resolve};
use crate::nat::Traits;
#[cfg(target_os = "linux")]
use crate::node::status::DnsBy;
use crate::node::{Command, Node};
use crate::sans::{Action, Done, Transmit};

/// Goodbyes get this long to leave the sockets.
const FAREWELL: Duration = Duration::from_millis(600);
/// The router gets this long, from the same moment, to take its port mappings back.
const ROUTER_FAREWELL: Duration = Duration::from_millis(1_000);

/// A running peer.
pub(super) struct Peer<S> {
    pub(super) node: Node,
    pub(super) writer: Writer,
    pub(super) port_mapper: PortMapper,
    /// The look at the NAT that is or was the last.
    pub(super) nat_check: Option<JoinHandle<()>>,
    pub(super) lan: Lan,
    pub(super) ears: Ears,
    pub(super) names: Names,
    pub(super) net: Network,
    pub(super) tun: Arc<Tun>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) streams: Streams,
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
        mut beacons: mpsc::Receiver<Heard>,
        mut reloads: Reloads,
        stop: impl Future<Output = &'static str>,
    ) -> Result<Option<Arc<StateDir>>, Failure> {
        let mut alarm = Alarm::new().map_err(|error| Failure::Failed(format!("no timer: {error}")))?;
        let mut changes = watch_network();
        let mut path = PacketPath::start(&mut self.node, self.tun.clone(), self.sockets.clone())
            .map_err(|error| Failure::Failed(format!("packets cannot be carried: {error}")))?;
        let mut stop = std::pin::pin!(stop);
        loop {
            // At once, for what follows may take a moment: nobody who is denied is heard meanwhile.
            path.publish(&mut self.node);
            self.drain(&path).await;
            path.publish(&mut self.node);
            self.tell_names().await;
            let wakeup = self.node.poll_timeout().map(|wakeup| wakeup.at);
            // It begins anywhere, and takes the first in this order that is ready: where packets always are, the alarm has
            // its share, for it stands before them.
            tokio::select! {
                reason = &mut stop => {
                    tracing::info!(reason, "stopping");
                    break;
                }
                alarmed = alarm.until(wakeup) => {
                    alarmed.map_err(|error| Failure::Failed(format!("timer: {error}")))?;
                    self.node.set_wall_clock(clock::now(), clock::wall_ms());
                    self.node.handle_timeout(clock::now());
                }
                input = path.next() => path.take(&mut self.node, &mut self.ears, input?),
                came = self.streams.next() => {
                    // That the stream stands was said before, on the other channel.
                    (0..news.len()).map_while(|_| news.try_recv().ok()).for_each(|effect| self.take(effect));
                    came.give(&mut self.node, &path, &self.tun, &self.sockets);
                }
                heard = self.ears.next() => heard.show(&mut self.node, self.tun.index()),
                Some(()) = changes.recv() => {
                    self.list_interfaces();
                    self.look_at_routes().await;
                    self.overhear().await;
                    self.node.handle_done(clock::now(), Done::RouterChanged);
                }
                Some(effect) = news.recv() => self.take(effect),
                Some((from, beacon)) = beacons.recv() => self.node.handle_beacon(clock::now(), from, &beacon),
                () = reloads.next() => {
                    drop(self.reload());
                    self.overhear().await;
                }
                request = control.next() => match self.requests.handle(
                    &mut self.node,
                    (self.tun.name(), self.names.report(), self.options.lan()),
                    request,
                ) {
                    Next::GoOn => {}
                    Next::Reload(reply) => {
                        drop(reply.send(self.reload()));
                        self.overhear().await;
                    }
                    Next::End => {
                        tracing::info!("stopping: punchlan down");
                        break;
                    }
                },
            }
        }
        notify(Notice::Stopping);
        self.names.end();
        let router_end = clock::now() + ROUTER_FAREWELL;
        self.say_goodbye(&mut alarm, &mut path).await;
        drop(path);
        self.names.finish().await;
        self.port_mapper.finish(router_end - clock::now()).await;
        Ok(self.writer.finish().await)
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Done(done) => self.node.handle_done(clock::now(), done),
            Effect::Failed(text) => self.node.warn(clock::now(), "state", String::new(), text),
            #[cfg(target_os = "linux")]
            Effect::Names(by, trouble) => {
                self.names.told(by);
                match trouble {
                    Some(text) => self.node.warn(clock::now(), "names", String::new(), text),
                    None => self.node.clear_warning("names", ""),
                }
            }
        }
    }

    /// Has the ears listen where what is for many leaves now.
    async fn overhear(&mut self) {
        match self.ears.listen(&self.net, self.tun.index(), self.options.lan).await {
            Ok(()) => self.node.clear_warning("deaf", ""),
            Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => {
                tracing::debug!(%error, "not overheard everywhere; tried again soon");
            }
            Err(error) => {
                let text = format!(
                    "games find each other by the interface {} alone: what they say to everybody on this machine's LAN \
                     cannot be overheard, and what members say does not reach all who listen there ({error}). It takes \
                     CAP_NET_RAW: give it to the container (--cap-add NET_RAW), the service (CapabilityBoundingSet=\
                     CAP_NET_ADMIN CAP_NET_RAW) or the program (setcap cap_net_admin,cap_net_raw+ep)",
                    self.tun.name()
                );
                self.node.warn(clock::now(), "deaf", String::new(), text);
            }
        }
    }

    /// Whoever is told names is told when they change.
    async fn tell_names(&mut self) {
        let zone = self.node.poll_names(clock::now());
        self.names.update(self.options.dns, self.v4_on_tun, zone).await;
    }

    /// Performs everything that the node wants.
    async fn drain(&mut self, path: &PacketPath) {
        self.node.count_drops("stream-full", self.sockets.take_full());
        self.node.count_drops("overheard-lost", self.ears.take_lost());
        loop {
            while let Some(t) = self.node.poll_transmit() {
                self.send(&t);
            }
            while let Some(event) = self.node.poll_event() {
                self.requests.event(event);
            }
            let Some(action) = self.node.poll_action() else { return };
            self.perform(action, path).await;
        }
    }

    async fn perform(&mut self, action: Action, path: &PacketPath) {
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
                self.overhear().await;
            }
            Action::Reserve { ceiling } => self.writer.reserve(ceiling),
            Action::SaveCache(snapshot) => self.writer.save_cache(snapshot),
            Action::SetOverlayV4(new) => {
                self.v4_wanted = new;
                self.set_overlay_v4().await;
            }
            Action::MapPort { transport, attempt, port } => self.port_mapper.map(transport, attempt, port),
            Action::UnmapPort(transport) => self.port_mapper.unmap(transport),
            Action::CheckNat { attempt, servers } => self.check_nat(attempt, servers),
            Action::OpenSockets { attempt, count } => {
                let opened = path.open_sockets(count);
                let sockets = opened.iter().map(|(id, socket)| (*id, socket.local_addr().port())).collect();
                self.node.handle_done(clock::now(), Done::SocketsOpened { attempt, sockets });
            }
            Action::CloseSockets(ids) => path.close_sockets(&ids),
            Action::SayOnLan(beacon) => self.lan.say(&beacon, &prefixes(&self.overlay)),
            Action::LeaveLan => self.lan.leave(),
            Action::Connect { server, attempt, to, carrier } => self.streams.connect(server, attempt, to, carrier),
            Action::Disconnect(socket) => self.streams.disconnect(socket),
            Action::Listen => {
                let result = self.streams.listen();
                self.node.handle_done(clock::now(), Done::Listening(result));
            }
            Action::Dial { attempt, to, carrier, ttl } => self.streams.dial(attempt, to, carrier, ttl),
            Action::LetGo { attempt } => self.streams.let_go(attempt),
            Action::GiveUp { attempt } => self.streams.give_up(attempt),
            Action::StopListening => self.streams.stop_listening(),
        }
    }

    /// Looks at the NAT, beside the loop; a look that is not done is done no longer.
    fn check_nat(&mut self, attempt: u64, servers: Vec<SocketAddr>) {
        let effects = self.effects.clone();
        let check = tokio::spawn(async move {
            let found = match netcheck::run(servers, false, |text| tracing::debug!(text, "the NAT")).await {
                Ok(report) => report.traits(),
                Err(error) => {
                    tracing::debug!(%error, "the NAT cannot be looked at");
                    Traits::default()
                }
            };
            let _ = effects.send(Effect::Done(Done::NatChecked { attempt, found }));
        });
        if let Some(before) = self.nat_check.replace(check) {
            before.abort();
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

    fn send(&mut self, transmit: &Transmit) {
        let Transmit { socket, src, to, ttl, tos, ref payload } = *transmit;
        let open = self.sockets.open();
        match open.get(socket).map(|socket| socket.send_by(Way { to, src, tos }, ttl, payload)) {
            None => self.node.count_drops("no-socket", u64::from(!open.push(socket, payload))),
            Some(Err(error)) if fault(&error) == Fault::Broken => tracing::debug!(%error, %to, "not sent"),
            Some(_) => {}
        }
    }

    /// Tells everybody that we leave, and the servers again until they say that they know.
    async fn say_goodbye(&mut self, alarm: &mut Alarm, path: &mut PacketPath) {
        let end = clock::now() + FAREWELL;
        self.node.handle_command(clock::now(), Command::Leave);
        let mut carries = true;
        loop {
            path.publish(&mut self.node);
            self.drain(path).await;
            if self.node.has_left() || clock::now() >= end {
                return;
            }
            let wakeup = self.node.poll_timeout().map_or(end, |wakeup| wakeup.at.min(end));
            tokio::select! {
                input = path.next(), if carries => match input {
                    Ok(input) => path.take(&mut self.node, &mut self.ears, input),
                    Err(failure) => {
                        // Of no account any more; what is left to say is said all the same.
                        tracing::debug!(%failure, "packets are carried no more");
                        carries = false;
                    }
                },
                came = self.streams.next() => came.give(&mut self.node, path, &self.tun, &self.sockets),
                _ = alarm.until(Some(wakeup)) => self.node.handle_timeout(clock::now()),
            }
        }
    }
}

/// What became of an effect that ran beside the loop.
#[derive(Debug)]
pub(super) enum Effect {
    Done(Done),
    /// The state folder could not be written, and why.
    Failed(String),
    /// How programs come to know the members' names now, and what is wrong with that.
    #[cfg(target_os = "linux")]
    Names(DnsBy, Option<String>),
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
