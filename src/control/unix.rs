//! The control socket of Unix systems.

use std::io;
use std::os::unix::fs::PermissionsExt as _;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use super::BindError;
use crate::io::store::RunDir;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 64;
/// Anybody may connect; what they may ask is decided by who they are.
const SOCKET_MODE: u32 = 0o666;

/// A connection.
pub(super) type Stream = UnixStream;

/// Where connections come in.
#[derive(Debug)]
pub(super) struct Listener(UnixListener);

impl Listener {
    /// Binds in the run folder. A socket that nobody listens on is what a crash left, and is replaced.
    pub(super) fn bind(run_dir: &RunDir) -> Result<Self, BindError> {
        let failed = |source| BindError::Bind { path: run_dir.socket(), source };
        match run_dir.with_socket_path(open) {
            Ok(stream) => {
                return Err(BindError::InUse { path: run_dir.socket(), pid: peer_pid(&Socket::from(stream)) });
            }
            Err(error) if is_nobody(&error) => {}
            Err(error) => return Err(failed(error)),
        }
        let socket = run_dir.with_socket_path(|path| {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&SockAddr::unix(path)?)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        UnixListener::from_std(socket.map_err(failed)?.into()).map(Self).map_err(failed)
    }

    /// The next connection and the user behind it.
    pub(super) async fn accept(&mut self) -> io::Result<(Stream, u32)> {
        let (stream, _) = self.0.accept().await?;
        let user = stream.peer_cred()?.uid();
        Ok((stream, user))
    }
}

/// Connects, without waiting for a daemon that does not accept.
pub(super) fn connect(run_dir: &RunDir) -> io::Result<Stream> {
    UnixStream::from_std(run_dir.with_socket_path(open)?)
}

fn open(path: &std::path::Path) -> io::Result<std::os::unix::net::UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// Whether an error of [`connect`] means that no daemon is there.
pub(super) fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The process at the other end.
pub(super) fn server_pid(stream: &Stream) -> Option<i32> {
    stream.peer_cred().ok()?.pid()
}

#[cfg(target_os = "linux")]
fn peer_pid(socket: &Socket) -> Option<i32> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    getsockopt(socket, PeerCredentials).ok().map(|who| who.pid())
}

#[cfg(not(target_os = "linux"))]
fn peer_pid(_socket: &Socket) -> Option<i32> {
    None
}

/// The users who may change something: the one whose rights the daemon has, and the one who called `sudo`.
pub(super) fn owners() -> Vec<u32> {
    let user = nix::unistd::geteuid();
    let caller = || ["SUDO_UID", "PKEXEC_UID"].into_iter().find_map(|name| std::env::var(name).ok()?.parse().ok());
    let caller = if user.is_root() { caller() } else { None };
    std::iter::once(user.as_raw()).chain(caller).collect()
}
