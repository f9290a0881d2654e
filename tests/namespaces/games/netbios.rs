//! NetBIOS: Samba's nmbd has a name, and `nmblookup` asks everybody whose it is.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{PATIENCE, Row, evening, room, says, worked};
use crate::lab::programs::{Peer, Program, await_true};

#[test]
#[ignore = "of programs that few players have; `scripts/test games` runs it"]
fn nmblookup_finds_the_name_of_a_friends_machine() {
    evening(|evening| {
        let _nmbd = serve(&evening.alice).unwrap();
        let answer = format!("{} FRIDAY<00>", evening.alice.address);
        for (asks, to, is_bound) in [
            ("subnet broadcast, UDP 137", "10.77.0.255", false),
            ("limited broadcast, UDP 137", "255.255.255.255", false),
            ("limited broadcast, UDP 137", "255.255.255.255", true),
        ] {
            let finds = |guest: &Peer<'_>| {
                let mut lookup = lookup(guest)?;
                lookup.args(["-B", to]);
                if is_bound {
                    lookup.arg(format!("--option=nbt client socket address={}", guest.address));
                }
                await_true("the name", PATIENCE, || says(lookup.arg("FRIDAY"), &answer))
            };
            let found = evening.guests.each_ref().map(|guest| worked(finds(guest)));
            let socket = if is_bound { "bound to the overlay's address" } else { "unbound" };
            Row { program: "nmbd and nmblookup (NetBIOS)", asks, socket, found, played: None }.tell();
        }
    });
}

fn serve(host: &Peer<'_>) -> Result<Program> {
    let conf = configuration(host)?;
    let mut command = host.host.netns.command("nmbd");
    command.args(["--foreground", "--no-process-group", "--debug-stdout", "-s"]).arg(&conf);
    let nmbd = Program::start(command, conf.with_file_name("log"))?;
    let mut lookup = lookup(host)?;
    lookup.args(["-U", &host.address.to_string(), "FRIDAY"]);
    await_true("nmbd to have its name", PATIENCE, || says(&mut lookup, "FRIDAY<00>"))?;
    Ok(nmbd)
}

/// `nmblookup` as it is set up at a peer.
fn lookup(peer: &Peer<'_>) -> Result<Command> {
    let mut command = peer.host.netns.command("nmblookup");
    command.arg("-s").arg(configuration(peer)?);
    Ok(command)
}

/// Samba's configuration: everything that it keeps is in a folder of its own.
fn configuration(peer: &Peer<'_>) -> Result<PathBuf> {
    let folder = room(peer.folder(), "netbios")?;
    let own =
        ["pid directory", "lock directory", "state directory", "cache directory", "private dir", "nmbd:socket dir"];
    let own = own.map(|what| format!("{what} = {}\n", folder.join("nmbd").display())).concat();
    fs::write(folder.join("smb.conf"), format!("[global]\nnetbios name = FRIDAY\nworkgroup = LAB\n{own}"))?;
    Ok(folder.join("smb.conf"))
}
