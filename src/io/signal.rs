//! When to stop: SIGTERM or Ctrl-C, or what stands for them elsewhere.

use std::future::Future;
use std::io;

/// Catches the signals from now on; the future ends with the name of the first that comes. Must be called
/// inside a tokio runtime. As long as the process runs, the signals no longer end it by themselves.
///
/// # Errors
/// The system refused the handlers.
#[cfg(unix)]
pub fn stop() -> io::Result<impl Future<Output = &'static str> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Catches the signals from now on; the future ends with the name of the first that comes. Must be called
/// inside a tokio runtime. As long as the process runs, the signals no longer end it by themselves.
///
/// # Errors
/// The system refused the handlers.
#[cfg(windows)]
pub fn stop() -> io::Result<impl Future<Output = &'static str> + Send + 'static> {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
    let (mut c, mut brk, mut close, mut shutdown) = (ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_shutdown()?);
    Ok(async move {
        tokio::select! {
            _ = c.recv() => "Ctrl-C",
            _ = brk.recv() => "Ctrl-Break",
            _ = close.recv() => "the window's end",
            _ = shutdown.recv() => "the system's shutdown",
        }
    })
}

/// Requests to read the configuration again: SIGHUP.
#[derive(Debug)]
pub struct Reloads {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Reloads {
    /// Catches them from now on. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system refused the handler.
    #[cfg_attr(not(unix), allow(clippy::unnecessary_wraps, reason = "as on unix"))]
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        })
    }

    /// The next one; never, where there is no such signal. Cancel-safe.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(all(test, unix))]
mod tests {
    use nix::sys::signal::{Signal, raise};

    #[tokio::test]
    async fn a_signal_that_comes_before_anybody_waits_is_not_lost() {
        let stop = super::stop().expect("handlers");
        raise(Signal::SIGTERM).expect("raise");
        assert_eq!(stop.await, "SIGTERM");
    }
}
