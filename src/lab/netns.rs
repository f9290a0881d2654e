//! Network namespaces: made by name, entered by threads and programs, gone with the value.
//!
//! A name is `plt-<pid>-<number>-<role>`. A run that was killed leaves its namespaces behind, with the programs in them,
//! and folders that are named alike; the next run ends and removes those whose process is gone, and never touches any
//! other.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// What every name starts with.
const PREFIX: &str = "plt-";
/// Where iproute2 keeps names.
const NAMES: &str = "/run/netns";
/// Where iproute2 looks for files that stand in place of those in `/etc`.
const FILES: &str = "/etc/netns";

/// A network namespace, removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one with its loopback interface up, IPv6 addresses usable at once, and no reverse-path filter.
    pub fn new(lab: &str, role: &str) -> Result<Self> {
        let name = format!("{lab}-{role}");
        run(Command::new("ip").args(["netns", "add", &name])).context("network namespaces need root")?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
            namespace.sysctl(&format!("ipv6/conf/{scope}/dad_transmits"), "0")?;
        }
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Forwards packets between its interfaces.
    pub fn forward(&self) -> Result<()> {
        self.sysctl("ipv4/ip_forward", "1")?;
        self.sysctl("ipv6/conf/all/forwarding", "1")
    }

    /// Sets `/proc/sys/net/<key>`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.enter(|| fs::write(&path, value))?.with_context(|| path.clone())
    }

    /// What programs that start from now on find in `/etc/hosts`, and nowhere else: no name server is asked, which
    /// none could reach. Those that run see later changes.
    pub fn set_hosts(&self, text: &str) -> Result<()> {
        let folder = Path::new(FILES).join(&self.name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("nsswitch.conf"), "hosts: files\n")?;
        Ok(fs::write(folder.join("hosts"), text)?)
    }

    /// Whom programs that start from now on ask for addresses, and nobody else.
    pub fn set_name_server(&self, server: IpAddr) -> Result<()> {
        let folder = Path::new(FILES).join(&self.name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("nsswitch.conf"), "hosts: dns\n")?;
        Ok(fs::write(folder.join("resolv.conf"), format!("nameserver {server}\n"))?)
    }

    /// Runs a batch of `ip` commands, one a line.
    pub fn ip(&self, batch: &str) -> Result<()> {
        feed(Command::new("ip").args(["-netns", &self.name, "-batch", "-"]), batch)
    }

    /// Loads an nft ruleset.
    pub fn nft(&self, rules: &str) -> Result<()> {
        feed(self.command("nft").args(["-f", "-"]), rules)
    }

    /// A program to be run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        // What ping says is read, and must not be in the user's language.
        command.args(["netns", "exec", &self.name]).arg(program).stdin(Stdio::null()).env("LC_ALL", "C");
        command
    }

    /// Runs `body` on a thread inside, and waits for it. Sockets that it opens belong to the namespace for
    /// good, whoever uses them.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        let home = self.open()?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(home, CloneFlags::CLONE_NEWNET)?;
                Ok(body())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread inside: it begins where the thread is that starts it.
    pub fn spawn(&self, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
        Ok(self.enter(|| thread::Builder::new().name(self.name.clone()).spawn(body))??)
    }

    fn open(&self) -> Result<File> {
        let path = Path::new(NAMES).join(&self.name);
        File::open(&path).with_context(|| path.display().to_string())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.name]));
        let _ = fs::remove_dir_all(Path::new(FILES).join(&self.name));
    }
}

/// The first part of the names of a lab, unique on this machine.
pub fn lab_name(number: u32) -> String {
    format!("{PREFIX}{}-{number}", std::process::id())
}

/// A folder of this lab's own, gone with the value.
pub fn folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir()?)
}

/// Ends and removes what killed runs left behind. Another run may sweep at the same time: whoever comes second finds
/// nothing left.
pub fn sweep() {
    for name in orphans(Path::new(NAMES)) {
        for pid in pids(&name) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = run(Command::new("ip").args(["netns", "delete", &name]));
        let _ = fs::remove_dir_all(Path::new(FILES).join(&name));
    }
    for name in orphans(&std::env::temp_dir()) {
        let _ = fs::remove_dir_all(std::env::temp_dir().join(name));
    }
}

/// What is in a folder, is root's, and is named after a process that is gone.
fn orphans(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == 0));
    let names = ours.filter_map(|entry| entry.file_name().into_string().ok());
    let is_gone = |pid: u32| !Path::new("/proc").join(pid.to_string()).exists();
    names.filter(|name| pid_of(name).is_some_and(is_gone)).collect()
}

/// The processes in a namespace.
fn pids(name: &str) -> Vec<Pid> {
    let Ok(output) = run(Command::new("ip").args(["netns", "pids", name])) else { return Vec::new() };
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

fn pid_of(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    pid.parse().ok().filter(|_| !rest.is_empty())
}

/// Runs a program to its end; anything but success is an error with what it said. Ctrl-C does not reach it: what tears
/// down a lab must go on.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.process_group(0).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}

fn feed(command: &mut Command, input: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    child.stdin.take().expect("it is piped").write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{input}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
