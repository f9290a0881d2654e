//! The same for programs. A contract: fields are added, never renamed; what is not known is `null`, and `unknown` says why.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::super::Failure;
use super::findings::{Finding, games, word};
use super::{Announced, By, Looked, Member, Who};
use crate::node::status::{Lan, PeerState};

/// The schema's number.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    network: &'a str,
    interface: Option<Interface<'a>>,
    /// The interface by which each leaves; `null`: by none.
    sent_to_everybody: Option<BTreeMap<IpAddr, Option<&'a str>>>,
    lan: Option<&'a Lan>,
    /// The chains that keep members out.
    firewall: Option<Vec<Chain<'a>>>,
    games_ports: Option<Vec<Port>>,
    members: Vec<OfMember<'a>>,
    announced: Vec<OfAnnounced<'a>>,
    unknown: BTreeMap<&'static str, String>,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
    up: bool,
    broadcast: bool,
    multicast: bool,
    mtu: Option<u32>,
    routes: Vec<Way>,
}

#[derive(Serialize)]
struct Way {
    net: String,
    metric: u32,
}

#[derive(Serialize)]
struct Chain<'a> {
    by: &'static str,
    family: &'a str,
    table: &'a str,
    chain: &'a str,
    sure: bool,
}

#[derive(Serialize)]
struct Port {
    game: &'static str,
    protocol: &'static str,
    address: IpAddr,
    port: u16,
}

#[derive(Serialize)]
struct OfMember<'a> {
    name: &'a str,
    state: PeerState,
    /// Milliseconds, by how it was asked; `null`: no answer.
    answered_ms: BTreeMap<By, Option<f64>>,
}

#[derive(Serialize)]
struct OfAnnounced<'a> {
    /// A member's name.
    member: Option<&'a str>,
    here: bool,
    from: SocketAddr,
    protocol: &'static str,
    name: &'a str,
    game: Option<&'a str>,
    map: Option<&'a str>,
    players: Option<[u16; 2]>,
    join: Option<SocketAddr>,
}

pub(super) fn text(looked: &Looked, findings: &[Finding]) -> Result<String, Failure> {
    serde_json::to_string_pretty(&document(looked, findings))
        .map_err(|error| Failure::Failed(format!("the findings have no JSON form: {error}")))
}

fn document<'a>(looked: &'a Looked, findings: &'a [Finding]) -> Document<'a> {
    let machine = &looked.machine;
    let mut unknown: BTreeMap<&'static str, String> = BTreeMap::new();
    let reasons = [
        ("interface", machine.interface.as_ref().err()),
        ("sent_to_everybody", machine.leads.as_ref().err()),
        ("firewall", looked.firewall.as_ref().err()),
        ("games_ports", machine.listening.as_ref().err()),
    ];
    unknown.extend(reasons.into_iter().filter_map(|(what, why)| Some((what, why?.clone()))));
    let unsent = looked.unsent.iter().map(|(_, why)| why.clone()).collect::<Vec<_>>();
    let lists = [("members", unsent), ("announced", looked.deaf.clone())];
    unknown.extend(lists.into_iter().filter(|(_, whys)| !whys.is_empty()).map(|(what, whys)| (what, whys.join("; "))));
    let leads = machine.leads.as_ref().ok();
    let ports = machine.listening.as_ref().ok().map(|listening| {
        let port = |(game, socket): (&'static crate::router::games::Game, crate::io::doctor::machine::Listening)| {
            Port { game: game.name, protocol: word(socket.protocol), address: socket.ip, port: socket.port }
        };
        games(listening).map(port).collect()
    });
    Document {
        schema: SCHEMA,
        network: &looked.status.network.name,
        interface: interface(looked),
        sent_to_everybody: leads.map(|leads| leads.iter().map(|(ip, by)| (*ip, by.as_deref())).collect()),
        lan: looked.status.lan.as_ref(),
        firewall: looked.firewall.as_ref().ok().map(|blocked| blocked.iter().map(chain).collect()),
        games_ports: ports,
        members: looked.members.iter().map(member).collect(),
        announced: looked.announced.iter().map(announced).collect(),
        unknown,
        findings,
    }
}

fn interface(looked: &Looked) -> Option<Interface<'_>> {
    let found = looked.machine.interface.as_ref().ok()?.as_ref()?;
    let way = |(net, metric): &(ipnet::IpNet, u32)| Way { net: net.to_string(), metric: *metric };
    Some(Interface {
        name: &looked.interface,
        up: found.up,
        broadcast: found.broadcast,
        multicast: found.multicast,
        mtu: found.mtu,
        routes: found.routes.iter().map(way).collect(),
    })
}

fn chain(blocked: &super::Blocked) -> Chain<'_> {
    let [family, table, chain] = &blocked.chain;
    Chain { by: blocked.by.name(), family, table, chain, sure: blocked.sure }
}

fn member(member: &Member) -> OfMember<'_> {
    let answered = |by: By| (by, member.answered.get(&by).map(|ms| (ms * 100.0).round() / 100.0));
    let ways = crate::io::doctor::round_trip::WAYS;
    OfMember {
        name: &member.peer.name,
        state: member.peer.state,
        answered_ms: ways.map(answered).into_iter().collect(),
    }
}

fn announced(announced: &Announced) -> OfAnnounced<'_> {
    let Announced { who, found, from } = announced;
    let member = match who {
        Who::Member(name) => Some(name.as_str()),
        Who::Here | Who::Lan => None,
    };
    OfAnnounced {
        member,
        here: *who == Who::Here,
        from: *from,
        protocol: found.protocol.name(),
        name: &found.name,
        game: found.game.as_deref(),
        map: found.map.as_deref(),
        players: found.players,
        join: announced.join(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::super::findings::tests::looked;
    use super::*;

    #[test]
    fn what_is_not_known_is_null_and_has_a_reason() {
        let mut looked = looked();
        looked.members[0].answered.remove(&By::Multicast);
        looked.firewall = Err("only root may read it".to_owned());
        let found = findings::of(&looked);
        let json: serde_json::Value = serde_json::from_str(&text(&looked, &found).expect("json")).expect("json");
        assert_eq!(
            (&json["firewall"], &json["unknown"]["firewall"]),
            (&serde_json::Value::Null, &"only root may read it".into())
        );
        assert_eq!(
            (&json["interface"]["name"], &json["interface"]["routes"][0]["net"]),
            (&"punch0".into(), &"10.77.0.0/24".into())
        );
        assert_eq!(json["sent_to_everybody"]["255.255.255.255"], "eth0");
        let bob = &json["members"][0];
        assert_eq!((&bob["state"], &bob["answered_ms"]["subnet"]), (&"direct".into(), &20.9.into()));
        assert_eq!(bob["answered_ms"]["multicast"], serde_json::Value::Null);
        let world = &json["announced"][0];
        assert_eq!(
            (&world["member"], &world["protocol"], &world["join"]),
            (&"bob".into(), &"Minecraft".into(), &"10.77.0.2:52417".into())
        );
        assert_eq!((&json["findings"][0]["code"], &json["findings"][0]["subject"]), (&"deaf".into(), &"bob".into()));
        assert_eq!((&json["games_ports"][0]["game"], &json["lan"]["guard"]), (&"openttd".into(), &false.into()));
    }
}
