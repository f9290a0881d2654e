//! `punchlan up`: this machine as a peer, in the foreground.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::args::Up;
use super::{Failure, begin_to_log, block_on, output};
use crate::config::{self, ConfigError, DEFAULT_FILE, NetConfig};
use crate::daemon;
use crate::log::Logging;

pub(super) fn run(verbose: u8, args: &Up) -> Result<(), Failure> {
    let path = args.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let config = load(path, "sudo punchlan up")?;
    let logging = begin_to_log(verbose, config.peer.log.as_deref())?;
    // Whatever becomes of the folder that we were started in.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    block_on(async { Ok(daemon::up(options(config), File { path, logging }, ready).await?) })
}

/// The net.toml that `up` was started with.
struct File {
    path: PathBuf,
    logging: Logging,
}

impl daemon::Source for File {
    fn read(&self) -> Result<daemon::Options, String> {
        config::load(&self.path).map(options).map_err(|error| match error {
            ConfigError::Missing(_) => format!("{error}\n{GONE}"),
            error => error.to_string(),
        })
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn set_log(&self, log: Option<&str>) -> bool {
        self.logging.set(log)
    }
}

/// What the program runs on.
fn options(config: NetConfig) -> daemon::Options {
    let NetConfig { network, peer, relay, lan } = config;
    daemon::Options {
        network_name: network.name,
        key: network.key,
        subnet: network.subnet,
        rendezvous: network.rendezvous,
        deny: network.deny,
        name: peer.name_or_host(),
        address: peer.address,
        listen: peer.listen,
        port_mapping: peer.port_mapping,
        lan_discovery: peer.lan_discovery,
        relay,
        lan,
        log: peer.log,
    }
}

/// That nobody reads the line is no reason to end.
fn ready(line: &str) {
    let _ = output::answer(line);
}

/// The net.toml that was named behind `command`.
pub(super) fn load(file: &Path, command: &str) -> Result<NetConfig, Failure> {
    if file.to_str().and_then(config::find_link).is_some() {
        return Err(Failure::Usage(
            "this is an invite, not a file\n  help: make a file of it first: punchlan join 'punchlan://join?…'".into(),
        ));
    }
    config::load(file).map_err(|error| match error {
        ConfigError::Missing(_) if file == Path::new(DEFAULT_FILE) => nothing_here(command),
        ConfigError::Missing(_) => Failure::Usage(format!("{error}\n{NO_FILE}")),
        ConfigError::Content(_) if is_invite(file) => Failure::Usage(format!(
            "{file} is an invite, not a net.toml\n  help: make one of it: punchlan join {file}",
            file = file.display()
        )),
        _ => error.into(),
    })
}

/// Whether a link is all that the file begins with.
fn is_invite(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    text.is_ok_and(|text| config::find_link(&text).is_some_and(|link| text.trim_start().starts_with(link)))
}

const NO_FILE: &str = "  help: invited by a friend?          punchlan join 'LINK'
        a new network of your own?    punchlan init --rendezvous HOST";

/// What a running peer says when its file is gone.
const GONE: &str = "  help: put it back where it was; or, if it is elsewhere now, start anew with it:
        sudo punchlan down, then sudo punchlan up FILE";

fn nothing_here(command: &str) -> Failure {
    Failure::Usage(format!(
        "there is no {DEFAULT_FILE} in this folder\n{NO_FILE}\n        is it in another folder?      name it: {command} FOLDER/{DEFAULT_FILE}"
    ))
}
