//! What happens of an evening, over real NATs: the longest silence that each event costs a direct and a relayed pair.
//!
//! ```text
//!   alice ── port-restricted ─┐                    ┌── port-restricted ── carol ┐
//!     direct                  core ── rendezvous ─ core                         relayed
//!   bob ──── masquerade ──────┘                    └── symmetric ──────── dave  ┘
//! ```
//!
//! What happens, happens to bob and to dave, or to the rendezvous, while alice and carol ping them ten times a second.
//! `LAB_RUNS=5 cargo test --release --test namespaces events -- --nocapture` prints medians and worst of five runs.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use punchlan::node::status::{PeerState, RendezvousState};

use crate::lab::programs::{Network, Peer, Program};
use crate::lab::pulse::{Pulse, wall};
use crate::lab::{Gateway, Lab, RENDEZVOUS, RENDEZVOUS_2, RENDEZVOUS_V6, SitePlan, netns};
use crate::turn;

/// The promise.
const SILENCE: Duration = Duration::from_secs(3);
/// How long the pings are listened to after an event.
const WATCH: Duration = Duration::from_secs(10);
/// Both pairs talk so long before anything happens: paths are settled.
const CALM: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(15);
/// Until the pair is again what it was: a Linux router that gave bob another port has to forget it first, and his
/// searches for dave, which are in vain, hold it meanwhile.
const RECOVERY: Duration = Duration::from_secs(300);
/// Labs side by side: most of an event is waiting.
const AT_ONCE: usize = 5;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

const BOB: usize = 1;
const DAVE: usize = 3;
const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// Each with the site of the other.
const PAIRS: [(usize, usize, PeerState); 2] = [(0, BOB, PeerState::Direct), (2, DAVE, PeerState::Relayed)];
/// Those to whom things happen.
const VICTIMS: [usize; 2] = [BOB, DAVE];

/// The name of the rendezvous, where it has one.
const MEET: &str = "meet.example";

