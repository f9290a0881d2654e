//! `punchlan completions` and `punchlan man`: made from the definition of the command line, so that they cannot lie.

use clap::CommandFactory as _;

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
    let page = clap_mangen::Man::new(program.clone());
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    page.render_extra_section(&mut text)?;
    let mut text = String::from_utf8_lossy(&text).replace(".SH EXTRA", ".SH USE");
    for command in program.get_subcommands() {
        let mut part = Vec::new();
        let page = clap_mangen::Man::new(command.clone());
        page.render_synopsis_section(&mut part)?;
        page.render_description_section(&mut part)?;
        page.render_options_section(&mut part)?;
        page.render_extra_section(&mut part)?;
        let part = String::from_utf8_lossy(&part).replace(".SH EXTRA", ".SH EXAMPLES").replace(".SH ", ".SS ");
        text += &(heading(command) + &part);
    }
    Ok(text)
}

/// A section of the page for one command.
fn heading(command: &clap::Command) -> String {
    format!(".SH \"PUNCHLAN {}\"\n", command.get_name().to_uppercase())
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
        assert!(page.starts_with(".ie") || page.contains(".TH punchlan 1"), "{}", &page[..80]);
    }
}
