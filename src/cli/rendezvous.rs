//! `punchlan rendezvous`: where members meet.

use super::args::RendezvousArgs;
use super::{Failure, begin_to_log, block_on, output};
use crate::config::{ConfigError, RendezvousFile, load_rendezvous};
use crate::io::signal;
use crate::io::store::Folders;
use crate::server::{self, Ready};

pub(super) fn run(verbose: u8, args: &RendezvousArgs) -> Result<(), Failure> {
    let file = match &args.config {
        Some(path) => load_rendezvous(path).map_err(|error| match error {
            ConfigError::Missing(_) => Failure::Usage(format!(
                "{error}\n  help: conf/rendezvous.toml shows all that may stand in one; without --config everything is as \
                 it is there"
            )),
            error => error.into(),
        })?,
        None => RendezvousFile::default(),
    };
    begin_to_log(verbose, file.log.as_deref())?;
    let listen = if args.listen.is_empty() { file.listen } else { args.listen.clone() };
    let options = server::Options { listen, web: file.web, state: Folders::from_env().state, config: file.limits };
    block_on(async {
        let stop = signal::stop().map_err(|error| Failure::Failed(format!("signals cannot be caught: {error}")))?;
        Ok(server::run(options, stop, ready).await?)
    })
}

/// That nobody reads it is no reason to end.
fn ready(ready: &Ready) {
    let port = ready.addresses.first().map_or(0, std::net::SocketAddr::port);
    let _ = output::answer(&format!(
        "{ready}\nMembers name it in net.toml, by this machine's public name or address:\n    \
         rendezvous = [\"HOST:{port}#{}\"]",
        ready.key
    ));
}
