//! Programs that nobody here wrote find each other over the virtual LAN as they would on a real one, and are played with.
//!
//! ```text
//!                                         ┌── full cone ── bob, direct
//!   alice, who hosts ── symmetric ── core ┤
//!                                         └── symmetric ── carol, relayed
//! ```
//!
//! Each has a LAN and a default route of its own: there is where a socket that is bound to nothing sends. Every test
//! prints its rows of the README's table.
//!
//! - [`openttd`], [`teeworlds`]: games that search the LAN, with windows on a [`screen`], and are played for 30 s.
//! - [`mdns`], [`ssdp`], [`netbios`]: what systems and printers, routers, and Windows find each other by.
//! - [`minecraft`]: a game opened to the LAN, as Minecraft announces it.

#[path = "games/mdns.rs"]
mod mdns;
#[path = "games/minecraft.rs"]
mod minecraft;
#[path = "games/netbios.rs"]
mod netbios;
#[path = "games/openttd.rs"]
mod openttd;
#[path = "games/screen.rs"]
mod screen;
#[path = "games/ssdp.rs"]
mod ssdp;
#[path = "games/teeworlds.rs"]
mod teeworlds;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use punchlan::node::status::PeerState;

use crate::lab::programs::{Network, Peer};
use crate::lab::{Gateway, Lab};
use crate::turn;

/// For whatever a program does at its leisure.
const PATIENCE: Duration = Duration::from_secs(60);
/// The promise.
const PLAYED: Duration = Duration::from_secs(30);

const GUESTS: [&str; 2] = ["bob", "carol"];

/// Three friends.
struct Evening<'a> {
    /// Who hosts.
    alice: Peer<'a>,
    /// Whose way to her is direct, and whose is relayed.
    guests: [Peer<'a>; 2],
}

/// Has the friends together, and then does something with them.
fn evening(what: impl FnOnce(&Evening<'_>)) {
    let _turn = turn();
    let lab = homes().unwrap();
    let network = Network::start(&lab).unwrap();
    let evening = Evening::start(&lab, &network).unwrap();
    what(&evening);
    evening.await_ways().unwrap();
}

/// Where they are, without punchlan.
fn homes() -> Result<Lab> {
    let lab = Lab::new(&[Gateway::Symmetric, Gateway::FullCone, Gateway::Symmetric])?;
    // None of what these programs would ask of the Internet is there.
    lab.sites.iter().try_for_each(|site| site.hosts[0].netns.set_hosts(""))?;
    Ok(lab)
}

impl<'a> Evening<'a> {
    fn start(lab: &'a Lab, network: &Network) -> Result<Self> {
        let up = |site, name| network.up(lab.host(site), name, u8::try_from(site + 1)?);
        let evening = Self { alice: up(0, "alice")?, guests: [up(1, GUESTS[0])?, up(2, GUESTS[1])?] };
        evening.await_ways()?;
        Ok(evening)
    }

    fn await_ways(&self) -> Result<()> {
        for (guest, state) in self.guests.iter().zip([PeerState::Direct, PeerState::Relayed]) {
            guest.await_peer("alice", state, PATIENCE)?;
            self.alice.await_peer(&guest.name, state, PATIENCE)?;
        }
        Ok(())
    }
}

/// A row of the table: who looked for what, and whether the guest whose way is direct and the one whose way is relayed
/// found it.
struct Row {
    program: &'static str,
    /// What it asks, and whom.
    asks: &'static str,
    /// What the socket is bound to that it asks from.
    socket: &'static str,
    found: [bool; 2],
    /// Whether they then joined, and played for half a minute; `None`: there is nothing to play.
    played: Option<[bool; 2]>,
}

impl Row {
    /// Prints it, and fails unless both had what they wanted.
    fn tell(self) {
        let Self { program, asks, socket, found, played } = self;
        let both = |[direct, relayed]: [bool; 2]| match (direct, relayed) {
            (true, true) => "both",
            (true, false) => "the direct one",
            (false, true) => "the relayed one",
            (false, false) => "neither",
        };
        let and_played = played.map_or("", both);
        println!("\n| {program} | {asks} | {socket} | {} | {and_played} |", both(found));
        assert_eq!((found, played.unwrap_or([true; 2])), ([true; 2], [true; 2]), "{program}: {asks}, {socket}");
    }
}

/// Whether it worked; if not, says why not.
fn worked<T>(result: Result<T>) -> bool {
    result.inspect_err(|error| println!("{error:#}")).is_ok()
}

/// The overlay's interface of a peer.
fn interface(peer: &Peer<'_>) -> Result<String> {
    peer.status()?.network.interface.context("it has one")
}

/// A folder for what a program leaves.
fn room(folder: &Path, program: &str) -> Result<PathBuf> {
    let folder = folder.join(program);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Whether a program ends well and says this within its time.
fn says(command: &mut Command, wanted: &str) -> Result<bool> {
    let output = command.output()?;
    Ok(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(wanted))
}
