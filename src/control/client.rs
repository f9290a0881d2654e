//! The command line's end.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::BufStream;
use tokio::time::timeout;

use super::{MAX_RESPONSE, Request, Response, line, os};
use crate::io::store::RunDir;

/// Why a daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// None is there: no socket, or one that a crash left.
    #[error("nothing is running")]
    NotRunning,
    /// This user may not connect.
    #[error("{} may not be opened: {source}; put sudo before the command", path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is there but says nothing.
    #[error("the daemon at {} does not answer within {}; see its log, or end it and start it again", path.display(), humantime::format_duration(*after))]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// After how long.
        after: Duration,
    },
    /// It ended the connection, which a daemon that is leaving does.
    #[error("the daemon at {} ended the connection: {why}", path.display())]
    Closed {
        /// The socket.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It answered in a way that this version does not understand.
    #[error("the daemon at {} speaks another version of punchlan ({why}); start it again with this one", path.display())]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// What is not understood.
        why: String,
    },
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    #[cfg(unix)]
    stream: BufStream<os::Stream>,
    #[cfg(windows)]
    stream: BufStream<tokio::net::windows::named_pipe::NamedPipeClient>,
    path: PathBuf,
}

impl Client {
    /// Connects to the daemon of a run folder. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::NotPermitted`], [`ClientError::Closed`].
    pub fn connect(run_dir: &RunDir) -> Result<Self, ClientError> {
        let path = run_dir.socket();
        match os::connect(run_dir) {
            Ok(stream) => Ok(Self { stream: BufStream::new(stream), path }),
            Err(error) if os::is_nobody(&error) => Err(ClientError::NotRunning),
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(ClientError::NotPermitted { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(ClientError::Closed { path, why: "too many clients wait for it".into() })
            }
            Err(error) => Err(ClientError::Closed { path, why: error.to_string() }),
        }
    }

    /// The daemon's process, where the system tells.
    pub fn server_pid(&self) -> Option<i32> {
        os::server_pid(self.stream.get_ref())
    }

    /// Asks and waits for the answer, but no longer than `patience`. After an error the connection is of no
    /// more use.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`], [`ClientError::Closed`], [`ClientError::NotUnderstood`].
    pub async fn ask(&mut self, request: &Request, patience: Duration) -> Result<Response, ClientError> {
        let path = || self.path.clone();
        let exchange = async {
            line::write(&mut self.stream, request).await?;
            line::read(&mut self.stream, MAX_RESPONSE).await
        };
        let answer = match timeout(patience, exchange).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return Err(ClientError::Closed { path: path(), why: "it gave no answer".into() }),
            Ok(Err(error)) => return Err(ClientError::Closed { path: path(), why: error.to_string() }),
            Err(_) => return Err(ClientError::NoAnswer { path: path(), after: patience }),
        };
        line::parse(&answer).map_err(|error| ClientError::NotUnderstood { path: path(), why: error.to_string() })
    }
}
