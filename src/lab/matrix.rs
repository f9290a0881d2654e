//! Every pair of some sites, several times: what `punchlan lab` does and prints.
//!
//! 1. Each gateway is [verified](super::verify): what is concluded from a name must be true.
//! 2. Each unordered pair meets, each time in a fresh internet with a fresh network; every other time the other side
//!    is the first. Several internets may stand side by side ([`Plan::jobs`]): nothing joins their namespaces.
//! 3. A pair is held against the [oracle]: the way that it ended on, and what `punchlan why` says of that on both sides.
//!
//! # The JSON of `punchlan lab --json`
//!
//! A [`Matrix`], a contract as that of `status`: fields are added, never renamed; what is not known is `null`.
//! ```json
//! {"schema":1,"version":"0.1.0","runs":5,"rendezvous_delay_ms":0,"interrupted":false,
//!  "gateways":[{"name":"masquerade","found":{"mapping":"endpoint-independent","filtering":"address-and-port-dependent",
//!               "allocation":"preserved","remembers_unsolicited":true},"wrong":null}],
//!  "cells":[{"a":"masquerade","b":"symmetric-random","expected":["search"],"as_expected":true,"way":"search",
//!            "first_ping_ms":{"median":61,"worst":75},"direct_ms":{"median":1210,"worst":2400},
//!            "runs":[{"way":"search","first_ping_ms":61,"direct_ms":1210,"lost":0,"doubled":0,
//!                     "paths":[{"kind":"peer-reflexive","transport":"udp","…":"…"},null],
//!                     "cause":"direct","cause_there":"direct","explained":true,"search":"found","error":null}]}],
//!  "summary":{"cells":1,"ways":{"search":1},"unexpected":0,
//!             "first_ping_ms":{"median":61,"worst":75},"direct_ms":{"median":1210,"worst":2400}}}
//! ```
//! `way` and `expected`: [`Way`]; that of a cell is its worst run's. `paths`: of `status`, on `a` and on `b`. `cause`,
//! `search`: of `why`, on `a`; `cause_there`: on `b`; `explained`: both are what the gateways are reason for. `error`: what went wrong instead. `ways` counts cells. Times count from the start of the
//! second peer's process; those of the summary are over all runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::meeting::{Meeting, Watch, meet};
use super::oracle::{self, Way};
use super::programs::Network;
use super::verify::{Verified, verify};
use super::{Lab, SitePlan, interrupt};
use crate::node::status::Path;
use crate::node::why::{Cause, SearchState};

/// The number of the JSON's schema.
const SCHEMA: u32 = 1;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The punchlan that is run.
    pub program: PathBuf,
    /// Each with each.
    pub sites: Vec<SitePlan>,
    /// How often.
    pub runs: usize,
    /// How many at a time.
    pub jobs: usize,
    /// What every packet from the rendezvous takes more.
    pub rendezvous_delay: Duration,
    /// Whether they meet; else the gateways alone are verified.
    pub meets: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the module's documentation says it")]
pub struct Matrix {
    pub schema: u32,
    pub version: &'static str,
    pub runs: usize,
    pub rendezvous_delay_ms: u128,
    pub interrupted: bool,
    pub gateways: Vec<Verified>,
    pub cells: Vec<Cell>,
    pub summary: Summary,
}

/// A pair.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the module's documentation says it")]
pub struct Cell {
    pub a: String,
    pub b: String,
    pub expected: Vec<Way>,
    pub as_expected: bool,
    pub way: Way,
    pub first_ping_ms: Option<Times>,
    pub direct_ms: Option<Times>,
    pub runs: Vec<Run>,
}

