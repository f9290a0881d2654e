//! L7: the laboratory: an internet of namespaces with real kernels, real NATs and real programs.
//!
//! ```text
//!   site 0                          internet (core)                         site 1
//!   host 192.168.0.2 ─┐                                               ┌─ host 192.168.1.2
//!   host 192.168.0.3 ─┴─ router ──── 203.0.113.0/29 ─┐                │
//!                        gateway 0                  core ── 203.0.113.8/29 ── router (gateway 1)
//!                                                    │
//!                                          198.51.100.0/24 ── rendezvous 198.51.100.10, .11
//!
//!   host ── router ── 100.64.n.0/29 ── carrier ── 203.0.113.8n/29 ── core       a site behind a carrier's NAT
//!   host ── router ────┘                                                        or several homes behind it
//! ```
//!
//! The core only routes; a [`Gateway`] decides what a site's router does. Between two hosts are three
//! routers, so that a probe with a TTL of 2 opens its own NAT and dies in the core; each carrier is one more.
//! IPv6 exists only at sites that ask for it. Everything has addresses of the documentation ranges (between homes
//! and carriers of 100.64.0.0/10, and at sites that are to look public of 11.0.0.0/8) and stays in namespaces of
//! this lab, which vanish with it.
//!
//! - [`netns`]: namespaces, entered by threads and programs.
//! - [`SitePlan`] and [`Site`]: what a site is to be, and the site.
//! - [`gateway`]: the kinds of routers; [`nat_router`]: those that Linux cannot do, in user space.
//! - [`mod@line`]: makes ways long or bad.
//! - [`mapper`]: a router's port mapper.
//! - [`probe`]: what a gateway does, measured from outside as RFC 5780 does.
//! - [`programs`]: the rendezvous, daemons and pings.
//! - [`wire`]: what crossed the core, counted and kept: the only witness of "direct".
//! - [`verify`]: whether a gateway does what its name says; [`oracle`]: what each pair must become.
//! - [`meeting`]: two peers meet, and how long that takes; [`matrix`]: all pairs, as `punchlan lab` runs them.
//! - [`tools`]: what the laboratory needs of the system; [`interrupt`]: Ctrl-C.

#![allow(clippy::disallowed_methods, reason = "a laboratory measures real time")]

pub mod gateway;
pub mod interrupt;
pub mod line;
pub mod mapper;
pub mod matrix;
pub mod meeting;
pub mod nat_router;
pub mod netns;
pub mod oracle;
mod plan;
pub mod probe;
pub mod programs;
mod site;
pub mod tools;
pub mod verify;
pub mod wire;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;

pub use gateway::Gateway;
use line::{Line, LineAtWork};
use netns::Namespace;
pub use plan::{NoSuchSite, SitePlan};
pub use site::{Host, Site};

/// Where the rendezvous is.
pub const RENDEZVOUS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The second address of its machine.
pub const RENDEZVOUS_2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
/// Where the rendezvous is for sites with IPv6.
pub const RENDEZVOUS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10);
/// Its second address.
pub const RENDEZVOUS_2_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x11);

/// An internet with its sites. Dropped, it is gone.
#[derive(Debug)]
pub struct Lab {
    /// The sites, in the order of their plans.
    pub sites: Vec<Site>,
    /// The machine of the rendezvous.
    pub rendezvous: Namespace,
    line: Option<LineAtWork>,
    loses: bool,
    /// The router between all.
    pub core: Namespace,
}

impl Lab {
    /// Builds the internet and one site for each plan.
    pub fn new<P: Into<SitePlan> + Copy>(plans: &[P]) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        netns::sweep();
        let name = netns::lab_name(NUMBER.fetch_add(1, Ordering::Relaxed));
        let core = Namespace::new(&name, "core")?;
        core.forward()?;
        let rendezvous = attach_rendezvous(&name, &core)?;
        let mut sites = Vec::new();
        for (number, &plan) in (0..).zip(plans) {
            sites.push(Site::new(&name, &core, number, plan.into())?);
        }
        let lab = Self { sites, rendezvous, line: None, loses: false, core };
        lab.sites.iter().flat_map(|site| &site.hosts).try_for_each(Host::await_internet)?;
        Ok(lab)
    }

    /// The first host of a site.
    pub fn host(&self, site: usize) -> &Host {
        &self.sites[site].hosts[0]
    }

    /// From now on every packet that leaves the rendezvous' machine, or with `everywhere` every packet,
    /// takes so long through the core.
    pub fn delay(&mut self, delay: Duration, everywhere: bool) -> Result<()> {
        self.worsen(Line { delay, ..Line::default() }, everywhere)
    }

    /// As [`Lab::delay`], with more that a line may do.
    pub fn worsen(&mut self, line: Line, everywhere: bool) -> Result<()> {
        self.line = None;
        self.loses |= line.lost > 0;
        let mut interfaces = vec!["rv".to_owned()];
        if everywhere {
            interfaces.extend((0..self.sites.len()).map(|site| format!("site{site}")));
        }
        self.line = Some(LineAtWork::start(&self.core, &interfaces, line)?);
        Ok(())
    }

    /// Every address of the rendezvous' machine.
    pub fn rendezvous_addresses() -> [IpAddr; 4] {
        [RENDEZVOUS.into(), RENDEZVOUS_2.into(), RENDEZVOUS_V6.into(), RENDEZVOUS_2_V6.into()]
    }

    /// Whether the core loses packets.
    pub fn loses(&self) -> bool {
        self.loses
    }

    /// From now on the core drops what matches one of `rules` (nft, the part before `drop`), and nothing else.
    pub fn block(&self, rules: &[&str]) -> Result<()> {
        let rules: String = rules.iter().map(|rule| format!("{rule} drop\n")).collect();
        self.core.nft(&format!(
            "table inet block {{}}
             delete table inet block
             table inet block {{
               chain forward {{
                 type filter hook forward priority filter;
                 {rules}
               }}
             }}"
        ))
    }

    /// From now on the core loses so many packets in a thousand.
    pub fn lose(&mut self, per_mille: u32) -> Result<()> {
        self.loses = per_mille > 0;
        self.core.nft(&format!(
            "table inet loss {{}}
             delete table inet loss
             table inet loss {{
               chain forward {{
                 type filter hook forward priority filter;
                 numgen random mod 1000 < {per_mille} drop
               }}
             }}"
        ))
    }
}

fn attach_rendezvous(lab: &str, core: &Namespace) -> Result<Namespace> {
    let rendezvous = Namespace::new(lab, "rv")?;
    core.ip(&format!(
        "link add rv type veth peer name wan netns {}
         addr add 198.51.100.1/24 dev rv
         addr add 2001:db8:100::1/64 dev rv
         link set rv up",
        rendezvous.name()
    ))?;
    rendezvous.ip(&format!(
        "addr add {RENDEZVOUS}/24 dev wan
         addr add {RENDEZVOUS_2}/24 dev wan
         addr add {RENDEZVOUS_V6}/64 dev wan
         addr add {RENDEZVOUS_2_V6}/64 dev wan
         link set wan up
         route add default via 198.51.100.1
         route add ::/0 via 2001:db8:100::1"
    ))?;
    Ok(rendezvous)
}
