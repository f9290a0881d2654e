//! Pings ten a second with the wall time of each answer: how long was it silent?

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::netns::Namespace;

/// Pings that go on. Dropped, they end.
#[derive(Debug)]
pub struct Pulse {
    output: PathBuf,
    child: Child,
}

impl Pulse {
    /// Pings `target` from now on.
    pub fn start(netns: &Namespace, target: Ipv4Addr, output: &Path) -> Result<Self> {
        let mut ping = netns.command("ping");
        ping.args(["-n", "-D", "-i", "0.1", &target.to_string()]);
        let child = ping.stdout(File::create(output)?).stderr(Stdio::null()).spawn()?;
        Ok(Self { output: output.to_owned(), child })
    }

    /// When answers came, since 1970, each once.
    fn answers(&self) -> Vec<Duration> {
        let said = fs::read_to_string(&self.output).unwrap_or_default();
        let answers = said.lines().filter(|line| line.contains("bytes from") && !line.contains("DUP!"));
        answers.filter_map(|line| line.strip_prefix('[')?.split(']').next()?.parse().ok()).map(seconds).collect()
    }

    /// How many were answered so far.
    pub fn count(&self) -> usize {
        self.answers().len()
    }

    /// The longest silence from `start` until now.
    pub fn longest_gap(&self, start: SystemTime) -> Duration {
        let (start, now) = (since_1970(start), since_1970(wall()));
        let answers = self.answers();
        let times = answers.iter().copied().filter(|at| (start..now).contains(at));
        let ends = times.clone().chain([now]);
        let begins = std::iter::once(start).chain(times);
        begins.zip(ends).map(|(begin, end)| end - begin).max().unwrap_or_default()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The wall clock, which `ping -D` writes.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn seconds(text: f64) -> Duration {
    Duration::try_from_secs_f64(text).unwrap_or_default()
}
