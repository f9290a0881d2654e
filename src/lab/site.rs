//! A site: its router, the carrier's before it where there is one, and the machines behind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::mapper::Mapper;
use super::nat_router::NatRouter;
use super::netns::{self, Namespace};
use super::plan::Apart;
use super::programs::Program;
use super::{Gateway, RENDEZVOUS, RENDEZVOUS_V6, SitePlan};
use crate::nat::model::NatConfig;

/// A router and the machines behind it.
#[derive(Debug)]
pub struct Site {
    /// What its router does.
    pub gateway: Gateway,
    /// The machines.
    pub hosts: Vec<Host>,
    /// The user-space NAT, where the gateway or its carrier's is one.
    pub nat: Option<NatRouter>,
    /// Its port mapper, where it has one: the process and its folder.
    pub mapper: Option<(Program, TempDir)>,
    /// The router.
    pub router: Namespace,
    /// The carrier's router, where it is another.
    pub carrier: Option<Namespace>,
    /// The routers of further homes behind it.
    homes: Vec<Namespace>,
    plan: Plan,
}

/// A machine.
#[derive(Debug)]
pub struct Host {
    /// Where its programs run.
    pub netns: Namespace,
    /// Its own address.
    pub v4: Option<Ipv4Addr>,
    /// Its own global address.
    pub v6: Option<Ipv6Addr>,
    /// The address that the internet sees.
    pub public_v4: Option<Ipv4Addr>,
}

impl Host {
    /// Every address by which the internet sees this host.
    pub fn public_addresses(&self) -> Vec<IpAddr> {
        self.public_v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6)).collect()
    }
}

/// The addresses of a site, all derived from its number.
///
/// ```text
///   core .1 ── 203.0.113.8n/29 ── router .2 (kernel NATs: public address)
///                                        .3 (user-space NATs: public address, routed through .2)
///   core .1 ── 203.0.113.8n/29 ── carrier .2, .3 ── 100.64.n.1/29 ── router .2 (further homes: .3, .4 …)
///   core ::1 ── 2001:db8:200:n::/64 ── router ::2 ── 2001:db8:n+1::/64 ── host ::10, ::11 …
/// ```
#[derive(Clone, Copy, Debug)]
struct Plan {
    number: u8,
    site: SitePlan,
}

impl Plan {
    fn wan(self, last: u8) -> Ipv4Addr {
        let [a, b, c] = if self.site.looks_public { [11, 0, 0] } else { [203, 0, 113] };
        Ipv4Addr::new(a, b, c, self.number * 8 + last)
    }

    fn behind_carrier(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(100, 64, self.number, last)
    }

    fn wan_v6(self, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0x200, u16::from(self.number), 0, 0, 0, last)
    }

    /// The router is 1, hosts are 2 and up. Where nothing translates, hosts have public addresses.
    fn lan(self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.site.lan.unwrap_or([192, 168, self.number]);
        if self.site.gateway.translates() {
            Ipv4Addr::new(a, b, c, last)
        } else {
            Ipv4Addr::new(192, 0, 2, self.number * 8 + last)
        }
    }

    fn lan_prefix(self) -> u8 {
        if self.site.gateway.translates() { 24 } else { 29 }
    }

    fn lan_v6(self, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, u16::from(self.number) + 1, 0, 0, 0, 0, last)
    }

    fn public(self, host: Ipv4Addr) -> Ipv4Addr {
        match (self.site.gateway.translates(), self.site.gateway.nat_config()) {
            (false, _) => host,
            (true, None) => self.wan(2),
            (true, Some(_)) => self.wan(3),
        }
    }
}

