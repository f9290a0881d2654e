//! The interface's addresses, MTU and state on macOS and Windows, by the systems' own commands
//! (`ifconfig` and `route`, `netsh`), which are their documented interface for it. The tun crate sets one
//! IPv4 address when it makes the device and none later, and knows no IPv6.
//!
//! Routes are known here as far as interfaces show them: the network of each address.

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;

use ipnet::{IpNet, Ipv4Net};

use super::{Addresses, NetError, Route};
use crate::io::interfaces;
use crate::io::tun::Tun;

/// The machine's network settings.
#[derive(Debug)]
pub struct Network(());

impl Network {
    /// Opens the settings.
    ///
    /// # Errors
    /// None here.
    pub fn open() -> Result<Self, NetError> {
        Ok(Self(()))
    }

    /// Gives the interface its MTU and addresses and brings it up. Says whether it has IPv6: a machine on
    /// which IPv6 is switched off for good is no error.
    ///
    /// # Errors
    /// [`NetError::Link`], [`NetError::Address`].
    pub async fn configure(&self, tun: &Tun, mtu: u16, addresses: &Addresses) -> Result<bool, NetError> {
        for line in commands::link(tun.name(), mtu) {
            run(line).await.map_err(|source| NetError::Link { name: tun.name().to_owned(), source })?;
        }
        if let Some(v4) = addresses.v4 {
            self.apply(tun, v4.into(), commands::add(tun.name(), v4.into())).await?;
        }
        for v6 in &addresses.v6 {
            if let Err(error) = self.apply(tun, (*v6).into(), commands::add(tun.name(), (*v6).into())).await {
                tracing::debug!(%error, "no IPv6 on the interface");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts the IPv4 address `new` in the place of `old`, which may be gone already.
    ///
    /// # Errors
    /// [`NetError::Address`].
    pub async fn replace_v4(&self, tun: &Tun, old: Option<Ipv4Net>, new: Option<Ipv4Net>) -> Result<(), NetError> {
        if old == new {
            return Ok(());
        }
        if let Some(old) = old
            && let Err(error) = self.apply(tun, old.into(), commands::remove(tun.name(), old.into())).await
        {
            tracing::debug!(%error, "the old address was gone already");
        }
        match new {
            Some(new) => self.apply(tun, new.into(), commands::add(tun.name(), new.into())).await,
            None => Ok(()),
        }
    }

    /// Nothing: these systems make no super-packets.
    pub async fn limit_super_packets(&self, _tun: &Tun, _bytes: usize) {}

    /// The networks of this machine's interfaces, sorted.
    ///
    /// # Errors
    /// [`NetError::List`].
    pub async fn routes(&self) -> Result<Vec<Route>, NetError> {
        let listed = if_addrs::get_if_addrs().map_err(NetError::List)?;
        let mut routes: Vec<Route> = listed
            .into_iter()
            .filter(|interface| !interface.is_loopback())
            .filter_map(|interface| {
                Some(Route { net: interfaces::net(&interface.addr)?.trunc(), device: Some(interface.name) })
            })
            .collect();
        routes.sort_unstable();
        routes.dedup();
        Ok(routes)
    }

    /// The router that leads from here to the internet by IPv4; `None` without one.
    ///
    /// # Errors
    /// [`NetError::List`].
    pub async fn gateway(&self) -> Result<Option<Ipv4Addr>, NetError> {
        let gateway = tokio::task::spawn_blocking(netdev::get_default_gateway).await;
        let gateway = gateway.map_err(|error| NetError::List(io::Error::other(error)))?;
        // Its only error is that there is none.
        Ok(gateway.ok().and_then(|router| router.ipv4.first().copied()))
    }

    /// Deletes what crashed runs left: nothing on these systems, where a device ends with its process.
    ///
    /// # Errors
    /// None here.
    pub async fn remove_leftovers(&self) -> Result<Vec<String>, NetError> {
        Ok(Vec::new())
    }

    async fn apply(&self, tun: &Tun, address: IpNet, lines: Vec<Line>) -> Result<(), NetError> {
        for line in lines {
            run(line).await.map_err(|source| NetError::Address { name: tun.name().to_owned(), address, source })?;
        }
        Ok(())
    }
}

/// A program and its arguments.
type Line = Vec<String>;

/// Runs a command; what it complains about is the error.
async fn run(line: Line) -> io::Result<()> {
    let output = tokio::task::spawn_blocking(move || Command::new(&line[0]).args(&line[1..]).output());
    let output = output.await.map_err(io::Error::other)??;
    if output.status.success() {
        return Ok(());
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(io::Error::other(String::from_utf8_lossy(said).trim().to_owned()))
}

fn line(text: String) -> Line {
    text.split(' ').map(str::to_owned).collect()
}

#[cfg(windows)]
mod commands {
    use ipnet::IpNet;

    use super::{Line, line};

    pub(super) fn link(name: &str, mtu: u16) -> Vec<Line> {
        ["ipv4", "ipv6"]
            .map(|family| line(format!("netsh interface {family} set subinterface {name} mtu={mtu} store=active")))
            .into()
    }

    pub(super) fn add(name: &str, net: IpNet) -> Vec<Line> {
        vec![line(match net {
            IpNet::V4(net) => format!(
                "netsh interface ipv4 add address name={name} address={} mask={} store=active",
                net.addr(),
                net.netmask()
            ),
            IpNet::V6(net) => format!("netsh interface ipv6 add address interface={name} address={net} store=active"),
        })]
    }

    pub(super) fn remove(name: &str, net: IpNet) -> Vec<Line> {
        vec![line(match net {
            IpNet::V4(net) => format!("netsh interface ipv4 delete address name={name} address={}", net.addr()),
            IpNet::V6(net) => format!("netsh interface ipv6 delete address interface={name} address={}", net.addr()),
        })]
    }
}

#[cfg(not(windows))]
mod commands {
    use ipnet::IpNet;

    use super::{Line, line};

    pub(super) fn link(name: &str, mtu: u16) -> Vec<Line> {
        vec![line(format!("/sbin/ifconfig {name} mtu {mtu} up"))]
    }

    /// The interface is point-to-point: its subnet needs a route of its own.
    pub(super) fn add(name: &str, net: IpNet) -> Vec<Line> {
        match net {
            IpNet::V4(net) => vec![
                line(format!("/sbin/ifconfig {name} inet {0} {0} netmask {1} alias", net.addr(), net.netmask())),
                line(format!("/sbin/route -n add -net {} -interface {name}", net.trunc())),
            ],
            IpNet::V6(net) => {
                vec![line(format!("/sbin/ifconfig {name} inet6 {} prefixlen {} alias", net.addr(), net.prefix_len()))]
            }
        }
    }

    pub(super) fn remove(name: &str, net: IpNet) -> Vec<Line> {
        match net {
            IpNet::V4(net) => vec![
                line(format!("/sbin/route -n delete -net {} -interface {name}", net.trunc())),
                line(format!("/sbin/ifconfig {name} inet {} -alias", net.addr())),
            ],
            IpNet::V6(net) => vec![line(format!("/sbin/ifconfig {name} inet6 {} -alias", net.addr()))],
        }
    }
}
