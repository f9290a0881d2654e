//! What stands in the way of play, and what to do about each: a pure reading of what was looked at.

use std::net::IpAddr;

use serde::Serialize;

use super::super::ping::describe_path;
use super::{By, Looked, Member, my_v4};
use crate::io::doctor::machine::Listening;
use crate::node::status::Lan;
use crate::router::filter::Protocol;
use crate::router::games::{GAMES, Game};

/// Something that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// A stable word for programs.
    pub(super) code: &'static str,
    /// Which member, or which program's port, if it is of one.
    pub(super) subject: Option<String>,
    /// What is wrong.
    pub(super) text: String,
    /// What to do.
    pub(super) help: String,
}

fn finding(code: &'static str, text: String, help: String) -> Finding {
    Finding { code, subject: None, text, help }
}

/// All, what explains others first.
pub(super) fn of(looked: &Looked) -> Vec<Finding> {
    let mut all = interface(looked);
    all.extend(switches(looked));
    all.extend(firewall(looked));
    all.extend(way_out(looked));
    all.extend(looked.members.iter().filter_map(|peer| member(looked, peer)));
    all.extend(listeners(looked));
    all
}

fn interface(looked: &Looked) -> Vec<Finding> {
    let name = &looked.interface;
    let again = "sudo punchlan down, then sudo punchlan up".to_owned();
    let Ok(interface) = &looked.machine.interface else { return Vec::new() };
    let Some(found) = interface else {
        return vec![finding("interface", format!("the interface {name} is gone"), again)];
    };
    let mut all = Vec::new();
    let mut say = |code, text: String, help: String| all.push(finding(code, text, help));
    if !found.up {
        say("interface", format!("the interface {name} is down"), format!("sudo ip link set {name} up"));
    }
    if !found.broadcast || found.point_to_point {
        say(
            "broadcast-flag",
            format!("{name} takes no broadcasts: programs that look for LANs pass it by"),
            again.clone(),
        );
    }
    if !found.multicast {
        let text = format!("{name} takes no multicast: programs that look for LANs pass it by");
        say("multicast-flag", text, format!("sudo ip link set {name} multicast on"));
    }
    let mtu = u32::from(looked.status.network.mtu);
    if let Some(small) = found.mtu.filter(|found| *found < mtu) {
        let text = format!("{name} takes packets of {small} bytes at most, and punchlan carries {mtu}");
        say("mtu", text, format!("sudo ip link set {name} mtu {mtu}"));
    }
    let subnet = looked.status.network.subnet;
    if my_v4(&looked.status).is_none() {
        let text = "this machine has no IPv4 address in the network, and most games know no other".to_owned();
        say(
            "no-address",
            text,
            "`punchlan status` warns of why: another has it, mostly; set `address` under [peer]".to_owned(),
        );
    } else if !found.routes.iter().any(|(net, _)| *net == ipnet::IpNet::V4(subnet)) {
        say("route", format!("nothing leads to {subnet} by {name}"), format!("sudo ip route add {subnet} dev {name}"));
    }
    all
}

/// What net.toml switches off.
fn switches(looked: &Looked) -> Vec<Finding> {
    let Some(Lan { broadcast, multicast, .. }) = looked.status.lan else { return Vec::new() };
    let off = |key: &'static str, what: &str| {
        let text = format!("{key} is off here: programs that look for each other by {what} find nobody");
        finding(key, text, format!("{key} = true under [lan] in net.toml, then sudo punchlan reload"))
    };
    let list =
        [(!broadcast).then(|| off("broadcast", "broadcast")), (!multicast).then(|| off("multicast", "multicast"))];
    list.into_iter().flatten().collect()
}

fn firewall(looked: &Looked) -> Vec<Finding> {
    let blocked = looked.firewall.iter().flatten();
    let each = blocked.map(|blocked| {
        let [family, table, chain] = &blocked.chain;
        let seems = if blocked.sure { "drops" } else { "seems to drop (not all of its rules are understood)" };
        let text = format!(
            "the firewall here ({}: chain {chain} of table {family} {table}) {seems} what members send to this machine first, and \
             their answers to what is sent to all",
            blocked.by.name()
        );
        finding("firewall", text, blocked.remedy(&looked.interface))
    });
    each.collect()
}

