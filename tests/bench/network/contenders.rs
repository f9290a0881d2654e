//! Who takes part, and how each is started.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::lab::netns::{Namespace, run};
use crate::lab::programs::{PUNCHLAN, Program};
use crate::place::{A, B, Place, RENDEZVOUS};

/// Starts one.
type Start = Box<dyn Fn(&Place) -> Result<Running>>;

/// One of them.
pub struct Contender {
    pub name: String,
    pub start: Start,
}

/// Its programs while they run.
pub struct Running {
    /// Those whose time and memory count…
    pub programs: Vec<Program>,
    /// …and the relay's, if all goes through one.
    pub relay: Option<Program>,
    /// Where the other end is reached, from `a`.
    pub target: String,
}

/// All that this machine has.
pub fn all() -> Vec<Contender> {
    let mut all = vec![
        contender("bare veth", |_| Ok(Running { programs: Vec::new(), relay: None, target: B.to_owned() })),
        contender("floor: TAP to TAP", floor),
        contender("punchlan", |place| punchlan(place, PUNCHLAN, false)),
        contender("punchlan, relayed", |place| punchlan(place, PUNCHLAN, true)),
    ];
    if let Ok(other) = std::env::var("PUNCHLAN_OTHER") {
        all.push(contender("punchlan, other", move |place| punchlan(place, &other, false)));
    }
    for (name, program, variable) in WIREGUARDS {
        if let Some(path) = installed(program, variable) {
            all.push(contender(name, move |place| wireguard(place, &path)));
        }
    }
    if let Some(path) = installed("nebula", "NEBULA") {
        all.push(contender("nebula", move |place| nebula(place, &path)));
    }
    if let Some(path) = installed("tincd", "TINCD") {
        all.push(contender("tinc", move |place| tinc(place, &path)));
    }
    if let Some(path) = installed("openvpn", "OPENVPN") {
        all.push(contender("openvpn", move |place| openvpn(place, &path)));
    }
    if let Some(path) = installed("edge", "N2N_EDGE") {
        all.push(contender("n2n", move |place| n2n(place, &path)));
    }
    if let Some(path) = installed("vpncloud", "VPNCLOUD") {
        all.push(contender("vpncloud", move |place| vpncloud(place, &path)));
    }
    all
}

fn contender(name: &str, start: impl Fn(&Place) -> Result<Running> + 'static) -> Contender {
    Contender { name: name.to_owned(), start: Box::new(start) }
}

/// A program by its path in `variable`, or as it is installed.
fn installed(name: &str, variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian has them, whatever the user's path is.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut places = std::env::var_os(variable).map(PathBuf::from).into_iter().chain(folders.map(|f| f.join(name)));
    places.find(|path| path.is_file())
}

fn start(namespace: &Namespace, place: &Place, log: &str, program: &str, args: &[&str]) -> Result<Program> {
    let mut command = namespace.command(program);
    command.args(args).stdin(Stdio::null());
    Program::start(command, place.folder().join(format!("{log}.log")))
}

fn write(place: &Place, name: &str, text: &str) -> Result<String> {
    let path = place.folder().join(name);
    fs::create_dir_all(path.parent().context("a folder")?)?;
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path.display().to_string())
}

fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8(run(command)?.stdout)?.trim().to_owned())
}

/// What the interfaces cost alone: packets from one to the other, no UDP and no cryptography.
fn floor(place: &Place) -> Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env("PUNCHLAN_BENCH_FLOOR", format!("{} {}", place.a.name(), place.b.name()));
    let program = Program::start(command, place.folder().join("floor.log"))?;
    Ok(Running { programs: vec![program], relay: None, target: crate::floor::B.to_owned() })
}

fn punchlan(place: &Place, binary: &str, relayed: bool) -> Result<Running> {
    let folder = |name: &str| place.folder().join(name).display().to_string();
    let founder = folder("a.toml");
    let init = ["init", "--network", "bench", "--subnet", "10.77.0.0/24", "--rendezvous", RENDEZVOUS];
    run(Command::new(binary).args(init).args(["--name", "a", "--address", "10.77.0.1"]).arg(&founder))?;
    let text = fs::read_to_string(&founder)?.replace("10.77.0.1\"", "10.77.0.2\"");
    let text =
        text.lines().map(|line| if line.starts_with("name") && line.contains("\"a\"") { "name = \"b\"" } else { line });
    let guest = write(place, "b.toml", &text.collect::<Vec<_>>().join("\n"))?;
    let limits = write(place, "rendezvous.toml", RELAY_WITHOUT_LIMITS)?;
    if relayed {
        for (namespace, other) in [(&place.a, B), (&place.b, A)] {
            namespace.nft(&format!(
                "table ip bench {{
                   chain out {{
                     type filter hook output priority 0
                     ip daddr {other} meta l4proto udp drop
                   }}
                 }}"
            ))?;
        }
    }
    let up = |namespace: &Namespace, name: &str, args: &[&str]| {
        let mut command = namespace.command(binary);
        command.args(args).env("PUNCHLAN_STATE", folder(&format!("{name}-state")));
        command.env("PUNCHLAN_RUN", folder(&format!("{name}-run")));
        Program::start(command, place.folder().join(format!("{name}.log")))
    };
    let rendezvous = up(&place.rv, "rv", &["rendezvous", "--config", &limits])?;
    let mut programs = vec![up(&place.a, "a", &["up", &founder])?, up(&place.b, "b", &["up", &guest])?];
    let relay = if relayed {
        Some(rendezvous)
    } else {
        programs.push(rendezvous);
        None
    };
    Ok(Running { programs, relay, target: "10.77.0.2".to_owned() })
}

