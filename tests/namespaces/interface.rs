//! The overlay's interface beside that of a real LAN: what programs send to nobody's interface in particular goes to the
//! LAN as if we were not there.
//!
//! ```text
//!   alice ──┐
//!   radio ──┴─ port-restricted ── core ── port-restricted ── bob       radio is no member
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use punchlan::node::status::PeerState;

use crate::lab::netns::{Namespace, run};
use crate::lab::programs::{Network, Peer};
use crate::lab::{Gateway, Lab, SitePlan};
use crate::shared_turn;

const PATIENCE: Duration = Duration::from_secs(10);
/// For IPv4 and for IPv6.
const PORTS: [u16; 2] = [4_445, 4_446];
/// Groups of the link and of the site.
const GROUPS_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x4445), Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x4445)];
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 2, 60);

#[test]
fn what_names_no_interface_reaches_the_lan_also_after_its_cable_was_out() {
    let _turn = shared_turn();
    let site = SitePlan::new(Gateway::PortRestricted);
    let lab = Lab::new(&[site.hosts(2).with_ipv6(), site]).unwrap();
    let network = Network::start(&lab).unwrap();
    let [alice, radio] = [0, 1].map(|n| &lab.sites[0].hosts[n]);
    let gateway = default_gateway(&alice.netns).unwrap();
    let ear = Ear::new(&radio.netns).unwrap();
    let alice = network.up(alice, "alice", 1).unwrap();
    let bob = network.up(lab.host(1), "bob", 2).unwrap();
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    ear.hears_everything_of(&alice).unwrap();
    for _ in 0..2 {
        alice.host.netns.ip("link set eth0 down\nlink set eth0 up").unwrap();
        alice.host.netns.ip(&format!("route replace default via {gateway}")).unwrap();
        ear.hears_everything_of(&alice).unwrap();
    }
    // Ours down and up again is no reason to take the LAN's place either.
    alice.host.netns.ip("link set punch0 down\nlink set punch0 up").unwrap();
    ear.hears_everything_of(&alice).unwrap();
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    assert_eq!(alice.ping(bob.address.into(), 20).unwrap(), 20);
}

#[test]
fn members_reach_each_other_at_all_their_addresses() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::PortRestricted, Gateway::Masquerade]).unwrap();
    let network = Network::start(&lab).unwrap();
    let alice = network.up(lab.host(0), "alice", 1).unwrap();
    let bob = network.up(lab.host(1), "bob", 2).unwrap();
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();
    bob.await_peer("alice", PeerState::Direct, PATIENCE).unwrap();
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        let ula = to.address_v6().unwrap();
        for target in [to.address.to_string(), ula.to_string(), format!("{}%punch0", link_local(ula))] {
            let mut ping = from.host.netns.command("ping");
            let said = run(ping.args(["-n", "-i", "0.02", "-c", "10", "-W", "2", &target])).unwrap();
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            assert!(said.contains("10 received"), "{target}: {said}");
        }
    }
    let drops = alice.status().unwrap().counters.drop;
    assert_eq!(drops.get("not-ip").copied().unwrap_or(0), 0, "{drops:?}");
}

/// The address of the link that a member has beside this one.
fn link_local(ula: IpAddr) -> Ipv6Addr {
    let IpAddr::V6(ula) = ula else { panic!("an IPv6 address") };
    let [.., a, b, c, d] = ula.segments();
    Ipv6Addr::new(0xfe80, 0, 0, 0, a, b, c, d)
}

fn default_gateway(netns: &Namespace) -> Result<String> {
    let output = run(netns.command("ip").args(["-4", "route", "show", "default"]))?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').nth(2).context("default via …")?.to_owned())
}

/// A machine of the LAN that listens to everything.
struct Ear {
    v4: UdpSocket,
    v6: UdpSocket,
}

impl Ear {
    fn new(netns: &Namespace) -> Result<Self> {
        netns.enter(|| {
            let index = nix::net::if_::if_nametoindex("eth0")?;
            let (v4, v6) = (
                UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORTS[0]))?,
                UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORTS[1]))?,
            );
            v4.join_multicast_v4(&GROUP_V4, &Ipv4Addr::UNSPECIFIED)?;
            GROUPS_V6.iter().try_for_each(|group| v6.join_multicast_v6(group, index))?;
            for socket in [&v4, &v6] {
                socket.set_read_timeout(Some(PATIENCE))?;
            }
            Ok(Self { v4, v6 })
        })?
    }

    /// An unbound program beside this peer says something to everybody; each is heard here.
    fn hears_everything_of(&self, peer: &Peer<'_>) -> Result<()> {
        let [v4, v6] = peer.host.netns.enter(|| -> Result<_> {
            let sockets = [UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("[::]:0")?];
            sockets[0].set_broadcast(true)?;
            Ok(sockets)
        })??;
        let [v4_group, v6_groups] =
            [vec![GROUP_V4.into(), Ipv4Addr::BROADCAST.into()], GROUPS_V6.map(IpAddr::V6).into()];
        for (ear, mouth, groups) in [(&self.v4, v4, v4_group), (&self.v6, v6, v6_groups)] {
            for group in groups {
                let said = format!("to {group} from {:?}", mouth.local_addr()?);
                mouth
                    .send_to(said.as_bytes(), SocketAddr::new(group, PORTS[usize::from(group.is_ipv6())]))
                    .with_context(|| said.clone())?;
                let mut bytes = [0; 128];
                loop {
                    let (len, _) = ear.recv_from(&mut bytes).with_context(|| format!("{said} is not heard"))?;
                    if &bytes[..len] == said.as_bytes() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
