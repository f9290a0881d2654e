//! `punchlan forget`: free the address and name of a member who is gone.

use super::args::Forget;
use super::daemons::{PATIENCE, select, unexpected};
use super::{Failure, block_on, output};
use crate::control::{Request, Response};
use crate::node::status::PeerState;

pub(super) fn run(args: &Forget) -> Result<(), Failure> {
    block_on(async {
        let mut daemon = select(&args.select).await?;
        if daemon.status.peers.iter().any(|peer| peer.name == args.name && peer.state != PeerState::Offline) {
            return Err(Failure::Failed(format!(
                "{} is here, and would take address and name again at once\n  \
                 help: to keep a device out, put its id (from `punchlan status --json`) into `deny` in net.toml",
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