const RELAY_WITHOUT_LIMITS: &str = "[limits]
relay_mbit = 100_000
relay_mbit_per_network = 100_000
relay_mbit_per_prefix = 100_000
";

/// Programs that `wg` speaks to: what they are called, their commands, and where else they may be.
const WIREGUARDS: [(&str, &str, &str); 3] = [
    ("wireguard-go", "wireguard-go", "WIREGUARD_GO"),
    ("boringtun", "boringtun-cli", "BORINGTUN"),
    ("gotatun", "gotatun", "GOTATUN"),
];

fn wireguard(place: &Place, binary: &std::path::Path) -> Result<Running> {
    let name = binary.file_name().context("a program")?.display().to_string();
    let binary = binary.display().to_string();
    let key = || output(Command::new("wg").arg("genkey"));
    let public = |key: &str, name: &str| -> Result<String> {
        let file = write(place, name, key)?;
        output(Command::new("sh").args(["-c", &format!("wg pubkey < {file}")]))
    };
    let keys = [key()?, key()?];
    let publics = [public(&keys[0], "key0")?, public(&keys[1], "key1")?];
    let mut programs = Vec::new();
    for (n, (namespace, far)) in [(&place.a, B), (&place.b, A)].into_iter().enumerate() {
        let interface = format!("bwg{n}");
        let socket = format!("/var/run/wireguard/{interface}.sock");
        // One that was killed leaves it behind.
        let _ = fs::remove_file(&socket);
        let mut command = namespace.command(&binary);
        command.args(["-f", &interface]).env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        if name != "wireguard-go" {
            // It would change to another user, who has no right to make the interface.
            command.arg("--disable-drop-privileges");
        }
        programs.push(Program::start(command, place.folder().join(format!("wg{n}.log")))?);
        let ready = || Ok(std::path::Path::new(&socket).exists());
        crate::lab::programs::await_true(&name, std::time::Duration::from_secs(5), ready)?;
        let private = place.folder().join(format!("key{n}")).display().to_string();
        let peer = &publics[1 - n];
        run(namespace.command("wg").args(["set", &interface, "listen-port", "51820", "private-key", &private]))?;
        let endpoint = format!("{far}:51820");
        let allowed = format!("10.78.0.{}/32", 2 - n);
        run(namespace.command("wg").args([
            "set",
            &interface,
            "peer",
            peer,
            "allowed-ips",
            &allowed,
            "endpoint",
            &endpoint,
        ]))?;
        namespace.ip(&format!("addr add 10.78.0.{}/24 dev {interface}\nlink set {interface} up", n + 1))?;
    }
    Ok(Running { programs, relay: None, target: "10.78.0.2".to_owned() })
}

