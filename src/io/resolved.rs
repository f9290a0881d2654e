//! systemd-resolved: told over D-Bus which names this interface's server knows (org.freedesktop.resolve1).
//!
//! A link's settings are ours alone: they go when the interface goes, however we end. They send only our own zones' names
//! here: it is not a way for all others, and the reverse zones are no domains to search.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use zbus::message::Type;
use zbus::{Connection, DynamicType, MatchRule, MessageStream};

const SERVICE: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
/// It answers at once, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(3);
/// A link that was made just now may be unknown to it yet: asked again so often, with so much time between.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// What it is told of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The interface.
    pub index: u32,
    /// Who knows its names.
    pub servers: &'a [SocketAddr],
    /// Below which domain short names are searched.
    pub domain: &'a str,
    /// The other zones of those servers.
    pub zones: &'a [String],
}

/// The system's bus, on which systemd-resolved is or may come to be.
#[derive(Debug)]
pub struct Resolved {
    bus: Connection,
    owners: MessageStream,
}

impl Resolved {
    /// Looks for the bus. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// There is none.
    pub async fn connect() -> io::Result<Self> {
        let bus = within(Connection::system()).await?;
        let rule = MatchRule::builder().msg_type(Type::Signal).sender(BUS).interface(BUS);
        let rule = rule.member("NameOwnerChanged").add_arg(SERVICE).build().map_err(io::Error::other)?;
        let owners = within(MessageStream::for_match_rule(rule, &bus, None)).await?;
        Ok(Self { bus, owners })
    }

    /// Waits until it comes or goes.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn changed(&mut self) -> io::Result<()> {
        match self.owners.next().await {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(io::Error::other(error)),
            None => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Whether it runs, and sees this machine's interfaces as we do: one in another network namespace would take another
    /// interface for ours.
    ///
    /// # Errors
    /// The bus does not answer.
    pub async fn is_here(&self, index: u32, address: Ipv6Addr) -> io::Result<bool> {
        if !self.of_bus::<bool>("NameHasOwner", SERVICE).await? {
            return Ok(false);
        }
        let me = self.bus.unique_name().map(ToString::to_string).unwrap_or_default();
        // Where the bus counts processes otherwise, what it says of another's means nothing here.
        if self.of_bus::<u32>("GetConnectionUnixProcessID", &me).await? != std::process::id() {
            return Ok(false);
        }
        let pid = self.of_bus::<u32>("GetConnectionUnixProcessID", SERVICE).await?;
        let seen = std::fs::read_to_string(format!("/proc/{pid}/net/if_inet6")).unwrap_or_default();
        Ok(has_address(&seen, index, address))
    }

    /// Has it ask for our names here. What an old one does not know of is not needed there.
    ///
    /// # Errors
    /// It refused.
    pub async fn set(&self, link: &Link<'_>) -> io::Result<()> {
        let Link { index, servers, domain, zones } = link;
        let index = i32::try_from(*index).map_err(io::Error::other)?;
        let place = |server: &SocketAddr| {
            let (family, bytes) = match server.ip() {
                IpAddr::V4(addr) => (nix::libc::AF_INET, addr.octets().to_vec()),
                IpAddr::V6(addr) => (nix::libc::AF_INET6, addr.octets().to_vec()),
            };
            (family, bytes, server.port(), "")
        };
        let servers: Vec<_> = servers.iter().map(place).collect();
        let domains = std::iter::once((*domain, false)).chain(zones.iter().map(|zone| (zone.as_str(), true)));
        let domains: Vec<(&str, bool)> = domains.collect();
        self.tell_of_new("SetLinkDNSEx", &(index, servers)).await?;
        self.tell("SetLinkDomains", &(index, domains)).await?;
        // Ours has no signatures and no certificate.
        let wishes = [("SetLinkDNSSEC", "no"), ("SetLinkDNSOverTLS", "no")];
        let mut known = self.tell("SetLinkDefaultRoute", &(index, false)).await;
        for (method, value) in wishes {
            known = known.and(self.tell(method, &(index, value)).await);
        }
        known.or_else(|error| {
            tracing::debug!(%error, "systemd-resolved was not told everything");
            Ok(())
        })
    }

    /// Takes it all back.
    ///
    /// # Errors
    /// It refused.
    pub async fn revert(&self, index: u32) -> io::Result<()> {
        self.tell("RevertLink", &i32::try_from(index).map_err(io::Error::other)?).await
    }

    async fn tell_of_new(&self, method: &str, body: &(impl serde::Serialize + DynamicType)) -> io::Result<()> {
        for _ in 1..ATTEMPTS {
            match self.tell(method, body).await {
                Err(error) if error.to_string().contains("NoSuchLink") => tokio::time::sleep(PAUSE).await,
                told => return told,
            }
        }
        self.tell(method, body).await
    }

    async fn tell(&self, method: &str, body: &(impl serde::Serialize + DynamicType)) -> io::Result<()> {
        within(self.bus.call_method(Some(SERVICE), PATH, Some(MANAGER), method, body)).await.map(drop)
    }

    async fn of_bus<T>(&self, method: &str, name: &str) -> io::Result<T>
    where
        T: for<'d> zbus::zvariant::DynamicDeserialize<'d>,
    {
        let answer = within(self.bus.call_method(Some(BUS), BUS_PATH, Some(BUS), method, &name)).await?;
        answer.body().deserialize().map_err(io::Error::other)
    }
}

/// Whether programs ask it, by the system's library or as their name server.
pub fn is_asked() -> bool {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    asks(&read("/etc/nsswitch.conf"), &read("/etc/resolv.conf"))
}

fn asks(nsswitch: &str, resolv_conf: &str) -> bool {
    let by_library = nsswitch.lines().filter_map(|line| line.trim_start().strip_prefix("hosts:"));
    let mut servers = resolv_conf.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    by_library.flat_map(str::split_whitespace).any(|service| service == "resolve")
        || servers.any(|server| ["127.0.0.53", "127.0.0.54"].contains(&server.trim()))
}

async fn within<T>(call: impl Future<Output = zbus::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(done) => done.map_err(io::Error::other),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Whether a list of the kernel's (`/proc/PID/net/if_inet6`: address, interface in hexadecimal, …) has this one.
fn has_address(list: &str, index: u32, address: Ipv6Addr) -> bool {
    let wanted = (format!("{:032x}", u128::from(address)), index);
    list.lines().any(|line| {
        let mut words = line.split_whitespace();
        let found = words.next().zip(words.next().and_then(|index| u32::from_str_radix(index, 16).ok()));
        found.is_some_and(|(address, index)| (address, index) == (wanted.0.as_str(), wanted.1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_on_its_own_interface_alone() {
        let list = "00000000000000000000000000000001 01 80 10 80       lo\n\
                    fd010203040500000000000000000001 0b 40 00 80   punch0\n\n odd\n";
        let address = "fd01:203:405::1".parse().expect("an address");
        assert!(has_address(list, 11, address));
        assert!(!has_address(list, 1, address) && !has_address("", 11, address));
        assert!(!has_address(list, 11, "fd01:203:405::2".parse().expect("an address")));
    }

    #[test]
    fn whether_it_is_asked_is_in_two_files() {
        assert!(asks("hosts: files resolve [!UNAVAIL=return] dns\n", "nameserver 192.0.2.1\n"));
        assert!(asks("", "# stub\nnameserver 127.0.0.53\nsearch lan\n"));
        assert!(!asks("passwd: resolve\n# hosts: resolve\nhosts: files dns\n", "nameserver 192.0.2.1\n"));
    }
}
