//! Members by their names, as programs that know nothing of punchlan ask for them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use punchlan::node::status::PeerState;

use crate::lab::programs::{NAME, Network, Peer, await_true};
use crate::lab::{Gateway, Host, Lab};
use crate::shared_turn;

const PATIENCE: Duration = Duration::from_secs(15);
const HOSTS: &str = "127.0.0.1 localhost\n";

#[test]
fn members_are_found_by_name_from_everywhere_while_they_are_known_and_names_follow_them() {
    let _turn = shared_turn();
    let lab = Lab::new(&[Gateway::Public, Gateway::Public, Gateway::PortRestricted]).unwrap();
    let network = Network::start(&lab).unwrap();
    let join = |n: usize, name: &str| {
        own_hosts(&network, lab.host(n), name);
        network.join(lab.host(n), name, u8::try_from(n + 1).unwrap()).unwrap()
    };
    let (mut alice, bob, mut carol) = (join(0, "alice"), join(1, "bob"), join(2, "carol"));
    for (here, others) in [(&alice, [&bob, &carol]), (&bob, [&carol, &alice]), (&carol, [&alice, &bob])] {
        for other in others.into_iter().chain([here]) {
            let [v4, v6] = [other.address.into(), other.address_v6().unwrap()];
            finds(here, &other.name, &[v4, v6]);
            finds(here, &format!("{}.{NAME}.internal", other.name), &[v4, v6]);
            for address in [v4, v6] {
                let said = getent(here.host, "hosts", &address.to_string());
                let names: Vec<&str> = said.split_whitespace().skip(1).collect();
                assert_eq!(names, [&format!("{}.{NAME}.internal", other.name), &other.name], "{address}");
            }
        }
    }
    asks_the_server(&alice, &bob);

    let net_toml = bob.folder().join("net.toml");
    let text = std::fs::read_to_string(&net_toml).unwrap();
    std::fs::write(&net_toml, text.replace("\"bob\"", "\"robert\"")).unwrap();
    assert!(bob.command(&["reload"]).status().unwrap().success());
    for here in [&alice, &bob, &carol] {
        finds(here, "robert", &[bob.address.into(), bob.address_v6().unwrap()]);
        await_true("bob's old name to be gone", PATIENCE, || Ok(getent(here.host, "ahosts", "bob").is_empty()))
            .unwrap();
    }

    let carols = [carol.address.into(), carol.address_v6().unwrap()];
    carol.program.end(Signal::SIGTERM).unwrap();
    assert_eq!(std::fs::read_to_string(hosts_file(carol.host)).unwrap(), HOSTS, "nothing of it stays");
    alice.await_peer("carol", PeerState::Offline, PATIENCE).unwrap();
    finds(&alice, "carol", &carols);

    alice.program.end(Signal::SIGKILL).unwrap();
    let alice = network.join(lab.host(0), "alice", 1).unwrap();
    finds(&alice, "robert", &[bob.address.into(), bob.address_v6().unwrap()]);
    let text = std::fs::read_to_string(hosts_file(alice.host)).unwrap();
    assert_eq!(text.matches("# begin punchlan").count(), 1, "{text}");
    assert!(!text.contains("bob"), "{text}");
}

/// Programs there have a hosts file of their own, and so has the daemon that will be called `name`.
fn own_hosts(network: &Network, host: &Host, name: &str) {
    host.netns.set_hosts(HOSTS).unwrap();
    let folder = network.folder().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    symlink(hosts_file(host), folder.join("hosts")).unwrap();
}

fn hosts_file(host: &Host) -> PathBuf {
    ["/etc/netns", host.netns.name(), "hosts"].iter().collect()
}

/// What the system's library says; empty: nothing.
fn getent(host: &Host, kind: &str, name: &str) -> String {
    let output = host.netns.command("getent").args([kind, name]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until a name leads to these addresses.
fn finds(here: &Peer<'_>, name: &str, expected: &[IpAddr]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    let found = || {
        let said = getent(here.host, "ahosts", name);
        let mut found: Vec<IpAddr> = said.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let what = format!("{name} to be found by {} at {expected:?}", here.name);
    await_true(&what, PATIENCE, || Ok(found() == expected)).unwrap();
}

/// The network's own server answers programs of its machine, and no member's.
fn asks_the_server(alice: &Peer<'_>, bob: &Peer<'_>) {
    let dns = alice.status().unwrap().network.dns.unwrap();
    assert_eq!(dns.servers.iter().map(SocketAddr::ip).collect::<Vec<_>>(), alice.status().unwrap().me.addresses);
    let question = |name: &str| {
        let labels =
            [name, NAME, "internal"].map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
        [&b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0"[..], &labels.concat(), b"\0\0\x01\0\x01"].concat()
    };
    for server in dns.servers {
        let socket = |host: &Host| {
            let any: SocketAddr = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            let socket = host.netns.enter(|| UdpSocket::bind(any)).unwrap().unwrap();
            socket.connect(server).unwrap();
            socket
        };
        let (own, members) = (socket(alice.host), socket(bob.host));
        let mut answer = [0; 512];
        members.send(&question("bob")).unwrap();
        assert_eq!(bob.ping(server.ip(), 3).unwrap(), 3, "packets pass, and those before them have");
        own.set_read_timeout(Some(PATIENCE)).unwrap();
        own.send(&question("bob")).unwrap();
        let length = own.recv(&mut answer).unwrap();
        assert!(answer[..length].ends_with(&bob.address.octets()), "{:?}", &answer[..length]);
        assert_eq!(bob.ping(server.ip(), 3).unwrap(), 3);
        members.set_nonblocking(true).unwrap();
        assert!(members.recv(&mut answer).is_err(), "{server} answered a member");
    }
}
