//! `punchlan games`: a doctor for play on this LAN. What a game meets on its way to the others, and who is there to play.
//!
//! 1. The daemon says who is a member and what `[lan]` has in force.
//! 2. This machine: the interface, where packets to everybody leave, the firewall (read, not changed), who listens.
//! 3. Every member is asked by broadcast, by multicast and alone; and who offers a game is asked and listened to.
//! 4. What stands in the way is a [`findings::Finding`], each with what to do.

mod findings;
mod firewall;
mod json;
mod table;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::args::Games;
use super::daemons::select;
use super::{Failure, block_on, output};
use crate::io::doctor::ears::{self, Ears, Heard};
use crate::io::doctor::machine::{self, Machine};
use crate::io::doctor::round_trip::{self, By, Replies};
use crate::node::status::{Peer, PeerState, Status};
use crate::wire::discovery::Found;
use firewall::{Blocked, Packet};

/// Everything that was looked at.
struct Looked {
    status: Status,
    interface: String,
    machine: Machine,
    /// What keeps members out, or why that is not known.
    firewall: Result<Vec<Blocked>, String>,
    members: Vec<Member>,
    /// What could not be sent.
    unsent: Vec<(By, String)>,
    /// For how long games were listened for.
    seconds: u64,
    announced: Vec<Announced>,
    /// What could not be listened to.
    deaf: Vec<String>,
}

/// A member, and what it answered.
struct Member {
    peer: Peer,
    /// Milliseconds, of the ways that it answered.
    answered: BTreeMap<By, f64>,
}

/// Somebody who is there.
struct Announced {
    who: Who,
    found: Found,
    from: SocketAddr,
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Member(String),
    Here,
    /// On a LAN of this machine.
    Lan,
}

pub(super) fn run(args: &Games) -> Result<(), Failure> {
    let (json, select_args, seconds) = (args.json, &args.select, args.seconds);
    let looked = block_on(async { look(select(select_args).await?.status, seconds).await })?;
    let found = findings::of(&looked);
    output::answer(&if json { json::text(&looked, &found)? } else { table::text(&looked, &found) })?;
    match unheard(&looked) {
        true => Err(Failure::Failed("none of the members who are here answers what is sent to all of them".to_owned())),
        false => Ok(()),
    }
}

async fn look(status: Status, seconds: u64) -> Result<Looked, Failure> {
    let no_interface = || Failure::Failed("the daemon names no interface; is it another version?".to_owned());
    let interface = status.network.interface.clone().ok_or_else(no_interface)?;
    output::progress(&format!("asking the members, and listening for games for {} s", seconds.max(2)));
    let broadcast = status.network.subnet.broadcast();
    let here = my_v4(&status);
    let asked: Vec<IpAddr> = here_now(&status).filter_map(|peer| peer.addresses.first().copied()).collect();
    let listening = async {
        match seconds {
            0 => Ears::default(),
            _ => ears::listen(Duration::from_secs(seconds), here, broadcast).await,
        }
    };
    // Before there are sockets of our own to be seen.
    let machine = machine::look(&interface).await;
    let (replies, ears) = tokio::join!(round_trip::ask(broadcast, &asked), listening);
    let no_sockets = |error| Failure::Failed(format!("the system gives no sockets to ask by: {error}"));
    let Replies { replies, unsent } = replies.map_err(no_sockets)?;
    let firewall = machine.firewall.clone().and_then(|rules| blocked(&rules, &status, &interface));
    let members = here_now(&status).map(|peer| member(peer, &replies)).collect();
    let announced = announced(&status, ears.heard);
    Ok(Looked { interface, machine, firewall, members, unsent, seconds, announced, deaf: ears.deaf, status })
}

/// Those who can be asked.
fn here_now(status: &Status) -> impl Iterator<Item = &Peer> {
    status.peers.iter().filter(|peer| matches!(peer.state, PeerState::Direct | PeerState::Relayed))
}

fn my_v4(status: &Status) -> Option<Ipv4Addr> {
    status.me.addresses.iter().find_map(|ip| match ip {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    })
}

fn member(peer: &Peer, replies: &[round_trip::Reply]) -> Member {
    let of = replies.iter().filter(|reply| peer.addresses.contains(&reply.from));
    let answered = of.map(|reply| (reply.by, reply.after.as_secs_f64() * 1_000.0)).collect();
    Member { peer: peer.clone(), answered }
}

/// What the rules do with a member's packet: of whoever is there, or of anybody in the subnet.
fn blocked(rules: &str, status: &Status, interface: &str) -> Result<Vec<Blocked>, String> {
    let v4 = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    };
    let to = my_v4(status).unwrap_or(status.network.subnet.network());
    let from = status.peers.iter().flat_map(|peer| &peer.addresses).find_map(v4);
    let from = from.or_else(|| status.network.subnet.hosts().find(|ip| *ip != to)).unwrap_or(to);
    firewall::blocked(rules, Packet { interface, from, to })
}

/// By who they are; of what one says twice, on its overlay address and on a LAN, both are kept: they are joined otherwise.
fn announced(status: &Status, heard: Vec<Heard>) -> Vec<Announced> {
    let local: Vec<IpAddr> = if_addrs::get_if_addrs().into_iter().flatten().map(|found| found.ip()).collect();
    let who = |ip: IpAddr| match status.peers.iter().find(|peer| peer.addresses.contains(&ip)) {
        Some(peer) => Who::Member(peer.name.clone()),
        None if local.contains(&ip) || status.me.addresses.contains(&ip) => Who::Here,
        None => Who::Lan,
    };
    let mut all: Vec<Announced> =
        heard.into_iter().map(|Heard { from, found }| Announced { who: who(from.ip()), found, from }).collect();
    all.sort_by(|a, b| {
        (!a.found.protocol.is_game(), &a.who, &a.found).cmp(&(!b.found.protocol.is_game(), &b.who, &b.found))
    });
    all
}

impl Announced {
    /// Where it is joined; what is no game is not.
    fn join(&self) -> Option<SocketAddr> {
        let port = match self.found.port {
            Some(port) => port,
            None if self.found.protocol.is_game() => self.from.port(),
            None => return None,
        };
        Some(SocketAddr::new(self.from.ip(), port))
    }
}

/// Whether members are here, and nobody hears what is sent to all.
fn unheard(looked: &Looked) -> bool {
    let hears = |member: &Member| member.answered.keys().any(|by| *by != By::Unicast);
    !looked.members.is_empty() && !looked.members.iter().any(hears)
}