/// One row of the table.
struct Event {
    name: &'static str,
    setting: Setting,
    /// Makes it happen; from then on silence counts.
    happen: fn(&mut Stage<'_>) -> Result<SystemTime>,
    /// The pairs that must live: a relayed one cannot without any relay.
    pairs: &'static [usize],
}

/// What the stage is like before.
#[derive(Clone, Copy)]
struct Setting {
    ipv6: bool,
    short_mappings: bool,
    second_server: bool,
    named: bool,
    /// The victims have run with a clock that was a day ahead.
    ahead: bool,
    /// A site with two more machines.
    spare: bool,
}

const PLAIN: Setting =
    Setting { ipv6: false, short_mappings: false, second_server: false, named: false, ahead: false, spare: false };
const BOTH: &[usize] = &[0, 1];
const DIRECT: &[usize] = &[0];

/// The longest come first: so they end together.
const EVENTS: [Event; 17] = [
    Event { name: "suspended for 200 s", setting: PLAIN, happen: suspended, pairs: BOTH },
    Event {
        name: "60 s of silence, 20 s mappings",
        setting: Setting { short_mappings: true, ..PLAIN },
        happen: silence,
        pairs: BOTH,
    },
    Event { name: "line dead for 15 s", setting: PLAIN, happen: dead_line, pairs: BOTH },
    Event { name: "direct path lost, relay lives", setting: PLAIN, happen: direct_lost, pairs: DIRECT },
    Event { name: "relay path lost, direct lives", setting: PLAIN, happen: relay_lost, pairs: DIRECT },
    Event { name: "nothing", setting: PLAIN, happen: |_| Ok(wall()), pairs: BOTH },
    Event { name: "router forgets its mappings", setting: PLAIN, happen: forgets, pairs: BOTH },
    Event { name: "router gets another address", setting: PLAIN, happen: redials, pairs: BOTH },
    Event { name: "rendezvous killed for good", setting: PLAIN, happen: server_killed, pairs: DIRECT },
    Event {
        name: "one of two rendezvous killed",
        setting: Setting { second_server: true, ..PLAIN },
        happen: server_killed,
        pairs: BOTH,
    },
    Event { name: "rendezvous killed, back after 5 s", setting: PLAIN, happen: server_back, pairs: BOTH },
    Event {
        name: "the same, at another address",
        setting: Setting { named: true, ..PLAIN },
        happen: server_moved,
        pairs: BOTH,
    },
    Event { name: "killed, back after 2 s", setting: PLAIN, happen: killed, pairs: BOTH },
    Event {
        name: "clock a day back, restarted",
        setting: Setting { ahead: true, ..PLAIN },
        happen: restarted,
        pairs: BOTH,
    },
    Event { name: "copied state folder", setting: Setting { spare: true, ..PLAIN }, happen: copied, pairs: BOTH },
    Event { name: "Wi-Fi to cable", setting: PLAIN, happen: rewired, pairs: BOTH },
    Event { name: "IPv4 to IPv6", setting: Setting { ipv6: true, named: true, ..PLAIN }, happen: to_ipv6, pairs: BOTH },
];

#[test]
fn events_of_an_evening_cost_a_moment() {
    let _turn = turn();
    let runs: usize = std::env::var("LAB_RUNS").map_or(1, |text| text.parse().expect("a number of runs"));
    let only = std::env::var("LAB_EVENT").ok();
    let wanted = |event: &&Event| only.as_ref().is_none_or(|only| event.name.contains(only.as_str()));
    let jobs: Vec<&Event> =
        EVENTS.iter().filter(wanted).flat_map(|event| std::iter::repeat_n(event, runs)).rev().collect();
    let jobs = Mutex::new(jobs);
    let results: Mutex<BTreeMap<&str, Vec<Gaps>>> = Mutex::default();
    let wrong: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(event) = jobs.lock().unwrap().pop() else { return };
                    let mut gaps = Gaps::default();
                    if let Err(error) = run(event, &mut gaps) {
                        wrong.lock().unwrap().push(format!("{}: {error:#}", event.name));
                    }
                    results.lock().unwrap().entry(event.name).or_default().push(gaps);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    println!("longest silence after an event, s: median (worst) of {runs}\n{:<34}direct         relayed", "");
    let mut wrong = wrong.into_inner().unwrap();
    for event in EVENTS.iter().filter(wanted) {
        let mut row = format!("{:<34}", event.name);
        for pair in BOTH {
            let mut gaps: Vec<Duration> = results[event.name].iter().filter_map(|of_pairs| of_pairs[*pair]).collect();
            gaps.sort_unstable();
            let cell = match gaps.last() {
                Some(worst) => format!("{:.1} ({:.1})", gaps[gaps.len() / 2].as_secs_f64(), worst.as_secs_f64()),
                None => "-".to_owned(),
            };
            row += &format!("{cell:<15}");
            wrong.extend(gaps.iter().filter(|gap| **gap > SILENCE).map(|gap| format!("{}: {gap:?}", event.name)));
        }
        println!("{}", row.trim_end());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The longest silence of each pair.
type Gaps = [Option<Duration>; 2];

/// Two pairs that talk.
struct Stage<'a> {
    lab: &'a Lab,
    network: Network,
    /// The second rendezvous, and copies of peers: they have to be there, no more.
    others: (Option<Program>, Vec<Peer<'a>>),
    peers: Vec<Peer<'a>>,
    pulses: Vec<Pulse>,
}

/// One event, once. Fails if a pair does not become what it was; the silence is known by then.
fn run(event: &Event, gaps: &mut Gaps) -> Result<()> {
    let lab = build(event.setting)?;
    let mut stage = Stage::set(&lab, event.setting)?;
    std::thread::sleep(CALM);
    let start = (event.happen)(&mut stage)?;
    std::thread::sleep(WATCH);
    for &pair in event.pairs {
        gaps[pair] = Some(stage.pulses[pair].longest_gap(start));
    }
    for &pair in event.pairs {
        let (a, b, state) = PAIRS[pair];
        if gaps[pair] > Some(SILENCE) {
            println!("{}: {:?}; {} said:\n{}", event.name, gaps[pair], NAMES[b], stage.said(b));
        }
        let end = stage.peers[a].await_peer(NAMES[b], state, RECOVERY);
        end.with_context(|| format!("what {} said:\n{}", NAMES[b], stage.said(b)))?;
    }
    Ok(())
}

fn build(setting: Setting) -> Result<Lab> {
    let gateways = [Gateway::PortRestricted, Gateway::Masquerade, Gateway::Symmetric, Gateway::Symmetric];
    let plan = |gateway| {
        let plan = SitePlan::new(gateway);
        let plan = if setting.ipv6 { plan.with_ipv6() } else { plan };
        if setting.short_mappings { plan.mappings(SECOND * 20) } else { plan }
    };
    let mut plans: Vec<SitePlan> = gateways.map(plan).into();
    if setting.spare {
        plans.push(SitePlan::new(Gateway::PortRestricted).hosts(2));
    }
    let lab = Lab::new(&plans)?;
    if setting.ipv6 {
        // Else nobody would be relayed.
        lab.block(&[r#"meta nfproto ipv6 iifname { "site2", "site3" } oifname { "site2", "site3" }"#])?;
    }
    let mut hosts = format!("127.0.0.1 localhost\n{RENDEZVOUS} {MEET}\n");
    if setting.ipv6 {
        hosts += &format!("{RENDEZVOUS_V6} {MEET}\n");
    }
    lab.sites.iter().flat_map(|site| &site.hosts).try_for_each(|host| host.netns.set_hosts(&hosts))?;
    Ok(lab)
}

impl<'a> Stage<'a> {
    fn set(lab: &'a Lab, setting: Setting) -> Result<Self> {
        let mut network = Network::start(lab)?;
        let mut second = None;
        if setting.second_server {
            second = Some(network.serve(&lab.rendezvous, "second", "[::]:3479")?);
            network.servers = vec![format!("{RENDEZVOUS}:3478"), format!("{RENDEZVOUS}:3479")];
        }
        if setting.named {
            network.servers = vec![format!("{MEET}:3478")];
        }
        if setting.ahead {
            VICTIMS.iter().try_for_each(|n| network.ran_ahead(NAMES[*n], DAY))?;
        }
        let peers = (0..NAMES.len()).map(|n| network.up(lab.host(n), NAMES[n], number(n)));
        let peers: Vec<Peer<'_>> = peers.collect::<Result<_>>()?;
        for (a, b, state) in PAIRS {
            peers[a].await_peer(NAMES[b], state, PATIENCE)?;
            peers[b].await_peer(NAMES[a], state, PATIENCE)?;
        }
        let pulse = |(a, b, _): &(usize, usize, _)| {
            Pulse::start(&peers[*a].host.netns, peers[*b].address, &peers[*a].folder().join("pulse"))
        };
        let pulses = PAIRS.iter().map(pulse).collect::<Result<_>>()?;
        Ok(Self { lab, network, others: (second, Vec::new()), peers, pulses })
    }

    fn server(&mut self) -> Result<&mut Program> {
        self.network.rendezvous.as_mut().context("the rendezvous runs")
    }

    fn up(&self, n: usize) -> Result<Peer<'a>> {
        self.network.up(self.lab.host(n), NAMES[n], number(n))
    }

    fn said(&self, n: usize) -> String {
        self.peers[n].program.said()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        VICTIMS.iter().try_for_each(|n| Ok(kill(self.peers[*n].program.pid(), signal)?))
    }
}

fn number(n: usize) -> u8 {
    u8::try_from(n + 1).expect("four peers")
}

// ---- what happens ----

fn forgets(stage: &mut Stage<'_>) -> Result<SystemTime> {
    VICTIMS.iter().try_for_each(|n| stage.lab.sites[*n].forget())?;
    Ok(wall())
}

fn redials(stage: &mut Stage<'_>) -> Result<SystemTime> {
    VICTIMS.iter().try_for_each(|n| stage.lab.sites[*n].redial(&stage.lab.core))?;
    Ok(wall())
}

fn dead_line(stage: &mut Stage<'_>) -> Result<SystemTime> {
    stage.lab.block(&[r#"iifname { "site1", "site3" }"#, r#"oifname { "site1", "site3" }"#])?;
    std::thread::sleep(SECOND * 15);
    stage.lab.block(&[])?;
    Ok(wall())
}

fn direct_lost(stage: &mut Stage<'_>) -> Result<SystemTime> {
    let start = wall();
    stage.lab.block(&[r#"iifname { "site0", "site1" } oifname { "site0", "site1" }"#])?;
    stage.peers[0].await_peer(NAMES[BOB], PeerState::Relayed, PATIENCE)?;
    std::thread::sleep(SECOND * 20);
    stage.lab.block(&[])?;
    Ok(start)
}

fn relay_lost(stage: &mut Stage<'_>) -> Result<SystemTime> {
    let start = wall();
    stage.lab.block(&[r#"iifname "site1" oifname "rv""#, r#"iifname "rv" oifname "site1""#])?;
    stage.peers[BOB].await_status("to miss the rendezvous", SECOND * 40, |status| {
        status.rendezvous[0].state == RendezvousState::Unreachable
    })?;
    stage.lab.block(&[])?;
    Ok(start)
}

fn server_killed(stage: &mut Stage<'_>) -> Result<SystemTime> {
    stage.server()?.end(Signal::SIGKILL)?;
    Ok(wall())
}

fn server_back(stage: &mut Stage<'_>) -> Result<SystemTime> {
    stage.server()?.end(Signal::SIGKILL)?;
    std::thread::sleep(SECOND * 5);
    stage.network.start_rendezvous(&stage.lab.rendezvous)?;
    Ok(wall())
}

fn server_moved(stage: &mut Stage<'_>) -> Result<SystemTime> {
    stage.server()?.end(Signal::SIGKILL)?;
    std::thread::sleep(SECOND * 5);
    let hosts = format!("127.0.0.1 localhost\n{RENDEZVOUS_2} {MEET}\n");
    stage.peers.iter().try_for_each(|peer| peer.host.netns.set_hosts(&hosts))?;
    stage.network.rendezvous =
        Some(stage.network.serve(&stage.lab.rendezvous, "rendezvous", &format!("{RENDEZVOUS_2}:3478"))?);
    Ok(wall())
}

fn silence(stage: &mut Stage<'_>) -> Result<SystemTime> {
    let pulses = std::mem::take(&mut stage.pulses);
    let counts: Vec<usize> = pulses.iter().map(Pulse::count).collect();
    ensure!(counts.iter().all(|count| *count > 20), "{counts:?} pings were answered");
    drop(pulses);
    std::thread::sleep(SECOND * 60);
    for (a, b, _) in PAIRS {
        let (peer, target) = (&stage.peers[a], stage.peers[b].address);
        stage.pulses.push(Pulse::start(&peer.host.netns, target, &peer.folder().join("pulse"))?);
    }
    Ok(wall())
}

fn killed(stage: &mut Stage<'_>) -> Result<SystemTime> {
    for n in VICTIMS {
        stage.peers[n].program.end(Signal::SIGKILL)?;
    }
    std::thread::sleep(SECOND * 2);
    restart(stage)
}

fn restarted(stage: &mut Stage<'_>) -> Result<SystemTime> {
    for n in VICTIMS {
        stage.peers[n].program.end(Signal::SIGTERM)?;
    }
    restart(stage)
}

fn restart(stage: &mut Stage<'_>) -> Result<SystemTime> {
    for n in VICTIMS {
        stage.peers[n] = stage.up(n)?;
    }
    Ok(wall())
}

fn suspended(stage: &mut Stage<'_>) -> Result<SystemTime> {
    stage.signal(Signal::SIGSTOP)?;
    std::thread::sleep(SECOND * 200);
    stage.signal(Signal::SIGCONT)?;
    Ok(wall())
}

fn copied(stage: &mut Stage<'_>) -> Result<SystemTime> {
    let (start, lab) = (wall(), stage.lab);
    for (n, host) in VICTIMS.into_iter().zip(&lab.sites[NAMES.len()].hosts) {
        let name = format!("copy-of-{}", NAMES[n]);
        let folder = stage.peers[n].folder();
        netns::run(Command::new("cp").arg("-r").arg(folder).arg(folder.with_file_name(&name)))?;
        let copy = stage.network.up(host, &name, number(n + NAMES.len()))?;
        copy.await_status("to be told that it is a copy", PATIENCE, |status| {
            status.warnings.iter().any(|warning| warning.code == "duplicate")
        })?;
        stage.others.1.push(copy);
    }
    Ok(start)
}

fn rewired(stage: &mut Stage<'_>) -> Result<SystemTime> {
    VICTIMS.iter().try_for_each(|n| stage.lab.sites[*n].rewire(0))?;
    Ok(wall())
}

fn to_ipv6(stage: &mut Stage<'_>) -> Result<SystemTime> {
    for n in VICTIMS {
        let host = stage.lab.host(n);
        host.netns.ip(&format!("addr del {}/24 dev eth0", host.v4.context("it has IPv4")?))?;
    }
    Ok(wall())
}
