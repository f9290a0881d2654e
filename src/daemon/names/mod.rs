//! Names outside of punchlan: the network's name server, and how the programs of this machine come to ask it.
//!
//! The server answers what the node says ([`crate::names`]), on the addresses that the interface has. On Linux the system
//! is joined to it (`system`); elsewhere it answers whoever asks it.

#[cfg(target_os = "linux")]
mod system;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(target_os = "linux")]
use tokio::sync::watch;

use crate::io::dns::{Answers, Server};
use crate::names::Zone;
use crate::node::status::{Dns, DnsBy};

#[cfg(target_os = "linux")]
pub(super) use system::Place;

/// Where what came of it is told.
#[cfg(target_os = "linux")]
type Effects = tokio::sync::mpsc::UnboundedSender<super::run::Effect>;

/// How long the system may take to forget us at the end.
#[cfg(target_os = "linux")]
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);

/// The names, told.
#[derive(Debug)]
pub(super) struct Names {
    is_on: bool,
    ula: Ipv6Addr,
    /// What the server answers from.
    zone: Arc<Mutex<Option<Arc<Zone>>>>,
    /// The server, and the addresses that it was to have.
    server: Option<(Vec<IpAddr>, Server)>,
    /// How programs here come to know the names, as far as it is known.
    by: Option<DnsBy>,
    #[cfg(target_os = "linux")]
    system: (watch::Sender<system::Wanted>, tokio::task::JoinHandle<()>),
}

impl Names {
    /// Names of which nobody is told until [`Names::update`]. Must be called inside a tokio runtime.
    pub(super) fn new(ula: Ipv6Addr, #[cfg(target_os = "linux")] (place, effects): (Place, Effects)) -> Self {
        #[cfg(target_os = "linux")]
        let (tell, wanted) = watch::channel(system::Wanted::default());
        Self {
            is_on: false,
            ula,
            zone: Arc::default(),
            server: None,
            by: None,
            #[cfg(target_os = "linux")]
            system: (tell, tokio::spawn(system::run(place, wanted, effects))),
        }
    }

    /// Tells of the names, or not, from the interface's addresses. `zone`: they may be others.
    pub(super) async fn update(&mut self, is_on: bool, v4: Option<Ipv4Addr>, zone: Option<Zone>) {
        let news = zone.filter(|zone| self.zone().is_none_or(|old| *old != *zone)).map(Arc::new);
        let addresses = v4.map(IpAddr::V4).into_iter().chain([IpAddr::V6(self.ula)]);
        let moves = is_on && self.server.as_ref().is_none_or(|(at, _)| !addresses.clone().eq(at.iter().copied()));
        if news.is_none() && !moves && is_on == self.is_on {
            return;
        }
        if news.is_some() {
            *self.zone.lock().unwrap_or_else(PoisonError::into_inner) = news;
        }
        if moves || !is_on {
            // The one before has the port.
            self.server = None;
        }
        if moves {
            let server = Server::start(addresses.clone(), &self.answers()).await;
            self.server = Some((addresses.collect(), server));
        }
        self.is_on = is_on;
        self.tell_system();
    }

    #[cfg(target_os = "linux")]
    fn tell_system(&self) {
        let (zone, servers) = (self.zone().filter(|_| self.is_on), self.servers());
        self.system.0.send_modify(|wanted| (wanted.zone, wanted.servers) = (zone, servers));
    }

    #[cfg(not(target_os = "linux"))]
    fn tell_system(&mut self) {
        self.by = Some(if self.is_on { DnsBy::Nothing } else { DnsBy::Off });
    }

    /// What came of it.
    #[cfg(target_os = "linux")]
    pub(super) fn told(&mut self, by: DnsBy) {
        self.by = Some(by);
    }

    /// What `status` says of it.
    pub(super) fn report(&self) -> Option<Dns> {
        let domain = self.zone()?.domain().to_owned();
        Some(Dns { domain, by: self.by, servers: self.servers() })
    }

    /// Begins to take everything back.
    pub(super) fn end(&self) {
        #[cfg(target_os = "linux")]
        self.system.0.send_modify(|wanted| wanted.is_over = true);
    }

    /// Waits until all is taken back.
    pub(super) async fn finish(self) {
        self.end();
        #[cfg(target_os = "linux")]
        if tokio::time::timeout(FAREWELL, self.system.1).await.is_err() {
            tracing::debug!("the system still knows names of ours");
        }
    }

    fn zone(&self) -> Option<Arc<Zone>> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn servers(&self) -> Vec<SocketAddr> {
        self.server.as_ref().map(|(_, server)| server.local().to_vec()).unwrap_or_default()
    }

    fn answers(&self) -> Answers {
        let zone = self.zone.clone();
        Arc::new(move |question| {
            let zone = zone.lock().unwrap_or_else(PoisonError::into_inner).clone();
            zone?.answer(question)
        })
    }
}