/// Whether a program that is bound to nothing can send to everybody at all.
fn way_out(looked: &Looked) -> Option<Finding> {
    let leads = looked.machine.leads.as_ref().ok()?;
    leads.iter().find(|(ip, by)| ip.is_ipv4() && by.is_none())?;
    let text =
        "no route leads to everybody from here: the system refuses what programs send to 255.255.255.255".to_owned();
    let help =
        format!("connect this machine to a network; or sudo ip route add 255.255.255.255 dev {}", looked.interface);
    Some(finding("no-way-out", text, help))
}

fn member(looked: &Looked, member: &Member) -> Option<Finding> {
    let name = &member.peer.name;
    let missing: Vec<By> = round_trips(looked).filter(|by| !member.answered.contains_key(by)).collect();
    let say = |code, text: String, help: String| Finding { subject: Some(name.clone()), ..finding(code, text, help) };
    let blocked_here = looked.firewall.as_ref().is_ok_and(|blocked| !blocked.is_empty());
    match &missing[..] {
        [] => None,
        // That was said.
        _ if blocked_here => None,
        _ if member.answered.is_empty() => {
            let path = member.peer.path.as_ref().map(describe_path).unwrap_or_default();
            let text = format!("{name} is here ({path}), and nothing that is sent to it from here is answered");
            let help = format!(
                "punchlan games on {name}: a firewall there, mostly, which it names; an older punchlan there does not answer \
                 this question at all; punchlan ping {name} says whether the way works"
            );
            Some(say("silent", text, help))
        }
        ways if ways.len() == round_trips(looked).count() => {
            let text = format!("{name} answers when it is asked alone, and hears nothing that is sent to all");
            let help = format!("broadcast = true under [lan] in the net.toml of {name}; then punchlan games there");
            Some(say("deaf", text, help))
        }
        ways => {
            let list: Vec<&str> = ways.iter().map(|by| to(*by)).collect();
            let text = format!("{name} does not answer what is sent to {}", list.join(" and "));
            let help = match ways {
                [By::Multicast] => format!("multicast = true under [lan] in the net.toml of {name}"),
                _ => format!("try again; if it stays so, punchlan games on {name}, and punchlan status on both"),
            };
            Some(say("deaf", text, help))
        }
    }
}

/// The ways to all that there should be.
fn round_trips(looked: &Looked) -> impl Iterator<Item = By> {
    let lan = looked.status.lan.as_ref();
    let (broadcast, multicast) = (lan.is_none_or(|lan| lan.broadcast), lan.is_none_or(|lan| lan.multicast));
    let ways = [(By::Limited, broadcast), (By::Subnet, broadcast), (By::Multicast, multicast)];
    let could = |by: &By| !looked.unsent.iter().any(|(unsent, _)| unsent == by);
    ways.into_iter().filter(|(_, on)| *on).map(|(by, _)| by).filter(could).collect::<Vec<_>>().into_iter()
}

const fn to(by: By) -> &'static str {
    match by {
        By::Limited => "255.255.255.255",
        By::Subnet => "the subnet's broadcast address",
        By::Multicast => "a multicast group",
        By::Unicast => "it alone",
    }
}

/// Games here that members do not reach.
fn listeners(looked: &Looked) -> Vec<Finding> {
    let Ok(listening) = &looked.machine.listening else { return Vec::new() };
    let mine = &looked.status.me.addresses;
    let is_open = |ip: IpAddr| ip.is_unspecified() || ip.is_multicast() || mine.contains(&ip);
    let mut all: Vec<Finding> = Vec::new();
    for (game, socket) in games(listening) {
        let Listening { protocol, ip, port } = socket;
        let what = format!("{port}/{}", word(protocol));
        let same = |other: &&Listening| (other.protocol, other.port) == (protocol, port);
        let found = if !listening.iter().filter(same).any(|other| is_open(other.ip)) {
            let text = format!("{what} (of {}) is listened on at {ip} alone, where members do not reach it", game.name);
            Some(finding(
                "listens-elsewhere",
                text,
                "have the game listen on all addresses (0.0.0.0), and start it again".to_owned(),
            ))
        } else {
            refused(looked, protocol, port).then(|| {
                let text = format!(
                    "{} listens on {what}, and [lan] allow lets members speak to it only when it asks first",
                    game.name
                );
                let help = format!("\"{}\" into `allow` under [lan] in net.toml, then sudo punchlan reload", game.name);
                finding("not-allowed", text, help)
            })
        };
        let found = found.map(|found| Finding { subject: Some(what), ..found });
        all.extend(found.filter(|found| !all.contains(found)));
    }
    all
}

