//! Who becomes direct, and how quickly: every pair of gateways, with daemons.
//!
//! ```text
//!   alice ── gateway A ──┐
//!                       core ── rendezvous
//!   bob ──── gateway B ──┘
//! ```
//!
//! `LAB_RUNS=10 cargo test --test namespaces table -- --nocapture` measures each pair ten times.

use std::time::Duration;

use anyhow::ensure;

use crate::lab::meeting::{Meeting, Watch, meet};
use crate::lab::oracle::{Way, ways};
use crate::lab::programs::{Flaws, Network};
use crate::lab::{Gateway, Lab, SitePlan};
use crate::{pairs, shared_turn};

/// The promise on a short way: first answered ping, and direct where direct is possible. Held against it only when
/// the table is measured, on a machine that has nothing else to do; a test must not fail because a machine is busy.
const LIMIT: Duration = Duration::from_millis(1500);
/// The same where only a search leads there: half of the pairs, and each.
const SEARCH_LIMITS: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(8)];
/// What loss may cost.
const LOSSY_LIMIT: Duration = Duration::from_secs(6);

/// What lies between the sites.
#[derive(Clone, Copy, Debug, Default)]
struct Internet {
    /// What every packet from the rendezvous takes more.
    to_rendezvous: Duration,
    /// What every packet takes more.
    everywhere: Duration,
    /// Packets that are lost, of a thousand.
    loss: u32,
}

#[test]
fn every_pair_of_the_five_kinds_is_direct_or_relayed_as_the_table_says() {
    let _turn = shared_turn();
    table(Internet::default(), pairs());
}

#[test]
fn far_away_and_with_loss_the_table_is_the_same() {
    let _turn = shared_turn();
    let internet = Internet { everywhere: Duration::from_millis(50), loss: 50, ..Internet::default() };
    let hard = [
        (Gateway::AddressRestricted, Gateway::Symmetric),
        (Gateway::PortRestricted, Gateway::PortRestricted),
        (Gateway::PortRestricted, Gateway::Symmetric),
    ];
    table(internet, hard);
}

#[test]
fn linux_routers_meet_directly_unless_both_are_fully_random() {
    let _turn = shared_turn();
    let cells = [
        (Gateway::Masquerade, Gateway::Masquerade),
        (Gateway::Masquerade, Gateway::MasqueradeDroppingInput),
        (Gateway::Masquerade, Gateway::MasqueradeRandom),
        (Gateway::MasqueradeRandom, Gateway::MasqueradeRandom),
        (Gateway::Masquerade, Gateway::FullCone),
        (Gateway::PublicFirewall, Gateway::Masquerade),
    ];
    table(Internet::default(), cells);
}

/// A probe that reaches a Linux router before its own side has written to the sender costs the preserved
/// port. The longer the way to the rendezvous, the later one side hears what the other already acts on.
#[test]
fn linux_routers_are_primed_before_the_first_probe_however_far_the_rendezvous() {
    let _turn = shared_turn();
    for milliseconds in [10, 200] {
        let internet = Internet { to_rendezvous: Duration::from_millis(milliseconds), ..Internet::default() };
        table(internet, [(Gateway::Masquerade, Gateway::Masquerade)]);
    }
}

#[test]
fn two_ipv6_firewalls_are_punched_and_ipv6_saves_two_symmetric_nats() {
    let _turn = shared_turn();
    let symmetric = SitePlan::new(Gateway::Symmetric).with_ipv6();
    let cells = [(Gateway::Ipv6Firewall.into(), Gateway::Ipv6Firewall.into()), (symmetric, symmetric)];
    table(Internet::default(), cells);
}

/// Those that let in only whom they have written to…
const STRICT: [Gateway; 4] =
    [Gateway::PortRestricted, Gateway::PublicFirewall, Gateway::Masquerade, Gateway::CarrierCone];
/// …and those that give each destination another port: a search over ports leads from one to the other.
const CHANGING: [Gateway; 6] = [
    Gateway::SymmetricSequential,
    Gateway::SymmetricBlock,
    Gateway::Symmetric,
    Gateway::AddressDependent,
    Gateway::MasqueradeRandom,
    Gateway::CarrierSymmetric,
];

/// Each kind once; when the table is measured each with each.
#[test]
fn who_gives_each_destination_another_port_is_found_by_a_search() {
    let _turn = shared_turn();
    let cells =
        STRICT.iter().enumerate().flat_map(|(n, a)| CHANGING.iter().enumerate().map(move |(m, b)| (n, *a, m, *b)));
    let cells = cells.filter(|(n, _, m, _)| is_measured() || n == &(m % STRICT.len()));
    table(Internet::default(), cells.map(|(_, a, _, b)| (a, b)));
}

