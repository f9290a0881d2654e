//! The programs that the laboratory runs beside punchlan itself.

use super::SitePlan;

/// A program, and the Debian package that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// What is run.
    pub program: &'static str,
    /// What is installed.
    pub package: &'static str,
}

const ALWAYS: [Tool; 3] = [
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "nft", package: "nftables" },
    Tool { program: "ping", package: "iputils-ping" },
];

/// Maps the ports of routers that do.
pub const MINIUPNPD: Tool = Tool { program: "miniupnpd", package: "miniupnpd-nftables" };

/// What these sites need and `PATH` does not have.
pub fn missing(sites: &[SitePlan]) -> Vec<Tool> {
    let maps = sites.iter().any(|site| site.gateway().offer().is_some());
    ALWAYS.into_iter().chain(maps.then_some(MINIUPNPD)).filter(|tool| !tool.is_installed()).collect()
}

impl Tool {
    /// Whether it is in a folder of `PATH`.
    pub fn is_installed(&self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(self.program).is_file())
    }
}
