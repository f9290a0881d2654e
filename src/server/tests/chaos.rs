//! Random histories: whatever happened, once the line is good everybody alive knows everybody alive and nobody
//! else, and wished-for channels carry.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{S, World};
use crate::rendezvous::State;

const DEVICES: u8 = 6;

#[derive(Clone, Debug)]
enum Step {
    /// The device starts, or is killed and starts again somewhere else.
    Start(u8),
    Kill(u8),
    Leave(u8),
    /// Its NAT gives it another address.
    Rebind(u8),
    Announce(u8),
    Introduce(u8, u8),
    Open(u8, u8),
    Close(u8, u8),
    RestartServer,
    StopServer,
    Loss(u64),
    Run(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let device = || 0..DEVICES;
    prop_oneof![
        4 => device().prop_map(Step::Start),
        1 => device().prop_map(Step::Kill),
        1 => device().prop_map(Step::Leave),
        1 => device().prop_map(Step::Rebind),
        2 => device().prop_map(Step::Announce),
        1 => (device(), device()).prop_map(|(a, b)| Step::Introduce(a, b)),
        4 => (device(), device()).prop_map(|(a, b)| Step::Open(a, b)),
        1 => (device(), device()).prop_map(|(a, b)| Step::Close(a, b)),
        1 => Just(Step::RestartServer),
        1 => Just(Step::StopServer),
        1 => prop_oneof![Just(0), Just(10), Just(40)].prop_map(Step::Loss),
        6 => (1_u64..20_000).prop_map(Step::Run),
    ]
}

/// The world and, for each device, the peer that runs it and whom it wishes a channel to.
struct History {
    world: World,
    runs: [Option<usize>; DEVICES as usize],
    wishes: [[bool; DEVICES as usize]; DEVICES as usize],
    addresses: u16,
}

impl History {
    fn new() -> Self {
        Self { world: World::new(), runs: [None; 6], wishes: [[false; 6]; 6], addresses: 0 }
    }

    fn play(&mut self, step: &Step) {
        let now = self.world.now;
        match *step {
            Step::Start(d) => self.start(d),
            Step::Kill(d) => self.end(d),
            Step::Leave(d) => {
                if let Some(peer) = self.runs[usize::from(d)] {
                    self.world.peers[peer].client.leave(now);
                    self.world.drain();
                    self.world.run(S * 2);
                }
                self.end(d);
            }
            Step::Rebind(d) => {
                let addr = self.fresh_address();
                if let Some(peer) = self.runs[usize::from(d)] {
                    self.world.peers[peer].addr = addr;
                }
            }
            Step::Announce(d) => {
                self.addresses += 1;
                let sealed = self.addresses.to_be_bytes().repeat(256);
                if let Some(peer) = self.runs[usize::from(d)] {
                    self.world.peers[peer].client.set_announcement(now, sealed);
                }
            }
            Step::Introduce(a, b) => self.with(a, b, |world, peer, other| {
                world.peers[peer].client.introduce(now, other);
            }),
            Step::Open(a, b) => self.wish(a, b, true),
            Step::Close(a, b) => self.wish(a, b, false),
            Step::RestartServer => self.world.start(),
            Step::StopServer => self.world.core = None,
            Step::Loss(percent) => self.world.loss = percent,
            Step::Run(ms) => self.world.run(Duration::from_millis(ms)),
        }
        self.world.drain();
    }

    fn fresh_address(&mut self) -> std::net::SocketAddr {
        self.addresses += 1;
        std::net::SocketAddr::new([203, 0, 113, 250].into(), 1000 + self.addresses)
    }

    fn start(&mut self, device: u8) {
        let number = self.runs[usize::from(device)].map_or(0, |old| self.world.peers[old].number + 1000);
        self.end(device);
        let addr = self.fresh_address();
        let peer = self.world.join_as(1, device, u64::from(self.addresses), None);
        self.world.peers[peer].addr = addr;
        self.world.peers[peer].number = number.max(1_000_000 * u64::from(self.addresses));
        self.runs[usize::from(device)] = Some(peer);
    }

    fn end(&mut self, device: u8) {
        self.wishes[usize::from(device)] = [false; 6];
        if let Some(peer) = self.runs[usize::from(device)].take() {
            self.world.peers[peer].alive = false;
        }
    }

    fn with(&mut self, a: u8, b: u8, act: impl FnOnce(&mut World, usize, crate::id::PeerId)) {
        let other = super::world::identity(1, b).device.id();
        if let Some(peer) = self.runs[usize::from(a)].filter(|_| a != b) {
            act(&mut self.world, peer, other);
        }
    }

    fn wish(&mut self, a: u8, b: u8, open: bool) {
        let now = self.world.now;
        if self.runs[usize::from(a)].is_some() && a != b {
            self.wishes[usize::from(a)][usize::from(b)] = open;
        }
        self.with(a, b, |world, peer, other| match open {
            true => world.peers[peer].client.open_channel(now, other),
            false => world.peers[peer].client.close_channel(now, other),
        });
    }

    fn settle_and_check(&mut self) {
        self.world.loss = 0;
        if self.world.core.is_none() {
            self.world.start();
        }
        self.world.run(S * 150);
        let alive: Vec<usize> = self.runs.iter().copied().flatten().collect();
        for peer in &alive {
            let client = &self.world.peers[*peer].client;
            assert_eq!(client.state(), State::Registered, "{:?}", client.problem());
        }
        assert!(self.world.all_know_each_other(&alive));
        let known = self.world.core.as_ref().expect("runs").registrations();
        assert_eq!(known, alive.len());
        for (device, run) in self.runs.iter().enumerate().filter(|(_, run)| run.is_none()) {
            let id = super::world::identity(1, u8::try_from(device).expect("small")).device.id();
            assert!(alive.iter().all(|peer| !self.world.peers[*peer].heard_of(&id)), "{run:?} is a ghost");
        }
        self.check_channels();
    }

    fn check_channels(&mut self) {
        for a in 0..6 {
            for b in 0..6 {
                let (Some(from), Some(to)) = (self.runs[a], self.runs[b]) else { continue };
                let open = self.wishes[a][b] && self.wishes[b][a];
                assert_eq!(self.world.relay(from, to, b"x"), open, "channel {a} to {b}");
                let before = self.world.peers[to].relayed.len();
                self.world.run(S / 10);
                assert_eq!(self.world.peers[to].relayed.len() - before, usize::from(open));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn everybody_alive_knows_everybody_alive_in_the_end(steps in prop::collection::vec(step(), 1..40)) {
        let mut history = History::new();
        for step in &steps {
            history.play(step);
        }
        history.settle_and_check();
    }
}
