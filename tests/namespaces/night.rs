//! A night: four peers that stay, two that come and go, pings and files between them. Memory and file descriptors of
//! those who stay, and of the rendezvous, must be flat, and nobody may have warned of anything.
//!
//! ```text
//!   anna ── full cone ──────┐                ┌── symmetric ───────────── dora
//!   bert ── port-restricted ─ core ── relay ─┤
//!   carl ── masquerade ─────┘                └── masquerade, random ──── emil   comes and goes
//!                                             └── public, firewall ───── fred   comes and goes
//! ```
//!
//! `NIGHT_MINUTES=60 cargo test --release --test namespaces night -- --nocapture` is a whole one.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use punchlan::node::status::PeerState;

use crate::lab::programs::{Network, Peer, Pings};
use crate::lab::{Gateway, Lab};
use crate::traffic::{file_digest, send_file};
use crate::turn;

const NAMES: [&str; 6] = ["anna", "bert", "carl", "dora", "emil", "fred"];
const GATEWAYS: [Gateway; 6] = [
    Gateway::FullCone,
    Gateway::PortRestricted,
    Gateway::Masquerade,
    Gateway::Symmetric,
    Gateway::MasqueradeRandom,
    Gateway::PublicFirewall,
];
/// So many of them stay.
const STAY: usize = 4;
const PATIENCE: Duration = Duration::from_secs(10);
/// A look at every process, and then a file.
const ROUND: Duration = Duration::from_secs(5);
/// Somebody goes in every so many rounds, and comes back in the next.
const CHURN: usize = 4;
/// The promise for a whole night, percent; the first minutes of a process take more (connections are met, tables grow).
const GROWTH: (f64, f64) = (5.0, 25.0);
/// From this length on a night is whole.
const WHOLE: Duration = Duration::from_mins(20);
/// Files fill queues, and what a full queue drops is not the tunnel's: so much, percent.
const LOST: f64 = 1.0;

#[test]
fn memory_and_descriptors_stay_flat_while_peers_come_and_go() {
    let _turn = turn();
    let minutes = std::env::var("NIGHT_MINUTES").map_or(0.75, |text| text.parse().expect("a number of minutes"));
    night(Duration::from_secs_f64(minutes * 60.0)).unwrap();
}

fn night(length: Duration) -> Result<()> {
    let lab = Lab::new(&GATEWAYS)?;
    let network = Network::start(&lab)?;
    let mut peers: Vec<Peer<'_>> = (0..NAMES.len()).map(|n| come(&lab, &network, n)).collect::<Result<_>>()?;
    let mut guests = peers.split_off(STAY);
    let rendezvous = network.rendezvous.as_ref().context("it runs")?;
    for peer in &peers {
        for other in peers.iter().filter(|other| other.name != peer.name) {
            peer.await_peer(&other.name, expected(&peer.name, &other.name), PATIENCE)?;
        }
    }
    let ring = (0..STAY).map(|n| (n, (n + 1) % STAY));
    let pings: Vec<Pings<'_>> =
        ring.map(|(from, to)| peers[from].start_pings(peers[to].address)).collect::<Result<_>>()?;

    let mut diaries: Vec<Diary> = peers.iter().map(|peer| Diary::of(&peer.name, peer.program.pid())).collect();
    diaries.push(Diary::of("rendezvous", rendezvous.pid()));
    let (start, sent) = (Instant::now(), file_digest());
    for round in 0.. {
        if start.elapsed() >= length {
            break;
        }
        let next = Instant::now() + ROUND;
        churn(&lab, &network, &mut guests, round)?;
        for (from, to) in [(0, 1), (2, 3)] {
            let address = (peers[to].address, 7000).into();
            let arrived = send_file(&peers[to], &peers[from], address)?;
            ensure!(arrived == sent, "the file to {} is another", peers[to].name);
        }
        diaries.iter_mut().try_for_each(Diary::note)?;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }

    for guest in &mut guests {
        guest.program.end(Signal::SIGTERM)?;
    }
    println!("{} of one night of {length:?}", Diary::HEADINGS);
    diaries.iter().for_each(|diary| println!("{diary}"));
    for (from, pings) in pings.into_iter().enumerate() {
        let all = pings.said().lines().filter(|line| line.contains("bytes from")).count();
        let flaws = pings.end()?;
        println!("{}: {all} pings answered, {} lost, {} doubled", NAMES[from], flaws.lost, flaws.doubled);
        assert!(share(flaws.lost, all) <= LOST, "{}: {flaws:?} of {all}", NAMES[from]);
    }
    let growth = if length >= WHOLE { GROWTH.0 } else { GROWTH.1 };
    for diary in &diaries {
        assert!(diary.growth() <= growth, "{diary}");
        assert!(diary.more_descriptors() <= 0, "{diary}");
    }
    for peer in peers.iter().chain(&guests) {
        assert_quiet(&peer.name, &peer.program.said());
    }
    for peer in &peers {
        let warnings: String =
            peer.status()?.warnings.iter().map(|warning| format!("WARN {}\n", warning.text)).collect();
        assert_quiet(&peer.name, &warnings);
    }
    assert_quiet("rendezvous", &rendezvous.said());
    Ok(())
}

