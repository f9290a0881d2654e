//! A laboratory's results for people.

use std::fmt::Write as _;

use crate::cli::output::{self, bold, harmless};
use crate::lab::Gateway;
use crate::lab::matrix::{Cell, Matrix, Run, Times};
use crate::lab::oracle::Way;
use crate::lab::verify::Verified;

/// So many columns of cells a terminal holds; more pairs are listed one below the other.
const WIDEST: usize = 6;

/// Every kind of router.
pub(super) fn gateways() -> String {
    output::table(
        ["name", "what it is"],
        Gateway::ALL.map(|gateway| [gateway.name(), gateway.about()].map(str::to_owned)),
    )
}

/// What was found of a gateway.
pub(super) fn verified(gateway: &Verified) -> String {
    let found = gateway.found.map(|found| found.to_string());
    match (&gateway.wrong, found) {
        (None, Some(found)) => format!("{}: as it should be ({found})", gateway.name),
        (None, None) => format!("{}: as it should be (no UDP passes)", gateway.name),
        (Some(wrong), Some(found)) => format!("{}: not what it is called: {found}; {wrong}", gateway.name),
        (Some(wrong), None) => format!("{}: not what it is called, or could not be looked at: {wrong}", gateway.name),
    }
}

/// `direct 0.06/0.41 s`.
pub(super) fn cell(cell: &Cell) -> String {
    let times: Vec<String> = [cell.first_ping_ms, cell.direct_ms].iter().flatten().map(|t| seconds(t.median)).collect();
    let times = if times.is_empty() { String::new() } else { format!(" {} s", times.join("/")) };
    let of_runs = cell.runs.iter().filter(|run| run.way == cell.way).count();
    let share = if of_runs == cell.runs.len() { String::new() } else { format!(" ({of_runs} of {})", cell.runs.len()) };
    format!("{}{times}{share}", cell.way)
}

fn seconds(milliseconds: u128) -> String {
    format!("{}.{:02}", milliseconds / 1000, milliseconds % 1000 / 10)
}

/// Everything.
pub(super) fn matrix(matrix: &Matrix) -> String {
    let mut text = String::new();
    if matrix.cells.is_empty() {
        matrix.gateways.iter().for_each(|gateway| text += &(verified(gateway) + "\n"));
        return text;
    }
    text += &if matrix.gateways.len() <= WIDEST { grid(matrix) } else { list(matrix) };
    text += &summary(matrix);
    for cell in matrix.cells.iter().filter(|cell| !cell.as_expected) {
        let expected: Vec<String> = cell.expected.iter().map(Way::to_string).collect();
        let odd = cell.runs.iter().filter(|run| !run.is_expected(&cell.expected));
        let reasons: std::collections::BTreeSet<String> = odd.map(reason).collect();
        let reasons = reasons.into_iter().collect::<Vec<_>>().join("; ");
        let _ = writeln!(text, "{} × {}: expected was {}: {reasons}", cell.a, cell.b, expected.join(" or "));
    }
    text
}

/// The upper half: each pair once.
fn grid(matrix: &Matrix) -> String {
    let names: Vec<&str> = matrix.gateways.iter().map(|gateway| gateway.name.as_str()).collect();
    let found = |a: &str, b: &str| matrix.cells.iter().find(|cell| cell.a == a && cell.b == b);
    let row = |a: &&str| {
        let cells = names.iter().map(|b| found(a, b).map(shown).unwrap_or_default());
        std::iter::once((*a).to_owned()).chain(cells).collect::<Vec<String>>()
    };
    let headings: Vec<&str> = std::iter::once("").chain(names.iter().copied()).collect();
    output::columns(headings, names.iter().map(row))
}

fn list(matrix: &Matrix) -> String {
    let worst = |times: Option<Times>| times.map_or("–".to_owned(), |times| seconds(times.worst));
    let rows = matrix.cells.iter().map(|cell| {
        [format!("{} × {}", cell.a, cell.b), shown(cell), worst(cell.first_ping_ms), worst(cell.direct_ms)]
    });
    output::table(["pair", "median", "worst ping", "worst direct"], rows)
}

/// With a mark at what is not as expected.
fn shown(result: &Cell) -> String {
    format!("{}{}", cell(result), if result.as_expected { "" } else { " !" })
}

fn summary(matrix: &Matrix) -> String {
    let summary = &matrix.summary;
    let ways = Way::ALL.iter().filter_map(|way| Some(format!("{} {way}", summary.ways.get(way)?)));
    let as_expected = match summary.unexpected {
        0 => "all as expected".to_owned(),
        odd => format!("{} as expected, {odd} not (!)", summary.cells - odd),
    };
    let times = |times: Option<Times>| {
        times.map_or("never".to_owned(), |t| format!("{} s (worst {} s)", seconds(t.median), seconds(t.worst)))
    };
    format!(
        "\n{} {}; {as_expected}\n{} {}; direct after {}\n",
        bold(&format!("{} pairs:", summary.cells)),
        ways.collect::<Vec<_>>().join(", "),
        bold("First ping answered after"),
        times(summary.first_ping_ms),
        times(summary.direct_ms)
    )
}

/// Why a run became what it did.
fn reason(run: &Run) -> String {
    if let Some(error) = &run.error {
        return harmless(error);
    }
    let word = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".to_owned(),
    };
    let [here, there] = [run.cause, run.cause_there].map(|cause| word(serde_json::to_value(cause)));
    let cause = if here == there { here } else { format!("{here}, and on the other side {there}") };
    match run.search {
        Some(search) => {
            format!("{}, for punchlan why says {cause}, search {}", run.way, word(serde_json::to_value(search)))
        }
        None => format!("{}, for punchlan why says {cause}", run.way),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(way: Way, expected: Way) -> Cell {
        let run = Run {
            way,
            first_ping_ms: Some(61),
            direct_ms: Some(1_415),
            lost: Some(0),
            doubled: Some(0),
            paths: [None, None],
            cause: Some(crate::node::why::Cause::SymmetricHere),
            cause_there: Some(crate::node::why::Cause::SymmetricThere),
            explained: true,
            search: Some(crate::node::why::SearchState::InVain),
            error: None,
        };
        Cell {
            a: "public".to_owned(),
            b: "symmetric-random".to_owned(),
            expected: vec![expected],
            as_expected: way == expected,
            way,
            first_ping_ms: Times::of([61].into_iter()),
            direct_ms: way.is_direct().then_some(Times { median: 1_415, worst: 1_415 }),
            runs: vec![run],
        }
    }

    #[test]
    fn a_cell_says_how_and_how_soon() {
        assert_eq!(cell(&result(Way::Search, Way::Search)), "search 0.06/1.41 s");
        assert_eq!(shown(&result(Way::Relayed, Way::Search)), "relayed 0.06 s !");
    }

    #[test]
    fn what_was_not_expected_has_a_reason() {
        let odd = reason(&result(Way::Relayed, Way::Search).runs[0]);
        assert_eq!(
            odd,
            "relayed, for punchlan why says symmetric-here, and on the other side symmetric-there, search in-vain"
        );
    }
}
