//! The control pipe of Windows. The system's default rights of a pipe let administrators and the user who
//! made it write to it, and nobody else: so whoever gets through may ask everything.

use std::io;

use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions};

use super::BindError;
use crate::io::store::RunDir;

/// The user that everybody is here.
const ANYBODY: u32 = 0;

/// A connection from a client.
pub(super) type Stream = NamedPipeServer;

/// Where connections come in.
#[derive(Debug)]
pub(super) struct Listener {
    /// The instance that the next client takes.
    waiting: NamedPipeServer,
    name: String,
}

fn pipe(run_dir: &RunDir) -> String {
    format!(r"\\.\pipe\punchlan-{}", run_dir.network())
}

impl Listener {
    /// Makes the pipe, which only one daemon can.
    pub(super) fn bind(run_dir: &RunDir) -> Result<Self, BindError> {
        let waiting = ServerOptions::new().first_pipe_instance(true).reject_remote_clients(true).create(pipe(run_dir));
        match waiting {
            Ok(waiting) => Ok(Self { waiting, name: pipe(run_dir) }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(BindError::InUse { path: pipe(run_dir).into(), pid: None })
            }
            Err(source) => Err(BindError::Bind { path: pipe(run_dir).into(), source }),
        }
    }

    /// The next connection and the user behind it.
    pub(super) async fn accept(&mut self) -> io::Result<(Stream, u32)> {
        self.waiting.connect().await?;
        let next = ServerOptions::new().reject_remote_clients(true).create(&self.name)?;
        Ok((std::mem::replace(&mut self.waiting, next), ANYBODY))
    }
}

/// Connects.
pub(super) fn connect(run_dir: &RunDir) -> io::Result<NamedPipeClient> {
    ClientOptions::new().open(pipe(run_dir))
}

/// Whether an error of [`connect`] means that no daemon is there.
pub(super) fn is_nobody(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The process at the other end: not asked for here.
pub(super) fn server_pid(_stream: &NamedPipeClient) -> Option<i32> {
    None
}

/// The users who may change something.
pub(super) fn owners() -> Vec<u32> {
    vec![ANYBODY]
}
