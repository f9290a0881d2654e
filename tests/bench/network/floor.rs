//! What any tunnel pays: packets read from one interface and written to the other, super-packets and all.

use std::fs::File;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use punchlan::io::net::{Addresses, Network};
use punchlan::io::tun::{LEAD, Tun};
use punchlan::offload::Offload;

/// The far end.
pub const B: &str = "10.82.0.2";
const A: &str = "10.82.0.1";
const MTU: u16 = 1_400;

/// Runs until it is killed. `namespaces`: two names.
pub fn run(namespaces: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tuns = Vec::new();
        for (namespace, address) in namespaces.split(' ').zip([A, B]) {
            setns(File::open(format!("/run/netns/{namespace}"))?, CloneFlags::CLONE_NEWNET)?;
            let tun = Tun::open("floor", MTU, Offload::All)?;
            let addresses = Addresses { v4: Some(format!("{address}/24").parse()?), v6: Vec::new() };
            Network::open()?.configure(&tun, MTU, &addresses).await.context("configured")?;
            tuns.push(tun);
        }
        let (mut there, mut back) = (vec![0; LEAD + (1 << 16)], vec![0; LEAD + (1 << 16)]);
        loop {
            let (from, to, buf, (vnet, len)) = tokio::select! {
                read = tuns[0].recv(&mut there, LEAD, &mut []) => (&tuns[0], &tuns[1], &mut there, read?),
                read = tuns[1].recv(&mut back, LEAD, &mut []) => (&tuns[1], &tuns[0], &mut back, read?),
            };
            let mut next = Some((vnet, len));
            for _ in 0..64 {
                let Some((vnet, len)) = next else { break };
                let _ = to.send_joined(&vnet, &buf[LEAD..LEAD + len], &[]);
                next = from.try_recv(buf, LEAD, &mut [])?;
            }
            if let Some((vnet, len)) = next {
                let _ = to.send_joined(&vnet, &buf[LEAD..LEAD + len], &[]);
            }
        }
    })
}
