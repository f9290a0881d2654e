//! `punchlan lab`: the laboratory as a command.
//!
//! The laboratory blocks, so it has a thread of its own. The first signal is passed to it as an interrupt: it stops
//! waiting, and takes down what it built before this returns.

mod chart;
mod table;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;

use super::args::Lab;
use super::{Failure, block_on, output};
use crate::io::signal::{self, Reloads};
use crate::lab::matrix::{self, Matrix, News, Plan};
use crate::lab::oracle::Way;
use crate::lab::{Gateway, SitePlan, interrupt, tools};

/// Of each sort of router the one that is met most: what most are, what mobile networks are, and what defies naming.
const USUAL: [Gateway; 5] =
    [Gateway::Public, Gateway::Masquerade, Gateway::CarrierCone, Gateway::SymmetricSequential, Gateway::Symmetric];

pub(super) fn run(args: &Lab) -> Result<(), Failure> {
    if args.list {
        return output::answer(&table::gateways());
    }
    let plan = plan(args)?;
    let mut picture = args.svg.as_deref().map(create).transpose()?;
    let matrix = block_on(run_all(plan))?;
    output::answer(&if args.json { json(&matrix)? } else { table::matrix(&matrix) })?;
    if let (Some(file), Some(path)) = (&mut picture, &args.svg) {
        file.write_all(chart::draw(&matrix).as_bytes()).map_err(|error| not_written(path, &error))?;
    }
    verdict(&matrix)
}

/// What to do, if it can be done here.
fn plan(args: &Lab) -> Result<Plan, Failure> {
    let mut sites = sites(args);
    if !geteuid().is_root() {
        return Err(Failure::NotPermitted(
            "the laboratory makes network namespaces, which needs root\n  help: put sudo before the command".to_owned(),
        ));
    }
    let mut missing = tools::missing(&sites);
    if args.all && missing.contains(&tools::MINIUPNPD) {
        missing.retain(|tool| *tool != tools::MINIUPNPD);
        let (maps, rest): (Vec<_>, _) = sites.into_iter().partition(|site| site.gateway().offer().is_some());
        sites = rest;
        let names: Vec<String> = maps.iter().map(ToString::to_string).collect();
        output::warn(&format!("left out: {}\n  help: {}", names.join(", "), install(&[tools::MINIUPNPD])));
    }
    if !missing.is_empty() {
        let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
        let programs = programs.join(", ");
        return Err(Failure::Failed(format!("not in any folder of PATH: {programs}\n  help: {}", install(&missing))));
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::Failed(format!("the system does not say where this program is: {error}")))?;
    let (runs, jobs) = (args.runs.into(), args.jobs.into());
    let rendezvous_delay = Duration::from_millis(args.rendezvous_delay);
    Ok(Plan { program, sites, runs, jobs, rendezvous_delay, meets: !args.check })
}

/// Each once.
fn sites(args: &Lab) -> Vec<SitePlan> {
    let mut sites: Vec<SitePlan> = match () {
        () if args.all => Gateway::ALL.map(SitePlan::from).to_vec(),
        () if args.gateways.is_empty() => USUAL.map(SitePlan::from).to_vec(),
        () => args.gateways.clone(),
    };
    let mut names = std::collections::BTreeSet::new();
    sites.retain(|site| names.insert(site.to_string()));
    sites
}

fn install(tools: &[tools::Tool]) -> String {
    let packages: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    format!("sudo apt install {} (they are in /usr/sbin, which belongs into PATH)", packages.join(" "))
}

async fn run_all(plan: Plan) -> Result<Matrix, Failure> {
    let stop = signal::stop().map_err(|error| Failure::Failed(format!("signals cannot be caught: {error}")))?;
    let mut hang_up =
        Reloads::catch().map_err(|error| Failure::Failed(format!("signals cannot be caught: {error}")))?;
    let mut running = tokio::task::spawn_blocking(move || matrix::run(&plan, &tell));
    let finished = tokio::select! {
        finished = &mut running => Some(finished),
        _ = stop => None,
        // The terminal is gone, and nobody wants the answer any more.
        () = hang_up.next() => None,
    };
    let finished = match finished {
        Some(finished) => finished,
        None => {
            output::progress("taking down what was built");
            interrupt::interrupt();
            running.await
        }
    };
    finished.map_err(|error| Failure::Failed(format!("the laboratory itself broke down: {error}")))
}

/// A line for what is done, for who waits.
fn tell(news: News<'_>) {
    match news {
        News::Gateway(gateway) => output::note(&table::verified(gateway)),
        News::Cell { cell, done, of, left } => {
            let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
            output::note(&format!("{done} of {of}: {} × {}: {}; {left} left", cell.a, cell.b, table::cell(cell)));
        }
    }
}

fn json(matrix: &Matrix) -> Result<String, Failure> {
    serde_json::to_string_pretty(matrix)
        .map_err(|error| Failure::Failed(format!("the answer has no JSON form: {error}")))
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| not_written(path, &error))
}

fn not_written(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{} cannot be written: {error}", path.display()))
}

/// Whether all that was done is as it must be.
fn verdict(matrix: &Matrix) -> Result<(), Failure> {
    let wrong = matrix.gateways.iter().filter(|gateway| gateway.wrong.is_some());
    let wrong: Vec<&str> = wrong.map(|gateway| gateway.name.as_str()).collect();
    let without = matrix.cells.iter().filter(|cell| cell.way == Way::None);
    let without: Vec<String> = without.map(|cell| format!("{} × {}", cell.a, cell.b)).collect();
    let complaints = [
        matrix.interrupted.then(|| "interrupted; what was built is gone".to_owned()),
        (!wrong.is_empty()).then(|| format!("not what they are called: {}", wrong.join(", "))),
        (!without.is_empty()).then(|| format!("without a connection: {}", without.join(", "))),
    ];
    let complaints: Vec<String> = complaints.into_iter().flatten().collect();
    if complaints.is_empty() { Ok(()) } else { Err(Failure::Failed(complaints.join("\n"))) }
}
