//! A descriptor that the event loop watches.
#![allow(unsafe_code, reason = "tokio's AsyncFd trusts its caller that the descriptor stays open")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches `fd`, which must be non-blocking, for something to read. Must be called inside a tokio runtime.
pub(super) fn readable(fd: OwnedFd) -> io::Result<Watched> {
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and `Watched` hands out
    // shared references alone, so that nobody can put another in its place.
    let inner = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
    Ok(Watched(inner))
}

/// A watched descriptor.
#[derive(Debug)]
pub(super) struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// It, for what is not waited for.
    pub(super) fn get(&self) -> &OwnedFd {
        self.0.get_ref()
    }

    /// Calls `read` whenever there may be something to read, until it no longer says `WouldBlock`.
    pub(super) async fn read<T>(&self, mut read: impl FnMut(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
        self.0.async_io(Interest::READABLE, |fd| read(fd)).await
    }
}
