//! OpenTTD searches the LAN by a broadcast to each interface's subnet, from a socket that is bound to nothing. What is
//! clicked on is where OpenTTD 13 draws it at 640 × 480.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::screen::{Screen, insist};
use super::{Evening, GUESTS, PATIENCE, PLAYED, Row, homes, room, worked};
use crate::lab::netns::Namespace;
use crate::lab::programs::{Network, Peer, Program, await_true};
use crate::turn;

const OPENTTD: &str = "/usr/games/openttd";
const MULTIPLAYER: (u16, u16) = (398, 187);
const SEARCH_LAN: (u16, u16) = (190, 462);
const FIRST_GAME: (u16, u16) = (90, 62);
const JOIN_GAME: (u16, u16) = (460, 438);
const NEW_COMPANY: (u16, u16) = (196, 127);

#[test]
fn openttd_finds_a_friends_game_on_the_lan_and_is_played_for_half_a_minute() {
    let _turn = turn();
    let lab = homes().unwrap();
    let network = Network::start(&lab).unwrap();
    let game = |n: usize| Game::start(&lab.host(n + 1).netns, &network.folder().join(GUESTS[n]), GUESTS[n]).unwrap();
    // It looks for its networks when it starts: these know the real LAN alone.
    let early = [0, 1].map(game);
    let evening = Evening::start(&lab, &network).unwrap();
    let server = serve(&evening.alice).unwrap();
    let found = early.each_ref().map(|game| worked(game.search(&evening.alice)));
    drop(early);
    let asks = "subnet broadcast of the real LAN, UDP 3979";
    Row { program: "OpenTTD 13, started before punchlan", asks, socket: "unbound", found, played: None }.tell();

    let games = [0, 1].map(game);
    let found = games.each_ref().map(|game| worked(game.search(&evening.alice)));
    let joined = [0, 1].map(|n| found[n] && worked(games[n].join(&server, GUESTS[n])));
    let before = games.each_ref().map(Game::frames);
    std::thread::sleep(PLAYED);
    let stayed = !server.said().contains("has left the game");
    let played = [0, 1].map(|n| joined[n] && stayed && games[n].frames() > before[n] + 100);
    let asks = "subnet broadcast of each interface, UDP 3979";
    Row { program: "OpenTTD 13", asks, socket: "unbound", found, played: Some(played) }.tell();
    evening.await_ways().unwrap();
}

/// A game for all who find it.
fn serve(host: &Peer<'_>) -> Result<Program> {
    let folder = configured(host.folder(), &host.name)?;
    let mut command = with_its_own(host.host.netns.command(OPENTTD), &folder);
    command.arg("-D");
    let server = Program::start(command, folder.join("log"))?;
    await_true("OpenTTD's map", PATIENCE, || Ok(server.said().contains("Map generated, starting game")))?;
    Ok(server)
}

/// A guest before the screen.
struct Game<'a> {
    screen: Screen<'a>,
    program: Program,
}

impl<'a> Game<'a> {
    fn start(machine: &'a Namespace, folder: &Path, name: &str) -> Result<Self> {
        let folder = configured(folder, name)?;
        let screen = Screen::start(machine, &folder, "640x480")?;
        let mut command = with_its_own(screen.command(OPENTTD), &folder);
        command.args(["-v", "sdl", "-r", "640x480", "-f"]);
        let program = Program::start(command, folder.join("log"))?;
        await_true("OpenTTD's start", PATIENCE, || Ok(program.said().contains("Detected broadcast addresses")))?;
        Ok(Self { screen, program })
    }

    fn search(&self, host: &Peer<'_>) -> Result<()> {
        let answer = format!("Server response from {}:3979", host.address);
        let search = || self.screen.click(MULTIPLAYER).and_then(|()| self.screen.click(SEARCH_LAN));
        insist("to find the game", Duration::from_secs(3), search, || self.program.said().contains(&answer))
    }

    /// Joins as a spectator, and founds a company: what the server says of it has come there and back.
    fn join(&self, server: &Program, name: &str) -> Result<()> {
        let heard = |what: &str| server.said().contains(&format!("{name} has {what}"));
        let join = || self.screen.click(FIRST_GAME).and_then(|()| self.screen.click(JOIN_GAME));
        insist("to join the game", Duration::from_secs(8), join, || heard("joined the game"))?;
        let found = || self.screen.click(NEW_COMPANY);
        insist("to found a company", Duration::from_secs(4), found, || heard("started a new company"))
    }

    fn frames(&self) -> usize {
        self.program.said().matches("Received FRAME").count()
    }
}

/// The folder of its files.
fn configured(folder: &Path, name: &str) -> Result<PathBuf> {
    let folder = room(folder, "openttd")?;
    let network = format!("[network]\nserver_name = friday\nserver_game_type = local\nclient_name = {name}\n");
    let small_map = "[game_creation]\nmap_x = 6\nmap_y = 6\n";
    fs::write(folder.join("openttd.cfg"), network + small_map)?;
    Ok(folder)
}

/// With files of its own, in which nothing is kept, no sound, and a log of its network.
fn with_its_own(mut command: Command, folder: &Path) -> Command {
    command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    command.arg("-c").arg(folder.join("openttd.cfg")).args(["-x", "-d", "net=7", "-s", "null", "-m", "null"]);
    command
}