fn nebula(place: &Place, binary: &std::path::Path) -> Result<Running> {
    let cert = binary.with_file_name("nebula-cert");
    let folder = place.folder();
    run(Command::new(&cert).current_dir(folder).args(["ca", "-name", "bench"]))?;
    let mut programs = Vec::new();
    for (n, namespace) in [&place.a, &place.b].into_iter().enumerate() {
        let (name, ip) = (format!("n{n}"), format!("10.79.0.{}/24", n + 1));
        run(Command::new(&cert).current_dir(folder).args(["sign", "-name", &name, "-ip", &ip]))?;
        let path = |file: &str| folder.join(file).display().to_string();
        let lighthouse = if n == 0 { "am_lighthouse: true" } else { "am_lighthouse: false\n  hosts: [\"10.79.0.1\"]" };
        let config = format!(
            "pki: {{ca: {}, cert: {}, key: {}}}
static_host_map: {{\"10.79.0.1\": [\"{A}:4242\"]}}
lighthouse:\n  {lighthouse}
listen: {{host: 0.0.0.0, port: 4242, read_buffer: 4194304, write_buffer: 4194304}}
tun: {{dev: bneb{n}, mtu: 1400, tx_queue: 500}}
firewall: {{outbound: [{{port: any, proto: any, host: any}}], inbound: [{{port: any, proto: any, host: any}}]}}
",
            path("ca.crt"),
            path(&format!("{name}.crt")),
            path(&format!("{name}.key")),
        );
        let config = write(place, &format!("{name}.yml"), &config)?;
        programs.push(start(namespace, place, &name, &binary.display().to_string(), &["-config", &config])?);
    }
    Ok(Running { programs, relay: None, target: "10.79.0.2".to_owned() })
}

fn tinc(place: &Place, binary: &std::path::Path) -> Result<Running> {
    let mut programs = Vec::new();
    let folders = [0, 1].map(|n| place.folder().join(format!("t{n}")));
    for (n, folder) in folders.iter().enumerate() {
        fs::create_dir_all(folder.join("hosts"))?;
        let connect = if n == 1 { "ConnectTo = t0\n" } else { "" };
        write(place, &format!("t{n}/tinc.conf"), &format!("Name = t{n}\n{connect}Interface = btinc{n}\n"))?;
        let address = if n == 0 { A } else { B };
        let host = format!("Address = {address}\nSubnet = 10.80.0.{}/32\nPort = 655\n", n + 1);
        write(place, &format!("t{n}/hosts/t{n}"), &host)?;
        let up =
            format!("#!/bin/sh\nip addr add 10.80.0.{}/24 dev $INTERFACE\nip link set $INTERFACE up mtu 1400\n", n + 1);
        let script = write(place, &format!("t{n}/tinc-up"), &up)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        run(Command::new(binary).args(["-K2048", "-c"]).arg(folder).stdin(Stdio::null()))?;
    }
    for n in 0..2 {
        fs::copy(folders[n].join(format!("hosts/t{n}")), folders[1 - n].join(format!("hosts/t{n}")))?;
    }
    for (n, namespace) in [&place.a, &place.b].into_iter().enumerate() {
        let (folder, pid) = (folders[n].display().to_string(), format!("--pidfile={}/pid", folders[n].display()));
        programs.push(start(
            namespace,
            place,
            &format!("tinc{n}"),
            &binary.display().to_string(),
            &["-D", "-c", &folder, &pid],
        )?);
    }
    Ok(Running { programs, relay: None, target: "10.80.0.2".to_owned() })
}

fn openvpn(place: &Place, binary: &std::path::Path) -> Result<Running> {
    let key = place.folder().join("static.key").display().to_string();
    run(Command::new(binary).args(["--genkey", "secret", &key]))?;
    let mut programs = Vec::new();
    for (n, (namespace, far)) in [(&place.a, B), (&place.b, A)].into_iter().enumerate() {
        let [own, peer] = [format!("10.81.0.{}", n + 1), format!("10.81.0.{}", 2 - n)];
        let device = format!("bovpn{n}");
        let args = [
            "--dev",
            &device,
            "--dev-type",
            "tun",
            "--remote",
            far,
            "--proto",
            "udp",
            "--ifconfig",
            &own,
            &peer,
            "--secret",
            &key,
            "--cipher",
            "AES-256-CBC",
            "--tun-mtu",
            "1400",
            "--sndbuf",
            "4194304",
            "--rcvbuf",
            "4194304",
        ];
        programs.push(start(namespace, place, &device, &binary.display().to_string(), &args)?);
    }
    Ok(Running { programs, relay: None, target: "10.81.0.2".to_owned() })
}

/// Debian's, of 2018. By itself it stays in the foreground.
fn n2n(place: &Place, binary: &std::path::Path) -> Result<Running> {
    let supernode = installed("supernode", "N2N_SUPERNODE").context("n2n's supernode is not there")?;
    let mut programs = vec![start(&place.rv, place, "supernode", &supernode.display().to_string(), &["-l", "7654"])?];
    let node = format!("{RENDEZVOUS}:7654");
    for (n, namespace) in [&place.a, &place.b].into_iter().enumerate() {
        let (device, address) = (format!("bn2n{n}"), format!("10.82.0.{}", n + 1));
        let args = ["-d", &device, "-a", &address, "-s", "255.255.255.0", "-c", "bench", "-k", "key", "-l", &node];
        programs.push(start(namespace, place, &device, &binary.display().to_string(), &args)?);
    }
    Ok(Running { programs, relay: None, target: "10.82.0.2".to_owned() })
}

/// Its own `--ip` gives the interface a wrong address when it is built by a current compiler, and without a default
/// route it does not start.
fn vpncloud(place: &Place, binary: &std::path::Path) -> Result<Running> {
    let mut programs = Vec::new();
    for (n, (namespace, far)) in [(&place.a, B), (&place.b, A)].into_iter().enumerate() {
        namespace.ip(&format!("route replace default via {far}"))?;
        let (device, address) = (format!("bvpnc{n}"), format!("10.83.0.{}", n + 1));
        let (claim, far) = (format!("{address}/32"), format!("{far}:3210"));
        let up = format!("ip addr add {address}/24 dev {device} && ip link set {device} up");
        let args = ["-t", "tun", "-m", "router", "-d", &device, "-l", "3210", "-c", &far, "-p", "bench"];
        let own = ["--ifup", &up, "--no-auto-claim", "--claim", &claim, "--no-port-forwarding"];
        programs.push(start(namespace, place, &device, &binary.display().to_string(), &[&args[..], &own].concat())?);
    }
    Ok(Running { programs, relay: None, target: "10.83.0.2".to_owned() })
}
