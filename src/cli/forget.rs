//! `punchlan forget`: free the address and name of a member who is gone.

use super::args::Forget;
use super::daemons::{PATIENCE, select, unexpected};
use super::ping::is;
use super::{Failure, block_on, output};
use crate::control::{Request, Response};

pub(super) fn run(args: &Forget) -> Result<(), Failure> {
    block_on(async {
        let mut daemon = select(&args.select).await?;
        let me = &daemon.status.me;
        if is(&args.name, &me.name, &me.addresses) {
            return Err(Failure::Nothing(format!(
                "{} is this machine, which cannot be forgotten here\n  \
                 help: another `name` or `address` for it: under [peer] in net.toml",
                args.name
            )));
        }
        match daemon.client.ask(&Request::Forget { name: args.name.clone() }, PATIENCE).await? {
            Response::Done => output::answer(&format!("The address and the name of {} are free.", args.name)),
            Response::Refused { code, text } => Err(Failure::refused(code, &text)),
            other => Err(unexpected(&other)),
        }
    })
}
