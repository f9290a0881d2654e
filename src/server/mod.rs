//! L7: the rendezvous process. [`Core`] is all of it without I/O: the list of who is where
//! ([`crate::rendezvous::Server`]), the relay ([`crate::relay`]) and STUN; [`run`] puts it on sockets.

mod core;
mod process;
mod stun;

#[cfg(test)]
mod tests;

pub use self::core::{Config, Core, Verdict};
pub use self::process::{DEFAULT_LISTEN, Options, Ready, run};
