//! The rendezvous under load: a process of its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use tempfile::TempDir;

const PUNCHLAN: &str = env!("CARGO_BIN_EXE_punchlan");

pub(crate) struct Host {
    child: Child,
    folder: TempDir,
    pub(crate) address: SocketAddr,
}

impl Host {
    /// Starts it with room for so many peers, all from one machine.
    pub(crate) fn start(peers: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("punchlan-load-").tempdir().expect("a folder");
        let limits = folder.path().join("rendezvous.toml");
        let room = peers + 1_000;
        fs::write(
            &limits,
            format!(
                "[limits]\nmembers = {room}\nmembers_per_network = {room}\nmembers_per_prefix = {room}\n\
                 hellos_per_second = 100000\nhellos_per_second_per_prefix = 100000\nregisters_per_second = 100000\n\
                 registers_per_second_per_network = 100000\nregisters_per_second_per_prefix = 100000\n"
            ),
        )
        .expect("written");
        let log = fs::File::create(folder.path().join("log")).expect("a file");
        let mut command = Command::new(PUNCHLAN);
        command.args(["rendezvous", "--listen", "127.0.0.1:0", "--config"]).arg(limits);
        command.env("PUNCHLAN_STATE", folder.path()).env_remove("PUNCHLAN_LOG");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("it says where it listens").expect("text");
        let address = line.split(' ').find_map(|word| word.parse().ok()).expect("an address");
        Self { child, folder, address }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, kB.
    pub(crate) fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        resident.expect("VmRSS in kB").parse().expect("a number")
    }

    /// Processor time so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
        let ticks: u32 = fields.split(' ').skip(11).take(2).map(|n| n.parse::<u32>().expect("ticks")).sum();
        let rate = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|n| u32::try_from(n).ok()).expect("a clock");
        Duration::from_secs(1) * ticks / rate
    }

    /// All its counters, in its own words.
    pub(crate) fn counters(&self) -> String {
        kill(Pid::from_raw(self.pid().try_into().expect("a process id")), Signal::SIGUSR1).expect("told");
        std::thread::sleep(Duration::from_millis(300));
        let log = fs::read_to_string(self.folder.path().join("log")).expect("its log");
        log.lines().rev().find(|line| line.contains("uptime=")).unwrap_or("nothing").to_owned()
    }

    /// Ends it.
    pub(crate) fn end(mut self) {
        kill(Pid::from_raw(self.pid().try_into().expect("a process id")), Signal::SIGTERM).expect("told");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
