//! `punchlan forget`: free the address and name of a member who is gone.

use super::args::Forget;
use super::daemons::{PATIENCE, select, unexpected};
use super::{Failure, block_on, output};
use crate::control::{Request, Response};

pub(super) fn run(args: &Forget) -> Result<(), Failure> {
    block_on(async {
        let mut daemon = select(&args.select).await?;
        match daemon.client.ask(&Request::Forget { name: args.name.clone() }, PATIENCE).await? {
            Response::Done => output::answer(&format!("The address and the name of {} are free.", args.name)),
            Response::Refused { code, text } => Err(Failure::refused(code, &text)),
            other => Err(unexpected(&other)),
        }
    })
}
