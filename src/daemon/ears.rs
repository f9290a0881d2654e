//! What programs here say to everybody on their LANs, bound to no address, is overheard and shown to the node, which says
//! it to the peers too; and which groups programs here are in is told to it.
//!
//! Each interface by which such packets leave has a task of its own:
//!
//! 1. It reads at a pace: of a storm the kernel loses what is above it, before it costs anything.
//! 2. It drops what its sender means for that LAN alone ([`Senders`]), and our own beacons.
//! 3. It hands over the rest, unless too much waits already.
//!
//! Interfaces are looked for anew whenever this machine's network changes. While `[lan]` switches broadcast and multicast
//! off, nobody listens.
//!
//! Where no default route leads from this machine the system knows no way for such packets. Then they lead to our own
//! interface, and what leaves there of who is bound to no address is said on the LANs from here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::forward;
use crate::io::clock;
use crate::io::multicast::{Groups, Membership, Overheard, Senders, Tap, Uplink, Wanted, uplinks};
use crate::io::net::Network;
use crate::node::{Interface, Join, Joins, LanConfig, Node, RealLan};
use crate::router::Owned;
use crate::sans::RateLimit;

/// Packets a second that are read of one interface, and at once: enough for the node to see that it is a storm.
const PACE: u32 = 1_000;
const AT_ONCE: u32 = 64;
/// Then nothing is read for so long.
const PAUSE: Duration = Duration::from_millis(50);
/// Packets and news that wait for the loop.
const WAITING: usize = 64;
/// The longest packet of an interface with the usual MTU.
const LONGEST: usize = 1_500;
/// An interface that went down, or does not tell, is listened to again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// Something for the loop.
#[derive(Debug)]
pub(super) enum Heard {
    /// A packet to everybody left by the interface of this index.
    Packet(u32, Arc<Uplink>, Vec<u8>),
    /// The programs of this machine are in these groups.
    Groups(BTreeSet<Membership>),
}

impl Heard {
    /// Shows it to the node. `ours`: the index of this overlay's interface.
    pub(super) fn show(self, node: &mut Node, ours: u32) {
        match self {
            Self::Packet(interface, uplink, mut packet) => {
                let lan = RealLan { interface, broadcasts: &uplink.broadcasts, hosts: &uplink.hosts };
                node.handle_overheard(clock::now(), &lan, &mut packet);
            }
            Self::Groups(memberships) => {
                let joins = memberships.into_iter().map(|Membership { group, interface, users }| {
                    let interface = if interface == ours { Interface::Ours } else { Interface::Other(interface) };
                    Join { group, interface, users }
                });
                node.set_groups(clock::now(), Joins::new(joins));
            }
        }
    }
}

/// The ears.
#[derive(Debug)]
pub(super) struct Ears {
    tell: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
    /// Lost for want of room, here and in the kernel.
    lost: Arc<AtomicU64>,
    lan: LanConfig,
    taps: BTreeMap<u32, Ear>,
    /// Where no default route is: who sends on our interface.
    offline: Option<Senders>,
    groups: Option<Task>,
}

/// The ear on one interface.
#[derive(Debug)]
struct Ear {
    uplink: Arc<Uplink>,
    tap: Arc<Tap>,
    _task: Task,
}

