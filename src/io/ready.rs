//! Waiting in a thread of its own, for whoever has no event loop.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Descriptors that are waited for at once, at most.
const MOST: usize = 2;

/// Threads wait beside this, and end when it says so. Share it by reference or `Arc`.
#[derive(Debug)]
pub struct Ready {
    wake: EventFd,
    stopped: AtomicBool,
}

impl Ready {
    /// # Errors
    /// No descriptor is free.
    pub fn new() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { wake, stopped: AtomicBool::new(false) })
    }

    /// Ends all waiting, for good.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Err(error) = self.wake.write(1) {
            tracing::debug!(%error, "threads are not told to end");
        }
    }

    /// Whether it is over.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Waits until one of `fds`, two at most, has something to read or is broken, and says which; or until it is over,
    /// and then says none.
    ///
    /// # Errors
    /// The system's.
    pub fn wait<const N: usize>(&self, fds: [Option<BorrowedFd<'_>>; N]) -> io::Result<[bool; N]> {
        const { assert!(N <= MOST, "more are not waited for") }
        // Nothing but its end is asked of the one that ends all this, in the places that are left.
        let mut polled: [PollFd<'_>; MOST + 1] =
            std::array::from_fn(|_| PollFd::new(self.wake.as_fd(), PollFlags::empty()));
        for (place, fd) in polled.iter_mut().zip(fds) {
            if let Some(fd) = fd {
                *place = PollFd::new(fd, PollFlags::POLLIN);
            }
        }
        polled[MOST] = PollFd::new(self.wake.as_fd(), PollFlags::POLLIN);
        loop {
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(std::array::from_fn(|n| !self.is_stopped() && is_ready(&polled[n])))
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn it_says_which_has_something_to_read() {
        let ready = Ready::new().expect("a descriptor");
        let [a, b] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").expect("bound"));
        a.send_to(b"x", b.local_addr().expect("bound")).expect("sent");
        assert_eq!(ready.wait([Some(a.as_fd()), Some(b.as_fd())]).expect("waited"), [false, true]);
    }

    #[test]
    fn it_ends_who_waits_and_who_comes_to_wait() {
        let ready = Ready::new().expect("a descriptor");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        std::thread::scope(|scope| {
            let waiting = [(); 2].map(|()| scope.spawn(|| ready.wait([Some(socket.as_fd())]).expect("waited")));
            assert!(!ready.is_stopped());
            ready.stop();
            waiting.into_iter().for_each(|thread| assert_eq!(thread.join().expect("ended"), [false]));
        });
        assert_eq!(ready.wait([Some(socket.as_fd())]).expect("waited"), [false]);
    }
}
