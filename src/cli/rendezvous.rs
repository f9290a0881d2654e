//! `punchlan rendezvous`: where members meet.

use super::Failure;
use super::args::RendezvousArgs;

pub(super) fn run(args: &RendezvousArgs) -> Result<(), Failure> {
    let _ = args;
    Err(Failure::Failed("not wired".into()))
}
