//! L7: the rendezvous process. [`Core`] is all of it without I/O: the list of who is where
//! ([`crate::rendezvous::Server`]), the relay ([`crate::relay`]) and STUN.

mod core;

#[cfg(test)]
mod tests;

pub use self::core::{Config, Core, Verdict};
