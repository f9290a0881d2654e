//! The table of the five classical NATs, cell by cell: direct wherever hole punching or a search over ports leads there,
//! relayed elsewhere, and talking from the first packet everywhere.

use std::time::Duration;

use punchlan::node::status::PeerState;

use crate::sim::oracle::{Place, direct_by_search_is_possible, direct_is_possible};
use crate::sim::scene::{House, Scene};
use crate::sim::topology::Line;

/// What a cell must achieve on such lines.
struct Demand {
    line: Line,
    /// From the start of the second peer to the first inner packet both ways.
    talk: Duration,
    /// From the start of the second peer to the direct path, where punching leads there.
    direct: Duration,
    /// The same where a search does.
    search: Duration,
    /// Inner packets that may be lost, per mille.
    loss: usize,
}

const CLEAN: Demand = Demand {
    line: Line::CLEAN,
    talk: Duration::from_millis(500),
    direct: Duration::from_millis(1_000),
    search: Duration::from_secs(8),
    loss: 0,
};

/// The line loses 5 % each way, so a relayed packet has four chances to be lost and arrives at 90 %.
const FAR: Demand = Demand {
    line: Line::FAR,
    talk: Duration::from_secs(4),
    direct: Duration::from_secs(8),
    search: Duration::from_secs(12),
    loss: 170,
};

fn cell(a: Place, b: Place, demand: &Demand) {
    let mut scene = Scene::new(7);
    let [alice, bob] = [("alice", a), ("bob", b)].map(|(name, place)| scene.peer(name, House::v4(place.nat())));
    scene.world.all_lines(demand.line);
    scene.up(alice);
    scene.run(Duration::from_secs(3));

    scene.up(bob);
    let start = scene.now();
    scene.acquaint(alice, bob, demand.talk).expect("they hear of each other");
    scene.flows(alice, bob, Duration::from_millis(20));
    scene.talk(alice, bob, demand.talk).expect("they talk, by relay if need be");
    assert!(scene.now() - start <= demand.talk, "the first packets took {:?}", scene.now() - start);

    let punched = direct_is_possible(a.nat(), b.nat());
    let direct = punched || direct_by_search_is_possible(a.nat(), b.nat());
    let limit = if punched { demand.direct } else { demand.search };
    let expected = if direct { PeerState::Direct } else { PeerState::Relayed };
    scene.settle(alice, bob, expected, limit).unwrap_or_else(|| panic!("{expected:?} within time"));
    if direct {
        assert!(scene.now() - start <= limit, "direct took {:?}", scene.now() - start);
    }
    scene.run(Duration::from_secs(15));

    let count = |scene: &Scene| [(alice, bob), (bob, alice)].map(|(x, y)| scene.world.straight(x, y));
    let before = count(&scene);
    scene.run(Duration::from_secs(5));
    for (before, after) in before.into_iter().zip(count(&scene)) {
        let straight = after - before;
        // 50 packets a second for 5 s.
        assert!(if direct { straight >= 200 } else { straight == 0 }, "{straight} datagrams went straight");
    }
    scene.hush();
    for (x, y) in [(alice, bob), (bob, alice)] {
        let (sent, lost) = scene.lost(0, x, y);
        assert!(lost * 1000 <= sent * demand.loss, "{lost} of {sent} inner packets were lost");
    }
}

macro_rules! cells {
    ($($name:ident: $a:ident $b:ident),* $(,)?) => {
        mod on_clean_lines {
            use super::*;
            $(#[test] fn $name() { cell(Place::$a, Place::$b, &CLEAN); })*
        }
        mod with_100_ms_and_5_percent_loss {
            use super::*;
            $(#[test] fn $name() { cell(Place::$a, Place::$b, &FAR); })*
        }
    };
}

cells! {
    public_meets_public: Public Public,
    public_meets_full_cone: Public FullCone,
    public_meets_address_restricted: Public AddressRestricted,
    public_meets_port_restricted: Public PortRestricted,
    public_meets_symmetric: Public Symmetric,
    full_cone_meets_public: FullCone Public,
    full_cone_meets_full_cone: FullCone FullCone,
    full_cone_meets_address_restricted: FullCone AddressRestricted,
    full_cone_meets_port_restricted: FullCone PortRestricted,
    full_cone_meets_symmetric: FullCone Symmetric,
    address_restricted_meets_public: AddressRestricted Public,
    address_restricted_meets_full_cone: AddressRestricted FullCone,
    address_restricted_meets_address_restricted: AddressRestricted AddressRestricted,
    address_restricted_meets_port_restricted: AddressRestricted PortRestricted,
    address_restricted_meets_symmetric: AddressRestricted Symmetric,
    port_restricted_meets_public: PortRestricted Public,
    port_restricted_meets_full_cone: PortRestricted FullCone,
    port_restricted_meets_address_restricted: PortRestricted AddressRestricted,
    port_restricted_meets_port_restricted: PortRestricted PortRestricted,
    port_restricted_meets_symmetric: PortRestricted Symmetric,
    symmetric_meets_public: Symmetric Public,
    symmetric_meets_full_cone: Symmetric FullCone,
    symmetric_meets_address_restricted: Symmetric AddressRestricted,
    symmetric_meets_port_restricted: Symmetric PortRestricted,
    symmetric_meets_symmetric: Symmetric Symmetric,
}
