//! `punchlan completions` and `punchlan man`: made from the definition of the command line, so that they cannot lie.

use clap::{Arg, ArgAction, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::args::{Args, Completions};
use super::{Failure, output};

/// What completes the command line in a shell.
pub(super) fn completions(args: &Completions) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "punchlan", &mut text);
    output::answer(String::from_utf8_lossy(&text).trim_end())
}

/// The manual page: the program, then each command.
pub(super) fn man() -> Result<(), Failure> {
    output::answer(page().map_err(|error| Failure::Failed(format!("no manual: {error}")))?.trim_end())
}

/// One page: a page for each command would have to be found, and installed, by somebody.
fn page() -> std::io::Result<String> {
    let mut program = Args::command().disable_help_subcommand(true);
    program.build();
    let page = Man::new(program.clone());
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    let mut text = String::from_utf8_lossy(&text).into_owned() + &verbatim("SH", "USE", &after_help(&program));
    for command in program.get_subcommands() {
        let mut part = Vec::new();
        let page = Man::new(command.clone().override_usage(synopsis(command)));
        page.render_synopsis_section(&mut part)?;
        page.render_description_section(&mut part)?;
        let help = after_help(command);
        let (more, examples) = EXAMPLES.iter().find_map(|heading| help.split_once(heading)).unwrap_or((&help, ""));
        if !more.trim().is_empty() {
            Roff::new().control("PP", []).text([roman(more.trim_end())]).to_writer(&mut part)?;
        }
        page.render_options_section(&mut part)?;
        let part = String::from_utf8_lossy(&part).replace(".SH ", ".SS ");
        text += &(heading(command) + &part + &verbatim("SS", "EXAMPLES", examples));
    }
    Ok(text)
}

/// What stands above the examples of a command's help.
const EXAMPLES: [&str; 2] = ["Examples:\n", "Example:\n"];

/// A section of the page for one command.
fn heading(command: &clap::Command) -> String {
    format!(".SH \"PUNCHLAN {}\"\n", command.get_name().to_uppercase())
}

fn after_help(command: &clap::Command) -> String {
    command.get_after_help().map(ToString::to_string).unwrap_or_default()
}

/// A section whose lines stay as they are.
fn verbatim(level: &str, title: &str, text: &str) -> String {
    let text = text.trim_end();
    Roff::new().control(level, [title]).control("nf", []).text([roman(text)]).control("fi", []).render()
}

/// `punchlan init [--rendezvous HOST[:PORT]]... [FILE]`: with the values, which the usual one leaves out.
fn synopsis(command: &clap::Command) -> String {
    let mut text = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let arguments = command.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help");
    let (values, options): (Vec<&Arg>, Vec<&Arg>) = arguments.partition(|arg| arg.is_positional());
    for arg in options.into_iter().chain(values) {
        let flag = match (arg.get_long(), arg.get_short()) {
            (Some(long), _) => format!("--{long}"),
            (None, Some(short)) => format!("-{short}"),
            (None, None) => String::new(),
        };
        let value = arg.get_value_names().filter(|_| arg.get_action().takes_values()).unwrap_or_default().join(" ");
        let one = format!("{flag} {value}").trim().to_owned();
        let one = if arg.is_required_set() { one } else { format!("[{one}]") };
        let more = if matches!(arg.get_action(), ArgAction::Append) { "..." } else { "" };
        text += &format!(" {one}{more}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_names_every_command() {
        let page = page().expect("a page");
        for command in Args::command().get_subcommands().filter(|command| command.get_name() != "help") {
            assert!(page.contains(&heading(command)), "{}", command.get_name());
        }
        assert!(page.contains("init\\fR [\\-\\-rendezvous HOST[:PORT]]... [\\-\\-network NAME]"), "{page}");
        assert!(page.contains(".SS EXAMPLES\n.nf\n  punchlan invite\n"), "{page}");
        assert!(!page.contains("Examples:"), "{page}");
        assert!(page.starts_with(".ie") || page.contains(".TH punchlan 1"), "{}", &page[..80]);
    }
}
