//! The daemons that run here, and which of them is meant.

use std::time::Duration;

use super::Failure;
use super::args::Select;
use crate::control::{Client, ClientError, Request, Response};
use crate::io::store::{Folders, RunDir};
use crate::node::status::Status;

/// A daemon that is well answers in a millisecond.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Shortest beginning of an id that names a network.
const ID_PREFIX: usize = 4;

/// A daemon that answered.
#[derive(Debug)]
pub(super) struct Running {
    /// Its run folder.
    pub(super) run_dir: RunDir,
    /// The connection.
    pub(super) client: Client,
    /// What it said.
    pub(super) status: Status,
}

/// The one daemon that is meant: the only one, or the one that was named.
pub(super) async fn select(select: &Select) -> Result<Running, Failure> {
    let mut running = Vec::new();
    let mut silent = None;
    for run_dir in Folders::from_env().run_dirs() {
        match ask(&run_dir).await {
            Ok(daemon) => running.push(daemon),
            Err(Failure::Nothing(_)) => {}
            Err(failure) => silent = Some(failure),
        }
    }
    if running.is_empty() {
        return Err(silent.unwrap_or_else(|| {
            Failure::Nothing("nothing is running here\n  help: start with: sudo punchlan up net.toml".into())
        }));
    }
    choose(running, select.network.as_deref(), |daemon| &daemon.status)
}

async fn ask(run_dir: &RunDir) -> Result<Running, Failure> {
    let mut client = Client::connect(run_dir)?;
    match client.ask(&Request::Status, PATIENCE).await {
        Ok(Response::Status { status }) => Ok(Running { run_dir: run_dir.clone(), client, status: *status }),
        Ok(Response::Refused { code, text }) => Err(Failure::refused(code, &text)),
        Ok(other) => Err(unexpected(&other)),
        // A daemon that is just leaving.
        Err(ClientError::Closed { .. }) if Client::connect(run_dir).is_err() => Err(ClientError::NotRunning.into()),
        Err(error) => Err(error.into()),
    }
}

/// An answer to another question.
pub(super) fn unexpected(response: &Response) -> Failure {
    let what = serde_json::to_value(response).ok();
    let what = what.as_ref().and_then(|value| value.get("response")?.as_str()).unwrap_or("nothing").to_owned();
    Failure::Failed(format!("the daemon's answer makes no sense here ({what}); is it another version?"))
}

fn choose<T>(running: Vec<T>, wanted: Option<&str>, status: impl Fn(&T) -> &Status) -> Result<T, Failure> {
    let list: String = running.iter().map(|daemon| describe(status(daemon))).collect();
    let mut meant: Vec<T> =
        running.into_iter().filter(|daemon| wanted.is_none_or(|name| is(status(daemon), name))).collect();
    match (meant.pop(), wanted) {
        (Some(daemon), _) if meant.is_empty() => Ok(daemon),
        (Some(_), None) => {
            Err(Failure::Usage(format!("several networks are up here; say which with --network NAME:\n{list}")))
        }
        (Some(_), Some(name)) => Err(Failure::Usage(format!(
            "several networks up here are called {name}; say which with --network and the beginning of its id:\n{list}"
        ))),
        (None, _) => Err(Failure::Nothing(format!(
            "no network called {} is up here; up are:\n{list}",
            wanted.unwrap_or_default()
        ))),
    }
}

fn is(status: &Status, wanted: &str) -> bool {
    status.network.name == wanted || wanted.len() >= ID_PREFIX && status.network.id.to_string().starts_with(wanted)
}

fn describe(status: &Status) -> String {
    let network = &status.network;
    let id: String = network.id.to_string().chars().take(8).collect();
    let interface = network.interface.as_deref().unwrap_or("no interface");
    format!("    {:<16} {id}  {:<18} on {interface}\n", network.name, network.subnet)
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::status;
    use super::*;
    use crate::id::NetworkId;

    fn network(name: &str, id: u8) -> Status {
        let mut status = status();
        status.network.name = name.into();
        status.network.id = NetworkId([id; 32]);
        status
    }

    fn chosen(running: &[(&str, u8)], wanted: Option<&str>) -> Result<u8, Failure> {
        let running = running.iter().map(|(name, id)| network(name, *id)).collect();
        choose(running, wanted, |status: &Status| status).map(|status| status.network.id.0[0])
    }

    #[test]
    fn the_network_must_be_named_only_when_there_are_several() {
        assert_eq!(chosen(&[("friday", 1)], None), Ok(1));
        assert_eq!(chosen(&[("friday", 1), ("work", 2)], Some("work")), Ok(2));
        assert_eq!(chosen(&[("lan", 1), ("lan", 2)], Some("0202")), Ok(2));
        let list = chosen(&[("friday", 1), ("work", 2)], None).expect_err("which?");
        assert!(list.code() == 2 && list.to_string().contains("friday") && list.to_string().contains("work"), "{list}");
        let same = chosen(&[("lan", 1), ("lan", 2)], Some("lan")).expect_err("which?");
        assert!(same.code() == 2 && same.to_string().contains("01010101"), "{same}");
        let none = chosen(&[("friday", 1)], Some("work")).expect_err("none");
        assert!(none.code() == 4 && none.to_string().contains("friday"), "{none}");
    }
}
