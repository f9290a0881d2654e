//! What people see: answers on stdout, complaints on stderr, never a secret in them, and no fuss about a
//! reader that went away.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use comfy_table::{Row, Table, presets};

use super::Failure;
use crate::config::mask_keys;

/// What is good.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What deserves a look.
pub(super) const NOTABLE: Style = AnsiColor::Yellow.on_default();
/// What is not there.
pub(super) const FAINT: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// Whether answers are read by a person.
pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// `text` from elsewhere, without anything that moves a cursor or paints.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// `text` in bold.
pub(super) fn bold(text: &str) -> String {
    styled(BOLD, text)
}

/// `text` in a style; plain where nobody sees it.
pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Rows below faint headings.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    columns(headings, rows)
}

/// The same with as many columns as there are.
pub(super) fn columns<R: Into<Row>>(headings: impl Into<Row>, rows: impl IntoIterator<Item = R>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings).add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if i == 0 { 0 } else { 2 }, 0));
    }
    let lines = table.lines().enumerate().map(|(i, line)| {
        let line = line.trim_end();
        if i == 0 { styled(FAINT, line) + "\n" } else { line.to_owned() + "\n" }
    });
    lines.collect()
}

/// Says something on stdout. That the reader has gone is no failure.
pub(super) fn answer(text: &str) -> Result<(), Failure> {
    answer_reader(text).map(drop)
}

/// As [`answer`]; says whether somebody still reads.
pub(super) fn answer_reader(text: &str) -> Result<bool, Failure> {
    let mut stdout = anstream::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Failed(format!("the answer could not be written: {error}"))),
    }
}

/// Says on stderr what deserves a look.
pub(super) fn warn(text: &str) {
    complain(WARNING, "warning", text);
}

/// Says on stderr what is being done, for who waits.
pub(super) fn progress(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{FAINT}{text} …{FAINT:#}");
}

/// Says on stderr what has been done, for who waits.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "the laboratory's, which is Linux's"))]
pub(super) fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{FAINT}{}{FAINT:#}", harmless(text));
}

/// Says why a command failed.
pub(super) fn failure(failure: &Failure) -> ExitCode {
    complain(ERROR, "error", &failure.to_string());
    ExitCode::from(failure.code())
}

fn complain(style: Style, what: &str, text: &str) {
    // When stderr is gone too, the exit code still tells.
    let _ = writeln!(anstream::stderr().lock(), "{style}{what}{style:#}: {}", text.trim_end());
}

/// Shows help, the version, or what was mistyped.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let text = mask_keys(&error.render().ansi().to_string());
    let _ = if error.use_stderr() {
        write!(anstream::stderr().lock(), "{text}")
    } else {
        write!(anstream::stdout().lock(), "{text}")
    };
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
