//! mDNS by avahi, which asks and answers on each interface that it takes for one of a LAN.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{PATIENCE, Row, evening, interface, room, says, worked};
use crate::lab::programs::{Peer, Program, await_true};

const SERVICE: &str = "_minetest._udp";
const MDNS: &str = "mDNS, UDP 5353";
const SOCKET: &str = "one for each interface";

#[test]
fn avahi_finds_a_service_and_the_name_of_a_friends_machine() {
    evening(|evening| {
        let avahi = Avahi::start(&evening.alice).unwrap();
        let others = evening.guests.each_ref().map(|guest| Avahi::start(guest).unwrap());
        let mut publish = avahi.command("avahi-publish");
        publish.args(["-s", "friday night", SERVICE, "30000", "open to all"]);
        let _published = Program::start(publish, avahi.folder.join("publish")).unwrap();
        let address = evening.alice.address.to_string();
        // IPv6: whichever of her addresses there it names.
        for (family, address, asks) in [("IPv4", &*address, MDNS), ("IPv6", "f", "mDNS over IPv6, UDP 5353")] {
            let found = others.each_ref().map(|other| {
                let interface = interface(other.peer).unwrap();
                let service = format!("=;{interface};{family};friday\\032night;{SERVICE};local;alice.local;{address}");
                let mut browse = other.command("avahi-browse");
                browse.args(["--resolve", "--terminate", "--parsable", SERVICE]);
                worked(await_true("the service", PATIENCE, || says(&mut browse, &service)))
            });
            Row { program: "avahi 0.8, a service", asks, socket: SOCKET, found, played: None }.tell();
        }
        let found = others.each_ref().map(|other| {
            let mut resolve = other.command("avahi-resolve");
            resolve.args(["-4", "--name", "alice.local"]);
            worked(await_true("the name", PATIENCE, || says(&mut resolve, &address)))
        });
        let program = "avahi 0.8, alice.local";
        Row { program, asks: MDNS, socket: SOCKET, found, played: None }.tell();
    });
}

/// A machine's avahi, and the D-Bus over which its programs speak to it.
struct Avahi<'a> {
    peer: &'a Peer<'a>,
    folder: PathBuf,
    programs: Vec<Program>,
}

/// A bus on which everybody may do everything.
const BUS: &str = r#"<busconfig><listen>unix:path=/nowhere</listen><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
</policy></busconfig>"#;

/// Avahi keeps files in `/run`, each of these in one of its own.
const IN_ITS_OWN_RUN: &str =
    "mount -t tmpfs tmpfs /run && exec avahi-daemon --no-drop-root --no-chroot --no-rlimits -f $0";

impl<'a> Avahi<'a> {
    fn start(peer: &'a Peer<'a>) -> Result<Self> {
        let mut avahi = Self { peer, folder: room(peer.folder(), "avahi")?, programs: Vec::new() };
        let [bus, conf] = ["bus.conf", "avahi.conf"].map(|name| avahi.folder.join(name));
        fs::write(&bus, BUS)?;
        fs::write(&conf, format!("[server]\nhost-name={}\n[wide-area]\nenable-wide-area=no\n", peer.name))?;
        let mut dbus = avahi.command("dbus-daemon");
        dbus.arg("--config-file").arg(bus).args(["--nofork", "--nopidfile", "--address", &avahi.bus()]);
        avahi.programs.push(Program::start(dbus, avahi.folder.join("dbus"))?);
        await_true("D-Bus", PATIENCE, || Ok(avahi.folder.join("bus").exists()))?;
        let mut daemon = avahi.command("sh");
        daemon.args(["-c", IN_ITS_OWN_RUN]).arg(conf);
        let daemon = Program::start(daemon, avahi.folder.join("log"))?;
        await_true("avahi", PATIENCE, || Ok(daemon.said().contains("Server startup complete")))?;
        avahi.programs.push(daemon);
        Ok(avahi)
    }

    fn bus(&self) -> String {
        format!("unix:path={}", self.folder.join("bus").display())
    }

    /// A program that speaks to it.
    fn command(&self, program: &str) -> Command {
        let mut command = self.peer.host.netns.command(program);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", self.bus());
        command
    }
}
