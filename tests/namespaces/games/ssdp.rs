//! SSDP: Debian's miniupnpd offers itself on the virtual LAN, and `upnpc` looks for it.

use punchlan::node::status::PathKind;

use super::{PATIENCE, Row, evening, interface, says, worked};
use crate::lab::mapper::Mapper;
use crate::lab::programs::{Peer, await_true};

#[test]
#[ignore = "of programs that few players have; `scripts/test games` runs it"]
fn upnpc_finds_a_device_on_a_friends_machine() {
    evening(|evening| {
        let alice = &evening.alice;
        let _device = Mapper::pretend(&alice.host.netns, &interface(alice).unwrap()).unwrap();
        let device = format!("desc: http://{}:5000/rootDesc.xml", alice.address);
        for (socket, by_address) in [("unbound", false), ("bound to the overlay's address", true)] {
            let finds = |guest: &Peer<'_>| {
                let mut upnpc = guest.host.netns.command("upnpc");
                if by_address {
                    upnpc.args(["-m", &guest.address.to_string()]);
                }
                worked(await_true("the device", PATIENCE, || says(upnpc.arg("-s"), &device)))
            };
            let found = evening.guests.each_ref().map(finds);
            let asks = "multicast, 239.255.255.250:1900";
            Row { program: "miniupnpd and upnpc (SSDP)", asks, socket, found, played: None }.tell();
        }
        // Nobody takes it for the router that leads to the Internet.
        for guest in &evening.guests {
            let candidates = guest.status().unwrap().me.candidates;
            assert!(candidates.iter().all(|candidate| candidate.kind != PathKind::Mapped), "{candidates:?}");
        }
    });
}
