//! A rendezvous behind a web server that others run: nginx, as the README says to set it up.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use punchlan::node::status::{PeerState, RendezvousState};

use crate::blocked::{PATIENCE, all_passes, certificate, registered_by};
use crate::lab::netns::Namespace;
use crate::lab::programs::{Network, Program, await_true};
use crate::lab::{Gateway, Lab, RENDEZVOUS};
use crate::turn;

/// Connections from one address, at most: who all came as the proxy would be one too many.
const RENDEZVOUS_TOML: &str = "listen = [\"0.0.0.0:3478\"]\n[websocket]\nlisten = [\"127.0.0.1:8080\"]\n\
    [limits]\nstreams_per_prefix = 1\n";

/// What the README shows of nginx's configuration, word for word.
fn of_readme() -> &'static str {
    let (_, shown) = include_str!("../../README.md").split_once("For nginx:\n\n```\n").expect("it is shown");
    shown.split_once("```").expect("it ends").0
}

/// nginx at work, with TLS on port 443.
#[derive(Debug)]
struct Nginx<'a> {
    machine: &'a Namespace,
    folder: PathBuf,
    program: Program,
}

impl<'a> Nginx<'a> {
    fn start(machine: &'a Namespace, network: &Network) -> Result<Self> {
        let folder = network.folder().join("nginx");
        fs::create_dir(&folder)?;
        let [certificate, key] = certificate(network);
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary.map(|what| format!("{what}_temp_path {what};\n")).concat();
        fs::write(
            folder.join("nginx.conf"),
            format!(
                "daemon off;\npid pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
                 server {{\nlisten 443 ssl;\nssl_certificate {certificate:?};\nssl_certificate_key {key:?};\n{}}}\n}}\n",
                of_readme()
            ),
        )?;
        let program = Self::run(machine, &folder)?;
        Ok(Self { machine, folder, program })
    }

    fn run(machine: &Namespace, folder: &PathBuf) -> Result<Program> {
        let mut command = machine.command("nginx");
        command.arg("-p").arg(folder).args(["-e", "stderr", "-c", "nginx.conf"]);
        let program = Program::start(command, folder.join("log"))?;
        let listens = || machine.enter(|| std::net::TcpStream::connect((RENDEZVOUS, 443)).is_ok());
        await_true("nginx to listen", Duration::from_secs(5), listens)?;
        Ok(program)
    }

    /// Reads its configuration again, as after a change of it: new workers, and the old ones until nobody needs them.
    fn reload(&self) -> Result<()> {
        Ok(kill(self.program.pid(), Signal::SIGHUP)?)
    }

    /// Ends with all of its connections, and is there again.
    fn restart(&mut self) -> Result<()> {
        self.program.end(Signal::SIGTERM)?;
        self.program = Self::run(self.machine, &self.folder)?;
        Ok(())
    }
}

impl Drop for Nginx<'_> {
    fn drop(&mut self) {
        // Killed, it would leave its workers behind.
        let _ = self.program.end(Signal::SIGTERM);
    }
}

#[test]
fn behind_nginx_set_up_as_the_readme_says_all_passes_and_its_restarts_are_survived() {
    let _turn = turn();
    let lab = Lab::new(&[Gateway::Tcp443Only, Gateway::Public, Gateway::Tcp443Only]).unwrap();
    let mut network = Network::without_rendezvous().unwrap();
    let _rendezvous = network.serve_as(&lab.rendezvous, "rendezvous", RENDEZVOUS_TOML).unwrap();
    let mut nginx = Nginx::start(&lab.rendezvous, &network).unwrap();
    network.trust = Some(certificate(&network)[0].clone());
    network.servers = vec![format!("{RENDEZVOUS}:3478"), format!("wss://{RENDEZVOUS}/punchlan")];
    let alice = network.up(lab.host(0), "alice", 1).unwrap();
    let bob = network.up(lab.host(1), "bob", 2).unwrap();
    all_passes(&alice, &bob, PeerState::Relayed, "tls");

    let carol = network.up(lab.host(2), "carol", 3).unwrap();
    carol.await_status("a second registration through nginx", PATIENCE, registered_by("tls")).unwrap();
    alice.await_peer("carol", PeerState::Relayed, PATIENCE).unwrap();

    let mut pings = alice.start_pings(bob.address).unwrap();
    pings.first_answer(PATIENCE).unwrap();
    nginx.reload().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let flaws = pings.end().unwrap();
    assert_eq!(flaws.lost, 0, "who was connected stays so: {flaws:?}");

    nginx.restart().unwrap();
    let mut pings = alice.start_pings(carol.address).unwrap();
    pings.first_answer(PATIENCE).unwrap();
    alice.await_status("its registration", PATIENCE, registered_by("tls")).unwrap();
    assert!(alice.status().unwrap().rendezvous.iter().all(|it| it.state == RendezvousState::Registered));
}
