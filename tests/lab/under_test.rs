//! Real programs in the laboratory, of which one is the program under test.

use std::ops::{Deref, DerefMut};

use anyhow::Result;
use punchlan::lab::{Lab, programs};

pub use programs::{Flaws, NAME, PING_ON_WIRE, PING_PAYLOAD, Peer, Pings, Program, SUBNET, await_some, await_true};

/// The program under test.
pub const PUNCHLAN: &str = env!("CARGO_BIN_EXE_punchlan");

/// A virtual LAN of the program under test.
#[derive(Debug)]
pub struct Network(programs::Network);

impl Network {
    /// As the library's.
    pub fn start(lab: &Lab) -> Result<Self> {
        Ok(Self(programs::Network::start(lab, PUNCHLAN)?))
    }

    /// As the library's.
    pub fn without_rendezvous() -> Result<Self> {
        Ok(Self(programs::Network::without_rendezvous(PUNCHLAN)?))
    }
}

impl Deref for Network {
    type Target = programs::Network;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Network {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
