//! Where it is measured.

use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use crate::lab::netns::{self, Namespace};

/// The ends of the link.
pub const A: &str = "192.0.2.1";
pub const B: &str = "192.0.2.2";
/// The rendezvous, for both.
pub const RENDEZVOUS: &str = "198.51.100.1";

/// Two machines with a link, and a third that both reach.
pub struct Place {
    pub a: Namespace,
    pub b: Namespace,
    pub rv: Namespace,
    folder: TempDir,
}

impl Place {
    pub fn build() -> Result<Self> {
        let lab = netns::lab_name(0);
        let [a, b, rv] = ["a", "b", "rv"].map(|role| Namespace::new(&lab, role));
        let (a, b, rv) = (a?, b?, rv?);
        a.ip(&format!(
            "link add link0 type veth peer name link0 netns {}
             link add far0 type veth peer name a0 netns {}
             addr add {A}/24 dev link0
             addr add 198.51.100.5/30 dev far0
             link set link0 up
             link set far0 up
             route add {RENDEZVOUS}/32 dev far0",
            b.name(),
            rv.name(),
        ))?;
        b.ip(&format!(
            "link add far0 type veth peer name b0 netns {}
             addr add {B}/24 dev link0
             addr add 198.51.100.9/30 dev far0
             link set link0 up
             link set far0 up
             route add {RENDEZVOUS}/32 dev far0",
            rv.name(),
        ))?;
        rv.ip(&format!(
            "addr add {RENDEZVOUS}/32 dev lo
             addr add 198.51.100.6/30 dev a0
             addr add 198.51.100.10/30 dev b0
             link set a0 up
             link set b0 up"
        ))?;
        Ok(Self { a, b, rv, folder: tempfile::Builder::new().prefix("plt-").tempdir()? })
    }

    /// For files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