/// How often each pair meets when the table is measured.
const RUNS: &str = "LAB_RUNS";

pub(crate) fn is_measured() -> bool {
    std::env::var_os(RUNS).is_some()
}

/// Measures each pair and prints the times; every failing cell is named, not only the first.
fn table<P: Into<SitePlan>>(internet: Internet, cells: impl IntoIterator<Item = (P, P)>) {
    let runs = std::env::var(RUNS).map_or(1, |runs| runs.parse().expect("a number"));
    let (mut failed, mut again, mut met) = (Vec::new(), 0, 0);
    println!("\n{internet:?}\n{:56} {:>17} {:>17}", "", "first ping, ms", "direct, ms");
    for (a, b) in cells.into_iter().map(|(a, b)| (a.into(), b.into())) {
        let pair = format!("{a} × {b}");
        let by_search = ways(a, b) == [Way::Search];
        let meetings: anyhow::Result<Vec<_>> = (0..runs)
            .map(|run| match meet_once(internet, a, b, run) {
                // Two of a hundred searches are in vain; two in a row are not.
                Err(error) if by_search => {
                    println!("{pair}: once more after {error:#}");
                    again += 1;
                    meet_once(internet, a, b, run)
                }
                other => other,
            })
            .collect();
        match meetings {
            Ok(meetings) => {
                println!("{}", row(&pair, &meetings));
                met += meetings.len();
                let median = median(&meetings);
                if is_measured() && by_search && median > SEARCH_LIMITS[0] {
                    failed.push(format!("{pair}: direct after {median:?}"));
                }
                failed.extend(
                    meetings.iter().filter_map(|m| internet.complaint(m, by_search)).map(|what| pair.clone() + &what),
                );
            }
            Err(error) => {
                println!("{pair:56} {error:#}");
                failed.push(format!("{pair}: {error:#}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(again <= 1 + met / 20, "{again} of {met} searches in vain");
}

fn median(meetings: &[Meeting]) -> Duration {
    let mut times: Vec<Duration> = meetings.iter().filter_map(|meeting| meeting.direct).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Each run takes a fresh internet; every other one starts the other side first.
fn meet_once(internet: Internet, a: SitePlan, b: SitePlan, run: u32) -> anyhow::Result<Meeting> {
    let lab = internet.build(a, b)?;
    let (first, second) = if run.is_multiple_of(2) { (0, 1) } else { (1, 0) };
    let network = Network::start(&lab)?;
    let meeting = meet(&lab, &network, lab.host(first), lab.host(second), Watch::of(a, b))?;
    let (expected, way) = (ways(a, b), meeting.way());
    ensure!(expected.contains(&way), "{way}, expected was {expected:?}");
    meeting.settled.ensure(way.is_direct(), lab.loses())?;
    Ok(meeting)
}

impl Internet {
    fn build(self, a: SitePlan, b: SitePlan) -> anyhow::Result<Lab> {
        let mut lab = Lab::new(&[a, b])?;
        if self.everywhere > Duration::ZERO {
            lab.delay(self.everywhere, true)?;
        } else if self.to_rendezvous > Duration::ZERO {
            lab.delay(self.to_rendezvous, false)?;
        }
        lab.lose(self.loss)?;
        Ok(lab)
    }

    /// What is wrong with a meeting that took place.
    fn complaint(self, meeting: &Meeting, by_search: bool) -> Option<String> {
        let limit = if self.loss > 0 { LOSSY_LIMIT } else { LIMIT };
        let direct_limit = if by_search { SEARCH_LIMITS[1].max(limit) } else { limit };
        let in_time = !is_measured() || (meeting.first_ping <= limit && meeting.direct <= Some(direct_limit));
        let perfect = self.loss > 0 || meeting.flaws == Flaws { lost: 0, doubled: 0 };
        (!in_time || !perfect).then(|| format!(": {meeting:?}"))
    }
}

fn row(pair: &str, meetings: &[Meeting]) -> String {
    let first_ping = median_and_worst(meetings.iter().map(|meeting| meeting.first_ping).collect());
    let direct: Option<Vec<_>> = meetings.iter().map(|meeting| meeting.direct).collect();
    let direct = direct.map_or_else(|| "relayed".to_owned(), median_and_worst);
    format!("{pair:56} {first_ping:>17} {direct:>17}")
}

fn median_and_worst(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    match times.as_slice() {
        [] => String::new(),
        [only] => only.as_millis().to_string(),
        [.., worst] => format!("{} (worst {})", times[times.len() / 2].as_millis(), worst.as_millis()),
    }
}
