//! Why a process could not run: the sentence for the user and the exit code that goes with it.

use std::io;
use std::path::Path;

use crate::control::BindError;
use crate::io::net::NetError;
use crate::io::store::StoreError;

/// Why a process could not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It ran and failed, or something else is in the way. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// What the user gave cannot be used. Exit code 2.
    #[error("{0}")]
    Config(String),
    /// Rights are missing; the text says how to get them. Exit code 3.
    #[error("{0}")]
    NotPermitted(String),
}

impl Failure {
    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Config(_) => 2,
            Self::NotPermitted(_) => 3,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::DamagedKey { .. } => Self::Config(error.to_string()),
            StoreError::Io { .. } => {
                let text = format!(
                    "the state folder, which holds this machine's key, cannot be used: {error}; to have it elsewhere, \
                     type PUNCHLAN_STATE=FOLDER before punchlan (behind sudo)"
                );
                if error.is_permission() { Self::NotPermitted(text) } else { Self::Failed(text) }
            }
            StoreError::Locked { .. } => Self::Failed(error.to_string()),
        }
    }
}

/// Why the state of the network `name` cannot be used.
pub(super) fn of_state(error: StoreError, name: &str) -> Failure {
    let StoreError::Locked { pid, .. } = error else { return error.into() };
    let process = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    Failure::Failed(format!(
        "\"{name}\" is up here already{process}; see punchlan status; to start it anew: sudo punchlan down --network {name}"
    ))
}

/// Why there is no run folder below `parent`.
pub(super) fn of_run(parent: &Path, error: &io::Error) -> Failure {
    let text = format!(
        "the run folder, in which punchlan status finds this peer, cannot be made: {}: {error}; to have it elsewhere, \
         type PUNCHLAN_RUN=FOLDER before punchlan (behind sudo), here and for every other command",
        parent.display()
    );
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::NotPermitted(text),
        _ => Failure::Failed(text),
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Self {
        if error.is_permission() {
            Self::NotPermitted(format!("{error}; try: sudo punchlan up net.toml"))
        } else {
            Self::Failed(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_folder_is_said_with_what_the_folder_is_for_and_what_to_type() {
        let path = || "/x/y".into();
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let said = of_state(StoreError::Locked { path: path(), pid: Some(5723) }, "lan").to_string();
        let expected = "\"lan\" is up here already (process 5723); see punchlan status; to start it anew: \
                        sudo punchlan down --network lan";
        assert_eq!(said, expected);
        let state = of_state(StoreError::Io { path: path(), source: denied() }, "lan");
        let run = of_run(Path::new("/x/y"), &denied());
        for (failure, variable, purpose) in [(state, "PUNCHLAN_STATE=", "key"), (run, "PUNCHLAN_RUN=", "status")] {
            let said = failure.to_string();
            assert_eq!(failure.code(), 3);
            assert!(["/x/y: ", variable, purpose].iter().all(|part| said.contains(part)), "{said}");
        }
    }
}
