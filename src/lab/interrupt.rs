//! Ctrl-C: whoever waits in a laboratory stops waiting, and everything is torn down on the way out.
//!
//! A signal is meant for the process, so this is one flag for the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on every wait in a laboratory fails.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether that was said.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails if it was said.
pub fn check() -> Result<()> {
    if is_interrupted() { bail!("interrupted") } else { Ok(()) }
}

/// Waits so long.
pub fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        check()?;
        std::thread::sleep(Duration::from_millis(20).min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
