//! Real programs in the laboratory: the rendezvous, daemons with interfaces of their own, and pings.
//!
//! All daemons of a [`Network`] share one file system, as a user's would not: each has its own state and run
//! folders below one temporary folder, which also keeps what every program said. A test that fails shows it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::crypto::NetworkSecrets;
use crate::id::Epoch;
use crate::io::store::StateDir;
use crate::node::status::{PeerState, RendezvousState, Status};
use crate::node::why::Why;
use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::interrupt;
use super::netns::{self, Namespace};
use super::{Gateway, Host, Lab, RENDEZVOUS, RENDEZVOUS_V6};

/// The overlay of a network here, unless it is told another.
pub const SUBNET: &str = "10.77.0.0/24";
pub(super) const PORT: u16 = 3478;
/// HTTPS.
pub(super) const WEB_PORT: u16 = 443;
/// How often a condition is looked at.
const TICK: Duration = Duration::from_millis(5);

/// A program that runs in a namespace. Dropped, it is killed.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
    /// Where in the log, which earlier runs may have begun, it starts to speak.
    from: usize,
}

impl Program {
    /// Starts it, with everything that it says in the file `log`.
    pub fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        command.stdout(file.try_clone()?).stderr(file);
        let from = usize::try_from(fs::metadata(&log)?.len())?;
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(Self { child, log, from })
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default().split_off(self.from)
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("process ids are positive"))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Sends a signal and waits for the end; also says how long that took.
    pub fn end(&mut self, signal: Signal) -> Result<(ExitStatus, Duration)> {
        let start = Instant::now();
        kill(self.pid(), signal)?;
        await_some("the end of a program", Duration::from_secs(10), || Ok(self.child.try_wait()?))
            .map(|status| (status, start.elapsed()))
    }
}

impl Drop for Program {
    #[allow(clippy::print_stderr, reason = "a test that fails shows what its programs said")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("─── {} ───\n{}", self.log.display(), self.said());
        }
    }
}

/// A virtual LAN in the making: a rendezvous that runs, and the key that its members share.
#[derive(Debug)]
pub struct Network {
    /// The punchlan that is run.
    program: PathBuf,
    /// The rendezvous; taken out to be ended by a test.
    pub rendezvous: Option<Program>,
    folder: TempDir,
    /// The text of the `[network]` section's key.
    pub key: String,
    /// What net.toml names as rendezvous; empty: the one that runs, by an address that the host can reach.
    pub servers: Vec<String>,
    /// The overlay.
    pub subnet: Ipv4Net,
    /// What else stands in the net.toml of members that start from now on.
    pub more: String,
    /// What its programs log, if not what they log by themselves: `PUNCHLAN_LOG`.
    pub log: Option<String>,
    /// How much of the kernel's work those take over that start from now on: `PUNCHLAN_OFFLOAD`.
    pub offload: &'static str,
    /// A file of the certificates that those programs trust: `SSL_CERT_FILE`.
    pub trust: Option<PathBuf>,
    /// The rendezvous is also at the port of web servers.
    serves_web_port: bool,
}

impl Network {
    /// Makes a new network of this punchlan and starts a rendezvous in the lab.
    pub fn start(lab: &Lab, program: impl Into<PathBuf>) -> Result<Self> {
        let mut network = Self::without_rendezvous(program)?;
        network.serves_web_port = lab.sites.iter().any(|site| site.gateway == Gateway::Tcp443Only);
        network.start_rendezvous(&lab.rendezvous)?;
        Ok(network)
    }

    /// Makes a new network that will use a rendezvous which somebody else runs.
    pub fn without_rendezvous(program: impl Into<PathBuf>) -> Result<Self> {
        let program = program.into();
        let folder = netns::folder()?;
        let net_toml = folder.path().join("founder.toml");
        netns::run(Command::new(&program).args(["init", "--network", NAME, "--subnet", SUBNET]).arg(&net_toml))?;
        let table: toml::Table = fs::read_to_string(&net_toml)?.parse()?;
        let key = table["network"]["key"].as_str().context("the key is text")?.to_owned();
        let servers = Vec::new();
        Ok(Self {
            program,
            rendezvous: None,
            folder,
            key,
            servers,
            subnet: SUBNET.parse()?,
            more: String::new(),
            log: None,
            offload: "all",
            trust: None,
            serves_web_port: false,
        })
    }

    /// Starts the rendezvous and waits until it says what it has bound.
    pub fn start_rendezvous(&mut self, machine: &Namespace) -> Result<()> {
        let web_port = self.serves_web_port.then_some(WEB_PORT);
        let listen: Vec<String> = [PORT].into_iter().chain(web_port).map(|port| format!("[::]:{port}")).collect();
        let listen: Vec<&str> = listen.iter().map(String::as_str).collect();
        self.rendezvous = Some(self.serve_at(machine, "rendezvous", &listen)?);
        Ok(())
    }

    /// Starts a rendezvous with a state of its own on an address, and waits until it says that it has bound it.
    pub fn serve(&self, machine: &Namespace, name: &str, listen: &str) -> Result<Program> {
        self.serve_at(machine, name, &[listen])
    }