impl Site {
    pub(super) fn new(lab: &str, core: &Namespace, number: u8, site: SitePlan) -> Result<Self> {
        ensure!(number < 32 && site.hosts < 6, "the documentation ranges hold 32 sites of 5 hosts");
        ensure!(!site.hairpin || site.gateway.nat_config().is_some(), "the kernel's NAT turns nobody round");
        ensure!(site.apart != Apart::Homes || site.gateway.has_carrier(), "homes share a carrier");
        ensure!(!(site.gateway.has_carrier() && site.ipv6), "a carrier here routes no IPv6");
        let plan = Plan { number, site };
        let carrier = site.gateway.has_carrier().then(|| new_carrier(lab, plan)).transpose()?;
        let router = new_router(lab, carrier.as_ref(), plan, 0)?;
        let homes = if site.apart == Apart::Homes { site.hosts } else { 1 };
        let homes: Vec<_> = (1..homes).map(|n| new_router(lab, carrier.as_ref(), plan, n)).collect::<Result<_>>()?;
        let edge = carrier.as_ref().unwrap_or(&router);
        core.ip(&format!("link add site{number} type veth peer name wan netns {}", edge.name()))?;
        edge.ip("link set wan up")?;
        core.ip(&format!("link set site{number} up"))?;
        if site.gateway.has_ipv4() {
            wire_ipv4(core, edge, plan)?;
        }
        if site.ipv6 {
            wire_ipv6(core, &router, plan)?;
        }
        let home_of = |host| usize::from(host).checked_sub(1).and_then(|n| homes.get(n)).unwrap_or(&router);
        let hosts = (0..site.hosts).map(|host| Host::new(lab, home_of(host), plan, host)).collect::<Result<_>>()?;
        if let Some(lifetime) = site.mappings {
            let seconds = lifetime.as_secs().to_string();
            for router in std::iter::once(&router).chain(&homes) {
                router.sysctl("netfilter/nf_conntrack_udp_timeout", &seconds)?;
                router.sysctl("netfilter/nf_conntrack_udp_timeout_stream", &seconds)?;
            }
        }
        let nat = match site.gateway.nat_config() {
            Some(config) => {
                let lifetime = site.mappings.unwrap_or(config.lifetime);
                let config = NatConfig { lifetime, hairpin: site.hairpin, ..config };
                Some(NatRouter::start(edge, config, plan.wan(3))?)
            }
            None => None,
        };
        let mapper = site.gateway.offer().map(|offer| Mapper::start_on(&router, offer).map(Mapper::detach));
        let mapper = mapper.transpose()?;
        Ok(Self { gateway: site.gateway, hosts, nat, mapper, router, carrier, homes, plan })
    }

    /// The router loses all mappings, as one that was restarted; and the carrier's, where there is one.
    pub fn forget(&self) -> Result<()> {
        if let Some(nat) = &self.nat {
            nat.forget();
        }
        if self.nat.is_none() || self.carrier.is_some() {
            for router in std::iter::once(&self.router).chain(&self.homes) {
                netns::run(router.command("conntrack").arg("-F"))?;
            }
        }
        Ok(())
    }

    /// The provider gives the router, or the carrier its own, another public address.
    pub fn redial(&self, core: &Namespace) -> Result<()> {
        let (old, new) = (self.plan.wan(2), self.plan.wan(4));
        match &self.nat {
            Some(nat) => {
                core.ip(&format!("route add {new}/32 via {old}"))?;
                nat.set_public(self.carrier.as_ref().unwrap_or(&self.router), new)
            }
            None => self.router.ip(&format!(
                "addr del {old}/29 dev wan
                 addr add {new}/29 dev wan
                 route replace default via {}",
                self.plan.wan(1)
            )),
        }
    }

    /// A host unplugs its interface and gets another one, with another address on the same LAN.
    pub fn rewire(&self, host: usize) -> Result<()> {
        ensure!(self.plan.site.apart == Apart::No, "hosts that are kept apart stay where they are");
        let (netns, router) = (&self.hosts[host].netns, &self.router);
        let (address, gateway) = (self.plan.lan(100), self.plan.lan(1));
        router.ip(&format!(
            "link add cable{host} type veth peer name eth1 netns {}
             link set cable{host} master lan up",
            netns.name()
        ))?;
        netns.ip(&format!(
            "link set eth0 down
             link set eth1 up
             addr add {address}/{} dev eth1
             route replace default via {gateway}",
            self.plan.lan_prefix()
        ))
    }
}

/// The router of the `n`-th home, with its LAN and its rules.
fn new_router(lab: &str, carrier: Option<&Namespace>, plan: Plan, n: u8) -> Result<Namespace> {
    let home = if n == 0 { String::new() } else { format!("h{n}") };
    let router = Namespace::new(lab, &format!("r{}{home}", plan.number))?;
    router.forward()?;
    router.ip("link add lan type bridge\nlink set lan up")?;
    if let Some(carrier) = carrier {
        attach_to_carrier(carrier, &router, plan, n)?;
    }
    if plan.site.gateway.has_ipv4() {
        router.ip(&format!("addr add {}/{} dev lan", plan.lan(1), plan.lan_prefix()))?;
    }
    router.nft(&plan.site.gateway.rules())?;
    Ok(router)
}