/// A task that ends with its value.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Ears {
    /// Listens to nothing yet.
    pub(super) fn new() -> Self {
        let (tell, heard) = mpsc::channel(WAITING);
        let lan = LanConfig { broadcast: false, multicast: false };
        Self { tell, heard, lost: Arc::default(), lan, taps: BTreeMap::new(), offline: None, groups: None }
    }

    /// Listens where packets to everybody leave now, to what `lan` has. `ours`: the index of this overlay's interface.
    ///
    /// # Errors
    /// This process may not; the system does not list its interfaces.
    pub(super) async fn listen(&mut self, net: &Network, ours: u32, lan: LanConfig) -> io::Result<()> {
        if lan != self.lan {
            self.taps.clear();
            self.groups = lan.multicast.then(|| self.watch_groups(ours));
            self.lan = lan;
        }
        let listens = lan.broadcast || lan.multicast;
        self.lead(net, ours, listens).await?;
        if !listens {
            return Ok(());
        }
        let uplinks = uplinks(net, self.offline.is_some()).await.map_err(io::Error::other)?;
        self.taps.retain(|index, ear| uplinks.get(index) == Some(&*ear.uplink));
        for (index, uplink) in uplinks {
            if !self.taps.contains_key(&index) {
                let ear = self.listen_on(index, Arc::new(uplink))?;
                self.taps.insert(index, ear);
            }
        }
        Ok(())
    }

    /// Has what is for many lead to our interface where nothing else leads anywhere, and only then.
    async fn lead(&mut self, net: &Network, ours: u32, listens: bool) -> io::Result<()> {
        let is_offline = listens && !net.has_way_out().await.map_err(io::Error::other)?;
        if !is_offline && self.offline.is_none() {
            return Ok(());
        }
        if let Err(error) = net.lead_everybody(ours, is_offline).await {
            tracing::debug!(%error, "what is for many has no way");
        }
        self.offline = match self.offline.take() {
            Some(senders) if is_offline => Some(senders),
            None if is_offline => Some(Senders::open()?),
            _ => None,
        };
        Ok(())
    }

    /// A packet for many left by our interface, where this machine is `me`: if that is the only way, it is said on the LANs
    /// too, as from there.
    pub(super) fn say(&mut self, me: &Owned, packet: &[u8]) {
        let Some(senders) = &mut self.offline else { return };
        let Some(v4) = me.v4.filter(|_| senders.mean_everybody(clock::now(), packet)) else { return };
        // The subnet's broadcast address means the overlay alone.
        let here = RealLan { interface: 0, broadcasts: &[], hosts: &[v4.into()] };
        let Some(heard) = forward::Overheard::read(packet, &here) else { return };
        for ear in self.taps.values().filter(|ear| ear.uplink.v4.is_some()) {
            let mut copy = packet.to_vec();
            let on_lan = Owned { v4: ear.uplink.v4, ..*me };
            if let Some(packet) = heard.adopt(&mut copy, &on_lan, Ipv4Addr::BROADCAST)
                && let Err(error) = ear.tap.send(packet)
            {
                tracing::debug!(%error, interface = ear.uplink.name, "not said there");
            }
        }
    }

    /// Waits for the next. May be dropped and called again at any time.
    pub(super) async fn next(&mut self) -> Heard {
        // We have a sender ourselves.
        self.heard.recv().await.expect("the channel stays open")
    }

    /// How many packets were lost since this was asked last.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    fn listen_on(&self, index: u32, uplink: Arc<Uplink>) -> io::Result<Ear> {
        let broadcast = self.lan.broadcast.then_some(&uplink.broadcasts[..]);
        let tap = Arc::new(Tap::listen(index, Wanted { multicast: self.lan.multicast, broadcast })?);
        let senders = Senders::open()?;
        tracing::debug!(interface = uplink.name, "what programs say to everybody there is overheard");
        let tell = Tell { interface: index, uplink: uplink.clone(), to: self.tell.clone(), lost: self.lost.clone() };
        let listening = overhear(tap.clone(), senders, tell);
        Ok(Ear { uplink, tap, _task: Task(tokio::spawn(listening)) })
    }

    fn watch_groups(&self, ours: u32) -> Task {
        let tell = self.tell.clone();
        Task(tokio::spawn(async move {
            let mut groups = Groups::watch(ours);
            loop {
                match groups.next().await {
                    Ok(joined) => {
                        if tell.send(Heard::Groups(joined)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "groups are not known");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }))
    }
}

/// What the task of an interface tells, and to whom.
#[derive(Debug)]
struct Tell {
    interface: u32,
    uplink: Arc<Uplink>,
    to: mpsc::Sender<Heard>,
    lost: Arc<AtomicU64>,
}

impl Tell {
    fn packet(&self, packet: &[u8]) {
        // First the place, then the copy.
        match self.to.try_reserve() {
            Ok(place) => place.send(Heard::Packet(self.interface, self.uplink.clone(), packet.to_vec())),
            Err(_) => self.lost(1),
        }
    }

    fn lost(&self, packets: u32) {
        self.lost.fetch_add(packets.into(), Ordering::Relaxed);
    }
}

/// Hands over what is overheard by a tap.
async fn overhear(tap: Arc<Tap>, mut senders: Senders, tell: Tell) {
    let (mut pace, mut lost_before) = (RateLimit::new(PACE, AT_ONCE), 0);
    let mut room = [0; LONGEST];
    loop {
        let Overheard { len, lost } = match tap.recv(&mut room).await {
            Ok(overheard) => overheard,
            Err(error) => {
                tracing::debug!(%error, interface = tell.uplink.name, "nothing is overheard for a moment");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        tell.lost(lost.wrapping_sub(lost_before));
        lost_before = lost;
        let now = clock::now();
        match room.get(..len) {
            Some(packet) if senders.mean_everybody(now, packet) => tell.packet(packet),
            Some(_) => {}
            None => tell.lost(1),
        }
        if !pace.allow(now) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
