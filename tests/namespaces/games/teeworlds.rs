//! Teeworlds searches the LAN by a broadcast to 255.255.255.255, at eight ports, from a socket that is bound to
//! nothing: bound to an address (`bindaddr`) it takes no answer to a broadcast for one, on a real LAN neither.

use std::time::Duration;

use anyhow::Result;

use super::screen::{Screen, insist};
use super::{PATIENCE, PLAYED, Row, evening, room, worked};
use crate::lab::programs::{Peer, Program, await_true};

/// Where it is at 320 × 240.
const REFRESH: (u16, u16) = (225, 221);

#[test]
#[ignore = "renders without a graphics card; `scripts/test games` runs it"]
fn teeworlds_finds_a_friends_game_on_the_lan_and_is_played_for_half_a_minute() {
    evening(|evening| {
        let server = serve(&evening.alice).unwrap();
        let games = evening.guests.each_ref().map(|guest| Game::start(guest).unwrap());
        let found = games.each_ref().map(|game| worked(game.join(&server)));
        std::thread::sleep(PLAYED);
        let played = [0, 1].map(|n| found[n] && worked(games[n].chat(&server)) && !games[n].has_left(&server));
        let asks = "limited broadcast, UDP 8303 to 8310";
        Row { program: "Teeworlds 0.7", asks, socket: "unbound", found, played: Some(played) }.tell();
    });
}

fn serve(host: &Peer<'_>) -> Result<Program> {
    let folder = room(host.folder(), "teeworlds")?;
    let mut command = host.host.netns.command("/usr/games/teeworlds-server");
    command.env("HOME", &folder).args(["sv_name friday", "sv_register 0", "sv_map dm1"]);
    let server = Program::start(command, folder.join("log"))?;
    await_true("Teeworlds to serve", PATIENCE, || Ok(server.said().contains("server name is")))?;
    Ok(server)
}

/// A guest before the screen.
struct Game<'a> {
    screen: Screen<'a>,
    /// What the server sees it come from.
    from: String,
    name: String,
    _program: Program,
}

impl<'a> Game<'a> {
    fn start(guest: &'a Peer<'_>) -> Result<Self> {
        let folder = room(guest.folder(), "teeworlds")?;
        let screen = Screen::start(&guest.host.netns, &folder, "320x240")?;
        let mut command = screen.command("/usr/games/teeworlds");
        command.env("HOME", &folder).args(
            "gfx_fullscreen 0;gfx_borderless 1;gfx_screen_width 320;gfx_screen_height 240;gfx_limitfps 1;gfx_maxfps 10;\
             gfx_high_detail 0;snd_enable 0;ui_browser_page 6;cl_skip_start_menu 1;cl_show_welcome 0;debug 1"
                .split(';'),
        );
        command.arg(format!("player_name {}", guest.name));
        let program = Program::start(command, folder.join("log"))?;
        await_true("Teeworlds to look round", PATIENCE, || Ok(program.said().contains("broadcasting for servers")))?;
        Ok(Self { screen, from: format!("addr={}:", guest.address), name: guest.name.clone(), _program: program })
    }

    /// Into the first game of the list.
    fn join(&self, server: &Program) -> Result<()> {
        let join = || {
            self.screen.click(REFRESH)?;
            std::thread::sleep(Duration::from_secs(2));
            ["Down", "Return"].into_iter().try_for_each(|key| self.screen.key(key))
        };
        let heard = |what: &str, who: &str| server.said().lines().any(|line| line.contains(what) && line.contains(who));
        let entered = || heard("entered the game", &self.from) && heard("team_join", &format!(":{}'", self.name));
        insist("to join the game", Duration::from_secs(6), join, entered)
    }

    fn chat(&self, server: &Program) -> Result<()> {
        let chat = || {
            self.screen.key("t")?;
            self.screen.write("hello")?;
            self.screen.key("Return")
        };
        let heard = format!("{}: hello", self.name);
        insist("to be heard in the game", Duration::from_secs(4), chat, || server.said().contains(&heard))
    }

    fn has_left(&self, server: &Program) -> bool {
        server.said().lines().any(|line| line.contains("leave player") && line.contains(&self.name))
    }
}
