//! `punchlan reload`: have a running peer read its net.toml again.

use super::args::Select;
use super::daemons::{PATIENCE, select, unexpected};
use super::{Failure, block_on, output};
use crate::control::{Request, Response};

pub(super) fn run(args: &Select) -> Result<(), Failure> {
    block_on(async {
        let mut daemon = select(args).await?;
        match daemon.client.ask(&Request::Reload, PATIENCE).await? {
            Response::Reloaded { changes } if changes.is_empty() => output::answer("Nothing has changed."),
            Response::Reloaded { changes } => output::answer(&output::harmless(&changes.join("\n"))),
            Response::Refused { code, text } => Err(Failure::refused(code, &text)),
            other => Err(unexpected(&other)),
        }
    })
}