    /// The same as this rendezvous.toml says.
    pub fn serve_as(&self, machine: &Namespace, name: &str, rendezvous_toml: &str) -> Result<Program> {
        let file = self.folder.path().join(name).with_extension("toml");
        fs::write(&file, rendezvous_toml)?;
        let mut command = machine.command(&self.program);
        command.arg("rendezvous").arg("--config").arg(file);
        self.start_serving(command, name)
    }

    /// The folder of all that its programs leave.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The same on several addresses.
    pub fn serve_at(&self, machine: &Namespace, name: &str, listen: &[&str]) -> Result<Program> {
        let mut command = machine.command(&self.program);
        command.arg("rendezvous").args(listen.iter().flat_map(|addr| ["--listen", addr]));
        self.start_serving(command, name)
    }

    fn start_serving(&self, mut command: Command, name: &str) -> Result<Program> {
        self.set_folders(&mut command, name);
        let program = Program::start(command, self.folder.path().join(name).with_extension("log"))?;
        await_true("the rendezvous to listen", Duration::from_secs(5), || Ok(program.said().contains("plr1-")))?;
        Ok(program)
    }

    /// Starts `punchlan up` on a host and returns at once.
    pub fn up<'a>(&self, host: &'a Host, name: &str, number: u8) -> Result<Peer<'a>> {
        let [a, b, c, _] = self.subnet.addr().octets();
        let address = Ipv4Addr::new(a, b, c, number);
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder)?;
        let net_toml = folder.join("net.toml");
        fs::write(&net_toml, self.net_toml(host, name, address))?;
        fs::set_permissions(&net_toml, Permissions::from_mode(0o600))?;
        let mut command = host.netns.command(&self.program);
        command.args(["-v", "up"]).arg(&net_toml);
        self.set_folders(&mut command, name);
        let program = Program::start(command, folder.join("log"))?;
        Ok(Peer { program, host, name: name.to_owned(), address, folder, punchlan: self.program.clone() })
    }

    /// Starts `punchlan up` and waits until it is registered.
    pub fn join<'a>(&self, host: &'a Host, name: &str, number: u8) -> Result<Peer<'a>> {
        let peer = self.up(host, name, number)?;
        peer.await_status("its registration", Duration::from_secs(10), |status| {
            status.rendezvous.iter().any(|server| server.state == RendezvousState::Registered)
        })?;
        Ok(peer)
    }

    fn net_toml(&self, host: &Host, name: &str, address: Ipv4Addr) -> String {
        let v4 = host.v4.map(|_| IpAddr::V4(RENDEZVOUS));
        let v6 = host.v6.map(|_| IpAddr::V6(RENDEZVOUS_V6));
        let nearest = v4.or(v6).expect("a host has an address");
        let by_tcp = self.serves_web_port.then(|| format!("tcp://{}", SocketAddr::new(nearest, WEB_PORT)));
        let nearest = [SocketAddr::new(nearest, PORT).to_string()].into_iter().chain(by_tcp).collect();
        let servers = if self.servers.is_empty() { nearest } else { self.servers.clone() };
        format!(
            "[network]\nname = \"{NAME}\"\nkey = \"{}\"\nsubnet = \"{}\"\nrendezvous = {servers:?}\n\
             [peer]\nname = \"{name}\"\naddress = \"{address}\"\n{}",
            self.key, self.subnet, self.more
        )
    }

    /// Leaves behind what an earlier run of a peer would have that ran with a clock so far ahead: the numbers that
    /// it used, and with them all that others will have seen of it.
    pub fn ran_ahead(&self, name: &str, ahead: Duration) -> Result<()> {
        let network = NetworkSecrets::derive(&self.key.parse()?, Epoch::default()).id();
        let state = StateDir::open(&self.folder.path().join(name).join("state"), &network)?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH)? + ahead;
        Ok(state.reserve(u64::try_from(wall.as_millis())?)?)
    }

    fn set_folders(&self, command: &mut Command, name: &str) {
        set_folders(command, &self.folder.path().join(name));
        command.env("PUNCHLAN_OFFLOAD", self.offload);
        if let Some(log) = &self.log {
            command.env("PUNCHLAN_LOG", log);
        }
        if let Some(trust) = &self.trust {
            command.env("SSL_CERT_FILE", trust);
        }
    }
}

/// The network's name: long enough never to appear by chance.
pub const NAME: &str = "laboratory-lan";

fn set_folders(command: &mut Command, folder: &Path) {
    command.env("PUNCHLAN_STATE", folder.join("state")).env("PUNCHLAN_RUN", folder.join("run"));
    // The machine's own is everybody's.
    command.env("PUNCHLAN_HOSTS", folder.join("hosts"));
}

/// A daemon on a host.
#[derive(Debug)]
pub struct Peer<'a> {
    /// Its process.
    pub program: Program,
    /// Where it runs.
    pub host: &'a Host,
    /// Its name.
    pub name: String,
    /// Its overlay address.
    pub address: Ipv4Addr,
    folder: PathBuf,
    punchlan: PathBuf,
}

