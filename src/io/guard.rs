//! Keeps out what reaches this machine for its overlay addresses by another interface than the overlay's.
//!
//! Linux takes a packet for any of its addresses on any interface (RFC 1122 §3.3.4.2, the weak host model), and in the
//! usual settings (`rp_filter` 0 or 2) from any source: whoever is on the same Wi-Fi can send as if from a member, and by
//! what the machine answers into the tunnel find out what is open there (CVE-2019-14899).
//!
//! The rule is nftables', in a table of its own that belongs to the process that made it, an `nft` that waits for more to
//! do: the kernel removes the table with it, and it ends with us, whichever way we do.

use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::addr::OverlayNet;

/// `nft` is looked at so often, and after such pauses, until it has done it: 2 s in all.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Stands until it is dropped.
#[derive(Debug)]
pub struct Guard {
    nft: Child,
}

impl Guard {
    /// Raises it for an interface and its overlay, and waits until it stands.
    ///
    /// # Errors
    /// There is no `nft` (`NotFound`), or it did not do it: what it says.
    pub async fn raise(interface: &str, overlay: &OverlayNet) -> io::Result<Self> {
        let table = format!("punchlan-{interface}");
        let mut command = Command::new("nft");
        command.arg("--interactive").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut guard = Self { nft: command.spawn()? };
        if let Some(orders) = &mut guard.nft.stdin {
            orders.write_all(rules(&table, interface, overlay).as_bytes())?;
        }
        for _ in 0..LOOKS {
            if stands(&table)? {
                return Ok(guard);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(io::Error::other(guard.complaint()))
    }

    /// What `nft` said instead of doing it.
    fn complaint(&mut self) -> String {
        let mut said = String::new();
        self.end();
        if let Some(errors) = &mut self.nft.stderr {
            let _ = errors.read_to_string(&mut said);
        }
        said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nft says nothing").to_owned()
    }

    fn end(&mut self) {
        let _ = self.nft.kill();
        let _ = self.nft.wait();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

fn rules(table: &str, interface: &str, overlay: &OverlayNet) -> String {
    let OverlayNet { v4, v6 } = overlay;
    let elsewhere = format!("iifname != {{ \"{interface}\", \"lo\" }}");
    format!(
        "add table inet {table} {{ flags owner; }}\n\
         add chain inet {table} in {{ type filter hook prerouting priority raw; }}\n\
         add rule inet {table} in {elsewhere} ip daddr {v4} counter drop\n\
         add rule inet {table} in {elsewhere} ip6 daddr {v6} counter drop\n"
    )
}

/// Whether the last rule is in force.
fn stands(table: &str) -> io::Result<bool> {
    let listed = Command::new("nft").args(["list", "table", "inet", table]).stderr(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&listed.stdout).contains("ip6 daddr"))
}
