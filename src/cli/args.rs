//! What was typed. Nothing here does anything, or looks at the machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};
use ipnet::Ipv4Net;

use crate::config::{self, DEFAULT_FILE};
#[cfg(target_os = "linux")]
use crate::lab::{Gateway, NoSuchSite, SitePlan};
use crate::node::{AddressChoice, RendezvousConfig};

/// A virtual LAN for friends and their games.
///
/// Every machine that has the network's key appears on one private network, end-to-end encrypted, over the
/// most direct path that the routers between them allow. No account, no port forwarding.
#[derive(Debug, Parser)]
#[command(name = "punchlan", version, arg_required_else_help = true, subcommand_required = true, after_help = FIRST_STEPS)]
pub struct Args {
    /// Say more on stderr: -v what happens, -vv everything (or set PUNCHLAN_LOG)
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 100)]
    pub verbose: u8,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  punchlan init --rendezvous play.example.org    make a network, in the file net.toml;
                                                 somebody runs `punchlan rendezvous` there
  sudo punchlan up                               start it here
  punchlan invite                                a link for your friends, who type:
      punchlan join 'punchlan://join?…'
      sudo punchlan up

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not permitted,
4 no such peer or nothing running";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new network: a net.toml with a fresh secret key
    #[command(
        after_help = "Examples:\n  punchlan init --rendezvous play.example.org\n  punchlan init --rendezvous play.example.org --rendezvous wss://play.example.org/punchlan\n  punchlan init friday.toml --network friday --subnet 10.77.0.0/24 --name alice --address 10.77.0.1"
    )]
    Init(Init),
    /// Print the link (and its QR code) that lets a friend in
    #[command(
        after_help = "The link contains the network's secret key: whoever has it is a member. Send it\nto friends, not to a forum.\n\nExamples:\n  punchlan invite\n  punchlan invite friday/net.toml --plain\n  punchlan invite --out invite.txt        a file that only you can read"
    )]
    Invite(Invite),
    /// Write a net.toml from a friend's invite
    #[command(
        after_help = "A link that is typed here can be seen by other users of this machine while the\ncommand runs, and stays in the shell's history. To keep it from both, save it in\na file, or type `punchlan join -` and paste it then.\n\nExamples:\n  punchlan join 'punchlan://join?name=…'   (the quotation marks matter)\n  punchlan join invite.txt\n  punchlan join -                          then paste the link, and press Enter and Ctrl-D"
    )]
    Join(Join),
    /// Run the peer in the foreground until Ctrl-C or `punchlan down`
    #[command(
        after_help = "Needs root, because it makes a network interface. To have it in the background, from\nthe machine's start: conf/punchlan@.service, for systemd.\n\nAsks this machine's router to send on what arrives for it (PCP, NAT-PMP or UPnP), so\nthat everybody reaches it directly, and gives that back at the end. Without:\n`port_mapping = false` under [peer] in the file.\n\nPrograms here know the members by name (bob.friday.internal, bob) meanwhile, by\nsystemd-resolved or /etc/hosts. Without: `enabled = false` under [dns].\n\nExamples:\n  sudo punchlan up\n  sudo punchlan up friday.toml\n  sudo punchlan -v up                      and say what happens"
    )]
    Up(Up),
    /// End a running peer; returns when its interface is gone
    #[command(
        after_help = "Examples:\n  sudo punchlan down\n  sudo punchlan down --network friday      when several networks are up here"
    )]
    Down(Select),
    /// Show who is here, and how they are reached
    #[command(
        after_help = "Examples:\n  punchlan status\n  punchlan status --watch\n  punchlan status --json | jq '.peers[] | {name, state}'"
    )]
    Status(Status),
    /// Ping a peer over the overlay, showing the path that each reply took
    #[command(
        after_help = "Examples:\n  punchlan ping bob\n  punchlan ping 10.77.0.2 -c 10\n\nExit code 1 if no reply came at all, 4 if nobody has this name or address."
    )]
    Ping(Ping),
    /// Say why a peer is reached as it is, and what would help
    #[command(after_help = "Examples:\n  punchlan why bob\n  punchlan why 10.77.0.2 --json | jq .cause")]
    Why(Why),
    /// Find out what stands in the way of games on this LAN, and who offers one
    #[command(
        after_help = "A doctor for play: the interface and its routes, where broadcasts leave, the firewall (read, never\nchanged; that takes root), a broadcast and back to every member who is here, and which games\nand machines are heard, here, at the members and on your real LAN: Minecraft, Source, Quake,\nTeeworlds, OpenTTD, SSDP, mDNS. Whatever is found ends in what to do.\n\nExamples:\n  sudo punchlan games\n  punchlan games --seconds 20              listen for longer\n  punchlan games --json | jq .findings\n\nExit code 1 if members are here and nobody answers what is sent to all, 4 if nothing runs."
    )]
    Games(Games),
    /// Find out what the router here does to UDP, and what that means for play
    #[command(
        after_help = "Needs no root and no running peer. Asks the rendezvous of net.toml, or those that are named\n(any STUN server can be asked), and the router for what ports it maps. A rendezvous that\nlistens on two ports tells most strict routers from others, one with two addresses all:\n`punchlan rendezvous --listen 3478 --listen 3479`, and conf/rendezvous.toml.\n\nExamples:\n  punchlan netcheck\n  punchlan netcheck friday.toml --json | jq .nat\n  punchlan netcheck --rendezvous play.example.org --stun 198.51.100.7:3478\n  punchlan netcheck --lifetime             and how long a way stays open: up to 5 minutes\n\nExit code 1 if nobody answered at all."
    )]
    Netcheck(Netcheck),
    /// Try it on every kind of router: an internet of network namespaces in this machine, as root
    #[cfg(target_os = "linux")]
    #[command(
        after_help = "Builds routers of all kinds in network namespaces, verifies that each does what its name\nsays, starts a rendezvous and two peers behind each pair of them, and prints how they\nreach each other, with the seconds until the first ping was answered / until pings\nwent directly: the median, of several runs. Nothing leaves this machine, and nothing stays\nbehind. A pair takes 2 seconds, one that is relayed 5, with short-mappings 30.\n\nExamples:\n  sudo punchlan lab                        five kinds, 15 pairs, half a minute\n  sudo punchlan lab --gateways masquerade,symmetric-random,public+ipv6 --runs 5\n  sudo punchlan lab --gateways masquerade --rendezvous-delay 200\n  sudo punchlan lab --all --jobs 2 --svg matrix.svg    231 pairs, a quarter of an hour\n  sudo punchlan lab --json | jq .summary\n  punchlan lab --list\n\nExit code 1 if a pair has no connection, or a router does not do what its name says."
    )]
    Lab(Lab),
    /// Run a rendezvous: where members meet, and their relay where no direct path can be had
    #[command(
        after_help = "For a machine that others can reach: a small server, or one at home whose router\nforwards port 3478, UDP and TCP. It needs no root, no account and no database, and cannot\nread what members send each other.\n\nExamples:\n  punchlan rendezvous\n  punchlan rendezvous --listen 0.0.0.0:4000\n  punchlan rendezvous --listen 3478 --listen 3479    a second port, for `punchlan netcheck`"
    )]
    Rendezvous(RendezvousArgs),
    /// Have a running peer read its net.toml again
    #[command(
        after_help = "What changes at once: the rendezvous, the devices that are denied, the names of network\nand machine, the switches under [peer], [relay], [lan], and what is logged. The rest is named,\nand takes effect at the next start. A file with a mistake changes nothing. SIGHUP to\n`punchlan up` does the same.\n\nExample:\n  sudo punchlan reload"
    )]
    Reload(Select),
    /// Free the address and the name of a member who is gone
    #[command(
        after_help = "Without it they are kept for a member for 7 days.\n\nExamples:\n  sudo punchlan forget bob\n  sudo punchlan forget 10.77.0.2"
    )]
    Forget(Forget),
    /// Print what completes the command line in a shell
    #[command(
        after_help = "Examples:\n  source <(punchlan completions bash)      in this shell; in ~/.bashrc, in all\n  punchlan completions fish > ~/.config/fish/completions/punchlan.fish"
    )]
    Completions(Completions),
    /// Print the manual page
    #[command(
        after_help = "Examples:\n  punchlan man | man -l -\n  punchlan man | sudo install -D -m 644 /dev/stdin /usr/local/share/man/man1/punchlan.1"
    )]
    Man,
}

