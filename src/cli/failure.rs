//! Why a command did not do what it should: the sentence and the exit code that goes with it.

use super::output::harmless;
use crate::config::ConfigError;
use crate::control::{ClientError, Refusal};
use crate::daemon;

/// Why a command did not do what it should. The text is for people; further lines may say what to type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was tried and failed. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// What was typed, here or in a file, cannot be used. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Rights are missing; the text says how to get them. Exit code 3.
    #[error("{0}")]
    NotPermitted(String),
    /// Nothing is running, or nobody has this name. Exit code 4.
    #[error("{0}")]
    Nothing(String),
}

impl Failure {
    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotPermitted(_) => 3,
            Self::Nothing(_) => 4,
        }
    }

    /// A daemon's refusal.
    pub(super) fn refused(code: Refusal, text: &str) -> Self {
        let text = harmless(text);
        match code {
            Refusal::NotPermitted => Self::NotPermitted(text),
            Refusal::NoSuchPeer => Self::Nothing(text),
            Refusal::Config => Self::Usage(text),
            Refusal::Malformed | Refusal::Failed => Self::Failed(text),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotRunning => Self::Nothing(error.to_string()),
            ClientError::NotPermitted { .. } => Self::NotPermitted(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<daemon::Failure> for Failure {
    fn from(failure: daemon::Failure) -> Self {
        match failure {
            daemon::Failure::Failed(text) => Self::Failed(text),
            daemon::Failure::Config(text) => Self::Usage(text),
            daemon::Failure::NotPermitted(text) => Self::NotPermitted(text),
        }
    }
}
