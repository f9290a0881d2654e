//! The system is joined to the network's name server, in one of two ways:
//!
//! 1. **systemd-resolved**, where it runs, sees our interface, and is asked by the programs here: it sends questions for
//!    our names to our server, and all others where it sent them before.
//! 2. **The hosts file** else: a block of our own in it.
//!
//! It is looked again when the names change, at most once a second, and when systemd-resolved comes or goes. What is told
//! in one way is taken back when it is told in the other, and at the end; what a crashed run of this network has left in
//! the hosts file, at the start. (What it told systemd-resolved went with the interface.)

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::daemon::run::Effect;
use crate::id::NetworkId;
use crate::io::hosts::HostsFile;
use crate::io::resolved::{self, Link, Resolved};
use crate::names::{Zone, hosts};
use crate::node::status::DnsBy;

/// Changes come together: the system is told of them once in this time.
const EVERY: Duration = Duration::from_secs(1);

/// Whose names they are, and where.
#[derive(Clone, Copy, Debug)]
pub(in crate::daemon) struct Place {
    /// The network.
    pub(in crate::daemon) network: NetworkId,
    /// Its interface.
    pub(in crate::daemon) index: u32,
    /// An address that no other machine has.
    pub(in crate::daemon) ula: Ipv6Addr,
}

/// What the system is to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The names; `None`: none.
    pub(super) zone: Option<Arc<Zone>>,
    /// Where they are asked for.
    pub(super) servers: Vec<SocketAddr>,
    /// Nothing more, and nobody is there to be told what came of it.
    pub(super) is_over: bool,
}

/// Tells the system what is wanted, and the loop what came of it, until it is over.
pub(super) async fn run(place: Place, mut wanted: watch::Receiver<Wanted>, effects: mpsc::UnboundedSender<Effect>) {
    let bus = Resolved::connect().await.inspect_err(|error| tracing::debug!(%error, "no D-Bus"));
    let mut system = System { place, hosts: HostsFile::from_env(), has_block: true, bus: bus.ok(), told: None };
    let mut changed = wanted.changed().await;
    while changed.is_ok() {
        let now = wanted.borrow_and_update().clone();
        if now.is_over {
            break;
        }
        let (by, trouble) = system.tell(&now).await;
        let _ = effects.send(Effect::Names(by, trouble));
        // What changes meanwhile has changed for `wanted` still.
        let _ = tokio::time::timeout(EVERY, wanted.clone().wait_for(|wanted| wanted.is_over)).await;
        changed = tokio::select! {
            changed = wanted.changed() => changed,
            () = system.resolved_changed() => Ok(()),
        };
    }
    system.forget().await;
}

/// The system, and what it was told.
struct System {
    place: Place,
    hosts: HostsFile,
    /// A block of this network may be in the hosts file.
    has_block: bool,
    bus: Option<Resolved>,
    /// What systemd-resolved was told.
    told: Option<(Vec<String>, Vec<SocketAddr>)>,
}

impl System {
    /// How programs come to know the names now; and what is wrong with that.
    async fn tell(&mut self, wanted: &Wanted) -> (DnsBy, Option<String>) {
        let Some(zone) = wanted.zone.clone() else {
            self.forget().await;
            return (DnsBy::Off, None);
        };
        if self.tell_resolved(&zone, &wanted.servers).await {
            self.clear_hosts().await;
            return (DnsBy::SystemdResolved, None);
        }
        self.revert().await;
        self.has_block = true;
        let network = self.place.network;
        let here = gethostname::gethostname().to_string_lossy().split('.').next().unwrap_or_default().to_owned();
        match self.edit_hosts(move |text| hosts::with_block(text, &network, &zone, &here)).await {
            Ok(()) => (DnsBy::Hosts, None),
            Err(error) => (DnsBy::Nothing, Some(no_hosts(self.hosts.path(), &error))),
        }
    }

    /// Whether systemd-resolved knows it.
    async fn tell_resolved(&mut self, zone: &Zone, servers: &[SocketAddr]) -> bool {
        let Place { index, ula, .. } = self.place;
        let Some(bus) = self.bus.as_ref().filter(|_| resolved::is_asked() && !servers.is_empty()) else {
            return false;
        };
        if !bus.is_here(index, ula).await.unwrap_or(false) {
            return false;
        }
        let told = (zone.zone_names(), servers.to_vec());
        if self.told.as_ref() == Some(&told) {
            return true;
        }
        let Some((domain, zones)) = told.0.split_first() else { return false };
        match bus.set(&Link { index, servers: &told.1, domain, zones }).await {
            Ok(()) => self.told = Some(told),
            Err(error) => {
                tracing::debug!(%error, "systemd-resolved does not take our names");
                // It may have taken a part.
                self.told.get_or_insert_default();
                return false;
            }
        }
        true
    }

    /// Waits until systemd-resolved comes or goes: it knows nothing of us then.
    async fn resolved_changed(&mut self) {
        let Some(bus) = &mut self.bus else { return std::future::pending().await };
        if bus.changed().await.is_err() {
            self.bus = None;
        }
        self.told = None;
    }

    /// Takes back whatever was told.
    async fn forget(&mut self) {
        self.revert().await;
        self.clear_hosts().await;
    }

    async fn revert(&mut self) {
        if let (Some(bus), Some(_)) = (&self.bus, self.told.take())
            && let Err(error) = bus.revert(self.place.index).await
        {
            tracing::debug!(%error, "systemd-resolved");
        }
    }

    async fn clear_hosts(&mut self) {
        let network = self.place.network;
        if !std::mem::take(&mut self.has_block) {
            return;
        }
        if let Err(error) = self.edit_hosts(move |text| hosts::without_block(text, &network)).await {
            tracing::debug!(%error, file = %self.hosts.path().display(), "names are left there");
        }
    }

    /// Beside the loop: a disk may be slow.
    async fn edit_hosts(&self, change: impl FnOnce(&str) -> String + Send + 'static) -> io::Result<()> {
        let hosts = self.hosts.clone();
        tokio::task::spawn_blocking(move || hosts.edit(change)).await.map_err(io::Error::other)?
    }
}

fn no_hosts(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    format!(
        "programs here know members by their addresses alone, not by their names: {path} cannot be written: {error}. Let \
         punchlan write to it (as root; as a service of systemd, with ReadWritePaths={path} in its unit), or use \
         systemd-resolved; to do without names, write `enabled = false` under [dns] in net.toml"
    )
}