/// `punchlan init`
#[derive(Debug, clap::Args)]
pub struct Init {
    /// File to write; never overwritten
    #[arg(value_name = "FILE", default_value = DEFAULT_FILE)]
    pub file: PathBuf,
    /// Where members meet; may be given several times
    #[arg(long, value_name = "HOST[:PORT]", value_parser = rendezvous)]
    pub rendezvous: Vec<RendezvousConfig>,
    /// What the network is called: a-z, 0-9 and -
    #[arg(long, value_name = "NAME", value_parser = name, default_value = config::DEFAULT_NETWORK)]
    pub network: String,
    /// The network's IPv4 addresses; left out, a range that is free on this machine
    #[arg(long, value_name = "CIDR", value_parser = subnet)]
    pub subnet: Option<Ipv4Net>,
    /// What this machine is called; left out, its host name
    #[arg(long, value_name = "ME", value_parser = name)]
    pub name: Option<String>,
    /// This machine's address in the network; left out, one that nobody else has
    #[arg(long, value_name = "IP", value_parser = address, default_value = "auto", hide_default_value = true)]
    pub address: AddressChoice,
}

/// `punchlan invite`
#[derive(Debug, clap::Args)]
pub struct Invite {
    /// The network's file
    #[arg(value_name = "FILE", default_value = DEFAULT_FILE)]
    pub file: PathBuf,
    /// Print the link alone
    #[arg(long)]
    pub plain: bool,
    /// Write the link into a new file that only you can read
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `punchlan join`
#[derive(clap::Args)]
pub struct Join {
    /// The link in 'single quotes', a file that contains it, or - to read it from stdin
    #[arg(value_name = "LINK|FILE|-")]
    pub link: String,
    /// File to write; never overwritten
    #[arg(value_name = "FILE", default_value = DEFAULT_FILE)]
    pub file: PathBuf,
}

/// The link is a secret.
impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("file", &self.file).finish_non_exhaustive()
    }
}

