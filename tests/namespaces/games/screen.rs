//! A screen that nobody looks at, with a mouse and a keyboard: Xvfb and xdotool.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::PATIENCE;
use crate::lab::netns::{self, Namespace};
use crate::lab::programs::{Program, await_some};

/// So many pixels. Dropped, it is dark.
#[derive(Debug)]
pub(super) struct Screen<'a> {
    machine: &'a Namespace,
    display: String,
    server: Program,
}

impl<'a> Screen<'a> {
    /// Starts it; a `size` is `640x480`.
    pub(super) fn start(machine: &'a Namespace, folder: &Path, size: &str) -> Result<Self> {
        let mut command = machine.command("Xvfb");
        // A socket of this network namespace alone: the others' screens are of the same number.
        command.args([
            "-displayfd",
            "1",
            "-nolisten",
            "tcp",
            "-nolisten",
            "unix",
            "-screen",
            "0",
            &format!("{size}x24"),
        ]);
        let server = Program::start(command, folder.join("screen"))?;
        let number = || Ok(server.said().lines().find_map(|line| line.trim().parse::<u16>().ok()));
        let display = await_some("a screen", PATIENCE, number)?;
        Ok(Self { machine, display: format!(":{display}"), server })
    }

    /// A program that has its window there.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = self.machine.command(program);
        command.env("DISPLAY", &self.display).env("LIBGL_ALWAYS_SOFTWARE", "1").env("SDL_AUDIODRIVER", "dummy");
        command
    }

    /// As long as a finger takes, and a game that draws few frames a second.
    pub(super) fn click(&self, (x, y): (u16, u16)) -> Result<()> {
        let (x, y) = (x.to_string(), y.to_string());
        self.does(&[
            "mousemove",
            &x,
            &y,
            "sleep",
            "0.3",
            "mousedown",
            "1",
            "sleep",
            "0.3",
            "mouseup",
            "1",
            "sleep",
            "0.3",
        ])
    }

    pub(super) fn key(&self, name: &str) -> Result<()> {
        self.does(&["key", name, "sleep", "0.3"])
    }

    pub(super) fn write(&self, text: &str) -> Result<()> {
        self.does(&["type", "--delay", "50", text])
    }

    fn does(&self, args: &[&str]) -> Result<()> {
        netns::run(self.command("xdotool").args(args)).map(drop)
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // Killed, it would leave its lock behind.
        let _ = self.server.end(Signal::SIGTERM);
    }
}

/// Does something again and again, as people do, until it had its effect.
pub(super) fn insist(what: &str, pause: Duration, act: impl Fn() -> Result<()>, done: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        act()?;
        if await_some(what, pause, || Ok(done().then_some(()))).is_ok() {
            return Ok(());
        }
    }
    bail!("tried for {PATIENCE:?}: {what}")
}
