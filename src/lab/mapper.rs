//! Routers that map ports, by Debian's miniupnpd.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use super::Site;
use super::netns::{self, Namespace};
use super::programs::{Program, await_true};

/// Which protocols a mapper speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// PCP and NAT-PMP.
    Control,
    /// UPnP.
    Upnp,
}

/// miniupnpd at work. Its rules are in a table of their own.
#[derive(Debug)]
pub struct Mapper<'a> {
    netns: &'a Namespace,
    folder: TempDir,
    /// Its process.
    pub program: Program,
}

const TABLE: &str = "
table inet miniupnpd {}
delete table inet miniupnpd
table inet miniupnpd {
  chain forward {
    type filter hook forward priority filter;
    jump forwards
  }
  chain prerouting {
    type nat hook prerouting priority dstnat;
    jump redirects
  }
  chain postrouting {
    type nat hook postrouting priority srcnat - 1;
    jump sources
  }
  chain forwards {
  }
  chain redirects {
  }
  chain sources {
  }
}
";

impl<'a> Mapper<'a> {
    /// Starts it on a site's router, which must [look public](super::SitePlan::looks_public), and waits until it listens.
    pub fn start(site: &'a Site, offer: Offer) -> Result<Self> {
        Self::start_on(&site.router, offer)
    }

    /// Starts it on a machine that is no router, but would like to be one, for those on the interface `lan`.
    pub fn pretend(netns: &'a Namespace, lan: &str) -> Result<Self> {
        netns.ip("link add wan type veth peer name nowhere
             addr add 12.0.0.2/24 dev wan
             link set wan up
             link set nowhere up")?;
        Self::start_at(netns, lan, Offer::Upnp)
    }

    /// The process alone, and the folder that it needs, for who keeps the machine elsewhere.
    pub fn detach(self) -> (Program, TempDir) {
        (self.program, self.folder)
    }

    /// Starts it on a router, for those on its LAN.
    pub(super) fn start_on(router: &'a Namespace, offer: Offer) -> Result<Self> {
        Self::start_at(router, "lan", offer)
    }

    fn start_at(netns: &'a Namespace, lan: &str, offer: Offer) -> Result<Self> {
        let folder = netns::folder()?;
        let (natpmp, upnp) = if offer == Offer::Control { ("yes", "no") } else { ("no", "yes") };
        fs::write(
            folder.path().join("conf"),
            format!(
                "ext_ifname=wan\nlistening_ip={lan}\nhttp_port=5000\nenable_natpmp={natpmp}\nenable_upnp={upnp}\n\
                 secure_mode=yes\nsystem_uptime=no\nuuid=00000000-0000-0000-0000-000000000001\n\
                 upnp_table_name=miniupnpd\nupnp_nat_table_name=miniupnpd\nupnp_forward_chain=forwards\n\
                 upnp_nat_chain=redirects\nupnp_nat_postrouting_chain=sources\n\
                 allow 1024-65535 0.0.0.0/0 1024-65535\n"
            ),
        )?;
        let program = run(netns, &folder)?;
        Ok(Self { netns, folder, program })
    }

    /// Is started anew, and has forgotten everything, as a router after a power cut. The old process must have ended.
    pub fn start_again(&mut self) -> Result<()> {
        self.program = run(self.netns, &self.folder)?;
        Ok(())
    }

    /// How many ports it maps now, as the kernel sees it.
    pub fn mapped(&self) -> Result<usize> {
        Ok(self.redirects()?.matches("dnat").count())
    }

    /// Its rules for what arrives, as nft shows them.
    pub fn redirects(&self) -> Result<String> {
        let list = ["list", "chain", "inet", "miniupnpd", "redirects"];
        let output = netns::run(self.netns.command("nft").args(list))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until it maps so many ports.
    pub fn await_mapped(&self, count: usize, patience: Duration) -> Result<()> {
        await_true(&format!("{count} mapped ports"), patience, || Ok(self.mapped()? == count))
    }
}

fn run(netns: &Namespace, folder: &TempDir) -> Result<Program> {
    netns.nft(TABLE)?;
    let mut command = netns.command("miniupnpd");
    let file = |name: &str| folder.path().join(name);
    command.arg("-d").arg("-f").arg(file("conf")).arg("-P").arg(file("pid"));
    let program = Program::start(command, file("log"))?;
    let listens = || Ok(["HTTP listening", "Listening for NAT-PMP"].iter().any(|word| program.said().contains(word)));
    await_true("miniupnpd to listen", Duration::from_secs(5), listens)?;
    Ok(program)
}
