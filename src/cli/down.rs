//! `punchlan down`: end a running peer, and return when nothing of it is left.

use std::time::Duration;

use super::args::Select;
use super::daemons::{Running, select, unexpected};
use super::{Failure, block_on, output};
use crate::control::{Client, ClientError, Request, Response};
#[cfg(target_os = "linux")]
use crate::id::NetworkId;
#[cfg(target_os = "linux")]
use crate::io::store::Folders;
use crate::io::store::RunDir;

/// A peer leaves within 2 seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often to look.
const TICK: Duration = Duration::from_millis(20);

pub(super) fn run(args: &Select) -> Result<(), Failure> {
    block_on(async {
        let swept = sweep_names();
        let mut daemon = select(args).await.map_err(|failure| match failure {
            Failure::Nothing(text) => Failure::Nothing(text + swept),
            other => other,
        })?;
        let name = daemon.status.network.name.clone();
        // Before it is told: afterwards it may be gone.
        let remains = Remains::of(&daemon);
        match daemon.client.ask(&Request::Down, PATIENCE).await {
            // A daemon that is quick to leave takes the connection with it.
            Ok(Response::Done) | Err(ClientError::Closed { .. }) => {}
            Ok(Response::Refused { code, text }) => return Err(Failure::refused(code, &text)),
            Ok(other) => return Err(unexpected(&other)),
            Err(error) => return Err(error.into()),
        }
        match tokio::time::timeout(PATIENCE, remains.vanish()).await {
            Ok(()) => output::answer(&format!("{name} is down.")),
            Err(_) => Err(Failure::Failed(format!(
                "{name} was told to end, but after {} s {} still there; end the process itself{}",
                PATIENCE.as_secs(),
                remains.list(),
                remains.pid.map(|pid| format!(": sudo kill -9 {pid}")).unwrap_or_default()
            ))),
        }
    })
}

/// Takes the names out of the hosts file that daemons left there which crashed; says so, if there were any. They lead
/// nowhere, and harm nobody: where that cannot be done, the next `up` does it.
#[cfg(target_os = "linux")]
fn sweep_names() -> &'static str {
    use crate::io::hosts::HostsFile;
    use crate::names::hosts;

    let (file, runs) = (HostsFile::from_env(), Folders::from_env().run_dirs());
    let text = file.text().unwrap_or_default();
    let runs = |id: &NetworkId| runs.iter().any(|dir| dir.network() == *id && has_daemon(dir));
    let left: Vec<NetworkId> = hosts::blocks(&text).into_iter().filter(|id| !runs(id)).collect();
    let swept = file.edit(|text| left.iter().fold(text.to_owned(), |text, id| hosts::without_block(&text, id)));
    if left.is_empty() || swept.is_err() {
        return "";
    }
    "\n  note: names that a crashed run had left in /etc/hosts are gone now"
}

#[cfg(not(target_os = "linux"))]
fn sweep_names() -> &'static str {
    ""
}

fn has_daemon(dir: &RunDir) -> bool {
    !matches!(Client::connect(dir), Err(ClientError::NotRunning))
}

/// What is left of a daemon as long as it runs.
struct Remains {
    run_dir: RunDir,
    interface: Option<String>,
    pid: Option<i32>,
}

impl Remains {
    fn of(daemon: &Running) -> Self {
        let pid = daemon.client.server_pid().filter(|pid| *pid > 0);
        // A daemon in another network namespace has an interface that cannot be seen from here.
        let interface = daemon.status.network.interface.clone().filter(|_| pid.is_none_or(shares_network));
        Self { run_dir: daemon.run_dir.clone(), interface, pid }
    }

    async fn vanish(&self) {
        while self.has_socket() || self.has_interface() || self.pid.is_some_and(is_running) {
            tokio::time::sleep(TICK).await;
        }
    }

    fn has_socket(&self) -> bool {
        self.run_dir.socket().exists() || has_daemon(&self.run_dir)
    }

    fn has_interface(&self) -> bool {
        self.interface.as_deref().is_some_and(interface_exists)
    }

    fn list(&self) -> String {
        let interface = self.interface.as_deref().filter(|name| interface_exists(name));
        let interface = interface.map(|name| format!("its interface {name}"));
        let socket = self.has_socket().then(|| "its control socket".to_owned());
        let left: Vec<String> = interface.into_iter().chain(socket).collect();
        match left.len() {
            0 => "its process is".to_owned(),
            1 => format!("{} is", left.concat()),
            _ => format!("{} are", left.join(" and ")),
        }
    }
}

#[cfg(unix)]
fn interface_exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

#[cfg(not(unix))]
fn interface_exists(name: &str) -> bool {
    if_addrs::get_if_addrs().is_ok_and(|interfaces| interfaces.iter().any(|interface| interface.name == name))
}

/// Whether a process sees the interfaces that we see. When it cannot be told, it does.
#[cfg(target_os = "linux")]
fn shares_network(pid: i32) -> bool {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    match (namespace(&pid.to_string()), namespace("self")) {
        (Some(its), Some(ours)) => its == ours,
        _ => true,
    }
}

#[cfg(not(target_os = "linux"))]
fn shares_network(_pid: i32) -> bool {
    true
}

/// Whether a process runs: neither gone nor ended and waiting for its parent to notice.
#[cfg(target_os = "linux")]
fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // "pid (name) state …", where the name may contain anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[cfg(not(target_os = "linux"))]
fn is_running(_pid: i32) -> bool {
    false // What matters is seen by its socket and its interface.
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn processes_and_interfaces_are_told_from_those_that_are_gone() {
        let ours = i32::try_from(std::process::id()).expect("a process id");
        assert!(is_running(ours) && shares_network(ours));
        let mut child = std::process::Command::new("true").spawn().expect("started");
        let pid = i32::try_from(child.id()).expect("a process id");
        while is_running(pid) {
            std::thread::yield_now(); // It ends, and is a zombie until it is waited for.
        }
        child.wait().expect("ended");
        assert!(!is_running(pid));
        assert!(interface_exists("lo") && !interface_exists("no-such-thing0"));
    }
}
