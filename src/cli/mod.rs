//! L8: the command line. [`args`] is what was typed; each command has a file of its own that turns it into
//! what the program does and says.
//!
//! Answers go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or
//! configuration, 3 not permitted, 4 no such peer or nothing running.

pub mod args;
mod daemons;
mod down;
mod failure;
mod files;
mod forget;
mod games;
mod init;
mod invite;
mod join;
#[cfg(target_os = "linux")]
mod lab;
mod manual;
mod netcheck;
mod output;
mod ping;
mod reload;
mod rendezvous;
mod status;
mod up;
mod why;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::Parser as _;

use crate::log::Logging;
use args::{Args, Command};
pub use failure::Failure;

/// Runs the program with these arguments (the first is its own name).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => return output::usage(&error),
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output::failure(&failure),
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let verbose = args.verbose;
    // The files of a peer and of a rendezvous may say what to log.
    if !matches!(args.command, Command::Up(_) | Command::Rendezvous(_)) {
        begin_to_log(verbose, None)?;
    }
    match args.command {
        Command::Init(args) => init::run(args),
        Command::Invite(args) => invite::run(&args),
        Command::Join(args) => join::run(&args),
        Command::Up(args) => up::run(verbose, &args),
        Command::Down(args) => down::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Ping(args) => ping::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Games(args) => games::run(&args),
        Command::Netcheck(args) => netcheck::run(&args),
        #[cfg(target_os = "linux")]
        Command::Lab(args) => lab::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Forget(args) => forget::run(&args),
        Command::Rendezvous(args) => rendezvous::run(verbose, &args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man => manual::man(),
    }
}

fn begin_to_log(verbose: u8, configured: Option<&str>) -> Result<Logging, Failure> {
    crate::log::init(verbose, configured).map_err(|error| Failure::Usage(error.to_string()))
}

/// Runs a command that waits for something.
fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the system gives no event loop: {error}")))?;
    let result = runtime.block_on(command);
    // A name that is still being looked up would hold the exit for as long as its server does not answer.
    runtime.shutdown_background();
    result
}