/// The carrier's router, before those of its homes.
fn new_carrier(lab: &str, plan: Plan) -> Result<Namespace> {
    let carrier = Namespace::new(lab, &format!("c{}", plan.number))?;
    carrier.forward()?;
    carrier.ip(&format!(
        "link add lan type bridge
         addr add {}/29 dev lan
         link set lan up",
        plan.behind_carrier(1)
    ))?;
    Ok(carrier)
}

/// The router of the `n`-th home becomes a customer. Customers meet at the carrier's router alone.
fn attach_to_carrier(carrier: &Namespace, router: &Namespace, plan: Plan, n: u8) -> Result<()> {
    carrier.ip(&format!(
        "link add home{n} type veth peer name wan netns {}
         link set home{n} master lan up
         link set home{n} type bridge_slave isolated on",
        router.name()
    ))?;
    router.ip(&format!(
        "link set wan up
         addr add {}/29 dev wan
         route add default via {}",
        plan.behind_carrier(2 + n),
        plan.behind_carrier(1)
    ))
}

/// From the core to the last router before it.
fn wire_ipv4(core: &Namespace, edge: &Namespace, plan: Plan) -> Result<()> {
    let (core_end, router_end, number) = (plan.wan(1), plan.wan(2), plan.number);
    core.ip(&format!("addr add {core_end}/29 dev site{number}"))?;
    edge.ip(&format!(
        "addr add {router_end}/29 dev wan
         route add default via {core_end}"
    ))?;
    let routed = match plan.site.gateway.nat_config() {
        Some(_) => format!("{}/32", plan.wan(3)),
        None if plan.site.gateway.translates() => return Ok(()),
        None => format!("{}/29", plan.lan(0)),
    };
    core.ip(&format!("route add {routed} via {router_end}"))
}

fn wire_ipv6(core: &Namespace, router: &Namespace, plan: Plan) -> Result<()> {
    let (core_end, router_end) = (plan.wan_v6(1), plan.wan_v6(2));
    core.ip(&format!(
        "addr add {core_end}/64 dev site{}
         route add {}/64 via {router_end}",
        plan.number,
        plan.lan_v6(0)
    ))?;
    router.ip(&format!(
        "addr add {router_end}/64 dev wan
         addr add {}/64 dev lan
         route add ::/0 via {core_end}",
        plan.lan_v6(1)
    ))
}

impl Host {
    fn new(lab: &str, router: &Namespace, plan: Plan, host: u8) -> Result<Self> {
        let netns = Namespace::new(lab, &format!("h{}{}", plan.number, char::from(b'a' + host)))?;
        router.ip(&format!(
            "link add port{host} type veth peer name eth0 netns {}
             link set port{host} master lan up",
            netns.name()
        ))?;
        if plan.site.apart == Apart::Guests {
            router.ip(&format!("link set port{host} type bridge_slave isolated on"))?;
        }
        netns.ip("link set eth0 up")?;
        let place = if plan.site.apart == Apart::Homes { 2 } else { 2 + host };
        let v4 = plan.site.gateway.has_ipv4().then(|| plan.lan(place));
        if let Some(address) = v4 {
            netns.ip(&format!(
                "addr add {address}/{} brd + dev eth0
                 route add default via {}",
                plan.lan_prefix(),
                plan.lan(1)
            ))?;
        }
        let v6 = plan.site.ipv6.then(|| plan.lan_v6(0x10 + u16::from(host)));
        if let Some(address) = v6 {
            netns.ip(&format!(
                "addr add {address}/64 dev eth0
                 route add ::/0 via {}",
                plan.lan_v6(1)
            ))?;
        }
        Ok(Self { netns, v4, v6, public_v4: v4.map(|address| plan.public(address)) })
    }

    /// Waits until the rendezvous' machine answers: a kernel takes up to a second to give a new interface
    /// its link-local address, without which IPv6 neighbours are not found.
    pub(super) fn await_internet(&self) -> Result<()> {
        let v4 = self.v4.map(|_| IpAddr::V4(RENDEZVOUS));
        let v6 = self.v6.map(|_| IpAddr::V6(RENDEZVOUS_V6));
        for target in v4.into_iter().chain(v6) {
            let mut ping = self.netns.command("ping");
            ping.args(["-c", "1", "-i", "0.05", "-w", "5", &target.to_string()]);
            netns::run(&mut ping)?;
        }
        Ok(())
    }
}
