//! `punchlan lab`: the laboratory as a command.
//!
//! The laboratory blocks, so it has a thread of its own. The first signal is passed to it as an interrupt: it stops
//! waiting, and takes down what it built before this returns.

mod chart;
mod table;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;
use serde::Serialize;

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
        return output::answer(&if args.json { json(&list())? } else { table::gateways() });
    }
    let plan = plan(args)?;
    args.svg.as_deref().map_or(Ok(()), can_be_written)?;
    let matrix = block_on(run_all(plan))?;
    output::answer(&if args.json { json(&matrix)? } else { table::matrix(&matrix) })?;
    args.svg.as_deref().map_or(Ok(()), |path| draw(path, &matrix))?;
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

/// Every kind of router, for programs.
fn list() -> serde_json::Value {
    let entry = |gateway: &Gateway| serde_json::json!({ "name": gateway.name(), "description": gateway.about() });
    Gateway::ALL.iter().map(entry).collect()
}

fn json(answer: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(answer)
        .map_err(|error| Failure::Failed(format!("the answer has no JSON form: {error}")))
}

/// Tried before the run, which may take an hour. What the file holds stays until there is something in its place.
fn can_be_written(path: &Path) -> Result<(), Failure> {
    let is_new = path.symlink_metadata().is_err();
    let opened = OpenOptions::new().append(true).create(true).open(path);
    let tried = opened.and_then(|_| if is_new { fs::remove_file(path) } else { Ok(()) });
    tried.map_err(|error| not_written(path, &error))
}

/// Draws it, if there is anything to draw.
fn draw(path: &Path, matrix: &Matrix) -> Result<(), Failure> {
    if matrix.cells.is_empty() {
        output::note(&format!("no pair has met: {} is left as it was", path.display()));
        return Ok(());
    }
    fs::write(path, chart::draw(matrix)).map_err(|error| not_written(path, &error))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lab::matrix::{Cell, Summary};

    fn matrix(cells: Vec<Cell>) -> Matrix {
        let summary = Summary { cells: 0, ways: BTreeMap::new(), unexpected: 0, first_ping_ms: None, direct_ms: None };
        Matrix {
            schema: 1,
            version: "",
            runs: 1,
            rendezvous_delay_ms: 0,
            interrupted: cells.is_empty(),
            gateways: Vec::new(),
            cells,
            summary,
        }
    }

    fn cell() -> Cell {
        let name = || Gateway::Public.name().to_owned();
        Cell {
            a: name(),
            b: name(),
            expected: vec![Way::Direct],
            as_expected: true,
            way: Way::Direct,
            first_ping_ms: None,
            direct_ms: None,
            runs: Vec::new(),
        }
    }

    #[test]
    fn an_old_picture_stays_until_there_is_another_and_where_there_was_none_nothing_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (folder.path().join("old.svg"), folder.path().join("new.svg"));
        fs::write(&old, "the old one").expect("written");
        for path in [&old, &new] {
            can_be_written(path).map_err(|_| ()).expect("it can");
            draw(path, &matrix(Vec::new())).map_err(|_| ()).expect("nothing to do");
        }
        assert_eq!(fs::read_to_string(&old).expect("there"), "the old one");
        assert!(!new.exists());
        draw(&old, &matrix(vec![cell()])).map_err(|_| ()).expect("drawn");
        assert!(fs::read_to_string(&old).expect("there").starts_with("<svg"));
    }

    #[test]
    fn a_path_that_cannot_be_written_is_noticed_before_the_run() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in [folder.path().to_owned(), folder.path().join("no/such/folder.svg")] {
            assert!(matches!(can_be_written(&path), Err(Failure::Failed(text)) if text.contains("cannot be written")));
        }
    }
}
