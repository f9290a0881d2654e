//! L8: where logs go: to stderr, in words, as much of them as was asked for.
//!
//! `-v` shows what happens, `-vv` every packet's fate; `PUNCHLAN_LOG` says it in detail, in the language of
//! tracing (`punchlan=info,punchlan::punch=trace`), and wins. Colours are for terminals.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

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

/// Begins to log. `verbose`: how many `-v` were typed.
///
/// # Errors
/// `PUNCHLAN_LOG` is not understood.
pub fn init(verbose: u8) -> Result<(), LogError> {
    let typed = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let filter = filter(verbose, typed.map(|value| value.to_string_lossy().into_owned()))?;
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(verbose > 0)
        .with_ansi(std::io::stderr().is_terminal() && !no_color);
    // A second call, by a test, changes nothing.
    let _ = if is_journal { lines.without_time().try_init() } else { lines.try_init() };
    Ok(())
}

fn filter(verbose: u8, typed: Option<String>) -> Result<EnvFilter, LogError> {
    if let Some(value) = typed {
        return EnvFilter::try_new(&value).map_err(|error| LogError { value, why: error.to_string() });
    }
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    Ok(EnvFilter::new(format!("punchlan={level},{QUIET}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_wins_and_nonsense_is_named() {
        assert_eq!(filter(0, None).expect("default").to_string(), "netlink_packet_route=error,punchlan=info");
        assert_eq!(filter(2, None).expect("default").to_string(), "netlink_packet_route=error,punchlan=trace");
        assert_eq!(filter(2, Some("off".into())).expect("typed").to_string(), "off");
        let error = filter(0, Some("punchlan=loud".into())).expect_err("no level").to_string();
        assert!(error.contains("punchlan=loud") && error.contains("PUNCHLAN_LOG=punchlan=debug"), "{error}");
    }
}
