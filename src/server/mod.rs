//! L7: the rendezvous process. [`Core`] is all of it without I/O: the list of who is where
//! ([`crate::rendezvous::Server`]), the relay ([`crate::relay`]) and STUN; [`run`] puts it on sockets.

mod bind;
mod core;
mod process;
mod streams;
mod stun;

#[cfg(test)]
mod tests;

pub use self::bind::DEFAULT_LISTEN;
pub use self::core::{Config, Core, Verdict};
pub use self::process::{Options, Ready, Tls, Web, run};
pub use self::streams::{Limits as StreamLimits, MOST as MOST_STREAMS};