/// `punchlan up`
#[derive(Debug, clap::Args)]
pub struct Up {
    /// The network's file [default: net.toml]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Which of the networks that are up here.
#[derive(Debug, clap::Args)]
pub struct Select {
    /// Which network, if several are up here: its name, or the beginning of its id
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
}

/// `punchlan status`
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Everything, for programs
    #[arg(long)]
    pub json: bool,
    /// Show it anew every second until Ctrl-C; with --json, a line each time
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented at its type")]
    pub select: Select,
}

/// `punchlan ping`
#[derive(Debug, clap::Args)]
pub struct Ping {
    /// A peer's name or address
    #[arg(value_name = "PEER")]
    pub peer: String,
    /// How many pings
    #[arg(short = 'c', short_alias = 'n', long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented at its type")]
    pub select: Select,
}

/// `punchlan why`
#[derive(Debug, clap::Args)]
pub struct Why {
    /// A peer's name or address
    #[arg(value_name = "PEER")]
    pub peer: String,
    /// For programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented at its type")]
    pub select: Select,
}

/// `punchlan games`
#[derive(Debug, clap::Args)]
pub struct Games {
    /// For how long to listen for games; 0 for not at all
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub seconds: u64,
    /// For programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented at its type")]
    pub select: Select,
}

/// `punchlan netcheck`
#[derive(Debug, clap::Args)]
pub struct Netcheck {
    /// The network's file, whose rendezvous are asked [default: net.toml, if no server is named]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A rendezvous to ask; may be given several times
    #[arg(long, value_name = "HOST[:PORT]", value_parser = by_udp)]
    pub rendezvous: Vec<RendezvousConfig>,
    /// A STUN server to ask; may be given several times
    #[arg(long, value_name = "HOST[:PORT]", value_parser = by_udp)]
    pub stun: Vec<RendezvousConfig>,
    /// Print it for programs
    #[arg(long)]
    pub json: bool,
    /// Find out how long a way stays open in silence, too; takes up to 5 minutes
    #[arg(long)]
    pub lifetime: bool,
}

