//! `punchlan up`: this machine as a peer, in the foreground.

use std::path::Path;

use super::args::Up;
use super::{Failure, block_on, output};
use crate::config::{self, ConfigError, DEFAULT_FILE, NetConfig};
use crate::daemon;

pub(super) fn run(args: &Up) -> Result<(), Failure> {
    let config = load(args.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE)))?;
    block_on(async { Ok(daemon::up(options(config), ready).await?) })
}

/// What the program runs on.
fn options(config: NetConfig) -> daemon::Options {
    let NetConfig { network, peer } = config;
    daemon::Options {
        network_name: network.name,
        key: network.key,
        subnet: network.subnet,
        rendezvous: network.rendezvous,
        deny: network.deny,
        name: peer.name_or_host(),
        address: peer.address,
        listen: peer.listen,
    }
}

/// That nobody reads the line is no reason to end.
fn ready(line: &str) {
    let _ = output::answer(line);
}

/// The net.toml that was named.
pub(super) fn load(file: &Path) -> Result<NetConfig, Failure> {
    if file.to_str().and_then(config::find_link).is_some() {
        return Err(Failure::Usage(
            "this is an invite, not a file\n  help: make a file of it first: punchlan join 'punchlan://join?…'".into(),
        ));
    }
    config::load(file).map_err(|error| match error {
        ConfigError::Missing(_) if file == Path::new(DEFAULT_FILE) => nothing_here(),
        ConfigError::Missing(_) => Failure::Usage(format!("{error}\n{NO_FILE}")),
        _ => error.into(),
    })
}

const NO_FILE: &str = "  help: invited by a friend?          punchlan join 'LINK'
        a new network of your own?    punchlan init --rendezvous HOST";

fn nothing_here() -> Failure {
    Failure::Usage(format!(
        "there is no {DEFAULT_FILE} in this folder\n{NO_FILE}\n        is it in another folder?      name it: sudo punchlan up FOLDER/{DEFAULT_FILE}"
    ))
}
