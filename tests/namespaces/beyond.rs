//! Packets go on from the peer that they reached: what it gives to its kernel is right wherever that sends it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use punchlan::node::status::PeerState;

use crate::lab::cable::Cable;
use crate::lab::netns::Namespace;
use crate::lab::programs::Network;
use crate::lab::{Gateway, Lab};
use crate::traffic::{file_digest, pass_file};
use crate::turn;

const PATIENCE: Duration = Duration::from_secs(10);
/// Datagrams of a burst: less than any queue on the way holds.
const BURST: usize = 40;

/// ```text
///   alice ── core ── bob ── a link without checksums or segmentation ── 192.0.2.2, 2001:db8:2::2
///                    └ sends on what comes for port 7000
/// ```
#[test]
fn what_a_peer_sends_on_over_a_simple_link_has_right_checksums() {
    let _turn = turn();
    let lab = Lab::new(&[Gateway::Public, Gateway::Public]).unwrap();
    let network = Network::start(&lab).unwrap();
    let alice = network.up(lab.host(0), "alice", 1).unwrap();
    let bob = network.up(lab.host(1), "bob", 2).unwrap();
    alice.await_peer("bob", PeerState::Direct, PATIENCE).unwrap();

    let behind = Namespace::new(&format!("{}-behind", bob.host.netns.name()), "host").unwrap();
    let cable = Cable::lay([
        (&bob.host.netns, &["192.0.2.1/24", "2001:db8:2::1/64"]),
        (&behind, &["192.0.2.2/24", "2001:db8:2::2/64"]),
    ])
    .unwrap();
    behind.ip("route add default via 192.0.2.1\nroute add default via 2001:db8:2::1").unwrap();
    bob.host.netns.forward().unwrap();
    bob.host
        .netns
        .nft(
            "table inet beyond {
               chain arrive {
                 type nat hook prerouting priority dstnat
                 iifname punch0 meta nfproto ipv4 meta l4proto { tcp, udp } th dport 7000 dnat ip to 192.0.2.2
                 iifname punch0 meta nfproto ipv6 meta l4proto { tcp, udp } th dport 7000 dnat ip6 to 2001:db8:2::2
               }
             }",
        )
        .unwrap();

    let homes: [IpAddr; 2] = ["192.0.2.2".parse().unwrap(), "2001:db8:2::2".parse().unwrap()];
    for (to, home) in [bob.address.into(), bob.address_v6().unwrap()].into_iter().zip(homes) {
        let [to, home] = [to, home].map(|addr| SocketAddr::new(addr, 7000));
        let before = cable.seen().0;
        let digest = pass_file((&behind, home), (&alice.host.netns, to)).unwrap();
        assert_eq!(digest, file_digest(), "to {to}");
        // Bursts of one length, which travel together, and are one packet to bob's kernel.
        let listens = behind.enter(|| UdpSocket::bind(home)).unwrap().unwrap();
        listens.set_read_timeout(Some(PATIENCE)).unwrap();
        let sends = alice.host.netns.enter(|| UdpSocket::bind((any_of_the_family_of(to), 0))).unwrap().unwrap();
        for len in [1, 100, 1_001, 1_300] {
            for n in 0..BURST {
                sends.send_to(&vec![u8::try_from(n).unwrap(); len], to).unwrap();
            }
            for n in 0..BURST {
                let mut got = [0; 2_000];
                let (arrived, _) = listens.recv_from(&mut got).unwrap();
                assert_eq!(got[..arrived], vec![u8::try_from(n).unwrap(); len], "{n}th of {len} bytes to {to}");
            }
        }
        let (right, wrong) = cable.seen();
        assert_eq!(wrong, Vec::<String>::new());
        println!("to {to}: {} packets, all with right checksums", right - before);
        assert!(right - before > 7_000, "10 MB are more packets than {}", right - before);
    }
}

/// Any address, of that one's family.
fn any_of_the_family_of(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }
}
