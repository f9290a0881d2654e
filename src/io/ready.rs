//! Waiting in a thread of its own, for whoever has no event loop: a set of descriptors, each with a token by which it is
//! told of. It can change while somebody waits (epoll(7)), and waiting for many costs no more than for one.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// So many are told of at once, at most; where more are ready the others are told of first the next time.
const AT_ONCE: usize = 64;
/// The token of the descriptor that ends all this: no one else's.
const WAKE: u64 = u64::MAX;

/// Descriptors that threads wait for, until it says that it is over. Share it by reference or `Arc`.
#[derive(Debug)]
pub struct Ready {
    epoll: Epoll,
    wake: EventFd,
    stopped: AtomicBool,
}

/// The tokens that one wait told of. Make one per thread and use it again.
#[derive(Debug)]
pub struct Told {
    events: [EpollEvent; AT_ONCE],
    count: usize,
}

impl Ready {
    /// Nothing is waited for but the end.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self { epoll, wake, stopped: AtomicBool::new(false) })
    }

    /// From now on `fd` is waited for too, also by who waits already, and told of as `token`.
    ///
    /// # Errors
    /// It is waited for already, or cannot be; or the system has no room for more.
    pub fn add(&self, fd: impl AsFd, token: u16) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token.into()))?)
    }

    /// From now on `fd` is not waited for. To be called before it is closed: what a duplicate of it keeps open would be
    /// told of for ever. Who has just been told of it may still look for it.
    ///
    /// # Errors
    /// It was not waited for.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
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

    /// Waits until some have something to read or are broken, and puts their tokens into `told`; or until it is over, and
    /// then puts none. Those that still have something are told of again.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self, told: &mut Told) -> io::Result<()> {
        told.count = 0;
        let count = loop {
            match self.epoll.wait(&mut told.events, EpollTimeout::NONE) {
                Ok(count) => break count,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        if !self.is_stopped() {
            told.count = count;
        }
        Ok(())
    }
}

impl Told {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { events: [EpollEvent::empty(); AT_ONCE], count: 0 }
    }

    /// The tokens.
    pub fn tokens(&self) -> impl Iterator<Item = u16> {
        self.events[..self.count].iter().filter_map(|event| u16::try_from(event.data()).ok())
    }
}

impl Default for Told {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const NOTHING: [u16; 0] = [];

    fn socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").expect("bound")
    }

    fn send_to(socket: &UdpSocket) {
        socket.send_to(b"x", socket.local_addr().expect("bound")).expect("sent");
    }

    fn wait(ready: &Ready) -> Vec<u16> {
        let mut told = Told::new();
        ready.wait(&mut told).expect("waited");
        told.tokens().collect()
    }

    #[test]
    fn it_says_which_have_something_to_read_until_they_have_not() {
        let ready = Ready::new().expect("a descriptor");
        let sockets = [(); 3].map(|()| socket());
        (0..).zip(&sockets).for_each(|(token, socket)| ready.add(socket, token).expect("added"));
        send_to(&sockets[1]);
        assert_eq!([wait(&ready), wait(&ready)], [[1], [1]]);
        send_to(&sockets[2]);
        let mut both = wait(&ready);
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
        sockets[1].recv(&mut [0; 9]).expect("received");
        assert_eq!(wait(&ready), [2]);
    }

    #[test]
    fn what_comes_while_somebody_waits_is_waited_for_and_what_goes_is_not() {
        let ready = Ready::new().expect("a descriptor");
        let [gone, come] = [(); 2].map(|()| socket());
        ready.add(&gone, 7).expect("added");
        assert_eq!(ready.add(&gone, 8).expect_err("twice").kind(), io::ErrorKind::AlreadyExists);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&ready));
            ready.remove(&gone).expect("removed");
            send_to(&gone);
            ready.add(&come, 8).expect("added");
            send_to(&come);
            assert_eq!(waiting.join().expect("ended"), [8]);
        });
        assert_eq!(ready.remove(&gone).expect_err("gone").kind(), io::ErrorKind::NotFound);
        // Its token is free for another.
        ready.add(&gone, 7).expect("added");
        let mut both = wait(&ready);
        both.sort_unstable();
        assert_eq!(both, [7, 8]);
    }

    #[test]
    fn of_many_that_are_always_ready_each_has_its_turn() {
        let ready = Ready::new().expect("a descriptor");
        let sockets = Vec::from_iter((0..200).map(|_| socket()));
        for (token, socket) in (0..).zip(&sockets) {
            ready.add(socket, token).expect("added");
            send_to(socket);
        }
        let mut told = Vec::from_iter((0..sockets.len().div_ceil(AT_ONCE)).flat_map(|_| wait(&ready)));
        told.sort_unstable();
        told.dedup();
        assert_eq!(told, Vec::from_iter(0..200));
    }

    #[test]
    fn it_ends_who_waits_and_who_comes_to_wait() {
        let ready = Ready::new().expect("a descriptor");
        let socket = socket();
        ready.add(&socket, 1).expect("added");
        std::thread::scope(|scope| {
            let waiting = [(); 2].map(|()| scope.spawn(|| wait(&ready)));
            assert!(!ready.is_stopped());
            ready.stop();
            waiting.into_iter().for_each(|thread| assert_eq!(thread.join().expect("ended"), NOTHING));
        });
        send_to(&socket);
        assert_eq!(wait(&ready), NOTHING);
    }
}
