//! The oracle of searches, proven as that of plain punching is: with machines so simple that they cannot be what is wrong.
//!
//! ```text
//!   one side's port changes:   many sockets, each with a port nobody knows ──▶ ◀── one socket, guess after guess
//!   both change, in order:     guess n from the n-th port ──▶ ◀── guess n from the n-th port
//!   both change, one in a few: any guess from any port ──▶ ◀── any guess from any port, again and again
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use punchlan::id::SocketId;
use punchlan::sans::{Datagram, Instant, Rng, Transmit, Wakeup};

use crate::nat::{Allocation, NatConfig};
use crate::sim::machine::Machine;
use crate::sim::oracle::{Place, direct_by_search_is_possible, direct_is_possible};
use crate::sim::sockets::Sockets;
use crate::sim::world::{HostId, World};
use crate::world::{MIRROR, two_of};

/// The socket that it has from the start.
const FIRST: SocketId = SocketId(0);
/// What one search spends.
const SOCKETS: usize = 256;
const GUESSES: usize = 1_500;
/// As many as a block has ports, but for one that the mirror sees.
const GUESSES_IN_BLOCK: usize = 1_000;
/// Between two datagrams.
const PACE: Duration = Duration::from_millis(1);
/// After which every NAT here has forgotten everything.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// Sends what it is told to, says hello once to whoever says hello, and remembers at which socket.
struct Searcher {
    mirror: SocketAddr,
    sockets: Sockets,
    shots: VecDeque<(SocketId, SocketAddr)>,
    next: Instant,
    /// What the mirror sees of each socket.
    seen: BTreeMap<SocketId, SocketAddr>,
    heard: Vec<(SocketId, SocketAddr)>,
    out: VecDeque<Transmit>,
}

impl Searcher {
    fn new() -> Self {
        Self {
            mirror: MIRROR.parse().expect("an address"),
            sockets: Sockets::default(),
            shots: VecDeque::new(),
            next: Instant::ZERO,
            seen: BTreeMap::new(),
            heard: Vec::new(),
            out: VecDeque::new(),
        }
    }

    fn send(&mut self, socket: SocketId, to: SocketAddr) {
        self.out.push_back(Transmit { socket, src: None, to, ttl: None, tos: 0, payload: b"hello".to_vec() });
    }
}

