//! `punchlan netcheck`: what the router in front of this machine does, and what that means for play.

mod json;
mod table;

use std::net::SocketAddr;
use std::path::Path;

use super::args::Netcheck;
use super::{Failure, block_on, output, up};
use crate::config::DEFAULT_FILE;
use crate::io::portmap::{self, Offers};
use crate::io::{netcheck, resolve, stream};
use crate::netcheck::{MAX_SERVERS, Report};
use crate::node::RendezvousConfig;

/// Everything that was found.
struct Found {
    report: Report,
    /// What the router offers, or why that is not known.
    offers: Result<Offers, String>,
    /// The names of the servers that were asked, as typed, by their addresses.
    names: Vec<(SocketAddr, String)>,
    /// Whether the lifetime was to be found out.
    lifetime: bool,
}

pub(super) fn run(args: &Netcheck) -> Result<(), Failure> {
    let servers = servers(args)?;
    let found = block_on(async {
        let names = resolve_all(&servers).await?;
        let addresses = names.iter().map(|(addr, _)| *addr).collect();
        let check = netcheck::run(addresses, args.lifetime, output::progress);
        let (report, offers) = tokio::join!(check, portmap::offers());
        let report =
            report.map_err(|error| Failure::Failed(format!("the system gives no sockets to ask by: {error}")))?;
        Ok(Found { report, offers, names, lifetime: args.lifetime })
    })?;
    output::answer(&if args.json { json::text(&found)? } else { table::text(&found) })?;
    match found.report.udp.known() {
        Some(true) => Ok(()),
        _ => match block_on(async { Ok(first_by_tcp(&found.names).await) })? {
            Some(name) => Err(Failure::Failed(format!(
                "nobody answers by UDP, and {name} takes TCP: this network seems to let no UDP out\n  help: if a rendezvous \
                 is behind that, punchlan works here all the same, by TCP: directly where the routers let that be, else relayed"
            ))),
            None => Err(unanswered(&found.names)),
        },
    }
}

/// The first that can be connected to.
async fn first_by_tcp(names: &[(SocketAddr, String)]) -> Option<String> {
    for (addr, name) in names {
        if stream::connect(*addr).await.is_ok() {
            return Some(name.clone());
        }
    }
    None
}

fn unanswered(names: &[(SocketAddr, String)]) -> Failure {
    Failure::Failed(format!(
        "no answer from {}: either this network lets no UDP out, or nothing runs there\n  help: ask another server beside \
         it: punchlan netcheck --stun HOST:PORT",
        table::list(names.iter().map(|(_, name)| name.as_str()))
    ))
}

/// Whom to ask: what was typed, and what the file names.
fn servers(args: &Netcheck) -> Result<Vec<RendezvousConfig>, Failure> {
    let typed = || args.rendezvous.iter().chain(&args.stun).cloned();
    let file = match (&args.file, typed().next()) {
        (None, Some(_)) => return Ok(typed().collect()),
        (file, _) => file.as_deref().unwrap_or(Path::new(DEFAULT_FILE)),
    };
    let config = match up::load(file, "punchlan netcheck") {
        Ok(config) => config,
        Err(Failure::Usage(text)) if args.file.is_none() => {
            return Err(Failure::Usage(format!(
                "{text}\n        none of these?                name whom to ask: punchlan netcheck --stun HOST:PORT"
            )));
        }
        Err(error) => return Err(error),
    };
    // What is named by a stream alone is not asked by UDP.
    let by_udp = config.network.rendezvous.into_iter().chain(typed()).filter(|server| server.udp);
    let servers: Vec<RendezvousConfig> = by_udp.collect();
    if servers.is_empty() {
        return Err(Failure::Usage(format!(
            "{} names no rendezvous that is asked by UDP, so there is nobody to ask\n  help: punchlan netcheck --stun HOST:PORT",
            file.display()
        )));
    }
    Ok(servers)
}

/// An address of each family of every server.
async fn resolve_all(servers: &[RendezvousConfig]) -> Result<Vec<(SocketAddr, String)>, Failure> {
    let mut names: Vec<(SocketAddr, String)> = Vec::new();
    let mut problems = Vec::new();
    for server in servers {
        match resolve::resolve(&server.host, server.port).await {
            Ok(addresses) => {
                let first = |v4: bool| addresses.iter().find(|addr| addr.is_ipv4() == v4).copied();
                for addr in [first(true), first(false)].into_iter().flatten() {
                    if names.iter().all(|(known, _)| *known != addr) {
                        names.push((addr, server.text()));
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    if names.is_empty() {
        let help = "check how it is spelled, and this machine's DNS; or name it by its address";
        return Err(Failure::Failed(format!("{}\n  help: {help}", problems.join("\n"))));
    }
    problems.iter().for_each(|problem| output::warn(problem));
    if names.len() > MAX_SERVERS {
        output::warn(&format!("only the first {MAX_SERVERS} of {} addresses are asked", names.len()));
        names.truncate(MAX_SERVERS);
    }
    Ok(names)
}