/// The sockets at ports of games.
pub(super) fn games(listening: &[Listening]) -> impl Iterator<Item = (&'static Game, Listening)> {
    let game = |socket: &Listening| GAMES.iter().find(|game| game.has(socket.protocol, socket.port));
    listening.iter().filter_map(move |socket| Some((game(socket)?, *socket)))
}

fn refused(looked: &Looked, protocol: Protocol, port: u16) -> bool {
    let allow = looked.status.lan.as_ref().and_then(|lan| lan.allow.as_ref());
    allow.is_some_and(|entries| !entries.iter().any(|entry| lets_in(entry, protocol, port)))
}

/// Whether an entry as the status gives it has this port.
fn lets_in(entry: &str, protocol: Protocol, port: u16) -> bool {
    let Some((ports, of)) = entry.split_once('/') else { return false };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let range = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
    of == word(protocol) && range.is_some_and(|(first, last)| (first..=last).contains(&port))
}

pub(super) const fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::status::tests::status;
    use super::super::firewall::{Blocked, Manager};
    use super::super::{Announced, Who};
    use super::*;
    use crate::io::doctor::machine::{EVERYBODY, Interface, Machine};
    use crate::io::doctor::round_trip::WAYS;
    use crate::wire::discovery::minecraft;

    /// Nothing is wrong: bob answers everything, and has opened a world.
    pub(in super::super) fn looked() -> Looked {
        let mut status = status();
        status.lan = Some(Lan { broadcast: true, multicast: true, allow: None, guard: false });
        let interface = Interface {
            up: true,
            broadcast: true,
            multicast: true,
            point_to_point: false,
            mtu: Some(1400),
            routes: vec![(status.network.subnet.into(), 0)],
        };
        let leads = EVERYBODY.map(|ip| (ip, Some("eth0".to_owned())));
        let machine = Machine {
            interface: Ok(Some(interface)),
            leads: Ok(leads.to_vec()),
            firewall: Ok(String::new()),
            listening: Ok(vec![listening("0.0.0.0", 3_979), listening("127.0.0.53", 53)]),
        };
        let bob =
            Member { peer: status.peers[0].clone(), answered: WAYS.into_iter().zip([21.4, 20.9, 22.0, 0.8]).collect() };
        let found = minecraft::read(b"[MOTD]bob - New World[/MOTD][AD]52417[/AD]").expect("a world");
        let from = "10.77.0.2:40000".parse().expect("an address");
        Looked {
            status,
            interface: "punch0".to_owned(),
            machine,
            firewall: Ok(Vec::new()),
            members: vec![bob],
            unsent: Vec::new(),
            seconds: 5,
            announced: vec![Announced { who: Who::Member("bob".to_owned()), found, from }],
            deaf: Vec::new(),
        }
    }

    fn listening(ip: &str, port: u16) -> Listening {
        Listening { protocol: Protocol::Udp, ip: ip.parse().expect("an address"), port }
    }

    fn codes(looked: &Looked) -> Vec<&'static str> {
        let found = of(looked);
        assert!(found.iter().all(|found| !found.text.is_empty() && !found.help.is_empty()), "{found:?}");
        found.into_iter().map(|found| found.code).collect()
    }

    fn with(change: impl FnOnce(&mut Looked)) -> Looked {
        let mut looked = looked();
        change(&mut looked);
        looked
    }

    #[test]
    fn where_nothing_is_wrong_nothing_is_found() {
        assert_eq!(of(&looked()), []);
        assert_eq!(codes(&with(|looked| looked.members.clear())), [""; 0]);
        let unknown = || Err("not known".to_owned());
        let blind = with(|looked| {
            looked.machine = Machine {
                interface: Err(String::new()),
                leads: Err(String::new()),
                firewall: unknown(),
                listening: Err(String::new()),
            };
            looked.firewall = Err(String::new());
        });
        assert_eq!(codes(&blind), [""; 0]);
    }

    #[test]
    fn what_the_interface_lacks_is_found_with_the_command_that_helps() {
        let with = |change: fn(&mut Interface)| {
            with(|looked| {
                if let Ok(Some(interface)) = &mut looked.machine.interface {
                    change(interface)
                }
            })
        };
        for (looked, help) in [
            (with(|it| it.up = false), "sudo ip link set punch0 up"),
            (with(|it| it.multicast = false), "sudo ip link set punch0 multicast on"),
            (with(|it| it.mtu = Some(1280)), "sudo ip link set punch0 mtu 1400"),
            (with(|it| it.routes.clear()), "sudo ip route add 10.77.0.0/24 dev punch0"),
            (with(|it| it.point_to_point = true), "sudo punchlan down, then sudo punchlan up"),
        ] {
            let found = of(&looked);
            assert_eq!(found.iter().map(|found| found.help.as_str()).collect::<Vec<_>>(), [help]);
        }
    }

    #[test]
    fn a_member_who_hears_no_broadcast_is_told_from_one_who_hears_nothing() {
        let silent = of(&with(|looked| looked.members[0].answered.clear()));
        assert_eq!((silent[0].code, silent[0].subject.as_deref()), ("silent", Some("bob")));
        assert!(silent[0].text.contains("direct 203.0.113.9:41641"), "{silent:?}");
        let deaf = of(&with(|looked| looked.members[0].answered.retain(|by, _| *by == By::Unicast)));
        assert!(deaf[0].code == "deaf" && deaf[0].help.contains("broadcast = true"), "{deaf:?}");
        let half = of(&with(|looked| looked.members[0].answered.retain(|by, _| *by != By::Multicast)));
        assert!(half[0].text.contains("a multicast group") && half[0].help.contains("multicast = true"), "{half:?}");
    }

    #[test]
    fn one_cause_is_said_once() {
        let blocked = |looked: &mut Looked| {
            let chain = ["inet", "filter", "input"].map(str::to_owned);
            looked.firewall = Ok(vec![Blocked { by: Manager::Nftables, chain, sure: true }]);
            looked.members[0].answered.retain(|by, _| *by == By::Unicast);
        };
        assert_eq!(codes(&with(blocked)), ["firewall"]);
        let off = |looked: &mut Looked| {
            looked.status.lan = Some(Lan { broadcast: false, multicast: true, allow: None, guard: false });
            looked.members[0].answered.retain(|by, _| matches!(by, By::Multicast | By::Unicast));
        };
        assert_eq!(codes(&with(off)), ["broadcast"]);
        let offline = |looked: &mut Looked| {
            looked.machine.leads = Ok(vec![(EVERYBODY[0], None)]);
            looked.unsent = vec![(By::Limited, "255.255.255.255:24786: Network is unreachable".to_owned())];
            looked.members[0].answered.remove(&By::Limited);
        };
        assert_eq!(codes(&with(offline)), ["no-way-out"]);
    }

    #[test]
    fn a_game_that_members_do_not_reach_is_found() {
        let allow = |ports: &[&str]| {
            let allow = Some(ports.iter().map(|port| (*port).to_owned()).collect());
            with(|looked| looked.status.lan = Some(Lan { broadcast: true, multicast: true, allow, guard: false }))
        };
        let found = of(&allow(&["25565/tcp", "3979/tcp"]));
        assert_eq!((found[0].code, found[0].subject.as_deref()), ("not-allowed", Some("3979/udp")));
        assert!(found[0].help.starts_with("\"openttd\" into `allow`"), "{found:?}");
        assert_eq!(codes(&allow(&["3970-3979/udp"])), [""; 0]);
        let at_home = |looked: &mut Looked| looked.machine.listening = Ok(vec![listening("127.0.0.1", 3_979)]);
        assert_eq!(codes(&with(at_home)), ["listens-elsewhere"]);
        let also = |looked: &mut Looked| {
            looked.machine.listening = Ok(vec![listening("127.0.0.1", 3_979), listening("10.77.0.1", 3_979)])
        };
        assert_eq!(codes(&with(also)), [""; 0]);
    }
}