/// Once.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the module's documentation says it")]
pub struct Run {
    pub way: Way,
    pub first_ping_ms: Option<u128>,
    pub direct_ms: Option<u128>,
    pub lost: Option<usize>,
    pub doubled: Option<usize>,
    pub paths: [Option<Path>; 2],
    pub cause: Option<Cause>,
    pub cause_there: Option<Cause>,
    pub explained: bool,
    pub search: Option<SearchState>,
    pub error: Option<String>,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Times {
    pub median: u128,
    pub worst: u128,
}

/// All cells.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the module's documentation says it")]
pub struct Summary {
    pub cells: usize,
    pub ways: BTreeMap<Way, usize>,
    pub unexpected: usize,
    pub first_ping_ms: Option<Times>,
    pub direct_ms: Option<Times>,
}

/// What is told while it goes on.
#[derive(Debug)]
pub enum News<'a> {
    /// A gateway was looked at.
    Gateway(&'a Verified),
    /// A cell is done: how many are, of how many, and about how long the others will take.
    Cell {
        /// The cell.
        cell: &'a Cell,
        /// So many are done…
        done: usize,
        /// …of so many.
        of: usize,
        /// So long will the others take.
        left: Duration,
    },
}

/// Does it all; when [interrupted](interrupt), what was done until then.
pub fn run(plan: &Plan, tell: &(dyn Fn(News<'_>) + Sync)) -> Matrix {
    let gateways = side_by_side(plan.jobs, plan.sites.len(), |site| {
        let verified = verify(plan.sites[site]);
        if interrupt::is_interrupted() {
            return None;
        }
        tell(News::Gateway(&verified));
        Some(verified)
    });
    let gateways = gateways.into_iter().flatten().collect();
    let cells = if plan.meets { meet_all(plan, tell) } else { Vec::new() };
    Matrix {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        runs: plan.runs,
        rendezvous_delay_ms: plan.rendezvous_delay.as_millis(),
        interrupted: interrupt::is_interrupted(),
        gateways,
        summary: Summary::of(&cells),
        cells,
    }
}

/// Every unordered pair, each with itself too.
fn pairs(sites: &[SitePlan]) -> Vec<(SitePlan, SitePlan)> {
    sites.iter().enumerate().flat_map(|(n, a)| sites[n..].iter().map(move |b| (*a, *b))).collect()
}

fn meet_all(plan: &Plan, tell: &(dyn Fn(News<'_>) + Sync)) -> Vec<Cell> {
    let (pairs, start) = (pairs(&plan.sites), Instant::now());
    let runs: Vec<Mutex<Vec<Run>>> = pairs.iter().map(|_| Mutex::default()).collect();
    let (total, met) = (pairs.len() * plan.runs, AtomicUsize::new(0));
    let done = AtomicUsize::new(0);
    let cells = side_by_side(plan.jobs, total, |number| {
        let (pair, turn) = (number / plan.runs, number % plan.runs);
        let run = Run::of(pairs[pair], meet_once(plan, pairs[pair], turn));
        if interrupt::is_interrupted() {
            return None;
        }
        let met = met.fetch_add(1, Ordering::Relaxed) + 1;
        let mut runs = runs[pair].lock().unwrap_or_else(PoisonError::into_inner);
        runs.push(run);
        if runs.len() < plan.runs {
            return None;
        }
        let cell = Cell::of(pairs[pair], std::mem::take(&mut runs));
        let left = start.elapsed().mul_f64((total - met) as f64 / met as f64);
        tell(News::Cell { cell: &cell, done: done.fetch_add(1, Ordering::Relaxed) + 1, of: pairs.len(), left });
        Some((pair, cell))
    });
    let cells: BTreeMap<usize, Cell> = cells.into_iter().flatten().collect();
    cells.into_values().collect()
}

/// What `work` makes of the numbers below `count`, in their order, so many at a time; when interrupted, of those that
/// were begun.
fn side_by_side<T: Send>(jobs: usize, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (next, made) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let take_turns = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count || interrupt::is_interrupted() {
            return;
        }
        let result = work(number);
        made.lock().unwrap_or_else(PoisonError::into_inner).insert(number, result);
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(take_turns);
        }
    });
    made.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

fn meet_once(plan: &Plan, (a, b): (SitePlan, SitePlan), turn: usize) -> Result<Meeting> {
    let mut lab = Lab::new(&[a, b])?;
    if plan.rendezvous_delay > Duration::ZERO {
        lab.delay(plan.rendezvous_delay, false)?;
    }
    let network = Network::start(&lab, &plan.program)?;
    let (first, second) = if turn.is_multiple_of(2) { (0, 1) } else { (1, 0) };
    let mut meeting = meet(&lab, &network, lab.host(first), lab.host(second), Watch::of(a, b))?;
    // As the pair is named, whoever came first.
    if first > second {
        meeting.why.reverse();
    }
    Ok(meeting)
}

impl Run {
    fn of((a, b): (SitePlan, SitePlan), meeting: Result<Meeting>) -> Self {
        let causes = |meeting: &Meeting| [meeting.why[0].cause, meeting.why[1].cause];
        match meeting {
            Ok(meeting) => Self {
                explained: oracle::causes(a, b, meeting.way()) == Some(causes(&meeting)),
                cause_there: Some(meeting.why[1].cause),
                way: meeting.way(),
                first_ping_ms: Some(meeting.first_ping.as_millis()),
                direct_ms: meeting.direct.map(|time| time.as_millis()),
                lost: Some(meeting.flaws.lost),
                doubled: Some(meeting.flaws.doubled),
                cause: Some(meeting.why[0].cause),
                search: meeting.why[0].search.as_ref().map(|search| search.state),
                paths: meeting.why.map(|why| why.peer.path),
                error: None,
            },
            Err(error) => Self {
                way: Way::None,
                first_ping_ms: None,
                direct_ms: None,
                lost: None,
                doubled: None,
                cause: None,
                cause_there: None,
                explained: false,
                search: None,
                paths: [None, None],
                error: Some(format!("{error:#}")),
            },
        }
    }
}

impl Run {
    /// Whether it ended on one of these ways, and is explained as it should be.
    pub fn is_expected(&self, ways: &[Way]) -> bool {
        self.explained && ways.contains(&self.way)
    }
}

impl Cell {
    fn of((a, b): (SitePlan, SitePlan), runs: Vec<Run>) -> Self {
        let expected = oracle::ways(a, b);
        Self {
            a: a.to_string(),
            b: b.to_string(),
            as_expected: runs.iter().all(|run| run.is_expected(&expected)),
            expected,
            way: runs.iter().map(|run| run.way).max().unwrap_or(Way::None),
            first_ping_ms: Times::of(runs.iter().filter_map(|run| run.first_ping_ms)),
            direct_ms: Times::of(runs.iter().filter_map(|run| run.direct_ms)),
            runs,
        }
    }
}

impl Summary {
    fn of(cells: &[Cell]) -> Self {
        let mut ways = BTreeMap::new();
        for cell in cells {
            *ways.entry(cell.way).or_default() += 1;
        }
        let runs = || cells.iter().flat_map(|cell| &cell.runs);
        Self {
            cells: cells.len(),
            ways,
            unexpected: cells.iter().filter(|cell| !cell.as_expected).count(),
            first_ping_ms: Times::of(runs().filter_map(|run| run.first_ping_ms)),
            direct_ms: Times::of(runs().filter_map(|run| run.direct_ms)),
        }
    }
}

impl Times {
    /// Of these, if there are any.
    pub fn of(times: impl Iterator<Item = u128>) -> Option<Self> {
        let mut times: Vec<u128> = times.collect();
        times.sort_unstable();
        Some(Self { median: times.get(times.len() / 2).copied()?, worst: times.last().copied()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Gateway;

    fn run(way: Way, direct_ms: Option<u128>) -> Run {
        let none = Run::of([Gateway::Public.into(); 2].into(), Err(anyhow::anyhow!("made up")));
        Run { way, first_ping_ms: Some(60), direct_ms, explained: true, error: None, ..none }
    }

    #[test]
    fn a_cell_is_as_good_as_its_worst_run() {
        let pair = (Gateway::Masquerade.into(), Gateway::Symmetric.into());
        let good = Cell::of(pair, vec![run(Way::Search, Some(900)), run(Way::Search, Some(2_000))]);
        assert_eq!((good.way, good.as_expected), (Way::Search, true));
        assert_eq!(good.direct_ms, Some(Times { median: 2_000, worst: 2_000 }));
        let odd = Run { explained: false, ..run(Way::Search, Some(900)) };
        assert!(
            !Cell::of(pair, vec![run(Way::Search, Some(900)), odd]).as_expected,
            "of which why says something else"
        );
        let mixed = Cell::of(pair, vec![run(Way::Relayed, None), run(Way::Search, Some(900))]);
        assert_eq!((mixed.way, mixed.as_expected), (Way::Relayed, false));
        let summary = Summary::of(&[good, mixed]);
        assert_eq!((summary.cells, summary.unexpected), (2, 1));
        assert_eq!(serde_json::to_value(&summary.ways).expect("JSON"), serde_json::json!({"search": 1, "relayed": 1}));
    }

    #[test]
    fn each_pair_is_there_once_and_who_meets_its_like_too() {
        let sites: Vec<SitePlan> = Gateway::TABLE.map(SitePlan::from).to_vec();
        assert_eq!(pairs(&sites).len(), 15);
    }

    #[test]
    fn work_side_by_side_comes_back_in_order() {
        assert_eq!(side_by_side(3, 20, |number| number * 2), (0..20).map(|number| number * 2).collect::<Vec<_>>());
    }
}
