//! punchlan and its peers over one link: `scripts/bench [ROUNDS] [SECONDS]`.
//!
//! ```text
//!   a ───────── veth ───────── b        both ends of iperf3 and both daemons share this machine's cores
//!   └── veth ── rv ── veth ────┘        the rendezvous, and the relay
//! ```
//!
//! Every contender is started alone, measured, and ended; then the next; so goes one round, and the next round takes
//! them in turn again: what disturbs the machine disturbs all. Medians are printed, with the least and the most in
//! brackets, and drawn into `target/bench.svg`. Whatever is installed takes part; `PUNCHLAN_OTHER=path` adds another
//! build of punchlan.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench measures real time")]
#![allow(
    clippy::print_stderr,
    dead_code,
    unreachable_pub,
    reason = "it says what it does; the laboratory has more tools"
)]

#[path = "network/chart.rs"]
mod chart;
#[path = "network/contenders.rs"]
mod contenders;
#[path = "network/floor.rs"]
mod floor;
#[path = "../lab/equipment.rs"]
mod lab;
#[path = "network/load.rs"]
mod load;
#[path = "network/place.rs"]
mod place;

use std::time::Duration;

use anyhow::{Context, Result};
use contenders::Contender;
use load::Measured;
use place::Place;

fn main() -> Result<()> {
    if let Some(namespaces) = std::env::var_os("PUNCHLAN_BENCH_FLOOR") {
        return floor::run(namespaces.to_str().context("two names")?);
    }
    // Cargo passes `--bench`; numbers are ours.
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let (rounds, seconds) = (numbers.next().unwrap_or(5), numbers.next().unwrap_or(3));
    let only = std::env::var("BENCH_ONLY").ok();
    let all: Vec<Contender> = contenders::all()
        .into_iter()
        .filter(|c| only.as_ref().is_none_or(|only| only.split(',').any(|part| c.name.contains(part))))
        .collect();
    let mut results: Vec<Vec<Measured>> = all.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (contender, results) in all.iter().zip(&mut results) {
            eprintln!("round {round} of {rounds}: {}", contender.name);
            match measure(contender, Duration::from_secs(seconds)) {
                Ok(measured) => results.push(measured),
                Err(error) => eprintln!("  {}: {error:#}", contender.name),
            }
        }
    }
    print_table(&all, &results);
    let chart = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench.svg");
    std::fs::write(&chart, chart::draw(&all, &results))?;
    println!("\ndrawn: target/bench.svg");
    Ok(())
}

/// One contender, once.
fn measure(contender: &Contender, time: Duration) -> Result<Measured> {
    let place = Place::build()?;
    let running = (contender.start)(&place)?;
    load::measure(&place, &running, time)
}

/// What a column shows of one.
type Value = fn(&Measured) -> Option<f64>;

/// The columns: what they are called, and what they show.
pub(crate) const COLUMNS: [(&str, Value, usize); 10] = [
    ("TCP ×1 Mbit/s", |m| Some(m.tcp), 0),
    ("TCP ×4", |m| Some(m.tcp4), 0),
    ("reverse", |m| Some(m.reverse), 0),
    ("CPU s/GB", |m| m.cpu, 2),
    ("100 B k/s", |m| Some(m.small / 1e3), 0),
    ("1,200 B Mbit/s", |m| Some(m.datagrams), 0),
    ("ping p50 / ms", |m| Some(m.idle.0), 2),
    ("loaded p50", |m| Some(m.loaded.0), 2),
    ("loaded p99", |m| Some(m.loaded.1), 2),
    ("memory MB", |m| m.memory, 1),
];

fn print_table(all: &[Contender], results: &[Vec<Measured>]) {
    print!("{:<22}", "");
    COLUMNS.iter().for_each(|(name, ..)| print!("{name:>22}"));
    println!();
    for (contender, results) in all.iter().zip(results) {
        print!("{:<22}", contender.name);
        for (_, value, digits) in COLUMNS {
            let cell = spread(results, value).map_or("–".to_owned(), |(low, median, high)| {
                format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
            });
            print!("{cell:>22}");
        }
        println!();
    }
    for (contender, results) in all.iter().zip(results) {
        let of_relay = |value: Value| spread(results, value).map(|(_, median, _)| median);
        let [stream, packets] =
            [|m: &Measured| Some(m.relay?.stream), |m: &Measured| Some(m.relay?.packets / 1e3)].map(of_relay);
        if let (Some(stream), Some(packets)) = (stream, packets) {
            println!(
                "{}: a core of the relay carries {stream:.0} Mbit/s of a stream, {packets:.0} k/s of 100 B",
                contender.name
            );
        }
    }
}

/// Least, median, most.
pub(crate) fn spread(results: &[Measured], value: Value) -> Option<(f64, f64, f64)> {
    let mut values: Vec<f64> = results.iter().filter_map(value).collect();
    values.sort_by(f64::total_cmp);
    Some((*values.first()?, values[values.len() / 2], *values.last()?))
}
