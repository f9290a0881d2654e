//! L8: where logs go: to stderr, in words, as much of them as was asked for.
//!
//! `-v` shows what happens, `-vv` every packet's fate; `PUNCHLAN_LOG` says it as a level (`debug`) or in detail, in the
//! language of tracing (`punchlan=info,punchlan::punch=trace`), and wins. Colours are for terminals. What a file says may change
//! while the program runs ([`Logging::set`]).

use std::io::IsTerminal as _;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The variable that says what to log.
pub const VARIABLE: &str = "PUNCHLAN_LOG";

/// Newer kernels send attributes that the netlink library warns about, to nobody's use.
const QUIET: &str = "netlink_packet_route=error";

/// `PUNCHLAN_LOG` is not understood. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}={value:?} is not understood: {why}; for example: {VARIABLE}=punchlan=debug")]
pub struct LogError {
    value: String,
    why: String,
}

/// A log that has begun.
#[derive(Debug)]
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    /// Something was typed at the start, which wins over every file.
    typed: bool,
}

/// Begins to log. `verbose`: how many `-v` were typed; `configured`: what a file says, if it says something.
///
/// # Errors
/// `PUNCHLAN_LOG` is not understood.
pub fn init(verbose: u8, configured: Option<&str>) -> Result<Logging, LogError> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let variable = variable.map(|value| value.to_string_lossy().into_owned());
    let typed = verbose > 0 || variable.is_some();
    let (filter, handle) = reload::Layer::new(filter(verbose, configured, variable)?);
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(verbose > 0)
        .with_ansi(std::io::stderr().is_terminal() && !no_color);
    let registry = tracing_subscriber::registry().with(filter);
    // A second call, by a test, changes nothing.
    let _ = match is_journal {
        true => registry.with(lines.without_time()).try_init(),
        false => registry.with(lines).try_init(),
    };
    Ok(Logging { filter: handle, typed })
}

impl Logging {
    /// Logs as a file says from now on; `false` if what was typed at the start wins.
    pub fn set(&self, configured: Option<&str>) -> bool {
        let filter = filter(0, configured, None).expect("without the variable there is nothing to misunderstand");
        // The log is as old as the process: it is there.
        !self.typed && self.filter.reload(filter).is_ok()
    }
}

/// Whether `text` says what to log.
///
/// # Errors
/// Why not.
pub fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop).map_err(|why| format!("{text:?} is not understood: {why}"))
}

/// The variable wins, then what was typed, then what a file says.
fn filter(verbose: u8, configured: Option<&str>, variable: Option<String>) -> Result<EnvFilter, LogError> {
    if let Some(value) = variable {
        return parse(&value).map_err(|why| LogError { value, why });
    }
    let text = match (verbose, configured) {
        (0, Some(configured)) => configured,
        (0, None) => "info",
        (1, _) => "debug",
        _ => "trace",
    };
    Ok(parse(text).unwrap_or_else(|_| EnvFilter::new(QUIET)))
}

/// A bare level means this program: the libraries' talk would drown it. Any other bare word is a slip: tracing takes it
/// for the name of a module that there is not, and would say nothing at all.
fn parse(text: &str) -> Result<EnvFilter, String> {
    const POSSIBLE: &str = "possible are off, error, warn, info, debug and trace, or one of these for a module, as \
                            punchlan::relay=debug";
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_plain = |word: &&str| !word.contains(['=', '[', ']', '{', '}']);
    let slip = text.split(',').map(str::trim).filter(is_plain).find(|word| {
        let is_ours = *word == "punchlan" || word.starts_with("punchlan::");
        !is_level(word) && !is_ours
    });
    if let Some(word) = slip {
        return Err(format!("{word:?} is no level; {POSSIBLE}"));
    }
    let text = match text.trim() {
        "off" => "off".to_owned(),
        level if is_level(level) => format!("{QUIET},punchlan={level}"),
        text => format!("{QUIET},{text}"),
    };
    EnvFilter::try_new(text).map_err(|error| format!("{error}; {POSSIBLE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_then_what_was_typed_then_the_file_and_nonsense_is_named() {
        let text = |verbose, file, variable: Option<&str>| {
            filter(verbose, file, variable.map(str::to_owned)).map(|filter| filter.to_string())
        };
        assert_eq!(text(0, None, None).expect("default"), "netlink_packet_route=error,punchlan=info");
        assert_eq!(text(0, Some("punchlan=warn"), None).expect("file"), "netlink_packet_route=error,punchlan=warn");
        assert_eq!(text(2, Some("off"), None).expect("typed"), "netlink_packet_route=error,punchlan=trace");
        assert_eq!(text(2, None, Some("off")).expect("variable"), "off");
        assert_eq!(text(0, Some("debug"), None).expect("a level"), "netlink_packet_route=error,punchlan=debug");
        assert_eq!(text(0, None, Some("debug")).expect("a level"), "netlink_packet_route=error,punchlan=debug");
        let error = text(0, None, Some("punchlan=loud")).expect_err("no level").to_string();
        assert!(error.contains("punchlan=loud") && error.contains("PUNCHLAN_LOG=punchlan=debug"), "{error}");
        assert!(check("punchlan=loud").is_err() && check("punchlan=info,punchlan::relay=debug").is_ok());
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_what_is_possible() {
        for slip in ["loud", "wran", "", " ", "punchlan=info,wran", "inf", "punchlna"] {
            let why = check(slip).expect_err(slip);
            assert!(why.contains("off, error, warn, info, debug and trace"), "{slip}: {why}");
        }
        for good in
            ["off", "WARN", "trace", "punchlan", "punchlan::relay", "warn,punchlan::punch=trace", "a[b{c=1}]=info"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }
}
