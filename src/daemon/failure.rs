//! Why a process could not run: the sentence for the user and the exit code that goes with it.

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
            _ if error.is_permission() => Self::NotPermitted(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
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