impl Machine for Searcher {
    fn handle_datagram(&mut self, _: Instant, d: Datagram<'_>) {
        if d.from == self.mirror {
            let seen = std::str::from_utf8(d.payload).expect("a text").parse().expect("an address");
            self.seen.insert(d.socket, seen);
        } else if !self.heard.contains(&(d.socket, d.from)) {
            self.heard.push((d.socket, d.from));
            self.send(d.socket, d.from);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.next = now + PACE;
        if let Some((socket, to)) = self.shots.pop_front() {
            self.send(socket, to);
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Wakeup> {
        (!self.shots.is_empty()).then(|| Wakeup::new(self.next, "a shot"))
    }

    fn opened(&self) -> &[(SocketId, u16)] {
        self.sockets.all()
    }
}

/// Sends once from each of these sockets to the mirror, and returns where it sees the last.
fn look(world: &mut World, host: HostId, sockets: &[SocketId]) -> SocketAddr {
    let mirror = MIRROR.parse().expect("an address");
    shoot(world, host, sockets.iter().map(|socket| (*socket, mirror)).collect());
    world.run(Duration::from_millis(500));
    world.machine::<Searcher>(host).seen[sockets.last().expect("one at least")]
}

fn shoot(world: &mut World, host: HostId, shots: Vec<(SocketId, SocketAddr)>) {
    world.with(host, |searcher: &mut Searcher, _| searcher.shots.extend(shots));
}

fn open(world: &mut World, host: HostId, count: usize) -> Vec<SocketId> {
    let opened = world.with(host, |searcher: &mut Searcher, _| searcher.sockets.open(count));
    opened.into_iter().map(|(id, _)| id).collect()
}

/// Whether each has heard the other.
fn have_met(world: &World, hosts: [HostId; 2]) -> bool {
    hosts.iter().all(|host| !world.machine::<Searcher>(*host).heard.is_empty())
}

/// Where ports may be, after this one was seen.
fn guesses(nat: NatConfig, seen: SocketAddr, count: usize, rng: &mut Rng) -> Vec<SocketAddr> {
    let count_up = |n: usize| 1024 + u16::try_from((usize::from(seen.port()) - 1024 + n) % 64_512).expect("a port");
    let mut any_of = |first: u16, size: u32| first + u16::try_from(rng.u32() % size).expect("a port");
    let ports = (1..=count).map(|n| match nat.allocation {
        Allocation::Sequential => count_up(n),
        Allocation::Block { first, size } => any_of(first, size.into()),
        Allocation::Preserving | Allocation::Random => any_of(1024, 64_512),
    });
    ports.map(|port| SocketAddr::new(seen.ip(), port)).collect()
}

/// Many sockets behind the NAT whose ports change, and guesses from the one whose port does not.
fn search_one(changing: NatConfig, fixed: Option<NatConfig>) -> bool {
    let (mut world, [many, one]) = two_of(Some(changing), fixed, Searcher::new);
    let target = look(&mut world, one, &[FIRST]);
    let seen = look(&mut world, many, &[FIRST]);
    let sockets = open(&mut world, many, SOCKETS);
    shoot(&mut world, many, sockets.into_iter().map(|socket| (socket, target)).collect());
    world.run(Duration::from_secs(1));
    let guesses = guesses(changing, seen, GUESSES, &mut world.rng);
    shoot(&mut world, one, guesses.into_iter().map(|guess| (FIRST, guess)).collect());
    world.run_until(Duration::from_secs(3), |world| have_met(world, [many, one])).is_some()
}

/// Guesses from both, each of which opens one more port; from time to time all over again.
fn search_both(a: NatConfig, b: NatConfig) -> bool {
    let (mut world, hosts) = two_of(Some(a), Some(b), Searcher::new);
    (0..10).any(|_| {
        let seen = hosts.map(|host| look(&mut world, host, &[FIRST]));
        for (host, nat, seen) in [(hosts[0], b, seen[1]), (hosts[1], a, seen[0])] {
            let guesses = guesses(nat, seen, GUESSES_IN_BLOCK, &mut world.rng);
            shoot(&mut world, host, guesses.into_iter().map(|guess| (FIRST, guess)).collect());
        }
        world.run_until(FORGOTTEN + Duration::from_secs(5), |world| have_met(world, hosts)).is_some()
    })
}

#[test]
fn the_oracle_of_searches_is_what_searches_achieve() {
    let places = || Place::EVERY.into_iter();
    for (a, b) in places().flat_map(|a| places().filter(move |b| a <= *b).map(move |b| (a, b))) {
        let changing = [a, b].map(|place| place.nat().filter(|nat| !direct_is_possible(Some(*nat), STRICT)));
        let met = match changing {
            [Some(changing), None] => search_one(changing, b.nat()),
            [None, Some(changing)] => search_one(changing, a.nat()),
            [Some(a), Some(b)] if direct_by_search_is_possible(Some(a), Some(b)) => search_both(a, b),
            // What is not to be met has no end, and who can be named is not searched for.
            _ => continue,
        };
        assert!(met && direct_by_search_is_possible(a.nat(), b.nat()), "{a} × {b}");
    }
}

/// Whom only those reach whose ports do not change.
const STRICT: Option<NatConfig> = Some(NatConfig::port_restricted());

#[test]
fn only_one_changing_port_or_two_of_few_can_be_searched_for() {
    let possible = |a: Place, b: Place| direct_by_search_is_possible(a.nat(), b.nat());
    for (a, b) in Place::ALL.into_iter().flat_map(|a| Place::ALL.map(|b| (a, b))) {
        assert_eq!(possible(a, b), (a == Place::Symmetric) != (b == Place::Symmetric), "{a} × {b}");
    }
    for few in [Place::Sequential, Place::Block] {
        assert!(possible(few, Place::Sequential) && possible(few, Place::Block));
        assert!(!possible(few, Place::Symmetric) && !possible(Place::AddressDependent, few));
    }
    assert!(!possible(Place::AddressDependent, Place::AddressDependent));
    let masquerade = Some(NatConfig::linux_masquerade());
    assert!(direct_by_search_is_possible(masquerade, Place::Symmetric.nat()), "a preserved port is known");
    assert!(!direct_by_search_is_possible(masquerade, masquerade));
}

#[test]
fn sockets_opened_at_run_time_send_and_hear_until_they_are_closed() {
    let (mut world, [alice, bob]) = two_of(None, None, Searcher::new);
    let sockets = open(&mut world, alice, 2);
    look(&mut world, alice, &[FIRST, sockets[0], sockets[1]]);
    let seen = world.machine::<Searcher>(alice).seen.clone();
    let ports: Vec<(SocketId, u16)> = seen.iter().map(|(socket, seen)| (*socket, seen.port())).collect();
    assert_eq!(ports, [(FIRST, 4000), (SocketId(2), 50_000), (SocketId(3), 50_001)]);

    world.with(alice, |searcher: &mut Searcher, _| searcher.sockets.close(&sockets[..1]));
    shoot(&mut world, bob, sockets.iter().map(|socket| (FIRST, seen[socket])).collect());
    world.run(Duration::from_secs(1));
    let heard: Vec<SocketId> = world.machine::<Searcher>(alice).heard.iter().map(|(socket, _)| *socket).collect();
    assert_eq!(heard, [sockets[1]], "what was closed hears nothing");
    assert!(world.recorder.draw().contains("nobody listens there"));

    let before = world.machine::<Searcher>(bob).heard.len();
    let to_bob = look(&mut world, bob, &[FIRST]);
    shoot(&mut world, alice, vec![(sockets[0], to_bob)]);
    world.run(Duration::from_secs(1));
    assert_eq!(world.machine::<Searcher>(bob).heard.len(), before, "and sends nothing");
}
