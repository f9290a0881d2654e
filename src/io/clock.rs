//! The one clock. [`now`] counts suspend, so that keys age while a laptop sleeps; [`Alarm`] waits on the
//! same clock, so that a deadline that passed in suspend fires on resume; wall time is for people and for
//! the number that must grow over restarts.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sans::Instant;

/// The last second that RFC 3339 can write: 9999-12-31T23:59:59Z, in milliseconds.
const LAST_WRITABLE_MS: u64 = 253_402_300_799_000;

/// This moment.
#[cfg(unix)]
pub fn now() -> Instant {
    use nix::time::{ClockId, clock_gettime};
    // macOS' monotonic clock counts suspend by itself.
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;
    let time = clock_gettime(CLOCK).expect("every supported kernel has this clock");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// This moment. The performance counter behind the standard clock of Windows counts suspend.
#[cfg(not(unix))]
#[allow(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn now() -> Instant {
    static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let origin = *ORIGIN.get_or_init(std::time::Instant::now);
    // The origin lies an hour back, so that subtracting a short time never saturates.
    Instant::from_nanos(3_600_000_000_000) + origin.elapsed()
}

/// Milliseconds since 1970 by the wall clock; 0 if it is set before.
#[allow(clippy::disallowed_methods, reason = "this is the one wall clock")]
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Wall milliseconds as RFC 3339, UTC, whole seconds: `2026-11-21T20:00:00Z`.
pub fn rfc3339(wall_ms: u64) -> String {
    let since = Duration::from_millis(wall_ms.min(LAST_WRITABLE_MS));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

/// Waits for moments of [`now`]'s clock. The deadline may move at every call; re-arming costs a system
/// call only when it did.
#[derive(Debug)]
pub struct Alarm(imp::Alarm);

impl Alarm {
    /// An alarm. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new() -> io::Result<Self> {
        imp::Alarm::new().map(Self)
    }

    /// Waits until `at`; without a moment, for ever. May be dropped and called again at any time.
    ///
    /// # Errors
    /// The system refused to set its timer.
    pub async fn until(&mut self, at: Option<Instant>) -> io::Result<()> {
        match at {
            None => std::future::pending().await,
            Some(at) if at <= now() => Ok(()),
            Some(at) => self.0.wait(at).await,
        }
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io;
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use crate::io::watched::{self, Watched};
    use crate::sans::Instant;
    use nix::errno::Errno;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

    /// A kernel timer on `CLOCK_BOOTTIME`.
    #[derive(Debug)]
    pub(super) struct Alarm {
        timer: TimerFd,
        watched: Watched,
        armed: Option<Instant>,
    }

    impl Alarm {
        pub(super) fn new() -> io::Result<Self> {
            let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
            let watched = watched::readable(timer.as_fd().try_clone_to_owned()?)?;
            Ok(Self { timer, watched, armed: None })
        }

        pub(super) async fn wait(&mut self, at: Instant) -> io::Result<()> {
            if self.armed != Some(at) {
                // An absolute time of zero would disarm the timer, but `at` lies in the future.
                let expiration = Expiration::OneShot(Duration::from_nanos(at.as_nanos()).into());
                self.timer.set(expiration, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
                self.armed = Some(at);
            }
            let result = self.watched.read(|_| Ok(self.timer.wait()?)).await;
            self.armed = None;
            match result {
                Err(error) if error.raw_os_error() == Some(Errno::ECANCELED as i32) => Ok(()),
                other => other,
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;
    use std::time::Duration;

    use crate::sans::Instant;

    /// tokio's timer may stand still in suspend: never sleep for longer than this without a look.
    const LONGEST_NAP: Duration = Duration::from_secs(5);

    #[derive(Debug)]
    pub(super) struct Alarm;

    impl Alarm {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) async fn wait(&mut self, at: Instant) -> io::Result<()> {
            while let left = at.since(super::now())
                && !left.is_zero()
            {
                tokio::time::sleep(left.min(LONGEST_NAP)).await;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back() {
        let first = now();
        assert!(now() >= first);
        assert!(first > Instant::ZERO);
    }

    #[test]
    fn wall_time_is_written_as_rfc_3339_whatever_it_is() {
        assert_eq!(rfc3339(1_795_291_200_000), "2026-11-21T20:00:00Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
        assert!(wall_ms() > 1_700_000_000_000);
    }

    #[tokio::test]
    async fn an_alarm_fires_at_its_moment_and_after_it_was_moved() {
        let mut alarm = Alarm::new().expect("alarm");
        alarm.until(Some(Instant::ZERO)).await.expect("past");
        let start = now();
        let late = start + Duration::from_secs(3600);
        let soon = start + Duration::from_millis(20);
        tokio::select! {
            _ = alarm.until(Some(late)) => panic!("fired an hour early"),
            () = tokio::task::yield_now() => {}
        }
        alarm.until(Some(soon)).await.expect("soon");
        assert!(now() >= soon && now() < start + Duration::from_secs(60));
        // The same timer can be used again.
        let again = now() + Duration::from_millis(10);
        alarm.until(Some(again)).await.expect("again");
        assert!(now() >= again);
    }
}