/// A peer comes, and is here when it is registered.
fn come<'a>(lab: &'a Lab, network: &Network, n: usize) -> Result<Peer<'a>> {
    network.join(lab.host(n), NAMES[n], u8::try_from(n + 1)?)
}

/// What two of those who stay are to each other: only behind two strict routers they are relayed.
fn expected(a: &str, b: &str) -> PeerState {
    let strict = |name: &str| ["bert", "carl"].contains(&name);
    let symmetric = |name: &str| name == "dora";
    if strict(a) && symmetric(b) || strict(b) && symmetric(a) { PeerState::Relayed } else { PeerState::Direct }
}

/// Somebody goes (by turns with and without a goodbye), and is back in the next round.
fn churn<'a>(lab: &'a Lab, network: &Network, guests: &mut Vec<Peer<'a>>, round: usize) -> Result<()> {
    if round.is_multiple_of(CHURN) {
        let mut guest = guests.remove(0);
        let signal = if (round / CHURN) % 4 < 2 { Signal::SIGTERM } else { Signal::SIGKILL };
        guest.program.end(signal)?;
        assert_quiet(&guest.name, &guest.program.said());
    } else if guests.len() < NAMES.len() - STAY {
        let n = NAMES.iter().position(|name| *name == guests[0].name).context("a guest")?;
        guests.push(come(lab, network, if n == STAY { STAY + 1 } else { STAY })?);
    }
    Ok(())
}

/// Nothing was said that somebody must act on, but for what files through a relay cause.
pub(crate) fn assert_quiet(name: &str, said: &str) {
    let relayed = |line: &str| line.contains("has reached its limit for relayed traffic");
    let loud = |line: &&str| ["WARN", "ERROR", "panicked"].iter().any(|word| line.contains(word)) && !relayed(line);
    let lines: Vec<&str> = said.lines().filter(loud).collect();
    assert!(lines.is_empty(), "{name} said {lines:#?}");
}

/// What one process held, from the beginning to the end.
pub(crate) struct Diary {
    name: String,
    pid: Pid,
    /// Resident, kB.
    memory: Vec<u64>,
    descriptors: Vec<usize>,
}

impl Diary {
    pub(crate) const HEADINGS: &str = "process      begin kB     end kB   growth    files      memory";

    pub(crate) fn of(name: &str, pid: Pid) -> Self {
        Self { name: name.to_owned(), pid, memory: Vec::new(), descriptors: Vec::new() }
    }

    pub(crate) fn note(&mut self) -> Result<()> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).context(self.name.clone())?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        self.memory.push(resident.context("VmRSS in kB")?.parse()?);
        self.descriptors.push(fs::read_dir(format!("/proc/{}/fd", self.pid))?.count());
        Ok(())
    }

    /// The medians of the second and the last tenth: the first is for meeting everybody.
    fn ends(&self) -> (u64, u64) {
        let tenth = (self.memory.len() / 10).max(1);
        let begin = &self.memory[tenth.min(self.memory.len() - 1)..];
        (median(&begin[..tenth.min(begin.len())]), median(&self.memory[self.memory.len() - tenth..]))
    }

    /// Percent.
    pub(crate) fn growth(&self) -> f64 {
        let (begin, end) = self.ends();
        #[allow(clippy::cast_precision_loss, reason = "kilobytes of a process")]
        let growth = (end as f64 / begin as f64 - 1.0) * 100.0;
        growth
    }

    /// Descriptors at the end beyond the most of the first half: one that is open for a moment does not count.
    fn more_descriptors(&self) -> i64 {
        let count = |n: Option<&usize>| n.map_or(0, |n| i64::try_from(*n).expect("a count"));
        count(self.descriptors.last()) - count(self.descriptors[..self.descriptors.len().div_ceil(2)].iter().max())
    }
}

impl std::fmt::Display for Diary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (begin, end) = self.ends();
        let (first, last) = (self.descriptors.first().unwrap_or(&0), self.descriptors.last().unwrap_or(&0));
        let (name, growth, line) = (&self.name, self.growth(), sparkline(&self.memory));
        write!(f, "{name:<10} {begin:>10} {end:>10} {growth:>+7.1} % {first:>3} → {last:<3}   {line}")
    }
}

/// At most 60 columns; from nothing to the most.
fn sparkline(values: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let columns = values.chunks(values.len().div_ceil(60).max(1));
    columns.map(|part| BARS[usize::try_from(median(part) * 7 / most).expect("one of eight")]).collect()
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() / 2]
}

/// Percent of all.
#[allow(clippy::cast_precision_loss, reason = "counts of pings")]
fn share(part: usize, rest: usize) -> f64 {
    part as f64 * 100.0 / (part + rest).max(1) as f64
}