impl Peer<'_> {
    /// A `punchlan` command beside this daemon.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.host.netns.command(&self.punchlan);
        command.args(args);
        set_folders(&mut command, &self.folder);
        command
    }

    /// Where this daemon keeps its state.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `punchlan status --json`.
    pub fn status(&self) -> Result<Status> {
        let output = netns::run(&mut self.command(&["status", "--json"]))?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// `punchlan why OTHER --json`.
    pub fn why(&self, other: &str) -> Result<Why> {
        let output = netns::run(&mut self.command(&["why", other, "--json"]))?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Waits until the status is as wanted.
    pub fn await_status(&self, what: &str, patience: Duration, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let what = format!("{what} of {}", self.name);
        await_some(&what, patience, || {
            std::thread::sleep(Duration::from_millis(20));
            Ok(self.status().ok().filter(&wanted))
        })
    }

    /// Waits until this peer shows another in this state.
    pub fn await_peer(&self, other: &str, state: PeerState, patience: Duration) -> Result<Status> {
        self.await_status(&format!("{other} {state:?}"), patience, |status| {
            status.peers.iter().any(|peer| peer.name == other && peer.state == state)
        })
    }

    /// Its derived IPv6 overlay address.
    pub fn address_v6(&self) -> Result<IpAddr> {
        let status = self.await_status("an interface", Duration::from_secs(5), |_| true)?;
        status.me.addresses.into_iter().find(IpAddr::is_ipv6).context("IPv6 is on by default")
    }

    /// Pings an overlay address `count` times and returns how many answers came.
    pub fn ping(&self, target: IpAddr, count: u32) -> Result<u32> {
        let mut ping = self.host.netns.command("ping");
        ping.args(["-n", "-q", "-i", "0.02", "-W", "2", "-s", &PING_PAYLOAD.to_string()]);
        let output = ping.args(["-c", &count.to_string(), &target.to_string()]).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let received = said.split(" received").next().and_then(|before| before.rsplit(' ').next());
        received.and_then(|number| number.parse().ok()).with_context(|| format!("ping said: {said}"))
    }

    /// Starts to ping every 50 ms, even before there is an interface to ping through.
    pub fn start_pings(&self, target: Ipv4Addr) -> Result<Pings<'_>> {
        Pings::start(&self.host.netns, target, self.folder.join("pings"))
    }
}

/// What every ping carries: a length that nothing else on the wire has.
pub const PING_PAYLOAD: usize = 777;
/// The length of a sealed ping on the wire: + ICMP 8, IP 20 or 40, seal 25, relay 0 or 12, UDP 8, IP 20 or 40.
pub const PING_ON_WIRE: std::ops::Range<usize> = PING_PAYLOAD + 81..PING_PAYLOAD + 134;

/// Pings that go on.
#[derive(Debug)]
pub struct Pings<'a> {
    netns: &'a Namespace,
    target: Ipv4Addr,
    output: PathBuf,
    child: Child,
}

impl<'a> Pings<'a> {
    fn start(netns: &'a Namespace, target: Ipv4Addr, output: PathBuf) -> Result<Self> {
        let child = Self::spawn(netns, target, &output)?;
        Ok(Self { netns, target, output, child })
    }

    fn spawn(netns: &Namespace, target: Ipv4Addr, output: &Path) -> Result<Child> {
        let mut ping = netns.command("ping");
        ping.args(["-n", "-i", "0.05", "-s", &PING_PAYLOAD.to_string(), &target.to_string()]);
        Ok(ping.stdout(File::create(output)?).stderr(Stdio::null()).spawn()?)
    }

    /// Waits for the first answer; says when it was seen.
    pub fn first_answer(&mut self, patience: Duration) -> Result<Instant> {
        await_some("the first answered ping", patience, || {
            // Without a route to the overlay ping ends at once.
            if self.child.try_wait()?.is_some() {
                self.child = Self::spawn(self.netns, self.target, &self.output)?;
            }
            let answered = self.said().contains("bytes from");
            Ok(answered.then(Instant::now))
        })
    }
}

impl Pings<'_> {
    /// What ping printed so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Ends them. Between the first answer and the last: pings that were not answered, and answers that came
    /// twice.
    pub fn end(self) -> Result<Flaws> {
        let said = self.said();
        let answers = said.lines().filter(|line| line.contains("bytes from"));
        let mut numbers: Vec<usize> =
            answers.filter_map(|line| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok()).collect();
        let answers = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { bail!("no answers: {said}") };
        Ok(Flaws { lost: last - first + 1 - numbers.len(), doubled: answers - numbers.len() })
    }
}

/// What should not happen to pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaws {
    /// Not answered, although earlier and later ones were.
    pub lost: usize,
    /// Answered more than once.
    pub doubled: usize,
}

impl Drop for Pings<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `look` finds something.
pub fn await_some<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        interrupt::check()?;
        if start.elapsed() > patience {
            bail!("waited {patience:?} for {what}");
        }
        std::thread::sleep(TICK);
    }
}

/// Waits until `look` is true.
pub fn await_true(what: &str, patience: Duration, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    await_some(what, patience, || Ok(look()?.then_some(())))
}