/// `punchlan lab`
#[cfg(target_os = "linux")]
#[derive(Debug, clap::Args)]
pub struct Lab {
    /// List the kinds of routers
    #[arg(long)]
    pub list: bool,
    /// These routers, each with each: names of --list, with +ipv6 behind a name for IPv6 beside IPv4
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = site)]
    pub gateways: Vec<SitePlan>,
    /// All kinds of routers
    #[arg(long, conflicts_with = "gateways")]
    pub all: bool,
    /// How often each pair meets
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub runs: u16,
    /// How many pairs at a time; a busy machine makes times longer
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
    /// Print it for programs
    #[arg(long)]
    pub json: bool,
    /// Draw it into a file, too
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// How much longer packets from the rendezvous take, as if it were far away
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=2000))]
    pub rendezvous_delay: u64,
    /// Verify the routers alone, no pairs
    #[arg(long)]
    pub check: bool,
}

/// `punchlan forget`
#[derive(Debug, clap::Args)]
pub struct Forget {
    /// The member's name, as `punchlan status` shows it, or its address
    #[arg(value_name = "NAME|ADDRESS")]
    pub name: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented at its type")]
    pub select: Select,
}

/// `punchlan completions`
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// For which shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `punchlan rendezvous`
#[derive(Debug, clap::Args)]
pub struct RendezvousArgs {
    /// Address to listen on by UDP and TCP, port 0 for any; may be given several times [default: port 3478 of every address]
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    pub listen: Vec<SocketAddr>,
    /// A rendezvous.toml with limits (an example is in conf/)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

fn name(text: &str) -> Result<String, String> {
    match config::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "a name has 1 to 32 of the characters a-z, 0-9 and -; for example: {}",
            config::name_from(text)
        )),
    }
}

fn subnet(text: &str) -> Result<Ipv4Net, String> {
    config::parse_subnet(text).map_err(|(what, help)| format!("{what}; {}", help.replace("subnet = ", "")))
}

fn rendezvous(text: &str) -> Result<RendezvousConfig, String> {
    config::parse_rendezvous(text).map_err(|(what, help)| format!("{what}; {help}"))
}

/// One that is asked what it sees of us.
fn by_udp(text: &str) -> Result<RendezvousConfig, String> {
    rendezvous(text).and_then(|server| match server.udp {
        true => Ok(server),
        false => Err(format!("it is asked by UDP: \"{}\", say", RendezvousConfig::plain(server.host, 3478).text())),
    })
}

fn address(text: &str) -> Result<AddressChoice, String> {
    match text {
        "auto" => Ok(AddressChoice::Auto),
        _ => text
            .parse::<Ipv4Addr>()
            .map(AddressChoice::Configured)
            .map_err(|_| "an IPv4 address, as 10.77.0.1, or auto".into()),
    }
}

#[cfg(target_os = "linux")]
fn site(text: &str) -> Result<SitePlan, String> {
    text.parse().map_err(|error: NoSuchSite| {
        let near = config::names::nearest(text, Gateway::ALL.into_iter().map(Gateway::name));
        let help = match (&error, near) {
            _ if text.is_empty() => "; `punchlan lab --list` shows all".to_owned(),
            (NoSuchSite::Unknown(_), Some(near)) => format!("; did you mean `{near}`?"),
            (NoSuchSite::Unknown(_), None) => "; `punchlan lab --list` shows all".to_owned(),
            _ => String::new(),
        };
        format!("{error}{help}")
    })
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    config::parse_listen(text).map_err(|(what, help)| format!("{what}; {help}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together_and_every_command_has_an_example() {
        let mut args = Args::command();
        args.clone().debug_assert();
        for command in args.get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example") && help.contains("punchlan"), "{help}");
            // What is longer is wrapped, and cannot be copied into a shell.
            let examples = command.get_after_help().expect("examples").to_string();
            assert!(examples.lines().all(|line| line.chars().count() <= 100), "{examples}");
        }
    }

    #[test]
    fn the_service_in_conf_starts_a_rendezvous() {
        let unit = include_str!("../../conf/punchlan-rendezvous.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("it starts something");
        let args = Args::try_parse_from(line.split_whitespace()).expect("understood");
        assert!(matches!(args.command, Command::Rendezvous(RendezvousArgs { config: Some(_), .. })));
    }

    #[test]
    fn a_link_is_not_in_debug() {
        let args = Args::try_parse_from(["punchlan", "join", "punchlan://join?key=plk1-secret"]).expect("understood");
        assert!(!format!("{args:?}").contains("secret"));
    }
}
